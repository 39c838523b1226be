package store

import (
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"chancery/appliance/database"
)

// turn serialises the credential requests of one access token.
type turn struct {
	slot    chan struct{}
	waiting int
}

// takeTurn waits until no other request with the same token is under way, so
// that one token never has two signatures made for one credential at a time.
func (s *Store) takeTurn(ctx context.Context, key [32]byte) (release func(), err error) {
	s.turnsMu.Lock()
	t := s.turns[key]
	if t == nil {
		t = &turn{slot: make(chan struct{}, 1)}
		s.turns[key] = t
	}
	t.waiting++
	s.turnsMu.Unlock()
	leave := func() {
		s.turnsMu.Lock()
		defer s.turnsMu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(s.turns, key)
		}
	}
	select {
	case t.slot <- struct{}{}:
		return func() { <-t.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// Grant is what an access token allows. It belongs to one request: while it is
// held, other requests with the same token wait. Release it.
//
// A configuration that the token covers is in one of three positions: it can be
// issued or deferred ([Grant.Allows]), it waits for an operator
// ([Grant.Deferring]), or it is over ([Grant.Done]): issued, so that perhaps it
// can be repeated ([Grant.Repeat]), or refused.
type Grant struct {
	// Offer is the offer's id.
	Offer string
	// Configurations are those of the offer.
	Configurations []string
	// Identified tells that the token response named credential identifiers,
	// which the wallet must use then (OpenID4VCI 1.0 §8.2).
	Identified bool
	// Client is the token request's client_id, or "".
	Client string
	// JKT is the thumbprint of the DPoP key that the token is bound to (RFC 9449
	// §6.1), 32 bytes; nil for a Bearer token. The caller holds the request
	// against it.
	JKT []byte
	// ClientKey is the thumbprint of the attested client instance's key, 32
	// bytes; nil when the token request had no wallet attestation.
	ClientKey []byte
	// Expires is when the token stops serving credential requests.
	Expires time.Time
	// Expired tells that it has; only [Store.NotificationGrant] returns such a grant.
	Expired bool

	store           *Store
	release         func()
	secret          secret // the token's
	id, epoch       int64
	uuid            []byte
	state           State
	due             time.Time
	pending         int64 // granted and not yet issued
	deferred        int64 // of those, the ones with a transaction
	grantedSet      int64
	refreshable     bool // a refresh token keeps the claims under the epoch's key
	wrapped, sealed []byte
}

// Grant returns what an access token allows, or [ErrToken]. A token outlives
// what it was good for: after the last credential it allows nothing more, and
// tells so until it expires. The error wraps [ErrKeyAway] while it is not known
// whether the database is an older copy.
func (s *Store) Grant(ctx context.Context, token string) (*Grant, error) {
	return s.grant(ctx, token, 0)
}

// NotificationGrant is Grant for the notification endpoint: it takes a token for
// [NotificationGrace] after its end too, and one of an offer whose credentials
// the wallet has accepted, failed or deleted.
func (s *Store) NotificationGrant(ctx context.Context, token string) (*Grant, error) {
	return s.grant(ctx, token, NotificationGrace)
}

// KnowsToken returns [ErrToken] for what is no offer's access token, without
// waiting for a turn: so that nothing more needs to be read from somebody who has
// none. Whether a token that is known is good for anything [Store.Grant] tells.
func (s *Store) KnowsToken(ctx context.Context, token string) error {
	id, secret, ok := parseOpaque(token)
	if !ok {
		return ErrToken
	}
	var hash []byte
	err := s.db.Read(ctx, func(r *database.Reader) error {
		_, err := r.Row("SELECT token_hash FROM offers WHERE id = ?", []any{id}, []any{&hash})
		return err
	})
	if err == nil && !same(hash, secret.hash()) {
		err = ErrToken
	}
	return err
}

func (s *Store) grant(ctx context.Context, token string, grace time.Duration) (*Grant, error) {
	id, secret, ok := parseOpaque(token)
	if !ok {
		return nil, ErrToken
	}
	if err := s.ready(id); err != nil {
		return nil, err
	}
	release, err := s.takeTurn(ctx, sha256.Sum256(secret[:]))
	if err != nil {
		return nil, err
	}
	g := &Grant{store: s, id: id, release: release, secret: secret}
	if err := g.load(ctx, grace); err != nil {
		release()
		return nil, err
	}
	return g, nil
}

// load reads the token's row.
func (g *Grant) load(ctx context.Context, grace time.Duration) error {
	var (
		hash, configurations []byte
		state, expires, due  int64
		found                bool
	)
	err := g.store.db.Read(ctx, func(r *database.Reader) (err error) {
		found, err = r.Row("SELECT o.uuid, o.state, o.configurations, o.token_hash, o.token_expires, coalesce(o.due_at, 0), o.identified, o.client, o.jkt, o.client_key, "+
			"o.granted, o.pending, o.deferred, o.refresh_hash IS NOT NULL, coalesce(o.epoch, 0), "+keyColumn+", c.sealed "+
			"FROM offers o LEFT JOIN claims c ON c.offer = o.id LEFT JOIN keys k ON k.block = o.id / 64 WHERE o.id = ?", []any{g.id},
			[]any{&g.uuid, &state, &configurations, &hash, &expires, &due, &g.Identified, &g.Client, &g.JKT, &g.ClientKey,
				&g.grantedSet, &g.pending, &g.deferred, &g.refreshable, &g.epoch, &g.wrapped, &g.sealed})
		return err
	})
	if err != nil {
		return err
	}
	now := g.store.now()
	if !found || !same(hash, g.secret.hash()) || !now.Before(timeOf(expires).Add(grace)) {
		return ErrToken
	}
	g.Offer, g.Expires, g.state, g.due = formatUUID(g.uuid), timeOf(expires), State(state), timeOf(due)
	g.Expired = !now.Before(g.Expires)
	g.deferred &= g.pending
	return json.Unmarshal(configurations, &g.Configurations)
}

// Release lets the next request with the same token go on.
func (g *Grant) Release() {
	if g.release != nil {
		g.release()
		g.release = nil
	}
}

// Allows tells whether the token covers a configuration that has been neither
// issued nor deferred yet.
func (g *Grant) Allows(configuration string) bool {
	return g.pending&^g.deferred&g.bit(configuration) != 0
}

// Deferring tells whether the configuration was deferred and its transaction is
// not used or refused yet.
func (g *Grant) Deferring(configuration string) bool { return g.deferred&g.bit(configuration) != 0 }

// Covers tells whether the token was granted for the configuration.
func (g *Grant) Covers(configuration string) bool { return g.grantedSet&g.bit(configuration) != 0 }

// Done tells whether the token covered the configuration and it was issued or
// refused.
func (g *Grant) Done(configuration string) bool {
	return g.Covers(configuration) && g.pending&g.bit(configuration) == 0
}

func (g *Grant) bit(configuration string) int64 {
	if i := slices.Index(g.Configurations, configuration); i >= 0 {
		return 1 << i
	}
	return 0
}

// Claims opens the offer's claims. The error wraps [ErrKeyAway] when the token
// is needed for it and away; it is [ErrToken] when the offer ended meanwhile and
// its key is gone, or the time for retries is over.
func (g *Grant) Claims(ctx context.Context) ([]byte, error) {
	key, err := g.key(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return openClaims(key, g.uuid, g.sealed)
}

// key opens the offer's own key; see [Grant.Claims] for the errors.
func (g *Grant) key(ctx context.Context) ([]byte, error) {
	if !g.kept() {
		return nil, ErrToken
	}
	epoch, err := g.store.epoch(ctx, g.epoch)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrToken
	}
	if err != nil {
		return nil, err
	}
	var wrapping cipher.AEAD = epoch.aead
	if g.state != Redeemed && !g.refreshable {
		if wrapping, err = epoch.forRetries(g.secret); err != nil {
			return nil, err
		}
	}
	return unwrap(wrapping, g.uuid, g.wrapped)
}

// kept tells whether the offer's claims were still there, and may be opened.
func (g *Grant) kept() bool { return g.epoch != 0 && g.store.now().Before(g.due) }
