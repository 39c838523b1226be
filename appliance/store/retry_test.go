package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"chancery/appliance/database"
)

// keep lets issued offers keep their claims for retries.
func (f *fixture) keep(window time.Duration) {
	f.t.Helper()
	f.options.RetryWindow = window
	f.restart()
}

// uuid returns an offer's public identifier.
func (f *fixture) uuid(row int64) (uuid []byte) {
	f.t.Helper()
	if err := f.db.Read(context.Background(), func(r *database.Reader) error {
		_, err := r.Row("SELECT uuid FROM offers WHERE id = ?", []any{row}, []any{&uuid})
		return err
	}); err != nil {
		f.t.Fatal(err)
	}
	return uuid
}

// stolen opens an offer's claims as somebody would who has the file and the
// epoch's key, and perhaps an access token.
func (f *fixture) stolen(row int64, token string) error {
	f.t.Helper()
	sealed, wrapped := f.parts(row)
	id, _ := f.keys.known()
	epoch, err := f.epoch(context.Background(), id[0])
	if err != nil {
		f.t.Fatal(err)
	}
	wrapping := epoch.aead
	if token != "" {
		_, secret, _ := parseOpaque(token)
		if wrapping, err = epoch.forRetries(secret); err != nil {
			f.t.Fatal(err)
		}
	}
	claims, err := unseal(wrapping, f.uuid(row), wrapped, sealed)
	if err == nil && string(claims) != claimsText {
		f.t.Errorf("other claims: %q", claims)
	}
	return err
}

// TestWhoOpensAnIssuedOffer holds what an issued offer's claims are kept for: the
// wallet that comes again with its token, and nobody else. No file has the key
// that the appliance alone could use, and when the time for retries is over, no
// file has the other one (promise P9).
func TestWhoOpensAnIssuedOffer(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	c, other := f.create(0, "pid", "mdl"), f.create(0)
	token, otherToken := f.redeem(c), f.redeem(other)
	f.issue(token, "pid")
	if err := f.stolen(1, ""); err != nil {
		t.Fatalf("an offer with a credential to come: %v", err)
	}
	_, before := f.parts(1)
	f.issue(token, "mdl")
	f.sweep()
	f.wantState(c.ID, Issued)
	_, after := f.parts(1)
	f.absent("the key under the epoch's", pieces(before))
	if n := f.traces(pieces(after)); n == 0 {
		t.Fatal("the search is blind")
	}
	if err := f.stolen(1, ""); err == nil {
		t.Error("the appliance opens the claims without the wallet")
	}
	if err := f.stolen(1, otherToken); err == nil {
		t.Error("another wallet's token opens the claims")
	}
	if err := f.stolen(1, token); err != nil {
		t.Errorf("the wallet's token: %v", err)
	}
	_, secret, _ := parseOpaque(token)
	if wrapping, err := (&epochKey{retries: make([]byte, 32)}).forRetries(secret); err != nil {
		t.Error(err)
	} else if _, err := unwrap(wrapping, f.uuid(1), after); err == nil {
		t.Error("the token opens the key without the appliance")
	}
	f.restart()
	g := f.grant(token)
	if claims, err := g.Claims(context.Background()); err != nil || string(claims) != claimsText {
		t.Errorf("the wallet that comes again: %v", err)
	}
	f.clock.pass(testWindow)
	if _, err := g.Claims(context.Background()); !errors.Is(err, ErrToken) {
		t.Errorf("after the window and before the sweeper: %v", err)
	}
	g.Release()
	f.sweep()
	f.absent("the key under the token", pieces(after))
	f.wantShredded(c.ID, true)
	g = f.grant(token) // its token still tells that all was issued
	defer g.Release()
	if _, err := g.Claims(context.Background()); !errors.Is(err, ErrToken) || !g.Done("pid") || g.Allows("pid") {
		t.Errorf("after the window: %v", err)
	}
	f.wantShredded(other.ID, false)
}

