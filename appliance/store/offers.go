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
//	made ─ fetched ─ redeemed ─ issued
//	   ╲       ╲         ╲
//	    expired, cancelled, locked, failed
//
// made and fetched offers have an unspent code; a redeemed one has an access
// token. The others are final, and the claims of a final offer are shredded.
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
)

var stateNames = [...]string{"made", "fetched", "redeemed", "issued", "expired", "cancelled", "locked", "failed"}

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
	// Credentials are those issued so far; [Store.Offer] fills it, lists do not.
	Credentials []Credential
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
}

// offerColumns are what scanOffer reads.
const offerColumns = "id, uuid, state, configurations, created_at, expires_at, created_by, fetched_at, redeemed_at, finished_at, tx_code, attempts_left"

// scanOffer reads a row of offerColumns.
func scanOffer(scan func(...any) error) (id int64, o Offer, err error) {
	var (
		uuid, configurations, txCode                        []byte
		state                                               int64
		created, expires, fetched, redeemed, finished, left int64
	)
	if err := scan(&id, &uuid, &state, &configurations, &created, &expires, &o.CreatedBy, &fetched, &redeemed, &finished, &txCode, &left); err != nil {
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
	o.RedeemedAt, o.FinishedAt = timeOf(redeemed), timeOf(finished)
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

// Offer returns one offer with the records of its credentials, or [ErrNotFound].
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
		return r.Rows("SELECT credential, configuration, version, key, intent, outcome, issued_at FROM credentials WHERE offer = ? ORDER BY n", []any{row},
			func(scan func(...any) error) error {
				var c Credential
				var at int64
				err := scan(&c.ID, &c.Configuration, &c.Version, &c.Key, &c.Intent, &c.Outcome, &at)
				c.IssuedAt = timeOf(at)
				o.Credentials = append(o.Credentials, c)
				return err
			})
	})
	if err != nil {
		return Offer{}, err
	}
	return o, nil
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
	first, last := int(Made), int(Failed)
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

// CancelOffer ends an offer that is not final yet: its code or access token is
// dead and its claims are shredded. [ErrState] when it is final already.
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
		ended, err := end(tx, row, Cancelled, now, "state IN (0, 1, 2)")
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

// end makes an offer final, if the condition holds, and shreds its claims: its
// key is overwritten, the sealed claims and the transaction code's MAC are deleted.
func end(tx *database.Tx, id int64, state State, now time.Time, condition string) (bool, error) {
	n, err := tx.Exec("UPDATE offers SET state = ?, finished_at = ?, due_at = NULL, epoch = NULL, tx_mac = NULL, token_hash = NULL, pending = 0 WHERE id = ? AND "+condition,
		int(state), millis(now), id)
	if err != nil || n == 0 {
		return false, err
	}
	if _, err = tx.Exec("DELETE FROM claims WHERE offer = ?", id); err != nil {
		return true, err
	}
	return true, putKey(tx, id, noKey[:])
}
