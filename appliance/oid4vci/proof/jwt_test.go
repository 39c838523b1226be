package proof

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
	"chancery/issuance/did"
)

// proofCase is a jwt proof with one defect, or none. The name begins with the
// number of the check.
type proofCase struct {
	name string
	make func(m maker) string
	// member is what the refusal is about, where it is one of the proof's.
	member string
	holds  bool
}

var headerCases = []proofCase{
	{"181 jwk", func(m maker) string { return m.sign(nil) }, "", true},
	{"181 jwk P-384", func(m maker) string { return m.with(issuance.ES384).sign(nil) }, "", true},
	{"181 jwk Ed25519", func(m maker) string { return m.with(issuance.EdDSA).sign(nil) }, "", true},
	{"181 jwk with alg, use, kid and key_ops that fit", func(m maker) string {
		return m.jwk(map[string]any{"alg": "ES256", "use": "sig", "kid": "1", "key_ops": []string{"verify"}})
	}, "", true},
	{"181 jwk with a member nobody knows", func(m maker) string { return m.jwk(map[string]any{"ext": true}) }, "", true},
	{"181 a header nobody knows", func(m maker) string { return m.header("x", "y") }, "", true},
	{"182 typ JWT", func(m maker) string { return m.header("typ", "JWT") }, "header typ", false},
	{"182 typ missing", func(m maker) string { return m.header("typ", nil) }, "header typ", false},
	{"182 typ in capitals", func(m maker) string { return m.header("typ", "OPENID4VCI-PROOF+JWT") }, "header typ", false},
	{"183 alg none", func(m maker) string {
		header, payload := m.parts()
		b64 := base64.RawURLEncoding
		return b64.EncodeToString([]byte(strings.Replace(header, "ES256", "none", 1))) + "." + b64.EncodeToString([]byte(payload)) + "."
	}, "header alg", false},
	{"184 alg HS256", func(m maker) string {
		key := []byte(strings.Repeat("k", 32))
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: key}, (&jose.SignerOptions{}).WithType(proofTyp).WithHeader("jwk", m.h.jwk()))
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
	}, "header alg", false},
	{"185 alg ES512, not in the metadata", func(m maker) string { return m.with(issuance.ES512).sign(nil) }, "header alg", false},
	{"185 alg in lower case", func(m maker) string {
		header, payload := m.parts()
		return m.raw(strings.Replace(header, "ES256", "es256", 1), payload)
	}, "header alg", false},
	{"186 jwk and kid", func(m maker) string { return m.header("kid", m.h.kid(m, "did:jwk")) }, "header", false},
	{"187 jwk and x5c", func(m maker) string { return m.header("x5c", []string{m.certificate(m.h.private.Public())}) }, "header", false},
	{"188 kid and x5c", func(m maker) string {
		return m.key(map[string]any{"kid": m.h.kid(m, "did:jwk"), "x5c": []string{m.certificate(m.h.private.Public())}})
	}, "header", false},
	{"189 no key", func(m maker) string { return m.key(nil) }, "header", false},
	{"189 jwk null", func(m maker) string {
		header, payload := m.parts()
		return m.raw(header[:strings.Index(header, `"jwk":`)]+`"jwk":null,"typ":"`+proofTyp+`"}`, payload)
	}, "header jwk", false},
	{"204 did:jwk", func(m maker) string { return m.key(map[string]any{"kid": m.h.kid(m, "did:jwk")}) }, "", true},
	{"204 did:key P-256", func(m maker) string { return m.key(map[string]any{"kid": m.h.kid(m, "did:key")}) }, "", true},
	{"204 did:key Ed25519", func(m maker) string {
		m = m.with(issuance.EdDSA)
		return m.key(map[string]any{"kid": m.h.kid(m, "did:key")})
	}, "", true},
	{"204 DID without fragment", func(m maker) string {
		id, _, err := did.JWK(m.h.private.Public())
		if err != nil {
			m.Fatal(err)
		}
		return m.key(map[string]any{"kid": id})
	}, "header kid", false},
	{"204 did:key with another's fragment", func(m maker) string {
		id, _, _ := strings.Cut(m.h.kid(m, "did:key"), "#")
		_, fragment, _ := strings.Cut(m.other.kid(m, "did:key"), "#")
		return m.key(map[string]any{"kid": id + "#" + fragment})
	}, "header kid", false},
	{"205 did:web, not in the metadata", func(m maker) string { return m.key(map[string]any{"kid": "did:web:wallet.example#1"}) }, "header kid", false},
	{"205 kid that is no DID", func(m maker) string { return m.key(map[string]any{"kid": "1"}) }, "header kid", false},
	{"205 kid that is no string", func(m maker) string { return m.key(map[string]any{"kid": map[string]any{}}) }, "header kid", false},
	{"206 x5c", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{m.certificate(m.h.private.Public())}})
	}, "", true},
	{"206 x5c with a chain", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{m.certificate(m.h.private.Public()), m.certificate(m.other.private.Public())}})
	}, "", true},
	{"206 x5c, another's leaf first", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{m.certificate(m.other.private.Public()), m.certificate(m.h.private.Public())}})
	}, "signature", false},
	{"206 x5c empty", func(m maker) string { return m.key(map[string]any{"x5c": []string{}}) }, "header x5c", false},
	{"206 x5c of a string", func(m maker) string { return m.key(map[string]any{"x5c": m.certificate(m.h.private.Public())}) }, "header x5c", false},
	{"206 x5c of an empty string", func(m maker) string { return m.key(map[string]any{"x5c": []string{""}}) }, "header x5c", false},
	{"206 x5c of no certificate", func(m maker) string { return m.key(map[string]any{"x5c": []string{"AAAA"}}) }, "header x5c", false},
	{"206 x5c base64url", func(m maker) string {
		return m.key(map[string]any{"x5c": []string{strings.NewReplacer("+", "-", "/", "_").Replace(m.certificate(m.h.private.Public())) + "_-"}})
	}, "header x5c", false},
	{"206 x5c with an RSA key", func(m maker) string {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			m.Fatal(err)
		}
		return m.key(map[string]any{"x5c": []string{m.certificate(private.Public())}})
	}, "header alg", false},
	{"206 x5c with nine certificates", func(m maker) string {
		c := m.certificate(m.h.private.Public())
		return m.key(map[string]any{"x5c": []string{c, c, c, c, c, c, c, c, c}})
	}, "header x5c", false},
	{"208 crit", func(m maker) string {
		header, payload := m.parts()
		return m.raw(`{"crit":["x"],"x":1,`+header[1:], payload)
	}, "", false},
	{"208 b64", func(m maker) string {
		header, payload := m.parts()
		return m.raw(`{"b64":true,`+header[1:], payload)
	}, "", false},
	{"208 a header twice", func(m maker) string {
		header, payload := m.parts()
		return m.raw(`{"typ":"JWT",`+header[1:], payload)
	}, "", false},
}

