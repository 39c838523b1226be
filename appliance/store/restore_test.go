package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRestored puts an older copy of the database in place of the newer one. The
// copy says nothing of it, the log does: what was open is cancelled, nothing is
// redeemed a second time, and events go on under another source.
func TestRestored(t *testing.T) {
	f := open(t)
	spent, redeemed, final := f.create(0), f.create(0), f.create(0)
	token := f.redeem(redeemed)
	f.issue(f.redeem(final), "pid")
	f.drain()
	all, part := f.backup(), f.backup() // the second with an event that is not sent yet
	part.start()
	if err := part.append("appliance.test"); err != nil {
		t.Fatal(err)
	}
	part.Store.Close()
	if err := f.append("appliance.test"); err != nil {
		t.Fatal(err)
	}
	f.redeem(spent) // what the copies do not know
	f.issue(token, "pid")
	f.drain()
	f.wantLog()
	for _, copied := range []*fixture{all, part} {
		for source, events := range f.log.events {
			copied.log.events[source] = append([]Event{}, events...)
		}
		copied.start()
		copied.checkRestored(spent, redeemed, final, token)
		copied.Store.Close()
	}
}

// backup makes a copy, with a log of its own.
func (f *fixture) backup() *fixture {
	f.t.Helper()
	k := &fixture{t: f.t, path: filepath.Join(folder(f.t), "copy.db"), clock: f.clock, wrapper: f.wrapper, log: newAuditLog(), options: f.options}
	if err := f.Backup(context.Background(), k.path); err != nil {
		f.t.Fatal(err)
	}
	return k
}

// checkRestored uses a copy of a database that has gone on since.
func (k *fixture) checkRestored(spent, redeemed, final Created, token string) {
	t, ctx := k.t, context.Background()
	t.Helper()
	try := func(when string, want error) {
		t.Helper()
		if _, err := k.Redeem(ctx, redemption(spent)); !errors.Is(err, want) {
			t.Errorf("a code %s: %v, want %v", when, err, want)
		}
		if g, err := k.Grant(ctx, token); err == nil || want == ErrKeyAway && !errors.Is(err, ErrKeyAway) {
			t.Errorf("a token %s: %v", when, err)
			if err == nil {
				g.Release()
			}
		}
	}
	k.log.before = func() error { return errAway }
	if err := k.Drain(ctx, k.log.send); !errors.Is(err, errAway) {
		t.Error(err)
	}
	try("before the log was asked", ErrKeyAway)
	mine := k.create(0) // offers can be made meanwhile, and redeemed
	k.redeem(mine)
	old, _, _ := k.outbox.position()
	before := len(k.log.events[old])
	asked := false
	k.log.before = func() error { // it is killed right after it has found out
		if asked {
			return errAway
		}
		asked = true
		return nil
	}
	if err := k.Drain(ctx, k.log.send); !errors.Is(err, errAway) {
		t.Error(err)
	}
	k.log.before = nil
	killed := k.killed()
	k.Store.Close()
	*k = *killed
	k.drain()
	try("of a restored copy", ErrCode)
	for id, want := range map[string]State{spent.ID: Cancelled, redeemed.ID: Cancelled, final.ID: Issued, mine.ID: Redeemed} {
		k.wantState(id, want)
	}
	k.wantShredded(spent.ID, true)
	if n := len(k.log.events[old]); n != before {
		t.Errorf("%d events were added under the source of the newer database", n-before)
	}
	if _, sources := k.log.all(); sources != 2 {
		t.Errorf("%d sources, want 2", sources)
	}
	k.wantLog()
	fresh, _, _ := k.outbox.position()
	kinds := kindsOf(k.log.events[fresh], "")
	if want := map[string]int{"offer.created": 1, "offer.redeemed": 1, "offer.cancelled": 2, "database.restored": 1}; fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("the new source has %v, want %v", kinds, want)
	}
	k.restart() // and once is enough
	k.wantState(mine.ID, Redeemed)
	k.wantLog()
}

