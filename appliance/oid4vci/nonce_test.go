package oid4vci

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/config"
)

func someNonces(t testing.TB, lifetime time.Duration) *nonces {
	t.Helper()
	n, err := newNonces(lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *nonces) mustMake(t testing.TB, now time.Time) string {
	t.Helper()
	nonce, err := n.make(now)
	if err != nil {
		t.Fatal(err)
	}
	return nonce
}

// TestNonce: only what this process made, unchanged and in its time, is known,
// checks 139, 199, 200.
func TestNonce(t *testing.T) {
	const lifetime = 5 * time.Minute
	now := time.Now()
	n := someNonces(t, lifetime)
	nonce := n.mustMake(t, now)
	if nonce == n.mustMake(t, now) {
		t.Fatal("the same nonce twice")
	}
	for name, c := range map[string]struct {
		nonce string
		at    time.Time
		known bool
	}{
		"at once":             {nonce, now, true},
		"at the end":          {nonce, now.Add(lifetime - time.Millisecond), true},
		"expired":             {nonce, now.Add(lifetime + time.Millisecond), false},
		"clock back a little": {nonce, now.Add(-maxNonceAhead / 2), true},
		"clock back far":      {nonce, now.Add(-maxNonceAhead - time.Second), false},
		"empty":               {"", now, false},
		"short":               {nonce[:len(nonce)-1], now, false},
		"long":                {nonce + "A", now, false},
		"padded":              {nonce[:len(nonce)-1] + "=", now, false},
		"other alphabet":      {nonce[:len(nonce)-1] + "+", now, false},
		"of another process":  {someNonces(t, lifetime).mustMake(t, now), now, false},
		"not base64":          {strings.Repeat("é", len(nonce)/2), now, false},
	} {
		if _, known := n.check(c.nonce, c.at); known != c.known {
			t.Errorf("%s: known is %t", name, known)
		}
	}
	for at := range nonce {
		for _, c := range []byte("Aa0-_") {
			changed := nonce[:at] + string(c) + nonce[at+1:]
			if _, known := n.check(changed, now); known && changed != nonce {
				t.Errorf("character %d changed to %c: known", at, c)
			}
		}
	}
}

// TestNonceClaimRace: of many requests with one nonce, one has it.
func TestNonceClaimRace(t *testing.T) {
	n := someNonces(t, time.Minute)
	now := time.Now()
	for range 50 {
		id, _ := n.check(n.mustMake(t, now), now)
		other, _ := n.check(n.mustMake(t, now), now)
		var won atomic.Int32
		var wait sync.WaitGroup
		for range 16 {
			wait.Go(func() {
				if n.claim([]nonceID{id, id, other}, now) {
					won.Add(1)
				}
			})
		}
		wait.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d requests had the nonce", won.Load())
		}
	}
}

// TestNonceAllOrNone: a claim that fails has claimed nothing.
func TestNonceAllOrNone(t *testing.T) {
	n := someNonces(t, time.Minute)
	now := time.Now()
	a, _ := n.check(n.mustMake(t, now), now)
	b, _ := n.check(n.mustMake(t, now), now)
	if !n.claim([]nonceID{b}, now) || n.claim([]nonceID{a, b}, now) || !n.claim([]nonceID{a}, now) {
		t.Error("a failed claim has claimed a part")
	}
	n.release([]nonceID{b})
	if n.claim([]nonceID{a}, now) || !n.claim([]nonceID{b}, now) {
		t.Error("a release has given back another nonce, or nothing")
	}
}

// TestNonceModel: at no time is a nonce that can still be sent claimed twice
// without a release, also when the clock is set back a little.
func TestNonceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, err := newNonces(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		latest := now
		var made []string
		claimed := map[string]bool{}
		for _, step := range rapid.SliceOfN(rapid.IntRange(-9_000, 12_000), 50, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(step) * time.Millisecond)
			if earliest := latest.Add(-maxNonceAhead); now.Before(earliest) {
				now = earliest
			}
			if now.After(latest) {
				latest = now
			}
			nonce, err := n.make(now)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, nonce)
			nonce = made[max(0, len(made)-1-rapid.IntRange(0, 12).Draw(t, "back"))]
			id, known := n.check(nonce, now)
			if !known {
				continue
			}
			if got := n.claim([]nonceID{id}, now); got == claimed[nonce] {
				t.Fatalf("claimed before: %t, claim says %t", claimed[nonce], got)
			}
			if claimed[nonce] = true; step%5 == 0 {
				n.release([]nonceID{id})
				claimed[nonce] = false
			}
		}
	})
}

// TestNonceForgets: what has expired is not remembered.
func TestNonceForgets(t *testing.T) {
	n := someNonces(t, time.Minute)
	now := time.Now()
	for range 10 {
		for range 100 {
			id, _ := n.check(n.mustMake(t, now), now)
			n.claim([]nonceID{id}, now)
		}
		now = now.Add(time.Minute + maxNonceAhead)
	}
	if remembered := len(n.used) + len(n.older); remembered > 200 {
		t.Errorf("%d nonces are remembered", remembered)
	}
}

// TestNonceEndpoint: checks 138, 140.
func TestNonceEndpoint(t *testing.T) {
	i, client := unsigned(t, config.Issuer{Identifier: "https://localhost:8443/t"})
	for name, header := range map[string][]string{
		"138 empty body":    nil,
		"140 authorization": {"Authorization", "Bearer x", "Content-Type", "application/json"},
	} {
		a := do(t, client, http.MethodPost, i.identifier+"/nonce", strings.NewReader(""), header...)
		nonce, _ := a.object(t)["c_nonce"].(string)
		_, known := i.nonces.check(nonce, time.Now())
		if a.status != http.StatusOK || !known || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" || len(a.object(t)) != 1 {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
}

// FuzzNonce: no string but the one that was made is known.
func FuzzNonce(f *testing.F) {
	n := someNonces(f, time.Minute)
	now := time.Now()
	nonce := n.mustMake(f, now)
	f.Add(nonce)
	f.Add("")
	f.Add(strings.Repeat("A", len(nonce)))
	f.Add(nonce[:len(nonce)-1] + "B")
	f.Fuzz(func(t *testing.T, text string) {
		if _, known := n.check(text, now); known && text != nonce {
			t.Errorf("%q is known", text)
		}
	})
}
