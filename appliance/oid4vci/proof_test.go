package oid4vci

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/signer/signertest"
	"chancery/issuance"
	"chancery/issuance/did"
)

// proofCase is a proof with one defect, or none: code "" is a proof that holds.
// The name begins with the number of the check.
type proofCase struct {
	name string
	make func(m maker) string
	code string
}

// maker has what a proof is made of.
type maker struct {
	testing.TB
	h, other   holder
	nonce, old string // old is an expired nonce
	now        time.Time
}

// sign makes a proof with one change.
func (m maker) sign(change func(header, claims map[string]any)) string {
	m.Helper()
	return m.h.proof(m, signertest.Issuer, m.nonce, m.now, change)
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
	parts := strings.Split(m.sign(nil), ".")
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

// with is a maker with a key of another kind.
func (m maker) with(algorithm issuance.Algorithm) maker {
	m.h = newHolder(m, algorithm)
	return m
}

var headerCases = []proofCase{
	{"181 jwk", func(m maker) string { return m.sign(nil) }, ""},
	{"181 jwk P-384", func(m maker) string { return m.with(issuance.ES384).sign(nil) }, ""},
	{"181 jwk Ed25519", func(m maker) string { return m.with(issuance.EdDSA).sign(nil) }, ""},
	{"181 jwk with alg, use, kid and key_ops that fit", func(m maker) string {
		return m.jwk(map[string]any{"alg": "ES256", "use": "sig", "kid": "1", "key_ops": []string{"verify"}})
	}, ""},
	{"181 jwk with a member nobody knows", func(m maker) string { return m.jwk(map[string]any{"ext": true}) }, ""},
	{"181 a header nobody knows", func(m maker) string { return m.header("x", "y") }, ""},
	{"182 typ JWT", func(m maker) string { return m.header("typ", "JWT") }, "invalid_proof"},
	{"182 typ missing", func(m maker) string { return m.header("typ", nil) }, "invalid_proof"},
	{"182 typ in capitals", func(m maker) string { return m.header("typ", "OPENID4VCI-PROOF+JWT") }, "invalid_proof"},
	{"183 alg none", func(m maker) string {
		header, payload := m.parts()
		b64 := base64.RawURLEncoding
		return b64.EncodeToString([]byte(strings.Replace(header, "ES256", "none", 1))) + "." + b64.EncodeToString([]byte(payload)) + "."
	}, "invalid_proof"},
	{"184 alg HS256", func(m maker) string {
		key := []byte(strings.Repeat("k", 32))
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: key}, (&jose.SignerOptions{}).WithType(proofType).WithHeader("jwk", m.h.jwk()))
		if err != nil {
			m.Fatal(err)
		}
		_, payload := m.parts()
		signed, err := signer.Sign([]byte(payload))
		if err != nil {
			m.Fatal(err)
		}
		compact, err := signed.CompactSerialize()
		if err != nil {
			m.Fatal(err)
		}
		return compact
	}, "invalid_proof"},
	{"185 alg ES512, not in the metadata", func(m maker) string { return m.with(issuance.ES512).sign(nil) }, "invalid_proof"},
	{"185 alg in lower case", func(m maker) string {
		header, payload := m.parts()
		return m.raw(strings.Replace(header, "ES256", "es256", 1), payload)
	}, "invalid_proof"},
	{"186 jwk and kid", func(m maker) string { return m.header("kid", m.h.kid(m, "did:jwk")) }, "invalid_proof"},
	{"187 jwk and x5c", func(m maker) string { return m.header("x5c", []string{m.certificate(m.h.private.Public())}) }, "invalid_proof"},
	{"188 kid and x5c", func(m maker) string {
		return m.key(map[string]any{"kid": m.h.kid(m, "did:jwk"), "x5c": []string{m.certificate(m.h.private.Public())}})
	}, "invalid_proof"},
	{"189 no key", func(m maker) string { return m.key(nil) }, "invalid_proof"},
	{"189 jwk null", func(m maker) string {
		header, payload := m.parts()
		return m.raw(header[:strings.Index(header, `"jwk":`)]+`"jwk":null,"typ":"`+proofType+`"}`, payload)
	}, "invalid_proof"},
	{"204 did:jwk", func(m maker) string { return m.key(map[string]any{"kid": m.h.kid(m, "did:jwk")}) }, ""},
	{"204 did:key P-256", func(m maker) string { return m.key(map[string]any{"kid": m.h.kid(m, "did:key")}) }, ""},
	{"204 did:key Ed25519", func(m maker) string {
		m = m.with(issuance.EdDSA)
		return m.key(map[string]any{"kid": m.h.kid(m, "did:key")})
	}, ""},
	{"204 DID without fragment", func(m maker) string {
		id, _, err := did.JWK(m.h.private.Public())
		if err != nil {
			m.Fatal(err)
		}
		return m.key(map[string]any{"kid": id})
	}, "invalid_proof"},
	{"204 did:key with another's fragment", func(m maker) string {
		id, _, _ := strings.Cut(m.h.kid(m, "did:key"), "#")
		_, fragment, _ := strings.Cut(m.other.kid(m, "did:key"), "#")
		return m.key(map[string]any{"kid": id + "#" + fragment})
	}, "invalid_proof"},
	{"205 did:web, not in the metadata", func(m maker) string { return m.key(map[string]any{"kid": "did:web:wallet.example#1"}) }, "invalid_proof"},
	{"205 kid that is no DID", func(m maker) string { return m.key(map[string]any{"kid": "1"}) }, "invalid_proof"},
	{"205 kid that is no string", func(m maker) string { return m.key(map[string]any{"kid": map[string]any{}}) }, "invalid_proof"},
	{"206 x5c", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{m.certificate(m.h.private.Public())}})
	}, ""},
	{"206 x5c with a chain", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{m.certificate(m.h.private.Public()), m.certificate(m.other.private.Public())}})
	}, ""},
	{"206 x5c, another's leaf first", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{m.certificate(m.other.private.Public()), m.certificate(m.h.private.Public())}})
	}, "invalid_proof"},
	{"206 x5c empty", func(m maker) string { return m.key(map[string]any{"x5c": []string{}}) }, "invalid_proof"},
	{"206 x5c of a string", func(m maker) string { return m.key(map[string]any{"x5c": m.certificate(m.h.private.Public())}) }, "invalid_proof"},
	{"206 x5c of an empty string", func(m maker) string { return m.key(map[string]any{"x5c": []string{""}}) }, "invalid_proof"},
	{"206 x5c of no certificate", func(m maker) string { return m.key(map[string]any{"x5c": []string{"AAAA"}}) }, "invalid_proof"},
	{"206 x5c base64url", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{strings.NewReplacer("+", "-", "/", "_").Replace(m.certificate(m.h.private.Public())) + "_-"}})
	}, "invalid_proof"},
	{"206 x5c with an RSA key", func(m maker) string {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			m.Fatal(err)
		}
		return m.key(map[string]any{"x5c": []string{m.certificate(private.Public())}})
	}, "invalid_proof"},
	{"206 x5c with nine certificates", func(m maker) string {
		c := m.certificate(m.h.private.Public())
		return m.key(map[string]any{"x5c": []string{c, c, c, c, c, c, c, c, c}})
	}, "invalid_proof"},
	{"208 crit", func(m maker) string {
		header, payload := m.parts()
		return m.raw(`{"crit":["x"],"x":1,`+header[1:], payload)
	}, "invalid_proof"},
	{"208 b64", func(m maker) string {
		header, payload := m.parts()
		return m.raw(`{"b64":true,`+header[1:], payload)
	}, "invalid_proof"},
	{"208 a header twice", func(m maker) string {
		header, payload := m.parts()
		return m.raw(`{"typ":"JWT",`+header[1:], payload)
	}, "invalid_proof"},
}

