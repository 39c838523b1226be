package verifier

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// authority is a CA with one signer certificate, made for a test.
type authority struct {
	root, leaf *x509.Certificate
	key        *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, change func(*x509.Certificate)) *authority {
	t.Helper()
	rootKey, key := otherKey(t), otherKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"UT"}, CommonName: "Root"},
		NotBefore: goldenNow.AddDate(0, 0, -9), NotAfter: goldenNow.AddDate(5, 0, 0), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	issuer, err := url.Parse("https://issuer.example/tenant")
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"UT"}, CommonName: "Signer"},
		NotBefore: goldenNow.AddDate(0, 0, -8), NotAfter: goldenNow.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		URIs: []*url.URL{issuer}, DNSNames: []string{"issuer.example"}, AuthorityKeyId: []byte{1}, SubjectKeyId: []byte{2}}
	if change != nil {
		change(leaf)
	}
	create := func(template, parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	root := create(template, template, rootKey.Public())
	return &authority{root: root, leaf: create(leaf, root, key.Public()), key: key}
}

// signJWS signs as RFC 7515 says, with the test's own few lines.
func signJWS(key crypto.Signer, header, payload any) string {
	h, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	p, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	return signText(key, encodeURL(h)+"."+encodeURL(p))
}

func signText(key crypto.Signer, input string) string {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256([]byte(input))
		sum := digest[:]
		if k.Curve == elliptic.P384() {
			wide := sha512.Sum384([]byte(input))
			sum = wide[:]
		}
		r, s, err := ecdsa.Sign(rand.Reader, k, sum)
		if err != nil {
			panic(err)
		}
		n := (k.Curve.Params().BitSize + 7) / 8
		return input + "." + encodeURL(slices.Concat(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))))
	case ed25519.PrivateKey:
		return input + "." + encodeURL(ed25519.Sign(k, []byte(input)))
	}
	panic("a key of another kind")
}

func jwkOf(key *ecdsa.PrivateKey) map[string]any {
	x, y := coordinates(key)
	return map[string]any{"kty": "EC", "crv": "P-256", "x": encodeURL(x), "y": encodeURL(y)}
}

// sdSample is an SD-JWT VC in parts.
type sdSample struct {
	key         crypto.Signer
	header      map[string]any
	payload     map[string]any
	disclosures []string
	tail        string
}

// disclose makes a disclosure and its digest.
func disclose(parts ...any) (text, digest string) {
	data, err := json.Marshal(parts)
	if err != nil {
		panic(err)
	}
	text = encodeURL(data)
	return text, disclosureDigest(crypto.SHA256, text)
}

func salt(i byte) string { return encodeURL(bytes.Repeat([]byte{i}, 16)) }

func newSDSample(t testing.TB, a *authority) *sdSample {
	t.Helper()
	given, givenDigest := disclose(salt(1), "given_name", "Erika")
	region, regionDigest := disclose(salt(2), "region", "UT-01")
	address, addressDigest := disclose(salt(3), "address", map[string]any{"country": "UT", "_sd": []string{regionDigest}})
	nation, nationDigest := disclose(salt(4), "UT")
	digests := []string{givenDigest, addressDigest, encodeURL(bytes.Repeat([]byte{9}, 32))}
	slices.Sort(digests)
	return &sdSample{
		key:    a.key,
		header: map[string]any{"alg": "ES256", "typ": "dc+sd-jwt", "x5c": []string{base64.StdEncoding.EncodeToString(a.leaf.Raw)}},
		payload: map[string]any{"vct": "urn:eudi:pid:1", "iss": "https://issuer.example/tenant", "iat": goldenNow.Unix() - 3600, "nbf": goldenNow.Unix() - 3600,
			"exp": goldenNow.Unix() + 3600, "cnf": map[string]any{"jwk": jwkOf(a.key)}, "_sd_alg": "sha-256", "_sd": digests,
			"nationalities": []any{map[string]any{"...": nationDigest}, map[string]any{"...": "decoy-digest"}}, "plain": true},
		disclosures: []string{given, region, address, nation},
	}
}

func (s *sdSample) build() []byte {
	text := signJWS(s.key, s.header, s.payload) + "~"
	for _, d := range s.disclosures {
		text += d + "~"
	}
	return []byte(text + s.tail)
}

