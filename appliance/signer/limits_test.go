package signer

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/appliance/audit"
	"chancery/appliance/signer/registry"
	"chancery/issuance"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestWindowIsExact holds a window against the plain definition: in no span of
// its length more than the limit pass, nothing is refused that would fit, and
// what is told to wait passes after that wait.
func TestWindowIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 6).Draw(t, "limit")
		const span = time.Minute
		w := newWindow(limit, span)
		var passed []time.Time // what the window counts
		inside := func(now time.Time) (n int) {
			for _, p := range passed {
				if now.Sub(p) < span {
					n++
				}
			}
			return n
		}
		now := noon
		if n := rapid.IntRange(0, 2*limit).Draw(t, "earlier"); n > 0 {
			for i := range n {
				passed = append(passed, now.Add(-span/2+time.Duration(i)*time.Second))
			}
			w.fill(passed)
			passed = passed[max(0, n-limit):] // more than the limit is as much as the limit
			now = now.Add(time.Duration(n) * time.Second)
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "pause")) * time.Second)
			n := rapid.IntRange(0, limit+1).Draw(t, "n")
			wait, ok := w.take(n, now)
			if want := inside(now)+n <= limit; ok != want {
				t.Fatalf("%d of %d with %d inside: passed %v, want %v", n, limit, inside(now), ok, want)
			}
			if ok && rapid.Bool().Draw(t, "give back") {
				w.giveBack(n)
				continue
			}
			if ok {
				passed = append(passed, slices.Repeat([]time.Time{now}, n)...)
				continue
			}
			if wait <= 0 || wait > span {
				t.Fatalf("told to wait %v", wait)
			}
			if n <= limit && (inside(now.Add(wait))+n > limit || inside(now.Add(wait-1))+n <= limit) {
				t.Fatalf("told to wait %v, which is not when %d fit", wait, n)
			}
		}
	})
}

// TestRememberedAcrossRestart replays intents into a fresh window.
func TestRememberedAcrossRestart(t *testing.T) {
	recent := map[string][]time.Time{}
	entry := func(kind audit.Kind, key string, at time.Time) {
		remember(recent, audit.Entry{Kind: kind, Key: key, Time: audit.Stamp(at)}, noon)
	}
	entry(audit.KindIntent, "a", noon.Add(-time.Minute))                  // just out
	entry(audit.KindIntent, "a", noon.Add(-time.Minute+time.Millisecond)) // just in
	entry(audit.KindIntent, "a", noon.Add(-1500*time.Millisecond))        // with its fraction
	entry(audit.KindIntent, "b", noon.Add(-time.Second))
	entry(audit.KindMade, "a", noon)
	entry(audit.KindRefused, "a", noon)
	entry(audit.KindIntent, "a", noon.Add(time.Hour)) // a clock that was set back
	want := []time.Time{noon.Add(-time.Minute + time.Millisecond), noon.Add(-1500 * time.Millisecond), noon}
	if !slices.EqualFunc(recent["a"], want, time.Time.Equal) || len(recent["b"]) != 1 {
		t.Fatalf("remembered %v", recent)
	}
	k, err := newKey(registry.Key{Label: "a", Profile: issuance.Profile{RatePerMinute: 3}}, recent["a"])
	if err != nil {
		t.Fatal(err)
	}
	if wait, ok := k.rate.take(1, noon); ok || wait != time.Millisecond {
		t.Errorf("after the restart: %v, %v; the cap is used up for a millisecond", wait, ok)
	}
	if _, ok := k.rate.take(1, noon.Add(time.Millisecond)); !ok {
		t.Error("refused although one has left the window")
	}
	if k, err := newKey(registry.Key{Label: "b"}, recent["b"]); err != nil || k.rate != nil {
		t.Errorf("a key without a cap has one: %v, %v", k.rate, err)
	}
}

// TestChargeIsAllOrNone charges two keys at once, one of which is over its cap.
func TestChargeIsAllOrNone(t *testing.T) {
	c := &core{now: func() time.Time { return noon }}
	capped := func(label string, limit int) *key {
		return &key{Key: registry.Key{Label: label}, rate: newWindow(limit, time.Minute)}
	}
	a, b, free := capped("a", 4), capped("b", 1), &key{}
	batch := func(keys ...*key) (orders []order) {
		for _, k := range keys {
			orders = append(orders, order{key: k})
		}
		return orders
	}
	if _, r := c.charge(batch(free, a, b)); r != nil {
		t.Fatal(r.message)
	}
	index, r := c.charge(batch(free, a, a, b, free))
	if r == nil || index != 3 || r.reason != "rate" || r.retry != time.Minute {
		t.Fatalf("item %d, %+v: want b's, item 3", index, r)
	}
	if _, r := c.charge(batch(a, a, a)); r != nil {
		t.Errorf("what was refused has used up the other key's cap: %s", r.message)
	}
	if _, r := c.charge(batch(a)); r == nil {
		t.Error("five passed a cap of four")
	}
	if index, r := c.charge(batch(b, b)); r == nil || index != 0 || r.retry != time.Minute {
		t.Errorf("more than the cap at once: item %d, %+v", index, r)
	}
}

// TestChargeTogether charges one key from many callers.
func TestChargeTogether(t *testing.T) {
	c := &core{now: func() time.Time { return noon }}
	k := &key{rate: newWindow(100, time.Minute)}
	other := &key{rate: newWindow(1, time.Minute)}
	if _, r := c.charge([]order{{key: other}}); r != nil {
		t.Fatal(r.message)
	}
	var passed sync.Map
	var wait sync.WaitGroup
	for i := range 300 {
		wait.Go(func() {
			orders := []order{{key: k}}
			if i%3 == 0 {
				orders = append(orders, order{key: other}) // is refused, and gives back
			}
			if _, r := c.charge(orders); r == nil {
				passed.Store(i, true)
			}
		})
	}
	wait.Wait()
	n := 0
	passed.Range(func(any, any) bool { n++; return true })
	if n != 100 {
		t.Errorf("%d passed a cap of 100", n)
	}
}

// TestLimiter lets a burst pass, then one a pause, and counts the others.
func TestLimiter(t *testing.T) {
	l := newLimiter(3, time.Second)
	step := func(at time.Duration, dropped int, ok bool) {
		t.Helper()
		if d, o := l.take(noon.Add(at)); d != dropped || o != ok {
			t.Errorf("at %v: %d dropped, %v; want %d, %v", at, d, o, dropped, ok)
		}
	}
	for range 3 {
		step(0, 0, true)
	}
	step(0, 0, false)
	step(500*time.Millisecond, 0, false)
	step(time.Second, 2, true)
	step(time.Second, 0, false)
	step(900*time.Millisecond, 0, false) // a clock that goes back gives nothing
	step(time.Hour, 2, true)
	step(time.Hour, 0, true)
	step(time.Hour, 0, true)
	step(time.Hour, 0, false) // and no more than a burst was saved up
}

func TestNames(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "a": true, "urn:uuid:4b1c-~!": true, "two words": false, "é": false, "tab\t": false, "\x7f": false,
		string(make([]byte, 3)): false, fmt.Sprintf("%0256d", 1): true, fmt.Sprintf("%0257d", 1): false,
	} {
		if got := name(s, false); got != want {
			t.Errorf("name(%q) = %v", s, got)
		}
	}
	if !name("", true) {
		t.Error("an optional name")
	}
	if seconds(0) != 0 || seconds(time.Millisecond) != 1 || seconds(time.Minute) != 60 {
		t.Error("waits are rounded up to seconds")
	}
}
