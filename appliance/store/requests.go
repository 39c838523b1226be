package store

import (
	"context"
	"time"

	"chancery/appliance/database"
)

// DeferredRequest is a deferred credential as operators see it.
type DeferredRequest struct {
	// ID is a UUID; wallets do not know it.
	ID string
	// Offer is the offer's id.
	Offer         string
	Configuration string
	State         DeferredState
	RequestedAt   time.Time
	// DecidedAt is zero and DecidedBy "" until an operator has decided.
	DecidedAt time.Time
	DecidedBy string
	// Reason is the operator's, and not told to the wallet.
	Reason string
}

// deferredColumns are what scanDeferred reads.
const deferredColumns = "d.id, d.uuid, o.uuid, json_extract(o.configurations, '$[' || d.configuration || ']'), d.state, d.requested_at, d.decided_at, d.decided_by, d.reason " +
	"FROM deferred d JOIN offers o ON o.id = d.offer"

// scanDeferred reads a row of deferredColumns.
func scanDeferred(scan func(...any) error) (id int64, d DeferredRequest, err error) {
	var state, requested, decided int64
	var uuid, offer []byte
	if err := scan(&id, &uuid, &offer, &d.Configuration, &state, &requested, &decided, &d.DecidedBy, &d.Reason); err != nil {
		return 0, d, err
	}
	d.ID, d.Offer, d.State, d.RequestedAt, d.DecidedAt = formatUUID(uuid), formatUUID(offer), DeferredState(state), timeOf(requested), timeOf(decided)
	return id, d, nil
}

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
		return r.Rows("SELECT "+deferredColumns+" WHERE d.id = ?", []any{getID(uuid[:idSize])}, func(scan func(...any) error) (err error) {
			_, d, err = scanDeferred(scan)
			return err
		})
	})
	if err == nil && d.ID != id {
		err = ErrNotFound
	}
	if err != nil {
		return DeferredRequest{}, err
	}
	return d, nil
}

// ListDeferred returns up to limit deferred credentials, newest first, and the
// cursor to go on with, which is empty at the end. state is nil for all. An
// unreadable cursor is [ErrNotFound]. What is due is ended first, so that the
// rows say what holds now.
func (s *Store) ListDeferred(ctx context.Context, state *DeferredState, limit int, cursor string) ([]DeferredRequest, string, error) {
	before, err := parseCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	if err := s.settle(ctx); err != nil {
		return nil, "", err
	}
	first, last := DeferredPending, DeferredEnded
	if state != nil {
		first, last = *state, *state
	}
	var list []DeferredRequest
	var lastID int64
	more := false
	err = s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT "+deferredColumns+" WHERE d.id < ? AND d.state BETWEEN ? AND ? ORDER BY d.id DESC LIMIT ?", []any{before, int(first), int(last), limit + 1},
			func(scan func(...any) error) error {
				id, d, err := scanDeferred(scan)
				if err != nil || len(list) == limit {
					more = true
					return err
				}
				list, lastID = append(list, d), id
				return nil
			})
	})
	if err != nil || !more {
		return list, "", err
	}
	return list, formatCursor(lastID), nil
}
