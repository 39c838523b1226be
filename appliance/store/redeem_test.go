package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chancery/appliance/database"
)

// together calls fn from n goroutines that start at one moment and returns the
// errors.
func together(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wait.Wait()
	return errs
}

// race is together while the writer is held for a moment, so that the callers
// have read what they read before any of them has changed it.
func (f *fixture) race(n int, fn func(i int) error) (errs []error) {
	f.t.Helper()
	held, release := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := f.db.Write(context.Background(), func(*database.Tx) error { close(held); <-release; return nil }); err != nil {
			f.t.Error(err)
		}
	})
	<-held
	time.AfterFunc(30*time.Millisecond, func() { close(release) })
	errs = together(n, fn)
	wait.Wait()
	return errs
}

// count tells how many errors are each of the targets; nil counts successes.
// Anything else fails the test.
func count(t testing.TB, errs []error, targets ...error) map[error]int {
	t.Helper()
	counts := map[error]int{}
	for _, err := range errs {
		i := slices.IndexFunc(targets, func(target error) bool { return errors.Is(err, target) })
		if i < 0 {
			t.Errorf("unexpected: %v", err)
			continue
		}
		counts[targets[i]]++
	}
	return counts
}

// killed opens a copy of the files as they are at this instant, as they would be
// found after a kill: what is not in them was not durable. The copy knows the
// same audit log.
func (f *fixture) killed() *fixture {
	f.t.Helper()
	k := &fixture{t: f.t, path: filepath.Join(folder(f.t), "killed.db"), clock: f.clock, wrapper: f.wrapper, log: f.log, options: f.options}
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(f.path + suffix)
		if err == nil {
			err = os.WriteFile(k.path+suffix, data, 0o600)
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	k.start()
	f.t.Cleanup(func() { k.Store.Close() })
	return k
}

// TestOneOfManyWallets has 64 wallets race for one code (promise P4): one gets a
// token, the others learn nothing, and the alarm is raised once at most.
func TestOneOfManyWallets(t *testing.T) {
	f := open(t)
	for _, txCode := range []int{0, 6} {
		c := f.create(txCode)
		var mu sync.Mutex
		var tokens []string
		errs := f.race(64, func(int) error {
			token, err := f.Redeem(context.Background(), redemption(c))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				tokens = append(tokens, token.Token)
			} else if token.Token != "" {
				t.Error("a token beside an error")
			}
			return err
		})
		if n := count(t, errs, nil, ErrCode); n[nil] != 1 || len(tokens) != 1 {
			t.Fatalf("%d wallets won", n[nil])
		}
		f.issue(tokens[0], "pid") // the losers have not taken it away
		f.drain()
		if kinds := f.log.kinds(c.ID); kinds["offer.redeemed"] != 1 || kinds["offer.replayed"] > 1 {
			t.Errorf("events: %v", kinds)
		}
	}
}

// TestWrongCodesRace has more guesses race than an offer bears: exactly the cap
// is counted, the offer is locked once and shredded, and the right code is dead.
func TestWrongCodesRace(t *testing.T) {
	f := open(t)
	for _, guesses := range []int{1, testAttempts - 1, testAttempts, 64} {
		c := f.create(6)
		r := redemption(c)
		r.TransactionCode = wrong(c.TransactionCode)
		count(t, f.race(guesses, func(int) error {
			_, err := f.Redeem(context.Background(), r)
			return err
		}), ErrTransactionCodeWrong, ErrCode)
		o := f.offer(c.ID)
		if want := max(testAttempts-guesses, 0); o.AttemptsLeft != want {
			t.Errorf("%d guesses leave %d attempts, want %d", guesses, o.AttemptsLeft, want)
		}
		_, err := f.Redeem(context.Background(), redemption(c))
		if locked := guesses >= testAttempts; locked {
			f.wantState(c.ID, Locked)
			f.wantShredded(c.ID, true)
			if !errors.Is(err, ErrCode) {
				t.Errorf("the right code after %d wrong ones: %v", guesses, err)
			}
		} else if err != nil {
			t.Errorf("the right code after %d wrong ones: %v", guesses, err)
		}
	}
	f.drain()
	f.wantHistories()
}

