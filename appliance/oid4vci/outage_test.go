package oid4vci

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance"
)

// signertestIssuer is the least that an issuer without a signer needs.
var signertestIssuer = config.Issuer{Identifier: signertest.Issuer}

// away checks a 503 with Retry-After, check 331.
func takeAway(t *testing.T, a answer) {
	t.Helper()
	refused(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
}

// TestTokenAway: without the token, or without the signer, issuing answers 503
// and spends nothing; with it, the very same request gets its credential.
func TestTokenAway(t *testing.T) {
	r := newRig(t, rigOptions{signer: signertest.Options{Faults: true}})
	h := newHolder(t, issuance.ES256)
	for name, c := range map[string]struct{ take, giveBack func() }{
		"token gone":     {func() { r.signer.Fault.Order(t, "gone 0x32") }, func() { r.signer.Fault.Order(t) }},
		"signer stopped": {func() { _ = r.signer.Stop(t) }, func() { r.signer.Start(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			o := r.offer(t, &store.TxCode{InputMode: "numeric", Length: 6}, pidID)
			token := r.token(t, r.offer(t, nil, pidID))
			proof := r.good(t, h, r.nonce(t))
			c.take()
			for range 2 {
				takeAway(t, r.ask(t, token, request(pidID, proof)))
			}
			if err := r.Refresh(t.Context()); name == "signer stopped" && err == nil {
				t.Error("a refresh without a signer")
			}
			if a := r.get(t, "/.well-known/openid-credential-issuer"); a.status != http.StatusOK || !strings.Contains(string(a.body), `"ES256"`) {
				t.Errorf("metadata: %d %s", a.status, a.body)
			}
			r.nonce(t)
			r.token(t, o, "tx_code", o.TransactionCode) // needs the data key, which is open
			c.giveBack()
			r.eventually(t, func() bool {
				a := r.ask(t, token, request(pidID, proof))
				if a.status == http.StatusServiceUnavailable {
					return false
				}
				r.judge(t, credential(t, a), h)
				return true
			})
		})
	}
}

// eventually waits for what takes its time.
func (r *rig) eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the signer did not come back")
		}
	}
}

// TestKeysUnknown: before the first Refresh, and for a key that the signer does
// not have, issuing answers 503.
func TestKeysUnknown(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	token := r.token(t, r.offer(t, nil, pidID))
	proof := r.good(t, h, r.nonce(t))
	p, err := r.publish(wire.IdentitiesResponse{})
	if err != nil {
		t.Fatal(err)
	}
	r.published.Store(p)
	takeAway(t, r.ask(t, token, request(pidID, proof)))
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	credential(t, r.ask(t, token, request(pidID, proof)))
}

// TestRestart: a token survives a restart between token and credential, check
// 333; a nonce does not, and the wallet is told to fetch another one.
func TestRestart(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	token := r.token(t, r.offer(t, nil, pidID))
	proof := r.good(t, h, r.nonce(t))
	r.Issuer = newIssuer(t, r.signer.Config.Issuer, Options{Store: r.store, Signer: r.signer.Sign, Now: r.now})
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.client = serve(t, r.Handler())
	refused(t, r.ask(t, token, request(pidID, proof)), 400, "invalid_nonce")
	r.judge(t, credential(t, r.ask(t, token, request(pidID, r.good(t, h, r.nonce(t))))), h)
}

// TestWalletLeaves: a wallet that hangs up while its credential is signed
// changes nothing of what is recorded.
func TestWalletLeaves(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	o := r.offer(t, nil, pidID)
	token := r.token(t, o)
	body := `{"credential_configuration_id":"` + pidID + `","proofs":{"jwt":["` + r.good(t, h, r.nonce(t)) + `"]}}`
	grant, err := r.store.Grant(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	defer grant.Release()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	q := httptest.NewRequest(http.MethodPost, r.identifier+"/credential", nil).WithContext(ctx)
	q.Header.Set("Content-Type", jsonType)
	if _, err := r.issue(&call{r: q}, grant, []byte(body)); err != nil {
		t.Fatal(err)
	}
	r.checkRecord(t, o.ID)
}

// TestOutcomes: what Observe is told for the metrics.
func TestOutcomes(t *testing.T) {
	r := newRig(t, rigOptions{})
	told := func(want string) {
		t.Helper()
		for {
			select {
			case got := <-r.outcomes:
				if got == want {
					return
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("%q was not told", want)
			}
		}
	}
	h := newHolder(t, issuance.ES256)
	o := r.offer(t, nil, pidID)
	r.get(t, "/.well-known/openid-credential-issuer")
	told("metadata ok")
	r.get(t, "/.well-known/oauth-authorization-server", "If-None-Match", "*")
	told("as_metadata not_modified")
	r.get(t, "/offers/"+o.URISecret)
	told("offer ok")
	token := r.token(t, o)
	told("token ok")
	r.get(t, "/offers/"+o.URISecret)
	told("offer gone")
	r.form(t)
	told("token invalid_request")
	r.post(t, "/credential", "")
	told("credential unauthorized")
	r.ask(t, token, request("x"))
	told("credential unknown_credential_configuration")
	credential(t, r.ask(t, token, request(pidID, r.good(t, h, r.nonce(t)))))
	told("nonce ok")
	told("credential ok")
	r.get(t, "/.well-known/did.json")
	told("did ok")
	r.get(t, "/crl/x")
	told("crl not_found")
}

// TestAsRefusal: what is not the wallet's fault is told without its details.
func TestAsRefusal(t *testing.T) {
	i, _ := unsigned(t, signertestIssuer)
	q := httptest.NewRequest(http.MethodPost, "/credential", nil)
	for name, c := range map[string]struct {
		err        error
		status     int
		code       string
		retryAfter int
	}{
		"busy":        {&wire.Error{Code: wire.CodeBusy, Message: "slot 3", RetryAfter: 7}, 503, "temporarily_unavailable", 7},
		"unavailable": {&wire.Error{Code: wire.CodeUnavailable, Message: "slot 3"}, 503, "temporarily_unavailable", 5},
		"internal":    {&wire.Error{Code: wire.CodeInternal, Message: "slot 3"}, 503, "temporarily_unavailable", 5},
		"key away":    {errors.Join(store.ErrKeyAway, errors.New("slot 3")), 503, "temporarily_unavailable", 5},
		"token":       {store.ErrToken, 401, "invalid_token", 0},
		"other":       {errors.New("disk /dev/x is full"), 500, "server_error", 0},
	} {
		e := i.asRefusal(&call{r: q}, c.err)
		if e.Status != c.status || e.Code != c.code || e.RetryAfter != c.retryAfter || strings.Contains(e.Description, "slot") || strings.Contains(e.Description, "/dev") {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
