package proof

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/jws"
)

// exampleProof is the key proof of OpenID4VCI 1.0 App. F.1.
const exampleProof = "eyJ0eXAiOiJvcGVuaWQ0dmNpLXByb29mK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwiY3J2IjoiUC0yNTYiLCJ4IjoiblVXQW9BdjNYWml0aDhFN2kxOU9kYXhPTFlGT3dNLVoyRXVNMDJUaXJUNCIsInkiOiJIc2tIVThCalVpMVU5WHFpN1N3bWo4Z3dBS18weGtjRGpFV183MVNvc0VZIn19." +
	"eyJhdWQiOiJodHRwczovL2NyZWRlbnRpYWwtaXNzdWVyLmV4YW1wbGUuY29tIiwiaWF0IjoxNzAxOTYwNDQ0LCJub25jZSI6IkxhclJHU2JtVVBZdFJZTzZCUTR5bjgifQ." +
	"-a3EDsxClUB4O3LeDD5DVGEnNMT01FCQW4P6-2-BNBqc_Zxf0Qw4CWayLEpqkAomlkLb9zioZoipdP-jvh1WlA"

// TestExample: the specification's own proof holds, at its time and for its
// issuer, and with nothing else.
func TestExample(t *testing.T) {
	rules := newMaker(t).rules()
	rules.Audience, rules.Methods, rules.Past, rules.Now = "https://credential-issuer.example.com", []string{"jwk"}, time.Minute, time.Unix(1701960444, 0)
	s := holds(t, rules, jwts(exampleProof))
	if s.Nonces[0] != "LarRGSbmUPYtRYO6BQ4yn8" || s.Holders[0].DID != "" {
		t.Errorf("%+v", s)
	}
	for name, c := range map[string]struct {
		change func(*Rules)
		member string
	}{
		"another issuer":             {func(r *Rules) { r.Audience += "/" }, "aud"},
		"jwk is no binding method":   {func(r *Rules) { r.Methods = []string{"did:jwk"} }, "header jwk"},
		"no binding method at all":   {func(r *Rules) { r.Methods = nil }, "header jwk"},
		"six minutes later":          {func(r *Rules) { r.Now = r.Now.Add(6 * time.Minute) }, "iat"},
		"more than a minute earlier": {func(r *Rules) { r.Now = r.Now.Add(-61 * time.Second) }, "iat"},
		"another algorithm":          {func(r *Rules) { r.Types = map[string]Type{"jwt": {Algorithms: []string{"ES384"}}} }, "header alg"},
	} {
		t.Run(name, func(t *testing.T) {
			r := rules
			c.change(&r)
			fails(t, r, jwts(exampleProof), "invalid_proof", "proofs.jwt[0] "+c.member)
		})
	}
	for name, change := range map[string]func(*Rules){
		"cose_key stands for a jwk": func(r *Rules) { r.Methods = []string{"cose_key"} },
		"five minutes later":        func(r *Rules) { r.Now = r.Now.Add(5 * time.Minute) },
		"a longer nonce lifetime":   func(r *Rules) { r.Past, r.Now = time.Hour, r.Now.Add(time.Hour) },
		"a minute earlier":          func(r *Rules) { r.Now = r.Now.Add(-time.Minute) },
		"a client, and no iss":      func(r *Rules) { r.Client = "wallet" },
		"nobody is trusted":         func(r *Rules) { r.Providers = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := rules
			change(&r)
			holds(t, r, jwts(exampleProof))
		})
	}
}

// TestRulesFor: the rules are what the metadata says.
func TestRulesFor(t *testing.T) {
	required := &configuration.KeyAttestation{KeyStorage: []string{"iso_18045_high"}}
	r := RulesFor(&configuration.Configuration{File: configuration.File{Format: issuance.FormatMdoc, BatchSize: 7, KeyAttestation: required, ProofTypes: []string{"jwt", "attestation"}}})
	if r.BatchSize != 7 || r.Methods[0] != "cose_key" || len(r.Types) != 2 || r.Types["jwt"].Attestation != required || r.Types["attestation"].Algorithms[0] != "ES256" {
		t.Errorf("%+v", r)
	}
	r = RulesFor(&configuration.Configuration{File: configuration.File{ProofTypes: []string{"di_vp"}}})
	if r.Types["di_vp"].Algorithms[0] != "ecdsa-jcs-2019" || r.Types["di_vp"].Attestation != nil {
		t.Errorf("%+v", r)
	}
}

