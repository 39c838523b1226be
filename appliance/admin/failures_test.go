package admin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/signer/signertest"
)

const failuresPath = "/v1/openid/failures"

// TestFailures: what was wrong with wallets' requests, newest first.
func TestFailures(t *testing.T) {
	r := newRig(t, signertest.Options{})
	if p := list[failureBody](t, r, failuresPath); p.Data == nil || len(p.Data) != 0 {
		t.Errorf("none yet: %+v", p)
	}
	at := time.Date(2026, 11, 25, 16, 56, 42, 5e6+999, time.UTC)
	id := r.doctor.Add("credential", "offer-1", refusal.New("invalid_proof", "proofs.jwt[0] header typ", "typ must be openid4vci-proof+jwt", "OpenID4VCI 1.0 App. F.1"), at)
	var one failureBody
	r.do(t, http.MethodGet, failuresPath+"/"+id, nil).into(t, &one)
	advice := one.Advice
	if !strings.HasPrefix(advice, "The wallet did not prove its key") {
		t.Errorf("%q", advice)
	}
	if want := (failureBody{id, "2026-11-25T16:56:42.005Z", "credential", "offer-1", 400, "invalid_proof", "typ must be openid4vci-proof+jwt", "proofs.jwt[0] header typ", "OpenID4VCI 1.0 App. F.1", advice}); one != want {
		t.Errorf("%+v", one)
	}
	for n := range 9 { // one more than are kept
		r.doctor.Add("token", fmt.Sprintf("offer-%d", 2+n%2), &refusal.Refusal{Status: http.StatusUnauthorized, Bare: true}, at)
	}
	faulty(t, r.do(t, http.MethodGet, failuresPath+"/"+id, nil), http.StatusNotFound, "NotFound")
	for query, n := range map[string]int{"": 8, "?limit=3": 3, "?offerId=offer-2": 4, "?offerId=offer-3": 4, "?offerId=offer-3&limit=1": 1, "?offerId=offer-1": 0, "?offerId=%00": 0} {
		p := list[failureBody](t, r, failuresPath+query)
		if len(p.Data) != n || p.Data == nil || p.NextCursor != "" {
			t.Errorf("%q: %+v", query, p)
		}
		for _, f := range p.Data {
			if f.Error != "unauthorized" || f.Status != 401 || f.Advice == "" || f.Description != "" {
				t.Errorf("%+v", f)
			}
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x"} {
		if e := faulty(t, r.do(t, http.MethodGet, failuresPath+"?"+query, nil), http.StatusBadRequest, "BadRequest"); e.params() != "limit" {
			t.Errorf("%s: %+v", query, e.Details)
		}
	}
	for _, path := range []string{"", "/x"} {
		faulty(t, r.do(t, http.MethodGet, failuresPath+path, nil, "Authorization", ""), http.StatusUnauthorized, "Unauthorized")
	}
}
