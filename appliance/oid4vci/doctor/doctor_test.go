package doctor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/appliance/oid4vci/refusal"
)

// The ring holds the latest cases, in order, and never more than its bound.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, n := rapid.IntRange(1, 20).Draw(t, "limit"), rapid.IntRange(0, 60).Draw(t, "n")
		r := New(limit)
		var ids []string
		for i := range n {
			ids = append(ids, r.Add("token", fmt.Sprint(i%3), refusal.New("invalid_grant", "", "", ""), time.Unix(int64(i), 0)))
		}
		all := r.Latest("", 1000)
		if len(all) != min(limit, n) {
			t.Fatalf("%d cases of %d in a ring of %d", len(all), n, limit)
		}
		for i, c := range all {
			if c.ID != ids[n-1-i] {
				t.Fatalf("case %d is out of order", i)
			}
			if found, ok := r.Find(c.ID); !ok || found != c {
				t.Fatal("a case cannot be found")
			}
		}
		for _, c := range r.Latest("1", 2) {
			if c.Offer != "1" {
				t.Fatal("another offer's case")
			}
		}
		if len(r.Latest("", 1)) > 1 || n > limit && len(ids) > 0 {
			if _, ok := r.Find(ids[0]); ok {
				t.Fatal("the oldest case is still there")
			}
		}
	})
}

// Requests of strangers, however many, do not drive out those on an offer; all are
// told in the order in which they came.
func TestStrangersFillTheirOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 5
		r := New(limit)
		var offers, unknown, both []string
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			offer := rapid.SampledFrom([]string{"", "", "", "a"}).Draw(t, "offer")
			id := r.Add("token", offer, refusal.New("invalid_grant", "", "", ""), time.Unix(0, 0))
			if offer == "" {
				unknown = append(unknown, id)
			} else {
				offers = append(offers, id)
			}
			both = append(both, id)
		}
		kept := map[string]bool{}
		for _, list := range [][]string{offers, unknown} {
			for _, id := range list[max(0, len(list)-limit):] {
				kept[id] = true
			}
		}
		want := slices.DeleteFunc(both, func(id string) bool { return !kept[id] })
		slices.Reverse(want)
		var got []string
		for _, c := range r.Latest("", 1000) {
			got = append(got, c.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		if n := len(r.Latest("a", 1000)); n != min(limit, len(offers)) {
			t.Fatalf("%d of the offer's %d", n, len(offers))
		}
	})
}

// Every code has advice of its own, in sentences.
func TestAdvice(t *testing.T) {
	for code, text := range advice {
		if !strings.HasSuffix(text, ".") || (Case{Code: code}).Advice() != text {
			t.Errorf("%s: %q", code, text)
		}
	}
	if (Case{Code: "new"}).Advice() == "" {
		t.Error("an unknown code has no advice")
	}
}

func TestBare(t *testing.T) {
	r := New(1)
	r.Add("credential", "", &refusal.Refusal{Status: 401, Bare: true}, time.Now())
	if c := r.Latest("", 1)[0]; c.Code != "unauthorized" || c.Status != 401 {
		t.Errorf("%+v", c)
	}
}
