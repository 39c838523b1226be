package replay

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1_800_000_000, 0)

// Whatever the order and the times: no key is accepted twice within its
// lifetime, each one is accepted at last after three times that, and there are
// never more than the bound.
func TestReplay_114_131(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lifetime := time.Duration(rapid.IntRange(1, 60).Draw(t, "lifetime")) * time.Second
		limit := rapid.IntRange(1, 12).Draw(t, "max")
		c := New(lifetime, limit)
		accepted := map[Key]time.Time{}
		now := start
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "later")) * time.Millisecond)
			key := NewKey(strconv.Itoa(rapid.IntRange(0, 20).Draw(t, "key")))
			at, before := accepted[key]
			switch err := c.Add(key, now); err {
			case nil:
				if before && now.Sub(at) < lifetime {
					t.Fatalf("accepted again after %s of %s", now.Sub(at), lifetime)
				}
				accepted[key] = now
			case ErrSeen:
				if !before {
					t.Fatal("seen, though it never was")
				}
			case ErrFull:
				if c.Len() < limit {
					t.Fatalf("full with %d of %d", c.Len(), limit)
				}
			default:
				t.Fatal(err)
			}
			if c.Len() > limit {
				t.Fatalf("%d of %d", c.Len(), limit)
			}
		}
		now = now.Add(3 * lifetime)
		for key := range accepted {
			if err := c.Add(key, now); err != nil && err != ErrFull {
				t.Fatalf("three lifetimes later: %v", err)
			}
		}
	})
}

// A full cache forgets nothing to make room, and has room again in time.
func TestFull(t *testing.T) {
	c := New(time.Minute, 2)
	for n, want := range []error{nil, nil, ErrFull, ErrFull} {
		if err := c.Add(NewKey(strconv.Itoa(n)), start); err != want {
			t.Errorf("%d: %v", n, err)
		}
	}
	for after, want := range []error{ErrSeen, ErrSeen, nil} {
		if err := c.Add(NewKey("0"), start.Add(time.Duration(after)*time.Minute)); err != want {
			t.Errorf("%d minutes later: %v", after, err)
		}
	}
	if c.Len() != 1 {
		t.Errorf("%d are kept", c.Len())
	}
}

// A forgetful cache refuses nothing that is new, knows at least the newest half
// of what it has room for, and is as bounded.
func TestForgetful(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(2, 20).Draw(t, "max")
		c := NewForgetful(time.Minute, limit)
		var recent []Key
		now := start
		for n := range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "later")) * time.Microsecond)
			for _, key := range recent {
				if err := c.Add(key, now); err != ErrSeen {
					t.Fatalf("of the newest %d: %v", len(recent), err)
				}
			}
			key := NewKey("new", strconv.Itoa(n))
			if err := c.Add(key, now); err != nil {
				t.Fatal(err)
			}
			if recent = append(recent, key); len(recent) > limit/2 {
				recent = recent[1:]
			}
			if c.Len() > limit {
				t.Fatalf("%d of %d", c.Len(), limit)
			}
		}
	})
}

// A key that comes with a time from before is not forgotten for that, and
// nothing is forgotten early.
func TestOutOfOrder(t *testing.T) {
	c := New(time.Minute, 10)
	for _, step := range []struct {
		key   string
		after time.Duration
		want  error
	}{{"a", 0, nil}, {"b", -time.Millisecond, nil}, {"c", time.Minute, nil}, {"d", time.Minute - time.Millisecond, nil}, {"a", time.Minute, ErrSeen}, {"b", time.Minute, ErrSeen}, {"d", 2 * time.Minute, ErrSeen}} {
		if err := c.Add(NewKey(step.key), start.Add(step.after)); err != step.want {
			t.Errorf("%s, %s: %v", step.key, step.after, err)
		}
	}
}

// Of many who show the same key at once one is accepted.
func TestAtOnce(t *testing.T) {
	c := New(time.Minute, 1000)
	var accepted atomic.Int64
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			if c.Add(NewKey("same"), start) == nil {
				accepted.Add(1)
			}
		})
	}
	wait.Wait()
	if accepted.Load() != 1 {
		t.Errorf("accepted %d times", accepted.Load())
	}
}

// Parts keep their borders.
func TestNewKey(t *testing.T) {
	seen := map[Key][]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}, {"", "abc"}} {
		if other, twice := seen[NewKey(parts...)]; twice {
			t.Errorf("%q and %q", other, parts)
		}
		seen[NewKey(parts...)] = parts
	}
}

// BenchmarkAdd also reports what a remembered key takes.
func BenchmarkAdd(b *testing.B) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := New(time.Hour, 1<<30)
	for n := range b.N {
		if err := c.Add(Key{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}, start); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "B/key")
	runtime.KeepAlive(c)
}
