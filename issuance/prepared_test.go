package issuance

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
)

// TestPreparedIsUsedOnce: a signature of another length does not use it up, a
// failure to join does.
func TestPreparedIsUsedOnce(t *testing.T) {
	for a, size := range map[Algorithm]int{ES256: 64, ES384: 96, ES512: 132, EdDSA: 64} {
		calls := 0
		p := NewPrepared(FormatSDJWT, a, []byte("tbs"), func(signature []byte) (string, error) {
			calls++
			return "joined", nil
		})
		if p.Format != FormatSDJWT || p.Algorithm != a || string(p.TBS) != "tbs" {
			t.Errorf("%+v", p)
		}
		for _, n := range []int{0, size - 1, size + 1, 2 * size} {
			if text, err := p.Assemble(make([]byte, n)); err == nil || calls != 0 {
				t.Errorf("%s: %d bytes gave %q", a, n, text)
			}
		}
		if text, err := p.Assemble(make([]byte, size)); err != nil || text != "joined" || calls != 1 {
			t.Errorf("%s: %q, %v", a, text, err)
		}
		if text, err := p.Assemble(make([]byte, size)); err == nil || calls != 1 {
			t.Errorf("%s: assembled twice: %q", a, text)
		}
	}
	failed := errors.New("no")
	p := NewPrepared(FormatMdoc, ES256, nil, func([]byte) (string, error) { return "", failed })
	if _, err := p.Assemble(make([]byte, 64)); !errors.Is(err, failed) {
		t.Error(err)
	}
	if _, err := p.Assemble(make([]byte, 64)); err == nil || errors.Is(err, failed) {
		t.Error(err)
	}
	p = NewPrepared(FormatMdoc, "RS256", nil, func([]byte) (string, error) { return "", nil })
	if _, err := p.Assemble(make([]byte, 256)); err == nil {
		t.Error("assembled with an unknown algorithm")
	}
}

func TestAlgorithmForMalformedKeys(t *testing.T) {
	for _, key := range []any{ed25519.PublicKey(nil), ed25519.PublicKey(make([]byte, 31)), ed25519.PublicKey(make([]byte, 33)), ed25519.PrivateKey(make([]byte, 64))} {
		if a, err := AlgorithmFor(key); err == nil {
			t.Errorf("%T of any length signs with %s", key, a)
		}
	}
}

func TestOutsideProfileNamesMemberAndReason(t *testing.T) {
	p, s := allowed()
	s.Issuer = "https://other.example/SECRET"
	err := p.Check(s)
	if err == nil || !strings.Contains(err.Error(), "outside the key's profile: issuer: ") || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
}
