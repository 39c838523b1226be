package proof

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

const (
	v1 = "https://www.w3.org/2018/credentials/v1"
	v2 = "https://www.w3.org/ns/credentials/v2"
)

// vpChange alters a presentation and the proof's options before they are signed.
type vpChange func(vp, proof map[string]any)

// vp makes a presentation whose proof is by h, under a DID of method. The
// canonical form is encoding/json's: of ASCII names and values without numbers
// but whole ones it is that of RFC 8785.
func (m maker) vp(h holder, method string, before, after vpChange) map[string]any {
	m.Helper()
	id, _, _ := strings.Cut(h.kid(m, method), "#")
	suite := ecdsaJCS
	if h.algorithm == "EdDSA" {
		suite = eddsaJCS
	}
	vp := map[string]any{"@context": []any{v2}, "type": []any{"VerifiablePresentation"}, "holder": id}
	proof := map[string]any{"type": "DataIntegrityProof", "cryptosuite": suite, "proofPurpose": "authentication", "verificationMethod": h.kid(m, method),
		"created": m.now.UTC().Format(time.RFC3339), "domain": issuer, "challenge": "nonce", "@context": []any{v2}}
	if before != nil {
		before(vp, proof)
	}
	hash := crypto.SHA256
	if h.algorithm == "ES384" {
		hash = crypto.SHA384
	}
	var message []byte
	for _, object := range []map[string]any{proof, vp} {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(object); err != nil {
			m.Fatal(err)
		}
		sum := hash.New()
		sum.Write(bytes.TrimSpace(b.Bytes()))
		message = sum.Sum(message)
	}
	proof["proofValue"] = "z" + base58.Encode(issuancetest.Sign(m, h.private, message))
	vp["proof"] = proof
	if after != nil {
		after(vp, proof)
	}
	return vp
}

// vps are proofs of the type di_vp.
func vps(all ...map[string]any) map[string]any { return map[string]any{"di_vp": all} }

// option sets a member of the proof, property one of the presentation; nil takes it away.
func option(name string, value any) vpChange {
	return func(_, proof map[string]any) { set(proof, name, value) }
}

func property(name string, value any) vpChange {
	return func(vp, _ map[string]any) { set(vp, name, value) }
}

// vpCase is a presentation with one defect before or after signing, or none.
type vpCase struct {
	name          string
	before, after vpChange
	// member is what the refusal is about; "-" when the presentation holds.
	member string
}