// TestRightAmongWrong hides the right code among guesses that race. However it
// comes out, it is one or the other: a token after fewer wrong guesses than the
// cap, or a locked offer.
func TestRightAmongWrong(t *testing.T) {
	f := open(t)
	won := 0
	for round := range 30 {
		c := f.create(6)
		start := together
		if round%2 == 0 {
			start = f.race
		}
		errs := start(16, func(i int) error {
			r := redemption(c)
			if i != 8 {
				r.TransactionCode = wrong(c.TransactionCode)
			}
			_, err := f.Redeem(context.Background(), r)
			return err
		})
		n := count(t, errs, nil, ErrTransactionCodeWrong, ErrCode)
		switch o := f.offer(c.ID); {
		case n[nil] == 1 && errs[8] == nil && o.State == Redeemed && o.AttemptsLeft >= 1:
			won++
		case n[nil] == 0 && o.State == Locked && o.AttemptsLeft == 0:
		default:
			t.Errorf("%d won, the offer is %s with %d attempts left", n[nil], o.State, o.AttemptsLeft)
		}
	}
	t.Logf("the right code won %d of 30 races", won)
	f.drain()
	f.wantHistories()
}

// TestDurableBeforeTheAnswer kills the process, so to speak, right after each
// answer: what was answered is in the files.
func TestDurableBeforeTheAnswer(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	c := f.create(6)
	k := f.killed()
	k.drain()
	k.wantState(c.ID, Made)
	r := redemption(c)
	r.TransactionCode = wrong(c.TransactionCode)
	for left := testAttempts - 1; left > 0; left-- {
		if _, err := f.Redeem(ctx, r); !errors.Is(err, ErrTransactionCodeWrong) {
			t.Fatal(err)
		}
		if got := f.killed().offer(c.ID).AttemptsLeft; got != left {
			t.Errorf("a kill after the answer leaves %d attempts, want %d", got, left)
		}
	}
	token := f.redeem(c)
	k = f.killed()
	k.drain()
	if _, err := k.Redeem(ctx, redemption(c)); !errors.Is(err, ErrCode) {
		t.Errorf("a kill after the token response gives the code back: %v", err)
	}
	// The wallet that has the token asks again, and again after another kill.
	for range 2 {
		g := k.grant(token)
		if claims, err := g.Claims(ctx); err != nil || string(claims) != claimsText {
			t.Errorf("claims after a kill: %v", err)
		}
		g.Release()
		k = k.killed()
		k.drain()
	}
	k.issue(token, "pid")
	k = k.killed()
	k.drain()
	k.wantState(c.ID, Issued)
	if g := k.grant(token); g.Allows("pid") || !g.Done("pid") {
		t.Error("a kill after the credential was recorded lets it be made again")
	}
}

