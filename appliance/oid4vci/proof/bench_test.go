package proof

import (
	"context"
	"testing"

	"chancery/issuance"
)

// BenchmarkProof checks one request's proofs: one jwt proof with a jwk of each
// algorithm, which is the usual one, and one of every other kind.
func BenchmarkProof(b *testing.B) {
	m := newMaker(b)
	keys := []holder{m.h, m.other, newHolder(b, issuance.ES256)}
	for _, c := range []struct {
		name   string
		proofs any
	}{
		{"ES256", jwts(m.sign(nil))},
		{"ES384", jwts(m.with(issuance.ES384).sign(nil))},
		{"EdDSA", jwts(m.with(issuance.EdDSA).sign(nil))},
		{"did:key", jwts(m.key(map[string]any{"kid": m.h.kid(b, "did:key")}))},
		{"attested", jwts(m.header("key_attestation", m.attest(nil, keys...)))},
		{"attestation", attestations(m.attest(nil, keys...))},
		{"di_vp", vps(m.vp(m.h, "did:key", nil, nil))},
	} {
		b.Run(c.name, func(b *testing.B) {
			rules, proofs := m.rules(), decode(b, c.proofs)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Check(context.Background(), proofs, rules); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
