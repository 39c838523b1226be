package conformance

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// carriers put a key attestation into a request: into the header of a jwt proof
// that signer makes, or in place of one.
var carriers = map[string]func(t testing.TB, i *instance, signer key, nonce, attestation string) members{
	"jwt": func(t testing.TB, i *instance, signer key, nonce, attestation string) members {
		return members{"jwt": []string{i.proof(t, signer, nonce, with(members{"key_attestation": attestation}, nil))}}
	},
	"attestation": func(_ testing.TB, _ *instance, _ key, _, attestation string) members {
		return members{"attestation": []string{attestation}}
	},
}

// askAttested asks for credentials of a configuration that demands attestations.
func (s *session) askAttested(t testing.TB, proofs members) answer {
	t.Helper()
	return s.ask(t, members{"credential_configuration_id": attested, "proofs": proofs})
}

// newKeys are n keys of every supported kind.
func newKeys(t testing.TB, n int) (keys []key) {
	t.Helper()
	for at := range n {
		keys = append(keys, newKey(t, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.ES384}[at%3]))
	}
	return keys
}

func TestCheck211AttestationMissing(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		s, k := i.session(t, attested), newKey(t, jose.ES256)
		for what, header := range map[string]members{"none": nil, "null": {"key_attestation": (*int)(nil)}, "a number": {"key_attestation": 1}, "an empty text": {"key_attestation": ""}} {
			t.Run(name+" "+what, func(t *testing.T) {
				refused(t, s.ask(t, request(attested, i.proof(t, k, i.nonce(t), with(header, nil)))), http.StatusBadRequest, "invalid_proof")
			})
		}
		s.nothingIssued(t)
	}
}

func TestCheck212Typ(t *testing.T) {
	const final, draft15 = "key-attestation+jwt", "keyattestation+jwt"
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t), "draft-13": draft(t, "draft-13"), "draft-15": draft(t, "draft-15")} {
		for way, carry := range carriers {
			for _, typ := range []string{final, draft15, "JWT", "openid4vci-proof+jwt", ""} {
				t.Run(name+" "+way+" "+typ, func(t *testing.T) {
					s, k, nonce := i.session(t, attested), newKey(t, jose.ES256), i.nonce(t)
					header := members{"typ": typ}
					if typ == "" {
						header["typ"] = nil
					}
					a := s.askAttested(t, carry(t, i, k, nonce, i.attester.keyAttestation(t, []key{k}, nonce, with(header, nil))))
					if typ == final || typ == draft15 && strings.HasPrefix(name, "draft") {
						i.verified(t, credentials(t, a, 1)[0], &k)
						return
					}
					refused(t, a, http.StatusBadRequest, "invalid_proof")
					s.nothingIssued(t)
				})
			}
		}
	}
}

// wrongAttestation is a key attestation with one defect.
type wrongAttestation struct {
	name string // begins with the check's number
	// only is the carrier that it is wrong in; "" for both.
	only string
	// code is "" for invalid_proof.
	code string
	make func(t testing.TB, i *instance, k key, nonce string) string
}

// attestationWith is right but for members of header and claims.
func attestationWith(header, claims members) func(testing.TB, *instance, key, string) string {
	return func(t testing.TB, i *instance, k key, nonce string) string {
		return i.attester.keyAttestation(t, []key{k}, nonce, with(header, claims))
	}
}

// attestationBy is right but for who signed it.
func attestationBy(who func(t testing.TB, i *instance) attester) func(testing.TB, *instance, key, string) string {
	return func(t testing.TB, i *instance, k key, nonce string) string {
		return who(t, i).keyAttestation(t, []key{k}, nonce, nil)
	}
}

// forgedAttestation has any algorithm in its header and is signed by sign.
func forgedAttestation(alg any, sign func(k key, input string) []byte) func(testing.TB, *instance, key, string) string {
	return func(t testing.TB, i *instance, k key, nonce string) string {
		claims := payload(t, i.attester.keyAttestation(t, []key{k}, nonce, nil))
		header := members{"typ": "key-attestation+jwt", "alg": alg, "x5c": i.attester.x5c}
		if sign == nil {
			return forge(t, header, claims, nil)
		}
		return forge(t, header, claims, sign(i.attester.key, strings.TrimSuffix(forge(t, header, claims, nil), ".")))
	}
}

