package store

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"chancery/appliance/database"
)

// MaxRepeats is how often a configuration's credentials are signed again.
const MaxRepeats = 8

// IssueRecord is what is written down of one configuration's credentials.
type IssueRecord struct {
	// Credentials are in the order of the holder's keys, at least one.
	Credentials []Credential
	// KeysHash is the SHA-256 over the thumbprints of the holder's keys in order.
	KeysHash [32]byte
	// ProofsHash is the SHA-256 over the request's proofs.
	ProofsHash [32]byte
}

// Issue records credentials of one configuration, at least one, before they are
// handed out, and returns the notification_id that covers them (OpenID4VCI 1.0
// §8.3). With the last granted configuration the offer is issued, and its claims
// are kept for retries or shredded; see [State]. [ErrNotGranted] when the grant
// does not allow the configuration; [ErrState] when the offer ended meanwhile, for
// instance by cancellation: then the credentials must not be handed out; events
// say so.
//
// A crash after the commit loses the answer, not the knowledge: the records here
// and in the audit log name each credential. The wallet may repeat its request
// ([Grant.Repeat]).
func (g *Grant) Issue(ctx context.Context, configuration string, r IssueRecord) (notificationID string, err error) {
	if !g.Allows(configuration) {
		return "", ErrNotGranted
	}
	return g.issue(ctx, g.bit(configuration), r, nil)
}

// issue records credentials, and uses up the transaction when there is one.
func (g *Grant) issue(ctx context.Context, bit int64, r IssueRecord, t *Transaction) (string, error) {
	if len(r.Credentials) == 0 {
		return "", errors.New("a configuration is issued with at least one credential")
	}
	s, now := g.store, g.store.now()
	rewrapped := g.rewrap(ctx)
	place := bits.TrailingZeros64(uint64(bit))
	notification := g.secret.derive("notification_id", place)
	withheld := false
	var left int64
	err := s.db.Write(ctx, func(tx *database.Tx) (err error) {
		var first int64
		first, left, err = g.advance(tx, bit, len(r.Credentials), rewrapped, now)
		if withheld = errors.Is(err, ErrState); withheld {
			return s.withhold(tx, g.Offer, r.Credentials, now)
		}
		if err == nil && t != nil {
			err = t.use(tx)
		}
		if err == nil {
			err = g.insert(tx, first, 0, r.Credentials, now)
		}
		if err != nil {
			return err
		}
		var keys, proofs []byte
		if s.options.RetryWindow > 0 && (rewrapped != nil || g.refreshable) {
			keys, proofs = r.KeysHash[:], r.ProofsHash[:]
		}
		if _, err := tx.Exec("INSERT OR REPLACE INTO issues (offer, configuration, first, size, keys_hash, proofs_hash, notification) VALUES (?, ?, ?, ?, ?, ?, ?)",
			g.id, place, first, len(r.Credentials), keys, proofs, notification.hash()); err != nil {
			return err
		}
		if left != 0 {
			return nil
		}
		return s.record(tx, Event{Time: now, Kind: "offer.issued", Actor: "appliance", Subject: g.Offer})
	})
	if err != nil {
		return "", err
	}
	s.outbox.wake()
	if withheld {
		return "", ErrState
	}
	g.pending, g.deferred = left, g.deferred&left
	if left == 0 { // what was read of the claims no longer holds
		g.state, g.epoch = Issued, 0
	}
	return opaque(g.id, notification), nil
}

