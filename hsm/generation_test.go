package hsm

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// patient opens a token whose search for a lost token waits for the test.
func patient(t *testing.T) (*Token, *hsmtest.Fault, string) {
	t.Helper()
	token, fault, key := faulty(t, nil)
	token.pauses.first = time.Hour
	return token, fault, key
}

// TestPausesOfTheSearch makes the attempts by hand: the pauses double up to a
// limit, and begin again after the token was back.
func TestPausesOfTheSearch(t *testing.T) {
	token, fault, key := patient(t)
	fault.Order(t, "gone 0x32")
	refuses(t, token, key, ClassTokenGone)
	pause := 100 * time.Millisecond
	var got []time.Duration
	for range 8 {
		next, done := token.seekOnce(pause)
		if done {
			t.Fatal("the search ended without a token")
		}
		got = append(got, next)
		pause = next
	}
	want := []time.Duration{200, 400, 800, 1600, 3200, 5000, 5000, 5000}
	for i := range want {
		if got[i] != want[i]*time.Millisecond {
			t.Fatalf("pauses %v", got)
		}
	}
	fault.Order(t)
	if _, done := token.seekOnce(pause); !done || !token.State().Ready {
		t.Error("the token is back and was not found")
	}
	sign(t, token, key)
}

// TestLoginsAreNotSpent lets logins fail without a word of the PIN, as a TPM
// answers that lost its power: tries are few and far between, and end.
func TestLoginsAreNotSpent(t *testing.T) {
	token, fault, key := patient(t)
	fault.Order(t, "killsessions", "fail C_Login 0x5 1000 0")
	refuses(t, token, key, ClassSessionLost)
	token.life.Lock()
	logins := token.logins
	token.life.Unlock()
	if logins != 1 {
		t.Fatalf("%d logins at once", logins)
	}
	var got []time.Duration
	for range 2 * loginLimit {
		next, done := token.seekOnce(time.Millisecond)
		if done {
			break
		}
		got = append(got, next/usualPauses.login)
	}
	if want := []time.Duration{2, 4, 8, 16, 32, 64, 128}; !slices.Equal(got, want) {
		t.Errorf("pauses of %d times %v, want %d", got, usualPauses.login, want)
	}
	if c := token.State().Class; c != ClassPINRefused {
		t.Errorf("in the end the class is %q", c)
	}
	token.Close()
	if n := fault.Calls(t)["C_Login"]; n != 1+loginLimit {
		t.Errorf("%d logins, want %d after the first", n, loginLimit)
	}
}

// TestTheLastTryIsNotSpent: a token that says its PIN is locked or has one try
// left is not logged in to, and after a failed login one that counted it is not.
func TestTheLastTryIsNotSpent(t *testing.T) {
	const countLow, final, locked = 0x10000, 0x20000, 0x40000
	for _, c := range []struct {
		flags  uint
		failed int
		want   Class
	}{
		{0, 0, ""}, {countLow, 0, ""}, {final, 0, ClassPINRefused}, {locked, 0, ClassPINRefused},
		{countLow, 1, ClassPINRefused}, {0, 1, ""}, {0, loginLimit, ClassPINRefused},
	} {
		token := openToken(t, config(t))
		asked := 0
		token.cfg.PIN = func() ([]byte, error) { asked++; return pin() }
		if err := token.gen.ctx.Logout(token.gen.keeper); err != nil {
			t.Fatal(err)
		}
		token.gen.info.Flags, token.logins = c.flags, c.failed
		wantClass(t, token.login(token.gen), c.want)
		if want := c.want == ""; (asked == 1) != want {
			t.Errorf("flags %#x after %d failed logins: the PIN was asked for %d times", c.flags, c.failed, asked)
		}
		token.Close()
	}
}

// TestAnUnsteadyTokenIsLeftInPeace loses the sessions again and again: after
// some generations in a row that did not last, the token is opened by the search
// with its pauses, not by every caller at once.
func TestAnUnsteadyTokenIsLeftInPeace(t *testing.T) {
	token, fault, key := patient(t)
	for range unsteady - 1 {
		fault.Order(t, "killsessions")
		sign(t, token, key)
	}
	fault.Order(t, "killsessions")
	refuses(t, token, key, ClassSessionLost)
	if s := token.State(); s.Ready || s.Class != ClassSessionLost || s.Generation != unsteady {
		t.Errorf("%+v", s)
	}
	calls := func() int { return token.State().Generation }
	before := calls()
	for range 10 {
		refuses(t, token, key, ClassSessionLost)
	}
	if calls() != before {
		t.Error("callers opened it all the same")
	}
	fault.Order(t)
	if _, done := token.seekOnce(time.Millisecond); !done {
		t.Error("the search did not find it")
	}
	sign(t, token, key)
	// Generations that last are not counted: the next loss is healed at once.
	token.life.Lock()
	token.born = token.born.Add(-2 * token.pauses.brief)
	token.life.Unlock()
	fault.Order(t, "killsessions")
	sign(t, token, key)
}