func sdOptions(a *authority) Options {
	return Options{Now: goldenNow, Anchors: []*x509.Certificate{a.root}, Fresh: true}
}

func TestSDJWTSampleIsFlawless(t *testing.T) {
	a := newAuthority(t, nil)
	o := sdOptions(a)
	o.Type, o.Holder = "urn:eudi:pid:1", a.key.Public()
	r := verify(t, newSDSample(t, a).build(), o)
	expectVerified(t, r)
	for path, selective := range map[string]bool{"given_name": true, "address.country": true, "address.region": true, "nationalities.0": true, "plain": false, "vct": false} {
		if !slices.ContainsFunc(r.Claims, func(c Claim) bool { return strings.Join(c.Path, ".") == path && c.Selective == selective }) {
			t.Errorf("%s is not among the claims, or selective otherwise: %+v", path, r.Claims)
		}
	}
	if r.Issuer != "https://issuer.example/tenant" || r.Algorithm != "ES256" || len(r.Chain) != 2 {
		t.Errorf("report: %+v", r)
	}
}

func TestSDJWTWithOneDefect(t *testing.T) {
	for _, c := range []struct {
		name, check string
		spoil       func(*sdSample)
	}{
		{"draft's typ", checkEncoding, func(s *sdSample) { s.header["typ"] = "vc+sd-jwt" }},
		{"no typ", checkEncoding, func(s *sdSample) { delete(s.header, "typ") }},
		{"alg none", checkEncoding, func(s *sdSample) { s.header["alg"] = "none" }},
		{"crit", checkEncoding, func(s *sdSample) { s.header["crit"] = []string{"exp"} }},
		{"b64", checkEncoding, func(s *sdSample) { s.header["b64"] = false }},
		{"empty x5c", checkEncoding, func(s *sdSample) { s.header["x5c"] = []string{} }},
		{"x5c in base64url", checkEncoding, func(s *sdSample) { s.header["x5c"] = []string{"-_-_"} }},
		{"kid no string", checkEncoding, func(s *sdSample) { s.header["kid"] = 1 }},
		{"key binding at the end", checkEncoding, func(s *sdSample) { s.tail = "a.b.c" }},
		{"algorithm of another key", checkSignature, func(s *sdSample) { s.header["alg"] = "ES384" }},
		{"iss of another", "issuer named by the certificate", func(s *sdSample) { s.payload["iss"] = "https://other.example" }},
		{"iss no string", "iss", func(s *sdSample) { s.payload["iss"] = 7 }},
		{"no vct", "type", func(s *sdSample) { delete(s.payload, "vct") }},
		{"_sd_alg unknown", checkDisclosures, func(s *sdSample) { s.payload["_sd_alg"] = "md5" }},
		{"disclosure without place", checkDisclosures, func(s *sdSample) {
			extra, _ := disclose(salt(7), "extra", 1)
			s.disclosures = append(s.disclosures, extra)
		}},
		{"disclosure twice", checkDisclosures, func(s *sdSample) { s.disclosures = append(s.disclosures, s.disclosures[0]) }},
		{"disclosure with padding", checkDisclosures, func(s *sdSample) { s.disclosures[0] += "=" }},
		{"disclosure of four", checkDisclosures, func(s *sdSample) { s.add(salt(7), "a", 1, 2) }},
		{"disclosure no array", checkDisclosures, func(s *sdSample) { s.disclosures = append(s.disclosures, encodeURL([]byte(`{}`))) }},
		{"salt no string", checkDisclosures, func(s *sdSample) { s.add(1, "a", 1) }},
		{"claim named _sd", checkDisclosures, func(s *sdSample) { s.add(salt(7), "_sd", []string{}) }},
		{"claim named ...", checkDisclosures, func(s *sdSample) { s.add(salt(7), "...", "x") }},
		{"claim there in plain", checkDisclosures, func(s *sdSample) { s.add(salt(7), "plain", false) }},
		{"claim disclosed twice", checkDisclosures, func(s *sdSample) { s.add(salt(7), "given_name", "Max") }},
		{"exp in a disclosure", checkDisclosures, func(s *sdSample) { s.add(salt(7), "exp", 9999999999) }},
		{"status in a disclosure", checkDisclosures, func(s *sdSample) { s.add(salt(7), "status", map[string]any{}) }},
		{"part of vct in a disclosure", checkDisclosures, func(s *sdSample) {
			text, digest := disclose(salt(7), "x")
			s.disclosures = append(s.disclosures, text)
			s.payload["aka_vcts"] = []any{map[string]any{"...": digest}}
		}},
		{"part of cnf in a disclosure", checkDisclosures, func(s *sdSample) {
			text, digest := disclose(salt(7), "kid", "x")
			s.disclosures = append(s.disclosures, text)
			s.payload["cnf"].(map[string]any)["_sd"] = []string{digest}
		}},
		{"digest twice", checkDisclosures, func(s *sdSample) {
			s.payload["more"] = map[string]any{"_sd": []string{s.payload["_sd"].([]string)[0]}}
		}},
		{"digest no string", checkDisclosures, func(s *sdSample) { s.payload["_sd"] = []any{1} }},
		{"_sd no array", checkDisclosures, func(s *sdSample) { s.payload["more"] = map[string]any{"_sd": "x"} }},
		{"_sd_alg below", checkDisclosures, func(s *sdSample) { s.payload["more"] = map[string]any{"_sd_alg": "sha-256"} }},
		{"... outside of an array", checkDisclosures, func(s *sdSample) { s.payload["more"] = map[string]any{"...": "x"} }},
		{"... beside others", checkDisclosures, func(s *sdSample) { s.payload["more"] = []any{map[string]any{"...": "x", "y": 1}} }},
		{"element's disclosure in _sd", checkDisclosures, func(s *sdSample) { s.add(salt(7), "element") }},
		{"property's disclosure in an array", checkDisclosures, func(s *sdSample) {
			text, digest := disclose(salt(7), "name", 1)
			s.disclosures = append(s.disclosures, text)
			s.payload["more"] = []any{map[string]any{"...": digest}}
		}},
		{"short salt", "salts", func(s *sdSample) { s.add("short", "a", 1) }},
		{"shared salt", "salts", func(s *sdSample) { s.add(salt(1), "a", 1) }},
		{"expired", checkValidity, func(s *sdSample) { s.payload["exp"] = goldenNow.Unix() - 1 }},
		{"not yet valid", checkValidity, func(s *sdSample) { s.payload["nbf"] = goldenNow.Unix() + 1 }},
		{"exp no number", "times", func(s *sdSample) { s.payload["exp"] = "soon" }},
		{"exp with fraction", "times", func(s *sdSample) { s.payload["exp"] = 1.5 }},
		{"iat in the future", "times", func(s *sdSample) { s.payload["iat"] = goldenNow.Unix() + 3600 }},
		{"exp before nbf", "times", func(s *sdSample) { s.payload["exp"] = s.payload["nbf"] }},
		{"private cnf", "holder binding", func(s *sdSample) { s.payload["cnf"].(map[string]any)["jwk"].(map[string]any)["d"] = "AA" }},
		{"cnf by kid", "holder binding", func(s *sdSample) { s.payload["cnf"] = map[string]any{"kid": "x"} }},
		{"status without index", "status", func(s *sdSample) {
			s.payload["status"] = map[string]any{"status_list": map[string]any{"uri": "https://s"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAuthority(t, nil)
			s := newSDSample(t, a)
			c.spoil(s)
			expectFailure(t, verify(t, s.build(), sdOptions(a)), c.check)
		})
	}
}

// add appends a disclosure and its digest to the top level.
func (s *sdSample) add(parts ...any) {
	text, digest := disclose(parts...)
	s.disclosures = append(s.disclosures, text)
	s.payload["_sd"] = append(s.payload["_sd"].([]string), digest)
}

func TestSDJWTFromOtherSigners(t *testing.T) {
	for _, c := range []struct {
		name, check string
		change      func(*x509.Certificate)
	}{
		{"document signer", "credential signer certificate", func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, ekuDocumentSigner) }},
		{"key usage", "credential signer certificate", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }},
		{"a CA", "credential signer certificate", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }},
		{"expired", checkTrust, func(c *x509.Certificate) { c.NotAfter = goldenNow.Add(-time.Hour) }},
		{"unknown critical extension", checkTrust, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}},
		{"other names", "issuer named by the certificate", func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"other.example"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAuthority(t, c.change)
			expectFailure(t, verify(t, newSDSample(t, a).build(), sdOptions(a)), c.check)
		})
	}
}

