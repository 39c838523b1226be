package admin

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/store"
)

const deferredPath = "/v1/openid/deferred"

// wait makes an offer whose credential waits for an operator. It returns the
// access token, the transaction_id and what the queue has of it.
func (r *rig) wait(t testing.TB) (token, transaction string, d deferredBody) {
	t.Helper()
	created := r.create(t, map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)})
	token = r.redeem(t, created).Token
	g, err := r.store.Grant(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Release()
	if transaction, err = g.Defer(t.Context(), residenceID, store.Deferred{Holders: []byte("the holder's keys"), Interval: time.Minute}); err != nil {
		t.Fatal(err)
	}
	d = list[deferredBody](t, r, deferredPath+"?limit=1").Data[0]
	if d.OfferID != created.ID {
		t.Fatalf("%+v", d)
	}
	return token, transaction, d
}

// decide sends a decision.
func (r *rig) decide(t testing.TB, id, verb, body string) answer {
	t.Helper()
	if body == "" {
		return r.do(t, http.MethodPost, deferredPath+"/"+id+"/"+verb, nil)
	}
	return r.post(t, deferredPath+"/"+id+"/"+verb, body)
}

// TestDecide: an operator approves or refuses once, and the wallet learns of it.
func TestDecide(t *testing.T) {
	r := newRig(t, signertest.Options{})
	for name, c := range map[string]struct {
		verb, body, state, reason string
		wallet                    store.DeferredState
		offer                     string
	}{
		"approve":                 {"approve", "", "approved", "", store.DeferredApproved, "redeemed"},
		"approve, empty body":     {"approve", "{}", "approved", "", store.DeferredApproved, "redeemed"},
		"refuse":                  {"refuse", "", "refused", "", store.DeferredRefused, "failed"},
		"refuse with a reason":    {"refuse", `{"reason":"nicht im Register gefunden: Größe 200"}`, "refused", "nicht im Register gefunden: Größe 200", store.DeferredRefused, "failed"},
		"refuse with the longest": {"refuse", `{"reason":"` + strings.Repeat("é", 200) + `"}`, "refused", strings.Repeat("é", 200), store.DeferredRefused, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			token, transaction, d := r.wait(t)
			if d.State != "pending" || d.DecidedAt != "" || d.DecidedBy != "" || d.Configuration != residenceID || d.RequestedAt == "" {
				t.Errorf("%+v", d)
			}
			a := r.decide(t, d.ID, c.verb, c.body)
			var decided, read deferredBody
			a.into(t, &decided)
			r.do(t, http.MethodGet, deferredPath+"/"+d.ID, nil).into(t, &read)
			if a.status != http.StatusOK || decided != read || decided.State != c.state || decided.Reason != c.reason || decided.DecidedBy != "clerk" || decided.DecidedAt == "" {
				t.Errorf("%d %+v %+v", a.status, decided, read)
			}
			for _, secret := range []string{token, transaction, "the holder's keys", claims(t, residenceID)["family_name"].(string)} {
				if strings.Contains(string(a.body), secret) {
					t.Errorf("a secret is shown: %s", a.body)
				}
			}
			g := r.grant(t, token)
			if got, err := g.Transaction(t.Context(), transaction); err != nil || got.State != c.wallet {
				t.Errorf("%+v %v", got, err)
			}
			if o := r.read(t, d.OfferID); o.State != c.offer {
				t.Errorf("the offer is %s", o.State)
			}
			events := list[eventBody](t, r, "/v1/events?type=deferred."+c.state+"&subject="+d.OfferID).Data
			if len(events) != 1 || events[0].Actor != "clerk" || events[0].Data["deferred"] != d.ID || events[0].Data["reason"] != "" {
				t.Errorf("%+v", events)
			}
			for _, verb := range []string{"approve", "refuse"} {
				faulty(t, r.decide(t, d.ID, verb, ""), http.StatusConflict, "Conflict")
			}
		})
	}
}