var keyCases = []proofCase{
	{"190 jwk with d", func(m maker) string {
		return m.header("jwk", m.members(jose.JSONWebKey{Key: m.h.private}, nil))
	}, "header jwk", false},
	{"190 jwk with k", func(m maker) string { return m.jwk(map[string]any{"k": "AAAA"}) }, "header jwk", false},
	{"191 another's key in jwk", func(m maker) string { return m.header("jwk", m.other.jwk()) }, "signature", false},
	{"191 another's did:key", func(m maker) string { return m.key(map[string]any{"kid": m.other.kid(m, "did:key")}) }, "signature", false},
	{"207 point off the curve", func(m maker) string {
		y := m.members(m.h.jwk(), nil)["y"].(string)
		return m.jwk(map[string]any{"y": string(y[0]^1) + y[1:]})
	}, "header jwk", false},
	{"207 crv of another curve", func(m maker) string { return m.jwk(map[string]any{"crv": "P-384"}) }, "header jwk", false},
	{"207 crv nobody knows", func(m maker) string { return m.jwk(map[string]any{"crv": "secp256k1"}) }, "header jwk", false},
	{"207 kty of another kind", func(m maker) string { return m.jwk(map[string]any{"kty": "OKP"}) }, "header jwk", false},
	{"207 coordinate with leading zeros cut", func(m maker) string {
		x, err := base64.RawURLEncoding.DecodeString(m.members(m.h.jwk(), nil)["x"].(string))
		if err != nil {
			m.Fatal(err)
		}
		return m.jwk(map[string]any{"x": base64.RawURLEncoding.EncodeToString(x[1:])})
	}, "header jwk", false},
	{"207 coordinate padded", func(m maker) string {
		return m.jwk(map[string]any{"x": m.members(m.h.jwk(), nil)["x"].(string) + "="})
	}, "header jwk", false},
	{"207 no y", func(m maker) string { return m.jwk(map[string]any{"y": nil}) }, "header jwk", false},
	{"207 Ed25519 with y", func(m maker) string { return m.with(issuance.EdDSA).jwk(map[string]any{"y": "AAAA"}) }, "", true},
	{"207 Ed25519 key of 31 bytes", func(m maker) string {
		return m.with(issuance.EdDSA).jwk(map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, ed25519.PublicKeySize-1))})
	}, "header jwk", false},
	{"207 alg ES256 with a P-384 key", func(m maker) string {
		header, payload := m.parts()
		start := strings.Index(header, `"jwk":`)
		jwk, err := m.with(issuance.ES384).h.jwk().MarshalJSON()
		if err != nil {
			m.Fatal(err)
		}
		return m.raw(header[:start]+`"jwk":`+string(jwk)+`,"typ":"`+proofTyp+`"}`, payload)
	}, "header alg", false},
	{"207 jwk for another algorithm", func(m maker) string { return m.jwk(map[string]any{"alg": "ECDH-ES"}) }, "header jwk", false},
	{"207 jwk for encryption", func(m maker) string { return m.jwk(map[string]any{"use": "enc"}) }, "header jwk", false},
	{"207 jwk for deriving", func(m maker) string { return m.jwk(map[string]any{"key_ops": []string{"deriveKey"}}) }, "header jwk", false},
	{"207 jwk of a string", func(m maker) string { return m.header("jwk", "x") }, "header jwk", false},
	{"207 jwk empty", func(m maker) string { return m.header("jwk", map[string]any{}) }, "header jwk", false},
	{"207 jwk RSA", func(m maker) string {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			m.Fatal(err)
		}
		return m.header("jwk", jose.JSONWebKey{Key: private.Public()})
	}, "header jwk", false},
}

