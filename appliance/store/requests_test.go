package store

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestReadDeferred: what is read by its id is what the list has, at every stage,
// and an offer that ended takes it along without anybody having swept.
func TestReadDeferred(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	read := func(w waiting, state DeferredState) DeferredRequest {
		t.Helper()
		d, err := f.Deferred(ctx, w.id)
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := f.ListDeferred(ctx, &state, 100, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			if l == d {
				return d
			}
		}
		t.Fatalf("%+v is not among the %s: %+v", d, state, list)
		return d
	}
	approved, refused, expired := f.wait("pid", "mdl"), f.wait("mdl"), f.wait("mdl", "pid")
	if d := read(approved, DeferredPending); d.Offer != approved.RedeemedToken.Offer || d.Configuration != "pid" || d.DecidedBy != "" || !d.DecidedAt.IsZero() {
		t.Errorf("%+v", d)
	}
	f.decide(approved.id, true)
	if d := read(approved, DeferredApproved); d.DecidedBy != "registrar" || d.DecidedAt.IsZero() || d.Reason != "seen at the counter" {
		t.Errorf("%+v", d)
	}
	f.decide(refused.id, false)
	read(refused, DeferredRefused)
	g, transaction, err := f.poll(approved)
	if err == nil {
		_, err = g.Complete(ctx, transaction, []Credential{{ID: "c-1", Configuration: "pid"}})
		g.Release()
	}
	if err != nil {
		t.Fatal(err)
	}
	read(approved, DeferredIssued)
	f.clock.pass(testRefresh) // longer than the access token
	if d, err := f.Deferred(ctx, expired.id); err != nil || d.State != DeferredEnded {
		t.Errorf("%+v %v", d, err)
	}
	for _, id := range []string{"", "x", strings.ToUpper(approved.id), approved.RedeemedToken.Offer, approved.id[:35] + "z", "00000000-0000-8000-8000-000000000000"} {
		if _, err := f.Deferred(ctx, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
