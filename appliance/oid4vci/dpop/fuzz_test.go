package dpop

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// FuzzDPoP: whatever the header holds, a proof holds or there is an error of RFC
// 9449's; what holds does so once.
func FuzzDPoP(f *testing.F) {
	r := newRig(f, Options{})
	header := r.header(f)
	for _, claims := range []map[string]any{r.claims(false), r.claims(true), trusttest.With(r.claims(false), "htu", "https://issuer.example:443/t/./token?x"), {}} {
		f.Add(trusttest.Token(f, r.key, header, claims))
		f.Add(trusttest.Token(f, issuancetest.Key(f, issuance.EdDSA), header, claims))
		f.Add(trusttest.Unsigned(f, header, claims))
	}
	f.Add("")
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, value string) {
		for _, resource := range []bool{false, true} {
			proof, err := r.Check(request(resource, value))
			if err == nil && (proof == nil || proof.Key == nil) {
				t.Fatal("neither proof nor error")
			}
			if err == nil {
				_, err = r.Check(request(resource, value))
			}
			var e *refusal.Refusal
			if !errors.As(err, &e) || e.Code != InvalidProof && e.Status != http.StatusServiceUnavailable || len(e.Description) > 200 {
				t.Fatalf("%v", err)
			}
		}
	})
}

// FuzzNormal: a normalised URL is at rest, and has neither query nor dot segments.
func FuzzNormal(f *testing.F) {
	for _, seed := range []string{"https://a/./b/../b/%63/%7bfoo%7d", "HTTPS://[::1]:443", "https://a//../..//.", "https://a/%2e%2e/%2F?q#f", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once, ok := normal(text)
		if !ok {
			return
		}
		if twice, ok := normal(once); !ok || twice != once {
			t.Errorf("%q: %q, then %q", text, once, twice)
		}
		_, rest, _ := strings.Cut(once, "://")
		_, path, _ := strings.Cut(rest, "/")
		if path = "/" + path + "/"; strings.ContainsAny(once, "?#") || strings.Contains(path, "/./") || strings.Contains(path, "/../") {
			t.Errorf("%q: %q", text, once)
		}
	})
}

// BenchmarkCheck is the cost of DPoP to a request.
func BenchmarkCheck(b *testing.B) {
	for name, resource := range map[string]bool{"token": false, "resource": true} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, Options{Nonces: true, MaxEntries: 1 << 30})
			proofs := make([]string, b.N)
			for n := range proofs {
				proofs[n] = trusttest.Token(b, r.key, r.header(b), trusttest.With(r.claims(resource), "nonce", r.Nonce(resource)))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, proof := range proofs {
				if _, err := r.Check(request(resource, proof)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
