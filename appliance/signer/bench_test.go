package signer_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
)

// cpu is the time that this process, callers and daemon, has computed.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkRoundTrip measures what chanceryd waits for: a status, one signature,
// and a batch of eight, through the socket, with a durable log and SoftHSM.
func BenchmarkRoundTrip(b *testing.B) {
	f := start(b, signertest.Options{})
	sign := func(n int) func() error {
		var items []wire.SignItem
		for range n {
			items = append(items, f.mdoc(b, "ds-1", nil))
		}
		in := request(items...)
		return func() error { _, err := f.Sign.Sign(b.Context(), in); return err }
	}
	for _, c := range []struct {
		name string
		ask  func() error
	}{
		{"status", func() error { _, err := f.Sign.Status(b.Context()); return err }},
		{"sign", sign(1)}, {"sign-8", sign(8)},
	} {
		for _, callers := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/callers=%d", c.name, callers), func(b *testing.B) {
				var left atomic.Int64
				left.Store(int64(b.N))
				var wait sync.WaitGroup
				spent := cpu(b)
				b.ResetTimer()
				for range callers {
					wait.Go(func() {
						for left.Add(-1) >= 0 {
							if err := c.ask(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wait.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
				b.ReportMetric(float64((cpu(b)-spent).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}
