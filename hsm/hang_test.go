package hsm

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"chancery/hsm/hsmtest"
)

// TestAHungCallIsReported lets one call stay out past its time: its caller is
// let go, the state says so, the owner is told once, and when the call does come
// back nothing is left of it.
func TestAHungCallIsReported(t *testing.T) {
	hung := make(chan string, 100)
	token, fault, key := faulty(t, func(c *Config) {
		c.CallTimeout, c.HungAfter, c.Sessions = 300*time.Millisecond, 300*time.Millisecond, 1
		c.OnHung = func(op string) { hung <- op }
	})
	fault.Order(t, "hang C_Sign 2")
	refuses(t, token, key, ClassHung)
	until(t, "the state is hung", func() bool { return token.State().Class == ClassHung })
	if token.State().Ready {
		t.Error("ready behind a hung call")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := token.Sign(ctx, key, []byte("m"))
	wantClass(t, err, ClassBusy) // the hung call keeps its place
	until(t, "the call is back", func() bool { return token.State().Ready })
	until(t, "signatures go on", func() bool { _, err := token.Sign(context.Background(), key, nil); return err == nil })
	token.Close()
	close(hung)
	reports := 0
	for op := range hung { // a slow machine may have more that took so long
		if op == "C_Sign" {
			reports++
		}
	}
	if reports != 1 {
		t.Errorf("the owner was told %d times", reports)
	}
}

// TestAHungCallKeepsItsPlace: callers that were let go behind hung calls do not
// make room for more.
func TestAHungCallKeepsItsPlace(t *testing.T) {
	token, fault, key := faulty(t, func(c *Config) {
		c.CallTimeout, c.Sessions, c.Queue = 300*time.Millisecond, 1, 1
	})
	fault.Order(t, "hang C_Sign 3")
	refuses(t, token, key, ClassHung)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := token.Sign(ctx, key, []byte("m"))
		done <- err
	}()
	until(t, "one waits", func() bool { return token.State().Waiting == 1 })
	refuses(t, token, key, ClassBusy) // one out, one waiting: that is all
	cancel()
	wantClass(t, <-done, ClassBusy)
}

// TestAHungCallEndsTheProcess is what happens without Config.OnHung: the process
// ends with status 70 and says which call it was, for a manager to start it again.
func TestAHungCallEndsTheProcess(t *testing.T) {
	here, out, err := hsmtest.Child(t)
	if here {
		token, fault, key := faulty(t, func(c *Config) { c.CallTimeout, c.HungAfter = 500*time.Millisecond, 500*time.Millisecond })
		fault.Order(t, "hang C_Sign 60")
		refuses(t, token, key, ClassHung)
		token.Close() // hangs behind it, and must not keep the process alive
		return
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 70 {
		t.Errorf("the process ended with %v, want status 70", err)
	}
	if !strings.Contains(out, "token: C_Sign does not return") {
		t.Errorf("it said:\n%s", out)
	}
}

// TestACrashEndsTheProcess: a module that crashes takes the process with it, and
// nothing here hides that.
func TestACrashEndsTheProcess(t *testing.T) {
	here, out, err := hsmtest.Child(t)
	if here {
		token, fault, key := faulty(t, nil)
		fault.Order(t, "crash C_Sign")
		refuses(t, token, key, "no class")
		return
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Success() || !strings.Contains(out, "SIGSEGV") && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSEGV {
		t.Errorf("the process ended with %v:\n%s", err, out)
	}
}

// TestACallerIsLetGo ends the caller's time while its call is out.
func TestACallerIsLetGo(t *testing.T) {
	token, fault, key := faulty(t, nil)
	fault.Order(t, "latency C_Sign 1000000")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := token.Sign(ctx, key, []byte("m"))
		done <- err
	}()
	callIsOut(t, token)
	cancel()
	err := <-done
	wantClass(t, err, ClassHung)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the cause is lost: %v", err)
	}
	fault.Order(t)
	sign(t, token, key)
}

// TestCloseWaitsForWhatIsOut: C_Finalize beside a call in flight would crash.
func TestCloseWaitsForWhatIsOut(t *testing.T) {
	token, fault, key := faulty(t, nil)
	fault.Order(t, "latency C_Sign 1000000")
	done := make(chan error, 1)
	go func() {
		_, err := token.Sign(context.Background(), key, []byte("m"))
		done <- err
	}()
	callIsOut(t, token)
	token.Close()
	if err := <-done; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if n := fault.Calls(t)["overlaps"]; n != 0 {
		t.Errorf("%d calls ran beside one that must be alone", n)
	}
}

// TestStateNeverWaits asks while the token is being opened behind a hung call.
func TestStateNeverWaits(t *testing.T) {
	token, fault, key := faulty(t, func(c *Config) { c.CallTimeout = 300 * time.Millisecond })
	fault.Order(t, "killsessions", "hang C_Login 2")
	refuses(t, token, key, ClassHung)
	until(t, "the state is hung", func() bool { s := token.State(); return !s.Ready && s.Class == ClassHung })
	until(t, "it signs", func() bool { _, err := token.Sign(context.Background(), key, nil); return err == nil })
}
