package oid4vci

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/appliance/oid4vci/challenge"
	"chancery/config"
)

// TestNonceClaimRace: of many requests with one nonce, one has it.
func TestNonceClaimRace(t *testing.T) {
	n := newNonces(time.Minute)
	now := time.Now()
	for range 50 {
		id, other := n.source.Make(now), n.source.Make(now)
		var won atomic.Int32
		var wait sync.WaitGroup
		for range 16 {
			wait.Go(func() {
				if _, ok := n.claim([]string{id, id, other}, now); ok {
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
	n := newNonces(time.Minute)
	now := time.Now()
	a, b := n.source.Make(now), n.source.Make(now)
	claim := func(values ...string) bool { _, ok := n.claim(values, now); return ok }
	ids, ok := n.claim([]string{b}, now)
	if !ok || claim(a, b) || claim(a, "unknown") || !claim(a) {
		t.Error("a failed claim has claimed a part")
	}
	n.release(ids)
	if claim(a) || !claim(b) {
		t.Error("a release has given back another nonce, or nothing")
	}
}

// TestNonceModel: at no time is a nonce that can still be sent claimed twice
// without a release, also when the clock is set back a little.
func TestNonceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNonces(time.Minute)
		now := time.Now()
		latest := now
		var made []string
		claimed := map[string]bool{}
		for _, step := range rapid.SliceOfN(rapid.IntRange(-9_000, 12_000), 50, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(step) * time.Millisecond)
			if earliest := latest.Add(-challenge.MaxAhead); now.Before(earliest) {
				now = earliest
			}
			if now.After(latest) {
				latest = now
			}
			made = append(made, n.source.Make(now))
			nonce := made[max(0, len(made)-1-rapid.IntRange(0, 12).Draw(t, "back"))]
			if _, known := n.source.Check(nonce, now); !known {
				continue
			}
			ids, got := n.claim([]string{nonce}, now)
			if got == claimed[nonce] {
				t.Fatalf("claimed before: %t, claim says %t", claimed[nonce], got)
			}
			if claimed[nonce] = true; got && step%5 == 0 {
				n.release(ids)
				claimed[nonce] = false
			}
		}
	})
}

// TestNonceForgets: what has expired is not remembered.
func TestNonceForgets(t *testing.T) {
	n := newNonces(time.Minute)
	now := time.Now()
	for range 10 {
		for range 100 {
			n.claim([]string{n.source.Make(now)}, now)
		}
		now = now.Add(time.Minute + challenge.MaxAhead)
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
		_, known := i.nonces.source.Check(nonce, time.Now())
		if a.status != http.StatusOK || !known || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" || len(a.object(t)) != 1 {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
}
