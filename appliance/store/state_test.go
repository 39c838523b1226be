package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// situation is an offer that was brought into a state, with what its holder has.
type situation struct {
	Created
	token string
}

// situations bring a new offer into each state; those that the states' names
// alone do not tell apart have one of their own.
var situations = map[string]func(f *fixture) situation{
	"made": func(f *fixture) situation { return situation{Created: f.create(6)} },
	"fetched": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		if _, _, err := f.Fetch(context.Background(), s.URISecret); err != nil {
			f.t.Fatal(err)
		}
		return s
	},
	"redeemed": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		s.token = f.redeem(s.Created)
		return s
	},
	"issued": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		s.token = f.redeem(s.Created)
		f.issue(s.token, "pid")
		return s
	},
	"expired": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		f.clock.pass(testExpiry)
		f.sweep()
		return s
	},
	"expired, redeemed": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		s.token = f.redeem(s.Created)
		f.clock.pass(testLifetime)
		f.sweep()
		return s
	},
	"cancelled": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		s.token = f.redeem(s.Created)
		if err := f.CancelOffer(context.Background(), s.ID, "registrar"); err != nil {
			f.t.Fatal(err)
		}
		return s
	},
	"locked": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		for range testAttempts {
			r := redemption(s.Created)
			r.TransactionCode = wrong(s.TransactionCode)
			if _, err := f.Redeem(context.Background(), r); !errors.Is(err, ErrTransactionCodeWrong) {
				f.t.Fatal(err)
			}
		}
		return s
	},
	"failed": func(f *fixture) situation {
		s := situation{Created: f.create(6)}
		s.token = f.redeem(s.Created)
		g := f.grant(s.token)
		defer g.Release()
		if err := g.Fail(context.Background(), "claims do not fit"); err != nil {
			f.t.Fatal(err)
		}
		return s
	},
}

// whenIssued bring offers past the last credential: kept for retries, with a
// refresh token, and after each notification.
var whenIssued = map[string]func(f *fixture) situation{
	"kept":        func(f *fixture) situation { return f.hand(false, 1).situation() },
	"refreshable": func(f *fixture) situation { return f.hand(true, 1).situation() },
	"accepted":    func(f *fixture) situation { return f.handAndTell(CredentialAccepted) },
	"reported":    func(f *fixture) situation { return f.handAndTell(CredentialFailure) },
	"deleted":     func(f *fixture) situation { return f.handAndTell(CredentialDeleted) },
	"refused": func(f *fixture) situation {
		w := f.wait()
		f.decide(w.id, false)
		return situation{Created: w.Created, token: w.Token}
	},
}

func (h handed) situation() situation { return situation{Created: h.Created, token: h.Token} }

func (f *fixture) handAndTell(event string) situation {
	h := f.hand(false, 1)
	if err := f.tell(h.Token, h.notifications["pid"], event); err != nil {
		f.t.Fatal(err)
	}
	return h.situation()
}

// TestAfterIssuing tries on such offers what would make another credential or end
// them otherwise: only one with a refresh token can still be cancelled.
func TestAfterIssuing(t *testing.T) {
	for from, bring := range whenIssued {
		for what, try := range attempts {
			t.Run(from+"/"+what, func(t *testing.T) {
				f := open(t)
				f.keep(testWindow)
				s := bring(f)
				want := result{settled[what], f.offer(s.ID).State}
				switch what {
				case "issue":
					want.err = ErrNotGranted
				case "fail":
					want.err = ErrState
				case "cancel":
					if from == "refreshable" {
						want = result{nil, Cancelled}
					}
				}
				if err := try(f, s); !errors.Is(err, want.err) {
					t.Errorf("answered %v, want %v", err, want.err)
				}
				f.wantState(s.ID, want.state)
				f.wantShredded(s.ID, what == "expire" || from != "kept" && from != "refreshable" && from != "accepted" || want.state == Cancelled)
				f.drain()
				f.wantHistories()
			})
		}
	}
}

