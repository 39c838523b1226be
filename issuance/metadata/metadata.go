// Package metadata prepares signed Credential Issuer Metadata (OpenID4VCI 1.0
// §12.2.3, HAIP 1.0 §4.1), complete but for the signature.
package metadata

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// MediaType is the typ header (OpenID4VCI 1.0 §12.2.3).
const MediaType = "openidvci-issuer-metadata+jwt"

// Material is what signed metadata holds besides the metadata itself.
type Material struct {
	// Issuer is the Credential Issuer Identifier: the sub claim, and iss too,
	// because an issuer attests its own metadata.
	Issuer string
	// Chain becomes x5c: the signer's certificate and its issuers without the
	// anchor, DER, leaf first (HAIP 1.0 §4.1).
	Chain [][]byte
	// Algorithm must be the one of the signing key.
	Algorithm issuance.Algorithm
	// IssuedAt and ExpiresAt are cut to whole seconds; ExpiresAt is the later one.
	IssuedAt, ExpiresAt time.Time
}

// The claims that the material makes, and those that no metadata may have: the
// further ones of RFC 7519 §4.1, which would say of the JWT what this program
// does not mean, and what earlier drafts embedded in the unsigned form.
var (
	own       = []string{"iss", "sub", "iat", "exp"}
	forbidden = []string{"nbf", "aud", "jti", "signed_metadata"}
)

// Prepare builds the signed form of the unsigned metadata, each of whose members
// becomes a claim with the same value; Assemble returns the compact JWS. The map
// is not changed. What [ParseTBS] would refuse is refused here.
func Prepare(metadata map[string]any, m Material) (*issuance.Prepared, error) {
	payload := make(map[string]any, len(metadata)+len(own))
	for name, value := range metadata {
		if slices.Contains(own, name) {
			return nil, fmt.Errorf("metadata: %q is the JWT's own claim: remove it", name)
		}
		payload[name] = value
	}
	payload["iss"], payload["sub"] = m.Issuer, m.Issuer
	for name, t := range map[string]time.Time{"iat": m.IssuedAt, "exp": m.ExpiresAt} {
		seconds, err := jws.NumericDate(t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		payload[name] = seconds
	}
	tbs, err := jws.Input(jws.Header{Algorithm: m.Algorithm, Type: MediaType, X5C: m.Chain}, payload)
	if err != nil {
		return nil, fmt.Errorf("the metadata cannot be encoded as JSON: %w", err)
	}
	if _, err := ParseTBS(tbs); err != nil {
		return nil, err
	}
	return issuance.NewPrepared(issuance.FormatMetadata, m.Algorithm, tbs, func(signature []byte) (string, error) {
		return jws.Join(tbs, signature), nil
	}), nil
}

// ParseTBS reads a signing input back: the header this package writes, one
// issuer in iss, sub and credential_issuer, times in order, and the members that
// all metadata has (OpenID4VCI 1.0 §12.2.4). Further members are the issuer's to
// choose. The statement has no types: the format says what it is.
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	header, claims, err := jws.Parse(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	if header.Type != MediaType || header.Algorithm.SignatureSize() == 0 || header.KeyID != "" {
		return issuance.Statement{}, fmt.Errorf("header: typ must be %s, alg known, and kid not there", MediaType)
	}
	if err := checkChain(header.X5C); err != nil {
		return issuance.Statement{}, err
	}
	s := issuance.Statement{Format: issuance.FormatMetadata, Algorithm: header.Algorithm, Chain: header.X5C}
	if s.Issuer, err = issuer(claims); err != nil {
		return issuance.Statement{}, err
	}
	if err := times(claims, &s); err != nil {
		return issuance.Statement{}, err
	}
	if err := checkMembers(claims); err != nil {
		return issuance.Statement{}, err
	}
	return s, nil
}

// checkChain demands certificates none of which is an anchor or a self-signed
// leaf (HAIP 1.0 §4.1). Whether they are the key's own, the signer knows.
func checkChain(chain [][]byte) error {
	if len(chain) == 0 {
		return errors.New("header: x5c is missing: wallets find the key by it")
	}
	for _, der := range chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return errors.New("header: x5c holds what is no certificate")
		}
		if bytes.Equal(certificate.RawSubject, certificate.RawIssuer) {
			return errors.New("header: x5c holds a certificate that is its own issuer: leave the anchor out, and have the leaf signed by it")
		}
	}
	return nil
}

// issuer reads the one identifier that stands in three places.
func issuer(claims map[string]any) (string, error) {
	subject, err := jws.String(claims, "sub")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"iss", "credential_issuer"} {
		if claims[name] != subject {
			return "", fmt.Errorf("%s must be the same as sub", name)
		}
	}
	return subject, nil
}

func times(claims map[string]any, s *issuance.Statement) (err error) {
	if s.Signed, err = jws.Date(claims, "iat"); err != nil {
		return err
	}
	if s.ValidUntil, err = jws.Date(claims, "exp"); err != nil {
		return err
	}
	if s.Signed.IsZero() || !s.ValidUntil.After(s.Signed) {
		return errors.New("iat and exp are required, in this order")
	}
	s.ValidFrom = s.Signed
	return nil
}

func checkMembers(claims map[string]any) error {
	for _, name := range forbidden {
		if _, has := claims[name]; has {
			return fmt.Errorf("%s cannot be in signed metadata: remove it", name)
		}
	}
	if _, err := jws.String(claims, "credential_endpoint"); err != nil {
		return err
	}
	if _, ok := claims["credential_configurations_supported"].(map[string]any); !ok {
		return errors.New("credential_configurations_supported is missing or not an object")
	}
	return nil
}
