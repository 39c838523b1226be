package oid4vci

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance"
)

// TestWrongSignature: what comes back from the signer must be a signature by the
// key that the configuration names; otherwise nothing is handed out, and nothing
// is spent (promise P2).
func TestWrongSignature(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	o := r.offer(t, nil, pidID)
	token := r.token(t, o)
	proof := r.good(t, h, r.nonce(t))
	answer, err := r.signer.Sign.Identities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n, id := range answer.Identities {
		if id.Label == "cs-1" {
			answer.Identities[n].PublicKey = r.signer.Identity(t, "ds-1").PublicKey
		}
	}
	answer.Generation-- // an older list: the next refresh replaces it
	p, err := r.publish(answer)
	if err != nil {
		t.Fatal(err)
	}
	r.published.Store(p)
	refused(t, r.ask(t, token, request(pidID, proof)), http.StatusInternalServerError, "server_error")
	if got, err := r.store.Offer(t.Context(), o.ID); err != nil || got.State != store.Redeemed || len(got.Credentials) != 0 {
		t.Errorf("%+v %v", got, err)
	}
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.judge(t, credential(t, r.ask(t, token, request(pidID, proof))), h)
}

// TestCancelledMeanwhile: an offer that ends while its credential is signed
// gives nothing away, and both the store and the log know of the credential.
func TestCancelledMeanwhile(t *testing.T) {
	for _, bound := range []bool{false, true} {
		t.Run(fmt.Sprintf("bound %v", bound), func(t *testing.T) { cancelledMeanwhile(t, bound) })
	}
}

// cancelledMeanwhile does it with a token that is bound to a key, or with none.
func cancelledMeanwhile(t *testing.T, bound bool) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	o := r.offer(t, nil, pidID)
	grant, err := r.store.Grant(t.Context(), r.token(t, o))
	if err != nil {
		t.Fatal(err)
	}
	defer grant.Release()
	bind(grant, bound)
	if err := r.store.CancelOffer(t.Context(), o.ID, "test"); err != nil {
		t.Fatal(err)
	}
	q := httptest.NewRequest(http.MethodPost, r.identifier+"/credential", nil)
	q.Header.Set("Content-Type", jsonType)
	nonce := r.nonce(t)
	body := []byte(`{` + byID + `,"proofs":{"jwt":["` + r.good(t, h, nonce) + `"]}}`)
	var e *refusal.Refusal
	if answer, err := r.issue(&call{r: q}, grant, body); !errors.As(err, &e) || e.Code != "invalid_token" || e.Challenge != invalidChallenge(bound) || answer != nil {
		t.Fatalf("%+v %v", answer, err)
	}
	made := slices.DeleteFunc(r.signer.Entries(t, audit.KindMade), func(e audit.Entry) bool { return e.Key != "cs-1" })
	events, _, err := r.store.Events(t.Context(), store.EventFilter{Kind: "credential.withheld", Subject: o.ID}, 10, "")
	if err != nil || len(events) != 1 || len(made) != 1 || events[0].Detail["credential"] != made[0].Credential {
		t.Errorf("%+v %+v %v", events, made, err)
	}
	// The nonce was not used.
	credential(t, r.ask(t, r.token(t, r.offer(t, nil, pidID)), request(pidID, r.good(t, h, nonce))))
}

// bind makes a grant one of a token that is bound to some key, or leaves it.
func bind(grant *store.Grant, bound bool) {
	if bound {
		grant.JKT = make([]byte, 32)
	}
}

// invalidChallenge is the challenge for a token that ended (RFC 6750 §3, RFC 9449 §7.1).
func invalidChallenge(bound bool) string {
	const parameters = `error="invalid_token", error_description="the access token is not valid"`
	if bound {
		return `DPoP ` + parameters + `, algs="ES256 ES384 ES512 EdDSA"`
	}
	return `Bearer ` + parameters
}

