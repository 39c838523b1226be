package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"
	"unicode"
	"unicode/utf8"

	"chancery/appliance/database"
)

// DeferredState is where a deferred credential stands.
//
//	pending ─ approved ─ issued
//	       ╲ refused   ╲
//	        ended       ended
type DeferredState int

// The states of a deferred credential.
const (
	// DeferredPending waits for an operator.
	DeferredPending DeferredState = iota
	// DeferredApproved waits for the wallet, for which it is signed then.
	DeferredApproved
	// DeferredRefused is an operator's no.
	DeferredRefused
	// DeferredIssued was fetched.
	DeferredIssued
	// DeferredEnded ended with its offer.
	DeferredEnded
)

var deferredNames = [...]string{"pending", "approved", "refused", "issued", "ended"}

// String returns the state's name as the admin API shows it.
func (s DeferredState) String() string {
	if s < 0 || int(s) >= len(deferredNames) {
		return fmt.Sprintf("state %d", int(s))
	}
	return deferredNames[s]
}

// ParseDeferredState returns the state of a name.
func ParseDeferredState(name string) (DeferredState, bool) {
	for i, n := range deferredNames {
		if n == name {
			return DeferredState(i), true
		}
	}
	return 0, false
}

// Deferred is what is kept of a credential request that an operator decides.
type Deferred struct {
	// Holders is what the caller needs of the holder's keys to sign later. It is
	// sealed under the offer's own key.
	Holders []byte
	// KeysHash and ProofsHash are as in an [IssueRecord].
	KeysHash, ProofsHash [32]byte
	// Interval is how long the wallet is asked to wait between polls.
	Interval time.Duration
}

// holdersAAD binds sealed keys to the offer and the configuration.
func (g *Grant) holdersAAD(place int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte("holders"), g.uuid...), uint16(place))
}

// Defer keeps a credential request for an operator's decision and returns its
// transaction_id (OpenID4VCI 1.0 §8.3). A wallet whose answer was lost asks again,
// with the same keys, and gets the transaction_id again; after a refresh it gets
// another one, which replaces the first. [ErrNotGranted] when the configuration
// can be neither issued nor is deferred, [ErrKeys] when it is deferred for other
// keys, [ErrState] when the offer ended meanwhile, [ErrKeyAway].
func (g *Grant) Defer(ctx context.Context, configuration string, d Deferred) (transactionID string, err error) {
	s, bit := g.store, g.bit(configuration)
	place := bits.TrailingZeros64(uint64(bit))
	secret := g.secret.derive("transaction_id", place)
	if g.Deferring(configuration) {
		id, err := g.deferAgain(ctx, place, secret, d)
		return opaque(id, secret), err
	}
	if !g.Allows(configuration) {
		return "", ErrNotGranted
	}
	key, err := g.key(ctx)
	if err != nil {
		return "", err
	}
	defer clear(key)
	aead, err := gcm(key)
	if err != nil {
		return "", err
	}
	sealed, err := encrypt(aead, d.Holders, g.holdersAAD(place))
	if err != nil {
		return "", err
	}
	now := s.now()
	var id int64
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec("UPDATE offers SET deferred = deferred | ?1 WHERE id = ?2 AND state = 2 AND token_hash = ?3 AND pending & ?1 <> 0", bit, g.id, g.secret.hash())
		if err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("offer %s: %w", g.Offer, ErrState)
		}
		// One of before a refresh may be there still.
		if _, err := tx.Exec("DELETE FROM deferred WHERE offer = ? AND configuration = ?", g.id, place); err != nil {
			return err
		}
		if _, err := tx.Row("SELECT coalesce(max(id), 0) + 1 FROM deferred", nil, []any{&id}); err != nil {
			return err
		}
		uuid, err := newUUID(id)
		if err != nil {
			return err
		}
		if _, err := tx.Exec("INSERT INTO deferred (id, uuid, offer, configuration, transaction_hash, keys_hash, proofs_hash, holders, interval, requested_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			id, uuid[:], g.id, place, secret.hash(), d.KeysHash[:], d.ProofsHash[:], sealed, d.Interval.Milliseconds(), millis(now)); err != nil {
			return err
		}
		return s.record(tx, Event{Time: now, Kind: "deferred.requested", Actor: "wallet", Subject: g.Offer,
			Detail: map[string]string{"deferred": formatUUID(uuid[:]), "configuration": configuration}})
	})
	if err != nil {
		return "", err
	}
	s.outbox.wake()
	g.deferred |= bit
	return opaque(id, secret), nil
}

