package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// handed is an offer whose first configurations were issued.
type handed struct {
	Created
	RedeemedToken
	notifications map[string]string
}

// hand issues the first n configurations of a new offer.
func (f *fixture) hand(refreshable bool, n int, configurations ...string) handed {
	f.t.Helper()
	h := handed{Created: f.create(0, configurations...), notifications: map[string]string{}}
	if refreshable {
		h.RedeemedToken = f.bound(h.Created)
	} else {
		h.RedeemedToken = RedeemedToken{Offer: h.Created.ID, Token: f.redeem(h.Created)}
	}
	f.issueTo(&h, n)
	return h
}

func (f *fixture) issueTo(h *handed, n int) {
	f.t.Helper()
	g := f.grant(h.Token)
	defer g.Release()
	for _, id := range h.Configurations[:n] {
		var err error
		if h.notifications[id], err = g.Issue(context.Background(), id, IssueRecord{Credentials: []Credential{credential(id)}}); err != nil {
			f.t.Fatal(err)
		}
	}
}

// tell notifies with a token, as at the notification endpoint.
func (f *fixture) tell(token, notification, event string) error {
	f.t.Helper()
	g, err := f.NotificationGrant(context.Background(), token)
	if err != nil {
		return err
	}
	defer g.Release()
	return f.Notify(context.Background(), g, notification, event)
}

// TestNotifications holds where each series of events leaves an offer with two
// configurations, and what is on record; each event is told twice.
func TestNotifications(t *testing.T) {
	type told struct{ configuration, event string }
	for name, test := range map[string]struct {
		issued int // of two
		told   []told
		want   State
		kept   bool // without a refresh token
		events string
	}{
		"one of two":         {2, []told{{"pid", CredentialAccepted}}, Issued, true, ""},
		"both":               {2, []told{{"mdl", CredentialAccepted}, {"pid", CredentialAccepted}}, Accepted, true, "offer.accepted"},
		"a failure":          {2, []told{{"pid", CredentialFailure}}, Failed, false, "offer.failed"},
		"one and a failure":  {2, []told{{"pid", CredentialAccepted}, {"mdl", CredentialFailure}}, Failed, false, "offer.failed"},
		"failed, accepted":   {2, []told{{"pid", CredentialFailure}, {"pid", CredentialAccepted}, {"mdl", CredentialAccepted}}, Failed, false, "offer.failed"},
		"two failures":       {2, []told{{"pid", CredentialFailure}, {"mdl", CredentialFailure}}, Failed, false, "offer.failed"},
		"deleted":            {2, []told{{"pid", CredentialDeleted}}, Issued, true, "credential.deleted"},
		"deleted, accepted":  {2, []told{{"pid", CredentialDeleted}, {"mdl", CredentialAccepted}}, Issued, true, "credential.deleted"},
		"both, then deleted": {2, []told{{"mdl", CredentialAccepted}, {"pid", CredentialAccepted}, {"pid", CredentialDeleted}}, Accepted, true, "offer.accepted credential.deleted"},
		"both deleted":       {2, []told{{"mdl", CredentialDeleted}, {"pid", CredentialDeleted}}, Issued, false, "credential.deleted credential.deleted"},
		"all of both":        {2, []told{{"mdl", CredentialAccepted}, {"pid", CredentialAccepted}, {"pid", CredentialDeleted}, {"mdl", CredentialDeleted}}, Accepted, false, "offer.accepted credential.deleted credential.deleted"},
		"both, then failed":  {2, []told{{"mdl", CredentialAccepted}, {"pid", CredentialAccepted}, {"pid", CredentialFailure}}, Failed, false, "offer.accepted offer.failed"},
		"the first":          {1, []told{{"pid", CredentialAccepted}}, Redeemed, true, ""},
		"the first fails":    {1, []told{{"pid", CredentialFailure}}, Failed, false, "offer.failed"},
		"the first deleted":  {1, []told{{"pid", CredentialDeleted}}, Redeemed, true, "credential.deleted"},
	} {
		for _, refreshable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, refreshable %t", name, refreshable), func(t *testing.T) {
				f := open(t)
				f.keep(testWindow)
				h := f.hand(refreshable, test.issued, "pid", "mdl")
				var want []Notification
				for _, n := range test.told {
					f.clock.pass(time.Second)
					want = append(want, Notification{n.configuration, n.event, f.clock.Now()})
					for range 2 {
						if err := f.tell(h.Token, h.notifications[n.configuration], n.event); err != nil {
							t.Fatal(err)
						}
						f.restart()
					}
				}
				o := f.offer(h.Created.ID)
				if o.State != test.want || fmt.Sprint(o.Notifications) != fmt.Sprint(want) {
					t.Errorf("%s with %v, want %s with %v", o.State, o.Notifications, test.want, want)
				}
				f.wantShredded(h.Created.ID, !test.kept && !refreshable)
				var kinds []string
				events, _ := f.log.all()
				for _, e := range events {
					if e.Subject == o.ID && (e.Actor == "wallet" && e.Kind != "offer.redeemed") {
						kinds = append(kinds, e.Kind)
					}
					for _, value := range e.Detail {
						for _, notification := range h.notifications {
							if strings.Contains(value, notification) {
								t.Error("a notification_id in an event")
							}
						}
					}
				}
				if got := strings.Join(kinds, " "); got != test.events {
					t.Errorf("events %q, want %q", got, test.events)
				}
				f.wantHistories()
				if refreshable { // whatever was told
					f.refreshAndIssue(&h)
				}
			})
		}
	}
}

