package signer_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chancery/appliance/audit"
	daemon "chancery/appliance/process"
	"chancery/appliance/signer"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
	"chancery/hsm/hsmtest"
)

// reasons are the log's kinds and reasons from an entry on.
func reasons(t *testing.T, f *fixture, from int) (out []string) {
	t.Helper()
	for _, e := range f.Entries(t)[from:] {
		out = append(out, strings.TrimSuffix(string(e.Kind)+" "+e.Reason, " "))
	}
	return out
}

// TestBadSignature has the token return a signature that is none (promise P2):
// nothing leaves, neither the bad one nor those beside it, and the log says so.
func TestBadSignature(t *testing.T) {
	for name, order := range map[string]string{"a flipped bit": "corrupt 1", "a byte short": "short 1", "another form": "der 1"} {
		t.Run(name, func(t *testing.T) {
			f := start(t, signertest.Options{Faults: true, Configure: func(c *config.Config) { c.Signer.Sessions = 1; rarely(c) }})
			calls := signCalls(t, f)
			in := request(f.mdoc(t, "ds-1", nil), f.mdoc(t, "ds-1", nil), f.jwtvc(t, "did-1", nil))
			before := len(f.Entries(t))
			f.Fault.Order(t, order)
			out, err := f.Sign.Sign(soon(t), in)
			if code(err) != wire.CodeInternal || len(out.Results) != 0 {
				t.Fatalf("%v, %d signatures", err, len(out.Results))
			}
			want := []string{"signature.intent", "signature.intent", "signature.intent", "signature.failed bad-signature", "signature.failed withheld", "signature.failed withheld"}
			if got := reasons(t, f, before); !slices.Equal(got, want) {
				t.Errorf("the log has %q, want %q", got, want)
			}
			if n := signCalls(t, f) - calls - 1; n != 1 {
				t.Errorf("the token was asked %d times: after a failure no further signature is begun", n)
			}
			if out, err := f.Sign.Sign(soon(t), in); err != nil || len(out.Results) != 3 {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// TestTokenGoneAndBack takes the token away under load and brings it back
// (promise P10): answers say when to try again, none is wrong, nobody restarts
// anything, and the log tells the outage.
func TestTokenGoneAndBack(t *testing.T) {
	f := start(t, signertest.Options{Faults: true})
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				in := request(f.mdoc(t, "ds-1", nil))
				out, err := f.Sign.Sign(soon(t), in)
				switch e := wire.AsError(err); {
				case err == nil && !f.verifies(t, in.Items[0], out.Results[0].Signature):
					t.Error("a wrong signature")
				case err != nil && (e == nil || e.Code != wire.CodeUnavailable || e.RetryAfter == 0):
					t.Errorf("%v; want unavailable, with a time to try again", err)
				}
			}
		})
	}
	f.Fault.Order(t, "gone 0x32")
	until(t, "degraded", func() bool {
		status, err := f.Sign.Status(soon(t))
		return err == nil && status.State == "degraded" && status.Class == "token-gone" && !status.Keys["ds-1"] && !status.Keys["sealing-1"]
	})
	if _, err := f.Sign.NewDataKey(soon(t), "x"); code(err) != wire.CodeUnavailable {
		t.Errorf("a data key: %v", err)
	}
	if _, err := f.Admin.Checkpoint(soon(t)); code(err) != wire.CodeUnavailable {
		t.Errorf("a checkpoint: %v", err)
	}
	if _, err := f.Admin.Evidence(soon(t)); code(err) != wire.CodeUnavailable {
		t.Errorf("evidence: %v", err)
	}
	if _, err := f.Sign.Append(soon(t), events("one", 1, 1)); err != nil {
		t.Errorf("events need no token: %v", err)
	}
	if ids, err := f.Sign.Identities(soon(t)); err != nil || len(ids.Identities) != 11 || ids.Identities[0].Ready {
		t.Errorf("identities need no token: %v", err)
	}
	f.Fault.Order(t)
	until(t, "ready again", func() bool {
		status, err := f.Sign.Status(soon(t))
		return err == nil && status.State == "ready" && status.Keys["ds-1"] && status.Keys["sealing-1"]
	})
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	close(stop)
	wait.Wait()
	if d, r := len(f.Entries(t, audit.KindTokenDegraded)), len(f.Entries(t, audit.KindTokenRecovered)); d != 1 || r != 1 {
		t.Errorf("%d losses and %d recoveries in the log", d, r)
	}
	if len(f.Entries(t, audit.KindSignerStarted)) != 1 {
		t.Error("the signer was restarted")
	}
	open := map[int64]bool{}
	for i, e := range f.Entries(t) {
		switch e.Kind {
		case audit.KindIntent:
			open[int64(i)] = true
		case audit.KindMade, audit.KindFailed:
			delete(open, *e.Intent)
		}
	}
	if len(open) != 0 {
		t.Errorf("%d intents without outcome", len(open))
	}
}

// TestSessionsKilled is an outage that nobody notices.
func TestSessionsKilled(t *testing.T) {
	f := start(t, signertest.Options{Faults: true})
	for range 3 {
		f.Fault.Order(t, "killsessions")
		if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil), f.sdjwt(t, "cs-1", nil))); err != nil {
			t.Error(err)
		}
	}
}