// TestChallengeScheme: a token is refused in the scheme that it belongs to.
func TestChallengeScheme(t *testing.T) {
	r := newRig(t, rigOptions{})
	grant, err := r.store.Grant(t.Context(), r.token(t, r.offer(t, nil, pidID)))
	if err != nil {
		t.Fatal(err)
	}
	defer grant.Release()
	for _, bound := range []bool{false, true} {
		c := &call{r: httptest.NewRequest(http.MethodPost, r.identifier+"/credential", nil), bound: bound}
		if e := r.asRefusal(c, store.ErrToken); e.Status != http.StatusUnauthorized || e.Challenge != invalidChallenge(bound) {
			t.Errorf("ended: %+v", e)
		}
		want := `Bearer error="insufficient_scope"`
		if bound {
			want = `DPoP error="insufficient_scope", algs="ES256 ES384 ES512 EdDSA"`
		}
		bind(grant, bound)
		var e *refusal.Refusal
		if _, err := r.requested(map[string]any{"credential_configuration_id": mdlID}, grant); !errors.As(err, &e) || e.Challenge != want {
			t.Errorf("not covered: %+v", e)
		}
	}
}

// TestSignerExpired: a certificate that has run out is for an operator to renew;
// the wallet is told to come again, and the offer stays.
func TestSignerExpired(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	r.ahead.Store(int64(401 * 24 * time.Hour))
	o := r.offer(t, nil, pidID)
	a := r.ask(t, r.token(t, o), request(pidID, r.good(t, h, r.nonce(t))))
	takeAway(t, a)
	if got, err := r.store.Offer(t.Context(), o.ID); err != nil || got.State != store.Redeemed || a.header.Get("Retry-After") != "60" {
		t.Errorf("%+v %v %v", got, err, a.header)
	}
}

// TestBusy: the signer's "not now" leaves the offer, its "never" ends it.
func TestBusy(t *testing.T) {
	r := newRig(t, rigOptions{})
	for name, c := range map[string]struct {
		err  error
		ends bool
	}{
		"busy":            {&wire.Error{Code: wire.CodeBusy, RetryAfter: 1}, false},
		"refused for now": {&wire.Error{Code: wire.CodeRefused, RetryAfter: 1}, false},
		"refused":         {&wire.Error{Code: wire.CodeRefused}, true},
		"unknown key":     {&wire.Error{Code: wire.CodeUnknownKey}, false},
		"another failure": {io.ErrUnexpectedEOF, false},
	} {
		o := r.offer(t, nil, pidID)
		grant, err := r.store.Grant(t.Context(), r.token(t, o))
		if err != nil {
			t.Fatal(err)
		}
		got := r.signFailed(t.Context(), grant, c.err)
		grant.Release()
		after, err := r.store.Offer(t.Context(), o.ID)
		if err != nil || (after.State == store.Failed) != c.ends || errors.Is(got, c.err) == c.ends {
			t.Errorf("%s: %v, offer %v, %v", name, got, after.State, err)
		}
	}
}

// TestNew: what an issuer cannot be made of.
func TestNew(t *testing.T) {
	yes := true
	settings := config.Issuer{Identifier: "https://issuer.example.com", AnonymousAccess: &yes}
	all := examples(t)
	if _, err := New(Options{Issuer: settings, Configurations: append(all, all[0])}); err == nil {
		t.Error("a configuration twice")
	}
	settings.Identifier = "https://issuer.example.com/%zz"
	if _, err := New(Options{Issuer: settings}); err == nil {
		t.Error("an identifier that is no URL")
	}
	settings.Identifier = "https://issuer.example.com"
	i, err := New(Options{Issuer: settings, Configurations: all})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(i.Configurations(), all) || time.Since(i.now()) > time.Minute {
		t.Error("another order or clock")
	}
	i.observe("x", "y", 0) // nobody listens
}

// TestBodyBreaksOff: a body that does not arrive is a 400 with the endpoint's code.
func TestBodyBreaksOff(t *testing.T) {
	for _, length := range []int64{-1, 100} {
		q := httptest.NewRequest(http.MethodPost, "/credential", io.MultiReader(io.LimitReader(zeros{}, 10), brokenOff{}))
		q.ContentLength = length
		var e *refusal.Refusal
		if _, err := readBody(q, 1000, "invalid_credential_request"); !errors.As(err, &e) || e.Status != 400 || e.Code != "invalid_credential_request" {
			t.Errorf("length %d: %v", length, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// brokenOff is a sender who is gone.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