var claimCases = []proofCase{
	{"192 payload changed", func(m maker) string {
		parts := strings.Split(m.sign(nil), ".")
		parts[1] = strings.Split(m.claims("x", "y"), ".")[1]
		return strings.Join(parts, ".")
	}, "signature", false},
	{"192 signature in DER", func(m maker) string {
		parts := strings.Split(m.sign(nil), ".")
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		der, err := ecdsa.SignASN1(rand.Reader, m.h.private.(*ecdsa.PrivateKey), sum[:])
		if err != nil {
			m.Fatal(err)
		}
		return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(der)
	}, "signature", false},
	{"192 signature of zeros", func(m maker) string {
		parts := strings.Split(m.sign(nil), ".")
		return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
	}, "signature", false},
	{"192 two parts", func(m maker) string { return strings.Join(strings.Split(m.sign(nil), ".")[:2], ".") }, "", false},
	{"192 four parts", func(m maker) string { return m.sign(nil) + "." }, "", false},
	{"192 padded base64url", func(m maker) string { return m.sign(nil) + "=" }, "", false},
	{"192 empty", func(maker) string { return "" }, "", false},
	{"192 a payload that is no object", func(m maker) string { header, _ := m.parts(); return m.raw(header, "[]") }, "", false},
	{"192 a claim twice", func(m maker) string {
		header, payload := m.parts()
		return m.raw(header, `{"aud":"x",`+payload[1:])
	}, "", false},
	{"192 too long", func(m maker) string { return m.claims("x", strings.Repeat("x", maxProof)) }, "", false},
	{"193 aud of another issuer", func(m maker) string { return m.claims("aud", "https://other.example.com") }, "aud", false},
	{"193 aud of the token endpoint", func(m maker) string { return m.claims("aud", issuer+"/token") }, "aud", false},
	{"193 aud missing", func(m maker) string { return m.claims("aud", nil) }, "aud", false},
	{"193 aud of an array", func(m maker) string { return m.claims("aud", []string{issuer}) }, "aud", false},
	{"194 aud with a trailing slash", func(m maker) string { return m.claims("aud", issuer+"/") }, "aud", false},
	{"194 aud in capitals", func(m maker) string { return m.claims("aud", "HTTPS://issuer.example.com") }, "aud", false},
	{"195 iat missing", func(m maker) string { return m.claims("iat", nil) }, "iat", false},
	{"195 iat of a string", func(m maker) string { return m.claims("iat", m.now.Format(time.RFC3339)) }, "iat", false},
	{"195 iat zero", func(m maker) string { return m.claims("iat", 0) }, "iat", false},
	{"195 iat in milliseconds", func(m maker) string { return m.claims("iat", m.now.UnixMilli()) }, "iat", false},
	{"195 iat beyond all numbers", func(m maker) string {
		header, payload := m.parts()
		return m.raw(header, strings.Replace(payload, `"iat":`, `"iat":1e999,"x":`, 1))
	}, "iat", false},
	{"196 iat one hour ago", func(m maker) string { return m.claims("iat", m.now.Add(-time.Hour).Unix()) }, "iat", false},
	{"196 iat in ten minutes", func(m maker) string { return m.claims("iat", m.now.Add(10*time.Minute).Unix()) }, "iat", false},
	{"197 iat in eight seconds", func(m maker) string { return m.claims("iat", m.now.Add(8*time.Second).Unix()) }, "", true},
	{"197 iat with a fraction", func(m maker) string { return m.claims("iat", float64(m.now.UnixMilli())/1000) }, "", true},
	{"332 a clock almost a minute ahead", func(m maker) string { return m.claims("iat", m.now.Add(58*time.Second).Unix()) }, "", true},
	{"332 a clock a minute behind", func(m maker) string {
		return m.sign(func(_, claims map[string]any) {
			claims["iat"], claims["exp"] = m.now.Add(-time.Minute).Unix(), m.now.Unix()
		})
	}, "", true},
	{"196 exp passed", func(m maker) string { return m.claims("exp", m.now.Add(-2*time.Minute).Unix()) }, "exp", false},
	{"196 exp of a string", func(m maker) string { return m.claims("exp", "soon") }, "exp", false},
	{"196 nbf to come", func(m maker) string { return m.claims("nbf", m.now.Add(2*time.Minute).Unix()) }, "nbf", false},
	{"196 nbf of a string", func(m maker) string { return m.claims("nbf", "soon") }, "nbf", false},
	{"196 nbf and exp around now", func(m maker) string {
		return m.sign(func(_, claims map[string]any) {
			claims["nbf"], claims["exp"] = m.now.Unix(), m.now.Add(time.Minute).Unix()
		})
	}, "", true},
	{"198 nonce missing", func(m maker) string { return m.claims("nonce", nil) }, "nonce", false},
	{"198 nonce empty", func(m maker) string { return m.claims("nonce", "") }, "nonce", false},
	{"198 nonce of a number", func(m maker) string { return m.claims("nonce", 1) }, "nonce", false},
	{"203 iss, anonymous token", func(m maker) string { return m.claims("iss", "wallet") }, "", true},
}