// attempts are what somebody may try on an offer.
var attempts = map[string]func(f *fixture, s situation) error{
	"fetch": func(f *fixture, s situation) error {
		_, code, err := f.Fetch(context.Background(), s.URISecret)
		if err == nil && code != s.Code {
			return errors.New("another code")
		}
		return err
	},
	"redeem": func(f *fixture, s situation) error {
		_, err := f.Redeem(context.Background(), redemption(s.Created))
		return err
	},
	"guess": func(f *fixture, s situation) error {
		r := redemption(s.Created)
		r.TransactionCode = wrong(s.TransactionCode)
		_, err := f.Redeem(context.Background(), r)
		return err
	},
	"redeem without": func(f *fixture, s situation) error {
		_, err := f.Redeem(context.Background(), Redemption{Code: s.Code, Lifetime: lasting(testLifetime)})
		return err
	},
	"issue": func(f *fixture, s situation) error {
		g, err := f.Grant(context.Background(), s.token)
		if err != nil {
			return err
		}
		defer g.Release()
		return g.issued(context.Background(), "pid", []Credential{credential("pid")})
	},
	"fail": func(f *fixture, s situation) error {
		g, err := f.Grant(context.Background(), s.token)
		if err != nil {
			return err
		}
		defer g.Release()
		return g.Fail(context.Background(), "claims do not fit")
	},
	"cancel": func(f *fixture, s situation) error {
		return f.CancelOffer(context.Background(), s.ID, "registrar")
	},
	"expire": func(f *fixture, s situation) error {
		f.clock.pass(testExpiry)
		return f.Sweep(context.Background())
	},
}

// result is what an attempt answers and where it leaves the offer.
type result struct {
	err   error
	state State
}

// transitions are all there are; what is not here is answered as settled says.
var transitions = map[string]map[string]result{
	"made": {
		"fetch": {nil, Fetched}, "redeem": {nil, Redeemed}, "guess": {ErrTransactionCodeWrong, Made},
		"redeem without": {ErrTransactionCodeMissing, Made}, "cancel": {nil, Cancelled}, "expire": {nil, Expired},
	},
	"fetched": {
		"fetch": {nil, Fetched}, "redeem": {nil, Redeemed}, "guess": {ErrTransactionCodeWrong, Fetched},
		"redeem without": {ErrTransactionCodeMissing, Fetched}, "cancel": {nil, Cancelled}, "expire": {nil, Expired},
	},
	"redeemed": {
		"issue": {nil, Issued}, "fail": {nil, Failed}, "cancel": {nil, Cancelled}, "expire": {nil, Expired},
	},
	"issued": { // its token tells that there is nothing left
		"issue": {ErrNotGranted, Issued}, "fail": {ErrState, Issued},
	},
}

// settled are the answers of an offer that does not allow what is tried.
var settled = map[string]error{
	"fetch": ErrState, "redeem": ErrCode, "guess": ErrCode, "redeem without": ErrCode,
	"issue": ErrToken, "fail": ErrToken, "cancel": ErrState, "expire": nil,
}

// TestTransitions tries everything on an offer in every state.
func TestTransitions(t *testing.T) {
	f := open(t)
	for from, bring := range situations {
		for what, try := range attempts {
			t.Run(from+"/"+what, func(t *testing.T) {
				f.t = t
				s := bring(f)
				before := f.offer(s.ID)
				want, allowed := transitions[from][what]
				if !allowed {
					want = result{settled[what], before.State}
				}
				if err := try(f, s); !errors.Is(err, want.err) {
					t.Errorf("answered %v, want %v", err, want.err)
				}
				after := f.offer(s.ID)
				if after.State != want.state {
					t.Errorf("the offer is %s, want %s", after.State, want.state)
				}
				if guessed := what == "guess" && want.err == ErrTransactionCodeWrong; guessed != (after.AttemptsLeft == before.AttemptsLeft-1) {
					t.Errorf("%d attempts left of %d", after.AttemptsLeft, before.AttemptsLeft)
				}
				if final := after.State > Redeemed; final != !after.FinishedAt.IsZero() {
					t.Errorf("finished at %v", after.FinishedAt)
				}
				f.wantShredded(s.ID, after.State > Redeemed)
			})
		}
	}
	f.t = t
	f.drain()
	f.wantHistories()
}