// advance takes the configuration's bit away, in one conditional UPDATE, and
// makes the offer an issued one with the last. It returns the number of the first
// credential and what is pending still; [ErrState] when the offer ended meanwhile
// or the token is no longer its token.
func (g *Grant) advance(tx *database.Tx, bit int64, n int, rewrapped []byte, now time.Time) (first, left int64, err error) {
	until := g.Expires.Add(NotificationGrace)
	if rewrapped != nil {
		until = g.retryEnd(now)
	}
	var refreshable bool
	found, err := tx.Row(`UPDATE offers SET signed = signed + ?1, pending = pending & ~?2, deferred = deferred & ~?2,
			state = iif(pending = ?2, 3, 2), finished_at = iif(pending = ?2, ?3, 0),
			due_at = iif(pending = ?2 AND refresh_hash IS NULL, ?4, due_at), epoch = iif(pending = ?2 AND refresh_hash IS NULL AND ?5, NULL, epoch)
		WHERE id = ?6 AND state = 2 AND token_hash = ?7 AND pending & ?2 <> 0 RETURNING signed - ?1, pending, refresh_hash IS NOT NULL`,
		[]any{n, bit, millis(now), millis(until), rewrapped == nil, g.id, g.secret.hash()}, []any{&first, &left, &refreshable})
	switch {
	case err != nil:
		return 0, 0, err
	case !found:
		return 0, 0, ErrState
	case left != 0 || refreshable:
		return first, left, nil
	case rewrapped == nil:
		if g.grantedSet != bit { // an earlier configuration may be kept for retries
			err = forgetHashes(tx, g.id)
		}
		return first, left, errors.Join(err, shred(tx, g.id))
	}
	return first, left, putKey(tx, g.id, rewrapped)
}

// retryEnd is when a retry of what is issued now is no longer answered.
func (g *Grant) retryEnd(now time.Time) time.Time {
	end := now.Add(g.store.options.RetryWindow)
	if g.Expires.Before(end) {
		end = g.Expires
	}
	return end
}

// rewrap wraps the offer's own key so that it opens with the access token alone,
// or returns nil when retries are off. A key that does not open now is shredded
// later: what was signed is recorded and answered before retries are.
func (g *Grant) rewrap(ctx context.Context) []byte {
	if g.store.options.RetryWindow <= 0 || g.refreshable {
		return nil
	}
	key, err := g.key(ctx)
	if err == nil {
		defer clear(key)
		var rewrapped []byte
		if rewrapped, err = g.wrapForRetries(ctx, key); err == nil {
			return rewrapped
		}
	}
	if !errors.Is(err, ErrToken) {
		g.store.log.Warn("a retry will not be possible", "offer", g.Offer, "error", err)
	}
	return nil
}

func (g *Grant) wrapForRetries(ctx context.Context, key []byte) ([]byte, error) {
	epoch, err := g.store.epoch(ctx, g.epoch)
	if err != nil {
		return nil, err
	}
	aead, err := epoch.forRetries(g.secret)
	if err != nil {
		return nil, err
	}
	return encrypt(aead, key, g.uuid)
}

// insert writes records of credentials from a number on.
func (g *Grant) insert(tx *database.Tx, first int64, repeat int, credentials []Credential, now time.Time) error {
	for i, c := range credentials {
		if _, err := tx.Exec("INSERT INTO credentials (offer, n, credential, configuration, version, key, intent, outcome, issued_at, repeat) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			g.id, first+int64(i), c.ID, c.Configuration, c.Version, c.Key, c.Intent, c.Outcome, millis(now), repeat); err != nil {
			return err
		}
	}
	return nil
}

// withhold records that credentials were signed and not handed out.
func (s *Store) withhold(tx *database.Tx, offer string, credentials []Credential, now time.Time) error {
	for _, c := range credentials {
		if err := s.record(tx, Event{Time: now, Kind: "credential.withheld", Actor: "appliance", Subject: offer, Detail: map[string]string{"credential": c.ID}}); err != nil {
			return err
		}
	}
	return nil
}

// Repetition is what was recorded of a configuration's credentials and may be
// signed again.
type Repetition struct {
	Configuration string
	// KeysHash and ProofsHash are those of the [IssueRecord].
	KeysHash, ProofsHash [32]byte
	// Credentials are those first signed, in order.
	Credentials []Credential

	bit int64
}