// refreshAndIssue issues everything once more; the notification_ids are new.
func (f *fixture) refreshAndIssue(h *handed) {
	f.t.Helper()
	before := h.notifications["pid"]
	token, err := f.Refresh(context.Background(), refreshing(h.RedeemedToken))
	if err != nil {
		f.t.Fatal(err)
	}
	h.Token = token.Token
	f.issueTo(h, 2)
	f.wantState(h.Created.ID, Issued)
	if err := f.tell(h.Token, before, CredentialAccepted); !errors.Is(err, ErrNotFound) {
		f.t.Errorf("the notification_id of before: %v", err)
	}
	for _, id := range h.Configurations {
		if err := f.tell(h.Token, h.notifications[id], CredentialAccepted); err != nil {
			f.t.Error(err)
		}
	}
	f.wantState(h.Created.ID, Accepted)
	f.drain()
	f.wantHistories()
}

// TestNotificationIDs gives what is no notification_id of the grant, and what is
// no event.
func TestNotificationIDs(t *testing.T) {
	f := open(t)
	mine, theirs := f.hand(false, 1), f.hand(false, 1)
	for name, wrong := range map[string]string{
		"nothing": "", "another offer's": theirs.notifications["pid"], "the access token": mine.Token,
		"another secret": mine.notifications["pid"][:8] + strings.Repeat("A", 32), "more": mine.notifications["pid"] + "A",
	} {
		if err := f.tell(mine.Token, wrong, CredentialAccepted); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, event := range []string{"", "accepted", "Credential_Accepted", "credential_accepted "} {
		if err := f.tell(mine.Token, mine.notifications["pid"], event); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("the event %q: %v", event, err)
		}
	}
	f.wantState(mine.Created.ID, Issued)
	f.absent("notification_ids", append(pieces(mine.notifications["pid"][8:]), pieces(theirs.notifications["pid"][8:])...))
}

// TestLateNotifications holds how long a token serves for notifications: past its
// end, past the offer's, and not for ever. One of an offer that ended otherwise
// does not.
func TestLateNotifications(t *testing.T) {
	f := open(t)
	f.options.Retention = 10 * testRetention
	f.keep(testWindow)
	ctx := context.Background()
	h, cancelled, part := f.hand(false, 1), f.hand(false, 1, "pid", "mdl"), f.hand(false, 1, "pid", "mdl")
	if err := f.CancelOffer(ctx, cancelled.Created.ID, "registrar"); err != nil {
		t.Fatal(err)
	}
	if err := f.tell(part.Token, part.notifications["pid"], CredentialAccepted); err != nil {
		t.Fatal(err)
	}
	f.clock.pass(testLifetime)
	for range 2 { // before and after the sweeper has seen it
		if _, err := f.Grant(ctx, h.Token); !errors.Is(err, ErrToken) {
			t.Errorf("for credentials: %v", err)
		}
		g, err := f.NotificationGrant(ctx, h.Token)
		if err != nil || !g.Expired {
			t.Fatalf("for notifications: %v", err)
		}
		if _, err := g.Claims(ctx); !errors.Is(err, ErrToken) {
			t.Errorf("claims for a notification: %v", err)
		}
		g.Release()
		if _, err := f.NotificationGrant(ctx, cancelled.Token); !errors.Is(err, ErrToken) {
			t.Errorf("of a cancelled offer: %v", err)
		}
		f.sweep()
	}
	f.wantState(part.Created.ID, Accepted) // all that was issued of it
	f.clock.pass(NotificationGrace - time.Second)
	f.sweep()
	if err := f.tell(h.Token, h.notifications["pid"], CredentialAccepted); err != nil {
		t.Errorf("at last: %v", err)
	}
	f.wantState(h.Created.ID, Accepted)
	f.clock.pass(time.Second)
	for range 2 {
		if _, err := f.NotificationGrant(ctx, h.Token); !errors.Is(err, ErrToken) {
			t.Errorf("too late: %v", err)
		}
		f.sweep()
	}
	f.drain()
	f.wantHistories()
}

// TestOneNotificationOfMany has many requests tell the same at once: it counts once.
func TestOneNotificationOfMany(t *testing.T) {
	f := open(t)
	f.keep(testWindow)
	h := f.hand(false, 1)
	g := f.grant(h.Token)
	defer g.Release()
	count(t, f.race(16, func(int) error {
		return f.Notify(context.Background(), g, h.notifications["pid"], CredentialAccepted)
	}), nil)
	f.drain()
	if n := f.log.kinds(h.Created.ID)["offer.accepted"]; n != 1 {
		t.Errorf("%d events", n)
	}
}
