package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"chancery/appliance/database"
)

// wantLog holds the log against the outbox: everything, in order, once.
func (f *fixture) wantLog() {
	f.t.Helper()
	source, base, sent := f.outbox.position()
	logged := f.log.events[source]
	kept, _, err := f.Events(context.Background(), EventFilter{}, 100000, "")
	if err != nil {
		f.t.Fatal(err)
	}
	if sent != base+int64(len(logged)) {
		f.t.Errorf("the outbox says %d events were sent, the log has %d", sent-base, len(logged))
	}
	for i, e := range kept {
		if i > 0 && e.Seq != kept[i-1].Seq-1 {
			f.t.Fatalf("event %d follows %d", kept[i-1].Seq, e.Seq)
		}
		at := e.Seq - base - 1
		if at < 0 {
			continue // of the time before the file was restored
		}
		if at >= int64(len(logged)) {
			f.t.Fatalf("the log lacks event %d, %s of %s", e.Seq, e.Kind, e.Subject)
		}
		e.Seq -= base
		if fmt.Sprint(e) != fmt.Sprint(logged[at]) {
			f.t.Errorf("the outbox has %v, the log %v", e, logged[at])
		}
	}
}

func (f *fixture) append(kind string) error {
	return f.Append(context.Background(), Event{Kind: kind, Actor: "appliance", Subject: "x", Detail: map[string]string{"n": "1"}})
}

// TestDelivery has events recorded from many callers while the log falters:
// before it stores something, and after, when it has but nobody knows. With
// restarts in between, each event arrives once and in order.
func TestDelivery(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	random := rand.New(rand.NewPCG(3, 4))
	falters := func(odds int) func() error {
		return func() error {
			if random.IntN(odds) == 0 {
				return errors.New("no connection")
			}
			return nil
		}
	}
	f.log.before, f.log.after = falters(3), falters(3)
	for round := range 20 {
		count(t, together(40, func(i int) error {
			if i%4 == 0 { // fails, and must leave no gap
				if err := f.CancelOffer(ctx, "00000000-0000-8000-8000-000000000000", "registrar"); !errors.Is(err, ErrNotFound) {
					return err
				}
				return nil
			}
			return f.append(fmt.Sprintf("appliance.test-%d-%d", round, i))
		}), nil)
		if err := f.Drain(ctx, f.log.send); err != nil && err.Error() != "no connection" {
			t.Fatal(err)
		}
		if round%5 == 4 {
			if err := f.Store.Close(); err != nil {
				t.Fatal(err)
			}
			f.start()
		}
	}
	f.log.before, f.log.after = nil, nil
	f.drain()
	f.wantLog()
	if kinds := f.log.kinds(""); len(kinds) != 20*30 {
		t.Errorf("%d events arrived, want %d", len(kinds), 20*30)
	}
	if n, err := f.Backlog(ctx); n != 0 || err != nil {
		t.Errorf("%d events are left (%v)", n, err)
	}
	sends := f.log.sends
	f.drain()
	if f.log.sends != sends {
		t.Error("a message with nothing in it was sent")
	}
}