// attestedJWK has one attested key, with other members in its JWK.
func attestedJWK(changes members) func(testing.TB, *instance, key, string) string {
	return func(t testing.TB, i *instance, k key, nonce string) string {
		return attestationWith(nil, members{"attested_keys": []any{replaced(t, k, changes)}})(t, i, k, nonce)
	}
}

var wrongAttestations = []wrongAttestation{
	{"213 alg none", "", "", forgedAttestation("none", nil)},
	{"213 no alg", "", "", forgedAttestation(nil, nil)},
	{"213 HS256 with the public key", "", "", forgedAttestation("HS256", mac)},
	{"213 an alg of another curve", "", "", forgedAttestation("ES384", func(key, string) []byte { return make([]byte, 96) })},
	{"214 nobody's anchor", "", "", attestationBy(func(t testing.TB, _ *instance) attester { return newAuthority(t).attester(t, jose.ES256) })},
	{"214 signed by another key", "", "", attestationBy(func(t testing.TB, i *instance) attester {
		return attester{newKey(t, jose.ES256), i.attester.x5c, nil}
	})},
	{"214 another payload", "", "", func(t testing.TB, i *instance, k key, nonce string) string {
		a := strings.Split(attestationWith(nil, nil)(t, i, newKey(t, jose.ES256), nonce), ".")
		b := strings.Split(attestationWith(nil, nil)(t, i, k, nonce), ".")
		return a[0] + "." + b[1] + "." + a[2]
	}},
	{"214 no signature", "", "", func(t testing.TB, i *instance, k key, nonce string) string {
		a := attestationWith(nil, nil)(t, i, k, nonce)
		return a[:strings.LastIndexByte(a, '.')+1]
	}},
	{"214 no JWT", "", "", func(testing.TB, *instance, key, string) string { return "x" }},
	{"214 a critical header", "", "", attestationWith(members{"crit": []string{"urn:x"}, "urn:x": 1}, nil)},
	{"215 no iat", "", "", attestationWith(nil, members{"iat": nil})},
	{"215 iat a text", "", "", attestationWith(nil, members{"iat": "now"})},
	{"215 iat in ten minutes", "", "", attestationWith(nil, members{"iat": time.Now().Add(10 * time.Minute).Unix()})},
	{"215 no attested_keys", "", "", attestationWith(nil, members{"attested_keys": nil})},
	{"215 empty attested_keys", "", "", attestationWith(nil, members{"attested_keys": []any{}})},
	{"215 attested_keys an object", "", "", func(t testing.TB, i *instance, k key, nonce string) string {
		return attestationWith(nil, members{"attested_keys": k.members(t)})(t, i, k, nonce)
	}},
	{"215 attested_keys a key twice", "", "", func(t testing.TB, i *instance, k key, nonce string) string {
		return i.attester.keyAttestation(t, []key{k, k}, nonce, nil)
	}},
	{"216 no exp", "jwt", "", attestationWith(nil, members{"exp": nil})},
	{"217 expired", "", "", attestationWith(nil, members{"exp": time.Now().Add(-2 * time.Minute).Unix()})},
	{"217 exp a text", "", "", attestationWith(nil, members{"exp": "tomorrow"})},
	{"218 the proof's key is not attested", "jwt", "", func(t testing.TB, i *instance, _ key, nonce string) string {
		return i.attester.keyAttestation(t, newKeys(t, 3), nonce, nil)
	}},
	{"219 no nonce", "attestation", "", attestationWith(nil, members{"nonce": nil})},
	{"219 nonce empty", "", "", attestationWith(nil, members{"nonce": ""})},
	{"219 nonce a number", "", "", attestationWith(nil, members{"nonce": 1})},
	{"220 221 a random nonce", "", "invalid_nonce", attestationWith(nil, members{"nonce": "VGhpcyBub25jZSBpcyBub25lIG9mIHRoZSBpc3N1ZXIncw"})},
	{"222 key_storage below", "", "", attestationWith(nil, members{"key_storage": []string{"iso_18045_enhanced-basic", "iso_18045_basic"}})},
	{"222 no key_storage", "", "", attestationWith(nil, members{"key_storage": nil})},
	{"222 key_storage empty", "", "", attestationWith(nil, members{"key_storage": []string{}})},
	{"222 key_storage a text", "", "", attestationWith(nil, members{"key_storage": "iso_18045_high"})},
	{"223 no user_authentication", "", "", attestationWith(nil, members{"user_authentication": nil})},
	{"223 user_authentication below", "", "", attestationWith(nil, members{"user_authentication": []string{"iso_18045_moderate"}})},
	{"226 d in an attested key", "", "", attestedJWK(members{"d": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"})},
	{"226 k in an attested key", "", "", attestedJWK(members{"k": "AAAA"})},
	{"226 a symmetric attested key", "", "", attestationWith(nil, members{"attested_keys": []any{members{"kty": "oct", "k": "AAAA"}}})},
	{"226 an attested key off the curve", "", "", attestedJWK(members{"y": base64.RawURLEncoding.EncodeToString(make([]byte, 32))})},
	{"228 no x5c", "", "", attestationWith(members{"x5c": nil}, nil)},
	{"228 a kid in place of x5c", "", "", attestationWith(members{"x5c": nil, "kid": "1"}, nil)},
	{"228 x5c empty", "", "", attestationWith(members{"x5c": []string{}}, nil)},
	{"228 x5c with the anchor", "", "", func(t testing.TB, i *instance, k key, nonce string) string {
		chain := append(slices.Clone(i.attester.x5c), base64.StdEncoding.EncodeToString(i.attester.anchor.Raw))
		return attestationWith(members{"x5c": chain}, nil)(t, i, k, nonce)
	}},
	{"228 x5c is the anchor", "", "", func(t testing.TB, i *instance, k key, nonce string) string {
		return attestationWith(members{"x5c": []string{base64.StdEncoding.EncodeToString(i.attester.anchor.Raw)}}, nil)(t, i, k, nonce)
	}},
	{"228 the leaf is self-signed", "", "", func(t testing.TB, i *instance, k key, nonce string) string {
		return attestationWith(members{"x5c": []string{selfSigned(t, i.attester.key)}}, nil)(t, i, k, nonce)
	}},
}

// Each is refused, wherever it stands; afterwards the same token gets its
// credential: nothing was issued, nothing was spent.
func TestCheck213To228WrongAttestations(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for way, carry := range carriers {
			s := i.session(t, attested)
			for _, w := range wrongAttestations {
				if w.only != "" && w.only != way {
					continue
				}
				t.Run(w.name+" "+name+" "+way, func(t *testing.T) {
					k, nonce, code := newKey(t, jose.ES256), i.nonce(t), w.code
					if code == "" {
						code = "invalid_proof"
					}
					refused(t, s.askAttested(t, carry(t, i, k, nonce, w.make(t, i, k, nonce))), http.StatusBadRequest, code)
				})
			}
			s.nothingIssued(t)
			k, nonce := newKey(t, jose.ES256), i.nonce(t)
			i.verified(t, credentials(t, s.askAttested(t, carry(t, i, k, nonce, attestationWith(nil, nil)(t, i, k, nonce))), 1)[0], &k)
		}
	}
}

// What an attested key signs without naming itself is refused as well when the
// key is not among the attested.
func TestCheck218UnnamedSigner(t *testing.T) {
	i := plain(t)
	s, nonce := i.session(t, attested), i.nonce(t)
	for name, header := range map[string]members{"no kid": {}, "kid 0": {"kid": "0"}, "kid of none": {"kid": "9"}} {
		t.Run(name, func(t *testing.T) {
			header["jwk"], header["key_attestation"] = nil, i.attester.keyAttestation(t, newKeys(t, 3), nonce, nil)
			refused(t, s.ask(t, request(attested, i.proof(t, newKey(t, jose.ES256), nonce, with(header, nil)))), http.StatusBadRequest, "invalid_proof")
		})
	}
	s.nothingIssued(t)
}

// A nonce is good once, in whatever it came.
func TestCheck220UsedNonce(t *testing.T) {
	i := plain(t)
	for way, carry := range carriers {
		t.Run(way, func(t *testing.T) {
			k, nonce := newKey(t, jose.ES256), i.nonce(t)
			proofs := carry(t, i, k, nonce, i.attester.keyAttestation(t, []key{k}, nonce, nil))
			credentials(t, i.session(t, attested).askAttested(t, proofs), 1)
			s := i.session(t, attested)
			refused(t, s.askAttested(t, proofs), http.StatusBadRequest, "invalid_nonce")
			s.nothingIssued(t)
		})
	}
}

// App. F.1 wants the nonce in the attestation, too; EU wallets make theirs ahead.
func TestCheck221InnerNonceMissing(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		t.Run(name, func(t *testing.T) {
			s, k := i.session(t, attested), newKey(t, jose.ES256)
			a := s.askAttested(t, carriers["jwt"](t, i, k, i.nonce(t), i.attester.keyAttestation(t, []key{k}, "", nil)))
			if i.haipOn {
				refused(t, a, http.StatusBadRequest, "invalid_proof")
				s.nothingIssued(t)
				return
			}
			i.verified(t, credentials(t, a, 1)[0], &k)
		})
	}
}

// Of several statements one that is asked for is enough; an exp is needed within
// a jwt proof alone.
func TestCheck216And222Tolerated(t *testing.T) {
	i := plain(t)
	for way, carry := range carriers {
		for name, claims := range map[string]members{
			"222 the lower of two levels": {"key_storage": []string{"iso_18045_moderate"}},
			"222 one of several":          {"key_storage": []string{"iso_18045_basic", "iso_18045_high"}},
			"215 iat a month ago":         {"iat": time.Now().Add(-30 * 24 * time.Hour).Unix()},
			"216 no exp":                  {"exp": nil},
			"212 further claims":          {"iss": "https://provider.example", "certification": "https://provider.example/certificate", "x": 1},
		} {
			if way == "jwt" && strings.HasPrefix(name, "216") {
				continue
			}
			t.Run(name+" "+way, func(t *testing.T) {
				s, k, nonce := i.session(t, attested), newKey(t, jose.ES256), i.nonce(t)
				i.verified(t, credentials(t, s.askAttested(t, carry(t, i, k, nonce, attestationWith(nil, claims)(t, i, k, nonce))), 1)[0], &k)
			})
		}
	}
}

func TestCheck224TwoAttestations(t *testing.T) {
	i := plain(t)
	s, nonce := i.session(t, attested), i.nonce(t)
	a, b := i.attester.keyAttestation(t, newKeys(t, 1), nonce, nil), i.attester.keyAttestation(t, newKeys(t, 1), nonce, nil)
	for name, list := range map[string][]string{"two": {a, b}, "one twice": {a, a}, "none": {}} {
		t.Run(name, func(t *testing.T) {
			refused(t, s.askAttested(t, members{"attestation": list}), http.StatusBadRequest, "invalid_credential_request", "invalid_proof")
		})
	}
	s.nothingIssued(t)
}

// Each attested key gets a credential, in the order in which they are attested.
func TestCheck225EachAttestedKey(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for way, carry := range carriers {
			t.Run(name+" "+way, func(t *testing.T) {
				s, keys, nonce := i.session(t, attested), newKeys(t, 3), i.nonce(t)
				a := s.askAttested(t, carry(t, i, keys[0], nonce, i.attester.keyAttestation(t, keys, nonce, nil)))
				for place, credential := range credentials(t, a, 3) {
					i.verified(t, credential, &keys[place])
				}
			})
		}
	}
}

// A request as the EU reference wallet makes it: one jwt proof that names no key
// and that the first of the attested keys signs; the nonce is in the proof alone.
// More keys than the configuration has credentials for get as many as it has.
func TestCheck225EUWallet(t *testing.T) {
	i := plain(t)
	for _, c := range []struct {
		id         string
		keys, want int
	}{{attested, 5, 5}, {byProof, 5, 5}, {pidSDJWT, 5, 5}, {mdl, 5, 5}, {attested, 12, 5}, {byProof, 12, 10}, {single, 12, 1}} {
		t.Run(fmt.Sprint(c.id, " ", c.keys), func(t *testing.T) {
			s, keys := i.session(t, c.id), newKeys(t, c.keys)
			proof := i.proof(t, keys[0], i.nonce(t), with(members{"jwk": nil, "key_attestation": i.attester.keyAttestation(t, keys, "", nil)}, nil))
			for place, credential := range credentials(t, s.ask(t, request(c.id, proof)), c.want) {
				i.verified(t, credential, &keys[place])
			}
		})
	}
}
