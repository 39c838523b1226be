package proof

import (
	"strings"
	"testing"

	"chancery/issuance"
)

// attested is a proof with a key attestation and a header changed as members
// say; nil takes one away.
func (m maker) attested(attestation string, members map[string]any) string {
	m.Helper()
	return m.sign(func(header, _ map[string]any) {
		header["key_attestation"] = attestation
		for name, value := range members {
			set(header, name, value)
		}
	})
}

// TestAttestedProof is of jwt proofs with a key attestation (App. F.1, D.1).
func TestAttestedProof(t *testing.T) {
	m := newMaker(t)
	third := newHolder(t, issuance.EdDSA)
	inner := m.rules()
	inner.InnerNonce = true
	t.Run("216 exp missing", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.header("key_attestation", m.attest(alters("exp", nil), m.h))), "invalid_proof", "proofs.jwt[0] key_attestation exp")
	})
	t.Run("218 the proof's key is not attested", func(t *testing.T) {
		for _, members := range []map[string]any{nil, {"jwk": nil, "kid": m.h.kid(t, "did:jwk")}, {"jwk": nil, "x5c": []string{m.certificate(m.h.private.Public())}}} {
			fails(t, m.rules(), jwts(m.attested(m.attest(nil, m.other, third), members)), "invalid_proof", "proofs.jwt[0] header key_attestation")
		}
		fails(t, m.rules(), jwts(m.attested(m.attest(nil, m.other, third), map[string]any{"jwk": nil})), "invalid_proof", "proofs.jwt[0] signature")
	})
	t.Run("221 inner nonce missing", func(t *testing.T) {
		compact := m.header("key_attestation", m.attest(alters("nonce", nil), m.h))
		fails(t, inner, jwts(compact), "invalid_proof", "proofs.jwt[0] key_attestation nonce")
		if s := holds(t, m.rules(), jwts(compact)); len(s.Nonces) != 1 || s.Nonces[0] != "nonce" { // EU wallets
			t.Errorf("%q", s.Nonces)
		}
	})
	t.Run("221 inner nonce is judged too", func(t *testing.T) {
		for _, rules := range []Rules{m.rules(), inner} {
			if s := holds(t, rules, jwts(m.header("key_attestation", m.attest(alters("nonce", "other"), m.h)))); len(s.Nonces) != 2 || s.Nonces[1] != "other" {
				t.Errorf("%q", s.Nonces)
			}
		}
	})
	t.Run("221 the proof's own nonce missing", func(t *testing.T) {
		compact := m.sign(func(header, claims map[string]any) {
			header["key_attestation"] = m.attest(nil, m.h)
			delete(claims, "nonce")
		})
		fails(t, m.rules(), jwts(compact), "invalid_proof", "proofs.jwt[0] nonce")
	})
	t.Run("225 one proof, three keys", func(t *testing.T) {
		s := holds(t, m.rules(), jwts(m.header("key_attestation", m.attest(nil, m.other, m.h, third))))
		if named(t, s, m.h, m.other, third); !s.Attested {
			t.Errorf("%+v", s)
		}
	})
	t.Run("225 more keys than the batch size, and the proof's among them", func(t *testing.T) {
		rules := m.rules()
		rules.BatchSize = 2
		named(t, holds(t, rules, jwts(m.header("key_attestation", m.attest(nil, m.other, third, m.h)))), m.h, m.other)
	})
	t.Run("225 an attestation that is not required, of nobody in particular", func(t *testing.T) {
		rules := m.rules()
		rules.Providers = nil
		s := holds(t, rules, jwts(m.header("key_attestation", "x")))
		if named(t, s, m.h); s.Attested || len(s.Attestations) > 0 {
			t.Errorf("%+v", s)
		}
		fails(t, rules, jwts(m.attested(m.attest(nil, m.h), map[string]any{"jwk": nil})), "invalid_proof", "proofs.jwt[0] header")
	})
	t.Run("213 key_attestation of an object", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.header("key_attestation", map[string]any{})), "invalid_proof", "proofs.jwt[0] header key_attestation")
	})
	t.Run("191 an attested key that did not sign", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.attested(m.attest(nil, m.h, m.other), map[string]any{"jwk": m.other.jwk()})), "invalid_proof", "proofs.jwt[0] signature")
	})
	t.Run("204 a DID among attested keys", func(t *testing.T) {
		s := holds(t, m.rules(), jwts(m.attested(m.attest(nil, m.other, m.h), map[string]any{"jwk": nil, "kid": m.h.kid(t, "did:key")})))
		if named(t, s, m.h, m.other); !strings.HasPrefix(s.Holders[0].DID, "did:key:") || s.Holders[1].DID != "" {
			t.Errorf("%+v", s)
		}
	})
}

