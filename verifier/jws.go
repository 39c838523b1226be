package verifier

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chancery/verifier/strictjson"
)

// jws is a compact JWS (RFC 7515 §7.1) taken apart.
type jws struct {
	header    map[string]any
	payload   map[string]any
	suite     suite
	keyID     string
	chain     [][]byte // x5c, DER, leaf first
	input     []byte   // signing input
	signature []byte
}

// unpad decodes base64url without padding; trailing bits must be zero, so that
// no two texts mean the same bytes.
func unpad(text string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

// parseJWS takes a compact JWS with a JSON payload apart. It trusts nothing in it.
func parseJWS(text string) (*jws, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("a compact JWS has 3 parts, this has %d", len(parts))
	}
	var raw [3][]byte
	for i, part := range parts {
		data, err := unpad(part)
		if err != nil {
			return nil, fmt.Errorf("part %d of the JWS is not base64url without padding", i+1)
		}
		raw[i] = data
	}
	j := &jws{input: []byte(parts[0] + "." + parts[1]), signature: raw[2]}
	var err error
	if j.header, err = strictjson.Object(raw[0]); err != nil {
		return nil, fmt.Errorf("the JWS header: %w", err)
	}
	if j.payload, err = strictjson.Object(raw[1]); err != nil {
		return nil, fmt.Errorf("the JWS payload: %w", err)
	}
	return j, j.readHeader()
}

func (j *jws) readHeader() error {
	alg, _ := j.header["alg"].(string)
	i := slices.IndexFunc(suites, func(s suite) bool { return s.name == alg })
	if i < 0 {
		return errors.New("the JWS header's alg is none of ES256, ES384, ES512, EdDSA")
	}
	j.suite = suites[i]
	for _, name := range []string{"crit", "b64"} {
		if _, found := j.header[name]; found {
			return fmt.Errorf("the JWS header has %q, which is not understood", name)
		}
	}
	if value, found := j.header["kid"]; found {
		var ok bool
		if j.keyID, ok = value.(string); !ok || j.keyID == "" {
			return errors.New("the JWS header's kid is no string")
		}
	}
	value, found := j.header["x5c"]
	if !found {
		return nil
	}
	list, _ := value.([]any)
	if len(list) == 0 || len(list) > 8 {
		return errors.New("the JWS header's x5c is no array of 1 to 8 certificates")
	}
	for _, item := range list {
		text, _ := item.(string)
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return errors.New("a certificate in x5c is not standard base64 (RFC 7515 §4.1.6)")
		}
		j.chain = append(j.chain, der)
	}
	return nil
}

// issuerKey finds the key that must have signed: x5c up to an anchor, a pinned
// key, or the issuer's did:web. The credential cannot choose to be trusted: a
// DID that anybody can make is trusted only when its key is pinned.
func (v *verification) issuerKey(j *jws, issuer string) (crypto.PublicKey, *x509.Certificate) {
	const source = "SD-JWT VC §2.5; DID Core §3.2"
	if len(j.chain) > 0 {
		leaf, anchor := v.chain(j.chain)
		if leaf == nil {
			return nil, nil
		}
		v.credentialSigner(leaf, anchor, issuer)
		return leaf.PublicKey, leaf
	}
	for _, key := range v.o.IssuerKeys {
		if checkedBy(j.suite, key, j.input, j.signature) == nil {
			v.pass(checkTrust, source, "the key is one that is trusted")
			return key, nil
		}
	}
	var key crypto.PublicKey
	err := fmt.Errorf("the credential has no x5c, its issuer is no DID, and none of the %d trusted keys signed it", len(v.o.IssuerKeys))
	switch {
	case strings.HasPrefix(issuer, "did:web:"):
		key, err = v.webKey(issuer, j.keyID)
	case strings.HasPrefix(issuer, "did:"):
		if key, err = selfContainedKey(issuer); err == nil {
			err = errors.New("anybody can make such a DID: pin its key with --issuer-key to trust it")
		}
	}
	v.verdict(checkTrust, source, err, "the key is in the DID document that the issuer's domain serves; the domain's TLS certificate is what is trusted")
	return key, nil
}

// credentialSigner holds the leaf of an SD-JWT VC or JWT VC against what such a
// certificate must be, and its names against the iss claim.
func (v *verification) credentialSigner(leaf, _ *x509.Certificate, issuer string) {
	const source = "SD-JWT VC §2.5; HAIP 1.0 §6.1.1"
	var faults []string
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		faults = append(faults, "key usage lacks digitalSignature")
	}
	if leaf.IsCA {
		faults = append(faults, "it is a CA")
	}
	if slices.ContainsFunc(leaf.UnknownExtKeyUsage, ekuDocumentSigner.Equal) {
		faults = append(faults, "it is a document signer, for mdoc alone")
	}
	v.faults("credential signer certificate", source, faults, "key usage fits")
	if issuer == "" {
		return
	}
	var uris []string
	for _, u := range leaf.URIs {
		uris = append(uris, u.String())
	}
	switch host := hostOf(issuer); {
	case slices.Contains(uris, issuer):
		v.pass("issuer named by the certificate", source, "iss is the certificate's URI")
	case host != "" && slices.Contains(leaf.DNSNames, host):
		v.pass("issuer named by the certificate", source, "iss is at the certificate's DNS name")
	default:
		v.fail("issuer named by the certificate", source, "the certificate names neither iss nor its host")
	}
}

// jwsSignature verifies the signature and records the algorithm.
func (v *verification) jwsSignature(j *jws, key crypto.PublicKey) {
	v.report.Algorithm = j.suite.name
	if key == nil {
		return
	}
	v.verdict(checkSignature, "RFC 7515 §5.2", checkedBy(j.suite, key, j.input, j.signature), j.suite.name+", verified with the issuer's key")
}

// numericDate reads a NumericDate claim (RFC 7519 §2); nil when absent.
func numericDate(payload map[string]any, name string) (*time.Time, error) {
	value, found := payload[name]
	if !found {
		return nil, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return nil, fmt.Errorf("%s is no number", name)
	}
	seconds, err := number.Int64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return nil, fmt.Errorf("%s is no whole number of seconds since 1970", name)
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}

// jwtTimes reads iat, nbf and exp into the report and checks the period.
func (v *verification) jwtTimes(payload map[string]any, source string) {
	var faults []string
	for _, claim := range []struct {
		name string
		to   **time.Time
	}{{"iat", &v.report.Signed}, {"nbf", &v.report.ValidFrom}, {"exp", &v.report.ValidUntil}} {
		t, err := numericDate(payload, claim.name)
		if err != nil {
			faults = append(faults, err.Error())
		}
		*claim.to = t
	}
	r := v.report
	if r.ValidFrom != nil && r.ValidUntil != nil && !r.ValidUntil.After(*r.ValidFrom) {
		faults = append(faults, "exp is not after nbf")
	}
	if r.Signed != nil && r.Signed.After(v.o.Now.Add(time.Minute)) {
		faults = append(faults, "iat is in the future")
	}
	if v.faults("times", source, faults, "well formed and in order") {
		v.period(source)
	}
}