// A flipped bit in any byte of the text is noticed.
func TestFlippedBytesOfAnSDJWT(t *testing.T) {
	a := newAuthority(t, nil)
	text, o := newSDSample(t, a).build(), sdOptions(a)
	for i := range text {
		mutant := bytes.Clone(text)
		mutant[i] ^= 1 << (i % 7)
		if r, err := Verify(t.Context(), mutant, o); err == nil && r.Verified {
			t.Errorf("verified with byte %d flipped: %q", i, mutant[i])
		}
	}
}

// vcSample is a JWT VC in parts.
type vcSample struct {
	header, payload, vc map[string]any
	key                 crypto.Signer
}

const webDID = "did:web:issuer.example%3A8443"

func newVCSample(t testing.TB) (*vcSample, Options) {
	t.Helper()
	key, holder := otherKey(t), otherKey(t)
	data, err := json.Marshal(jwkOf(holder))
	if err != nil {
		t.Fatal(err)
	}
	subject := "did:jwk:" + encodeURL(data)
	vc := map[string]any{"@context": []string{contextV1}, "type": []string{"VerifiableCredential", "ResidencePermit"}, "id": "urn:uuid:1", "issuer": webDID,
		"issuanceDate": "2026-11-24T00:00:00Z", "expirationDate": "2026-11-26T00:00:00Z",
		"credentialSubject": map[string]any{"id": subject, "name": "Erika", "tags": []string{"a"}}}
	document := map[string]any{"id": webDID, "assertionMethod": []string{webDID + "#k"},
		"verificationMethod": []any{map[string]any{"id": webDID + "#k", "controller": webDID, "type": "JsonWebKey2020", "publicKeyJwk": jwkOf(key)}}}
	o := Options{Now: goldenNow, Fresh: true, Holder: holder.Public(), Type: "ResidencePermit", Fetch: func(_ context.Context, url string) ([]byte, error) {
		if url != "https://issuer.example:8443/.well-known/did.json" {
			return nil, errors.New("no such document")
		}
		return json.Marshal(document)
	}}
	return &vcSample{key: key, vc: vc, header: map[string]any{"alg": "ES256", "typ": "JWT", "kid": webDID + "#k"},
		payload: map[string]any{"vc": vc, "iss": webDID, "sub": subject, "jti": "urn:uuid:1",
			"nbf": time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC).Unix(), "exp": time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC).Unix()}}, o
}

