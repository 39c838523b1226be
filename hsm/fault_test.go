package hsm

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// faulty opens a token through the fault module, with one key "k".
func faulty(t *testing.T, change func(c *Config)) (*Token, *hsmtest.Fault, *notices) {
	t.Helper()
	cfg := config(t)
	fault := hsmtest.WithFaults(t, cfg.Module)
	cfg.Module = fault.Module
	n := &notices{}
	cfg.Notify = n.add
	if change != nil {
		change(&cfg)
	}
	token := openToken(t, cfg)
	generateKey(t, token, "k", issuance.ES256)
	return token, fault, n
}

// notices collects what the token told its owner.
type notices struct {
	mu   sync.Mutex
	seen []Class
}

func (n *notices) add(c Class) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = append(n.seen, c)
}

// until polls with a test's patience.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("not within patience: " + what)
}

// TestFaultsHealInside is the table of what a caller never notices: the token
// is opened anew and the signature made.
func TestFaultsHealInside(t *testing.T) {
	for name, orders := range map[string][]string{
		"sessions killed":                   {"killsessions"},
		"session handle invalid at init":    {"fail C_SignInit 0xB3 1 0"},
		"session handle invalid at sign":    {"fail C_Sign 0xB3 1 0"},
		"object handle invalid":             {"fail C_SignInit 0x82 1 0"},
		"key handle invalid":                {"fail C_SignInit 0x60 1 0"},
		"user not logged in":                {"fail C_SignInit 0x101 1 0"},
		"operation active":                  {"fail C_SignInit 0x90 1 0"},
		"device error after init":           {"fail C_Sign 0x30 1 0"},
		"device removed":                    {"fail C_SignInit 0x32 1 0"},
		"general error":                     {"fail C_Sign 0x5 1 0"},
		"not initialized":                   {"fail C_SignInit 0x190 1 0"},
		"error although the token signed":   {"late C_Sign 0x30 1 0"},
		"session lost while keys are found": {"killsessions", "fail C_FindObjectsInit 0xB3 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			token, fault, _ := faulty(t, nil)
			if _, err := token.Sign(context.Background(), "k", []byte("before")); err != nil {
				t.Fatal(err)
			}
			fault.Order(t, orders...)
			if _, err := token.Sign(context.Background(), "k", []byte("during")); err != nil {
				t.Fatalf("the fault reached the caller: %v", err)
			}
			for range 5 { // no session is left poisoned
				if _, err := token.Sign(context.Background(), "k", []byte("after")); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestPromiseP2CorruptedSignatureIsNotPassedOn flips a bit in what the token returns.
func TestPromiseP2CorruptedSignatureIsNotPassedOn(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	fault.Order(t, "corrupt 1")
	_, err := token.Sign(context.Background(), "k", []byte("m"))
	wantClass(t, err, ClassBadSignature)
	if _, err := token.Sign(context.Background(), "k", []byte("m")); err != nil {
		t.Errorf("the next signature: %v", err)
	}
}

// TestPromiseP10TokenGoneAndBack takes the token away under load and brings it
// back: nobody gets a wrong answer, and nothing is restarted.
func TestPromiseP10TokenGoneAndBack(t *testing.T) {
	for name, rv := range map[string]string{"device removed": "gone 0x32", "token not present": "gone 0xE0", "device error": "gone 0x30"} {
		t.Run(name, func(t *testing.T) {
			token, fault, n := faulty(t, nil)
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
						if _, err := token.Sign(context.Background(), "k", []byte("m")); err == nil {
							signed.Add(1)
						} else if c := ClassOf(err); c != ClassTokenGone && c != ClassSessionLost && c != ClassBusy {
							t.Errorf("class %q: %v", c, err)
							return
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
			until(t, "signatures before", func() bool { return signed.Load() > 10 })
			fault.Order(t, rv)
			until(t, "the loss is noticed", func() bool { return !token.State().Ready })
			if c := token.State().Class; c != ClassTokenGone {
				t.Errorf("class %q", c)
			}
			lost := signed.Load()
			fault.Order(t)
			until(t, "signatures after", func() bool { return signed.Load() > lost+10 })
			close(stop)
			wait.Wait()
			n.mu.Lock()
			defer n.mu.Unlock()
			if len(n.seen) < 2 || n.seen[0] != ClassTokenGone || n.seen[len(n.seen)-1] != "" {
				t.Errorf("the owner was told %q", n.seen)
			}
		})
	}
}

// TestARefusedPINStopsForGood lets the login fail while the token is reopened:
// it is not tried again, however long one waits.
func TestARefusedPINStopsForGood(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	fault.Order(t, "killsessions", "fail C_Login 0xA0 1000 0")
	_, err := token.Sign(context.Background(), "k", []byte("m"))
	if err == nil {
		t.Fatal("signed without a login")
	}
	if c := token.State().Class; c != ClassPINRefused {
		t.Fatalf("class %q", c)
	}
	fault.Order(t)
	for range 3 {
		_, err = token.Sign(context.Background(), "k", []byte("m"))
		wantClass(t, err, ClassPINRefused)
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
}

// TestOneLoginForEachGeneration counts logins over three lost generations.
func TestOneLoginForEachGeneration(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	for range 3 {
		fault.Order(t, "killsessions")
		if _, err := token.Sign(context.Background(), "k", []byte("m")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // the control file's time must change
	}
	token.Close()
	calls := fault.Calls(t)
	if calls["C_Login"] != 4 || calls["C_Initialize"] != 4 || calls["C_Finalize"] != 4 {
		t.Errorf("%d logins, %d initialisations, %d finalisations: want 4 of each", calls["C_Login"], calls["C_Initialize"], calls["C_Finalize"])
	}
}

// TestTwoCallsForEachSignature is the steady state: C_SignInit and C_Sign.
func TestTwoCallsForEachSignature(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	callsForEachSignature(t, token, fault, 100)
}

func callsForEachSignature(t *testing.T, token *Token, fault *hsmtest.Fault, n int) {
	t.Helper()
	fault.Order(t, "stats")
	if _, err := token.Sign(context.Background(), "k", nil); err != nil { // writes the statistics
		t.Fatal(err)
	}
	before := fault.Calls(t)
	for range n {
		if _, err := token.Sign(context.Background(), "k", []byte("m")); err != nil {
			t.Fatal(err)
		}
	}
	fault.Order(t, "stats", "# again")
	if _, err := token.Sign(context.Background(), "k", nil); err != nil {
		t.Fatal(err)
	}
	after := fault.Calls(t)
	// The statistics are written at the first call of a signature, before it is counted.
	for name := range after {
		want := 0
		if name == "C_SignInit" || name == "C_Sign" {
			want = n + 1
		}
		if got := after[name] - before[name]; got != want {
			t.Errorf("%d calls of %s for %d signatures, want %d", got, name, n+1, want)
		}
	}
}

// TestSessionCapOfTheDevice gives the device fewer sessions than the
// configuration: callers wait for one another and nothing is opened anew.
func TestSessionCapOfTheDevice(t *testing.T) {
	token, fault, _ := faulty(t, func(c *Config) { c.Sessions = 4 })
	sessionCap(t, token, fault)
}

func sessionCap(t *testing.T, token *Token, fault *hsmtest.Fault) {
	t.Helper()
	fault.Order(t, "maxsessions 2", "latency C_Sign 20000") // the keeper and one more
	before := token.State().Generation
	var wait sync.WaitGroup
	for range 12 {
		wait.Go(func() {
			if _, err := token.Sign(context.Background(), "k", []byte("m")); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if now := token.State().Generation; now != before {
		t.Errorf("the token was opened anew %d times", now-before)
	}
	// The one session there is fails: whoever waits for it opens another.
	fault.Order(t, "maxsessions 2", "latency C_Sign 20000", "corrupt 1")
	refused := atomic.Int64{}
	for range 6 {
		wait.Go(func() {
			if _, err := token.Sign(context.Background(), "k", []byte("m")); err != nil {
				wantClass(t, err, ClassBadSignature)
				refused.Add(1)
			}
		})
	}
	wait.Wait()
	if refused.Load() != 1 {
		t.Errorf("%d signatures were refused, want the corrupted one", refused.Load())
	}
}

// TestAHungCallIsReported lets one call stay out past its time: its caller is
// let go, the state says so, the owner is told once, and when the call does come
// back nothing is left of it.
func TestAHungCallIsReported(t *testing.T) {
	hung := make(chan string, 100)
	token, fault, _ := faulty(t, func(c *Config) {
		c.CallTimeout, c.HungAfter, c.Sessions = 100*time.Millisecond, 200*time.Millisecond, 1
		c.OnHung = func(op string) { hung <- op }
	})
	fault.Order(t, "hang C_Sign 2")
	_, err := token.Sign(context.Background(), "k", []byte("m"))
	wantClass(t, err, ClassHung)
	until(t, "the state is hung", func() bool { return token.State().Class == ClassHung })
	if token.State().Ready {
		t.Error("ready behind a hung call")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = token.Sign(ctx, "k", []byte("m"))
	wantClass(t, err, ClassBusy) // the hung call keeps its place
	if op := <-hung; op != "C_Sign" {
		t.Errorf("%s was reported", op)
	}
	until(t, "the call is back", func() bool { return token.State().Ready })
	if _, err := token.Sign(context.Background(), "k", []byte("m")); err != nil {
		t.Error(err)
	}
	token.Close()
	if len(hung) != 0 {
		t.Errorf("the owner was told %d times more", len(hung))
	}
}

// TestACallerIsLetGo ends the caller's time while its call is out.
func TestACallerIsLetGo(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	fault.Order(t, "latency C_Sign 300000")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := token.Sign(ctx, "k", []byte("m"))
		done <- err
	}()
	until(t, "the call is out", func() bool { _, out := token.overdue(0); return out })
	cancel()
	err := <-done
	wantClass(t, err, ClassHung)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the cause is lost: %v", err)
	}
	fault.Order(t)
	if _, err := token.Sign(context.Background(), "k", []byte("m")); err != nil {
		t.Error(err)
	}
}

// TestCloseWaitsForWhatIsOut: C_Finalize beside a call in flight would crash.
func TestCloseWaitsForWhatIsOut(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	fault.Order(t, "latency C_Sign 300000")
	done := make(chan error, 1)
	go func() {
		_, err := token.Sign(context.Background(), "k", []byte("m"))
		done <- err
	}()
	until(t, "the call is out", func() bool { _, out := token.overdue(0); return out })
	token.Close()
	if err := <-done; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
}
