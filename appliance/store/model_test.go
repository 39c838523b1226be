package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelOffer is what an offer should be, kept as simply as can be.
type modelOffer struct {
	Created
	state           State
	attempts        int
	codeEnds        time.Time
	token           string
	tokenEnds       time.Time
	granted, issued map[string]bool
	credentials     int
	replayed        bool
	events          []string // kinds, in order
}

func (o *modelOffer) open() bool { return o.state <= Redeemed }

// end makes the offer final.
func (o *modelOffer) end(s State) {
	o.state = s
	o.events = append(o.events, "offer."+s.String())
}

// model is the machine: a store in a file beside offers in memory.
type model struct {
	*fixture
	offers []*modelOffer
}

// pick draws an offer, or skips when there is none.
func (m *model) pick(t *rapid.T) *modelOffer {
	if len(m.offers) == 0 {
		t.Skip("no offers yet")
	}
	return rapid.SampledFrom(m.offers).Draw(t, "offer")
}

// want compares an answer with the model's.
func want(t *rapid.T, what string, err, expected error) {
	if !errors.Is(err, expected) || expected == nil && err != nil {
		t.Fatalf("%s: %v, want %v", what, err, expected)
	}
}

func (m *model) create(t *rapid.T) {
	configurations := []string{"pid", "mdl", "permit"}[:rapid.IntRange(1, 3).Draw(t, "configurations")]
	length := rapid.SampledFrom([]int{0, 4}).Draw(t, "code length")
	c := m.fixture.create(length, configurations...)
	o := &modelOffer{Created: c, state: Made, codeEnds: c.ExpiresAt, events: []string{"offer.created"}, granted: map[string]bool{}, issued: map[string]bool{}}
	if length > 0 {
		o.attempts = testAttempts
	}
	m.offers = append(m.offers, o)
}

func (m *model) fetch(t *rapid.T) {
	o := m.pick(t)
	_, code, err := m.Fetch(context.Background(), o.URISecret)
	if o.state > Fetched || !m.clock.Now().Before(o.codeEnds) {
		want(t, "fetch", err, ErrState)
		return
	}
	want(t, "fetch", err, nil)
	if code != o.Code {
		t.Fatal("another code")
	}
	o.state = Fetched
}

func (m *model) redeem(t *rapid.T) {
	o := m.pick(t)
	r := Redemption{Code: o.Code, Lifetime: testLifetime}
	granted := o.Configurations[:rapid.IntRange(1, len(o.Configurations)).Draw(t, "granted")]
	r.Select = func([]string) ([]string, bool, error) { return granted, false, nil }
	kind := rapid.SampledFrom([]string{"right", "wrong", "none", "some"}).Draw(t, "transaction code")
	has := o.TransactionCode != ""
	switch {
	case kind == "some" || kind == "right" && has:
		r.TransactionCode = &o.TransactionCode
	case kind == "wrong" && has:
		r.TransactionCode = wrong(o.TransactionCode)
	}
	token, err := m.Redeem(context.Background(), r)
	switch {
	case o.state == Redeemed || o.state == Issued:
		want(t, "redeem again", err, ErrCode)
		if !o.replayed {
			o.replayed, o.events = true, append(o.events, "offer.replayed")
		}
	case o.state > Fetched || !m.clock.Now().Before(o.codeEnds):
		want(t, "redeem", err, ErrCode)
	case has && r.TransactionCode == nil:
		want(t, "redeem without", err, ErrTransactionCodeMissing)
	case !has && r.TransactionCode != nil:
		want(t, "redeem with", err, ErrTransactionCodeUnexpected)
	case has && kind == "wrong":
		want(t, "guess", err, ErrTransactionCodeWrong)
		if o.attempts--; o.attempts == 0 {
			o.end(Locked)
		}
	default:
		want(t, "redeem", err, nil)
		o.state, o.token, o.tokenEnds = Redeemed, token.Token, m.clock.Now().Add(testLifetime)
		o.events = append(o.events, "offer.redeemed")
		for _, id := range granted {
			o.granted[id] = true
		}
	}
}

// grantOf returns what the token allows, or nil when it should allow nothing.
func (m *model) grantOf(t *rapid.T, o *modelOffer) *Grant {
	if o.token == "" {
		t.Skip("no token yet")
	}
	g, err := m.Grant(context.Background(), o.token)
	if o.state != Redeemed || !m.clock.Now().Before(o.tokenEnds) {
		want(t, "grant", err, ErrToken)
		return nil
	}
	want(t, "grant", err, nil)
	if claims, err := g.Claims(context.Background()); err != nil || string(claims) != claimsText {
		t.Fatalf("claims: %v", err)
	}
	return g
}