// TestTokenAwayAtTheStart starts without a token, which comes later.
func TestTokenAwayAtTheStart(t *testing.T) {
	f := prepare(t, signertest.Options{Faults: true})
	before := len(f.Entries(t))
	f.Fault.Order(t, "gone 0x32")
	f.Start(t)
	f.read(t)
	status, err := f.Sign.Status(soon(t))
	if err != nil || status.State != "degraded" || status.Class != "token-gone" || status.Keys["ds-1"] {
		t.Errorf("%+v, %v", status, err)
	}
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); code(err) != wire.CodeUnavailable {
		t.Errorf("%v", err)
	}
	f.Fault.Order(t)
	until(t, "ready", func() bool {
		status, err := f.Sign.Status(soon(t))
		return err == nil && status.State == "ready" && status.Keys["ds-1"]
	})
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
		t.Error(err)
	}
	want := []string{"signer.started", "token.degraded token-gone", "token.recovered", "signature.intent", "signature.made"}
	if got := reasons(t, f, before); !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

// TestStopWhileSeeking ends a daemon that still looks for its token.
func TestStopWhileSeeking(t *testing.T) {
	f := prepare(t, signertest.Options{Faults: true})
	f.Fault.Order(t, "gone 0x32")
	f.Start(t)
	if err := f.Stop(t); err != nil {
		t.Error(err)
	}
	f.Fault.Order(t)
}

// TestRefusedPIN does not start with a wrong PIN, and says so with a status of
// its own; when the PIN is refused after an outage the daemon ends.
func TestRefusedPIN(t *testing.T) {
	f := start(t, signertest.Options{Faults: true})
	write := func(pin string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.Dir, "pin"), []byte(pin), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("000000")
	f.Fault.Order(t, "killsessions")
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err == nil {
		t.Error("signed after the login was lost")
	}
	err := f.Wait(t)
	if signer.ExitStatus(err) != daemon.ExitPIN || strings.Contains(err.Error(), "000000") {
		t.Errorf("%v, status %d", err, signer.ExitStatus(err))
	}
	if err := f.TryStart(t); signer.ExitStatus(err) != daemon.ExitPIN {
		t.Errorf("%v", err)
	}
	write(hsmtest.PIN)
	f.Start(t)
}