// TestProof: each proof is held against the rules, and refused for what is wrong with it.
func TestProof(t *testing.T) {
	for _, cases := range [][]proofCase{headerCases, keyCases, claimCases} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				m := newMaker(t)
				compact := c.make(m)
				if c.holds {
					if s := holds(t, m.rules(), jwts(compact)); len(s.Holders) != 1 || s.Nonces[0] != "nonce" || s.Attested || s.Type != "jwt" {
						t.Errorf("%+v", s)
					}
					return
				}
				fails(t, m.rules(), jwts(compact), "invalid_proof", strings.TrimSuffix("proofs.jwt[0] "+c.member, " "))
			})
		}
	}
}

// TestCheck190Told: what was wrong with a private key is told, and no part of it.
func TestCheck190Told(t *testing.T) {
	m := newMaker(t)
	private := m.members(jose.JSONWebKey{Key: m.h.private}, nil)
	for _, proofs := range []any{jwts(m.header("jwk", private)), attestations(m.attest(alters("attested_keys", []any{private})))} {
		_, err := Check(context.Background(), decode(t, proofs), m.rules())
		if err == nil || !strings.Contains(err.Error(), "holds a private key") || strings.Contains(err.Error(), private["d"].(string)) {
			t.Errorf("%v", err)
		}
	}
}