func TestJWTVCSampleIsFlawless(t *testing.T) {
	s, o := newVCSample(t)
	r := verify(t, []byte(signJWS(s.key, s.header, s.payload)), o)
	expectVerified(t, r)
	if r.Type != "ResidencePermit" || len(r.Claims) != 3 {
		t.Errorf("report: %+v", r)
	}
}

// A pinned key needs no document, and trusts a DID that anybody can make.
func TestPinnedKey(t *testing.T) {
	s, o := newVCSample(t)
	o.Fetch, o.IssuerKeys = nil, []crypto.PublicKey{s.key.Public()}
	expectVerified(t, verify(t, []byte(signJWS(s.key, s.header, s.payload)), o))
	data, err := json.Marshal(jwkOf(s.key.(*ecdsa.PrivateKey)))
	if err != nil {
		t.Fatal(err)
	}
	issuer := "did:jwk:" + encodeURL(data)
	s.payload["iss"], s.vc["issuer"], s.header["kid"] = issuer, issuer, issuer+"#0"
	text := []byte(signJWS(s.key, s.header, s.payload))
	expectVerified(t, verify(t, text, o))
	o.IssuerKeys = []crypto.PublicKey{otherKey(t).Public()}
	expectFailure(t, verify(t, text, o), checkTrust)
}