// TestMissingKey takes a key out of the token: its absence is an error, never a
// reason to make another (promise P6).
func TestMissingKey(t *testing.T) {
	f := prepare(t, signertest.Options{})
	f.Start(t)
	f.read(t)
	evidence, err := f.Admin.Evidence(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	ref := keyRef(t, evidence.JSON, "did-1")
	if err := f.Stop(t); err != nil {
		t.Fatal(err)
	}
	labels := func(token *hsm.Token) int {
		t.Helper()
		all, err := token.Labels()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	var before int
	withToken(t, f, func(token *hsm.Token) {
		before = labels(token)
		if err := token.Destroy(soon(t), ref); err != nil {
			t.Fatal(err)
		}
	})
	if err := f.TryStart(t); hsm.ClassOf(err) != hsm.ClassKeyMissing || !strings.Contains(err.Error(), "did-1") {
		t.Errorf("%v, want that did-1 is missing", err)
	}
	withToken(t, f, func(token *hsm.Token) {
		if after := labels(token); after != before-2 {
			t.Errorf("%d objects were %d: something was made, or more was destroyed", after, before)
		}
	})
}

// TestBusy floods a slow token: the queue is bounded, and who does not fit is
// told at once, without an entry in the log.
func TestBusy(t *testing.T) {
	f := start(t, signertest.Options{Faults: true, Configure: func(c *config.Config) { c.Signer.Sessions, c.Signer.Queue = 1, 2 }})
	f.Fault.Order(t, "latency C_Sign 500000")
	const callers = 12
	var items []wire.SignItem
	for range callers {
		items = append(items, f.mdoc(t, "ds-1", nil))
	}
	results := make(chan error, callers)
	for _, it := range items {
		go func() {
			_, err := f.Sign.Sign(soon(t), request(it))
			results <- err
		}()
	}
	signed, busy := 0, 0
	for range callers {
		err := <-results
		switch e := wire.AsError(err); {
		case err == nil:
			signed++
		case e != nil && e.Code == wire.CodeBusy && e.RetryAfter > 0:
			busy++
		default:
			t.Error(err)
		}
	}
	if signed < 3 || busy == 0 {
		t.Errorf("%d signed, %d busy: three fit at once", signed, busy)
	}
	if n := len(f.Entries(t, audit.KindIntent)); n != signed {
		t.Errorf("%d intents for %d signatures", n, signed)
	}
	if status, err := f.Sign.Status(soon(t)); err != nil || status.Queue != 0 || status.QueueLimit != 2 {
		t.Errorf("%+v, %v", status, err)
	}
}

// TestHungToken has a call that stays out: its caller is let go, the log has the
// failure, and the daemon goes on when the call returns.
func TestHungToken(t *testing.T) {
	f := start(t, signertest.Options{Faults: true, Configure: func(c *config.Config) {
		c.Signer.OperationTimeout = config.Duration(300 * time.Millisecond)
	}})
	before := len(f.Entries(t))
	f.Fault.Order(t, "hang C_Sign 2")
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); code(err) != wire.CodeUnavailable || wire.AsError(err).RetryAfter == 0 {
		t.Errorf("%v", err)
	}
	if got, want := reasons(t, f, before), []string{"signature.intent", "signature.failed hung"}; !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
	f.Fault.Order(t)
	until(t, "signing again", func() bool {
		_, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil)))
		return err == nil
	})
}

