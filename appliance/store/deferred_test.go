package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// waiting is an offer with a deferred credential.
type waiting struct {
	Created
	RedeemedToken
	transaction, id string
}

func deferral(keys string) Deferred {
	return Deferred{Holders: []byte("the keys of " + keys), KeysHash: hashOf(keys), ProofsHash: hashOf("proofs"), Interval: 90 * time.Second}
}

// wait makes an offer whose first configuration is deferred.
func (f *fixture) wait(configurations ...string) waiting {
	f.t.Helper()
	w := waiting{Created: f.create(0, configurations...)}
	w.RedeemedToken = f.bound(w.Created)
	g := f.grant(w.Token)
	defer g.Release()
	var err error
	if w.transaction, err = g.Defer(context.Background(), w.Configurations[0], deferral("wallet")); err != nil {
		f.t.Fatal(err)
	}
	list, _, err := f.ListDeferred(context.Background(), nil, 1, "")
	if err != nil || len(list) != 1 || list[0].Offer != w.RedeemedToken.Offer {
		f.t.Fatalf("%+v %v", list, err)
	}
	w.id = list[0].ID
	return w
}

func (f *fixture) decide(id string, approve bool) {
	f.t.Helper()
	if err := f.DecideDeferred(context.Background(), id, approve, "seen at the counter", "registrar"); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) poll(w waiting) (*Grant, *Transaction, error) {
	f.t.Helper()
	g := f.grant(w.Token)
	t, err := g.Transaction(context.Background(), w.transaction)
	return g, t, err
}

// TestDeferred walks from the request over the approval to the credential, with
// restarts in between: the holder's keys are sealed, the transaction_id works once.
func TestDeferred(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	w := f.wait("pid", "mdl")
	f.absent("the holder's keys", []piece{piece([]byte("the keys of wallet"))})
	f.restart()
	g, tr, err := f.poll(w)
	if err != nil || tr.State != DeferredPending || tr.Holders != nil || tr.Configuration != "pid" || tr.Interval != 90*time.Second || tr.KeysHash != hashOf("wallet") || tr.ProofsHash != hashOf("proofs") {
		t.Errorf("pending: %+v %v", tr, err)
	}
	if g.Allows("pid") || !g.Deferring("pid") || g.Done("pid") || !g.Allows("mdl") || g.Deferring("mdl") {
		t.Error("the grant does not tell what is deferred")
	}
	if _, err := g.Complete(ctx, tr, []Credential{credential("pid")}); !errors.Is(err, ErrNotGranted) {
		t.Errorf("completed before an approval: %v", err)
	}
	if err := g.issued(ctx, "pid", []Credential{credential("pid")}); !errors.Is(err, ErrNotGranted) {
		t.Errorf("issued past the operator: %v", err)
	}
	g.Release()
	f.decide(w.id, true)
	f.restart()
	g, tr, err = f.poll(w)
	if err != nil || tr.State != DeferredApproved || string(tr.Holders) != "the keys of wallet" {
		t.Fatalf("approved: %+v %v", tr, err)
	}
	if _, err := g.Complete(ctx, tr, nil); err == nil {
		t.Error("completed without a credential")
	}
	record := credential("pid")
	notification, err := g.Complete(ctx, tr, []Credential{record})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Complete(ctx, tr, []Credential{credential("pid")}); !errors.Is(err, ErrNotGranted) {
		t.Errorf("completed twice: %v", err)
	}
	g.Release()
	g, _, err = f.poll(w)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("a used transaction_id: %v", err)
	}
	// What was lost comes again at the credential endpoint.
	if r, err := g.Repeat(ctx, "pid"); err != nil || r.KeysHash != hashOf("wallet") || r.Credentials[0].ID != record.ID {
		t.Errorf("repeated: %+v %v", r, err)
	}
	if err := f.Notify(ctx, g, notification, CredentialAccepted); err != nil {
		t.Error(err)
	}
	g.Release()
	if n := f.ask("SELECT count(*) FROM deferred WHERE coalesce(holders, transaction_hash) IS NULL AND state = 3"); n != 1 {
		t.Error("a used transaction keeps keys or secret")
	}
	f.drain()
	if kinds := f.log.kinds(w.Created.ID); kinds["deferred.requested"] != 1 || kinds["deferred.approved"] != 1 || kinds["offer.issued"] != 0 {
		t.Errorf("%v", kinds)
	}
}

