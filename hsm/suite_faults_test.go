package hsm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// callsOf counts the calls of the module that fn makes.
func callsOf(t testing.TB, token *Token, fault *hsmtest.Fault, fn func()) map[string]int {
	t.Helper()
	read := func(orders ...string) map[string]int {
		fault.Order(t, orders...)
		// The statistics are written when the module is next called, before that
		// call is counted; C_GetInfo is none of those that are looked at.
		if _, err := token.gen.ctx.GetInfo(); err != nil {
			t.Fatal(err)
		}
		return fault.Calls(t)
	}
	before := read("stats")
	fn()
	after := read("stats", "# again")
	for name := range after {
		after[name] -= before[name]
	}
	delete(after, "C_GetInfo")
	return after
}

// suiteTwoCalls is the steady state: C_SignInit and C_Sign, and nothing else.
func suiteTwoCalls(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, nil)
	sign(t, token, key) // opens the session
	const n = 20
	calls := callsOf(t, token, fault, func() {
		for range n {
			sign(t, token, key)
		}
	})
	for name, got := range calls {
		want := 0
		if name == "C_SignInit" || name == "C_Sign" {
			want = n
		}
		if got != want {
			t.Errorf("%d calls of %s for %d signatures, want %d", got, name, n, want)
		}
	}
	t.Logf("PKCS#11 calls per signature: %g", float64(calls["C_SignInit"]+calls["C_Sign"])/n)
}

// suiteSideBySide signs from several callers while keys are found, made and
// destroyed and generations end: signatures run beside one another, the rest alone.
func suiteSideBySide(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, func(c *Config) { c.Sessions = 4 })
	ctx := context.Background()
	var signed atomic.Int64
	var wait sync.WaitGroup
	stop := make(chan struct{})
	for range 6 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := token.Sign(ctx, key, []byte("m")); err != nil {
					t.Error(err)
					return
				}
				signed.Add(1)
			}
		})
	}
	for range 3 {
		record := generateKey(t, token, newLabel(), issuance.ES256)
		sign(t, token, record.Label)
		if err := token.Load(ctx, []KeyRef{record.KeyRef}); err != nil {
			t.Error(err)
		}
		if _, err := token.Labels(); err != nil {
			t.Error(err)
		}
		if err := token.Destroy(ctx, record.KeyRef); err != nil {
			t.Error(err)
		}
		gen := token.gen
		if err := token.renew(gen); err != nil {
			t.Error(err)
		}
		was := signed.Load()
		until(t, "signatures in the new generation", func() bool { return signed.Load() > was+6 })
	}
	close(stop)
	wait.Wait()
	token.Close()
	calls := fault.Calls(t)
	if calls["overlaps"] != 0 {
		t.Errorf("%d calls ran beside one that must be alone", calls["overlaps"])
	}
	t.Logf("%d signatures beside %d generations of keys and %d of the module", signed.Load(), calls["C_GenerateKeyPair"], calls["C_Initialize"])
}

// suiteHeals is what a caller never notices, whatever the token. Further faults
// are in TestFaultsHealInside.
func suiteHeals(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, nil)
	for _, orders := range [][]string{
		{"killsessions"},
		{"fail C_SignInit 0xB3 1 0"},
		{"fail C_Sign 0x30 1 0"},
		{"late C_Sign 0x5 1 0"},
		{"killsessions", "fail C_FindObjectsInit 0xB3 1 0"},
	} {
		before := token.State().Generation
		fault.Order(t, orders...)
		sign(t, token, key)
		if now := token.State().Generation; now == before {
			t.Errorf("%q did nothing", orders)
		}
		for range 5 { // no session is left poisoned
			sign(t, token, key)
		}
	}
}

// suiteBadSignatures spoils what the token returns, in the ways that were seen
// of tokens: it is not passed on, and the next signature is good.
func suiteBadSignatures(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, nil)
	before := token.State().Generation
	for _, order := range []string{"corrupt 1", "short 1", "pad 1", "der 1"} {
		fault.Order(t, order)
		refuses(t, token, key, ClassBadSignature)
		sign(t, token, key)
	}
	if now := token.State().Generation; now != before {
		t.Errorf("a bad signature cost %d generations", now-before)
	}
	// In the proof of a key it means that the key is not there.
	fault.Order(t, "corrupt 1")
	label := newLabel()
	_, err := token.Generate(context.Background(), KeySpec{label, issuance.ES256})
	wantClass(t, err, ClassBadSignature)
	if labels, err := token.Labels(); err != nil || slices.Contains(labels, label) {
		t.Errorf("a key that was not proven was left in the token (%v)", err)
	}
}