func (m *model) issue(t *rapid.T) {
	o := m.pick(t)
	g := m.grantOf(t, o)
	if g == nil {
		return
	}
	defer g.Release()
	id := rapid.SampledFrom(o.Configurations).Draw(t, "configuration")
	allowed := o.granted[id] && !o.issued[id]
	if g.Covers(id) != o.granted[id] || g.Allows(id) != allowed || g.Done(id) != o.issued[id] {
		t.Fatalf("%s: covers %t, allows %t, done %t", id, g.Covers(id), g.Allows(id), g.Done(id))
	}
	batch := make([]Credential, rapid.IntRange(1, 3).Draw(t, "batch"))
	for i := range batch {
		batch[i] = credential(id)
	}
	err := g.Issue(context.Background(), id, batch)
	if !allowed {
		want(t, "issue", err, ErrNotGranted)
		return
	}
	want(t, "issue", err, nil)
	o.issued[id] = true
	o.credentials += len(batch)
	if len(o.issued) == len(o.granted) {
		o.end(Issued)
	}
}

func (m *model) fail(t *rapid.T) {
	o := m.pick(t)
	if g := m.grantOf(t, o); g != nil {
		defer g.Release()
		want(t, "fail", g.Fail(context.Background(), "claims do not fit"), nil)
		o.end(Failed)
	}
}

func (m *model) cancel(t *rapid.T) {
	o := m.pick(t)
	err := m.CancelOffer(context.Background(), o.ID, "registrar")
	if !o.open() {
		want(t, "cancel", err, ErrState)
		return
	}
	want(t, "cancel", err, nil)
	o.end(Cancelled)
}

func (m *model) pass(t *rapid.T) {
	m.clock.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, testLifetime / 2, testLifetime, testExpiry}).Draw(t, "time"))
}

func (m *model) sweep(*rapid.T) {
	m.fixture.sweep()
	now := m.clock.Now()
	for _, o := range m.offers {
		switch {
		case o.state <= Fetched && !now.Before(o.codeEnds):
			o.end(Expired)
		case o.state == Redeemed && !now.Before(o.tokenEnds) && o.credentials > 0:
			o.end(Issued)
		case o.state == Redeemed && !now.Before(o.tokenEnds):
			o.end(Expired)
		}
	}
}

// check compares everything that can be seen, after each step.
func (m *model) check(t *rapid.T) {
	ids, _ := m.list(Filter{}, 3)
	if len(ids) != len(m.offers) {
		t.Fatalf("%d offers, want %d", len(ids), len(m.offers))
	}
	for _, o := range m.offers {
		got, err := m.Offer(context.Background(), o.ID)
		if err != nil {
			t.Fatal(err)
		}
		state := o.state
		if state <= Fetched && !m.clock.Now().Before(o.codeEnds) {
			state = Expired // shown, though not swept yet
		}
		if got.State != state || got.AttemptsLeft != o.attempts || len(got.Credentials) != o.credentials || !slices.Equal(got.Configurations, o.Configurations) {
			t.Fatalf("the offer is %s with %d attempts and %d credentials, want %s with %d and %d",
				got.State, got.AttemptsLeft, len(got.Credentials), state, o.attempts, o.credentials)
		}
		m.wantShredded(o.ID, !o.open())
		events, _, err := m.Events(context.Background(), EventFilter{Subject: o.ID}, 100, "")
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, e := range slices.Backward(events) {
			kinds = append(kinds, e.Kind)
		}
		if fmt.Sprint(kinds) != fmt.Sprint(o.events) {
			t.Fatalf("events %v, want %v", kinds, o.events)
		}
	}
}

// TestModel walks at random through everything that can happen to offers, with
// time passing, sweeps, restarts and kills, beside a model in memory.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{fixture: open(t)}
		defer func() { m.fixture.Store.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"create": m.create, "fetch": m.fetch, "redeem": m.redeem, "issue": m.issue, "fail": m.fail, "cancel": m.cancel, "pass": m.pass, "sweep": m.sweep,
			"restart": func(*rapid.T) { m.restart() },
			"kill": func(*rapid.T) {
				m.flushFetched(context.Background()) // the one thing that a kill may lose
				k := m.killed()
				m.fixture.Store.Close()
				k.drain()
				m.fixture = k
			},
			"drain": func(*rapid.T) { m.drain() },
			"":      m.check,
		})
		m.sweep(rt)
		m.check(rt)
		m.drain()
		m.wantLog()
		m.wantHistories()
	})
}