func vpCases(m maker) []vpCase {
	date := func(d time.Duration) string { return m.now.Add(d).UTC().Format(time.RFC3339) }
	return []vpCase{
		{"229 as it should be", nil, nil, "-"},
		{"229 domain of another issuer", option("domain", "https://other.example.com"), nil, "proof.domain"},
		{"229 domain with a trailing slash", option("domain", issuer+"/"), nil, "proof.domain"},
		{"229 domain missing", option("domain", nil), nil, "proof.domain"},
		{"229 domain in a set of one", option("domain", []any{issuer}), nil, "-"},
		{"229 domain in a set of two", option("domain", []any{issuer, "https://other.example.com"}), nil, "proof.domain"},
		{"229 domain in an empty set", option("domain", []any{}), nil, "proof.domain"},
		{"229 challenge missing", option("challenge", nil), nil, "proof.challenge"},
		{"229 challenge empty", option("challenge", ""), nil, "proof.challenge"},
		{"229 challenge of a number", option("challenge", 1), nil, "proof.challenge"},
		{"229 proofPurpose assertionMethod", option("proofPurpose", "assertionMethod"), nil, "proof.proofPurpose"},
		{"229 proofPurpose missing", option("proofPurpose", nil), nil, "proof.proofPurpose"},
		{"229 cryptosuite nobody knows", option("cryptosuite", "ecdsa-rdfc-2019"), nil, "proof.cryptosuite"},
		{"229 cryptosuite of another key", option("cryptosuite", eddsaJCS), nil, "proof.cryptosuite"},
		{"229 cryptosuite missing", option("cryptosuite", nil), nil, "proof.cryptosuite"},
		{"229 cryptosuite in a set", option("cryptosuite", []any{ecdsaJCS}), nil, "proof.cryptosuite"},
		{"229 type of another proof", option("type", "JsonWebSignature2020"), nil, "proof.cryptosuite"},
		{"229 created missing", option("created", nil), nil, "-"},
		{"229 created an hour ago", option("created", date(-time.Hour)), nil, "proof.created"},
		{"229 created in ten minutes", option("created", date(10*time.Minute)), nil, "proof.created"},
		{"229 created with an offset and a fraction", option("created", m.now.In(time.FixedZone("", 7200)).Format("2006-01-02T15:04:05.000Z07:00")), nil, "-"},
		{"229 created without an offset", option("created", strings.TrimSuffix(date(0), "Z")), nil, "-"},
		{"229 created of a number", option("created", 1800000000), nil, "proof.created"},
		{"229 expires in a minute", option("expires", date(time.Minute)), nil, "-"},
		{"229 expired", option("expires", date(-2*time.Minute)), nil, "proof.expires"},
		{"229 expires of a word", option("expires", "never"), nil, "proof.expires"},
		{"229 previousProof", option("previousProof", "urn:uuid:1"), nil, "proof.previousProof"},
		{"229 further members", func(vp, proof map[string]any) { vp["x"], proof["nonce"], proof["id"] = true, "x", "urn:x" }, nil, "-"},
		{"229 VCDM 1.1", func(vp, proof map[string]any) { vp["@context"], proof["@context"] = []any{v1}, []any{v1} }, nil, "-"},
		{"229 one context and one type, not in arrays", func(vp, proof map[string]any) {
			vp["@context"], proof["@context"], vp["type"] = v2, v2, "VerifiablePresentation"
		}, nil, "-"},
		{"229 no @context in the proof", option("@context", nil), nil, "-"},
		{"229 @context that is not the document's", option("@context", []any{v2, "https://other.example.com"}), nil, "proof.@context"},
		{"229 @context in another order", func(vp, proof map[string]any) { vp["@context"], proof["@context"] = []any{v2, v1}, []any{v1, v2} }, nil, "proof.@context"},
		{"229 @context added afterwards", nil, property("@context", []any{v2, "https://other.example.com"}), "-"},
		{"229 @context added before", nil, property("@context", []any{"https://other.example.com", v2}), "proof.@context"},
		{"229 @context empty in the proof", func(vp, proof map[string]any) { vp["@context"], proof["@context"] = []any{}, []any{} }, property("@context", []any{v2}), "@context"},
		{"229 @context missing", func(vp, proof map[string]any) { delete(vp, "@context"); delete(proof, "@context") }, nil, "@context"},
		{"229 @context of another kind", func(vp, proof map[string]any) {
			vp["@context"], proof["@context"] = []any{map[string]any{"a": 1}}, []any{map[string]any{"a": 1}}
		}, nil, "@context"},
		{"229 type of a credential", property("type", []any{"VerifiableCredential"}), nil, "type"},
		{"229 type missing", property("type", nil), nil, "type"},
		{"229 proof missing", nil, property("proof", nil), "proof"},
		{"229 proof of a string", nil, property("proof", "x"), "proof"},
		{"229 proof in an empty array", nil, property("proof", []any{}), "proof.cryptosuite"},
		{"229 proof in an array", nil, func(vp, proof map[string]any) { vp["proof"] = []any{proof} }, "-"},
		{"229 two proofs", nil, func(vp, proof map[string]any) { vp["proof"] = []any{proof, proof} }, "proof"},
		{"229 another suite's proof beside it", nil, func(vp, proof map[string]any) {
			vp["proof"] = []any{map[string]any{"type": "DataIntegrityProof", "cryptosuite": "ecdsa-rdfc-2019"}, proof}
		}, "-"},
		{"229 document changed", nil, property("id", "urn:x"), "proof.proofValue"},
		{"229 proof changed", nil, option("nonce", "x"), "proof.proofValue"},
		{"229 challenge changed", nil, option("challenge", "other"), "proof.proofValue"},
		{"229 proofValue missing", nil, option("proofValue", nil), "proof.proofValue"},
		{"229 proofValue of another base", nil, option("proofValue", "u"+base64.RawURLEncoding.EncodeToString(make([]byte, 64))), "proof.proofValue"},
		{"229 proofValue without its base", nil, func(_, proof map[string]any) { proof["proofValue"] = "u" + proof["proofValue"].(string)[1:] }, "proof.proofValue"},
		{"229 proofValue no base58btc", nil, option("proofValue", "z0OIl"), "proof.proofValue"},
		{"229 proofValue of zeros", nil, option("proofValue", "z"+base58.Encode(make([]byte, 64))), "proof.proofValue"},
		{"229 proofValue too long", nil, option("proofValue", "z"+strings.Repeat("2", 1<<16)), "proof.proofValue"},
		{"229 another's verificationMethod", func(vp, proof map[string]any) {
			delete(vp, "holder")
			proof["verificationMethod"] = m.other.kid(m, "did:key")
		}, nil, "proof.proofValue"},
		{"229 verificationMethod of another method", option("verificationMethod", "did:web:wallet.example#1"), nil, "proof.verificationMethod"},
		{"229 verificationMethod without fragment", func(_, proof map[string]any) {
			proof["verificationMethod"], _, _ = strings.Cut(m.h.kid(m, "did:key"), "#")
		}, nil, "proof.verificationMethod"},
		{"229 verificationMethod of an object", option("verificationMethod", map[string]any{}), nil, "proof.verificationMethod"},
		{"230 no holder", property("holder", nil), nil, "-"},
		{"230 holder with an id", func(vp, _ map[string]any) { vp["holder"] = map[string]any{"id": vp["holder"], "name": "x"} }, nil, "-"},
		{"230 holder is another", func(vp, _ map[string]any) { vp["holder"], _, _ = strings.Cut(m.other.kid(m, "did:key"), "#") }, nil, "holder"},
		{"230 holder is the same key's other DID", func(vp, _ map[string]any) { vp["holder"], _, _ = strings.Cut(m.h.kid(m, "did:jwk"), "#") }, nil, "holder"},
		{"230 holder with a fragment", func(vp, _ map[string]any) { vp["holder"] = m.h.kid(m, "did:key") }, nil, "holder"},
		{"230 holder of an object without id", property("holder", map[string]any{}), nil, "holder"},
		{"230 holder of a number", property("holder", 1), nil, "holder"},
	}
}