// TestDeferredAgain asks again for what is deferred: the same keys get the same
// transaction, others none, and after a refresh the transaction_id is another one.
func TestDeferredAgain(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	w := f.wait()
	again := func(token, keys string) (string, error) {
		g := f.grant(token)
		defer g.Release()
		return g.Defer(ctx, "pid", deferral(keys))
	}
	for _, approved := range []bool{false, true} {
		if approved {
			f.decide(w.id, true)
		}
		if got, err := again(w.Token, "wallet"); err != nil || got != w.transaction {
			t.Errorf("approved %t: another transaction_id, %v", approved, err)
		}
		if _, err := again(w.Token, "thief"); !errors.Is(err, ErrKeys) {
			t.Errorf("approved %t: other keys: %v", approved, err)
		}
	}
	token, err := f.Refresh(ctx, refreshing(w.RedeemedToken))
	if err != nil {
		t.Fatal(err)
	}
	w.Token = token.Token
	g, tr, err := f.poll(w) // the first transaction_id is good with the new token
	if err != nil || tr.State != DeferredApproved {
		t.Errorf("after a refresh: %+v %v", tr, err)
	}
	g.Release()
	next, err := again(w.Token, "wallet")
	if err != nil || next == w.transaction {
		t.Errorf("asked again after a refresh: %v", err)
	}
	g, _, err = f.poll(w)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("the transaction_id that was replaced: %v", err)
	}
	tr, err = g.Transaction(ctx, next)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Complete(ctx, tr, []Credential{credential("pid")}); err != nil {
		t.Error(err)
	}
	g.Release()
	if _, err := again(w.Token, "wallet"); !errors.Is(err, ErrNotGranted) {
		t.Errorf("deferred after it was issued: %v", err)
	}
	f.wantState(w.Created.ID, Issued)
	if token, err = f.Refresh(ctx, refreshing(w.RedeemedToken)); err != nil {
		t.Fatal(err)
	}
	if got, err := again(token.Token, "another wallet"); err != nil || got == next { // a new round, with new keys
		t.Errorf("deferred once more: %v", err)
	}
	if n := f.ask("SELECT count(*) FROM deferred"); n != 1 {
		t.Errorf("%d rows for one configuration", n)
	}
}