// TestAttestedKeyID is of proofs that leave it to the attestation to name the key.
func TestAttestedKeyID(t *testing.T) {
	m := newMaker(t)
	third := newHolder(t, issuance.EdDSA)
	kids := func(_, claims map[string]any) {
		claims["attested_keys"] = []any{m.members(m.other.jwk(), map[string]any{"kid": "b"}), m.members(m.h.jwk(), map[string]any{"kid": "0"}), m.members(third.jwk(), map[string]any{"kid": "did:web:wallet.example#1"})}
	}
	for _, c := range []struct {
		name        string
		attestation string
		kid         any
		member      string
	}{
		{"225 kid 0, the specification's example", m.attest(nil, m.h, m.other), "0", "-"},
		{"225 kid is an index", m.attest(nil, m.other, third, m.h), "2", "-"},
		{"225 kid is a JWK's", m.attest(kids), "0", "-"},
		{"225 no kid, the first signs (EU wallets)", m.attest(nil, m.h, m.other), nil, "-"},
		{"225 no kid, another signs", m.attest(nil, m.other, third, m.h), nil, "-"},
		{"225 kid that names nothing", m.attest(nil, m.other, m.h), "x", "-"},
		{"225 kid is no index as it is written", m.attest(nil, m.other, m.h), "00", "-"},
		{"225 kid beyond the keys", m.attest(nil, m.other, m.h), "2", "-"},
		{"225 kid below zero", m.attest(nil, m.other, m.h), "-1", "-"},
		{"191 kid is another's index", m.attest(nil, m.other, m.h), "0", "signature"},
		{"191 kid is another JWK's", m.attest(kids), "b", "signature"},
		{"191 kid is another JWK's DID URL", m.attest(kids), "did:web:wallet.example#1", "signature"},
		{"191 nobody's", m.attest(nil, m.other, third), nil, "signature"},
		{"205 kid is a DID URL of another method", m.attest(nil, m.h), "did:web:wallet.example#0", "header kid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proofs := jwts(m.attested(c.attestation, map[string]any{"jwk": nil, "kid": c.kid}))
			if c.member != "-" {
				fails(t, m.rules(), proofs, "invalid_proof", "proofs.jwt[0] "+c.member)
				return
			}
			if s := holds(t, m.rules(), proofs); s.Holders[0].Thumbprint != m.h.thumbprint(t) || s.Holders[0].DID != "" {
				t.Errorf("%+v", s)
			}
		})
	}
	for _, members := range []map[string]any{{"kid": "0"}, {"jwk": nil, "kid": "0", "x5c": []string{"x"}}} {
		fails(t, m.rules(), jwts(m.attested(m.attest(nil, m.h), members)), "invalid_proof", "proofs.jwt[0] header") // 186, 188
	}
}

// TestSeveralAttested is of several proofs with attestations, the same or others.
func TestSeveralAttested(t *testing.T) {
	m := newMaker(t)
	second := m.with(issuance.ES384)
	third, fourth := newHolder(t, issuance.EdDSA), newHolder(t, issuance.ES256)
	both := m.attest(nil, m.h, second.h)
	t.Run("254 one attestation in every proof", func(t *testing.T) {
		s := holds(t, m.rules(), jwts(m.header("key_attestation", both), second.header("key_attestation", both)))
		if named(t, s, m.h, second.h); !s.Attested || len(s.Attestations) != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("254 an attestation each", func(t *testing.T) {
		s := holds(t, m.rules(), jwts(m.header("key_attestation", m.attest(nil, m.h, third)), second.header("key_attestation", m.attest(nil, third, second.h, fourth))))
		if named(t, s, m.h, second.h, third); !s.Attested || len(s.Attestations) != 2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("254 one of them without", func(t *testing.T) {
		s := holds(t, m.rules(), jwts(m.header("key_attestation", m.attest(nil, m.h)), second.sign(nil)))
		if named(t, s, m.h, second.h); s.Attested {
			t.Errorf("%+v", s)
		}
		if s = holds(t, m.rules(), jwts(m.header("key_attestation", both), second.sign(nil))); !s.Attested {
			t.Errorf("%+v", s)
		}
	})
	t.Run("209 the second attestation is invalid", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.header("key_attestation", both), second.header("key_attestation", m.attest(heads("typ", "JWT"), second.h))), "invalid_proof", "proofs.jwt[1] key_attestation header typ")
	})
	t.Run("210 the same key signs twice", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.header("key_attestation", both), m.header("key_attestation", m.attest(nil, m.h, third))), "invalid_proof", "proofs.jwt[1]")
	})
}