// suiteSessionCap gives the device fewer sessions than the configuration:
// callers wait for one another and nothing is opened anew, also when the one
// session fails again and again while others hear that there is none.
func suiteSessionCap(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, func(c *Config) { c.Sessions = 4 })
	const spoiled = 6
	fault.Order(t, "maxsessions 2", "latency C_Sign 5000", "latency C_OpenSession 5000", fmt.Sprint("corrupt ", spoiled)) // the keeper and one more
	refused := atomic.Int64{}
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			if _, err := token.Sign(context.Background(), key, []byte("m")); err != nil {
				wantClass(t, err, ClassBadSignature)
				refused.Add(1)
			}
		})
	}
	wait.Wait()
	if refused.Load() != spoiled {
		t.Errorf("%d signatures were refused, want the %d corrupted ones", refused.Load(), spoiled)
	}
	if now := token.State().Generation; now != 1 {
		t.Errorf("the token was opened anew %d times", now-1)
	}
}

// suiteNoSession leaves no session but the keeper: that is told at once, and
// healed by a new generation when the device has some again.
func suiteNoSession(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, nil)
	fault.Order(t, "corrupt 1")
	refuses(t, token, key, ClassBadSignature) // which closes the one that was open
	fault.Order(t, "maxsessions 1")
	refuses(t, token, key, ClassSessionLost)
	if s := token.State(); s.Ready || s.Class != ClassSessionLost {
		t.Errorf("%+v", s)
	}
	fault.Order(t)
	until(t, "there are sessions again", func() bool { return token.State().Ready })
	sign(t, token, key)
}

// suiteSerial is a device that does one thing at a time, slowly, whatever the
// configuration says: everybody waits and is served.
func suiteSerial(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, func(c *Config) { c.Sessions = 4 })
	fault.Order(t, "serial", "latency C_Sign 10000")
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			if _, err := token.Sign(context.Background(), key, []byte("m")); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if s := token.State(); !s.Ready || s.Generation != 1 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// suiteGoneAndBack takes the token away under load and brings it back (promise
// P10): nobody gets a wrong answer, and nothing is restarted.
func suiteGoneAndBack(t *testing.T, p product) {
	var n notices
	token, fault, key := throughFaults(t, p.cfg, func(c *Config) { c.Notify = n.add })
	stop := make(chan struct{})
	var wait sync.WaitGroup
	var signed atomic.Int64
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := token.Sign(context.Background(), key, []byte("m")); err == nil {
					signed.Add(1)
				} else if c := ClassOf(err); c != ClassTokenGone && c != ClassSessionLost && c != ClassBusy {
					t.Errorf("class %q: %v", c, err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	for _, order := range []string{"gone 0x32", "gone 0xE0", "gone 0x30", "gone 0x80000001"} { // removed, not present, error, a vendor's own
		was := signed.Load()
		until(t, "signatures before "+order, func() bool { return signed.Load() > was+10 })
		fault.Order(t, order)
		until(t, "the loss is noticed: "+order, func() bool { return !token.State().Ready })
		if c := token.State().Class; c != ClassTokenGone {
			t.Errorf("%s: class %q", order, c)
		}
		_, err := token.Evidence()
		wantClass(t, err, ClassTokenGone)
		wantClass(t, token.Load(context.Background(), nil), ClassTokenGone)
		fault.Order(t)
		until(t, "it is back after "+order, func() bool { return token.State().Ready })
	}
	was := signed.Load()
	until(t, "signatures at the end", func() bool { return signed.Load() > was+10 })
	close(stop)
	wait.Wait()
	if seen := n.all(); len(seen) < 8 || seen[0] != ClassTokenGone || seen[len(seen)-1] != "" {
		t.Errorf("the owner was told %q", seen)
	}
}

// suiteOneLogin counts logins over three lost generations.
func suiteOneLogin(t *testing.T, p product) {
	token, fault, key := throughFaults(t, p.cfg, nil)
	for range 3 {
		fault.Order(t, "killsessions")
		sign(t, token, key)
	}
	token.Close()
	calls := fault.Calls(t)
	if calls["C_Login"] != 4 || calls["C_Initialize"] != 4 || calls["C_Finalize"] != 4 {
		t.Errorf("%d logins, %d initialisations, %d finalisations: want 4 of each", calls["C_Login"], calls["C_Initialize"], calls["C_Finalize"])
	}
}

// suiteRefusedPIN lets the login fail while the token is reopened: it is not
// tried again, however long one waits.
func suiteRefusedPIN(t *testing.T, p product) {
	var n notices
	token, fault, key := throughFaults(t, p.cfg, func(c *Config) { c.Notify = n.add })
	fault.Order(t, "killsessions", "fail C_Login 0xA0 1000 0")
	refuses(t, token, key, ClassSessionLost)
	if s := token.State(); s.Ready || s.Class != ClassPINRefused {
		t.Fatalf("%+v", s)
	}
	fault.Order(t)
	for range 3 {
		refuses(t, token, key, ClassPINRefused)
	}
	token.life.Lock()
	seeking := token.seeking
	token.life.Unlock()
	if seeking {
		t.Error("the token is still sought: every attempt would cost a try of the PIN")
	}
	token.Close()
	if n := fault.Calls(t)["C_Login"]; n != 2 {
		t.Errorf("%d logins, want 2: one at the start, one refused", n)
	}
	if seen := n.all(); !slices.Equal(seen, []Class{ClassPINRefused}) {
		t.Errorf("the owner was told %q", seen)
	}
}