// TestMessagesAreBounded sends more events than one message holds.
func TestMessagesAreBounded(t *testing.T) {
	f := open(t)
	const events = 2*drainLimit + 10
	count(t, together(events, func(int) error { return f.append("appliance.test") }), nil)
	if n, err := f.Backlog(context.Background()); n != events || err != nil {
		t.Errorf("the backlog is %d (%v)", n, err)
	}
	var sizes []int
	if err := f.Drain(context.Background(), func(ctx context.Context, source string, events []Event) (uint64, error) {
		sizes = append(sizes, len(events))
		return f.log.send(ctx, source, events)
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(sizes) != fmt.Sprint([]int{drainLimit, drainLimit, 10}) {
		t.Errorf("messages of %v events", sizes)
	}
	f.wantLog()
}

// TestAnEventGoesWithItsChange holds that a change which fails leaves no event,
// and an event that cannot be recorded undoes the change.
func TestAnEventGoesWithItsChange(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	c := f.create(6)
	h, w := f.hand(true, 1, "pid", "mdl"), f.wait("pid", "mdl")
	g := f.grant(w.Token)
	defer g.Release()
	if err := f.AddEncryptionKey(ctx, "a", []byte("private")); err != nil {
		t.Fatal(err)
	}
	before := f.everything()
	f.tamper("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
	for name, err := range map[string]error{
		"create": func() error {
			_, err := f.CreateOffer(ctx, NewOffer{Configurations: []string{"pid"}, Claims: []byte("{}"), ExpiresAt: c.ExpiresAt, CreatedBy: "registrar"})
			return err
		}(),
		"redeem":   func() error { _, err := f.Redeem(ctx, redemption(c)); return err }(),
		"cancel":   f.CancelOffer(ctx, c.ID, "registrar"),
		"operator": func() error { _, err := f.CreateOperatorToken(ctx, "registrar", "console"); return err }(),
		"append":   f.append("appliance.test"),
		"refresh":  func() error { _, err := f.Refresh(ctx, refreshing(h.RedeemedToken)); return err }(),
		"notify":   f.tell(h.Token, h.notifications["pid"], CredentialFailure),
		"delete":   f.tell(h.Token, h.notifications["pid"], CredentialDeleted),
		"approve":  f.DecideDeferred(ctx, w.id, true, "", "registrar"),
		"refuse":   f.DecideDeferred(ctx, w.id, false, "", "registrar"),
		"defer":    func() error { _, err := f.grant(h.Token).Defer(ctx, "mdl", Deferred{}); return err }(),
		"add":      f.AddEncryptionKey(ctx, "b", []byte("private")),
		"retire":   f.RetireEncryptionKeys(ctx, "a"),
	} {
		if err == nil || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.tamper("DROP TRIGGER full")
	f.wantState(c.ID, Made)
	if after := f.everything(); after != before {
		t.Errorf("changed by what failed:\n%s\nwas\n%s", after, before)
	}
	f.redeem(c)
	f.drain()
	f.wantLog()
	f.wantHistories()
}

// everything returns what is in the tables that changes are made to, as text.
func (f *fixture) everything() string {
	f.t.Helper()
	var all strings.Builder
	for _, query := range []string{
		"SELECT group_concat(concat_ws(' ', id, state, pending, deferred, signed, refreshes, hex(token_hash), hex(refresh_hash), due_at, epoch), char(10)) FROM offers",
		"SELECT group_concat(concat_ws(' ', offer, configuration, repeats, hex(notification), accepted_at, failed_at, deleted_at), char(10)) FROM issues",
		"SELECT group_concat(concat_ws(' ', id, state, hex(transaction_hash), hex(holders)), char(10)) FROM deferred",
		"SELECT group_concat(kid) FROM encryption_keys",
		"SELECT concat_ws(' ', (SELECT count(*) FROM outbox), (SELECT count(*) FROM operators), (SELECT count(*) FROM credentials))",
	} {
		var text string
		if err := f.db.Read(context.Background(), func(r *database.Reader) error {
			_, err := r.Row(query, nil, []any{&text})
			return err
		}); err != nil {
			f.t.Fatal(err)
		}
		fmt.Fprintln(&all, text)
	}
	return all.String()
}

// TestNumbersAreNeverUsedTwice holds that events which retention deletes leave
// their numbers behind, also over a restart.
func TestNumbersAreNeverUsedTwice(t *testing.T) {
	f := open(t)
	next := int64(1)
	for range 4 {
		for range 5 {
			if err := f.append("appliance.test"); err != nil {
				t.Fatal(err)
			}
			if got := f.ask("SELECT max(seq) FROM outbox"); got != next {
				t.Fatalf("event %d follows %d", got, next-1)
			}
			next++
		}
		f.clock.pass(2 * testRetention)
		f.sweep()
		if n := f.ask("SELECT count(*) FROM outbox"); n != 5 {
			t.Errorf("%d events are kept, want the 5 that the log does not have", n)
		}
		f.drain()
		f.sweep()
		if n := f.ask("SELECT count(*) FROM outbox"); n != 1 {
			t.Errorf("%d events are kept, want the newest, whose number the next one follows", n)
		}
		f.restart()
	}
	f.wantLog()
}

// TestRetention deletes the records of finished offers, in time, and no others.
func TestRetention(t *testing.T) {
	f := open(t)
	finished, open := f.create(0), f.create(0)
	f.issue(f.redeem(finished), "pid")
	f.tamper("UPDATE offers SET expires_at = ?1, due_at = ?1 WHERE state = 0", millis(f.clock.Now().Add(3*testRetention)))
	f.clock.pass(testRetention)
	f.sweep()
	f.wantState(finished.ID, Issued)
	f.clock.pass(time.Millisecond)
	f.sweep()
	if _, err := f.Offer(context.Background(), finished.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its retention: %v", err)
	}
	if n := f.ask("SELECT count(*) FROM credentials"); n != 0 {
		t.Errorf("%d records of credentials outlive their offer", n)
	}
	f.wantState(open.ID, Made)
	f.redeem(open)
}

// TestRetentionBehindLivingOffers deletes the records of finished offers behind
// many that a refresh token keeps alive.
func TestRetentionBehindLivingOffers(t *testing.T) {
	f := open(t)
	first := f.create(0)
	f.tamper(`INSERT INTO offers (id, uuid, state, configurations, created_at, expires_at, created_by, finished_at, due_at, code_hash, attempts_left, refresh_hash, epoch)
		WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= ?) SELECT i, randomblob(16), 3, '["pid"]', 0, 0, '', 1, 1 << 60, randomblob(32), 0, randomblob(32), 1 FROM n`, 2*retainWindow)
	f.restart()
	behind := f.create(0)
	for _, c := range []Created{first, behind} {
		if err := f.CancelOffer(context.Background(), c.ID, "registrar"); err != nil {
			t.Fatal(err)
		}
	}
	f.clock.pass(testRetention)
	f.clock.pass(time.Millisecond)
	f.sweep()
	if n := f.ask("SELECT count(*) FROM offers"); n != 2*retainWindow {
		t.Errorf("%d records, want those of %d living offers", n, 2*retainWindow)
	}
}

// TestEvents lists events, narrowed and page by page.
func TestEvents(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	a, b := f.create(0), f.create(0)
	f.redeem(a)
	f.redeem(b)
	f.clock.pass(time.Second)
	if err := f.Append(ctx, Event{Kind: "configuration.changed", Actor: "appliance", Subject: "pid", Detail: map[string]string{"version": "2"}}); err != nil {
		t.Fatal(err)
	}
	for want, filter := range map[string]EventFilter{
		"configuration.changed offer.redeemed offer.redeemed offer.created offer.created": {},
		"offer.redeemed offer.created":  {Subject: a.ID},
		"offer.created offer.created":   {Kind: "offer.created"},
		"offer.created":                 {Kind: "offer.created", Subject: b.ID},
		"":                              {Kind: "offer"},
		"configuration.changed":         {Subject: "pid"},
		"offer.redeemed offer.redeemed": {Kind: "offer.redeemed"},
	} {
		for _, limit := range []int{1, 2, 10} {
			var kinds []string
			cursor := ""
			for pages := 0; pages == 0 || cursor != ""; pages++ {
				events, next, err := f.Events(ctx, filter, limit, cursor)
				if err != nil || len(events) > limit || pages > 10 {
					t.Fatalf("%d events, %v", len(events), err)
				}
				for _, e := range events {
					kinds = append(kinds, e.Kind)
				}
				cursor = next
			}
			if got := strings.Join(kinds, " "); got != want {
				t.Errorf("%+v, %d a page: %s, want %s", filter, limit, got, want)
			}
		}
	}
	newest, _, err := f.Events(ctx, EventFilter{}, 1, "")
	if err != nil || newest[0].Detail["version"] != "2" || !newest[0].Time.Equal(f.clock.Now()) || newest[0].Seq != 5 {
		t.Errorf("%+v %v", newest, err)
	}
	if _, _, err := f.Events(ctx, EventFilter{}, 1, "?"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unreadable cursor: %v", err)
	}
	f.tamper("UPDATE outbox SET detail = '{' WHERE seq = 5")
	if _, _, err := f.Events(ctx, EventFilter{}, 5, ""); err == nil {
		t.Error("an event that cannot be read was listed")
	}
	if err := f.Drain(ctx, f.log.send); err == nil {
		t.Error("an event that cannot be read was sent")
	}
}

// TestRun lets the store work by itself until everything has happened.
func TestRun(t *testing.T) {
	f := open(t)
	c := f.create(0)
	if err := f.Store.Close(); err != nil {
		t.Fatal(err)
	}
	f.log.before = func() error { return errAway }
	f.start()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); f.Run(ctx, f.log.send) }()
	within := func(what string, reached func() bool) {
		t.Helper()
		for deadline := time.Now().Add(15 * time.Second); !reached(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it did not happen: %s", what)
			}
		}
	}
	if _, err := f.Redeem(ctx, redemption(c)); !errors.Is(err, ErrKeyAway) {
		t.Errorf("redeemed before the log was asked: %v", err)
	}
	f.log.mu.Lock()
	f.log.before = nil
	f.log.mu.Unlock()
	within("the log was asked", func() bool { return f.outbox.joined.Load() })
	if _, _, err := f.Fetch(ctx, c.URISecret); err != nil {
		t.Fatal(err)
	}
	within("the fetch is written", func() bool { return f.ask("SELECT count(*) FROM offers WHERE state = 1") == 1 })
	f.redeem(c)
	within("the event is in the log", func() bool { return f.log.kinds(c.ID)["offer.redeemed"] == 1 })
	within("the epoch is open", func() bool { _, opened := f.wrapper.counts(); return opened == 1 })
	cancel()
	<-ended
	f.wantLog()
}

// TestAFailingDisk holds that a database error is told as such, never as a
// missing offer or a wrong token.
func TestAFailingDisk(t *testing.T) {
	f := open(t)
	c := f.create(0)
	token := f.redeem(f.create(0))
	operator, err := f.CreateOperatorToken(context.Background(), "registrar", "console")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	w, h := f.wait("pid", "mdl"), f.hand(true, 1)
	f.decide(w.id, true)
	waiting, tr, err := f.poll(w)
	if err != nil {
		t.Fatal(err)
	}
	handed, g := f.grant(h.Token), f.grant(token)
	for _, held := range []*Grant{waiting, handed, g} {
		held.Release()
	}
	f.Store.Close()
	for name, call := range map[string]func() error{
		"offer":    func() error { _, err := f.Offer(ctx, c.ID); return err },
		"list":     func() error { _, _, err := f.ListOffers(ctx, Filter{}, 1, ""); return err },
		"fetch":    func() error { _, _, err := f.Fetch(ctx, c.URISecret); return err },
		"redeem":   func() error { _, err := f.Redeem(ctx, redemption(c)); return err },
		"grant":    func() error { _, err := f.Grant(ctx, token); return err },
		"issue":    func() error { return g.issued(ctx, "pid", []Credential{credential("pid")}) },
		"fail":     func() error { return g.Fail(ctx, "x") },
		"defer":    func() error { _, err := waiting.Defer(ctx, "pid", deferral("wallet")); return err },
		"poll":     func() error { _, err := waiting.Transaction(ctx, w.transaction); return err },
		"complete": func() error { _, err := waiting.Complete(ctx, tr, []Credential{credential("pid")}); return err },
		"decide":   func() error { return f.DecideDeferred(ctx, w.id, true, "", "registrar") },
		"deferred": func() error { _, _, err := f.ListDeferred(ctx, nil, 1, ""); return err },
		"refresh":  func() error { _, err := f.Refresh(ctx, refreshing(h.RedeemedToken)); return err },
		"notify":   func() error { return f.Notify(ctx, handed, h.notifications["pid"], CredentialAccepted) },
		"notice":   func() error { _, err := f.NotificationGrant(ctx, h.Token); return err },
		"keys":     func() error { _, err := f.EncryptionKeys(ctx); return err },
		"add key":  func() error { return f.AddEncryptionKey(ctx, "a", []byte("private")) },
		"retire":   func() error { return f.RetireEncryptionKeys(ctx, "a") },
		"cancel":   func() error { return f.CancelOffer(ctx, c.ID, "registrar") },
		"operator": func() error { _, err := f.OperatorByToken(ctx, operator); return err },
		"revoke":   func() error { return f.RevokeOperator(ctx, "registrar", "console") },
		"sweep":    func() error { return f.Sweep(ctx) },
		"drain":    func() error { return f.Drain(ctx, f.log.send) },
	} {
		if err := call(); !errors.Is(err, database.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
		for _, other := range []error{ErrNotFound, ErrState, ErrCode, ErrToken} {
			if err := call(); errors.Is(err, other) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
