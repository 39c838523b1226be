package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"chancery/appliance/database"
)

// State is where an offer stands.
//
//	made ─ fetched ─ redeemed ─ issued ─ accepted
//	   ╲       ╲         ╲         ╲       ╱
//	    expired, cancelled, locked, failed
//
// made and fetched offers have an unspent code; a redeemed one has an access
// token. The others are final, and the claims of a final offer are shredded, with
// two exceptions. An issued or accepted one keeps them for retries, until
// [Options.RetryWindow] is over, the access token runs out, or the wallet has
// notified that it deleted every credential; they are then under a key that the
// appliance has only together with the access token. And while a refresh token
// lives, claims stay as they were: it makes an issued, accepted or failed offer a
// redeemed one again, and such an offer can be cancelled.
//
// A wallet that notifies the failure of one configuration fails the offer,
// whatever became of the others and of what is not issued yet: a partial failure
// is a failure of the whole flow (OpenID4VCI 1.0 §11).
type State int

// The states of an offer.
const (
	Made State = iota
	Fetched
	Redeemed
	Issued
	Expired
	Cancelled
	Locked
	Failed
	Accepted
)

var stateNames = [...]string{"made", "fetched", "redeemed", "issued", "expired", "cancelled", "locked", "failed", "accepted"}

// String returns the state's name as the admin API shows it.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state %d", int(s))
	}
	return stateNames[s]
}

// ParseState returns the state of a name.
func ParseState(name string) (State, bool) {
	for i, n := range stateNames {
		if n == name {
			return State(i), true
		}
	}
	return 0, false
}

// TxCode is how a transaction code looks (OpenID4VCI 1.0 §4.1.1).
type TxCode struct {
	// InputMode is "numeric" or "text".
	InputMode string `json:"input_mode,omitempty"`
	// Length is in characters.
	Length int `json:"length,omitempty"`
	// Description is shown by the wallet; at most 300 characters.
	Description string `json:"description,omitempty"`
}

// MaxConfigurations is how many configurations one offer may name.
const MaxConfigurations = 16

// Offer is a pre-authorized offer, without its claims and secrets.
type Offer struct {
	// ID is a UUID.
	ID             string
	Configurations []string
	State          State
	CreatedAt      time.Time
	ExpiresAt      time.Time
	// CreatedBy is the operator's name.
	CreatedBy string
	// FetchedAt, RedeemedAt and FinishedAt are zero until it happened.
	FetchedAt, RedeemedAt, FinishedAt time.Time
	// TxCode is nil when the offer needs no transaction code.
	TxCode *TxCode
	// AttemptsLeft is how many wrong transaction codes the offer still bears.
	AttemptsLeft int
	// RequiredClient and ClientAuthentication are as in [NewOffer].
	RequiredClient       string
	ClientAuthentication bool
	// RefreshExpires is when the offer's refresh token ends; zero without a live one.
	RefreshExpires time.Time
	// Credentials are those issued so far; [Store.Offer] fills it, lists do not.
	Credentials []Credential
	// Notifications are the wallet's, in time's order, each event of a
	// configuration once; [Store.Offer] fills it, lists do not.
	Notifications []Notification
}

// Credential is the record of one issued credential.
type Credential struct {
	// ID ties it to the audit log's entries; a random UUID.
	ID            string
	Configuration string
	// Version is the configuration's.
	Version string
	// Key is the label of the key that signed it.
	Key string
	// Intent and Outcome are the audit log's entries.
	Intent, Outcome int64
	IssuedAt        time.Time
	// Repeat is 0 for the first signature. A credential that was signed again
	// for a wallet that had lost it has a record with the same ID for each time.
	Repeat int
}

// offerColumns are what scanOffer reads.
const offerColumns = "id, uuid, state, configurations, created_at, expires_at, created_by, fetched_at, redeemed_at, finished_at, tx_code, attempts_left, " +
	"required_client, client_authentication, iif(refresh_hash IS NULL, 0, refresh_expires)"

// scanOffer reads a row of offerColumns.
func scanOffer(scan func(...any) error) (id int64, o Offer, err error) {
	var (
		uuid, configurations, txCode                                 []byte
		state                                                        int64
		created, expires, fetched, redeemed, finished, left, refresh int64
	)
	if err := scan(&id, &uuid, &state, &configurations, &created, &expires, &o.CreatedBy, &fetched, &redeemed, &finished, &txCode, &left,
		&o.RequiredClient, &o.ClientAuthentication, &refresh); err != nil {
		return 0, o, err
	}
	if err := json.Unmarshal(configurations, &o.Configurations); err != nil {
		return 0, o, err
	}
	if txCode != nil {
		o.TxCode = &TxCode{}
		if err := json.Unmarshal(txCode, o.TxCode); err != nil {
			return 0, o, err
		}
	}
	o.ID, o.State, o.AttemptsLeft = formatUUID(uuid), State(state), int(left)
	o.CreatedAt, o.ExpiresAt, o.FetchedAt = timeOf(created), timeOf(expires), timeOf(fetched)
	o.RedeemedAt, o.FinishedAt, o.RefreshExpires = timeOf(redeemed), timeOf(finished), timeOf(refresh)
	return id, o, nil
}

