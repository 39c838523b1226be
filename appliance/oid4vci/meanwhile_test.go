package oid4vci

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance"
)

// TestDeferredMeanwhile: an operator's cancellation or refusal that overtakes a
// request is told as what it is, and is no fault of the appliance.
func TestDeferredMeanwhile(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.configurations[pidID].Approval, r.configurations[pidID].Poll = true, time.Minute
	h := newHolder(t, issuance.ES256)
	cancel := func(o store.Created) error { return r.store.CancelOffer(t.Context(), o.ID, "test") }
	refuse := func(o store.Created) error {
		waiting, _, err := r.store.ListDeferred(t.Context(), nil, 1, "")
		if err != nil || len(waiting) != 1 || waiting[0].Offer != o.ID {
			t.Fatalf("%+v %v", waiting, err)
		}
		return r.store.DecideDeferred(t.Context(), waiting[0].ID, false, "", "test")
	}
	for name, c := range map[string]struct {
		before bool // it was deferred before
		happen func(o store.Created) error
		bound  bool // to a key
		code   string
	}{
		"cancelled":                    {false, cancel, false, "invalid_token"},
		"cancelled, bound to a key":    {false, cancel, true, "invalid_token"},
		"cancelled when it is waiting": {true, cancel, false, "credential_request_denied"},
		"refused when it is waiting":   {true, refuse, false, "credential_request_denied"},
	} {
		o := r.offer(t, nil, pidID)
		token := r.token(t, o)
		proof := r.good(t, h, r.nonce(t))
		ask := request(pidID, proof)
		if c.before {
			if a := r.ask(t, token, ask); a.status != http.StatusAccepted {
				t.Fatalf("%s: %d %s", name, a.status, a.body)
			}
		}
		grant, err := r.store.Grant(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		bind(grant, c.bound)
		if err := c.happen(o); err != nil {
			t.Fatal(err)
		}
		ask["proofs"] = map[string]any{"jwt": []any{proof}}
		_, err = r.issueAs(t.Context(), r.configurations[pidID], grant, ask, draft{})
		grant.Release()
		var e *refusal.Refusal
		if !errors.As(r.asRefusal(&call{r: httptest.NewRequest(http.MethodPost, r.identifier+"/credential", nil)}, err), &e) || e.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if e != nil && e.Code == "invalid_token" && e.Challenge != invalidChallenge(c.bound) {
			t.Errorf("%s: %s", name, e.Challenge)
		}
	}
}

// TestAnotherDIDOfTheSameKey: a credential names its holder by the DID of the
// proof, so that a repeated one must be by the same DID.
func TestAnotherDIDOfTheSameKey(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	by := func(method string) map[string]any {
		return request(residenceID, h.proof(t, r.identifier, r.nonce(t), r.now(), func(header, _ map[string]any) {
			delete(header, "jwk")
			header["kid"] = h.kid(t, method)
		}))
	}
	token := r.token(t, r.offer(t, nil, residenceID))
	for _, method := range []string{"did:key", "did:key"} {
		if a := r.ask(t, token, by(method)); a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", method, a.status, a.body)
		}
	}
	refused(t, r.ask(t, token, by("did:jwk")), 400, "credential_request_denied")
}
