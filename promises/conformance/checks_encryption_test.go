package conformance

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestCheck261(t *testing.T) {
	i := plain(t)
	keys := i.requestKeys(t)
	if len(keys) != len(keyAlgorithms) {
		t.Fatalf("%d keys", len(keys))
	}
	for n, key := range keys {
		if key.Algorithm != string(keyAlgorithms[n]) || key.Use != "enc" || !key.IsPublic() {
			t.Errorf("key %d: %s %s", n, key.Algorithm, key.Use)
		}
		for _, enc := range contentAlgorithms {
			for _, zip := range []bool{false, true} {
				t.Run(fmt.Sprintf("261 %s %s %t", key.Algorithm, enc, zip), func(t *testing.T) {
					s := i.session(t, pidSDJWT)
					credentials(t, s.sealed(t, "/credential", s.asking(t, pidSDJWT, nil), sealing{key: &key, enc: enc, zip: zip}), 1)
				})
			}
		}
	}
	t.Run("261 further header members, a bound token", func(t *testing.T) {
		s := i.bound(t, mdl)
		r := newRecipient(t)
		a := s.sealed(t, "/credential", s.asking(t, mdl, r.asked(t, jose.A256GCM, false)), sealing{header: members{"typ": "JWT", "cty": "json", "private": true}})
		credentials(t, r.opened(t, a, 200, jose.A256GCM, false), 1)
	})
}

func TestCheck262And270Required(t *testing.T) {
	i := sealed(t)
	s, r := i.session(t, pidSDJWT), newRecipient(t)
	right := s.asking(t, pidSDJWT, r.asked(t, jose.A128GCM, false))
	open := s.asking(t, pidSDJWT, nil)
	poll := members{"transaction_id": "none"}
	sealedPoll := members{"transaction_id": "none", "credential_response_encryption": r.asked(t, jose.A128GCM, false)}
	for _, c := range []struct {
		name, path string
		request    members
	}{{"262 plain", "/credential", open}, {"262 plain, for an encrypted answer", "/credential", right}, {"262 a poll", "/deferred", poll}, {"262 a poll for an encrypted answer", "/deferred", sealedPoll}} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, s.post(t, c.path, marshal(t, c.request)), 400, "invalid_encryption_parameters")
			s.nothingIssued(t)
		})
	}
	t.Run("270", func(t *testing.T) {
		refused(t, s.sealed(t, "/credential", open, sealing{}), 400, "invalid_encryption_parameters")
		refused(t, s.sealed(t, "/deferred", poll, sealing{}), 400, "invalid_encryption_parameters")
		s.nothingIssued(t)
	})
	t.Run("262 270 nothing is spent", func(t *testing.T) {
		credentials(t, r.opened(t, s.sealed(t, "/credential", right, sealing{}), 200, jose.A128GCM, false), 1)
	})
	t.Run("262 a plain request under the encrypted one's media type", func(t *testing.T) {
		s := i.session(t, pidSDJWT)
		refused(t, s.post(t, "/credential", marshal(t, s.asking(t, pidSDJWT, nil)), "Content-Type", "application/jwt"), 400, "invalid_encryption_parameters")
	})
}

