package conformance

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// place is where a request holds a JWK that must be public, and the error of one
// that is not.
type place struct {
	status int
	code   string
	try    func(t testing.TB, jwk members) answer
}

// places are all of them.
func (i *instance) places(t testing.TB) map[string]place {
	t.Helper()
	credential := func(id, kind string, make func(t testing.TB, jwk members) any) func(testing.TB, members) answer {
		s := i.session(t, id)
		return func(t testing.TB, jwk members) answer {
			a := s.ask(t, members{"credential_configuration_id": id, "proofs": members{kind: []any{make(t, jwk)}}})
			s.nothingIssued(t)
			return a
		}
	}
	code := i.offer(t, pidSDJWT, nil).code
	encrypted := i.session(t, pidSDJWT)
	bound := i.bound(t, pidSDJWT)
	return map[string]place{
		"proof": {400, "invalid_proof", credential(pidSDJWT, "jwt", func(t testing.TB, jwk members) any {
			return i.proof(t, newKey(t, jose.ES256), i.nonce(t), with(members{"jwk": jwk}, nil))
		})},
		"proof, did:jwk": {400, "invalid_proof", credential(pidSDJWT, "jwt", func(t testing.TB, jwk members) any {
			return i.proof(t, newKey(t, jose.ES256), i.nonce(t), with(members{"jwk": nil, "kid": "did:jwk:" + base64url(marshal(t, jwk)) + "#0"}, nil))
		})},
		"key attestation": {400, "invalid_proof", credential(attested, "attestation", func(t testing.TB, jwk members) any {
			return i.attester.keyAttestation(t, nil, i.nonce(t), with(nil, members{"attested_keys": []any{jwk}}))
		})},
		"DPoP": {400, "invalid_dpop_proof", func(t testing.TB, jwk members) answer {
			return i.tokenRequest(t, code, nil, []string{"DPoP", i.dpop(t, newKey(t, jose.ES256), "/token", "", "", with(members{"jwk": jwk}, nil))})
		}},
		"DPoP, credential endpoint": {401, "invalid_dpop_proof", func(t testing.TB, jwk members) answer {
			return bound.ask(t, members{}, "DPoP", i.dpop(t, *bound.key, "/credential", bound.token, "", with(members{"jwk": jwk}, nil)))
		}},
		"wallet attestation": {400, "invalid_client", func(t testing.TB, jwk members) answer {
			k := newKey(t, jose.ES256)
			return i.tokenRequest(t, code, nil, []string{"OAuth-Client-Attestation", i.attester.attestation(t, k, with(nil, members{"cnf": members{"jwk": jwk}})), "OAuth-Client-Attestation-PoP", i.pop(t, k, "", nil)})
		}},
		"response encryption": {400, "invalid_encryption_parameters", func(t testing.TB, jwk members) answer {
			key := maps.Clone(jwk)
			key["alg"] = "ECDH-ES"
			a := encrypted.sealed(t, "/credential", encrypted.asking(t, pidSDJWT, members{"jwk": key, "enc": "A128GCM"}), sealing{})
			encrypted.nothingIssued(t)
			return a
		}},
		"JWE epk": {400, "invalid_encryption_parameters", func(t testing.TB, jwk members) answer {
			return encrypted.post(t, "/credential", []byte(i.crafted(t, members{"epk": jwk}, nil)), "Content-Type", "application/jwt")
		}},
	}
}

// crafted is a JWE that go-jose does not make: its header with changes, with the
// parts given in place of its own.
func (i *instance) crafted(t testing.TB, header members, parts map[int]string) string {
	t.Helper()
	all := strings.Split(i.sealAs(t, []byte(`{"credential_configuration_id":"`+unbound+`"}`), sealing{}), ".")
	decoded, err := base64.RawURLEncoding.DecodeString(all[0])
	if err != nil {
		t.Fatal(err)
	}
	var h members
	if err := json.Unmarshal(decoded, &h); err != nil {
		t.Fatal(err)
	}
	with(header, nil)(h, nil)
	maps.DeleteFunc(h, func(_ string, value any) bool { return value == nil })
	if header != nil {
		all[0] = base64url(marshal(t, h)) // the order of its members may change
	}
	for n, part := range parts {
		all[n] = part
	}
	return strings.Join(all, ".")
}

