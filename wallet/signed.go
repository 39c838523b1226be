package wallet

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"time"

	"chancery/verifier/strictjson"

	"github.com/go-jose/go-jose/v4"
)

// metadataType is signed metadata's typ (OpenID4VCI 1.0 §12.2.3).
const metadataType = "openidvci-issuer-metadata+jwt"

// clockSkew is how far into the future a time of the issuer's may lie.
const clockSkew = time.Minute

// signedMetadata asks for the signed form of the metadata and holds it against
// the plain form (OpenID4VCI 1.0 §12.2.3).
func (w *Wallet) signedMetadata(ctx context.Context, issuer string, plain map[string]any) error {
	location, err := wellKnown(issuer, "openid-credential-issuer")
	if err != nil {
		return failed(StepMetadata, err)
	}
	a, err := w.do(ctx, request{step: StepMetadata, method: http.MethodGet, target: location, header: map[string]string{"Accept": jwtType}})
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return a.failure()
	}
	if err := a.mediaType(jwtType); err != nil {
		return err
	}
	claims, err := openMetadata(string(a.body), w.MetadataAnchors, w.now())
	if err != nil {
		return a.wrong("signed metadata: %v", err)
	}
	if err := checkMetadataClaims(claims, issuer, plain, w.now()); err != nil {
		return a.wrong("signed metadata: %v", err)
	}
	return nil
}

// openMetadata verifies type, chain and signature and returns the claims.
// Without anchors the chain may lead anywhere.
func openMetadata(compact string, anchors []*x509.Certificate, now time.Time) (map[string]any, error) {
	first, _, _ := strings.Cut(compact, ".")
	data, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return nil, errors.New("it is no compact JWS")
	}
	header, err := strictjson.Object(data)
	if err != nil {
		return nil, err
	}
	if header["typ"] != metadataType {
		return nil, errors.New("typ is not " + metadataType)
	}
	chain, err := headerChain(header, anchors, now)
	if err != nil {
		return nil, err
	}
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA})
	if err != nil {
		return nil, errors.New("it is not signed with ES256, ES384, ES512 or EdDSA")
	}
	payload, err := signed.Verify(chain[0].PublicKey)
	if err != nil {
		return nil, errors.New("the signature is not by the certificate's key")
	}
	return strictjson.Object(payload)
}

// headerChain reads x5c: leaf first, the leaf not self-signed, the anchor left
// out, and leading to an anchor if there are any (HAIP 1.0 §4.1).
func headerChain(header map[string]any, anchors []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	list, err := texts(header, "x5c")
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, anchor := range anchors {
		roots.AddCert(anchor)
	}
	for _, item := range list {
		der, err := base64.StdEncoding.Strict().DecodeString(item)
		if err != nil {
			return nil, errors.New("x5c is not base64")
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, errors.New("x5c holds something other than certificates")
		}
		if selfSigned(c) {
			return nil, errors.New("x5c holds a self-signed certificate: the anchor must be left out (HAIP 1.0 §4.1)")
		}
		if len(chain) > 0 {
			between.AddCert(c)
		}
		chain = append(chain, c)
	}
	for i, c := range chain {
		if i+1 < len(chain) && c.CheckSignatureFrom(chain[i+1]) != nil {
			return nil, errors.New("x5c is no chain, leaf first")
		}
	}
	if len(anchors) == 0 {
		return chain, nil
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return chain, err
}

// checkMetadataClaims checks sub, iat and exp, and that the rest is what the
// plain metadata says.
func checkMetadataClaims(claims map[string]any, issuer string, plain map[string]any, now time.Time) error {
	if claims["sub"] != issuer {
		return errors.New("sub is not the Credential Issuer Identifier")
	}
	issued, ok := date(claims["iat"])
	if !ok || issued.After(now.Add(clockSkew)) {
		return errors.New("iat is missing, no number or in the future")
	}
	if value, found := claims["exp"]; found {
		if end, ok := date(value); !ok || !end.After(now) {
			return errors.New("exp is no number or over")
		}
	}
	rest := maps.Clone(claims)
	for _, name := range []string{"iss", "sub", "iat", "exp"} {
		delete(rest, name)
	}
	for name := range plain {
		if !reflect.DeepEqual(plain[name], rest[name]) {
			return errors.New(name + " is missing or differs from the plain metadata")
		}
	}
	for name := range rest {
		if _, found := plain[name]; !found {
			return errors.New(name + " is not in the plain metadata")
		}
	}
	return nil
}

// date reads a NumericDate (RFC 7519 §2).
func date(value any) (time.Time, bool) {
	number, _ := value.(json.Number)
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > 1e11 {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}
