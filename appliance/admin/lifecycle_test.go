package admin

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/store"
)

// forAnHour is a token's lifetime.
func forAnHour([]string) time.Duration { return time.Hour }

// redeem exchanges an offer's code and returns the access token.
func (r *rig) redeem(t testing.TB, created createdBody, change ...func(*store.Redemption)) store.RedeemedToken {
	t.Helper()
	redemption := store.Redemption{Code: created.code(t), Lifetime: forAnHour}
	for _, c := range change {
		c(&redemption)
	}
	token, err := r.store.Redeem(t.Context(), redemption)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// grant reads a token's grant. Nobody else uses the token, so that it needs not
// be held.
func (r *rig) grant(t testing.TB, token string) *store.Grant {
	t.Helper()
	g, err := r.store.NotificationGrant(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	g.Release()
	return g
}

// issue records a credential and returns its notification_id.
func issue(t testing.TB, g *store.Grant, id, configuration string, intent int64) string {
	t.Helper()
	notification, err := g.Issue(t.Context(), configuration, store.IssueRecord{Credentials: []store.Credential{
		{ID: id, Configuration: configuration, Version: "v", Key: "did-1", Intent: intent, Outcome: intent + 1}}})
	if err != nil {
		t.Fatal(err)
	}
	return notification
}

// both is an offer of two configurations.
func both(t testing.TB) map[string]any {
	all := claims(t, pidID)
	for name, value := range claims(t, residenceID) {
		all[name] = value
	}
	return map[string]any{"credentials": []string{pidID, residenceID}, "claims": all}
}

// read returns one offer, and fails when a secret is shown.
func (r *rig) read(t testing.TB, id string, secrets ...string) offerBody {
	t.Helper()
	a := r.do(t, http.MethodGet, offersPath+"/"+id, nil)
	for _, s := range secrets {
		if s == "" || strings.Contains(string(a.body), s) {
			t.Errorf("a secret is shown: %s", a.body)
		}
	}
	var o offerBody
	a.into(t, &o)
	return o
}

// TestNotifications: what wallets have told is shown, and the offer's state with it.
func TestNotifications(t *testing.T) {
	r := newRig(t, signertest.Options{})
	created := r.create(t, both(t))
	token := r.redeem(t, created)
	g := r.grant(t, token.Token)
	pid, residence := issue(t, g, "c-1", pidID, 7), issue(t, g, "c-2", residenceID, 9)
	if o := r.read(t, created.ID, pid, residence, token.Token); o.State != "issued" || o.Notifications != nil {
		t.Errorf("%+v", o)
	}
	for _, id := range []string{residence, pid} {
		if err := r.store.Notify(t.Context(), g, id, store.CredentialAccepted); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.store.Notify(t.Context(), g, pid, store.CredentialDeleted); err != nil {
		t.Fatal(err)
	}
	o := r.read(t, created.ID, pid, residence, token.Token)
	told := map[string]string{}
	for _, n := range o.Notifications {
		if at, err := time.Parse(time.RFC3339, n.NotifiedAt); err != nil || time.Since(at) > time.Hour {
			t.Errorf("%+v", n)
		}
		told[n.Configuration] += " " + n.Event
	}
	if o.State != "accepted" || len(o.Notifications) != 3 || told[residenceID] != " credential_accepted" || told[pidID] != " credential_accepted credential_deleted" {
		t.Errorf("%s %+v", o.State, o.Notifications)
	}
	p := list[offerBody](t, r, offersPath+"?state=accepted")
	if len(p.Data) != 1 || p.Data[0].ID != created.ID || p.Data[0].Notifications != nil || p.Data[0].IssuedCredentials != nil {
		t.Errorf("%+v", p.Data)
	}
}

// TestRepeated: each signature of a credential is shown, with its entries in the
// audit log.
func TestRepeated(t *testing.T) {
	r := newRig(t, signertest.Options{})
	created := r.create(t, map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)})
	token := r.redeem(t, created)
	issue(t, r.grant(t, token.Token), "c-1", residenceID, 7)
	g := r.grant(t, token.Token)
	again, err := g.Repeat(t.Context(), residenceID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Reissue(t.Context(), again, []store.Credential{{ID: "c-1", Configuration: residenceID, Version: "v", Key: "did-1", Intent: 11, Outcome: 12}}); err != nil {
		t.Fatal(err)
	}
	o := r.read(t, created.ID, token.Token)
	if len(o.IssuedCredentials) != 2 {
		t.Fatalf("%+v", o.IssuedCredentials)
	}
	for n, c := range o.IssuedCredentials {
		c.IssuedAt = ""
		intent := int64(7 + 4*n)
		if c != (credentialBody{ID: "c-1", Configuration: residenceID, Version: "v", Key: "did-1", Repeat: n, Intent: intent, Outcome: intent + 1}) {
			t.Errorf("signature %d: %+v", n, c)
		}
	}
}

// TestRefreshToken: its end is shown while it lives, and such an offer can be
// cancelled although it was issued.
func TestRefreshToken(t *testing.T) {
	r := newRig(t, signertest.Options{})
	created := r.create(t, map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)})
	before := time.Now()
	token := r.redeem(t, created, func(o *store.Redemption) {
		o.JKT, o.Refresh = make([]byte, 32), func([]string) time.Duration { return 48 * time.Hour }
	})
	issue(t, r.grant(t, token.Token), "c-1", residenceID, 7)
	o := r.read(t, created.ID, token.Token, token.RefreshToken)
	end, err := time.Parse(time.RFC3339, o.RefreshTokenExpiresAt)
	if err != nil || o.State != "issued" || end.Before(before.Add(48*time.Hour-time.Second)) || end.After(time.Now().Add(48*time.Hour)) {
		t.Errorf("%+v", o)
	}
	if a := r.do(t, http.MethodDelete, offersPath+"/"+created.ID, nil); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	if o := r.read(t, created.ID); o.State != "cancelled" || o.RefreshTokenExpiresAt != "" {
		t.Errorf("%+v", o)
	}
}