var keyCases = []proofCase{
	{"190 jwk with d", func(m maker) string {
		return m.header("jwk", m.members(jose.JSONWebKey{Key: m.h.private}, nil))
	}, "invalid_proof"},
	{"190 jwk with k", func(m maker) string { return m.jwk(map[string]any{"k": "AAAA"}) }, "invalid_proof"},
	{"191 another's key in jwk", func(m maker) string { return m.header("jwk", m.other.jwk()) }, "invalid_proof"},
	{"191 another's did:key", func(m maker) string { return m.key(map[string]any{"kid": m.other.kid(m, "did:key")}) }, "invalid_proof"},
	{"207 point off the curve", func(m maker) string {
		y := m.members(m.h.jwk(), nil)["y"].(string)
		return m.jwk(map[string]any{"y": string(y[0]^1) + y[1:]})
	}, "invalid_proof"},
	{"207 crv of another curve", func(m maker) string { return m.jwk(map[string]any{"crv": "P-384"}) }, "invalid_proof"},
	{"207 crv nobody knows", func(m maker) string { return m.jwk(map[string]any{"crv": "secp256k1"}) }, "invalid_proof"},
	{"207 kty of another kind", func(m maker) string { return m.jwk(map[string]any{"kty": "OKP"}) }, "invalid_proof"},
	{"207 coordinate with leading zeros cut", func(m maker) string {
		x, err := base64.RawURLEncoding.DecodeString(m.members(m.h.jwk(), nil)["x"].(string))
		if err != nil {
			m.Fatal(err)
		}
		return m.jwk(map[string]any{"x": base64.RawURLEncoding.EncodeToString(x[1:])})
	}, "invalid_proof"},
	{"207 coordinate padded", func(m maker) string {
		return m.jwk(map[string]any{"x": m.members(m.h.jwk(), nil)["x"].(string) + "="})
	}, "invalid_proof"},
	{"207 no y", func(m maker) string { return m.jwk(map[string]any{"y": nil}) }, "invalid_proof"},
	{"207 Ed25519 with y", func(m maker) string { return m.with(issuance.EdDSA).jwk(map[string]any{"y": "AAAA"}) }, ""},
	{"207 Ed25519 key of 31 bytes", func(m maker) string {
		return m.with(issuance.EdDSA).jwk(map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, ed25519.PublicKeySize-1))})
	}, "invalid_proof"},
	{"207 alg ES256 with a P-384 key", func(m maker) string {
		header, payload := m.parts()
		start := strings.Index(header, `"jwk":`)
		jwk, err := m.with(issuance.ES384).h.jwk().MarshalJSON()
		if err != nil {
			m.Fatal(err)
		}
		return m.raw(header[:start]+`"jwk":`+string(jwk)+`,"typ":"`+proofType+`"}`, payload)
	}, "invalid_proof"},
	{"207 jwk for another algorithm", func(m maker) string { return m.jwk(map[string]any{"alg": "ECDH-ES"}) }, "invalid_proof"},
	{"207 jwk for encryption", func(m maker) string { return m.jwk(map[string]any{"use": "enc"}) }, "invalid_proof"},
	{"207 jwk for deriving", func(m maker) string { return m.jwk(map[string]any{"key_ops": []string{"deriveKey"}}) }, "invalid_proof"},
	{"207 jwk of a string", func(m maker) string { return m.header("jwk", "x") }, "invalid_proof"},
	{"207 jwk empty", func(m maker) string { return m.header("jwk", map[string]any{}) }, "invalid_proof"},
	{"207 jwk RSA", func(m maker) string {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			m.Fatal(err)
		}
		return m.header("jwk", jose.JSONWebKey{Key: private.Public()})
	}, "invalid_proof"},
}