// TestRestoredAfterIssuing restores a copy with offers that live on after they
// were issued: no retry, refresh or approval of the copy's is answered any more.
func TestRestoredAfterIssuing(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	kept, refreshable, deferred := f.hand(false, 1), f.hand(true, 1), f.wait()
	f.drain()
	k := f.backup()
	if err := f.append("appliance.test"); err != nil {
		t.Fatal(err)
	}
	f.drain()
	for source, events := range f.log.events {
		k.log.events[source] = append([]Event{}, events...)
	}
	k.start()
	defer k.Store.Close()
	if _, err := k.Refresh(ctx, refreshing(refreshable.RedeemedToken)); !errors.Is(err, ErrKeyAway) {
		t.Errorf("refreshed before the log was asked: %v", err)
	}
	if _, err := k.NotificationGrant(ctx, kept.Token); !errors.Is(err, ErrKeyAway) {
		t.Errorf("a token before the log was asked: %v", err)
	}
	k.drain()
	for id, want := range map[string]State{kept.Created.ID: Issued, refreshable.Created.ID: Cancelled, deferred.Created.ID: Cancelled} {
		k.wantState(id, want)
		k.wantShredded(id, true)
	}
	for _, token := range []string{kept.Token, refreshable.Token, deferred.Token} {
		if _, err := k.Grant(ctx, token); !errors.Is(err, ErrToken) {
			t.Errorf("a token of the copy: %v", err)
		}
	}
	if _, err := k.Refresh(ctx, refreshing(refreshable.RedeemedToken)); !errors.Is(err, ErrToken) {
		t.Errorf("refreshed: %v", err)
	}
	if err := k.DecideDeferred(ctx, deferred.id, true, "", "registrar"); !errors.Is(err, ErrState) {
		t.Errorf("approved: %v", err)
	}
	source, _, _ := k.outbox.position()
	if n := kindsOf(k.log.events[source], "")["offer.cancelled"]; n != 2 {
		t.Errorf("%d offers cancelled, want 2", n)
	}
}

// TestSentButNotNoted stops between sending and noting so: the database is no
// older copy, and nothing is sent or cancelled a second time.
func TestSentButNotNoted(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	c := f.create(0)
	if _, err := f.log.send(ctx, f.outbox.source, []Event{{Seq: 1, Kind: "offer.created", Time: f.clock.Now(), Actor: "registrar", Subject: c.ID}}); err != nil {
		t.Fatal(err)
	}
	sends := f.log.sends
	f.restart()
	if n := f.log.sends - sends; n != 1 {
		t.Errorf("%d messages, want the question alone", n)
	}
	f.wantLog()
	f.redeem(c)
	f.drain()
	f.wantLog()
	f.wantHistories()
}

// TestAnOlderLog gives the database a log that has lost what it had confirmed.
// It gets the events again while they are there, and an error when they are not:
// a hole in the log is nothing to go on with.
func TestAnOlderLog(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	for range 6 {
		if err := f.append("appliance.test"); err != nil {
			t.Fatal(err)
		}
	}
	f.drain()
	c := f.create(0)
	f.drain()
	lose := func(keep int) { f.log.events[f.outbox.source] = f.log.events[f.outbox.source][:keep] }
	lose(2)
	f.restart()
	f.wantLog()
	lose(2)
	f.clock.pass(testRetention + time.Hour)
	f.tamper("UPDATE offers SET expires_at = ?1, due_at = ?1", millis(f.clock.Now().Add(testExpiry)))
	f.sweep()
	if err := f.Store.Close(); err != nil {
		t.Fatal(err)
	}
	f.start()
	for range 2 {
		if err := f.Drain(ctx, f.log.send); err == nil || !strings.Contains(err.Error(), "the outbox lacks event 3") {
			t.Errorf("drained into a log with a hole: %v", err)
		}
		if _, err := f.Redeem(ctx, redemption(c)); !errors.Is(err, ErrKeyAway) {
			t.Errorf("redeemed beside a log with a hole: %v", err)
		}
	}
}

// TestALogReplacedMeanwhile puts an older log in the signer's place while the
// database is open: the next try asks it what it has, and it gets the rest again.
func TestALogReplacedMeanwhile(t *testing.T) {
	f := open(t)
	for range 4 {
		if err := f.append("appliance.test"); err != nil {
			t.Fatal(err)
		}
	}
	f.drain()
	f.log.events[f.outbox.source] = f.log.events[f.outbox.source][:2]
	if err := f.append("appliance.test"); err != nil {
		t.Fatal(err)
	}
	if err := f.Drain(context.Background(), f.log.send); !errors.Is(err, ErrOutOfStep) || f.Joined() {
		t.Fatalf("into a log that lacks events: %v", err)
	}
	f.drain()
	f.wantLog()
}

// TestAStrangeLog holds that an answer which cannot be is an error.
func TestAStrangeLog(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	for answer, want := range map[uint64]bool{0: false, 1: true, 2: true, 3: false, 1 << 63: false} {
		f.start()
		f.drain()
		base := f.outbox.sent
		for range 2 {
			if err := f.append("appliance.test"); err != nil {
				t.Fatal(err)
			}
		}
		err := f.Drain(ctx, func(ctx context.Context, source string, events []Event) (uint64, error) {
			if answer == 1 && len(events) == 2 { // a log may take a part
				return f.log.send(ctx, source, events[:1])
			}
			last, err := f.log.send(ctx, source, events)
			if !want {
				last = uint64(base) + answer
			}
			return last, err
		})
		if want != (err == nil) {
			t.Errorf("the log answers %d after 1 and 2: %v", answer, err)
		}
		f.Store.Close()
	}
	f.start()
	f.drain()
	f.wantLog()
}