func TestCheck263Header(t *testing.T) {
	i := plain(t)
	s := i.session(t, pidSDJWT)
	keys := i.requestKeys(t)
	other := func(name string) *jose.JSONWebKey { k := keys[0]; k.KeyID = name; return &k }
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	stranger := recipientOn(t, elliptic.P256(), jose.ECDH_ES, "")
	curve := recipientOn(t, elliptic.P384(), jose.ECDH_ES, "")
	right := s.asking(t, pidSDJWT, nil)
	cases := map[string]sealing{
		"263 alg of another key":             {key: &keys[0], alg: jose.ECDH_ES_A128KW},
		"263 alg of another key, the second": {key: &keys[1], alg: jose.ECDH_ES},
		"263 alg of no key":                  {key: &keys[2], alg: jose.ECDH_ES_A192KW},
		"263 an unknown kid":                 {key: other("unknown")},
		"263 no kid":                         {key: other("")},
		"263 another key under the kid":      {key: &jose.JSONWebKey{Key: stranger.private.Public(), KeyID: keys[0].KeyID, Algorithm: keys[0].Algorithm}},
		"263 a key on another curve":         {key: &jose.JSONWebKey{Key: curve.private.Public(), KeyID: keys[0].KeyID, Algorithm: keys[0].Algorithm}},
		"263 RSA-OAEP-256":                   {key: &jose.JSONWebKey{Key: rsaKey.Public(), KeyID: keys[0].KeyID}, alg: jose.RSA_OAEP_256},
		"263 dir":                            {key: &jose.JSONWebKey{Key: make([]byte, 16), KeyID: keys[0].KeyID}, alg: jose.DIRECT},
		"263 a password":                     {key: &jose.JSONWebKey{Key: make([]byte, 16), KeyID: keys[0].KeyID}, alg: jose.PBES2_HS256_A128KW},
		"263 enc A192GCM":                    {enc: jose.A192GCM},
		"263 enc A192CBC-HS384":              {enc: jose.A192CBC_HS384},
	}
	for name, how := range cases {
		for _, path := range []string{"/credential", "/deferred"} {
			t.Run(name+" "+path, func(t *testing.T) {
				refused(t, s.sealed(t, path, right, how), 400, "invalid_encryption_parameters")
			})
		}
	}
	s.nothingIssued(t)
	credentials(t, s.sealed(t, "/credential", right, sealing{}), 1)
}

func TestCheck264(t *testing.T) {
	i := uncompressed(t)
	s := i.session(t, pidSDJWT)
	metadata := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil).object(t)
	for _, name := range []string{"credential_request_encryption", "credential_response_encryption"} {
		if member, _ := metadata[name].(members); member == nil || member["zip_values_supported"] != nil {
			t.Errorf("%s: %v", name, member)
		}
	}
	r := newRecipient(t)
	right := s.asking(t, pidSDJWT, r.asked(t, jose.A128GCM, false))
	t.Run("264 a request", func(t *testing.T) {
		refused(t, s.sealed(t, "/credential", right, sealing{zip: true}), 400, "invalid_encryption_parameters")
	})
	t.Run("264 an answer", func(t *testing.T) {
		refused(t, s.sealed(t, "/credential", s.asking(t, pidSDJWT, r.asked(t, jose.A128GCM, true)), sealing{}), 400, "invalid_encryption_parameters")
	})
	s.nothingIssued(t)
	credentials(t, r.opened(t, s.sealed(t, "/credential", right, sealing{}), 200, jose.A128GCM, false), 1)
	t.Run("264 unknown", func(t *testing.T) {
		p := plain(t).session(t, pidSDJWT)
		for _, zip := range []any{"GZIP", "def", "", nil, true} {
			asked := r.asked(t, jose.A128GCM, false)
			asked["zip"] = zip
			refused(t, p.sealed(t, "/credential", p.asking(t, pidSDJWT, asked), sealing{}), 400, "invalid_encryption_parameters")
		}
		p.nothingIssued(t)
	})
}

func TestCheck265To267(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "sealed": sealed(t)} {
		for _, alg := range keyAlgorithms {
			for n, enc := range contentAlgorithms {
				for number, zip := range map[string]bool{"266": true, "267": false} {
					t.Run(fmt.Sprintf("265 %s %s %s %s", number, name, alg, enc), func(t *testing.T) {
						curve := []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}[n%3]
						r, s := recipientOn(t, curve, alg, rand.Text()), i.session(t, pidSDJWT)
						a := r.opened(t, s.sealed(t, "/credential", s.asking(t, pidSDJWT, r.asked(t, enc, zip)), sealing{}), 200, enc, zip)
						credentials(t, a, 1)
					})
				}
			}
		}
		t.Run("265 a key without kid "+name, func(t *testing.T) {
			r, s := recipientOn(t, elliptic.P256(), jose.ECDH_ES, ""), i.session(t, mdl)
			credentials(t, r.opened(t, s.sealed(t, "/credential", s.asking(t, mdl, r.asked(t, jose.A128GCM, false)), sealing{}), 200, jose.A128GCM, false), 1)
		})
	}
}

// spoilt is the member credential_response_encryption with one defect.
func (r recipient) spoilt(t testing.TB, jwk, outer members) members {
	t.Helper()
	m := r.asked(t, jose.A128GCM, false)
	for name, value := range outer {
		m[name] = value
		if value == nil {
			delete(m, name)
		}
	}
	if key, ok := m["jwk"].(members); ok {
		for name, value := range jwk {
			key[name] = value
			if value == nil {
				delete(key, name)
			}
		}
	}
	return m
}