var claimCases = []proofCase{
	{"192 payload changed", func(m maker) string {
		parts := strings.Split(m.sign(nil), ".")
		parts[1] = strings.Split(m.claims("x", "y"), ".")[1]
		return strings.Join(parts, ".")
	}, "invalid_proof"},
	{"192 signature in DER", func(m maker) string {
		parts := strings.Split(m.sign(nil), ".")
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		der, err := ecdsa.SignASN1(rand.Reader, m.h.private.(*ecdsa.PrivateKey), sum[:])
		if err != nil {
			m.Fatal(err)
		}
		return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(der)
	}, "invalid_proof"},
	{"192 signature of zeros", func(m maker) string {
		parts := strings.Split(m.sign(nil), ".")
		return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
	}, "invalid_proof"},
	{"192 two parts", func(m maker) string { return strings.Join(strings.Split(m.sign(nil), ".")[:2], ".") }, "invalid_proof"},
	{"192 four parts", func(m maker) string { return m.sign(nil) + "." }, "invalid_proof"},
	{"192 padded base64url", func(m maker) string { return m.sign(nil) + "=" }, "invalid_proof"},
	{"192 empty", func(maker) string { return "" }, "invalid_proof"},
	{"192 a payload that is no object", func(m maker) string { header, _ := m.parts(); return m.raw(header, "[]") }, "invalid_proof"},
	{"192 a claim twice", func(m maker) string {
		header, payload := m.parts()
		return m.raw(header, `{"aud":"x",`+payload[1:])
	}, "invalid_proof"},
	{"192 too long", func(m maker) string { return m.claims("x", strings.Repeat("x", 1<<16)) }, "invalid_proof"},
	{"193 aud of another issuer", func(m maker) string { return m.claims("aud", "https://other.example.com") }, "invalid_proof"},
	{"193 aud of the token endpoint", func(m maker) string { return m.claims("aud", signertest.Issuer+"/token") }, "invalid_proof"},
	{"193 aud missing", func(m maker) string { return m.claims("aud", nil) }, "invalid_proof"},
	{"193 aud of an array", func(m maker) string { return m.claims("aud", []string{signertest.Issuer}) }, "invalid_proof"},
	{"194 aud with a trailing slash", func(m maker) string { return m.claims("aud", signertest.Issuer+"/") }, "invalid_proof"},
	{"194 aud in capitals", func(m maker) string { return m.claims("aud", "HTTPS://localhost:8443") }, "invalid_proof"},
	{"195 iat missing", func(m maker) string { return m.claims("iat", nil) }, "invalid_proof"},
	{"195 iat of a string", func(m maker) string { return m.claims("iat", m.now.Format(time.RFC3339)) }, "invalid_proof"},
	{"195 iat zero", func(m maker) string { return m.claims("iat", 0) }, "invalid_proof"},
	{"195 iat in milliseconds", func(m maker) string { return m.claims("iat", m.now.UnixMilli()) }, "invalid_proof"},
	{"195 iat beyond all numbers", func(m maker) string {
		header, payload := m.parts()
		return m.raw(header, strings.Replace(payload, `"iat":`, `"iat":1e999,"x":`, 1))
	}, "invalid_proof"},
	{"196 iat one hour ago", func(m maker) string { return m.claims("iat", m.now.Add(-time.Hour).Unix()) }, "invalid_proof"},
	{"196 iat in ten minutes", func(m maker) string { return m.claims("iat", m.now.Add(10*time.Minute).Unix()) }, "invalid_proof"},
	{"197 iat in eight seconds", func(m maker) string { return m.claims("iat", m.now.Add(8*time.Second).Unix()) }, ""},
	{"197 iat with a fraction", func(m maker) string { return m.claims("iat", float64(m.now.UnixMilli())/1000) }, ""},
	{"332 a clock almost a minute ahead", func(m maker) string { return m.claims("iat", m.now.Add(58*time.Second).Unix()) }, ""},
	{"332 a clock a minute behind", func(m maker) string {
		return m.sign(func(_, claims map[string]any) {
			claims["iat"], claims["exp"] = m.now.Add(-time.Minute).Unix(), m.now.Unix()
		})
	}, ""},
	{"196 exp passed", func(m maker) string { return m.claims("exp", m.now.Add(-2*time.Minute).Unix()) }, "invalid_proof"},
	{"196 exp of a string", func(m maker) string { return m.claims("exp", "soon") }, "invalid_proof"},
	{"196 nbf to come", func(m maker) string { return m.claims("nbf", m.now.Add(2*time.Minute).Unix()) }, "invalid_proof"},
	{"196 nbf and exp around now", func(m maker) string {
		return m.sign(func(_, claims map[string]any) {
			claims["nbf"], claims["exp"] = m.now.Unix(), m.now.Add(time.Minute).Unix()
		})
	}, ""},
	{"198 nonce missing", func(m maker) string { return m.claims("nonce", nil) }, "invalid_proof"},
	{"198 nonce empty", func(m maker) string { return m.claims("nonce", "") }, "invalid_proof"},
	{"198 nonce of a number", func(m maker) string { return m.claims("nonce", 1) }, "invalid_proof"},
	{"199 nonce nobody made", func(m maker) string { return m.claims("nonce", "wKI4LT17ac15ES9bw8ac4") }, "invalid_nonce"},
	{"200 nonce expired", func(m maker) string { return m.claims("nonce", m.old) }, "invalid_nonce"},
	{"203 iss, anonymous token", func(m maker) string { return m.claims("iss", "wallet") }, ""},
}

