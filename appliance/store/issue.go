package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
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

	store           *Store
	release         func()
	id, epoch       int64
	uuid            []byte
	pending         int64 // granted and not yet issued
	grantedSet      int64
	wrapped, sealed []byte
}

// Grant returns what an access token allows, or [ErrToken]. The error wraps
// [ErrKeyAway] while it is not known whether the database is an older copy.
func (s *Store) Grant(ctx context.Context, token string) (*Grant, error) {
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
	g := &Grant{store: s, id: id, release: release}
	var (
		hash, configurations []byte
		state, expires       int64
		found                bool
	)
	err = s.db.Read(ctx, func(r *database.Reader) (err error) {
		found, err = r.Row("SELECT o.uuid, o.state, o.configurations, o.token_hash, o.token_expires, o.identified, o.client, o.granted, o.pending, coalesce(o.epoch, 0), "+keyColumn+", c.sealed "+
			"FROM offers o LEFT JOIN claims c ON c.offer = o.id LEFT JOIN keys k ON k.block = o.id / 64 WHERE o.id = ?", []any{id},
			[]any{&g.uuid, &state, &configurations, &hash, &expires, &g.Identified, &g.Client, &g.grantedSet, &g.pending, &g.epoch, &g.wrapped, &g.sealed})
		return err
	})
	if err == nil && (!found || !same(hash, secret.hash()) || State(state) != Redeemed || !s.now().Before(timeOf(expires))) {
		err = ErrToken
	}
	if err == nil {
		err = json.Unmarshal(configurations, &g.Configurations)
	}
	if err != nil {
		release()
		return nil, err
	}
	g.Offer = formatUUID(g.uuid)
	return g, nil
}

// Release lets the next request with the same token go on.
func (g *Grant) Release() {
	if g.release != nil {
		g.release()
		g.release = nil
	}
}

// Allows tells whether the token covers a configuration that has not been
// issued yet.
func (g *Grant) Allows(configuration string) bool { return g.pending&g.bit(configuration) != 0 }

// Covers tells whether the token was granted for the configuration.
func (g *Grant) Covers(configuration string) bool { return g.grantedSet&g.bit(configuration) != 0 }

// Done tells whether the token covered the configuration and it was issued.
func (g *Grant) Done(configuration string) bool {
	return g.Covers(configuration) && !g.Allows(configuration)
}

func (g *Grant) bit(configuration string) int64 {
	for i, id := range g.Configurations {
		if id == configuration {
			return 1 << i
		}
	}
	return 0
}

// Claims opens the offer's claims. The error wraps [ErrKeyAway] when the token
// is needed for it and away; it is [ErrToken] when the offer ended meanwhile and
// its key is gone.
func (g *Grant) Claims(ctx context.Context) ([]byte, error) {
	epoch, err := g.store.epoch(ctx, g.epoch)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrToken
	}
	if err != nil {
		return nil, err
	}
	return epoch.unseal(g.uuid, g.wrapped, g.sealed)
}

// Issue records credentials of one configuration, at least one, before they are
// handed out. With the last granted configuration the offer is done and its
// claims are shredded. [ErrState] when the offer ended meanwhile, for instance by
// cancellation: then the credentials must not be handed out; events say so.
//
// A crash after the commit loses the answer, not the knowledge: the records here
// and in the audit log name each credential, and none is made a second time.
func (g *Grant) Issue(ctx context.Context, configuration string, credentials []Credential) error {
	s, now := g.store, g.store.now()
	left := g.pending &^ g.bit(configuration)
	if left == g.pending {
		return ErrNotGranted
	}
	if len(credentials) == 0 {
		return errors.New("a configuration is issued with at least one credential")
	}
	withheld := false
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		withheld = false
		changed, err := g.advance(tx, left, now)
		if err != nil {
			return err
		}
		if !changed {
			withheld = true
			return s.withhold(tx, g.Offer, credentials, now)
		}
		var n int64
		if g.pending != g.grantedSet { // not the first
			if _, err := tx.Row("SELECT count(*) FROM credentials WHERE offer = ?", []any{g.id}, []any{&n}); err != nil {
				return err
			}
		}
		for _, c := range credentials {
			if _, err := tx.Exec("INSERT INTO credentials (offer, n, credential, configuration, version, key, intent, outcome, issued_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
				g.id, n, c.ID, c.Configuration, c.Version, c.Key, c.Intent, c.Outcome, millis(now)); err != nil {
				return err
			}
			n++
		}
		if left != 0 {
			return nil
		}
		return s.record(tx, Event{Time: now, Kind: "offer.issued", Actor: "appliance", Subject: g.Offer})
	})
	if err != nil {
		return err
	}
	s.outbox.wake()
	if withheld {
		return ErrState
	}
	g.pending = left
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

// advance takes the configuration's bit away, or ends the offer with the last one.
func (g *Grant) advance(tx *database.Tx, left int64, now time.Time) (bool, error) {
	if left != 0 {
		n, err := tx.Exec("UPDATE offers SET pending = ? WHERE id = ? AND state = 2 AND pending = ?", left, g.id, g.pending)
		return n == 1, err
	}
	return end(tx, g.id, Issued, now, "state = 2")
}

// Fail ends an offer that can never be issued, for instance because its claims
// no longer fit a changed configuration. reason is a word for the event.
func (g *Grant) Fail(ctx context.Context, reason string) error {
	s, now := g.store, g.store.now()
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		ended, err := end(tx, g.id, Failed, now, "state = 2")
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