// TestNothingIsSpent holds that a request which is wrong in another way than its
// transaction code costs neither the code nor an attempt.
func TestNothingIsSpent(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	with, without := f.create(6), f.create(0)
	refused := errors.New("not this scope")
	another := with.Code[:10] + strings.Repeat("A", len(with.Code)-10)
	empty := ""
	for name, test := range map[string]struct {
		r    Redemption
		want error
	}{
		"no transaction code":      {Redemption{Code: with.Code}, ErrTransactionCodeMissing},
		"one that is not expected": {Redemption{Code: without.Code, TransactionCode: &with.TransactionCode}, ErrTransactionCodeUnexpected},
		"an empty one":             {Redemption{Code: without.Code, TransactionCode: &empty}, ErrTransactionCodeUnexpected},
		"the row with another secret, a wrong transaction code": {Redemption{Code: another, TransactionCode: wrong(with.TransactionCode)}, ErrCode},
		"the URI's secret as the code":                          {Redemption{Code: with.URISecret, TransactionCode: &with.TransactionCode}, ErrCode},
		"no code":                                               {Redemption{}, ErrCode},
		"a refusal by Select":                                   {Redemption{Code: without.Code, Select: func([]string) ([]string, bool, error) { return nil, false, refused }}, refused},
		"a refusal by Select after the transaction code": {Redemption{Code: with.Code, TransactionCode: &with.TransactionCode,
			Select: func([]string) ([]string, bool, error) { return nil, false, refused }}, refused},
		"what was not offered": {Redemption{Code: without.Code, Select: func([]string) ([]string, bool, error) { return []string{"mdl"}, false, nil }}, ErrNotGranted},
		"nothing":              {Redemption{Code: without.Code, Select: func([]string) ([]string, bool, error) { return nil, false, nil }}, ErrNotGranted},
	} {
		test.r.Lifetime = lasting(testLifetime)
		if _, err := f.Redeem(ctx, test.r); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.Redeem(gone, redemption(with)); !errors.Is(err, context.Canceled) {
		t.Errorf("a wallet that has left: %v", err)
	}
	for _, c := range []Created{with, without} {
		if o := f.offer(c.ID); o.State != Made || o.AttemptsLeft != c.AttemptsLeft {
			t.Errorf("the offer is %s with %d attempts left", o.State, o.AttemptsLeft)
		}
		f.redeem(c)
	}
}

// TestSelect grants a part of an offer.
func TestSelect(t *testing.T) {
	f := open(t)
	c := f.create(0, "pid", "mdl", "permit")
	var offered []string
	token, err := f.Redeem(context.Background(), Redemption{Code: c.Code, Lifetime: lasting(testLifetime), Client: "wallet.example",
		Select: func(all []string) ([]string, bool, error) { offered = all; return []string{"permit", "pid"}, true, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(offered) != "[pid mdl permit]" || fmt.Sprint(token.Granted) != "[permit pid]" || token.Offer != c.ID || !token.Expires.Equal(f.clock.Now().Add(testLifetime)) {
		t.Errorf("offered %v, got %+v", offered, token)
	}
	g := f.grant(token.Token)
	if !g.Identified || g.Client != "wallet.example" || g.Offer != c.ID || fmt.Sprint(g.Configurations) != "[pid mdl permit]" {
		t.Errorf("%+v", g)
	}
	check := func(g *Grant, want string) {
		t.Helper()
		got := ""
		for _, id := range []string{"pid", "mdl", "permit", "unknown"} {
			got += fmt.Sprintf("%s:%t,%t,%t ", id, g.Covers(id), g.Allows(id), g.Done(id))
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("covers, allows, done: %s, want %s", got, want)
		}
	}
	check(g, "pid:true,true,false mdl:false,false,false permit:true,true,false unknown:false,false,false")
	for _, id := range []string{"mdl", "unknown"} {
		if err := g.issued(context.Background(), id, []Credential{credential(id)}); !errors.Is(err, ErrNotGranted) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := g.issued(context.Background(), "pid", []Credential{credential("pid")}); err != nil {
		t.Fatal(err)
	}
	g.Release()
	g = f.grant(token.Token)
	check(g, "pid:true,false,true mdl:false,false,false permit:true,true,false unknown:false,false,false")
	if err := g.issued(context.Background(), "pid", []Credential{credential("pid")}); !errors.Is(err, ErrNotGranted) {
		t.Errorf("a second time: %v", err)
	}
	g.Release()
	f.issue(token.Token, "permit")
	f.wantState(c.ID, Issued)
}

// TestTheInstantOfExpiry holds that code and token are good before their time
// and dead at it, whether or not the sweeper has come.
func TestTheInstantOfExpiry(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	early, late := f.create(0), f.create(0)
	f.clock.pass(testExpiry - time.Millisecond)
	token := f.redeem(early)
	f.clock.pass(time.Millisecond)
	if _, err := f.Redeem(ctx, redemption(late)); !errors.Is(err, ErrCode) {
		t.Errorf("a code at its expiry: %v", err)
	}
	if _, _, err := f.Fetch(ctx, late.URISecret); !errors.Is(err, ErrState) {
		t.Errorf("an offer at its expiry: %v", err)
	}
	f.wantState(late.ID, Expired)
	f.clock.pass(testLifetime - 2*time.Millisecond)
	f.sweep()
	f.grant(token).Release()
	f.clock.pass(time.Millisecond)
	if _, err := f.Grant(ctx, token); !errors.Is(err, ErrToken) {
		t.Errorf("a token at its expiry: %v", err)
	}
	f.wantState(early.ID, Redeemed)
	f.sweep()
	f.wantState(early.ID, Expired)
}

// TestReplays holds that a spent code which comes again raises one alarm, and
// that only who knows the code can raise it.
func TestReplays(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	replays := func(c Created) int {
		f.drain()
		return f.log.kinds(c.ID)["offer.replayed"]
	}
	spent, cancelled := f.create(0), f.create(0)
	f.redeem(spent)
	if err := f.CancelOffer(ctx, cancelled.ID, "registrar"); err != nil {
		t.Fatal(err)
	}
	guess := Redemption{Code: spent.Code[:8] + strings.Repeat("A", 32)}
	for _, r := range []Redemption{guess, redemption(cancelled)} {
		if _, err := f.Redeem(ctx, r); !errors.Is(err, ErrCode) {
			t.Error(err)
		}
	}
	if n := replays(spent) + replays(cancelled); n != 0 {
		t.Errorf("%d alarms without a replay", n)
	}
	count(t, f.race(8, func(int) error {
		_, err := f.Redeem(ctx, redemption(spent))
		return err
	}), ErrCode)
	if n := replays(spent); n != 1 {
		t.Errorf("%d alarms, want 1", n)
	}
}

// TestTheUpdateDecides changes one thing about an offer between what a redemption
// reads and what it writes: each is a condition of the write.
func TestTheUpdateDecides(t *testing.T) {
	f := open(t)
	for _, change := range []string{"state = 2", "state = 5", "code_hash = zeroblob(32)", "tx_mac = zeroblob(32)", "tx_mac = NULL", "attempts_left = 0", "expires_at = 1"} {
		c := f.create(6)
		r := redemption(c)
		r.Select = func(offered []string) ([]string, bool, error) {
			f.tamper("UPDATE offers SET " + change)
			return offered, false, nil
		}
		if _, err := f.Redeem(context.Background(), r); !errors.Is(err, ErrCode) {
			t.Errorf("%s: redeemed with %v", change, err)
		}
		if n := f.ask("SELECT count(*) FROM offers WHERE token_hash IS NOT NULL"); n != 0 {
			t.Errorf("%s: a token was recorded", change)
		}
	}
	c := f.create(0)
	r := redemption(c)
	r.Select = func(offered []string) ([]string, bool, error) {
		if _, err := f.Redeem(context.Background(), redemption(c)); err != nil {
			t.Error(err)
		}
		return offered, false, nil
	}
	if _, err := f.Redeem(context.Background(), r); !errors.Is(err, ErrCode) {
		t.Errorf("redeemed by two: %v", err)
	}
}

// TestAMACOfAnotherOffer holds that a transaction code belongs to its offer.
func TestAMACOfAnotherOffer(t *testing.T) {
	f := open(t)
	mine, theirs := f.create(6), f.create(6)
	f.tamper("UPDATE offers SET tx_mac = (SELECT tx_mac FROM offers WHERE id = 2)")
	r := redemption(mine)
	r.TransactionCode = &theirs.TransactionCode
	if _, err := f.Redeem(context.Background(), r); !errors.Is(err, ErrTransactionCodeWrong) {
		t.Errorf("redeemed with another offer's code: %v", err)
	}
	f.redeem(theirs)
}

// TestARowWithoutItsMAC holds that somebody who deletes a transaction code's MAC
// from the file does not get past the code.
func TestARowWithoutItsMAC(t *testing.T) {
	f := open(t)
	c := f.create(6)
	f.tamper("UPDATE offers SET tx_mac = NULL")
	if _, err := f.Redeem(context.Background(), redemption(c)); !errors.Is(err, ErrTransactionCodeWrong) {
		t.Errorf("redeemed: %v", err)
	}
	if _, err := f.Redeem(context.Background(), Redemption{Code: c.Code, Lifetime: lasting(testLifetime)}); !errors.Is(err, ErrTransactionCodeMissing) {
		t.Errorf("redeemed without: %v", err)
	}
}
