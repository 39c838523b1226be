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

// testWindow is the retry window of the tests that have one, testRefresh a
// refresh token's life.
const (
	testWindow  = 4 * time.Minute
	testRefresh = 30 * time.Minute
)

// modelIssue is a configuration's latest issue.
type modelIssue struct {
	credentials  []Credential
	repeats      int
	notification string
	notified     map[string]bool
}

// modelDeferral is a deferred credential.
type modelDeferral struct {
	id, transaction string
	state           DeferredState
}

// modelOffer is what an offer should be, kept as simply as can be.
type modelOffer struct {
	Created
	state         State
	attempts      int
	codeEnds      time.Time
	token         string // "" when there was none, or when it is dead
	hadToken      string // the last one, dead or not
	tokenEnds     time.Time
	refresh       string // "" when there is none that lives
	refreshEnds   time.Time
	kept          bool // the claims are there
	windowEnds    time.Time
	granted, open map[string]bool // open: neither issued nor refused
	issues        map[string]*modelIssue
	deferrals     map[string]*modelDeferral
	credentials   int
	notifications int
	replayed      bool
	events        []string // kinds, in order
}

func (o *modelOffer) unfinished() bool { return o.state <= Redeemed || o.refresh != "" }

// become changes the state and tells it.
func (o *modelOffer) become(s State) {
	o.state = s
	o.events = append(o.events, "offer."+s.String())
}

// shred takes away what opens claims, and with them all that depends on them.
func (o *modelOffer) shred() {
	o.kept, o.refresh = false, ""
	for _, d := range o.deferrals {
		if d.state == DeferredPending || d.state == DeferredApproved {
			d.state, d.transaction = DeferredEnded, ""
		}
	}
	clear(o.open)
}

// end makes the offer final, and its token dead.
func (o *modelOffer) end(s State) {
	o.become(s)
	o.shred()
	o.token = ""
}

// due is when the sweeper has to do with the claims.
func (o *modelOffer) due() time.Time {
	switch {
	case o.state <= Fetched:
		return o.codeEnds
	case o.refresh != "" && o.refreshEnds.After(o.tokenEnds):
		return o.refreshEnds
	case o.state > Redeemed && o.refresh == "":
		return o.windowEnds
	}
	return o.tokenEnds
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
	o := &modelOffer{Created: c, state: Made, codeEnds: c.ExpiresAt, kept: true, events: []string{"offer.created"},
		granted: map[string]bool{}, open: map[string]bool{}, issues: map[string]*modelIssue{}, deferrals: map[string]*modelDeferral{}}
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

// testJKT is the thumbprint of the wallets' DPoP key.
var testJKT = make([]byte, 32)

func (m *model) redeem(t *rapid.T) {
	o := m.pick(t)
	r := Redemption{Code: o.Code, Lifetime: lasting(testLifetime), JKT: testJKT}
	if rapid.Bool().Draw(t, "refresh token") {
		r.Refresh = lasting(testRefresh)
	}
	granted := o.Configurations[:rapid.IntRange(1, len(o.Configurations)).Draw(t, "granted")]
	r.Select = func([]string) ([]string, bool, error) { return granted, false, nil }
	kind := rapid.SampledFrom([]string{"right", "right", "wrong", "none", "some"}).Draw(t, "transaction code")
	has := o.TransactionCode != ""
	switch {
	case kind == "some" || kind == "right" && has:
		r.TransactionCode = &o.TransactionCode
	case kind == "wrong" && has:
		r.TransactionCode = wrong(o.TransactionCode)
	}
	token, err := m.Redeem(context.Background(), r)
	switch {
	case o.state == Redeemed || o.state == Issued || o.state == Accepted:
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
		o.become(Redeemed)
		o.token, o.hadToken, o.tokenEnds = token.Token, token.Token, m.clock.Now().Add(testLifetime)
		if o.refresh = token.RefreshToken; (o.refresh != "") != (r.Refresh != nil) {
			t.Fatalf("refresh token %q", o.refresh)
		}
		o.refreshEnds = m.clock.Now().Add(testRefresh)
		for _, id := range granted {
			o.granted[id], o.open[id] = true, true
		}
	}
}

func (m *model) renew(t *rapid.T) {
	o := m.pick(t)
	if o.refresh == "" {
		t.Skip("no refresh token")
	}
	before := o.hadToken
	token, err := m.Refresh(context.Background(), RefreshRequest{Token: o.refresh, JKT: testJKT, Lifetime: lasting(testLifetime)})
	if !m.clock.Now().Before(o.refreshEnds) {
		want(t, "refresh", err, ErrToken)
		return
	}
	want(t, "refresh", err, nil)
	o.state, o.events = Redeemed, append(o.events, "offer.refreshed")
	o.token, o.hadToken, o.tokenEnds = token.Token, token.Token, m.clock.Now().Add(testLifetime)
	for id := range o.granted {
		if d := o.deferrals[id]; d == nil || d.state != DeferredRefused {
			o.open[id] = true
		}
	}
	if _, err := m.Grant(context.Background(), before); !errors.Is(err, ErrToken) {
		t.Fatalf("the token of before the refresh: %v", err)
	}
}

// grantOf returns what the token allows, or nil when it should allow nothing.
func (m *model) grantOf(t *rapid.T, o *modelOffer) *Grant {
	if o.hadToken == "" {
		t.Skip("no token yet")
	}
	g, err := m.Grant(context.Background(), o.hadToken)
	now := m.clock.Now()
	if o.token == "" || !now.Before(o.tokenEnds) {
		want(t, "grant", err, ErrToken)
		return nil
	}
	want(t, "grant", err, nil)
	claims, err := g.Claims(context.Background())
	if !o.kept || !now.Before(o.due()) {
		want(t, "claims", err, ErrToken)
	} else if err != nil || string(claims) != claimsText {
		t.Fatalf("claims: %v", err)
	}
	for _, id := range o.Configurations {
		d := o.deferrals[id]
		deferring := o.open[id] && d != nil && (d.state == DeferredPending || d.state == DeferredApproved)
		if g.Covers(id) != o.granted[id] || g.Allows(id) != (o.open[id] && !deferring) || g.Deferring(id) != deferring || g.Done(id) != (o.granted[id] && !o.open[id]) {
			t.Fatalf("%s: covers %t, allows %t, deferring %t, done %t", id, g.Covers(id), g.Allows(id), g.Deferring(id), g.Done(id))
		}
	}
	return g
}

// issued notes what was recorded of a configuration.
func (m *model) issued(o *modelOffer, id, notification string, batch []Credential) {
	delete(o.open, id)
	for _, event := range []string{CredentialAccepted, CredentialFailure, CredentialDeleted} {
		if i := o.issues[id]; i != nil && i.notified[event] {
			o.notifications-- // the record is replaced
		}
	}
	o.issues[id] = &modelIssue{credentials: batch, notification: notification, notified: map[string]bool{}}
	o.credentials += len(batch)
	if len(o.open) > 0 {
		return
	}
	o.become(Issued)
	o.windowEnds = m.clock.Now().Add(testWindow)
	if o.tokenEnds.Before(o.windowEnds) {
		o.windowEnds = o.tokenEnds
	}
}

func batchOf(t *rapid.T, id string) []Credential {
	batch := make([]Credential, rapid.IntRange(1, 3).Draw(t, "batch"))
	for i := range batch {
		batch[i] = credential(id)
	}
	return batch
}

func (m *model) issue(t *rapid.T) {
	o := m.pick(t)
	g := m.grantOf(t, o)
	if g == nil {
		return
	}
	defer g.Release()
	id, batch := rapid.SampledFrom(o.Configurations).Draw(t, "configuration"), []Credential(nil)
	batch = batchOf(t, id)
	allowed := g.Allows(id)
	notification, err := g.Issue(context.Background(), id, IssueRecord{Credentials: batch, KeysHash: hashOf(id), ProofsHash: hashOf("proofs")})
	if !allowed {
		want(t, "issue", err, ErrNotGranted)
		return
	}
	want(t, "issue", err, nil)
	m.issued(o, id, notification, batch)
}

func (m *model) fail(t *rapid.T) {
	o := m.pick(t)
	if g := m.grantOf(t, o); g != nil {
		defer g.Release()
		err := g.Fail(context.Background(), "claims do not fit")
		if o.state != Redeemed {
			want(t, "fail", err, ErrState)
			return
		}
		want(t, "fail", err, nil)
		o.end(Failed)
	}
}

func (m *model) cancel(t *rapid.T) {
	o := m.pick(t)
	err := m.CancelOffer(context.Background(), o.ID, "registrar")
	if !o.unfinished() {
		want(t, "cancel", err, ErrState)
		return
	}
	want(t, "cancel", err, nil)
	o.end(Cancelled)
}

func (m *model) pass(t *rapid.T) {
	m.clock.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Minute, testWindow, testLifetime / 2, testLifetime, testExpiry, NotificationGrace}).Draw(t, "time"))
}