// Repeat returns what a wallet may have signed again that asks for an issued
// configuration once more, because its connection broke. The caller holds the
// request against the hashes: it must name the same keys. [ErrNotFound] when
// nothing can be repeated: it was not issued under this token, the wallet has
// notified that it failed or was deleted, or the time for retries is over. [ErrRepeated] when
// it was signed again [MaxRepeats] times.
func (g *Grant) Repeat(ctx context.Context, configuration string) (*Repetition, error) {
	if !g.Done(configuration) || g.store.options.RetryWindow <= 0 || !g.kept() {
		return nil, ErrNotFound
	}
	i := &Repetition{Configuration: configuration, bit: g.bit(configuration)}
	var (
		first, size, repeats int64
		keys, proofs         []byte
	)
	err := g.store.db.Read(ctx, func(r *database.Reader) error {
		found, err := r.Row("SELECT first, size, repeats, keys_hash, proofs_hash FROM issues WHERE offer = ? AND configuration = ? AND failed_at + deleted_at = 0",
			[]any{g.id, bits.TrailingZeros64(uint64(i.bit))}, []any{&first, &size, &repeats, &keys, &proofs})
		if err == nil && (!found || len(keys) != 32 || len(proofs) != 32) {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		i.Credentials, err = credentials(r, g.id, first, first+size)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case repeats >= MaxRepeats:
		return nil, ErrRepeated
	}
	i.KeysHash, i.ProofsHash = [32]byte(keys), [32]byte(proofs)
	return i, nil
}

// Reissue records that what [Grant.Repeat] returned was signed again, before it
// is handed out, and returns the notification_id, which is the first one. The
// credentials have the same IDs in the same order, and intents and outcomes of
// their own: both records stay. [ErrRepeated] when the bound is reached,
// [ErrState] when the offer ended or the time for retries is over: then the
// credentials must not be handed out; events say so.
func (g *Grant) Reissue(ctx context.Context, i *Repetition, credentials []Credential) (notificationID string, err error) {
	if len(credentials) != len(i.Credentials) {
		return "", fmt.Errorf("%d credentials are repeated, not %d", len(i.Credentials), len(credentials))
	}
	for n, c := range credentials {
		if c.ID != i.Credentials[n].ID || c.Configuration != i.Configuration {
			return "", errors.New("a repeated credential keeps its identifier and configuration")
		}
	}
	s, now := g.store, g.store.now()
	place := bits.TrailingZeros64(uint64(i.bit))
	var refused error
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		var first, repeats int64
		found, err := tx.Row("SELECT repeats FROM issues WHERE offer = ? AND configuration = ? AND keys_hash IS NOT NULL AND failed_at + deleted_at = 0",
			[]any{g.id, place}, []any{&repeats})
		if err == nil && found && repeats < MaxRepeats {
			found, err = tx.Row("UPDATE offers SET signed = signed + ?1 WHERE id = ?2 AND token_hash = ?3 AND pending & ?4 = 0 AND epoch IS NOT NULL AND due_at > ?5 RETURNING signed - ?1",
				[]any{len(credentials), g.id, g.secret.hash(), i.bit, millis(now)}, []any{&first})
		}
		if err != nil {
			return err
		}
		if refused = nil; !found {
			refused = ErrState
		} else if repeats >= MaxRepeats {
			refused = ErrRepeated
		}
		if refused != nil {
			return s.withhold(tx, g.Offer, credentials, now)
		}
		if _, err := tx.Exec("UPDATE issues SET repeats = repeats + 1 WHERE offer = ? AND configuration = ?", g.id, place); err != nil {
			return err
		}
		return g.insert(tx, first, int(repeats)+1, credentials, now)
	})
	if err != nil {
		return "", err
	}
	if refused != nil {
		s.outbox.wake()
		return "", refused
	}
	return opaque(g.id, g.secret.derive("notification_id", place)), nil
}

// Fail ends an offer that can never be issued, for instance because its claims
// no longer fit a changed configuration. reason is a word for the event.
func (g *Grant) Fail(ctx context.Context, reason string) error {
	s, now := g.store, g.store.now()
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		ended, err := end(tx, g.id, Failed, now, false, "state = 2")
		if err != nil {
			return err
		}
		if !ended {
			return fmt.Errorf("offer %s: %w", g.Offer, ErrState)
		}
		return s.record(tx, Event{Time: now, Kind: "offer.failed", Actor: "appliance", Subject: g.Offer, Detail: map[string]string{"reason": reason}})
	})
	if err == nil {
		s.outbox.wake()
	}
	return err
}
