package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestNewOffers refuses what no offer can be.
func TestNewOffers(t *testing.T) {
	f := open(t)
	many := make([]string, MaxConfigurations+1)
	for i := range many {
		many[i] = fmt.Sprint("c", i)
	}
	for name, n := range map[string]NewOffer{
		"none":             {},
		"too many":         {Configurations: many},
		"one twice":        {Configurations: []string{"pid", "mdl", "pid"}},
		"no length":        {Configurations: []string{"pid"}, TxCode: &TxCode{InputMode: "numeric"}},
		"a length too far": {Configurations: []string{"pid"}, TxCode: &TxCode{InputMode: "numeric", Length: 65}},
		"no input mode":    {Configurations: []string{"pid"}, TxCode: &TxCode{Length: 6}},
	} {
		n.Claims, n.ExpiresAt, n.CreatedBy = []byte("{}"), f.clock.Now().Add(testExpiry), "registrar"
		if _, err := f.CreateOffer(context.Background(), n); err == nil {
			t.Errorf("%s: an offer was made", name)
		}
	}
	if n := f.ask("SELECT (SELECT count(*) FROM offers) + (SELECT count(*) FROM outbox)"); n != 0 {
		t.Errorf("%d rows", n)
	}
	most := f.create(0, many[:MaxConfigurations]...)
	token := f.redeem(most)
	f.issue(token, many[:MaxConfigurations]...)
	f.wantState(most.ID, Issued)
	if n := len(f.offer(most.ID).Credentials); n != MaxConfigurations {
		t.Errorf("%d credentials", n)
	}
}

// TestStateNames holds that every state has a name that leads back to it.
func TestStateNames(t *testing.T) {
	for s := Made; s <= Accepted; s++ {
		if back, ok := ParseState(s.String()); !ok || back != s {
			t.Errorf("%s leads to %v", s, back)
		}
	}
	for _, s := range []State{-1, Accepted + 1} {
		if back, ok := ParseState(s.String()); ok {
			t.Errorf("%s is the state %d", s, back)
		}
	}
}

// list collects every page of a list.
func (f *fixture) list(filter Filter, limit int) (ids []string, states []State) {
	f.t.Helper()
	cursor := ""
	for {
		offers, next, err := f.ListOffers(context.Background(), filter, limit, cursor)
		if err != nil || len(offers) > limit || next != "" && len(offers) != limit {
			f.t.Fatalf("a page of %d offers, next %q, %v", len(offers), next, err)
		}
		for _, o := range offers {
			ids, states = append(ids, o.ID), append(states, o.State)
		}
		if cursor = next; cursor == "" {
			return ids, states
		}
	}
}

// TestLists lists offers in every state, newest first, in pages of any size.
func TestLists(t *testing.T) {
	f := open(t)
	var all []string
	for range 3 {
		for _, bring := range situations {
			all = append(all, bring(f).ID)
		}
	}
	for _, limit := range []int{1, 7, 1000} {
		ids, _ := f.list(Filter{}, limit)
		for i := range all {
			if len(ids) < len(all) { // locked and others may have made more
				t.Fatalf("%d offers, want at least %d", len(ids), len(all))
			}
			if !slices.Contains(ids, all[i]) {
				t.Errorf("%s is not listed", all[i])
			}
		}
		if !slices.IsSortedFunc(ids, func(a, b string) int { return strings.Compare(b[:13], a[:13]) }) {
			t.Error("the list is not from the newest to the oldest")
		}
		sum := 0
		for state := Made; state <= Failed; state++ {
			_, states := f.list(Filter{State: &state}, limit)
			sum += len(states)
			for _, s := range states {
				if s != state {
					t.Errorf("among the %s offers is one that is %s", state, s)
				}
			}
		}
		if sum != len(ids) {
			t.Errorf("by their states %d offers, in all %d", sum, len(ids))
		}
	}
	if _, _, err := f.ListOffers(context.Background(), Filter{}, 10, "no cursor"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unreadable cursor: %v", err)
	}
}

// TestAListIsOfNow holds that a list by state knows a fetch and an expiry of
// this moment.
func TestAListIsOfNow(t *testing.T) {
	f := open(t)
	a, b := f.create(0), f.create(0)
	if _, _, err := f.Fetch(context.Background(), a.URISecret); err != nil {
		t.Fatal(err)
	}
	want := func(state State, ids ...string) {
		t.Helper()
		if got, _ := f.list(Filter{State: &state}, 10); !slices.Equal(got, ids) {
			t.Errorf("%s: %v, want %v", state, got, ids)
		}
	}
	want(Made, b.ID)
	want(Fetched, a.ID)
	f.clock.pass(testExpiry)
	want(Expired, b.ID, a.ID)
	want(Made)
	want(Fetched)
}

// TestForeignIdentifiers asks for what is not there: one bit of an identifier is
// enough to miss.
func TestForeignIdentifiers(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	c := f.create(0)
	other := []byte(c.ID)
	other[35] = "0123456789abcdef0"[strings.IndexByte("0123456789abcdef", other[35])+1]
	for _, id := range []string{"", "x", string(other), strings.ToUpper(c.ID) + "", c.ID[:35], c.ID + "0", "00000000-0000-8000-8000-000000000000"} {
		if id == c.ID {
			continue
		}
		if _, err := f.Offer(ctx, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if err := f.CancelOffer(ctx, id, "registrar"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, secret := range []string{"", "x", c.Code, c.URISecret[:8] + strings.Repeat("A", 32), opaque(99, secret{})} {
		if _, _, err := f.Fetch(ctx, secret); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", secret, err)
		}
	}
	f.wantState(c.ID, Made)
}

// TestARowThatCannotBeRead holds that a changed row is an error, not an offer.
func TestARowThatCannotBeRead(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	for _, change := range []string{"configurations = '['", "tx_code = '{'"} {
		c := f.create(6)
		f.tamper("UPDATE offers SET " + change)
		_, err := f.Offer(ctx, c.ID)
		_, _, fetchErr := f.Fetch(ctx, c.URISecret)
		_, _, listErr := f.ListOffers(ctx, Filter{}, 1, "")
		for _, err := range []error{err, fetchErr, listErr} {
			if err == nil || errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", change, err)
			}
		}
	}
}
