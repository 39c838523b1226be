package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestAnApprovalOfAFailedOffer holds that what an operator has approved is not
// signed while its offer has failed, though a refresh token lives: what is signed
// then could not be recorded. After a refresh it is fetched under the same
// transaction_id.
func TestAnApprovalOfAFailedOffer(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	w := f.wait("pid", "mdl")
	f.decide(w.id, true)
	g := f.grant(w.Token)
	notification, err := g.Issue(ctx, "mdl", IssueRecord{Credentials: []Credential{credential("mdl")}})
	if err != nil {
		t.Fatal(err)
	}
	g.Release()
	if err := f.tell(w.Token, notification, CredentialFailure); err != nil {
		t.Fatal(err)
	}
	f.wantState(w.Created.ID, Failed)
	g, transaction, err := f.poll(w)
	g.Release()
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("%+v, %v", transaction, err)
	}
	if w.RedeemedToken, err = f.Refresh(ctx, refreshing(w.RedeemedToken)); err != nil {
		t.Fatal(err)
	}
	g, transaction, err = f.poll(w)
	defer g.Release()
	if err != nil || transaction.State != DeferredApproved {
		t.Fatalf("%+v, %v", transaction, err)
	}
	if _, err := g.Complete(ctx, transaction, []Credential{credential("pid")}); err != nil {
		t.Error(err)
	}
}

// TestDeferredHashesEnd holds that nothing tells of the holder's keys once a
// deferred request is fetched, refused or over with its offer (promise P9).
func TestDeferredHashesEnd(t *testing.T) {
	ctx := context.Background()
	for name, finish := range map[string]func(f *fixture, w waiting){
		"fetched": func(f *fixture, w waiting) {
			f.decide(w.id, true)
			g, transaction, err := f.poll(w)
			defer g.Release()
			if err == nil {
				_, err = g.Complete(ctx, transaction, []Credential{credential("pid")})
			}
			if err != nil {
				t.Error(err)
			}
		},
		"refused": func(f *fixture, w waiting) {
			f.decide(w.id, false)
			g, transaction, err := f.poll(w)
			defer g.Release()
			if err != nil || transaction.State != DeferredRefused {
				t.Errorf("%+v, %v", transaction, err)
			}
		},
		"cancelled": func(f *fixture, w waiting) {
			if err := f.CancelOffer(ctx, w.Created.ID, "registrar"); err != nil {
				t.Error(err)
			}
		},
		"expired": func(f *fixture, w waiting) {
			f.clock.pass(testRefresh + time.Hour)
			f.sweep()
		},
	} {
		f := open(t)
		w := f.wait("pid", "mdl")
		const kept = "SELECT count(*) FROM deferred WHERE length(keys_hash) + length(proofs_hash) + coalesce(length(holders), 0) > 0"
		if n := f.ask(kept); n != 1 {
			t.Fatalf("%s: %d before", name, n)
		}
		finish(f, w)
		if n := f.ask(kept); n != 0 {
			t.Errorf("%s: %d after", name, n)
		}
	}
}

// TestTheClientIsForgotten holds that a client_id, which may be any text that a
// wallet has sent, stays no longer than the token that it came with.
func TestTheClientIsForgotten(t *testing.T) {
	ctx := context.Background()
	for name, finish := range map[string]func(f *fixture, token RedeemedToken){
		"cancelled": func(f *fixture, token RedeemedToken) {
			if err := f.CancelOffer(ctx, token.Offer, "registrar"); err != nil {
				t.Error(err)
			}
		},
		"expired": func(f *fixture, _ RedeemedToken) {
			f.clock.pass(testRefresh + time.Hour)
			f.sweep()
		},
		"issued": func(f *fixture, token RedeemedToken) {
			f.issue(token.Token, "pid")
			for range 2 { // the claims, then the token
				f.clock.pass(testRefresh + NotificationGrace + time.Hour)
				f.sweep()
			}
		},
	} {
		f := open(t)
		token := f.bound(f.create(0, "pid"))
		const known = "SELECT count(*) FROM offers WHERE client <> '' OR jkt IS NOT NULL OR client_key IS NOT NULL"
		if n := f.ask(known); n != 1 {
			t.Fatalf("%s: %d before", name, n)
		}
		finish(f, token)
		if n := f.ask(known); n != 0 {
			t.Errorf("%s: %d after", name, n)
		}
	}
}

// TestRefusalOfTheLast holds that an offer whose other credentials the wallet has
// accepted is an accepted one when an operator refuses the last of it.
func TestRefusalOfTheLast(t *testing.T) {
	for event, want := range map[string]State{CredentialAccepted: Accepted, CredentialDeleted: Issued} {
		f := open(t)
		w := f.wait("pid", "mdl")
		g := f.grant(w.Token)
		notification, err := g.Issue(context.Background(), "mdl", IssueRecord{Credentials: []Credential{credential("mdl")}})
		g.Release()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.tell(w.Token, notification, event); err != nil {
			t.Fatal(err)
		}
		f.wantState(w.Created.ID, Redeemed)
		f.decide(w.id, false)
		f.wantState(w.Created.ID, want)
	}
}
