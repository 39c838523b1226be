package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/store"
)

// pageOf is a list's answer.
type pageOf[T any] struct {
	Data       []T
	NextCursor string
}

// list reads one page.
func list[T any](t testing.TB, r *rig, path string) pageOf[T] {
	t.Helper()
	a := r.do(t, http.MethodGet, path, nil)
	if a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	var p pageOf[T]
	a.into(t, &p)
	return p
}

// code returns an offer's pre-authorized code, from its link by value.
func (c createdBody) code(t testing.TB) string {
	t.Helper()
	text, err := url.PathUnescape(c.URIByValue)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, `"pre-authorized_code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}

// TestReadOffer: an offer is shown without its secrets, at every stage.
func TestReadOffer(t *testing.T) {
	r := newRig(t, signertest.Options{})
	created := r.create(t, map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID),
		"transactionCodeConfiguration": map[string]any{"description": "From the letter"}})
	read := func() offerBody {
		t.Helper()
		a := r.do(t, http.MethodGet, offersPath+"/"+created.ID, nil)
		secret := created.URI[strings.LastIndex(created.URI, "%2F")+3:]
		for _, value := range []string{created.TransactionCode, created.code(t), secret, fmt.Sprint(claims(t, residenceID)["family_name"])} {
			if strings.Contains(string(a.body), value) {
				t.Errorf("a secret is shown: %s", a.body)
			}
		}
		var o offerBody
		a.into(t, &o)
		return o
	}
	o := read()
	if o.State != "made" || o.CreatedBy != "clerk" || o.ExpiresAt != created.ExpiresAt || *o.AttemptsLeft != 5 || o.FetchedAt != "" || len(o.Credentials) != 1 ||
		*o.TransactionCode != (codeBody{"numeric", 6, "From the letter"}) {
		t.Errorf("%+v", o)
	}
	wrong := "x"
	if _, err := r.store.Redeem(t.Context(), store.Redemption{Code: created.code(t), TransactionCode: &wrong, Lifetime: func([]string) time.Duration { return time.Minute }}); err == nil {
		t.Fatal("a wrong transaction code")
	}
	if o := read(); *o.AttemptsLeft != 4 {
		t.Errorf("%+v", o)
	}
	token, err := r.store.Redeem(t.Context(), store.Redemption{Code: created.code(t), TransactionCode: &created.TransactionCode, Lifetime: func([]string) time.Duration { return time.Minute }})
	if err != nil {
		t.Fatal(err)
	}
	if o := read(); o.State != "redeemed" || o.RedeemedAt == "" || o.FinishedAt != "" {
		t.Errorf("%+v", o)
	}
	grant, err := r.store.Grant(t.Context(), token.Token)
	if err != nil {
		t.Fatal(err)
	}
	defer grant.Release()
	if _, err := grant.Issue(t.Context(), residenceID, store.IssueRecord{Credentials: []store.Credential{{ID: "c-1", Configuration: residenceID, Version: "v", Key: "did-1", Intent: 7, Outcome: 8}}}); err != nil {
		t.Fatal(err)
	}
	o = read()
	if o.State != "issued" || o.FinishedAt == "" || len(o.IssuedCredentials) != 1 {
		t.Fatalf("%+v", o)
	}
	c := o.IssuedCredentials[0]
	if c.IssuedAt == "" {
		t.Error("no issuedAt")
	}
	if c.IssuedAt = ""; c != (credentialBody{ID: "c-1", Configuration: residenceID, Version: "v", Key: "did-1", Intent: 7, Outcome: 8}) {
		t.Errorf("%+v", c)
	}
	faulty(t, r.do(t, http.MethodDelete, offersPath+"/"+created.ID, nil), http.StatusConflict, "Conflict")
}

// TestCancelOffer: cancelled once; then its code is dead.
func TestCancelOffer(t *testing.T) {
	r := newRig(t, signertest.Options{})
	created := r.create(t, map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)})
	a := r.do(t, http.MethodDelete, offersPath+"/"+created.ID, nil)
	if a.status != http.StatusNoContent || len(a.body) > 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	faulty(t, r.do(t, http.MethodDelete, offersPath+"/"+created.ID, nil), http.StatusConflict, "Conflict")
	if _, err := r.store.Redeem(t.Context(), store.Redemption{Code: created.code(t), Lifetime: func([]string) time.Duration { return time.Minute }}); err == nil {
		t.Error("the code of a cancelled offer was redeemed")
	}
	var o offerBody
	r.do(t, http.MethodGet, offersPath+"/"+created.ID, nil).into(t, &o)
	if o.State != "cancelled" || o.FinishedAt == "" {
		t.Errorf("%+v", o)
	}
	other := strings.ToUpper(created.ID)
	for _, id := range []string{"x", other, created.ID[:35], "00000000-0000-8000-8000-000000000000", "%00"} {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			faulty(t, r.do(t, method, offersPath+"/"+id, nil), http.StatusNotFound, "NotFound")
		}
	}
}

// TestListOffers pages through offers, newest first, and filters by state.
func TestListOffers(t *testing.T) {
	r := newRig(t, signertest.Options{})
	if p := list[offerBody](t, r, offersPath); p.Data == nil || len(p.Data) != 0 || p.NextCursor != "" {
		t.Errorf("an empty list: %+v", p)
	}
	var ids []string
	for n := range 7 {
		created := r.create(t, map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)})
		ids = append(ids, created.ID)
		if n%3 == 0 {
			r.do(t, http.MethodDelete, offersPath+"/"+created.ID, nil)
		}
	}
	slices.Reverse(ids)
	var seen []string
	cursor, pages := "", 0
	for {
		p := list[offerBody](t, r, offersPath+"?limit=3&cursor="+cursor)
		for _, o := range p.Data {
			seen = append(seen, o.ID)
		}
		pages++
		if cursor = p.NextCursor; cursor == "" {
			break
		}
	}
	if !slices.Equal(seen, ids) || pages != 3 {
		t.Errorf("%d pages: %v, want %v", pages, seen, ids)
	}
	for state, n := range map[string]int{"cancelled": 3, "made": 4, "fetched": 0, "redeemed": 0, "issued": 0, "accepted": 0, "expired": 0, "locked": 0, "failed": 0} {
		p := list[offerBody](t, r, offersPath+"?state="+state)
		if len(p.Data) != n || slices.ContainsFunc(p.Data, func(o offerBody) bool { return o.State != state }) {
			t.Errorf("%s: %+v", state, p.Data)
		}
	}
	for query, param := range map[string]string{"state=gone": "state", "limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=-1": "limit", "cursor=x": "cursor", "cursor=AAAA%3D": "cursor"} {
		e := faulty(t, r.do(t, http.MethodGet, offersPath+"?"+query, nil), http.StatusBadRequest, "BadRequest")
		if e.params() != param || e.Details[0].Location != "query" {
			t.Errorf("%s: %+v", query, e.Details)
		}
	}
}

// TestEvents: what happened, newest first, by type and subject.
func TestEvents(t *testing.T) {
	r := newRig(t, signertest.Options{})
	created := r.create(t, map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)})
	r.do(t, http.MethodDelete, offersPath+"/"+created.ID, nil)
	p := list[eventBody](t, r, "/v1/events?subject="+created.ID)
	var kinds []string
	for _, e := range p.Data {
		kinds = append(kinds, e.Type)
		if _, err := time.Parse(time.RFC3339Nano, e.Timestamp); err != nil || e.Actor != "clerk" || e.Subject != created.ID || e.Seq < 1 {
			t.Errorf("%+v", e)
		}
	}
	if !slices.Equal(kinds, []string{"offer.cancelled", "offer.created"}) {
		t.Errorf("%v", kinds)
	}
	for query, n := range map[string]int{"type=offer.created": 1, "type=operator.added": 1, "type=operator.login": 1, "type=x": 0, "type=offer.created&subject=x": 0} {
		if p := list[eventBody](t, r, "/v1/events?"+query); len(p.Data) != n || p.Data == nil {
			t.Errorf("%s: %+v", query, p.Data)
		}
	}
	first := list[eventBody](t, r, "/v1/events?limit=1")
	second := list[eventBody](t, r, "/v1/events?limit=1&cursor="+first.NextCursor)
	if len(first.Data) != 1 || len(second.Data) != 1 || second.Data[0].Seq >= first.Data[0].Seq {
		t.Errorf("%+v %+v", first, second)
	}
	for query, param := range map[string]string{"limit=0": "limit", "cursor=x": "cursor"} {
		if e := faulty(t, r.do(t, http.MethodGet, "/v1/events?"+query, nil), http.StatusBadRequest, "BadRequest"); e.params() != param {
			t.Errorf("%s: %+v", query, e.Details)
		}
	}
}