// wantShredded looks at the row: what is shredded has nothing that opens anything,
// and an access token only for notifications.
func (f *fixture) wantShredded(id string, want bool) {
	f.t.Helper()
	uuid, _ := parseUUID(id)
	row := getID(uuid[:idSize])
	kept := f.ask("SELECT ("+keyColumn+" <> zeroblob(60)) + (epoch IS NOT NULL) + (SELECT count(*) FROM claims WHERE offer = ?1) FROM offers o, keys k WHERE o.id = ?1 AND block = o.id / 64", row)
	secrets := f.ask(`SELECT (tx_mac IS NOT NULL) + (refresh_hash IS NOT NULL) + (token_hash IS NOT NULL AND due_at IS NULL) + (token_hash IS NULL AND (jkt IS NOT NULL OR client_key IS NOT NULL))
		+ (SELECT count(*) FROM issues WHERE offer = ?1 AND keys_hash || proofs_hash IS NOT NULL) + (SELECT count(*) FROM deferred WHERE offer = ?1 AND (holders IS NOT NULL OR state IN (0, 1)))
		FROM offers WHERE id = ?1`, row)
	due := f.ask("SELECT due_at IS NOT NULL FROM offers WHERE id = ?", row)
	if want && kept+secrets != 0 || !want && kept+due != 4 {
		f.t.Errorf("%d of the claims' parts and %d secrets are in the row; shredded: %t", kept, secrets, want)
	}
}

// wantHistories holds each offer's events against its row: the log tells the
// same story as the database, once.
func (f *fixture) wantHistories() {
	f.t.Helper()
	events, _ := f.log.all()
	offers, _, err := f.ListOffers(context.Background(), Filter{}, 10000, "")
	if err != nil {
		f.t.Fatal(err)
	}
	kinds := map[string]map[string]int{}
	for _, e := range events {
		if kinds[e.Subject] == nil {
			kinds[e.Subject] = map[string]int{}
		}
		kinds[e.Subject][e.Kind]++
	}
	for _, o := range offers {
		got := kinds[o.ID]
		want := map[string]int{"offer.created": 1}
		if !o.RedeemedAt.IsZero() {
			want["offer.redeemed"] = 1
		}
		if o.State > Redeemed {
			want["offer."+o.State.String()] = 1
		}
		rounds := got["offer.refreshed"] + 1
		for _, kind := range []string{"offer.issued", "offer.accepted", "offer.failed"} { // a state on the way, or once more in each round
			before := o.State > Issued || rounds > 1
			if n := got[kind]; before && n <= rounds && n >= want[kind] {
				want[kind] = n
			}
			if want[kind] == 0 {
				delete(want, kind)
			}
		}
		for _, kind := range []string{"offer.replayed", "offer.refreshed", "credential.withheld", "credential.deleted", "deferred.requested", "deferred.approved", "deferred.refused"} {
			delete(got, kind)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			f.t.Errorf("the %s offer %s has the events %v, want %v", o.State, o.ID, got, want)
		}
	}
}