// TestHostileKeys: private and symmetric keys, and points that are not on their
// curve, are refused wherever a key may stand, with the error of that place.
func TestHostileKeys(t *testing.T) {
	i := plain(t)
	k := newKey(t, jose.ES256)
	data, err := json.Marshal(jose.JSONWebKey{Key: k.private})
	if err != nil {
		t.Fatal(err)
	}
	var private members
	if err := json.Unmarshal(data, &private); err != nil {
		t.Fatal(err)
	}
	x, y := offCurve(t)
	zero := base64url(make([]byte, 32))
	prime := "_____wAAAAEAAAAAAAAAAAAAAAD_______________8" // the field's p, which is no coordinate
	bad := map[string]members{
		"private parts":         private,
		"an empty d":            replaced(t, k, members{"d": ""}),
		"RSA's private parts":   replaced(t, k, members{"p": "AQ", "q": "AQ"}),
		"a symmetric key":       {"kty": "oct", "k": zero},
		"a key and a secret":    replaced(t, k, members{"k": zero}),
		"off the curve":         replaced(t, k, members{"x": x, "y": y}),
		"x and y swapped":       replaced(t, k, members{"x": k.members(t)["y"], "y": k.members(t)["x"]}),
		"the point at zero":     replaced(t, k, members{"x": zero, "y": zero}),
		"a coordinate of p":     replaced(t, k, members{"x": prime}),
		"another curve's name":  replaced(t, k, members{"crv": "P-384"}),
		"a coordinate of 10 KB": replaced(t, k, members{"x": strings.Repeat("A", 10_000)}),
	}
	for where, place := range i.places(t) {
		for what, jwk := range bad {
			t.Run(what+", "+where, func(t *testing.T) { refused(t, place.try(t, jwk), place.status, place.code) })
		}
	}
}

// TestHostileAlgorithms: neither none nor a MAC is taken for a signature, whatever
// the MAC's secret.
func TestHostileAlgorithms(t *testing.T) {
	i := plain(t)
	client, clientKey := registered(t)
	now := time.Now().Unix()
	k := newKey(t, jose.ES256)
	code, clientCode := i.offer(t, pidSDJWT, nil).code, client.offer(t, pidSDJWT, nil).code
	s, byAttestation, inProof := i.session(t, pidSDJWT), i.session(t, attested), i.session(t, byProof)
	// token makes a JWT of an algorithm that is no signature's.
	type token func(header, claims members) string
	ask := func(s *session, id, kind string, proof any) answer {
		a := s.ask(t, members{"credential_configuration_id": id, "proofs": members{kind: []any{proof}}})
		s.nothingIssued(t)
		return a
	}
	places := map[string]struct {
		code string
		key  key
		try  func(make token) answer
	}{
		"proof": {"invalid_proof", k, func(make token) answer {
			return ask(s, pidSDJWT, "jwt", make(members{"typ": "openid4vci-proof+jwt", "jwk": k.members(t)}, members{"aud": i.issuer, "iat": now, "nonce": i.nonce(t)}))
		}},
		"DPoP": {"invalid_dpop_proof", k, func(make token) answer {
			return i.tokenRequest(t, code, nil, []string{"DPoP", make(members{"typ": "dpop+jwt", "jwk": k.members(t)}, members{"jti": rand.Text(), "htm": "POST", "htu": i.issuer + "/token", "iat": now})})
		}},
		"wallet attestation": {"invalid_client", i.attester.key, func(make token) answer {
			return i.tokenRequest(t, code, nil, []string{"OAuth-Client-Attestation", make(members{"typ": "oauth-client-attestation+jwt", "x5c": i.attester.x5c},
				members{"iss": "https://provider.example", "sub": walletID, "iat": now, "exp": now + 3600, "cnf": members{"jwk": k.members(t)}}), "OAuth-Client-Attestation-PoP", i.pop(t, k, "", nil)})
		}},
		"proof of possession": {"invalid_client", k, func(make token) answer {
			return i.tokenRequest(t, code, nil, []string{"OAuth-Client-Attestation", i.attester.attestation(t, k, nil), "OAuth-Client-Attestation-PoP",
				make(members{"typ": "oauth-client-attestation-pop+jwt"}, members{"iss": walletID, "aud": i.issuer, "jti": rand.Text(), "iat": now})})
		}},
		"client assertion": {"invalid_client", clientKey, func(make token) answer {
			return client.tokenRequest(t, clientCode, []string{"client_assertion_type", assertionType, "client_assertion",
				make(members{"typ": "JWT", "kid": "1"}, members{"iss": registeredID, "sub": registeredID, "aud": client.issuer, "jti": rand.Text(), "iat": now, "exp": now + 60})}, nil)
		}},
		"key attestation": {"invalid_proof", i.attester.key, func(make token) answer {
			return ask(byAttestation, attested, "attestation", i.forgedAttestation(t, make, k))
		}},
		"key attestation in a proof": {"invalid_proof", i.attester.key, func(make token) answer {
			return ask(inProof, byProof, "jwt", i.proof(t, k, i.nonce(t), with(members{"key_attestation": i.forgedAttestation(t, make, k)}, nil)))
		}},
	}
	for where, place := range places {
		for _, alg := range []string{"none", "None", "HS256", "HS384", "HS512", "", "RS256"} {
			t.Run(fmt.Sprintf("%q, %s", alg, where), func(t *testing.T) {
				for _, sign := range []func(key, string) []byte{nil, mac} {
					refused(t, place.try(func(header, claims members) string {
						header["alg"] = alg
						unsigned := forge(t, header, claims, nil)
						if sign == nil {
							return unsigned
						}
						return unsigned + base64url(sign(place.key, strings.TrimSuffix(unsigned, ".")))
					}), 400, place.code)
				}
			})
		}
	}
	granted(t, i.tokenRequest(t, code, nil, nil), "Bearer")
	granted(t, client.tokenRequest(t, clientCode, client.assertion(t, clientKey, nil), nil), "Bearer")
}

