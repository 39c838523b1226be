package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestBoundOffers redeems offers that ask for a client with clients that are not
// it: nothing is spent, not even an attempt, and the right one still gets its token.
func TestBoundOffers(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	make := func(required string, authentication bool) Created {
		c, err := f.CreateOffer(ctx, NewOffer{Configurations: []string{"pid"}, Claims: []byte(claimsText), ExpiresAt: f.clock.Now().Add(testExpiry), CreatedBy: "registrar",
			TxCode: &TxCode{InputMode: "numeric", Length: 6}, RequiredClient: required, ClientAuthentication: authentication})
		if err != nil {
			t.Fatal(err)
		}
		if o := f.offer(c.ID); o.RequiredClient != required || o.ClientAuthentication != authentication || c.RequiredClient != required || c.ClientAuthentication != authentication {
			t.Errorf("%+v", o)
		}
		return c
	}
	for name, test := range map[string]struct {
		offer        Created
		wrong, right []Redemption
	}{
		"one client": {make("wallet.example", false), []Redemption{{}, {Client: "other.example"}, {Client: "other.example", Authenticated: true}, {Client: "Wallet.example"}},
			[]Redemption{{Client: "wallet.example"}}},
		"any authenticated": {make("", true), []Redemption{{}, {Client: "wallet.example"}}, []Redemption{{Client: "any.example", Authenticated: true}}},
		"one authenticated": {make("wallet.example", true), []Redemption{{Client: "wallet.example"}, {Client: "other.example", Authenticated: true}},
			[]Redemption{{Client: "wallet.example", Authenticated: true}}},
		"any": {make("", false), nil, []Redemption{{}}},
	} {
		with := func(r Redemption, code string) Redemption {
			r.Code, r.Lifetime, r.TransactionCode = test.offer.Code, lasting(testLifetime), &code
			return r
		}
		for _, r := range test.wrong {
			for _, code := range []string{test.offer.TransactionCode, *wrong(test.offer.TransactionCode)} {
				if _, err := f.Redeem(ctx, with(r, code)); !errors.Is(err, ErrClient) {
					t.Errorf("%s: %+v: %v", name, r, err)
				}
			}
		}
		if o := f.offer(test.offer.ID); o.State != Made || o.AttemptsLeft != testAttempts {
			t.Errorf("%s: %s with %d attempts after other clients", name, o.State, o.AttemptsLeft)
		}
		for _, r := range test.right {
			token, err := f.Redeem(ctx, with(r, test.offer.TransactionCode))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if g := f.grant(token.Token); g.Client != r.Client || g.JKT != nil || g.ClientKey != nil || g.Expired {
				t.Errorf("%s: %+v", name, g)
			}
		}
		if _, err := f.Redeem(ctx, with(Redemption{}, test.offer.TransactionCode)); !errors.Is(err, ErrCode) {
			t.Errorf("%s: spent, and told to another client: %v", name, err)
		}
	}
}

// thumbprint is a key's.
func thumbprint(name string) []byte {
	h := hashOf(name)
	return h[:]
}