func (m *model) sweep(t *rapid.T) {
	m.fixture.sweep()
	now := m.clock.Now()
	for _, o := range m.offers {
		over := o.kept && !now.Before(o.due())
		switch {
		case over && o.state <= Redeemed && o.credentials == 0:
			o.end(Expired)
		case over && o.state == Redeemed:
			o.become(Issued)
			o.shred()
			if o.all(CredentialAccepted) {
				o.become(Accepted)
			}
		case over:
			o.shred()
		}
		if !o.kept && !now.Before(o.tokenEnds.Add(NotificationGrace)) {
			o.token = ""
		}
	}
	m.checkDeferred(t)
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
		if got.State != state || got.AttemptsLeft != o.attempts || len(got.Credentials) != o.credentials || len(got.Notifications) != o.notifications || !slices.Equal(got.Configurations, o.Configurations) {
			t.Fatalf("the offer is %s with %d attempts, %d credentials and the notifications %v, want %s with %d, %d and %d",
				got.State, got.AttemptsLeft, len(got.Credentials), got.Notifications, state, o.attempts, o.credentials, o.notifications)
		}
		if got.RefreshExpires.IsZero() != (o.refresh == "") {
			t.Fatalf("a refresh token until %v, %q", got.RefreshExpires, o.refresh)
		}
		m.wantShredded(o.ID, !o.kept)
		events, _, err := m.Events(context.Background(), EventFilter{Subject: o.ID}, 1000, "")
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
		m.options.RetryWindow, m.options.Retention = testWindow, 1e4*time.Hour
		m.restart()
		defer func() { m.fixture.Store.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"create": m.create, "fetch": m.fetch, "redeem": m.redeem, "refresh": m.renew, "issue": m.issue, "repeat": m.repeat,
			"defer": m.deferOne, "decide": m.decide, "poll": m.poll, "notify": m.notify, "fail": m.fail, "cancel": m.cancel, "pass": m.pass, "sweep": m.sweep,
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
