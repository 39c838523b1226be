package store

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chancery/appliance/database"
)

// TestTurns holds that the requests of one token come one after the other, those
// of another do not wait for them, and who leaves the queue leaves no trace.
func TestTurns(t *testing.T) {
	f := open(t)
	one, other := f.redeem(f.create(0, "pid", "mdl")), f.redeem(f.create(0))
	held := f.grant(one)
	f.grant(other).Release()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.Grant(ctx, one); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second request with the token got %v", err)
	}
	next := make(chan *Grant)
	go func() {
		g, err := f.Grant(context.Background(), one)
		if err != nil {
			t.Error(err)
		}
		next <- g
	}()
	if err := held.issued(context.Background(), "pid", []Credential{credential("pid")}); err != nil {
		t.Fatal(err)
	}
	held.Release()
	held.Release() // once is enough, twice does no harm
	g := <-next
	if g.Allows("pid") || !g.Allows("mdl") {
		t.Error("the next request does not see what the one before it issued")
	}
	g.Release()
	if len(f.turns) != 0 {
		t.Errorf("%d turns are kept for nobody", len(f.turns))
	}
}

// TestManyRequestsOneCredential has 64 requests come with one token: one
// credential is recorded, and never are two at work at the same time.
func TestManyRequestsOneCredential(t *testing.T) {
	f := open(t)
	c := f.create(0)
	token := f.redeem(c)
	var inside, most, issued atomic.Int32
	errs := together(64, func(int) error {
		g, err := f.Grant(context.Background(), token)
		if err != nil {
			return err
		}
		defer g.Release()
		most.Store(max(most.Load(), inside.Add(1)))
		defer inside.Add(-1)
		if err := g.issued(context.Background(), "pid", []Credential{credential("pid")}); err != nil {
			return err
		}
		issued.Add(1)
		return nil
	})
	if n := count(t, errs, nil, ErrNotGranted); n[nil] != 1 || issued.Load() != 1 || most.Load() != 1 {
		t.Errorf("%d requests got a credential, %d at a time", n[nil], most.Load())
	}
	if n := len(f.offer(c.ID).Credentials); n != 1 {
		t.Errorf("%d credentials are recorded", n)
	}
}

// TestRecords holds that batches are recorded in order, with everything that
// ties them to the audit log.
func TestRecords(t *testing.T) {
	f := open(t)
	c := f.create(0, "pid", "mdl")
	token := f.redeem(c)
	batches := map[string][]Credential{"mdl": {credential("mdl"), credential("mdl")}, "pid": {credential("pid"), credential("pid"), credential("pid")}}
	var want []Credential
	for _, id := range []string{"mdl", "pid"} {
		f.clock.pass(time.Second)
		g := f.grant(token)
		if err := g.issued(context.Background(), id, nil); err == nil {
			t.Error("a configuration was issued without a credential")
		}
		if err := g.issued(context.Background(), id, batches[id]); err != nil {
			t.Fatal(err)
		}
		g.Release()
		for _, record := range batches[id] {
			record.IssuedAt = f.clock.Now()
			want = append(want, record)
		}
	}
	got := f.offer(c.ID).Credentials
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("record %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

// TestTokens gives Grant what is no access token of an open offer.
func TestTokens(t *testing.T) {
	f := open(t)
	c := f.create(0)
	token := f.redeem(c)
	operator, err := f.CreateOperatorToken(context.Background(), "registrar", "console")
	if err != nil {
		t.Fatal(err)
	}
	for name, wrong := range map[string]string{
		"nothing": "", "the code": c.Code, "the URI's secret": c.URISecret, "an operator's": operator,
		"another row's": opaque(4711, secret{}), "another secret": token[:8] + strings.Repeat("A", 32), "more": token + "A", "less": token[:39],
	} {
		if _, err := f.Grant(context.Background(), wrong); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.turns) != 0 {
		t.Errorf("%d turns are kept for wrong tokens", len(f.turns))
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Grant(gone, token); !errors.Is(err, context.Canceled) {
		t.Errorf("a wallet that has left: %v", err)
	}
	f.grant(token).Release()
}

// setParts changes what the database holds of an offer's claims.
func (f *fixture) setParts(row int64, sealed, wrapped []byte) {
	f.t.Helper()
	f.tamper("DELETE FROM claims WHERE offer = ?", row)
	if sealed != nil {
		f.tamper("INSERT INTO claims (offer, sealed) VALUES (?, ?)", row, sealed)
	}
	if err := f.db.Write(context.Background(), func(tx *database.Tx) error { return putKey(tx, row, wrapped) }); err != nil {
		f.t.Fatal(err)
	}
}

// TestClaims opens what was sealed, and refuses what was changed since: claims
// do not move from one offer to another.
func TestClaims(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	mine, theirs := f.create(0), f.create(0)
	token := f.redeem(mine)
	open := func() (string, error) {
		g := f.grant(token)
		defer g.Release()
		claims, err := g.Claims(ctx)
		return string(claims), err
	}
	if claims, err := open(); err != nil || claims != claimsText {
		t.Errorf("claims %q: %v", claims, err)
	}
	sealed, wrapped := f.parts(1)
	otherSealed, otherWrapped := f.parts(2)
	for name, change := range map[string]struct{ sealed, wrapped []byte }{
		"another's claims":         {otherSealed, wrapped},
		"another's key":            {sealed, otherWrapped},
		"another's claims and key": {otherSealed, otherWrapped},
		"cut claims":               {sealed[:20], wrapped},
		"no claims":                {nil, wrapped},
		"no key":                   {sealed, noKey[:]},
	} {
		f.setParts(1, change.sealed, change.wrapped)
		if claims, err := open(); err == nil || claims != "" || !strings.Contains(err.Error(), "the row was changed") {
			t.Errorf("%s: %q, %v", name, claims, err)
		}
	}
	f.setParts(1, sealed, wrapped)
	if _, err := open(); err != nil {
		t.Errorf("put back: %v", err)
	}
	g := f.grant(token)
	if err := f.CancelOffer(ctx, mine.ID, "registrar"); err != nil {
		t.Fatal(err)
	}
	if err := f.CancelOffer(ctx, theirs.ID, "registrar"); err != nil {
		t.Fatal(err)
	}
	f.clock.pass(f.options.DataKeyLifetime)
	if err := f.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	f.sweep()
	if _, err := g.Claims(ctx); !errors.Is(err, ErrToken) {
		t.Errorf("claims of an offer whose key is gone: %v", err)
	}
}