// TestDecideFaults: a decision that is not understood decides nothing.
func TestDecideFaults(t *testing.T) {
	r := newRig(t, signertest.Options{})
	_, _, d := r.wait(t)
	for body, param := range map[string]string{
		`{"reason":1}`: "reason", `{"reason":null}`: "reason", `{"reason":"a\nb"}`: "reason", `{"reason":"\u001b[2J"}`: "reason", `{"reason":"` + strings.Repeat("é", 201) + `"}`: "reason",
		`{"reasons":"x"}`: "reasons", `{"reason":"a","reason":"b"}`: "body", `[]`: "body", `"x"`: "body", ` `: "body",
	} {
		if e := faulty(t, r.decide(t, d.ID, "refuse", body), http.StatusBadRequest, "BadRequest"); e.params() != param || e.Details[0].Location != "body" {
			t.Errorf("%s: %+v", body, e.Details)
		}
	}
	if e := faulty(t, r.decide(t, d.ID, "approve", `{"reason":"x"}`), http.StatusBadRequest, "BadRequest"); e.params() != "reason" {
		t.Errorf("%+v", e.Details)
	}
	faulty(t, r.do(t, http.MethodPost, deferredPath+"/"+d.ID+"/refuse", strings.NewReader("reason=x"), "Content-Type", "application/x-www-form-urlencoded"), http.StatusUnsupportedMediaType, "UnsupportedMediaType")
	faulty(t, r.do(t, http.MethodPost, deferredPath+"/"+d.ID+"/approve", nil, "Authorization", ""), http.StatusUnauthorized, "Unauthorized")
	for _, id := range []string{"x", strings.ToUpper(d.ID), d.OfferID, "00000000-0000-8000-8000-000000000000", "%00"} {
		faulty(t, r.do(t, http.MethodGet, deferredPath+"/"+id, nil), http.StatusNotFound, "NotFound")
		for _, verb := range []string{"approve", "refuse"} {
			faulty(t, r.decide(t, id, verb, ""), http.StatusNotFound, "NotFound")
		}
	}
	var still deferredBody
	r.do(t, http.MethodGet, deferredPath+"/"+d.ID, nil).into(t, &still)
	if still != d {
		t.Errorf("%+v", still)
	}
}

// TestDecideOfAnEnded: what ends with its offer cannot be decided any more.
func TestDecideOfAnEnded(t *testing.T) {
	r := newRig(t, signertest.Options{})
	token, transaction, d := r.wait(t)
	r.do(t, http.MethodDelete, offersPath+"/"+d.OfferID, nil)
	faulty(t, r.decide(t, d.ID, "approve", ""), http.StatusConflict, "Conflict")
	var ended deferredBody
	r.do(t, http.MethodGet, deferredPath+"/"+d.ID, nil).into(t, &ended)
	if ended.State != "ended" || ended.DecidedBy != "" {
		t.Errorf("%+v", ended)
	}
	if _, err := r.store.Grant(t.Context(), token); !errors.Is(err, store.ErrToken) || transaction == "" {
		t.Errorf("%v", err)
	}
}

// TestListDeferred pages through the queue, newest first, and filters by state.
func TestListDeferred(t *testing.T) {
	r := newRig(t, signertest.Options{})
	if p := list[deferredBody](t, r, deferredPath); p.Data == nil || len(p.Data) != 0 || p.NextCursor != "" {
		t.Errorf("an empty queue: %+v", p)
	}
	var ids []string
	for n := range 7 {
		token, transaction, d := r.wait(t)
		ids = append(ids, d.ID)
		switch n {
		case 0, 1:
			r.decide(t, d.ID, "approve", "")
		case 2:
			r.decide(t, d.ID, "refuse", "")
		case 3:
			r.do(t, http.MethodDelete, offersPath+"/"+d.OfferID, nil)
		}
		if n == 0 {
			fetch(t, r, token, transaction)
		}
	}
	slices.Reverse(ids)
	var seen []string
	cursor, pages := "", 0
	for pages == 0 || cursor != "" {
		p := list[deferredBody](t, r, deferredPath+"?limit=3&cursor="+cursor)
		for _, d := range p.Data {
			seen = append(seen, d.ID)
		}
		cursor, pages = p.NextCursor, pages+1
	}
	if !slices.Equal(seen, ids) || pages != 3 {
		t.Errorf("%d pages: %v, want %v", pages, seen, ids)
	}
	for state, n := range map[string]int{"pending": 3, "approved": 1, "refused": 1, "issued": 1, "ended": 1} {
		p := list[deferredBody](t, r, deferredPath+"?state="+state)
		if len(p.Data) != n || slices.ContainsFunc(p.Data, func(d deferredBody) bool { return d.State != state }) {
			t.Errorf("%s: %+v", state, p.Data)
		}
	}
	for query, param := range map[string]string{"state=made": "state", "limit=0": "limit", "limit=x": "limit", "cursor=x": "cursor"} {
		if e := faulty(t, r.do(t, http.MethodGet, deferredPath+"?"+query, nil), http.StatusBadRequest, "BadRequest"); e.params() != param || e.Details[0].Location != "query" {
			t.Errorf("%s: %+v", query, e.Details)
		}
	}
}

// fetch takes an approved credential, as a wallet that polls.
func fetch(t testing.TB, r *rig, token, transaction string) {
	t.Helper()
	g := r.grant(t, token)
	approved, err := g.Transaction(t.Context(), transaction)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Complete(t.Context(), approved, []store.Credential{{ID: "c-1", Configuration: residenceID, Version: "v", Key: "did-1"}}); err != nil {
		t.Fatal(err)
	}
}
