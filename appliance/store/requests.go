package store

import (
	"context"

	"chancery/appliance/database"
)

// Deferred returns one deferred credential, or [ErrNotFound]. What is due is
// ended first, so that its state is what holds now.
func (s *Store) Deferred(ctx context.Context, id string) (DeferredRequest, error) {
	uuid, ok := parseUUID(id)
	if !ok {
		return DeferredRequest{}, ErrNotFound
	}
	if err := s.settle(ctx); err != nil {
		return DeferredRequest{}, err
	}
	var d DeferredRequest
	err := s.db.Read(ctx, func(r *database.Reader) error {
		var stored, offer []byte
		var state, requested, decided int64
		found, err := r.Row(`SELECT d.uuid, o.uuid, json_extract(o.configurations, '$[' || d.configuration || ']'), d.state, d.requested_at, d.decided_at, d.decided_by, d.reason
			FROM deferred d JOIN offers o ON o.id = d.offer WHERE d.id = ?`, []any{getID(uuid[:idSize])},
			[]any{&stored, &offer, &d.Configuration, &state, &requested, &decided, &d.DecidedBy, &d.Reason})
		if err != nil {
			return err
		}
		if !found || formatUUID(stored) != id {
			return ErrNotFound
		}
		d.ID, d.Offer, d.State, d.RequestedAt, d.DecidedAt = id, formatUUID(offer), DeferredState(state), timeOf(requested), timeOf(decided)
		return nil
	})
	if err != nil {
		return DeferredRequest{}, err
	}
	return d, nil
}
