package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chancery/appliance/database"
)

// Redemption asks for an access token.
type Redemption struct {
	Code string
	// TransactionCode is nil when the request had none.
	TransactionCode *string
	// Lifetime is the access token's, by what is granted.
	Lifetime func(granted []string) time.Duration
	// Refresh is the refresh token's, from now on and whatever is refreshed; nil
	// or 0 gives none out. Nor gets one who could not be told from a thief: who has
	// neither JKT nor ClientKey and has not authenticated (FAPI 2.0 Security Profile §5.3.2.1).
	Refresh func(granted []string) time.Duration
	// Client is the request's client_id, or "".
	Client string
	// Authenticated tells that the client has proven to be Client.
	Authenticated bool
	// JKT is the thumbprint of the DPoP key, 32 bytes, nil for a Bearer token.
	JKT []byte
	// ClientKey is the thumbprint of the attested client instance's key, 32
	// bytes, nil without a wallet attestation.
	ClientKey []byte
	// Select, when set, is called with the offer's configurations once code and
	// transaction code are right and before anything is spent. It returns those
	// to be granted, and whether credential identifiers are given out for them.
	// Its error is returned as it is.
	Select func(offered []string) (granted []string, identified bool, err error)
}

// refresh returns how long a refresh token lives, or 0 for none.
func (r Redemption) refresh(granted []string) time.Duration {
	if r.Refresh == nil || r.JKT == nil && r.ClientKey == nil && !r.Authenticated {
		return 0
	}
	return r.Refresh(granted)
}

// RedeemedToken is the answer to a [Redemption] or a [RefreshRequest].
type RedeemedToken struct {
	// Offer is the offer's id.
	Offer string
	// Token is the access token.
	Token string
	// RefreshToken is "" when there is none; a refresh gives no other one out.
	RefreshToken string
	Granted      []string
	// Identified tells that credential identifiers were given out.
	Identified bool
	Expires    time.Time
}

// offerRow is what a redemption reads.
type offerRow struct {
	id              int64
	uuid            []byte
	state           State
	configurations  []string
	expires         time.Time
	codeHash, txMAC []byte
	needsTx         bool
	attemptsLeft    int64
	epoch           int64
	requiredClient  string
	authentication  bool
}

func (s *Store) offerByCode(ctx context.Context, code string) (offerRow, error) {
	id, secret, ok := parseOpaque(code)
	if !ok {
		return offerRow{}, ErrCode
	}
	row := offerRow{id: id}
	var (
		configurations []byte
		state, expires int64
		found          bool
	)
	err := s.db.Read(ctx, func(r *database.Reader) (err error) {
		found, err = r.Row("SELECT uuid, state, configurations, expires_at, code_hash, tx_mac, tx_code IS NOT NULL, attempts_left, coalesce(epoch, 0), required_client, client_authentication FROM offers WHERE id = ?", []any{id},
			[]any{&row.uuid, &state, &configurations, &expires, &row.codeHash, &row.txMAC, &row.needsTx, &row.attemptsLeft, &row.epoch, &row.requiredClient, &row.authentication})
		return err
	})
	if err != nil {
		return row, err
	}
	if !found || !same(row.codeHash, secret.hash()) {
		return row, ErrCode
	}
	row.state, row.expires = State(state), timeOf(expires)
	return row, json.Unmarshal(configurations, &row.configurations)
}

// Redeem exchanges a pre-authorized code for an access token (promise P4).
//
// What reads comes first and spends nothing. The decision is one conditional
// UPDATE in the writer's transaction: it names every condition again, and who
// changes the row wins; the token is handed out after the commit is durable. A
// wrong transaction code is counted by an UPDATE of its own, which locks and
// shreds the offer at the cap: however many guesses race, the writer takes them
// one after the other, and a right one that comes after the cap finds the offer
// locked.
//
// A code whose token response was lost stays spent. Nothing in a request tells
// the wallet that lost it from somebody else who saw the code, and a code that
// comes again is refused (RFC 6749 §4.1.2). A crash between the commit and the
// answer thus leaves a token that nobody holds: the offer expires with it, its
// claims are shredded, and the operator makes a new one. The token itself is
// patient: it allows the same request again, after any crash, until its
// credential is recorded.
//
// Errors: [ErrCode], [ErrClient], [ErrTransactionCodeMissing], [ErrTransactionCodeUnexpected],
// [ErrTransactionCodeWrong], [ErrKeyAway], or what Select returned. Whose code it
// was is told with an error, too, once the code was found right: for operators.
func (s *Store) Redeem(ctx context.Context, r Redemption) (RedeemedToken, error) {
	row, err := s.offerByCode(ctx, r.Code)
	if err == nil {
		err = s.ready(row.id)
	}
	if err != nil {
		return RedeemedToken{}, err
	}
	known, now := RedeemedToken{Offer: formatUUID(row.uuid)}, s.now()
	if row.state != Made && row.state != Fetched {
		if row.state == Redeemed || row.state == Issued || row.state == Accepted {
			s.noteReplay(ctx, row, now)
		}
		return known, ErrCode
	}
	if !now.Before(row.expires) {
		return known, ErrCode
	}
	if row.requiredClient != "" && r.Client != row.requiredClient || row.authentication && !r.Authenticated {
		return known, ErrClient
	}
	switch {
	case row.needsTx && r.TransactionCode == nil:
		return known, ErrTransactionCodeMissing
	case !row.needsTx && r.TransactionCode != nil:
		return known, ErrTransactionCodeUnexpected
	case row.needsTx:
		epoch, err := s.epoch(ctx, row.epoch)
		if errors.Is(err, ErrNotFound) {
			err = ErrCode // the offer ended meanwhile
		}
		if err != nil {
			return known, err
		}
		if !same(row.txMAC, epoch.transactionMAC(row.uuid, *r.TransactionCode)) {
			return known, s.countWrong(ctx, row, now)
		}
	}
	granted, identified := row.configurations, false
	if r.Select != nil {
		if granted, identified, err = r.Select(row.configurations); err != nil {
			return known, err
		}
	}
	return s.spend(ctx, row, granted, identified, now, r)
}