func TestJWTVCWithOneDefect(t *testing.T) {
	for _, c := range []struct {
		name, check string
		spoil       func(*vcSample, *Options)
	}{
		{"typ", checkEncoding, func(s *vcSample, _ *Options) { s.header["typ"] = "vc+jwt" }},
		{"no vc", checkEncoding, func(s *vcSample, _ *Options) { delete(s.payload, "vc") }},
		{"other key", checkSignature, func(s *vcSample, _ *Options) { s.key = otherKey(nil) }},
		{"no iss", "iss", func(s *vcSample, _ *Options) { delete(s.payload, "iss") }},
		{"kid of another", checkTrust, func(s *vcSample, _ *Options) { s.header["kid"] = "did:web:other.example#k" }},
		{"kid not in the document", checkTrust, func(s *vcSample, _ *Options) { s.header["kid"] = webDID + "#l" }},
		{"offline", checkTrust, func(_ *vcSample, o *Options) { o.Fetch = nil }},
		{"IP address", checkTrust, func(s *vcSample, _ *Options) {
			s.payload["iss"], s.vc["issuer"], s.header["kid"] = "did:web:127.0.0.1", "did:web:127.0.0.1", "did:web:127.0.0.1#k"
		}},
		{"context", "type", func(s *vcSample, _ *Options) { s.vc["@context"] = []string{"https://www.w3.org/ns/credentials/v2"} }},
		{"type", "type", func(s *vcSample, _ *Options) { s.vc["type"] = []string{"VerifiableCredential"} }},
		{"expected type", "type", func(_ *vcSample, o *Options) { o.Type = "Other" }},
		{"issuer", "claims agree", func(s *vcSample, _ *Options) { s.vc["issuer"] = map[string]any{"id": "did:web:x"} }},
		{"id", "claims agree", func(s *vcSample, _ *Options) { s.payload["jti"] = "urn:uuid:2" }},
		{"subject", "claims agree", func(s *vcSample, _ *Options) { s.vc["credentialSubject"].(map[string]any)["id"] = "did:x" }},
		{"no subject", "claims agree", func(s *vcSample, _ *Options) { s.vc["credentialSubject"] = []any{} }},
		{"issuance", "claims agree", func(s *vcSample, _ *Options) { s.vc["issuanceDate"] = "2026-11-24T00:00:01Z" }},
		{"issuance no date", "claims agree", func(s *vcSample, _ *Options) { s.vc["issuanceDate"] = "today" }},
		{"no issuance", "claims agree", func(s *vcSample, _ *Options) { delete(s.vc, "issuanceDate"); delete(s.payload, "nbf") }},
		{"expiration", "claims agree", func(s *vcSample, _ *Options) { delete(s.payload, "exp") }},
		{"proof", "claims agree", func(s *vcSample, _ *Options) { s.vc["proof"] = map[string]any{} }},
		{"expired", checkValidity, func(_ *vcSample, o *Options) { o.Now = goldenNow.AddDate(1, 0, 0) }},
		{"holder", "holder binding", func(_ *vcSample, o *Options) { o.Holder = otherKey(nil).Public() }},
		{"unbound", "holder binding", func(s *vcSample, _ *Options) {
			s.payload["sub"] = "urn:x"
			s.vc["credentialSubject"].(map[string]any)["id"] = "urn:x"
		}},
		{"two holders", "holder binding", func(s *vcSample, o *Options) {
			o.Holder = nil
			s.payload["cnf"] = map[string]any{"jwk": jwkOf(otherKey(nil))}
		}},
		{"did:jwk issuer", checkTrust, func(s *vcSample, _ *Options) { s.payload["iss"] = s.payload["sub"] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, o := newVCSample(t)
			c.spoil(s, &o)
			expectFailure(t, verify(t, []byte(signJWS(s.key, s.header, s.payload)), o), c.check)
		})
	}
}

// Every algorithm of the table verifies with its own key, and the signature's
// length is fixed.
func TestAlgorithms(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ES256": otherKey(t), "ES384": wide, "EdDSA": edwards} {
		s, err := suiteOf(key.Public())
		if err != nil || s.name != name {
			t.Fatalf("%s: %s, %v", name, s.name, err)
		}
		text := signText(key, "message")
		signature, err := unpad(strings.TrimPrefix(text, "message."))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.verify(key.Public(), []byte("message"), signature); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s.verify(key.Public(), []byte("massage"), signature) == nil || s.verify(key.Public(), []byte("message"), signature[1:]) == nil {
			t.Errorf("%s verifies what it must not", name)
		}
	}
}

