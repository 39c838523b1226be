package store

import (
	"context"
	"encoding/json"
	"time"

	"chancery/appliance/database"
)

// MaxRefreshes is how often one refresh token serves.
const MaxRefreshes = 1000

// RefreshRequest asks for another access token (RFC 6749 §6).
type RefreshRequest struct {
	// Token is the refresh token.
	Token string
	// Client, Authenticated, JKT and ClientKey are as in a [Redemption].
	Client         string
	Authenticated  bool
	JKT, ClientKey []byte
	// Lifetime is the access token's, by what is granted.
	Lifetime func(granted []string) time.Duration
}

// refreshRow is what a refresh reads.
type refreshRow struct {
	uuid, hash, jkt, clientKey []byte
	configurations             []string
	expires                    time.Time
	refreshes, granted         int64
	client                     string
	authenticated, identified  bool
}

func (s *Store) refreshRow(ctx context.Context, id int64) (row refreshRow, err error) {
	var configurations []byte
	var expires int64
	err = s.db.Read(ctx, func(r *database.Reader) error {
		found, err := r.Row("SELECT uuid, configurations, refresh_hash, refresh_expires, refreshes, granted, client, authenticated, jkt, client_key, identified FROM offers WHERE id = ?", []any{id},
			[]any{&row.uuid, &configurations, &row.hash, &expires, &row.refreshes, &row.granted, &row.client, &row.authenticated, &row.jkt, &row.clientKey, &row.identified})
		if err == nil && !found {
			err = ErrToken
		}
		return err
	})
	if err != nil {
		return row, err
	}
	row.expires = timeOf(expires)
	return row, json.Unmarshal(configurations, &row.configurations)
}

// Refresh exchanges a refresh token for a new access token of the same grant.
// The one before it is dead then; a request under way with it records nothing any
// more. All that was granted may be issued once more, except what an operator has
// refused; what is deferred stays deferred. The refresh token stays the same
// (FAPI 2.0 Security Profile §5.3.2.1), until its time is over, it has served
// [MaxRefreshes] times, or the offer is cancelled.
//
// Errors: [ErrToken], [ErrClient], [ErrKeyAway]. Nothing is spent by them.
func (s *Store) Refresh(ctx context.Context, r RefreshRequest) (RedeemedToken, error) {
	id, secret, ok := parseOpaque(r.Token)
	if !ok {
		return RedeemedToken{}, ErrToken
	}
	if err := s.ready(id); err != nil {
		return RedeemedToken{}, err
	}
	row, err := s.refreshRow(ctx, id)
	if err != nil {
		return RedeemedToken{}, err
	}
	now := s.now()
	if !same(row.hash, secret.hash()) || !now.Before(row.expires) || row.refreshes >= MaxRefreshes {
		return RedeemedToken{}, ErrToken
	}
	if !same(row.jkt, r.JKT) || !same(row.clientKey, r.ClientKey) || row.client != r.Client || row.authenticated && !r.Authenticated {
		return RedeemedToken{}, ErrClient
	}
	var granted []string
	for i, c := range row.configurations {
		if row.granted&(1<<i) != 0 {
			granted = append(granted, c)
		}
	}
	token, err := newSecret()
	if err != nil {
		return RedeemedToken{}, err
	}
	out := RedeemedToken{Offer: formatUUID(row.uuid), Token: opaque(id, token), Granted: granted, Identified: row.identified, Expires: now.Add(r.Lifetime(granted))}
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(`UPDATE offers SET state = 2, finished_at = 0, token_hash = ?1, token_expires = ?2, due_at = max(?2, refresh_expires), refreshes = refreshes + 1,
				pending = granted & ~(SELECT coalesce(sum(1 << configuration), 0) FROM deferred WHERE offer = offers.id AND state = 2)
			WHERE id = ?3 AND refresh_hash = ?4 AND refresh_expires > ?5 AND refreshes < ?6`,
			token.hash(), millis(out.Expires), id, row.hash, millis(now), MaxRefreshes)
		if err != nil {
			return err
		}
		if n != 1 {
			return ErrToken // it ended meanwhile
		}
		return s.record(tx, Event{Time: now, Kind: "offer.refreshed", Actor: "wallet", Subject: out.Offer})
	})
	if err != nil {
		return RedeemedToken{}, err
	}
	s.outbox.wake()
	return out, nil
}