// TestOneRenewalForManyCallers: of those who saw a generation fail, the first
// opens a new one, the others find it.
func TestOneRenewalForManyCallers(t *testing.T) {
	token, _, key := faulty(t, nil)
	failed := token.gen
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if err := token.renew(failed); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if s := token.State(); s.Generation != 2 {
		t.Errorf("%+v", s)
	}
	sign(t, token, key)
}

// TestTheSearchEndsWithClose closes a token that is being sought.
func TestTheSearchEndsWithClose(t *testing.T) {
	var n notices
	token, fault, key := faulty(t, func(c *Config) { c.Notify = n.add })
	token.pauses.first, token.pauses.last = time.Millisecond, time.Millisecond
	fault.Order(t, "gone 0x32")
	refuses(t, token, key, ClassTokenGone)
	token.Close()
	fault.Order(t)
	if _, done := token.seekOnce(time.Millisecond); !done {
		t.Error("a closed token is sought")
	}
	if s := token.State(); s.Ready || s.Class != ClassClosed {
		t.Errorf("%+v", s)
	}
	if seen := n.all(); seen[len(seen)-1] != ClassTokenGone {
		t.Errorf("the owner was told %q", seen)
	}
	token.Close() // and once more is no harm
}

// TestAKeyThatDoesNotComeBack: the token is there again without the key. It is
// not ready, it is sought on, and it is ready when the key is there.
func TestAKeyThatDoesNotComeBack(t *testing.T) {
	token, fault, key := patient(t)
	record := generateKey(t, token, newLabel(), issuance.ES256)
	token.life.Lock()
	ref := token.refs[record.Label]
	ref.ID = []byte("elsewhere")
	token.refs[record.Label] = ref
	token.life.Unlock()
	fault.Order(t, "killsessions")
	refuses(t, token, key, ClassSessionLost)
	if s := token.State(); s.Ready || s.Class != ClassKeyMissing {
		t.Fatalf("%+v", s)
	}
	if _, done := token.seekOnce(time.Millisecond); done {
		t.Fatal("the search gave up")
	}
	token.life.Lock()
	token.refs[record.Label] = record.KeyRef
	token.life.Unlock()
	if _, done := token.seekOnce(time.Millisecond); !done {
		t.Error("the key is back and the token is not")
	}
	sign(t, token, record.Label)
}

// TestAnUnsafeKeyStopsTheToken: a key that is found unsafe in a new generation is
// not used, and not looked at again.
func TestAnUnsafeKeyStopsTheToken(t *testing.T) {
	token, fault, key := patient(t)
	weak := plantWith(t, token, newLabel(), map[uint]any{pkcs11.CKA_EXTRACTABLE: true})
	token.life.Lock()
	token.refs[weak.Label] = weak
	token.life.Unlock()
	fault.Order(t, "killsessions")
	refuses(t, token, key, ClassSessionLost)
	refuses(t, token, key, ClassKeyUnsafe)
	token.life.Lock()
	defer token.life.Unlock()
	if token.seeking {
		t.Error("the token is still sought")
	}
}

// TestThePINIsReadAndWiped: the PIN is asked for once a login, and no copy of
// the bytes is left with who gave them.
func TestThePINIsReadAndWiped(t *testing.T) {
	var given [][]byte
	cfg := config(t)
	cfg.PIN = func() ([]byte, error) {
		given = append(given, []byte(hsmtest.PIN))
		return given[len(given)-1], nil
	}
	token := openToken(t, cfg)
	if err := token.renew(token.gen); err != nil {
		t.Fatal(err)
	}
	if len(given) != 2 {
		t.Errorf("the PIN was asked for %d times", len(given))
	}
	for _, b := range given {
		if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			t.Error("the PIN was not wiped")
		}
	}
	// A PIN that cannot be read stops nothing for good: its file may come back.
	token.pauses.first = time.Hour
	token.cfg.PIN = func() ([]byte, error) { return nil, os.ErrNotExist }
	err := token.renew(token.gen)
	wantClass(t, err, ClassRefused)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
	token.cfg.PIN = func() ([]byte, error) { return nil, nil }
	_, done := token.seekOnce(time.Millisecond)
	if done || token.State().Class != ClassRefused {
		t.Errorf("an empty PIN: %+v", token.State())
	}
	token.cfg.PIN = pin
	if _, done := token.seekOnce(time.Millisecond); !done {
		t.Error("the PIN is back and the token is not")
	}
	if err := token.Load(context.Background(), nil); err != nil {
		t.Error(err)
	}
}