// TestTransactions gives what is no transaction_id of the grant.
func TestTransactions(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	mine, theirs := f.wait(), f.wait()
	g := f.grant(mine.Token)
	defer g.Release()
	for name, wrong := range map[string]string{
		"nothing": "", "another offer's": theirs.transaction, "the access token": mine.Token, "the public id": mine.id,
		"another secret": mine.transaction[:8] + strings.Repeat("A", 32), "another row's": opaque(4711, secret{}),
	} {
		if _, err := g.Transaction(ctx, wrong); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.decide(mine.id, true)
	f.tamper("UPDATE deferred SET holders = (SELECT holders FROM deferred WHERE id = 2) WHERE id = 1")
	if _, err := g.Transaction(ctx, mine.transaction); err == nil || !strings.Contains(err.Error(), "the row was changed") {
		t.Errorf("another's keys: %v", err)
	}
}

// TestDecisions holds what an operator can decide, and what follows.
func TestDecisions(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	ended := f.wait()
	if err := f.CancelOffer(ctx, ended.Created.ID, "registrar"); err != nil {
		t.Fatal(err)
	}
	late := f.wait()
	approved, refused := f.wait(), f.wait()
	f.decide(approved.id, true)
	f.decide(refused.id, false)
	for name, test := range map[string]struct {
		id, reason string
		want       error
	}{
		"approved": {approved.id, "", ErrState}, "refused": {refused.id, "", ErrState}, "cancelled": {ended.id, "", ErrState},
		"nothing": {"", "", ErrNotFound}, "an offer's": {late.Created.ID, "", ErrNotFound}, "another's": {late.id[:35] + "x", "", ErrNotFound},
	} {
		for _, approve := range []bool{true, false} {
			if err := f.DecideDeferred(ctx, test.id, approve, test.reason, "registrar"); !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, reason := range []string{strings.Repeat("ä", MaxReason+1), "two\nlines", "\xff"} {
		if err := f.DecideDeferred(ctx, late.id, true, reason, "registrar"); err == nil {
			t.Errorf("the reason %q", reason)
		}
	}
	if n := count(t, f.race(8, func(i int) error {
		return f.DecideDeferred(ctx, late.id, i%2 == 0, strings.Repeat("ä", MaxReason), "registrar")
	}), nil, ErrState); n[nil] != 1 {
		t.Errorf("%d decisions", n[nil])
	}
	// All that was left is refused: the wallet can be told, and nothing else is there.
	f.wantState(refused.Created.ID, Failed)
	f.wantShredded(refused.Created.ID, true)
	g, tr, err := f.poll(refused)
	if err != nil || tr.State != DeferredRefused || tr.Holders != nil || g.Allows("pid") || g.Deferring("pid") {
		t.Errorf("refused: %+v %v", tr, err)
	}
	if _, err := g.Defer(ctx, "pid", deferral("wallet")); !errors.Is(err, ErrNotGranted) {
		t.Errorf("asked for again: %v", err)
	}
	g.Release()
	if _, err := f.Refresh(ctx, refreshing(refused.RedeemedToken)); !errors.Is(err, ErrToken) {
		t.Errorf("refreshed: %v", err)
	}
	overdue := f.wait()
	f.clock.pass(testRefresh)
	if err := f.DecideDeferred(ctx, overdue.id, true, "", "registrar"); !errors.Is(err, ErrState) {
		t.Errorf("approved past its time and before the sweeper: %v", err)
	}
	f.drain()
	f.wantHistories()
}

// TestDeferredEndsWithItsOffer holds that a failure of one configuration ends what
// another waits for.
func TestDeferredEndsWithItsOffer(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	w := waiting{Created: f.create(0, "pid", "mdl")}
	w.Token = f.redeem(w.Created)
	g := f.grant(w.Token)
	transaction, err := g.Defer(ctx, "pid", deferral("wallet"))
	if err != nil {
		t.Fatal(err)
	}
	notification, err := g.Issue(ctx, "mdl", IssueRecord{Credentials: []Credential{credential("mdl")}})
	if err != nil {
		t.Fatal(err)
	}
	g.Release()
	if err := f.tell(w.Token, notification, CredentialFailure); err != nil {
		t.Fatal(err)
	}
	f.wantShredded(w.Created.ID, true)
	g = f.grant(w.Token)
	defer g.Release()
	if g.Deferring("pid") || g.Allows("pid") || !g.Done("pid") {
		t.Error("it waits on")
	}
	if _, err := g.Transaction(ctx, transaction); !errors.Is(err, ErrNotFound) {
		t.Errorf("its transaction: %v", err)
	}
}

// TestPartlyRefused refuses one configuration of several: the others go on, it
// stays refused, also after a refresh.
func TestPartlyRefused(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	for _, last := range []bool{false, true} {
		w := f.wait("pid", "mdl")
		if last {
			f.issue(w.Token, "mdl")
		}
		f.decide(w.id, false)
		if !last {
			f.wantState(w.Created.ID, Redeemed)
			f.issue(w.Token, "mdl")
		}
		f.wantState(w.Created.ID, Issued)
		f.wantShredded(w.Created.ID, false) // for the refresh token
		token, err := f.Refresh(ctx, refreshing(w.RedeemedToken))
		if err != nil {
			t.Fatal(err)
		}
		if g := f.grant(token.Token); g.Allows("pid") || g.Deferring("pid") || !g.Allows("mdl") {
			t.Error("refused, and allowed after a refresh")
		}
		f.tamper("UPDATE offers SET refresh_hash = NULL")
	}
	f.drain()
	f.wantHistories()
}

// TestCompletedTogether has one transaction completed many times at once, past
// the order of one token's requests: one is recorded, the others are withheld.
func TestCompletedTogether(t *testing.T) {
	f := open(t)
	w := f.wait("pid", "mdl")
	f.decide(w.id, true)
	g, tr, err := f.poll(w)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Release()
	errs := f.race(8, func(int) error {
		own := *g
		_, err := own.Complete(context.Background(), tr, []Credential{credential("pid")})
		return err
	})
	if n := count(t, errs, nil, ErrState); n[nil] != 1 || len(f.offer(w.Created.ID).Credentials) != 1 {
		t.Errorf("%d completed", n[nil])
	}
	f.drain()
	if n := f.log.kinds(w.Created.ID)["credential.withheld"]; n != 7 {
		t.Errorf("%d withheld", n)
	}
}

// TestARefusalWhileSigning refuses one configuration while another is signed:
// what was signed is recorded.
func TestARefusalWhileSigning(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	w := f.wait("pid", "mdl")
	g := f.grant(w.Token)
	defer g.Release()
	f.decide(w.id, false)
	if err := g.issued(context.Background(), "mdl", []Credential{credential("mdl")}); err != nil {
		t.Error(err)
	}
	f.wantState(w.Created.ID, Issued)
}

// TestListDeferred lists page by page and by state, and ends first what is due.
func TestListDeferred(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	var made []waiting
	for range 7 {
		made = append(made, f.wait())
		f.clock.pass(time.Second)
	}
	f.decide(made[1].id, true)
	f.decide(made[2].id, false)
	g, tr, err := f.poll(made[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Complete(ctx, tr, []Credential{credential("pid")}); err != nil {
		t.Fatal(err)
	}
	f.decide(made[3].id, true)
	for want, state := range map[string]DeferredState{"0456": DeferredPending, "3": DeferredApproved, "2": DeferredRefused, "1": DeferredIssued, "": DeferredEnded} {
		if got := f.listed(made, &state); got != want {
			t.Errorf("%s: %q, want %q", state, got, want)
		}
	}
	if got := f.listed(made, nil); got != "0123456" {
		t.Errorf("all: %q", got)
	}
	approved := DeferredApproved
	list, _, err := f.ListDeferred(ctx, &approved, 1, "")
	if err != nil || list[0].DecidedBy != "registrar" || list[0].Reason != "seen at the counter" || !list[0].DecidedAt.Equal(f.clock.Now()) || list[0].Configuration != "pid" {
		t.Errorf("%+v %v", list, err)
	}
	f.clock.pass(testRefresh)
	state := DeferredEnded
	if got := f.listed(made, &state); got != "03456" {
		t.Errorf("ended: %q", got)
	}
	if _, _, err := f.ListDeferred(ctx, nil, 1, "?"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unreadable cursor: %v", err)
	}
	for s := DeferredPending; s <= DeferredEnded; s++ {
		if back, ok := ParseDeferredState(s.String()); !ok || back != s {
			t.Errorf("%s leads to %v", s, back)
		}
	}
	if _, ok := ParseDeferredState((DeferredEnded + 1).String()); ok {
		t.Error("a state too many")
	}
}

// listed collects every page, oldest first, as places in made.
func (f *fixture) listed(made []waiting, state *DeferredState) (places string) {
	f.t.Helper()
	for cursor, more := "", true; more; more = cursor != "" {
		list, next, err := f.ListDeferred(context.Background(), state, 2, cursor)
		if err != nil || len(list) > 2 {
			f.t.Fatal(err)
		}
		for _, d := range list {
			for i, w := range made {
				if w.id == d.ID {
					places = string(rune('0'+i)) + places
				}
			}
		}
		cursor = next
	}
	return places
}
