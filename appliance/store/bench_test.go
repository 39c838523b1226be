package store

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cpu is what the process has used of the processors so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs work b.N times from 32 callers and reports the CPU time of each.
func measure(b *testing.B, work func(n int)) {
	b.Helper()
	next := make(chan int, 64)
	var wait sync.WaitGroup
	for range 32 {
		wait.Go(func() {
			for n := range next {
				work(n)
			}
		})
	}
	before := cpu(b)
	b.ResetTimer()
	for n := range b.N {
		next <- n
	}
	close(next)
	wait.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkStore measures the database work of a flow, 32 callers at once: the
// three grouped commits one by one and then together, with the reads between.
func BenchmarkStore(b *testing.B) {
	ctx := context.Background()
	fill := func(b *testing.B, f *fixture) []Created {
		made := make([]Created, b.N)
		measure(b, func(n int) { made[n] = f.create(6) })
		return made
	}
	spend := func(b *testing.B, f *fixture, made []Created) []string {
		tokens := make([]string, b.N)
		measure(b, func(n int) { tokens[n] = f.redeem(made[n]) })
		return tokens
	}
	issue := func(f *fixture, token string) {
		g, err := f.Grant(ctx, token)
		if err != nil {
			b.Error(err)
			return
		}
		defer g.Release()
		if _, err := g.Claims(ctx); err != nil {
			b.Error(err)
		}
		if err := g.issued(ctx, "pid", []Credential{credential("pid")}); err != nil {
			b.Error(err)
		}
	}
	b.Run("create", func(b *testing.B) { fill(b, open(b)) })
	b.Run("fetch", func(b *testing.B) {
		f := open(b)
		made := fill(b, f)
		measure(b, func(n int) {
			if _, _, err := f.Fetch(ctx, made[n].URISecret); err != nil {
				b.Error(err)
			}
		})
	})
	b.Run("redeem", func(b *testing.B) {
		f := open(b)
		spend(b, f, fill(b, f))
	})
	b.Run("issue", func(b *testing.B) {
		f := open(b)
		tokens := spend(b, f, fill(b, f))
		measure(b, func(n int) { issue(f, tokens[n]) })
	})
	b.Run("issue, kept for retries", func(b *testing.B) {
		f := open(b)
		f.options.RetryWindow = testWindow
		f.restart()
		tokens := spend(b, f, fill(b, f))
		measure(b, func(n int) { issue(f, tokens[n]) })
	})
	b.Run("retries are over", func(b *testing.B) {
		f := open(b)
		f.options.RetryWindow = testWindow
		f.restart()
		for _, token := range spend(b, f, fill(b, f)) {
			issue(f, token)
		}
		f.clock.pass(testWindow)
		before := cpu(b)
		b.ResetTimer()
		if err := f.settle(ctx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	})
	b.Run("flow", func(b *testing.B) {
		f := open(b)
		measure(b, func(int) {
			c := f.create(6)
			if _, _, err := f.Fetch(ctx, c.URISecret); err != nil {
				b.Error(err)
			}
			issue(f, f.redeem(c))
		})
	})
}
