package oid4vci

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chancery/issuance"
)

// prepared is a credential request that will be answered with a credential.
type prepared struct {
	token string
	body  []byte
}

// prepare makes n of them.
func (r *rig) prepare(b *testing.B, id string, n int) []prepared {
	b.Helper()
	h := newHolder(b, issuance.ES256)
	out := make([]prepared, n)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range 32 {
		wait.Go(func() {
			for {
				at := int(next.Add(1)) - 1
				if at >= n {
					return
				}
				nonce := r.nonces.source.Make(r.now())
				body, err := json.Marshal(request(id, r.good(b, h, nonce)))
				if err != nil {
					b.Error(err)
					return
				}
				out[at] = prepared{r.token(b, r.offer(b, nil, id)), body}
			}
		})
	}
	wait.Wait()
	return out
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCredential measures the credential endpoint's handler with the
// signer, the token and the database behind it, 32 requests at a time. cpu-µs/op
// is the processor time of all of them, the signer's included.
func BenchmarkCredential(b *testing.B) {
	for _, id := range []string{mdlID, pidID, residenceID} {
		b.Run(id, func(b *testing.B) {
			r := newRig(b, rigOptions{})
			handler := r.Handler()
			requests := r.prepare(b, id, b.N)
			var next atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(16)
			before := cpu(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p := requests[next.Add(1)-1]
					w, q := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "https://localhost:8443/credential", bytes.NewReader(p.body))
					q.Header.Set("Authorization", "Bearer "+p.token)
					q.Header.Set("Content-Type", "application/json")
					if handler.ServeHTTP(w, q); w.Code != http.StatusOK {
						b.Errorf("%d %s", w.Code, w.Body)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}