// deferAgain finds the transaction of a request that is repeated and makes secret
// its transaction_id's.
func (g *Grant) deferAgain(ctx context.Context, place int, secret secret, d Deferred) (id int64, err error) {
	var keys, hash []byte
	err = g.store.db.Read(ctx, func(r *database.Reader) error {
		found, err := r.Row("SELECT id, keys_hash, transaction_hash FROM deferred WHERE offer = ? AND configuration = ? AND state IN (0, 1)", []any{g.id, place}, []any{&id, &keys, &hash})
		if err == nil && !found {
			err = ErrState
		}
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case !same(keys, d.KeysHash[:]):
		return 0, ErrKeys
	case same(hash, secret.hash()):
		return id, nil
	}
	return id, g.store.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec("UPDATE deferred SET transaction_hash = ? WHERE id = ? AND state IN (0, 1) AND EXISTS (SELECT 1 FROM offers WHERE id = deferred.offer AND token_hash = ?)",
			secret.hash(), id, g.secret.hash())
		if err == nil && n != 1 {
			err = ErrState
		}
		return err
	})
}

// Transaction is a deferred credential as its wallet may see it.
type Transaction struct {
	Configuration string
	// State is pending, approved or refused.
	State DeferredState
	// Holders is what [Grant.Defer] was given; nil unless State is approved.
	Holders []byte
	// KeysHash and ProofsHash are those of the credential request; zero when State is refused.
	KeysHash, ProofsHash [32]byte
	Interval             time.Duration

	id, bit int64
}

// Transaction finds what a transaction_id stands for (OpenID4VCI 1.0 §9).
// [ErrNotFound] when it is unknown, another offer's, of an offer that has failed,
// or used: a wallet that has lost the answer to its last poll repeats its credential request
// ([Grant.Repeat]), as transaction_id must be invalid then. The error wraps
// [ErrKeyAway] when the keys cannot be opened.
func (g *Grant) Transaction(ctx context.Context, transactionID string) (*Transaction, error) {
	id, secret, ok := parseOpaque(transactionID)
	if !ok {
		return nil, ErrNotFound
	}
	t := &Transaction{id: id}
	var (
		offer, place, state, interval int64
		hash, keys, proofs, sealed    []byte
		found                         bool
	)
	err := g.store.db.Read(ctx, func(r *database.Reader) (err error) {
		found, err = r.Row("SELECT offer, configuration, state, transaction_hash, keys_hash, proofs_hash, holders, interval FROM deferred WHERE id = ?", []any{id},
			[]any{&offer, &place, &state, &hash, &keys, &proofs, &sealed, &interval})
		return err
	})
	if err != nil {
		return nil, err
	}
	if !found || offer != g.id || !same(hash, secret.hash()) || place < 0 || place >= int64(len(g.Configurations)) {
		return nil, ErrNotFound
	}
	t.Configuration, t.State, t.Interval, t.bit = g.Configurations[place], DeferredState(state), time.Duration(interval)*time.Millisecond, 1<<place
	switch {
	case t.State == DeferredRefused:
		return t, nil
	case g.deferred&t.bit == 0: // the offer has failed, and only a refresh takes the request up again
		return nil, ErrNotFound
	case len(keys) != 32 || len(proofs) != 32:
		return nil, errors.New("the deferred request has no hashes: the row was changed")
	}
	t.KeysHash, t.ProofsHash = [32]byte(keys), [32]byte(proofs)
	if t.State != DeferredApproved {
		return t, nil
	}
	key, err := g.key(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	if t.Holders, err = decrypt(aead, sealed, g.holdersAAD(int(place))); err != nil {
		return nil, errors.New("the holder's keys do not open: the row was changed")
	}
	return t, nil
}

// Complete is [Grant.Issue] for an approved transaction, whose transaction_id is
// invalid from then on. [ErrNotGranted] when it is not approved or was completed
// already.
func (g *Grant) Complete(ctx context.Context, t *Transaction, credentials []Credential) (notificationID string, err error) {
	if t.State != DeferredApproved || g.deferred&t.bit == 0 {
		return "", ErrNotGranted
	}
	return g.issue(ctx, t.bit, IssueRecord{Credentials: credentials, KeysHash: t.KeysHash, ProofsHash: t.ProofsHash}, t)
}

// use makes the transaction_id invalid. The offer's row has decided already
// whether it may be used.
func (t *Transaction) use(tx *database.Tx) error {
	n, err := tx.Exec("UPDATE deferred SET state = 3, transaction_hash = NULL, "+noHolders+" WHERE id = ? AND state = 1", t.id)
	if err == nil && n != 1 {
		err = errors.New("the deferred request is not what its offer says: the row was changed")
	}
	return err
}

// MaxReason is how long an operator's reason may be, in characters.
const MaxReason = 200

// CheckReason refuses a reason that is too long or not printable.
func CheckReason(reason string) error {
	if utf8.RuneCountInString(reason) > MaxReason {
		return fmt.Errorf("a reason has at most %d characters", MaxReason)
	}
	for _, r := range reason {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return errors.New("a reason is one line of printable characters")
		}
	}
	return nil
}