// forgedAttestation is a key attestation by whoever makes it.
func (i *instance) forgedAttestation(t testing.TB, make func(header, claims members) string, k key) string {
	t.Helper()
	now := time.Now().Unix()
	return make(members{"typ": "key-attestation+jwt", "x5c": i.attester.x5c}, members{"iat": now, "exp": now + 3600, "attested_keys": []any{k.members(t)}, "nonce": i.nonce(t),
		"key_storage": []string{"iso_18045_high"}, "user_authentication": []string{"iso_18045_high"}})
}

// TestHostileJWE: what is no JWE that the metadata asks for is refused with one error.
func TestHostileJWE(t *testing.T) {
	i := plain(t)
	s := i.session(t, unbound)
	right := i.crafted(t, nil, nil)
	spoil := func(n int) string {
		parts := strings.Split(right, ".")
		at := len(parts[n]) / 2
		parts[n] = parts[n][:at] + map[bool]string{true: "B", false: "A"}[parts[n][at] == 'A'] + parts[n][at+1:]
		return strings.Join(parts, ".")
	}
	header, _, _ := strings.Cut(right, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	twice := base64url([]byte(strings.Replace(string(decoded), "{", `{"enc":"A128GCM",`, 1)))
	bodies := map[string]string{
		"empty":                       "",
		"text":                        "x",
		"four parts":                  "a.b.c.d",
		"six parts":                   right + ".AA",
		"dots":                        "....",
		"a million dots":              strings.Repeat(".", 200_000),
		"a JWS":                       i.proof(t, newKey(t, jose.ES256), "x", nil),
		"JSON serialization":          `{"protected":"` + header + `","recipients":[{}],"ciphertext":"AA"}`,
		"padding":                     right + "=",
		"a line break":                right + "\n",
		"another alphabet":            strings.Replace(right, ".", ".+/", 1),
		"header no JSON":              i.crafted(t, nil, map[int]string{0: "AAAA"}),
		"header empty":                i.crafted(t, nil, map[int]string{0: base64url([]byte("{}"))}),
		"header no object":            i.crafted(t, nil, map[int]string{0: base64url([]byte("[]"))}),
		"header with a member twice":  i.crafted(t, nil, map[int]string{0: twice}),
		"header of 20 KB":             i.crafted(t, members{"x": strings.Repeat("x", 20_000)}, nil),
		"header deep":                 i.crafted(t, nil, map[int]string{0: base64url([]byte(`{"x":` + strings.Repeat("[", 100_000)))}),
		"crit":                        i.crafted(t, members{"crit": []string{"exp"}, "exp": 1}, nil),
		"no epk":                      i.crafted(t, members{"epk": nil}, nil),
		"epk a text":                  i.crafted(t, members{"epk": "x"}, nil),
		"another epk":                 i.crafted(t, members{"epk": newKey(t, jose.ES256).members(t)}, nil),
		"epk on P-384":                i.crafted(t, members{"epk": newKey(t, jose.ES384).members(t)}, nil),
		"alg none":                    i.crafted(t, members{"alg": "none"}, nil),
		"alg RSA1_5":                  i.crafted(t, members{"alg": "RSA1_5"}, nil),
		"enc none":                    i.crafted(t, members{"enc": "none"}, nil),
		"no enc":                      i.crafted(t, members{"enc": nil}, nil),
		"kid an object":               i.crafted(t, members{"kid": members{}}, nil),
		"apu of 100 KB":               i.crafted(t, members{"apu": strings.Repeat("A", 100_000)}, nil),
		"p2c":                         i.crafted(t, members{"alg": "PBES2-HS256+A128KW", "p2c": 1 << 30, "p2s": "AAAA"}, nil),
		"a key where there is none":   i.crafted(t, nil, map[int]string{1: base64url(make([]byte, 24))}),
		"iv of 10 KB":                 i.crafted(t, nil, map[int]string{2: base64url(make([]byte, 10_000))}),
		"no iv":                       i.crafted(t, nil, map[int]string{2: ""}),
		"no ciphertext":               i.crafted(t, nil, map[int]string{3: ""}),
		"a short tag":                 i.crafted(t, nil, map[int]string{4: "AAAA"}),
		"no tag":                      i.crafted(t, nil, map[int]string{4: ""}),
		"a spoilt ciphertext":         spoil(3),
		"a spoilt tag":                spoil(4),
		"a spoilt iv":                 spoil(2),
		"compressed, which it is not": i.sealAs(t, []byte("no DEFLATE"), sealing{header: members{"zip": "DEF"}}),
	}
	i.bounded(t, mayGrow, func() {
		for name, body := range bodies {
			for _, path := range []string{"/credential", "/deferred"} {
				t.Run(name+" "+path, func(t *testing.T) {
					refused(t, s.post(t, path, []byte(body), "Content-Type", "application/jwt"), 400, "invalid_encryption_parameters")
				})
			}
		}
	})
	s.nothingIssued(t)
	credentials(t, s.post(t, "/credential", []byte(right), "Content-Type", "application/jwt"), 1)
	// What was decrypted is read as strictly as what came in the plain.
	for name, plaintext := range map[string]string{"no JSON": "x", "a member twice": `{"transaction_id":"a","transaction_id":"b"}`, "deep": `{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}", "an array": "[]", "empty": "", "more behind": "{}{}"} {
		t.Run("encrypted: "+name, func(t *testing.T) {
			s := i.session(t, unbound)
			for _, path := range []string{"/credential", "/deferred"} {
				refused(t, s.post(t, path, []byte(i.sealAs(t, []byte(plaintext), sealing{})), "Content-Type", "application/jwt"), 400, "invalid_credential_request")
			}
		})
	}
}

// TestCheck274: a request that inflates beyond measure is refused and takes no more
// memory than any other, also many at once.
func TestCheck274Bomb(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "sealed": sealed(t)} {
		var bombs [][]byte
		for _, size := range []int{512 << 10, 10 << 20, 30 << 20} {
			inner := bytes.Repeat([]byte(" "), size)
			copy(inner, `{"transaction_id":"`)
			for _, key := range i.requestKeys(t) {
				bombs = append(bombs, []byte(i.sealAs(t, inner, sealing{key: &key, zip: true})))
			}
			// DEFLATE within DEFLATE, as nobody makes it by accident
			bombs = append(bombs, []byte(i.sealAs(t, deflated(t, deflated(t, inner)), sealing{header: members{"zip": "DEF"}})))
		}
		t.Run("274 "+name, func(t *testing.T) {
			i.bounded(t, mayGrow, func() {
				var wait sync.WaitGroup
				for range 4 {
					s := i.session(t, pidSDJWT)
					wait.Go(func() {
						for n, bomb := range bombs {
							a := s.post(t, []string{"/credential", "/deferred"}[n%2], bomb, "Content-Type", "application/jwt")
							refused(t, a, 400, "invalid_encryption_parameters", "invalid_credential_request")
						}
					})
				}
				wait.Wait()
			})
		})
	}
	t.Run("274 too long however it comes", func(t *testing.T) {
		i := plain(t)
		s := i.session(t, pidSDJWT)
		long := []byte(`{"transaction_id":"` + rand.Text() + strings.Repeat(rand.Text(), 12_000) + `"}`)
		refused(t, s.post(t, "/deferred", []byte(i.sealAs(t, long, sealing{zip: true})), "Content-Type", "application/jwt"), 400, "invalid_encryption_parameters")
		refused(t, s.post(t, "/deferred", []byte(i.sealAs(t, long, sealing{})), "Content-Type", "application/jwt"), 413, "invalid_credential_request")
		refused(t, s.post(t, "/deferred", long), http.StatusRequestEntityTooLarge, "invalid_credential_request")
	})
}