// TestEndedWhileSigning ends an offer in every way while a credential request
// holds its token: nothing can be issued any more, and the log names what was
// signed in vain.
func TestEndedWhileSigning(t *testing.T) {
	ctx := context.Background()
	ends := map[string]func(f *fixture, id string) State{
		"cancelled": func(f *fixture, id string) State {
			if err := f.CancelOffer(ctx, id, "registrar"); err != nil {
				t.Error(err)
			}
			return Cancelled
		},
		"expired": func(f *fixture, _ string) State { f.clock.pass(testLifetime); f.sweep(); return Expired },
	}
	for name, end := range ends {
		for _, configuration := range []string{"pid", "mdl"} {
			t.Run(name+"/"+configuration, func(t *testing.T) {
				f := open(t)
				c := f.create(0, "pid", "mdl")
				token := f.redeem(c)
				if configuration == "mdl" { // the last one, so that it would end the offer
					f.tamper("UPDATE offers SET pending = 2, granted = 2")
				}
				g := f.grant(token)
				state := end(f, c.ID)
				signed := []Credential{credential(configuration), credential(configuration)}
				if err := g.issued(ctx, configuration, signed); !errors.Is(err, ErrState) {
					t.Errorf("issuing: %v", err)
				}
				if err := g.Fail(ctx, "too late"); !errors.Is(err, ErrState) {
					t.Errorf("failing: %v", err)
				}
				f.wantState(c.ID, state)
				if n := len(f.offer(c.ID).Credentials); n != 0 {
					t.Errorf("%d credentials are recorded", n)
				}
				f.drain()
				var withheld []string
				events, _ := f.log.all()
				for _, e := range events {
					if e.Kind == "credential.withheld" && e.Subject == c.ID {
						withheld = append(withheld, e.Detail["credential"])
					}
				}
				if fmt.Sprint(withheld) != fmt.Sprint([]string{signed[0].ID, signed[1].ID}) {
					t.Errorf("withheld: %v, want both of %v", withheld, signed)
				}
			})
		}
	}
}

// TestPartlyIssued holds that an offer with some of its credentials counts as
// issued when its token runs out, and as cancelled when an operator says so; the
// credentials stay on record.
func TestPartlyIssued(t *testing.T) {
	f := open(t)
	for want, end := range map[State]func(id string) error{
		Issued:    func(string) error { f.clock.pass(testLifetime); return f.Sweep(context.Background()) },
		Cancelled: func(id string) error { return f.CancelOffer(context.Background(), id, "registrar") },
	} {
		c := f.create(0, "pid", "mdl")
		f.issue(f.redeem(c), "mdl")
		f.wantState(c.ID, Redeemed)
		if err := end(c.ID); err != nil {
			t.Fatal(err)
		}
		o := f.offer(c.ID)
		if o.State != want || len(o.Credentials) != 1 || o.Credentials[0].Configuration != "mdl" {
			t.Errorf("%s with %v, want %s with one credential", o.State, o.Credentials, want)
		}
		f.wantShredded(c.ID, true)
	}
	f.drain()
	f.wantHistories()
}

// TestTimes holds what an offer tells about when things happened.
func TestTimes(t *testing.T) {
	f := open(t)
	var at []time.Time
	tick := func() { f.clock.pass(7 * time.Second); at = append(at, f.clock.Now()) }
	tick()
	c := f.create(0)
	tick()
	for range 2 { // the second fetch changes nothing
		if _, _, err := f.Fetch(context.Background(), c.URISecret); err != nil {
			t.Fatal(err)
		}
		f.clock.pass(time.Second)
	}
	shown := f.offer(c.ID)
	f.flushFetched(context.Background())
	uuid, _ := parseUUID(c.ID)
	f.fetched[getID(uuid[:idSize])] = f.clock.Now() // a fetch that had read the row before
	f.restart()
	if kept := f.offer(c.ID); kept.State != Fetched || kept.FetchedAt != shown.FetchedAt {
		t.Errorf("before a restart the offer was %s at %v, after it %s at %v", shown.State, shown.FetchedAt, kept.State, kept.FetchedAt)
	}
	tick()
	token := f.redeem(c)
	tick()
	f.issue(token, "pid")
	o := f.offer(c.ID)
	if got := []time.Time{o.CreatedAt, o.FetchedAt, o.RedeemedAt, o.FinishedAt}; fmt.Sprint(got) != fmt.Sprint(at) {
		t.Errorf("times %v, want %v", got, at)
	}
	if o.ExpiresAt != c.ExpiresAt || !o.Credentials[0].IssuedAt.Equal(at[3]) {
		t.Errorf("expires %v, want %v; issued %v, want %v", o.ExpiresAt, c.ExpiresAt, o.Credentials[0].IssuedAt, at[3])
	}
}
