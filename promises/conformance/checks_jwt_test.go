package conformance

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Every advertised algorithm with every format, through a verifier's eyes.
func TestCheck181BoundToTheKey(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA} {
			for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence} {
				t.Run(fmt.Sprint(name, " ", alg, " ", id), func(t *testing.T) {
					s, k := i.session(t, id), newKey(t, alg)
					i.verified(t, credentials(t, s.ask(t, request(id, i.proof(t, k, i.nonce(t), nil))), 1)[0], &k)
				})
			}
		}
	}
}

// wrongProof is a jwt proof with one defect.
type wrongProof struct {
	name string // begins with the check's number
	// make makes the proof for a key; the nonce is right.
	make func(t testing.TB, i *instance, k key, nonce string) string
}

// proofWith is a proof that is right but for members of header and claims.
func proofWith(header, claims members) func(testing.TB, *instance, key, string) string {
	return func(t testing.TB, i *instance, k key, nonce string) string {
		return i.proof(t, k, nonce, with(header, claims))
	}
}

// proofOf is a proof that is right but for what c changes.
func proofOf(c func(t testing.TB, i *instance, k key, header, claims members)) func(testing.TB, *instance, key, string) string {
	return func(t testing.TB, i *instance, k key, nonce string) string {
		return i.proof(t, k, nonce, func(header, claims members) { c(t, i, k, header, claims) })
	}
}

// forged has any algorithm in its header and is signed by sign.
func forged(alg any, sign func(k key, input string) []byte, header members) func(testing.TB, *instance, key, string) string {
	return func(t testing.TB, i *instance, k key, nonce string) string {
		h := members{"typ": "openid4vci-proof+jwt", "alg": alg, "jwk": k.members(t)}
		with(header, nil)(h, nil)
		c := members{"aud": i.issuer, "iat": time.Now().Unix(), "nonce": nonce}
		unsigned := strings.TrimSuffix(forge(t, h, c, nil), ".")
		var signature []byte
		if sign != nil {
			signature = sign(k, unsigned)
		}
		return forge(t, h, c, signature)
	}
}

// mac signs as a verifier would check it that takes a public key for a secret.
func mac(k key, input string) []byte {
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		panic(err)
	}
	h := hmac.New(sha256.New, der)
	h.Write([]byte(input))
	return h.Sum(nil)
}

// chain is an x5c header for a key.
func chain(t testing.TB, k key) []string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Wallet"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		t.Fatal(err)
	}
	return []string{base64.StdEncoding.EncodeToString(der)}
}

// didJWK is a key's did:jwk.
func didJWK(t testing.TB, k key) string {
	t.Helper()
	return "did:jwk:" + base64.RawURLEncoding.EncodeToString(marshal(t, k.members(t)))
}

// replaced is the key's JWK with other members.
func replaced(t testing.TB, k key, changes members) members {
	t.Helper()
	m := k.members(t)
	with(changes, nil)(m, nil)
	return m
}