// TestTwoCallsOfTheModule counts what one signature costs the token.
func TestTwoCallsOfTheModule(t *testing.T) {
	f := start(t, signertest.Options{Faults: true, Configure: rarely})
	sign := func(n int) {
		t.Helper()
		for range n {
			if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() (total int) {
		t.Helper()
		signCalls(t, f)
		for _, n := range f.Fault.Calls(t) {
			total += n
		}
		return total
	}
	sign(3) // sessions are open
	before := count()
	const n = 50
	sign(n)
	if calls := count() - before; calls != 2*(n+1) {
		t.Errorf("%d calls of the module for %d signatures: two each", calls, n+1)
	}
}

// TestWrongToken is configured for a token that is not there.
func TestWrongToken(t *testing.T) {
	f := prepare(t, signertest.Options{})
	label := f.Config.Signer.TokenLabel
	f.Config.Signer.TokenLabel = "another"
	f.Start(t) // it may come
	if status, err := f.Sign.Status(soon(t)); err != nil || status.State != "degraded" {
		t.Errorf("%+v, %v", status, err)
	}
	if err := f.Stop(t); err != nil {
		t.Error(err)
	}
	f.Config.Signer.TokenLabel, f.Config.Signer.PIN = label, filepath.Join(f.Dir, "none")
	if err := f.TryStart(t); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "signer.pin") {
		t.Errorf("no PIN: %v", err)
	}
}

// TestProbes finds a key that does not work without anybody asking for it, and
// that it works again; no checkpoint is made meanwhile that nobody could verify.
func TestProbes(t *testing.T) {
	f := start(t, signertest.Options{Faults: true, Configure: func(c *config.Config) {
		c.Signer.ProbeInterval, c.Signer.CheckpointInterval = config.Duration(100*time.Millisecond), config.Duration(100*time.Millisecond)
	}})
	generation := func() uint64 {
		all, err := f.Admin.Identities(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		return all.Generation
	}
	before := generation()
	f.Fault.Order(t, "corrupt 1000000")
	if _, err := f.Sign.Append(soon(t), events("one", 1, 1)); err != nil {
		t.Fatal(err)
	}
	until(t, "keys that are not ready", func() bool {
		status, err := f.Sign.Status(soon(t))
		return err == nil && !status.Keys["ds-1"] && !status.Keys["checkpoint-1"] && status.Keys["sealing-1"] && status.State == "ready"
	})
	if status, err := f.Sign.Status(soon(t)); err != nil || status.CheckpointSize == status.LogSize {
		t.Errorf("%+v, %v: a checkpoint by a key that does not sign", status, err)
	}
	until(t, "a new generation of the list", func() bool { return generation() > before })
	during := generation()
	f.Fault.Order(t)
	until(t, "all ready, and a checkpoint", func() bool {
		status, err := f.Sign.Status(soon(t))
		return err == nil && status.Keys["ds-1"] && status.Keys["checkpoint-1"] && status.CheckpointSize == status.LogSize
	})
	until(t, "another one", func() bool { return generation() > during })
}

// TestBusyIsNotBroken has probes wait behind more work than the token can do:
// its keys stay ready.
func TestBusyIsNotBroken(t *testing.T) {
	f := start(t, signertest.Options{Faults: true, Configure: func(c *config.Config) {
		c.Signer.Sessions, c.Signer.ProbeInterval, c.Signer.OperationTimeout = 1, config.Duration(50*time.Millisecond), config.Duration(600*time.Millisecond)
	}})
	f.Fault.Order(t, "latency C_Sign 200000")
	var late atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		in := request(f.mdoc(t, "ds-1", nil))
		wait.Go(func() {
			for late.Load() < 12 {
				if _, err := f.Sign.Sign(soon(t), in); code(err) == wire.CodeBusy {
					late.Add(1)
				}
			}
		})
	}
	wait.Wait()
	status, err := f.Sign.Status(soon(t))
	if err != nil || status.State != "ready" {
		t.Errorf("%+v, %v", status, err)
	}
	for label, ready := range status.Keys {
		if !ready {
			t.Errorf("%s is not ready: the token had much to do, that is all", label)
		}
	}
}

// TestPINRefusedWhileSeeking finds, when the token comes, that the PIN is wrong.
func TestPINRefusedWhileSeeking(t *testing.T) {
	f := prepare(t, signertest.Options{Faults: true})
	f.Fault.Order(t, "gone 0x32")
	f.Start(t)
	if err := os.WriteFile(filepath.Join(f.Dir, "pin"), []byte("000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Fault.Order(t)
	if err := f.Wait(t); signer.ExitStatus(err) != daemon.ExitPIN {
		t.Errorf("%v", err)
	}
}