// bound redeems an offer for a wallet with both keys, and a refresh token.
func (f *fixture) bound(c Created) RedeemedToken {
	f.t.Helper()
	r := redemption(c)
	r.Client, r.Authenticated, r.JKT, r.ClientKey, r.Refresh = "wallet.example", true, thumbprint("dpop"), thumbprint("instance"), lasting(testRefresh)
	token, err := f.Redeem(context.Background(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// refreshing asks with everything right.
func refreshing(token RedeemedToken) RefreshRequest {
	return RefreshRequest{Token: token.RefreshToken, Client: "wallet.example", Authenticated: true, JKT: thumbprint("dpop"), ClientKey: thumbprint("instance"), Lifetime: lasting(testLifetime)}
}

// TestSenders holds that a refresh token serves whom it was given to, and is given
// to nobody who could not be told from a thief.
func TestSenders(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	token := f.bound(f.create(0))
	for name, change := range map[string]func(*RefreshRequest){
		"another DPoP key":     func(r *RefreshRequest) { r.JKT = thumbprint("other") },
		"no DPoP key":          func(r *RefreshRequest) { r.JKT = nil },
		"another instance key": func(r *RefreshRequest) { r.ClientKey = thumbprint("other") },
		"no instance key":      func(r *RefreshRequest) { r.ClientKey = nil },
		"another client":       func(r *RefreshRequest) { r.Client = "other.example" },
		"not authenticated":    func(r *RefreshRequest) { r.Authenticated = false },
	} {
		r := refreshing(token)
		change(&r)
		if _, err := f.Refresh(ctx, r); !errors.Is(err, ErrClient) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, wrong := range map[string]string{"nothing": "", "the access token": token.Token, "another secret": token.RefreshToken[:8] + token.Token[8:], "another offer's": opaque(4711, secret{})} {
		r := refreshing(token)
		r.Token = wrong
		if _, err := f.Refresh(ctx, r); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Grant(ctx, token.RefreshToken); !errors.Is(err, ErrToken) {
		t.Errorf("the refresh token as an access token: %v", err)
	}
	next, err := f.Refresh(ctx, refreshing(token))
	if err != nil || next.RefreshToken != "" || next.Offer != token.Offer || next.Token == token.Token {
		t.Fatalf("%+v %v", next, err)
	}
	if g := f.grant(next.Token); string(g.JKT) != string(thumbprint("dpop")) || string(g.ClientKey) != string(thumbprint("instance")) || g.Client != "wallet.example" {
		t.Errorf("%+v", g)
	}
	for name, test := range map[string]struct {
		change func(*Redemption)
		want   bool
	}{
		"nothing": {func(*Redemption) {}, false}, "a name": {func(r *Redemption) { r.Client = "wallet.example" }, false},
		"a DPoP key":     {func(r *Redemption) { r.JKT = thumbprint("dpop") }, true},
		"an instance":    {func(r *Redemption) { r.ClientKey = thumbprint("instance") }, true},
		"authentication": {func(r *Redemption) { r.Client, r.Authenticated = "wallet.example", true }, true},
		"no lifetime":    {func(r *Redemption) { r.JKT, r.Refresh = thumbprint("dpop"), lasting(0) }, false},
	} {
		r := redemption(f.create(0))
		r.Refresh = lasting(testRefresh)
		test.change(&r)
		if got, err := f.Redeem(ctx, r); err != nil || (got.RefreshToken != "") != test.want {
			t.Errorf("%s: refresh token %t, %v", name, got.RefreshToken != "", err)
		}
	}
}

// TestRefresh walks through an offer that is issued again and again: the claims
// stay for it, the epoch too, and both go with the refresh token.
func TestRefresh(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	c := f.create(0, "pid", "mdl")
	token := f.bound(c)
	f.tamper("UPDATE offers SET refresh_expires = ?1, due_at = ?1", millis(f.clock.Now().Add(3*f.options.DataKeyLifetime)))
	for round := 1; round <= 3; round++ {
		f.issue(token.Token, "mdl", "pid")
		f.wantState(c.ID, Issued)
		g := f.grant(token.Token)
		if claims, err := g.Claims(ctx); err != nil || string(claims) != claimsText {
			t.Errorf("for a repetition in round %d: %v", round, err)
		}
		if _, err := g.Repeat(ctx, "pid"); err != nil {
			t.Errorf("repeated in round %d: %v", round, err)
		}
		g.Release()
		f.clock.pass(f.options.DataKeyLifetime / 2)
		if err := f.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		f.sweep()
		f.wantShredded(c.ID, false)
		if _, err := f.Grant(ctx, token.Token); !errors.Is(err, ErrToken) {
			t.Errorf("the access token after its end: %v", err)
		}
		next, err := f.Refresh(ctx, refreshing(token))
		if err != nil {
			t.Fatal(err)
		}
		next.RefreshToken = token.RefreshToken
		token = next
		if o := f.offer(c.ID); o.State != Redeemed || !o.FinishedAt.IsZero() || len(o.Credentials) != 2*round {
			t.Errorf("%+v", o)
		}
		g = f.grant(token.Token)
		if claims, err := g.Claims(ctx); err != nil || string(claims) != claimsText || !g.Allows("pid") || !g.Allows("mdl") {
			t.Errorf("round %d: %v", round, err)
		}
		g.Release()
	}
	if n := f.ask("SELECT count(*) FROM epochs WHERE id = 1"); n != 1 {
		t.Error("the epoch is gone that a refresh token needs")
	}
	f.clock.pass(2 * f.options.DataKeyLifetime)
	f.sweep()
	f.wantShredded(c.ID, true)
	f.wantState(c.ID, Issued)
	if _, err := f.Refresh(ctx, refreshing(token)); !errors.Is(err, ErrToken) {
		t.Errorf("after its end: %v", err)
	}
	f.drain()
	f.wantHistories()
}

// TestRefreshEnds lets each thing end a refresh token that can.
func TestRefreshEnds(t *testing.T) {
	ctx := context.Background()
	for name, end := range map[string]func(f *fixture, c Created, token RedeemedToken){
		"cancelled, redeemed": func(f *fixture, c Created, _ RedeemedToken) {
			if err := f.CancelOffer(ctx, c.ID, "registrar"); err != nil {
				f.t.Error(err)
			}
		},
		"cancelled, issued": func(f *fixture, c Created, token RedeemedToken) {
			f.issue(token.Token, "pid")
			if err := f.CancelOffer(ctx, c.ID, "registrar"); err != nil {
				f.t.Error(err)
			}
			f.wantState(c.ID, Cancelled)
		},
		"failed": func(f *fixture, _ Created, token RedeemedToken) {
			g := f.grant(token.Token)
			defer g.Release()
			if err := g.Fail(ctx, "claims do not fit"); err != nil {
				f.t.Error(err)
			}
		},
		"time": func(f *fixture, _ Created, _ RedeemedToken) { f.clock.pass(testRefresh) },
		"swept": func(f *fixture, _ Created, _ RedeemedToken) {
			f.clock.pass(testRefresh)
			f.sweep()
		},
		"use": func(f *fixture, _ Created, _ RedeemedToken) {
			f.tamper("UPDATE offers SET refreshes = ?", MaxRefreshes-1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			c := f.create(0)
			token := f.bound(c)
			end(f, c, token)
			if name == "use" { // of two that come at once one is the last
				if n := count(t, f.race(8, func(int) error { _, err := f.Refresh(ctx, refreshing(token)); return err }), nil, ErrToken); n[nil] != 1 {
					t.Errorf("%d refreshes", n[nil])
				}
			}
			if _, err := f.Refresh(ctx, refreshing(token)); !errors.Is(err, ErrToken) {
				t.Errorf("refreshed: %v", err)
			}
			f.clock.pass(testRefresh)
			f.sweep()
			f.wantShredded(c.ID, true)
		})
	}
}

// TestTheTokenOfBefore holds that a request which is under way with an access
// token records nothing once a refresh has replaced it.
func TestTheTokenOfBefore(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	ctx := context.Background()
	c := f.create(0, "pid", "mdl")
	token := f.bound(c)
	f.issue(token.Token, "mdl")
	g := f.grant(token.Token)
	r, err := g.Repeat(ctx, "mdl")
	if err != nil {
		t.Fatal(err)
	}
	next, err := f.Refresh(ctx, refreshing(token))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.issued(ctx, "pid", []Credential{credential("pid")}); !errors.Is(err, ErrState) {
		t.Errorf("issued: %v", err)
	}
	if _, err := g.Reissue(ctx, r, r.Credentials); !errors.Is(err, ErrState) {
		t.Errorf("repeated: %v", err)
	}
	if _, err := g.Defer(ctx, "pid", Deferred{}); !errors.Is(err, ErrState) {
		t.Errorf("deferred: %v", err)
	}
	f.issue(next.Token, "mdl")
	if _, err := g.Reissue(ctx, r, r.Credentials); !errors.Is(err, ErrState) {
		t.Errorf("repeated what the next token has: %v", err)
	}
	if n := len(f.offer(c.ID).Credentials); n != 2 {
		t.Errorf("%d records", n)
	}
	f.drain()
	if n := f.log.kinds(c.ID)["credential.withheld"]; n != 3 {
		t.Errorf("%d credentials withheld", n)
	}
}

// TestTokensAreForgotten holds how long an access token and the wallet's keys
// stay: for notifications, and no longer.
func TestTokensAreForgotten(t *testing.T) {
	f := open(t)
	f.options.Retention = 10 * testRetention
	f.keep(testWindow)
	c := f.create(0)
	token := f.bound(c)
	f.tamper("UPDATE offers SET refresh_hash = NULL")
	f.issue(token.Token, "pid")
	f.clock.pass(testLifetime)
	f.sweep()
	f.clock.pass(NotificationGrace - time.Millisecond)
	f.sweep()
	if n := f.ask("SELECT count(*) FROM offers WHERE token_hash IS NOT NULL AND jkt IS NOT NULL AND client_key IS NOT NULL"); n != 1 {
		t.Error("forgotten too early")
	}
	f.clock.pass(time.Millisecond)
	f.sweep()
	if n := f.ask("SELECT count(*) FROM offers WHERE coalesce(token_hash, jkt, client_key, due_at) IS NULL"); n != 1 {
		t.Error("not forgotten")
	}
}