// spend is the one conditional UPDATE.
func (s *Store) spend(ctx context.Context, row offerRow, granted []string, identified bool, now time.Time, r Redemption) (RedeemedToken, error) {
	pending, err := setOf(row.configurations, granted)
	if err != nil {
		return RedeemedToken{}, err
	}
	token, err := newSecret()
	if err != nil {
		return RedeemedToken{}, err
	}
	out := RedeemedToken{Offer: formatUUID(row.uuid), Token: opaque(row.id, token), Granted: granted, Identified: identified, Expires: now.Add(r.Lifetime(granted))}
	var refreshHash any
	var refreshExpires time.Time
	if lifetime := r.refresh(granted); lifetime > 0 {
		refresh, err := newSecret()
		if err != nil {
			return RedeemedToken{}, err
		}
		out.RefreshToken, refreshHash, refreshExpires = opaque(row.id, refresh), refresh.hash(), now.Add(lifetime)
	}
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(`UPDATE offers SET state = 2, redeemed_at = ?, due_at = ?, token_hash = ?, token_expires = ?, refresh_hash = ?, refresh_expires = ?,
				identified = ?, client = ?, authenticated = ?, jkt = ?, client_key = ?, granted = ?, pending = ?, tx_mac = NULL
			WHERE id = ? AND state IN (0, 1) AND code_hash = ? AND tx_mac IS ? AND (tx_mac IS NULL OR attempts_left > 0) AND expires_at > ?`,
			millis(now), max(millis(out.Expires), millis(refreshExpires)), token.hash(), millis(out.Expires), refreshHash, millis(refreshExpires),
			identified, r.Client, r.Authenticated, r.JKT, r.ClientKey, pending, pending,
			row.id, row.codeHash, row.txMAC, millis(now))
		if err != nil {
			return err
		}
		if n != 1 {
			return ErrCode // somebody else was first, or it ended meanwhile
		}
		return s.record(tx, Event{Time: now, Kind: "offer.redeemed", Actor: "wallet", Subject: out.Offer})
	})
	if err != nil {
		return RedeemedToken{}, err
	}
	s.outbox.wake()
	return out, nil
}

// setOf returns the set of granted configurations.
func setOf(offered, granted []string) (set int64, err error) {
	for _, g := range granted {
		found := false
		for i, o := range offered {
			if o == g {
				set |= 1 << i
				found = true
			}
		}
		if !found {
			return 0, fmt.Errorf("a configuration was granted that was not offered: %w", ErrNotGranted)
		}
	}
	if set == 0 {
		return 0, fmt.Errorf("nothing was granted: %w", ErrNotGranted)
	}
	return set, nil
}

// countWrong takes one attempt from the offer; the last one locks it.
func (s *Store) countWrong(ctx context.Context, row offerRow, now time.Time) error {
	id := formatUUID(row.uuid)
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		var left int64
		found, err := tx.Row("UPDATE offers SET attempts_left = attempts_left - 1 WHERE id = ? AND state IN (0, 1) AND attempts_left > 0 RETURNING attempts_left", []any{row.id}, []any{&left})
		if err != nil || !found {
			return err // not found: it ended meanwhile, and the answer is the same
		}
		if left > 0 {
			return nil
		}
		if _, err := end(tx, row.id, Locked, now, false, "state IN (0, 1)"); err != nil {
			return err
		}
		return s.record(tx, Event{Time: now, Kind: "offer.locked", Actor: "wallet", Subject: id})
	})
	if err != nil {
		return err
	}
	s.outbox.wake()
	return ErrTransactionCodeWrong
}

// noteReplay raises an alarm, once an offer: somebody who knows the code came
// after it was spent. The token stays, or every racing wallet could take the
// winner's credential away.
func (s *Store) noteReplay(ctx context.Context, row offerRow, now time.Time) {
	id, first := formatUUID(row.uuid), false
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec("UPDATE offers SET replays = 1 WHERE id = ? AND replays = 0", row.id)
		if first = n == 1; err != nil || !first {
			return err
		}
		return s.record(tx, Event{Time: now, Kind: "offer.replayed", Actor: "wallet", Subject: id})
	})
	if err != nil {
		s.log.Error("a replay could not be recorded", "error", err)
		return
	}
	if first {
		s.log.Warn("a spent code was sent again", "offer", id)
		s.outbox.wake()
	}
}
