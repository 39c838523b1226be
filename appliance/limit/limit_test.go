package limit

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// TestBucketsAdmit draws any sequence of requests and holds it against the
// definition: in no span of time does a key get more than its burst and what the
// rate gives in that span. A refused request that comes back after the wait is admitted.
func TestBucketsAdmit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{Requests: rapid.IntRange(1, 50).Draw(t, "requests"), Per: rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "per"),
			Burst: rapid.IntRange(0, 20).Draw(t, "burst")}
		burst, per := float64(r.Burst), r.Per.Seconds()
		if r.Burst == 0 {
			burst = float64(r.Requests)
		}
		if r.Per == 0 {
			per = 1
		}
		// Fewer keys than a generation: none is forgotten.
		b := NewBuckets[int](r, 8)
		admitted := map[int][]time.Time{}
		now := epoch
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "ms")) * time.Millisecond)
			key := rapid.IntRange(0, 3).Draw(t, "key")
			wait, ok := b.Allow(key, now)
			if !ok {
				if wait <= 0 || wait.Seconds() > per/float64(r.Requests)+1e-6 {
					t.Fatalf("wait %v with %+v", wait, r)
				}
				if rapid.Bool().Draw(t, "impatient") {
					continue
				}
				now = now.Add(time.Duration(Seconds(wait)) * time.Second)
				if _, ok = b.Allow(key, now); !ok {
					t.Fatalf("refused after the wait of %v", wait)
				}
			}
			admitted[key] = append(admitted[key], now)
		}
		for _, times := range admitted {
			for i := range times {
				for j := i; j < len(times); j++ {
					if most := burst + times[j].Sub(times[i]).Seconds()*float64(r.Requests)/per + 1e-6; float64(j-i+1) > most {
						t.Fatalf("%d admitted in %v, at most %.2f with %+v", j-i+1, times[j].Sub(times[i]), most, r)
					}
				}
			}
		}
	})
}

// TestBucketsAreBounded: however many keys come, no more than the bound are kept,
// and one that is used between every half of the bound is not forgotten.
func TestBucketsAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.IntRange(2, 40).Draw(t, "entries")
		b := NewBuckets[int](Rate{Requests: 1, Per: time.Hour, Burst: 1}, entries)
		if _, ok := b.Allow(-1, epoch); !ok {
			t.Fatal("the first request was refused")
		}
		others := 0 // since key -1 was used
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if others == entries/2-1 {
				if _, ok := b.Allow(-1, epoch); ok {
					t.Fatalf("a key was forgotten after %d others in a table of %d", others, entries)
				}
				others = 0
			}
			b.Allow(rapid.IntRange(0, 1000).Draw(t, "key"), epoch)
			others++
			if n := b.size(); n > entries {
				t.Fatalf("%d buckets are kept, the bound is %d", n, entries)
			}
		}
	})
}

func TestNoLimit(t *testing.T) {
	b := NewBuckets[string](Rate{}, 10)
	for i := range 1000 {
		if wait, ok := b.Allow("a", epoch); !ok || wait != 0 {
			t.Fatalf("request %d was refused", i)
		}
	}
	if n := b.size(); n != 0 {
		t.Errorf("%d buckets are kept without a limit", n)
	}
}

// TestOneKeyDoesNotPayForAnother: an exhausted bucket is its key's alone.
func TestOneKeyDoesNotPayForAnother(t *testing.T) {
	b := NewBuckets[int64](Rate{Requests: 2, Per: time.Minute}, 100)
	var got []string
	for _, key := range []int64{1, 1, 1, 2, 2, 2} {
		wait, ok := b.Allow(key, epoch)
		got = append(got, fmt.Sprint(key, ok, Seconds(wait)))
	}
	want := []string{"1 true 1", "1 true 1", "1 false 30", "2 true 1", "2 true 1", "2 false 30"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSeconds(t *testing.T) {
	for wait, want := range map[time.Duration]int{0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90} {
		if got := Seconds(wait); got != want {
			t.Errorf("%v: %d, want %d", wait, got, want)
		}
	}
}

// BenchmarkFullTable reports the memory of a table whose every entry is taken.
func BenchmarkFullTable(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		t := NewBuckets[netip.Addr](Rate{Requests: 300, Burst: 600}, defaultEntries)
		for i := range defaultEntries {
			t.Allow(netip.AddrFrom16([16]byte{0x20, 1, 0, byte(i >> 16), byte(i >> 8), byte(i)}), epoch)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		b.ReportMetric(float64(t.size()), "entries")
	}
}

// BenchmarkAllow is one check, of many addresses from many goroutines.
func BenchmarkAllow(b *testing.B) {
	t := NewBuckets[netip.Addr](Rate{Requests: 1 << 30}, defaultEntries)
	b.RunParallel(func(p *testing.PB) {
		for i := uint32(0); p.Next(); i++ {
			t.Allow(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), epoch)
		}
	})
}

// size is how many buckets are kept.
func (b *Buckets[K]) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.young) + len(b.old)
}