func TestRevocationLists(t *testing.T) {
	key := otherKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Root"}, NotBefore: goldenNow.AddDate(-1, 0, 0), NotAfter: goldenNow.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	root := selfSigned(t, template, key)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(5), CRLDistributionPoints: []string{"ldap://x", "https://crl.example/1"}}
	list := func(by *ecdsa.PrivateKey, this, next time.Time, revoked ...int64) []byte {
		var entries []x509.RevocationListEntry
		for _, serial := range revoked {
			entries = append(entries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: this})
		}
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: this, NextUpdate: next, RevokedCertificateEntries: entries}, root, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	day := 24 * time.Hour
	good := list(key, goldenNow.Add(-day), goldenNow.Add(day), 6)
	for _, c := range []struct {
		name    string
		list    []byte
		outcome Outcome
	}{
		{"not revoked", good, Passed},
		{"revoked", list(key, goldenNow.Add(-day), goldenNow.Add(day), 5), Failed},
		{"out of date", list(key, goldenNow.Add(-2*day), goldenNow.Add(-day)), Failed},
		{"of the future", list(key, goldenNow.Add(day), goldenNow.Add(2*day)), Failed},
		{"no list", []byte("list"), Warning},
		{"changed", append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), Warning},
	} {
		v := &verification{ctx: t.Context(), report: &Report{}, o: Options{Now: goldenNow, Fetch: func(_ context.Context, url string) ([]byte, error) {
			if url != "https://crl.example/1" {
				t.Errorf("fetched %s", url)
			}
			return c.list, nil
		}}}
		v.revocation(leaf, root)
		if got := v.report.Checks[0].Outcome; got != c.outcome {
			t.Errorf("%s: %s: %s", c.name, got, v.report.Checks[0].Detail)
		}
	}
}

func selfSigned(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// FuzzSDJWT reads SD-JWTs and JWT VCs whose signature is taken for granted.
func FuzzSDJWT(f *testing.F) {
	payload := `{"_sd":["X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"],"a":[{"...":"w0I8EKcdCtUPkGCNUrfwVp2xEgNjtoIDlOxc9-PlOhs"}],"vct":"x","exp":1e3}`
	f.Add(`{"alg":"ES256","typ":"dc+sd-jwt"}`, payload, "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0~WyJsa2x4RjVqTVlsR1RQVW92TU5JdkNBIiwgIkZSIl0")
	f.Add(`{"alg":"EdDSA","x5c":["AAAA"],"kid":"a"}`, `{"vc":{"type":["VerifiableCredential","A"],"credentialSubject":{"id":"b"}},"iss":"did:key:z6Mk","sub":"did:jwk:e30"}`, "")
	f.Fuzz(func(t *testing.T, header, payload, disclosures string) {
		text := encodeURL([]byte(header)) + "." + encodeURL([]byte(payload)) + ".AA"
		j, err := parseJWS(text)
		if err != nil {
			return
		}
		v := &verification{ctx: t.Context(), report: &Report{}, o: Options{Now: goldenNow}}
		v.disclosures(j.payload, strings.Split(disclosures, "~"))
		v.sdjwt(text + "~" + disclosures + "~")
		v.jwtvc(text)
		if len(v.report.Failures()) == 0 {
			t.Errorf("nothing failed: %q %q", header, payload)
		}
	})
}

func FuzzDIDDocument(f *testing.F) {
	f.Add([]byte(`{"id":"did:web:x","assertionMethod":["did:web:x#k"],"verificationMethod":[{"id":"did:web:x#k","controller":"did:web:x","publicKeyJwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}`), "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK")
	f.Add([]byte(`{}`), "did:web:issuer.example%3A8443:a:b")
	f.Fuzz(func(t *testing.T, data []byte, did string) {
		if key, err := documentKey(data, "did:web:x", "did:web:x#k"); err == nil && key == nil {
			t.Error("no key and no error")
		}
		if url, err := webURL(did); err == nil && !strings.HasPrefix(url, "https://") {
			t.Errorf("%q leads to %q", did, url)
		}
		if key, err := selfContainedKey(did); err == nil && key == nil {
			t.Error("no key and no error")
		}
	})
}
