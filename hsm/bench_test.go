package hsm

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"chancery/issuance"
)

// BenchmarkSign is signatures by callers at once, and the calls of the module
// that each costs, counted by the fault module in a run apart: counting would slow
// what is measured.
func BenchmarkSign(b *testing.B) {
	for _, callers := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("callers-%d", callers), func(b *testing.B) {
			calls := callsForEach(b, callers)
			token := openToken(b, config(b))
			generateKey(b, token, "k", issuance.ES256)
			b.ResetTimer()
			signAtOnce(b, token, "k", callers, b.N)
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sign/s")
			b.ReportMetric(calls, "calls/op")
		})
	}
}

// callsForEach counts the module's calls for each signature in steady state.
func callsForEach(b *testing.B, callers int) float64 {
	token, fault, key := faulty(b, nil)
	defer token.Close()
	signAtOnce(b, token, key, callers, 8*callers) // every session is open
	const n = 512
	sum := 0
	for _, calls := range callsOf(b, token, fault, func() { signAtOnce(b, token, key, callers, n) }) {
		sum += calls
	}
	return float64(sum) / n
}

func signAtOnce(b *testing.B, token *Token, key string, callers, n int) {
	work := make(chan struct{})
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			for range work {
				if _, err := token.Sign(context.Background(), key, []byte("message")); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range n {
		work <- struct{}{}
	}
	close(work)
	wait.Wait()
}

// BenchmarkRawSign is the module's own speed without queue, hash and
// verification: what BenchmarkSign is compared with.
func BenchmarkRawSign(b *testing.B) {
	token := openToken(b, config(b))
	generateKey(b, token, "k", issuance.ES256)
	digest := make([]byte, 32)
	k := token.gen.keys["k"]
	for b.Loop() {
		if _, err := token.gen.fn.sign(token.gen.keeper, pkcs11.CKM_ECDSA, k.private, digest); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sign/s")
}

// BenchmarkSealing seals and opens a data key.
func BenchmarkSealing(b *testing.B) {
	token := openToken(b, config(b))
	generateKey(b, token, "k", Sealing)
	dataKey := make([]byte, 32)
	for b.Loop() {
		sealed, err := token.Seal(context.Background(), "k", dataKey, nil)
		if err == nil {
			_, err = token.Unseal(context.Background(), "k", sealed, nil)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReopen is what a lost session costs: a new generation with ten keys,
// each proven again.
func BenchmarkReopen(b *testing.B) {
	token := openToken(b, config(b))
	token.pauses.brief = 0
	for range 10 {
		generateKey(b, token, newLabel(), issuance.ES256)
	}
	for b.Loop() {
		if err := token.renew(token.gen); err != nil {
			b.Fatal(err)
		}
	}
}