var wrongProofs = []wrongProof{
	{"182 typ JWT", proofWith(members{"typ": "JWT"}, nil)},
	{"182 no typ", proofWith(members{"typ": nil}, nil)},
	{"182 typ of a key attestation", proofWith(members{"typ": "key-attestation+jwt"}, nil)},
	{"182 typ a number", proofWith(members{"typ": 1}, nil)},
	{"183 alg none", forged("none", nil, nil)},
	{"183 alg None", forged("None", nil, nil)},
	{"183 no alg", forged(nil, nil, nil)},
	{"184 HS256 with the public key", forged("HS256", mac, nil)},
	{"184 HS256 with a key in the header", forged("HS256", mac, members{"jwk": members{"kty": "oct", "k": "AAAA"}})},
	{"185 ES512", func(t testing.TB, i *instance, _ key, nonce string) string {
		return i.proof(t, newKey(t, jose.ES512), nonce, nil)
	}},
	{"186 jwk and kid", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) { header["kid"] = didJWK(t, k) + "#0" })},
	{"186 jwk and an empty kid", proofWith(members{"kid": ""}, nil)},
	{"187 jwk and x5c", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) { header["x5c"] = chain(t, k) })},
	{"188 kid and x5c", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"], header["kid"], header["x5c"] = nil, didJWK(t, k)+"#0", chain(t, k)
	})},
	{"189 no key", proofWith(members{"jwk": nil}, nil)},
	{"189 kid that names nothing", proofWith(members{"jwk": nil, "kid": "1"}, nil)},
	{"190 jwk with d", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"] = replaced(t, k, members{"d": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"})
	})},
	{"190 jwk with k", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"] = replaced(t, k, members{"k": "AAAA"})
	})},
	{"191 signed by another key", func(t testing.TB, i *instance, k key, nonce string) string {
		return i.proof(t, newKey(t, jose.ES256), nonce, with(members{"jwk": k.jwk()}, nil))
	}},
	{"192 another payload", func(t testing.TB, i *instance, k key, nonce string) string {
		a, b := strings.Split(i.proof(t, k, nonce, nil), "."), strings.Split(i.proof(t, k, nonce, with(nil, members{"x": 1})), ".")
		return a[0] + "." + b[1] + "." + a[2]
	}},
	{"192 another header", func(t testing.TB, i *instance, k key, nonce string) string {
		a, b := strings.Split(i.proof(t, k, nonce, nil), "."), strings.Split(i.proof(t, k, nonce, with(members{"x": 1}, nil)), ".")
		return b[0] + "." + a[1] + "." + a[2]
	}},
	{"192 no signature", func(t testing.TB, i *instance, k key, nonce string) string {
		p := i.proof(t, k, nonce, nil)
		return p[:strings.LastIndex(p, ".")+1]
	}},
	{"192 DER signature", forged("ES256", func(k key, input string) []byte {
		sum := sha256.Sum256([]byte(input))
		signature, err := k.private.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			panic(err)
		}
		return signature
	}, nil)},
	{"193 aud another issuer", proofWith(nil, members{"aud": "https://issuer.example"})},
	{"193 aud the token endpoint", proofOf(func(_ testing.TB, i *instance, _ key, _, claims members) { claims["aud"] = i.issuer + "/token" })},
	{"193 aud the credential endpoint", proofOf(func(_ testing.TB, i *instance, _ key, _, claims members) { claims["aud"] = i.issuer + "/credential" })},
	{"193 no aud", proofWith(nil, members{"aud": nil})},
	{"193 aud an array of two", proofOf(func(_ testing.TB, i *instance, _ key, _, claims members) { claims["aud"] = []string{i.issuer, "x"} })},
	{"194 aud with a slash", proofOf(func(_ testing.TB, i *instance, _ key, _, claims members) { claims["aud"] = i.issuer + "/" })},
	{"194 aud in other case", proofOf(func(_ testing.TB, i *instance, _ key, _, claims members) {
		claims["aud"] = strings.Replace(i.issuer, "https", "HTTPS", 1)
	})},
	{"195 no iat", proofWith(nil, members{"iat": nil})},
	{"195 iat a string", proofOf(func(_ testing.TB, _ *instance, _ key, _, claims members) {
		claims["iat"] = fmt.Sprint(time.Now().Unix())
	})},
	{"195 iat beyond all dates", proofWith(nil, members{"iat": 1e300})},
	{"196 iat an hour ago", proofOf(func(_ testing.TB, _ *instance, _ key, _, claims members) {
		claims["iat"] = time.Now().Add(-time.Hour).Unix()
	})},
	{"196 iat in ten minutes", proofOf(func(_ testing.TB, _ *instance, _ key, _, claims members) {
		claims["iat"] = time.Now().Add(10 * time.Minute).Unix()
	})},
	{"196 iat in milliseconds", proofOf(func(_ testing.TB, _ *instance, _ key, _, claims members) { claims["iat"] = time.Now().UnixMilli() })},
	{"196 exp is over", proofOf(func(_ testing.TB, _ *instance, _ key, _, claims members) {
		claims["exp"] = time.Now().Add(-2 * time.Minute).Unix()
	})},
	{"198 no nonce", proofWith(nil, members{"nonce": nil})},
	{"198 nonce a number", proofWith(nil, members{"nonce": 1})},
	{"198 nonce empty", proofWith(nil, members{"nonce": ""})},
	{"198 nonce in the header", proofOf(func(_ testing.TB, _ *instance, _ key, header, claims members) {
		header["nonce"], claims["nonce"] = claims["nonce"], nil
	})},
	{"205 did:web", proofWith(members{"jwk": nil, "kid": "did:web:localhost#0"}, nil)},
	{"205 unknown method", proofWith(members{"jwk": nil, "kid": "did:example:123#key-1"}, nil)},
	{"205 did:jwk of another key", func(t testing.TB, i *instance, k key, nonce string) string {
		return i.proof(t, newKey(t, jose.ES256), nonce, with(members{"jwk": nil, "kid": didJWK(t, k) + "#0"}, nil))
	}},
	{"206 x5c of another key", func(t testing.TB, i *instance, k key, nonce string) string {
		return i.proof(t, newKey(t, jose.ES256), nonce, with(members{"jwk": nil, "x5c": chain(t, k)}, nil))
	}},
	{"206 x5c empty", proofWith(members{"jwk": nil, "x5c": []string{}}, nil)},
	{"206 x5c no certificate", proofWith(members{"jwk": nil, "x5c": []string{"AAAA"}}, nil)},
	{"207 point off the curve", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"] = replaced(t, k, members{"y": base64.RawURLEncoding.EncodeToString(make([]byte, 32))})
	})},
	{"207 point at infinity", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"] = replaced(t, k, members{"x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "y": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"})
	})},
	{"207 coordinate too short", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"] = replaced(t, k, members{"x": "AAAA"})
	})},
	{"207 crv of another alg", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"] = newKey(t, jose.ES384).jwk()
	})},
	{"207 another crv's name", proofOf(func(t testing.TB, _ *instance, k key, header, _ members) {
		header["jwk"] = replaced(t, k, members{"crv": "secp256k1"})
	})},
	{"207 alg of another crv", func(t testing.TB, i *instance, k key, nonce string) string {
		return forged("ES384", func(key, string) []byte { return make([]byte, 96) }, nil)(t, i, k, nonce)
	}},
	{"208 crit", proofWith(members{"crit": []string{"urn:x"}, "urn:x": 1}, nil)},
	{"208 crit that names nothing", proofWith(members{"crit": []string{"exp"}}, nil)},
	{"208 crit empty", proofWith(members{"crit": []string{}}, nil)},
	{"208 unencoded payload", proofWith(members{"crit": []string{"b64"}, "b64": false}, nil)},
}

// Each is refused with invalid_proof; afterwards the same token and the same
// nonce get the credential: nothing was issued, nothing was spent.
func TestCheck182To208WrongProofs(t *testing.T) {
	i := plain(t)
	for _, w := range wrongProofs {
		t.Run(w.name, func(t *testing.T) {
			s, k, nonce := i.session(t, pidSDJWT), newKey(t, jose.ES256), i.nonce(t)
			refused(t, s.ask(t, request(pidSDJWT, w.make(t, i, k, nonce))), http.StatusBadRequest, "invalid_proof")
			s.nothingIssued(t)
			i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, nonce, nil))), 1)[0], &k)
		})
	}
}
