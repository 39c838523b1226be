package proof

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/jws"
)

// fuzzMaker is a maker whose wallet provider is the same in every process that
// fuzzes, so that the seeds' attestations are believed in all of them.
func fuzzMaker(f *testing.F) maker {
	f.Helper()
	m := newMaker(f)
	root, signer := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	m.provider = providerOf(f, m.now, root, holder{jose.EdDSA, signer})
	return m
}

// verified has go-jose verify a token that was taken, and reads its claims.
func verified(t *testing.T, compact string, key any, claims any) {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA})
	if err != nil {
		t.Fatalf("go-jose does not read %q: %v", compact, err)
	}
	payload, err := signed.Verify(key)
	if err != nil {
		t.Fatalf("go-jose does not verify %q: %v", compact, err)
	}
	if err := json.Unmarshal(payload, claims); err != nil {
		t.Fatal(err)
	}
}

// FuzzJWTProof: a proof that is taken is one that go-jose verifies too, with the
// key that is bound, and says what it must say.
func FuzzJWTProof(f *testing.F) {
	m := fuzzMaker(f)
	rules := m.rules()
	rules.Client = "wallet"
	for _, algorithm := range []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.EdDSA} {
		m := m.with(algorithm)
		f.Add(m.sign(nil))
		for _, method := range []string{"did:jwk", "did:key"} {
			f.Add(m.key(map[string]any{"kid": m.h.kid(f, method)}))
		}
		f.Add(m.key(map[string]any{"x5c": []string{m.certificate(m.h.private.Public())}}))
		f.Add(m.attested(m.attest(nil, m.h, m.other), nil))
		f.Add(m.attested(m.attest(nil, m.other, m.h), map[string]any{"jwk": nil, "kid": "1"}))
		f.Add(m.attested(m.attest(nil, m.h), map[string]any{"jwk": nil}))
	}
	f.Add(exampleProof)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, compact string) {
		s, err := Check(context.Background(), map[string]any{"jwt": []any{compact}}, rules)
		if err != nil {
			inTable(t, err, "invalid_proof")
			return
		}
		sound(t, s, rules)
		var claims struct {
			Audience string `json:"aud"`
			Nonce    string `json:"nonce"`
		}
		if verified(t, compact, s.Holders[0].Key, &claims); claims.Audience != issuer || claims.Nonce != s.Nonces[0] {
			t.Errorf("%+v", claims)
		}
	})
}

// FuzzKeyAttestation: an attestation that is taken is one that go-jose verifies
// with the provider's key, and every key bound stands in it.
func FuzzKeyAttestation(f *testing.F) {
	m := fuzzMaker(f)
	rules := m.rules()
	third, fourth := newHolder(f, issuance.EdDSA), newHolder(f, issuance.ES384)
	f.Add(m.attest(nil, m.h))
	f.Add(m.attest(nil, m.h, m.other, third, fourth))
	for _, c := range attestationCases(m) {
		f.Add(m.attest(c.change, m.h, m.other))
	}
	f.Add(m.sign(nil))
	f.Fuzz(func(t *testing.T, compact string) {
		s, err := Check(context.Background(), map[string]any{"attestation": []any{compact}}, rules)
		if err != nil {
			inTable(t, err, "invalid_proof")
			return
		}
		sound(t, s, rules)
		var claims struct {
			Nonce string `json:"nonce"`
			Keys  []any  `json:"attested_keys"`
		}
		verified(t, compact, m.provider.private.Public(), &claims)
		if !s.Attested || claims.Nonce != s.Nonces[0] || len(claims.Keys) != s.Attestations[0].Keys || len(s.Holders) > len(claims.Keys) {
			t.Errorf("%+v of %+v", s, claims)
		}
	})
}

// FuzzDIVP: a presentation that is taken says what it must say and binds the key
// that it names.
func FuzzDIVP(f *testing.F) {
	m := fuzzMaker(f)
	rules := m.rules()
	rules.Types = map[string]Type{configuration.ProofDIVP: rules.Types[configuration.ProofDIVP]}
	add := func(vp map[string]any) {
		data, err := json.Marshal(vp)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	for _, c := range vpCases(m) {
		add(m.vp(m.h, "did:key", c.before, c.after))
	}
	for _, algorithm := range []issuance.Algorithm{issuance.ES384, issuance.EdDSA} {
		add(m.vp(newHolder(f, algorithm), "did:jwk", nil, nil))
	}
	f.Add(`{"type":"VerifiablePresentation","proof":[]}`)
	f.Fuzz(func(t *testing.T, text string) {
		vp, err := jws.Object([]byte(text))
		if err != nil {
			return
		}
		s, err := Check(context.Background(), map[string]any{"di_vp": []any{vp}}, rules)
		if err != nil {
			inTable(t, err, "invalid_proof")
			return
		}
		sound(t, s, rules)
		id := s.Holders[0].DID
		holder, _ := vp["holder"].(string)
		if len(s.Holders) != 1 || !strings.HasPrefix(id, "did:") || strings.Contains(id, "#") || holder != "" && holder != id || !strings.Contains(text, s.Nonces[0]) && !strings.Contains(text, `\`) {
			t.Errorf("%+v of %s", s, text)
		}
	})
}