// overlay shows what is true but not yet written: a fetch, an expiry.
func (s *Store) overlay(id int64, o *Offer) {
	if o.State == Made {
		s.fetchMu.Lock()
		if at, ok := s.fetched[id]; ok {
			o.State, o.FetchedAt = Fetched, at
		}
		s.fetchMu.Unlock()
	}
	if (o.State == Made || o.State == Fetched) && !s.now().Before(o.ExpiresAt) {
		o.State = Expired
	}
}

// Offer returns one offer with the records of its credentials and the wallet's
// notifications, or [ErrNotFound].
func (s *Store) Offer(ctx context.Context, id string) (Offer, error) {
	uuid, ok := parseUUID(id)
	if !ok {
		return Offer{}, ErrNotFound
	}
	var o Offer
	err := s.db.Read(ctx, func(r *database.Reader) error {
		found := false
		row := getID(uuid[:idSize])
		err := r.Rows("SELECT "+offerColumns+" FROM offers WHERE id = ?", []any{row}, func(scan func(...any) error) (err error) {
			_, o, err = scanOffer(scan)
			found = o.ID == id
			return err
		})
		if err == nil && !found {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		s.overlay(row, &o)
		if o.Credentials, err = credentials(r, row, 0, 1<<62); err == nil {
			o.Notifications, err = notifications(r, row, o.Configurations)
		}
		return err
	})
	if err != nil {
		return Offer{}, err
	}
	return o, nil
}

// credentials reads an offer's records from one number to another.
func credentials(r *database.Reader, offer, from, to int64) (list []Credential, err error) {
	err = r.Rows("SELECT credential, configuration, version, key, intent, outcome, issued_at, repeat FROM credentials WHERE offer = ? AND n >= ? AND n < ? ORDER BY n", []any{offer, from, to},
		func(scan func(...any) error) error {
			var c Credential
			var at int64
			err := scan(&c.ID, &c.Configuration, &c.Version, &c.Key, &c.Intent, &c.Outcome, &at, &c.Repeat)
			c.IssuedAt = timeOf(at)
			list = append(list, c)
			return err
		})
	return list, err
}

// Filter narrows a list of offers.
type Filter struct {
	// State is nil for all.
	State *State
}

// ListOffers returns up to limit offers, newest first, and the cursor to go on
// with, which is empty at the end. An unreadable cursor is [ErrNotFound]. Where
// states are asked for, what is due is ended and what was fetched is written
// first, so that the rows say what holds now.
func (s *Store) ListOffers(ctx context.Context, filter Filter, limit int, cursor string) ([]Offer, string, error) {
	before, err := parseCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	first, last := int(Made), int(Accepted)
	if filter.State != nil {
		first, last = int(*filter.State), int(*filter.State)
		if err := s.settle(ctx); err != nil {
			return nil, "", err
		}
	}
	var offers []Offer
	var lastID int64
	more := false
	err = s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT "+offerColumns+" FROM offers WHERE id < ? AND state BETWEEN ? AND ? ORDER BY id DESC LIMIT ?", []any{before, first, last, limit + 1},
			func(scan func(...any) error) error {
				id, o, err := scanOffer(scan)
				if err != nil {
					return err
				}
				if len(offers) == limit {
					more = true
					return nil
				}
				s.overlay(id, &o)
				lastID = id
				offers = append(offers, o)
				return nil
			})
	})
	if err != nil || !more {
		return offers, "", err
	}
	return offers, formatCursor(lastID), nil
}

func formatCursor(id int64) string {
	var b [idSize]byte
	putID(b[:], id)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// parseCursor returns the id to stay below; the empty cursor starts at the top.
func parseCursor(cursor string) (int64, error) {
	if cursor == "" {
		return 1<<62 - 1, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) != idSize || len(cursor) != base64.RawURLEncoding.EncodedLen(idSize) { // line ends are skipped
		return 0, fmt.Errorf("cursor: %w", ErrNotFound)
	}
	return getID(b), nil
}

// CancelOffer ends an offer that is not final yet or has a live refresh token:
// its code or tokens are dead and its claims are shredded. [ErrState] when it is
// final already.
func (s *Store) CancelOffer(ctx context.Context, id, actor string) error {
	uuid, ok := parseUUID(id)
	if !ok {
		return ErrNotFound
	}
	row, now := getID(uuid[:idSize]), s.now()
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		var stored []byte
		found, err := tx.Row("SELECT uuid FROM offers WHERE id = ?", []any{row}, []any{&stored})
		if err != nil {
			return err
		}
		if !found || formatUUID(stored) != id {
			return ErrNotFound
		}
		ended, err := end(tx, row, Cancelled, now, false, unfinished)
		if err != nil {
			return err
		}
		if !ended {
			return ErrState
		}
		return s.record(tx, Event{Time: now, Kind: "offer.cancelled", Actor: actor, Subject: id})
	})
	if err == nil {
		s.outbox.wake()
	}
	return err
}
