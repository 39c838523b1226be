package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"chancery/appliance/database"
)

// The events of a notification (OpenID4VCI 1.0 §11.1).
const (
	CredentialAccepted = "credential_accepted"
	CredentialFailure  = "credential_failure"
	CredentialDeleted  = "credential_deleted"
)

// Notification is what a wallet has told of a configuration's credentials.
type Notification struct {
	Configuration string
	// Event is one of [CredentialAccepted], [CredentialFailure] and [CredentialDeleted].
	Event string
	At    time.Time
}

// notifications reads an offer's, in time's order.
func notifications(r *database.Reader, offer int64, configurations []string) (list []Notification, err error) {
	err = r.Rows(`SELECT configuration, event, at FROM (
			SELECT offer, configuration, 'credential_accepted' AS event, accepted_at AS at FROM issues UNION ALL
			SELECT offer, configuration, 'credential_failure', failed_at FROM issues UNION ALL
			SELECT offer, configuration, 'credential_deleted', deleted_at FROM issues) WHERE offer = ? AND at > 0 ORDER BY at, event, configuration`, []any{offer},
		func(scan func(...any) error) error {
			var n Notification
			var place, at int64
			if err := scan(&place, &n.Event, &at); err != nil {
				return err
			}
			if place < 0 || place >= int64(len(configurations)) {
				return fmt.Errorf("a notification of configuration %d, which the offer does not have", place)
			}
			n.Configuration, n.At = configurations[place], timeOf(at)
			list = append(list, n)
			return nil
		})
	return list, err
}

// unnotified counts an offer's configurations of which the wallet has not said
// that it accepted them, and of which it has not said that it deleted them.
func unnotified(tx *database.Tx, offer int64) (notAccepted, notDeleted int64, err error) {
	_, err = tx.Row("SELECT count(*) FILTER (WHERE accepted_at = 0), count(*) FILTER (WHERE deleted_at = 0) FROM issues WHERE offer = ?",
		[]any{offer}, []any{&notAccepted, &notDeleted})
	return notAccepted, notDeleted, err
}

// noteSQL writes down an event's first time.
var noteSQL = map[string]string{
	CredentialAccepted: "UPDATE issues SET accepted_at = ? WHERE offer = ? AND configuration = ? AND notification = ? AND accepted_at = 0",
	CredentialFailure:  "UPDATE issues SET failed_at = ? WHERE offer = ? AND configuration = ? AND notification = ? AND failed_at = 0",
	CredentialDeleted:  "UPDATE issues SET deleted_at = ? WHERE offer = ? AND configuration = ? AND notification = ? AND deleted_at = 0",
}

// Notify records what a wallet tells of a configuration's credentials, and what
// follows for the offer; see [State]. event is one of the three constants. An
// event that was told before changes nothing. [ErrNotFound] when the
// notification_id is unknown or another offer's. A configuration that was issued
// again after a refresh has a new notification_id, and the one before is unknown.
func (s *Store) Notify(ctx context.Context, g *Grant, notificationID, event string) error {
	note, known := noteSQL[event]
	if !known {
		return fmt.Errorf("%q is no event of a notification", event)
	}
	id, secret, ok := parseOpaque(notificationID)
	if !ok || id != g.id {
		return ErrNotFound
	}
	place, hash := int64(-1), secret.hash()
	err := s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT configuration, notification FROM issues WHERE offer = ?", []any{g.id}, func(scan func(...any) error) error {
			var n int64
			var stored []byte
			err := scan(&n, &stored)
			if err == nil && same(stored, hash) {
				place = n
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	if place < 0 {
		return ErrNotFound
	}
	now := s.now()
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(note, millis(now), g.id, place, hash)
		if err != nil || n == 0 {
			return err
		}
		return s.follow(tx, g, event, g.Configurations[place], now)
	})
	if err == nil {
		s.outbox.wake()
	}
	return err
}

// follow does what a notification means for the offer.
func (s *Store) follow(tx *database.Tx, g *Grant, event, configuration string, now time.Time) error {
	e := Event{Time: now, Actor: "wallet", Subject: g.Offer}
	switch event {
	case CredentialFailure:
		e.Kind, e.Detail = "offer.failed", map[string]string{"reason": "wallet reported a failure"}
		return s.conclude(tx, g.id, Failed, now, e)
	case CredentialDeleted:
		e.Kind, e.Detail = "credential.deleted", map[string]string{"configuration": configuration}
		if err := s.record(tx, e); err != nil {
			return err
		}
	}
	notAccepted, notDeleted, err := unnotified(tx, g.id)
	if err != nil {
		return err
	}
	if notAccepted == 0 && event == CredentialAccepted {
		return s.accept(tx, g.id, now, e)
	}
	if notDeleted > 0 {
		return nil
	}
	// Nothing will be asked for again.
	_, err = end(tx, g.id, unchanged, now, true, "state IN (3, 8) AND epoch IS NOT NULL AND refresh_hash IS NULL")
	return err
}

// settleIssued concludes an offer of which nothing is left to issue: as issued, and
// as accepted when the wallet has said so of each before.
func (s *Store) settleIssued(tx *database.Tx, id int64, now time.Time, e Event) error {
	if err := s.conclude(tx, id, Issued, now, e); err != nil {
		return err
	}
	notAccepted, _, err := unnotified(tx, id)
	if err != nil || notAccepted > 0 {
		return err
	}
	return s.accept(tx, id, now, e)
}

// accept makes an issued offer an accepted one. A wallet that has accepted what it
// got may still ask for it again, so retries go on until their time is over.
func (s *Store) accept(tx *database.Tx, id int64, now time.Time, e Event) error {
	n, err := tx.Exec("UPDATE offers SET state = 8, finished_at = iif(finished_at = 0, ?, finished_at) WHERE id = ? AND state = 3", millis(now), id)
	if err != nil || n == 0 {
		return err
	}
	e.Kind, e.Detail = "offer.accepted", nil
	return s.record(tx, e)
}

// conclude brings a redeemed, issued or accepted offer into another state and
// records the event. Its claims are shredded unless a refresh token lives.
func (s *Store) conclude(tx *database.Tx, id int64, to State, now time.Time, e Event) error {
	var state int64
	var refreshable bool
	if _, err := tx.Row("SELECT state, refresh_hash IS NOT NULL FROM offers WHERE id = ?", []any{id}, []any{&state, &refreshable}); err != nil {
		return err
	}
	if !slices.Contains([]State{Redeemed, Issued, Accepted}, State(state)) {
		return nil
	}
	var err error
	if refreshable {
		_, err = tx.Exec("UPDATE offers SET state = ?, finished_at = iif(finished_at = 0, ?, finished_at), pending = 0 WHERE id = ?", int(to), millis(now), id)
	} else {
		_, err = end(tx, id, to, now, true, "TRUE")
	}
	if err != nil {
		return err
	}
	return s.record(tx, e)
}
