package proof

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/did"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

const issuer = "https://issuer.example.com"

// holder is a key, with go-jose for its signatures.
type holder struct {
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func newHolder(t testing.TB, algorithm issuance.Algorithm) holder {
	t.Helper()
	return holder{jose.SignatureAlgorithm(algorithm), issuancetest.Key(t, algorithm)}
}

// jwk is the public key as a wallet writes it into a header.
func (h holder) jwk() jose.JSONWebKey { return jose.JSONWebKey{Key: h.private.Public()} }

// kid is the key's DID URL.
func (h holder) kid(t testing.TB, method string) string {
	t.Helper()
	make := did.JWK
	if method == "did:key" {
		make = did.Key
	}
	_, kid, err := make(h.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

func (h holder) thumbprint(t testing.TB) string {
	t.Helper()
	jwk := h.jwk()
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// token signs a JWT.
func (h holder) token(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	return trusttest.TokenWith(t, jose.SigningKey{Algorithm: h.algorithm, Key: h.private}, header, claims)
}

// change alters a header and claims before they are signed.
type change func(header, claims map[string]any)

// maker has what proofs are made of.
type maker struct {
	testing.TB
	h, other holder
	provider *provider
	now      time.Time
}

func newMaker(t testing.TB) maker {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	return maker{t, newHolder(t, issuance.ES256), newHolder(t, issuance.ES256), newProvider(t, now), now}
}

// rules are the usual ones: every binding method and proof type, batches of
// three, no attestation required.
func (m maker) rules() Rules {
	r := RulesFor(&configuration.Configuration{File: configuration.File{Format: issuance.FormatSDJWT, BatchSize: 3,
		ProofTypes: []string{configuration.ProofJWT, configuration.ProofAttestation, configuration.ProofDIVP}}})
	r.Audience, r.Now, r.Past, r.Providers = issuer, m.now, 5*time.Minute, m.provider.trusted
	return r
}

// required are rules with a key attestation required.
func (m maker) required(storage, authentication []string) Rules {
	r := m.rules()
	for name, t := range r.Types {
		t.Attestation = &configuration.KeyAttestation{KeyStorage: storage, UserAuthentication: authentication}
		r.Types[name] = t
	}
	return r
}

// with is a maker with a key of another kind.
func (m maker) with(algorithm issuance.Algorithm) maker {
	m.h = newHolder(m, algorithm)
	return m
}

// sign makes a jwt proof with a change, or none.
func (m maker) sign(c change) string {
	m.Helper()
	header := map[string]any{"typ": proofTyp, "jwk": m.h.jwk()}
	claims := map[string]any{"aud": issuer, "iat": m.now.Unix(), "nonce": "nonce"}
	if c != nil {
		c(header, claims)
	}
	return m.h.token(m, header, claims)
}

// header and claims are proofs with one member changed; nil takes it away.
func (m maker) header(name string, value any) string {
	m.Helper()
	return m.sign(func(header, _ map[string]any) { set(header, name, value) })
}

func (m maker) claims(name string, value any) string {
	m.Helper()
	return m.sign(func(_, claims map[string]any) { set(claims, name, value) })
}

func set(members map[string]any, name string, value any) {
	if value == nil {
		delete(members, name)
		return
	}
	members[name] = value
}

// key is a proof whose key is named by other members of the header.
func (m maker) key(members map[string]any) string {
	m.Helper()
	return m.sign(func(header, _ map[string]any) {
		delete(header, "jwk")
		for name, value := range members {
			header[name] = value
		}
	})
}

// jwk is a proof whose jwk has further or other members.
func (m maker) jwk(members map[string]any) string {
	m.Helper()
	return m.header("jwk", m.members(m.h.jwk(), members))
}

// members is a JWK as a map, with changes; nil takes a member away.
func (m maker) members(key jose.JSONWebKey, changes map[string]any) map[string]any {
	m.Helper()
	data, err := key.MarshalJSON()
	if err != nil {
		m.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		m.Fatal(err)
	}
	for name, value := range changes {
		set(all, name, value)
	}
	return all
}

// raw signs whatever header and payload say, with ES256 by hand.
func (m maker) raw(header, payload string) string {
	m.Helper()
	b64 := base64.RawURLEncoding
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, m.h.private.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		m.Fatal(err)
	}
	return input + "." + b64.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// parts are a right proof's header and payload as JSON.
func (m maker) parts() (header, payload string) {
	m.Helper()
	return m.decoded(m.sign(nil))
}

func (m maker) decoded(compact string) (header, payload string) {
	m.Helper()
	parts := strings.Split(compact, ".")
	h, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		m.Fatal(err)
	}
	p, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		m.Fatal(err)
	}
	return string(h), string(p)
}

// certificate is one for the key, base64 as x5c has it.
func (m maker) certificate(public crypto.PublicKey) string {
	m.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "wallet"}, NotBefore: m.now, NotAfter: m.now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, m.other.private)
	if err != nil {
		m.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// provider is a wallet provider with a CA and a signing certificate of it.
type provider struct {
	holder
	ca, leaf *x509.Certificate
	trusted  *trust.Providers
}

func newProvider(t testing.TB, now time.Time) *provider {
	t.Helper()
	return providerOf(t, now, issuancetest.Key(t, issuance.ES256), newHolder(t, issuance.ES256))
}

// providerOf is a provider with these keys for its CA and its signatures.
func providerOf(t testing.TB, now time.Time, root crypto.Signer, signer holder) *provider {
	t.Helper()
	p := &provider{holder: signer}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Wallet Provider CA"}, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(365 * 24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	p.ca = certify(t, template, template, root.Public(), root)
	template = &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Wallet Provider"}, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(30 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	p.leaf = certify(t, template, p.ca, p.private.Public(), root)
	var err error
	if p.trusted, err = trust.New(trust.Provider{Name: "provider", Anchors: []*x509.Certificate{p.ca}, RequireChain: true}); err != nil {
		t.Fatal(err)
	}
	return p
}

func certify(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func b64(certificates ...*x509.Certificate) []string {
	var out []string
	for _, c := range certificates {
		out = append(out, base64.StdEncoding.EncodeToString(c.Raw))
	}
	return out
}

// attest makes a key attestation for keys, with a change, or none.
func (m maker) attest(c change, keys ...holder) string {
	m.Helper()
	jwks := make([]any, len(keys))
	for n, k := range keys {
		jwks[n] = k.jwk()
	}
	header := map[string]any{"typ": attestationTyp, "x5c": b64(m.provider.leaf)}
	claims := map[string]any{"iat": m.now.Add(-time.Hour).Unix(), "exp": m.now.Add(time.Hour).Unix(), "attested_keys": jwks, "nonce": "nonce"}
	if c != nil {
		c(header, claims)
	}
	return m.provider.token(m, header, claims)
}

// decode brings a request's proofs to the form that the credential endpoint has them in.
func decode(t testing.TB, proofs any) any {
	t.Helper()
	data, err := json.Marshal(map[string]any{"proofs": proofs})
	if err != nil {
		t.Fatal(err)
	}
	object, err := jws.Object(data)
	if err != nil {
		t.Fatal(err)
	}
	return object["proofs"]
}

// jwts are proofs of the type jwt.
func jwts(compact ...string) map[string]any { return map[string]any{"jwt": compact} }

// attestations are proofs of the type attestation.
func attestations(compact ...string) map[string]any { return map[string]any{"attestation": compact} }

// holds checks proofs that must hold.
func holds(t testing.TB, rules Rules, proofs any) *Set {
	t.Helper()
	s, err := Check(context.Background(), decode(t, proofs), rules)
	if err != nil {
		t.Fatalf("%v (%s)", err, memberOf(err))
	}
	sound(t, s, rules)
	return s
}

// sound holds for every result: no more keys than the batch size, none twice, at
// least one nonce, none twice.
func sound(t testing.TB, s *Set, rules Rules) {
	t.Helper()
	if len(s.Holders) == 0 || len(s.Holders) > max(rules.BatchSize, 1) || len(s.Nonces) == 0 {
		t.Errorf("%d holders, %d nonces", len(s.Holders), len(s.Nonces))
	}
	seen := map[string]bool{}
	for _, h := range s.Holders {
		thumbprint, err := jws.Thumbprint(h.Key)
		if err != nil || thumbprint != h.Thumbprint || seen[thumbprint] {
			t.Errorf("%+v: %v", h, err)
		}
		seen[thumbprint] = true
	}
	seen = map[string]bool{}
	for _, nonce := range s.Nonces {
		if nonce == "" || seen[nonce] {
			t.Errorf("nonces %q", s.Nonces)
		}
		seen[nonce] = true
	}
}

// fails checks proofs that must be refused with a code, on account of a member.
func fails(t testing.TB, rules Rules, proofs any, code, member string) {
	t.Helper()
	s, err := Check(context.Background(), decode(t, proofs), rules)
	var r *refusal.Refusal
	if s != nil || !errors.As(err, &r) {
		t.Fatalf("%+v %v", s, err)
	}
	if r.Code != code || r.Member != member {
		t.Errorf("%s of %q: %s; want %s of %q", r.Code, r.Member, r.Description, code, member)
	}
	inTable(t, err, code)
}

// inTable fails unless an error is one with a code that may be, told to wallet
// and operator.
func inTable(t testing.TB, err error, codes ...string) {
	t.Helper()
	var r *refusal.Refusal
	if !errors.As(err, &r) || !strings.Contains(strings.Join(codes, " "), r.Code) || r.Status != 400 && r.Status != 503 {
		t.Fatalf("%v is not of the endpoint's table", err)
	}
	bad := func(c rune) bool { return c < 0x20 || c > 0x7e || c == '"' || c == '\\' }
	if r.Description == "" || r.Section == "" || !strings.HasPrefix(r.Member, "proofs") || strings.ContainsFunc(r.Description, bad) {
		t.Errorf("%+v", r)
	}
}

func memberOf(err error) string {
	var r *refusal.Refusal
	errors.As(err, &r)
	return r.Member
}

// named tells whether the holders are these keys, in this order.
func named(t testing.TB, s *Set, keys ...holder) {
	t.Helper()
	if len(s.Holders) != len(keys) {
		t.Fatalf("%d holders, want %d", len(s.Holders), len(keys))
	}
	for n, k := range keys {
		if s.Holders[n].Thumbprint != k.thumbprint(t) {
			t.Errorf("holder %d is another key", n)
		}
	}
}