func TestCheck268And269Parameters(t *testing.T) {
	i := plain(t)
	s, r := i.session(t, pidSDJWT), newRecipient(t)
	private := members{}
	with(r.asked(t, jose.A128GCM, false)["jwk"].(members), nil)(private, nil)
	d, err := r.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ed := newKey(t, jose.EdDSA).members(t)
	x, y := offCurve(t)
	for name, asked := range map[string]any{
		"268 enc A192GCM":        r.spoilt(t, nil, members{"enc": "A192GCM"}),
		"268 enc in lower case":  r.spoilt(t, nil, members{"enc": "a128gcm"}),
		"268 no enc":             r.spoilt(t, nil, members{"enc": nil}),
		"268 enc a list":         r.spoilt(t, nil, members{"enc": []string{"A128GCM"}}),
		"268 alg ECDH-ES+A192KW": r.spoilt(t, members{"alg": "ECDH-ES+A192KW"}, nil),
		"268 alg RSA-OAEP-256":   r.spoilt(t, members{"alg": "RSA-OAEP-256"}, nil),
		"268 alg dir":            r.spoilt(t, members{"alg": "dir"}, nil),
		"268 alg of a signature": r.spoilt(t, members{"alg": "ES256"}, nil),
		"269 no alg":             r.spoilt(t, members{"alg": nil}, nil),
		"269 alg beside the jwk": r.spoilt(t, members{"alg": nil}, members{"alg": "ECDH-ES"}),
		"269 a private key":      r.spoilt(t, members{"d": base64url(d)}, nil),
		"269 an empty d":         r.spoilt(t, members{"d": ""}, nil),
		"269 another curve":      r.spoilt(t, members{"crv": "P-384"}, nil),
		"269 secp256k1":          r.spoilt(t, members{"crv": "secp256k1"}, nil),
		"269 no curve":           r.spoilt(t, members{"crv": nil}, nil),
		"269 off the curve":      r.spoilt(t, members{"x": x, "y": y}, nil),
		"269 the point at zero":  r.spoilt(t, members{"x": base64url(make([]byte, 32)), "y": base64url(make([]byte, 32))}, nil),
		"269 a short x":          r.spoilt(t, members{"x": "AQ"}, nil),
		"269 no y":               r.spoilt(t, members{"y": nil}, nil),
		"269 Ed25519":            r.spoilt(t, nil, members{"jwk": members{"kty": "OKP", "crv": "Ed25519", "x": ed["x"], "alg": "ECDH-ES"}}),
		"269 X25519":             r.spoilt(t, nil, members{"jwk": members{"kty": "OKP", "crv": "X25519", "x": ed["x"], "alg": "ECDH-ES"}}),
		"269 a symmetric key":    r.spoilt(t, nil, members{"jwk": members{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAA", "alg": "dir"}}),
		"269 for signatures":     r.spoilt(t, members{"use": "sig"}, nil),
		"269 kid a number":       r.spoilt(t, members{"kid": 1}, nil),
		"269 no jwk":             r.spoilt(t, nil, members{"jwk": nil}),
		"269 jwk a text":         r.spoilt(t, nil, members{"jwk": "x"}),
		"269 jwks":               r.spoilt(t, nil, members{"jwk": members{"keys": []any{private}}}),
		"269 no object":          "x",
		"269 null":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			request := s.asking(t, pidSDJWT, nil)
			request["credential_response_encryption"] = asked
			refused(t, s.sealed(t, "/credential", request, sealing{}), 400, "invalid_encryption_parameters")
			refused(t, s.sealed(t, "/deferred", members{"transaction_id": "none", "credential_response_encryption": asked}, sealing{}), 400, "invalid_encryption_parameters")
		})
	}
	s.nothingIssued(t)
	credentials(t, r.opened(t, s.sealed(t, "/credential", s.asking(t, pidSDJWT, r.asked(t, jose.A128GCM, false)), sealing{}), 200, jose.A128GCM, false), 1)
}

func TestCheck271(t *testing.T) {
	i := plain(t)
	s, r := i.session(t, pidSDJWT), newRecipient(t)
	refused(t, s.ask(t, s.asking(t, pidSDJWT, r.asked(t, jose.A128GCM, false))), 400, "invalid_encryption_parameters")
	refused(t, s.post(t, "/deferred", marshal(t, members{"transaction_id": "none", "credential_response_encryption": r.asked(t, jose.A128GCM, false)})), 400, "invalid_encryption_parameters")
	s.nothingIssued(t)
	credentials(t, s.ask(t, s.asking(t, pidSDJWT, nil)), 1)
}

func TestCheck272NeverEncrypted(t *testing.T) {
	i, path := sealed(t), "/credential"
	for _, zip := range []bool{false, true} {
		s, r := i.session(t, pidSDJWT), newRecipient(t)
		encryption := r.asked(t, jose.A256GCM, zip)
		how := sealing{zip: zip}
		ask := func(change members, header ...string) answer {
			request := s.asking(t, pidSDJWT, encryption)
			with(change, nil)(request, nil)
			return s.post(t, path, []byte(s.sealAs(t, marshal(t, request), how)), append([]string{"Content-Type", "application/jwt"}, header...)...)
		}
		refused(t, ask(members{"proofs": members{"jwt": []string{"x"}}}), 400, "invalid_proof")
		refused(t, ask(members{"proofs": nil}), 400, "invalid_proof")
		refused(t, ask(members{"proofs": members{"jwt": []string{i.proof(t, newKey(t, jose.ES256), "unknown", nil)}}}), 400, "invalid_nonce")
		refused(t, ask(members{"credential_configuration_id": "unknown"}), 400, "unknown_credential_configuration")
		refused(t, ask(members{"credential_configuration_id": 1}), 400, "invalid_credential_request")
		refused(t, ask(members{"credential_identifier": "x"}), 400, "invalid_credential_request")
		refused(t, ask(members{"credential_configuration_id": mdl}), 403, "insufficient_scope")
		refused(t, ask(nil, "Authorization", "Bearer nothing"), 401, "invalid_token")
		s.nothingIssued(t)
		credentials(t, r.opened(t, ask(nil), 200, jose.A256GCM, zip), 1)
		refused(t, ask(nil), 400, "credential_request_denied") // retries are off
		path = "/deferred"
		refused(t, ask(members{"transaction_id": "unknown"}), 400, "invalid_transaction_id")
		refused(t, ask(nil), 400, "invalid_credential_request")
		refused(t, ask(nil, "Authorization", "Bearer nothing"), 401, "invalid_token")
		path = "/credential"
	}
	t.Run("272 refused by the operator", func(t *testing.T) {
		s, r := i.session(t, approved), newRecipient(t)
		transaction := waiting(t, r.opened(t, s.sealed(t, "/credential", s.asking(t, approved, r.asked(t, jose.A128GCM, false)), sealing{}), 202, jose.A128GCM, false))
		i.decide(t, s.offer, "refuse")
		refused(t, s.sealed(t, "/deferred", members{"transaction_id": transaction, "credential_response_encryption": r.asked(t, jose.A128GCM, false)}, sealing{}), 400, "credential_request_denied")
	})
}

func TestCheck273And284(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "sealed": sealed(t)} {
		t.Run("273 284 "+name, func(t *testing.T) {
			s, first := i.session(t, approved), newRecipient(t)
			transaction := waiting(t, first.opened(t, s.sealed(t, "/credential", s.asking(t, approved, first.asked(t, jose.A128GCM, false)), sealing{}), 202, jose.A128GCM, false))
			poll := func(r recipient, enc jose.ContentEncryption, zip bool) answer {
				return s.sealed(t, "/deferred", members{"transaction_id": transaction, "credential_response_encryption": r.asked(t, enc, zip)}, sealing{zip: zip})
			}
			second := recipientOn(t, elliptic.P384(), jose.ECDH_ES_A256KW, rand.Text())
			if again := waiting(t, second.opened(t, poll(second, jose.A256CBC_HS512, true), 202, jose.A256CBC_HS512, true)); again != transaction {
				t.Errorf("another transaction: %s, %s", again, transaction)
			}
			i.decide(t, s.offer, "approve")
			third := recipientOn(t, elliptic.P521(), jose.ECDH_ES_A128KW, "")
			credentials(t, third.opened(t, poll(third, jose.A256GCM, false), 200, jose.A256GCM, false), 1)
		})
	}
}