// TestRetriesEnd lets each thing end them that can; then nothing is repeated and
// nothing opens.
func TestRetriesEnd(t *testing.T) {
	ctx := context.Background()
	notify := func(events ...string) func(*fixture, *Grant, string) {
		return func(f *fixture, g *Grant, notification string) {
			for _, event := range events {
				if err := f.Notify(ctx, g, notification, event); err != nil {
					f.t.Error(err)
				}
			}
		}
	}
	for name, end := range map[string]struct {
		window time.Duration
		by     func(*fixture, *Grant, string)
		state  State
	}{
		"off":        {0, func(*fixture, *Grant, string) {}, Issued},
		"the window": {testWindow, func(f *fixture, _ *Grant, _ string) { f.clock.pass(testWindow) }, Issued},
		"the token":  {time.Hour, func(f *fixture, _ *Grant, _ string) { f.clock.pass(testLifetime) }, Issued},
		"accepted": {testWindow, func(f *fixture, g *Grant, notification string) {
			notify(CredentialAccepted)(f, g, notification)
			if _, err := g.Repeat(ctx, "pid"); err != nil {
				f.t.Errorf("what was accepted is not repeated: %v", err)
			}
			f.clock.pass(testWindow)
		}, Accepted},
		"failed":        {testWindow, notify(CredentialFailure), Failed},
		"deleted":       {testWindow, notify(CredentialDeleted), Issued},
		"one and other": {testWindow, notify(CredentialAccepted, CredentialDeleted), Accepted},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			f.keep(end.window)
			c := f.create(0)
			token := f.redeem(c)
			g := f.grant(token)
			signed := []Credential{credential("pid")}
			notification, err := g.Issue(ctx, "pid", IssueRecord{Credentials: signed})
			if err != nil {
				t.Fatal(err)
			}
			g.Release()
			g = f.grant(token)
			r, err := g.Repeat(ctx, "pid")
			if kept := end.window > 0; kept != (err == nil) || !kept && !errors.Is(err, ErrNotFound) {
				t.Fatalf("before: %v", err)
			}
			end.by(f, g, notification)
			if _, err := g.Repeat(ctx, "pid"); !errors.Is(err, ErrNotFound) {
				t.Errorf("repeated: %v", err)
			}
			if end.window > 0 { // signed meanwhile
				if _, err := g.Reissue(ctx, r, signed); !errors.Is(err, ErrState) {
					t.Errorf("signed again: %v", err)
				}
			}
			g.Release()
			if end.state == Failed || name == "deleted" || name == "one and other" || name == "off" { // at once
				f.wantShredded(c.ID, true)
			}
			f.sweep()
			f.wantShredded(c.ID, true)
			f.wantState(c.ID, end.state)
			if n := len(f.offer(c.ID).Credentials); n != 1 {
				t.Errorf("%d records", n)
			}
			f.drain()
			if withheld := f.log.kinds(c.ID)["credential.withheld"]; end.window > 0 && withheld != 1 {
				t.Errorf("%d events of credentials withheld", withheld)
			}
			f.wantHistories()
		})
	}
}

// TestRepetitions holds what a repetition is: the same credentials in the same
// order, as often as the bound allows, also under a race, with every signature on
// record.
func TestRepetitions(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	c := f.create(0, "pid", "mdl")
	token := f.redeem(c)
	first := []Credential{credential("pid"), credential("pid")}
	g := f.grant(token)
	notification, err := g.Issue(ctx, "pid", IssueRecord{Credentials: first, KeysHash: hashOf("keys"), ProofsHash: hashOf("proofs")})
	if err != nil {
		t.Fatal(err)
	}
	g.Release()
	again := func(id int) []Credential {
		batch := []Credential{first[0], first[1]}
		for i := range batch {
			batch[i].Intent, batch[i].Outcome = int64(100*id), int64(100*id+1)
		}
		return batch
	}
	g = f.grant(token) // partly issued
	r, err := g.Repeat(ctx, "pid")
	if err != nil || r.KeysHash != hashOf("keys") || r.ProofsHash != hashOf("proofs") || r.Configuration != "pid" || len(r.Credentials) != 2 || r.Credentials[0].ID != first[0].ID || r.Credentials[1].ID != first[1].ID {
		t.Fatalf("%+v %v", r, err)
	}
	for name, wrong := range map[string][]Credential{"fewer": first[:1], "another order": {first[1], first[0]}, "another": {first[0], credential("pid")}} {
		if _, err := g.Reissue(ctx, r, wrong); err == nil {
			t.Errorf("repeated with %s", name)
		}
	}
	if _, err := g.Repeat(ctx, "mdl"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was not issued: %v", err)
	}
	g.Release()
	f.issue(token, "mdl")
	count(t, together(3*MaxRepeats, func(i int) error {
		g, err := f.Grant(ctx, token)
		if err != nil {
			return err
		}
		defer g.Release()
		r, err := g.Repeat(ctx, "pid")
		if err != nil {
			return err
		}
		got, err := g.Reissue(ctx, r, again(i+1))
		if err == nil && got != notification {
			t.Error("another notification_id")
		}
		return err
	}), nil, ErrRepeated)
	records := f.offer(c.ID).Credentials
	if len(records) != 3+2*MaxRepeats {
		t.Fatalf("%d records", len(records))
	}
	for i, record := range records {
		switch {
		case i < 2 && (record.Repeat != 0 || record.ID != first[i].ID), i == 2 && (record.Repeat != 0 || record.Configuration != "mdl"),
			i > 2 && (record.Repeat != (i-1)/2 || record.ID != first[(i-1)%2].ID || record.Intent+1 != record.Outcome):
			t.Errorf("record %d: %+v", i, record)
		}
	}
	f.drain()
	f.wantHistories()
}

// TestTheLastRepetition has two requests hold the last place at once, which the
// order of one token's requests would not allow: the database decides.
func TestTheLastRepetition(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	token := f.redeem(f.create(0))
	f.issue(token, "pid")
	f.tamper("UPDATE issues SET repeats = ?", MaxRepeats-1)
	g := f.grant(token)
	defer g.Release()
	r, err := g.Repeat(ctx, "pid")
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, f.race(8, func(int) error { _, err := g.Reissue(ctx, r, r.Credentials); return err }), nil, ErrRepeated); n[nil] != 1 {
		t.Errorf("%d took the last place", n[nil])
	}
}

// TestAKeyThatDoesNotOpenWhileIssuing holds that what was signed is recorded and
// answered, though a retry cannot be kept.
func TestAKeyThatDoesNotOpenWhileIssuing(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	c := f.create(0)
	token := f.redeem(c)
	f.tamper("UPDATE keys SET wrapped = zeroblob(3840)")
	f.issue(token, "pid")
	f.wantState(c.ID, Issued)
	f.wantShredded(c.ID, true)
	g := f.grant(token)
	defer g.Release()
	if _, err := g.Repeat(context.Background(), "pid"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