// TestRequirements: what the redeeming client has to fulfil is kept and shown.
func TestRequirements(t *testing.T) {
	r := newRig(t, signertest.Options{})
	const client = "https://wallet.example/~a b"
	for name, c := range map[string]struct {
		body map[string]any
		want *requirementsBody
	}{
		"nothing":        {map[string]any{}, nil},
		"nothing, said":  {map[string]any{"clientId": nil, "clientAuthenticationRequired": false}, nil},
		"a client":       {map[string]any{"clientId": client}, &requirementsBody{ClientID: client}},
		"authentication": {map[string]any{"clientAuthenticationRequired": true}, &requirementsBody{ClientAuthenticationRequired: true}},
		"both":           {map[string]any{"clientId": strings.Repeat("~", 512), "clientAuthenticationRequired": true}, &requirementsBody{strings.Repeat("~", 512), true}},
	} {
		t.Run(name, func(t *testing.T) {
			c.body["credentials"], c.body["claims"] = []string{residenceID}, claims(t, residenceID)
			created := r.create(t, c.body)
			got := r.read(t, created.ID).Requirements
			if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
				t.Errorf("%+v", got)
			}
			first := list[offerBody](t, r, offersPath+"?limit=1").Data[0]
			if first.ID != created.ID || (first.Requirements == nil) != (c.want == nil) {
				t.Errorf("in the list: %+v", first)
			}
			if c.want == nil {
				return
			}
			if _, err := r.store.Redeem(t.Context(), store.Redemption{Code: created.code(t), Client: "another", Lifetime: forAnHour}); err == nil {
				t.Error("another client redeemed")
			}
			r.redeem(t, created, func(o *store.Redemption) {
				o.Client, o.Authenticated = c.want.ClientID, c.want.ClientAuthenticationRequired
			})
		})
	}
	t.Run("no way to authenticate", func(t *testing.T) {
		config := r.config(t)
		config.ClientAuthentication = false
		var request createRequest
		members, err := decodeBytes([]byte(`{"credentials":["`+residenceID+`"],"claims":`+signertest.Example(t, "claims/"+residenceID+".json")+`,"clientAuthenticationRequired":true}`), &request)
		if err == nil {
			_, err = (&api{Config: config}).offer(request, members["claims"], store.Operator{})
		}
		if e, ok := err.(*Error); !ok || e.params() != "clientAuthenticationRequired" {
			t.Errorf("%v", err)
		}
	})
}