// TestPresentation: each presentation is held against the rules.
func TestPresentation(t *testing.T) {
	m := newMaker(t)
	for _, c := range vpCases(m) {
		t.Run(c.name, func(t *testing.T) {
			m := m
			m.TB = t
			vp := m.vp(m.h, "did:key", c.before, c.after)
			if c.member != "-" {
				fails(t, m.rules(), vps(vp), "invalid_proof", "proofs.di_vp[0] "+c.member)
				return
			}
			s := holds(t, m.rules(), vps(vp))
			if named(t, s, m.h); s.Nonces[0] != "nonce" || s.Type != "di_vp" || s.Attested {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestPresentations: every key that a suite takes, under both methods, and
// several presentations.
func TestPresentations(t *testing.T) {
	m := newMaker(t)
	second, third := newHolder(t, issuance.ES384), newHolder(t, issuance.EdDSA)
	for _, h := range []holder{m.h, second, third} {
		for _, method := range []string{"did:jwk", "did:key"} {
			s := holds(t, m.rules(), vps(m.vp(h, method, nil, nil)))
			if named(t, s, h); !strings.HasPrefix(s.Holders[0].DID, method+":") || strings.Contains(s.Holders[0].DID, "#") {
				t.Errorf("229 %s %s: %q", h.algorithm, method, s.Holders[0].DID)
			}
		}
	}
	fails(t, m.rules(), vps(m.vp(newHolder(t, issuance.ES512), "did:jwk", nil, nil)), "invalid_proof", "proofs.di_vp[0] proof.cryptosuite")
	fails(t, m.rules(), vps(m.vp(third, "did:key", option("cryptosuite", ecdsaJCS), nil)), "invalid_proof", "proofs.di_vp[0] proof.cryptosuite")
	other := m.vp(second, "did:jwk", option("challenge", "other"), nil)
	s := holds(t, m.rules(), vps(m.vp(m.h, "did:key", nil, nil), other, m.vp(third, "did:key", nil, nil)))
	if named(t, s, m.h, second, third); len(s.Nonces) != 2 {
		t.Errorf("254: %q", s.Nonces)
	}
	fails(t, m.rules(), vps(m.vp(m.h, "did:key", nil, nil), m.vp(m.h, "did:jwk", nil, nil)), "invalid_proof", "proofs.di_vp[1]")                                   // 210
	fails(t, m.rules(), vps(m.vp(m.h, "did:key", nil, nil), m.vp(second, "did:key", option("domain", "x"), nil)), "invalid_proof", "proofs.di_vp[1] proof.domain") // 209
	fails(t, m.required(nil, nil), vps(m.vp(m.h, "did:key", nil, nil)), "invalid_proof", "proofs.di_vp[0]")                                                        // 211
	rules := m.rules()
	rules.Methods = []string{"jwk", "did:jwk"}
	fails(t, rules, vps(m.vp(m.h, "did:key", nil, nil)), "invalid_proof", "proofs.di_vp[0] proof.verificationMethod") // 205
	rules = m.rules()
	rules.Types["di_vp"] = Type{Algorithms: []string{eddsaJCS}}
	fails(t, rules, vps(m.vp(m.h, "did:key", nil, nil)), "invalid_proof", "proofs.di_vp[0] proof.cryptosuite")
	holds(t, rules, vps(m.vp(third, "did:key", nil, nil)))
}

// TestPublishedVectors: the signatures that the cryptosuites' specifications
// publish verify (VC Data Integrity ECDSA Cryptosuites 1.0 A.5 and A.6, EdDSA
// Cryptosuites 1.0 B.3: one document, three proofs), and none with another digit.
func TestPublishedVectors(t *testing.T) {
	const contexts = `["https://www.w3.org/ns/credentials/v2","https://www.w3.org/ns/credentials/examples/v2"]`
	const document = `{"@context":` + contexts + `,"id":"urn:uuid:58172aac-d8ba-11ed-83dd-0b3aef56cc33","type":["VerifiableCredential","AlumniCredential"],
		"name":"Alumni Credential","description":"A minimum viable example of an Alumni Credential.","issuer":"https://vc.example/issuers/5678",
		"validFrom":"2023-01-01T00:00:00Z","credentialSubject":{"id":"did:example:abcdefgh","alumniOf":"The School of Examples"}}`
	for _, v := range []struct{ suite, key, value string }{
		{"ecdsa-jcs-2019", "zDnaepBuvsQ8cpsWrVKw8fbpGpvPeNSjVPTWoq6cRqaYzBKVP", "z5ptCet75SaEgzG4v4zJhbJtfNi74Wv7Fq15hhKouJQQjEPQvPZKaYxcMXAMLPQS2FXrkCWokNJkFVkwxNzZfD5oT"},
		{"ecdsa-jcs-2019", "z82LkuBieyGShVBhvtE2zoiD6Kma4tJGFtkAhxR5pfkp5QPw4LutoYWhvQCnGjdVn14kujQ", "zq3EuTeLiGurmB2JR5oL8oWEsT7u2tba4HT1oZbiMYWc5qzsoW2kLYcBcF4HM5vCpJyTkceULKrVXuJQkXeN5seL4uXrFNFRMm53GWy1Yrto8rTWxZi9DkNeWP7yUPs7ELAm"},
		{"eddsa-jcs-2022", "z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2", "z2HnFSSPPBzR36zdDgK8PbEHeXbR56YF24jwMpt3R1eHXQzJDMWS93FCzpvJpwTWd3GAVFuUfjoJdcnTMuVor51aX"},
	} {
		url := "did:key:" + v.key + "#" + v.key
		options := object(t, `{"type":"DataIntegrityProof","cryptosuite":"`+v.suite+`","created":"2023-02-24T23:36:38Z","verificationMethod":"`+url+`","proofPurpose":"assertionMethod","@context":`+contexts+`,"proofValue":"`+v.value+`"}`)
		key, err := did.Resolve(url)
		if err != nil {
			t.Fatal(err)
		}
		vc := object(t, document)
		vc["proof"] = options
		signed, err := secured(place{}, vc, options)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyIntegrity(place{}, signed, options, key); err != nil {
			t.Errorf("%s %s: %v", v.suite, v.key, err)
		}
		signed["name"] = "Alumni Credentials"
		if err := verifyIntegrity(place{}, signed, options, key); err == nil {
			t.Errorf("%s %s: another document verifies", v.suite, v.key)
		}
	}
}

func object(t testing.TB, text string) map[string]any {
	t.Helper()
	o, err := jws.Object([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestCanonical: RFC 8785's own example (§3.2.3, §3.2.4), and numbers that
// encoding/json would leave as they are.
func TestCanonical(t *testing.T) {
	for text, want := range map[string]string{
		`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`: "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e756d62657273223a5b3333333333333333332e333333333333332c31652b33302c342e352c302e3030322c31652d32375d2c22737472696e67223a22e282ac245c75303030665c6e4127425c225c5c5c5c5c222f227d",
		`{"b":1.0,"a":"<&>\u2028"}`:                hex.EncodeToString([]byte("{\"a\":\"<&>\u2028\",\"b\":1}")),
		`{"\u20ac":1,"\ud83d\ude00":2,"\ufb33":3}`: hex.EncodeToString([]byte("{\"\u20ac\":1,\"\U0001f600\":2,\"\ufb33\":3}")),
	} {
		got, err := canonical(object(t, text))
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s gives %s, %v", text, got, err)
		}
	}
}