// DecideDeferred approves or refuses a deferred credential. actor is the
// operator; see [CheckReason] for the reason, which is kept with the row alone.
// Where nothing is left to be issued after a refusal, the offer ends: as issued
// with what it has, or failed. [ErrNotFound], or [ErrState] when it was decided
// already or its offer has ended.
func (s *Store) DecideDeferred(ctx context.Context, id string, approve bool, reason, actor string) error {
	if err := CheckReason(reason); err != nil {
		return err
	}
	uuid, ok := parseUUID(id)
	if !ok {
		return ErrNotFound
	}
	row, now := getID(uuid[:idSize]), s.now()
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		var stored, offer []byte
		var offerID, place int64
		var configuration string
		found, err := tx.Row("SELECT d.uuid, o.id, o.uuid, d.configuration, json_extract(o.configurations, '$[' || d.configuration || ']') FROM deferred d JOIN offers o ON o.id = d.offer WHERE d.id = ?",
			[]any{row}, []any{&stored, &offerID, &offer, &place, &configuration})
		if err != nil {
			return err
		}
		if !found || formatUUID(stored) != id {
			return ErrNotFound
		}
		state, kind := DeferredApproved, "deferred.approved"
		if !approve {
			state, kind = DeferredRefused, "deferred.refused"
		}
		n, err := tx.Exec(`UPDATE deferred SET state = ?1, decided_at = ?2, decided_by = ?3, reason = ?4
			WHERE id = ?5 AND state = 0 AND EXISTS (SELECT 1 FROM offers WHERE id = deferred.offer AND state = 2 AND due_at > ?2)`, int(state), millis(now), actor, reason, row)
		if err != nil {
			return err
		}
		if n != 1 {
			return ErrState
		}
		if err := s.record(tx, Event{Time: now, Kind: kind, Actor: actor, Subject: formatUUID(offer), Detail: map[string]string{"deferred": id, "configuration": configuration}}); err != nil || approve {
			return err
		}
		if _, err := tx.Exec("UPDATE deferred SET "+noHolders+" WHERE id = ?", row); err != nil {
			return err
		}
		return s.refuse(tx, offerID, formatUUID(offer), 1<<place, now)
	})
	if err == nil {
		s.outbox.wake()
	}
	return err
}

// refuse takes a configuration out of what may be issued, and ends the offer when
// it was the last. Its access token is kept, so that the wallet can be told.
func (s *Store) refuse(tx *database.Tx, id int64, offer string, bit int64, now time.Time) error {
	var left int64
	var signed bool
	if _, err := tx.Row("UPDATE offers SET pending = pending & ~?1, deferred = deferred & ~?1 WHERE id = ?2 RETURNING pending, signed > 0", []any{bit, id}, []any{&left, &signed}); err != nil || left != 0 {
		return err
	}
	e := Event{Time: now, Kind: "offer.issued", Actor: "appliance", Subject: offer}
	if signed {
		return s.settleIssued(tx, id, now, e)
	}
	if _, err := end(tx, id, Failed, now, true, "state = 2"); err != nil {
		return err
	}
	e.Kind, e.Detail = "offer.failed", map[string]string{"reason": "refused by an operator"}
	return s.record(tx, e)
}