// TestStructure is of how proofs are put together (OpenID4VCI 1.0 §8.2).
func TestStructure(t *testing.T) {
	m := newMaker(t)
	good := m.sign(nil)
	alone := m.rules()
	alone.BatchSize = 1
	none := m.rules()
	none.BatchSize = 0
	onlyJWT := m.rules()
	onlyJWT.Types = map[string]Type{"jwt": onlyJWT.Types["jwt"]}
	unknown := m.rules()
	unknown.Types = map[string]Type{"cwt": unknown.Types["jwt"]}
	four := []any{good, good, good, good}
	for _, c := range []struct {
		name         string
		rules        Rules
		proofs       any
		code, member string
	}{
		{"167 missing", m.rules(), nil, "invalid_proof", "proofs"},
		{"168 two types", m.rules(), map[string]any{"jwt": []any{good}, "attestation": []any{good}}, "invalid_credential_request", "proofs"},
		{"168 no type", m.rules(), map[string]any{}, "invalid_credential_request", "proofs"},
		{"168 an array", m.rules(), []any{good}, "invalid_credential_request", "proofs"},
		{"168 a string", m.rules(), good, "invalid_credential_request", "proofs"},
		{"169 empty array", m.rules(), map[string]any{"jwt": []any{}}, "invalid_credential_request", "proofs.jwt"},
		{"169 string", m.rules(), map[string]any{"jwt": good}, "invalid_credential_request", "proofs.jwt"},
		{"169 null", m.rules(), map[string]any{"jwt": nil}, "invalid_credential_request", "proofs.jwt"},
		{"169 array of a number", m.rules(), map[string]any{"jwt": []any{1}}, "invalid_credential_request", "proofs.jwt[0]"},
		{"169 array with null", m.rules(), map[string]any{"jwt": []any{good, nil}}, "invalid_credential_request", "proofs.jwt[1]"},
		{"169 attestation as an object", m.rules(), map[string]any{"attestation": []any{map[string]any{}}}, "invalid_credential_request", "proofs.attestation[0]"},
		{"169 di_vp as a string", m.rules(), map[string]any{"di_vp": []any{"{}"}}, "invalid_credential_request", "proofs.di_vp[0]"},
		{"170 type not in the metadata", onlyJWT, map[string]any{"attestation": []any{good}}, "invalid_credential_request", "proofs"},
		{"170 type nobody knows", m.rules(), map[string]any{"ldp_vp": []any{good}}, "invalid_credential_request", "proofs"},
		{"170 type in capitals", m.rules(), map[string]any{"JWT": []any{good}}, "invalid_credential_request", "proofs"},
		{"170 type in the metadata that is not read", unknown, map[string]any{"cwt": []any{good}}, "invalid_credential_request", "proofs.cwt"},
		{"171 singular proof", m.rules(), nil, "invalid_proof", "proofs"},
		{"255 more than the batch size", m.rules(), map[string]any{"jwt": four}, "invalid_credential_request", "proofs.jwt"},
		{"255 more presentations", m.rules(), map[string]any{"di_vp": []any{1, 2, 3, 4}}, "invalid_credential_request", "proofs.di_vp"},
		{"256 two without batches", alone, map[string]any{"jwt": []any{good, good}}, "invalid_credential_request", "proofs.jwt"},
		{"256 two, no batch size", none, map[string]any{"jwt": []any{good, good}}, "invalid_credential_request", "proofs.jwt"},
	} {
		t.Run(c.name, func(t *testing.T) { fails(t, c.rules, c.proofs, c.code, c.member) })
	}
	holds(t, none, jwts(good))
}

// TestIssuer is of the iss claim, under a client's token and an anonymous one.
func TestIssuer(t *testing.T) {
	m := newMaker(t)
	client, strict := m.rules(), m.rules()
	client.Client, client.Strict, strict.Strict = "wallet", true, true
	for _, c := range []struct {
		name  string
		rules Rules
		iss   any
		holds bool
	}{
		{"202 iss is the client", client, "wallet", true},
		{"202 no iss", client, nil, true},
		{"202 iss is another client", client, "other", false},
		{"202 iss in capitals", client, "WALLET", false},
		{"202 iss of a number", client, 1, false},
		{"202 iss of an array", client, []string{"wallet"}, false},
		{"203 iss, anonymous token, lenient", m.rules(), "wallet", true},
		{"203 iss, anonymous token, strict", strict, "wallet", false},
		{"203 empty iss, anonymous token, strict", strict, "", false},
		{"203 no iss, anonymous token, strict", strict, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			compact := m.claims("iss", c.iss)
			if c.holds {
				holds(t, c.rules, jwts(compact))
				return
			}
			fails(t, c.rules, jwts(compact), "invalid_proof", "proofs.jwt[0] iss")
		})
	}
}