// TestProof sends each proof to the credential endpoint. A token that was
// refused a credential is still good: the same one is used until it succeeds.
func TestProof(t *testing.T) {
	r := newRig(t, rigOptions{})
	m := maker{TB: t, h: newHolder(t, issuance.ES256), other: newHolder(t, issuance.ES256)}
	old := r.nonces.source.Make(time.Now().Add(-r.nonces.lifetime - time.Second))
	token := ""
	for _, cases := range [][]proofCase{headerCases, keyCases, claimCases} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				if token == "" {
					token = r.token(t, r.offer(t, nil, pidID))
				}
				m := m
				m.TB, m.nonce, m.old, m.now = t, r.nonce(t), old, r.now()
				a := r.ask(t, token, request(pidID, c.make(m)))
				if c.code != "" {
					refused(t, a, http.StatusBadRequest, c.code)
					return
				}
				if a.status != http.StatusOK {
					t.Errorf("%d %s", a.status, a.body)
				}
				token = ""
			})
		}
	}
	if token != "" {
		m.nonce, m.now = r.nonce(t), r.now()
		if a := r.ask(t, token, request(pidID, m.sign(nil))); a.status != http.StatusOK {
			t.Errorf("a right proof after all the wrong ones: %d %s", a.status, a.body)
		}
	}
}