// TestSeveral is of several proofs in one request.
func TestSeveral(t *testing.T) {
	m := newMaker(t)
	second, third := m.with(issuance.ES384), m.with(issuance.EdDSA)
	other := func(_, claims map[string]any) { claims["nonce"] = "other" }
	t.Run("254 a key each", func(t *testing.T) {
		s := holds(t, m.rules(), jwts(m.sign(nil), second.sign(nil), third.sign(nil)))
		named(t, s, m.h, second.h, third.h)
		if len(s.Nonces) != 1 || s.Attested {
			t.Errorf("%+v", s)
		}
	})
	t.Run("254 a nonce each", func(t *testing.T) {
		if s := holds(t, m.rules(), jwts(m.sign(nil), second.sign(other), third.sign(nil))); len(s.Nonces) != 2 || s.Nonces[0] != "nonce" || s.Nonces[1] != "other" {
			t.Errorf("%q", s.Nonces)
		}
	})
	t.Run("254 more proofs than this configuration's batch size", func(t *testing.T) {
		rules := m.rules()
		rules.BatchSize, rules.MaxProofs = 2, 3
		named(t, holds(t, rules, jwts(m.sign(nil), second.sign(nil), third.sign(nil))), m.h, second.h)
		spoilt := jwts(m.sign(nil), second.sign(nil), third.claims("aud", "x"))
		fails(t, rules, spoilt, "invalid_proof", "proofs.jwt[2] aud") // every one must hold
	})
	t.Run("209 the second is invalid", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.sign(nil), second.claims("aud", "x")), "invalid_proof", "proofs.jwt[1] aud")
	})
	t.Run("209 the first is invalid", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.header("typ", "JWT"), second.sign(nil)), "invalid_proof", "proofs.jwt[0] header typ")
	})
	t.Run("210 the same proof twice", func(t *testing.T) {
		compact := m.sign(nil)
		fails(t, m.rules(), jwts(compact, compact), "invalid_proof", "proofs.jwt[1]")
	})
	for name, again := range map[string]string{
		"another jwk of it": m.jwk(map[string]any{"kid": "2"}), "did:jwk": m.key(map[string]any{"kid": m.h.kid(t, "did:jwk")}),
		"did:key": m.key(map[string]any{"kid": m.h.kid(t, "did:key")}), "x5c": m.key(map[string]any{"x5c": []string{m.certificate(m.h.private.Public())}}),
	} {
		t.Run("210 the same key, "+name, func(t *testing.T) {
			fails(t, m.rules(), jwts(m.sign(nil), second.sign(nil), again), "invalid_proof", "proofs.jwt[2]")
		})
	}
}

// TestDID: a key that came under a DID is bound to it, as it was written.
func TestDID(t *testing.T) {
	m := newMaker(t)
	for _, method := range []string{"did:jwk", "did:key"} {
		kid := m.h.kid(t, method)
		s := holds(t, m.rules(), jwts(m.key(map[string]any{"kid": kid})))
		if named(t, s, m.h); s.Holders[0].DID+"#" != kid[:len(s.Holders[0].DID)+1] {
			t.Errorf("204 %s: %q", method, s.Holders[0].DID)
		}
		rules := m.rules()
		rules.Methods = []string{"jwk"}
		fails(t, rules, jwts(m.key(map[string]any{"kid": kid})), "invalid_proof", "proofs.jwt[0] header kid") // 205
	}
}

// TestProperties: whatever proofs, attestations and batch size are put together,
// what holds is sound, and the keys that signed come first.
func TestProperties(t *testing.T) {
	m := newMaker(t)
	keys := []holder{newHolder(t, issuance.ES256), newHolder(t, issuance.ES256), newHolder(t, issuance.EdDSA), newHolder(t, issuance.ES384), newHolder(t, issuance.EdDSA)}
	pick := rapid.SliceOfNDistinct(rapid.IntRange(0, len(keys)-1), 1, len(keys), rapid.ID[int])
	rapid.Check(t, func(r *rapid.T) {
		rules := m.rules()
		rules.BatchSize, rules.MaxProofs = rapid.IntRange(0, 6).Draw(r, "batch"), len(keys)
		var signers []holder
		var proofs []string
		for _, n := range pick.Draw(r, "signers") {
			m := m
			m.h, signers = keys[n], append(signers, keys[n])
			attested := []holder{keys[n]}
			if rapid.Bool().Draw(r, "attested") {
				for _, other := range pick.Draw(r, "attested keys") {
					if other != n {
						attested = append(attested, keys[other])
					}
				}
				proofs = append(proofs, m.header("key_attestation", m.attest(nil, attested...)))
				continue
			}
			proofs = append(proofs, m.sign(nil))
		}
		s, err := Check(context.Background(), decode(t, jwts(proofs...)), rules)
		if err != nil {
			t.Fatal(err)
		}
		sound(t, s, rules)
		for n := range min(len(signers), max(rules.BatchSize, 1)) {
			if s.Holders[n].Thumbprint != signers[n].thumbprint(t) {
				t.Errorf("holder %d is not the key that signed proof %d", n, n)
			}
		}
	})
}

// TestObject: numbers and members of a request are as the strict reader gives them.
func TestObject(t *testing.T) {
	object, err := jws.Object([]byte(`{"proofs":{"jwt":["` + exampleProof + `"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	rules := newMaker(t).rules()
	rules.Audience, rules.Now = "https://credential-issuer.example.com", time.Unix(1701960444, 0)
	if s, err := Check(context.Background(), object["proofs"], rules); err != nil || len(s.Holders) != 1 {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := Check(context.Background(), object["proof"], rules); err == nil || memberOf(err) != "proofs" {
		t.Error("a request without proofs is taken")
	}
}
