package store

import (
	"context"
	"time"

	"chancery/appliance/database"
)

// Fetch returns what an offer's URI leads to: the offer and its pre-authorized
// code. It is not a use of the code. [ErrNotFound] when the secret fits no
// offer, [ErrState] when the code is spent or dead.
func (s *Store) Fetch(ctx context.Context, uriSecret string) (Offer, string, error) {
	id, uri, ok := parseOpaque(uriSecret)
	if !ok {
		return Offer{}, "", ErrNotFound
	}
	code := codeOf(uri)
	var o Offer
	var hash []byte
	found := false
	err := s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT "+offerColumns+", code_hash FROM offers WHERE id = ?", []any{id}, func(scan func(...any) error) (err error) {
			_, o, err = scanOffer(func(into ...any) error { return scan(append(into, &hash)...) })
			found = same(hash, code.hash())
			return err
		})
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	if err != nil {
		return Offer{}, "", err
	}
	s.overlay(id, &o)
	switch o.State {
	case Made:
		s.fetchMu.Lock()
		if _, ok := s.fetched[id]; !ok {
			s.fetched[id] = s.now().UTC().Truncate(time.Millisecond)
		}
		s.fetchMu.Unlock()
	case Fetched:
	default:
		return Offer{}, "", ErrState
	}
	return o, opaque(id, code), nil
}

// flushFetched writes the first fetches down. Losing some in a crash is
// harmless: fetched differs from made only in what operators see.
func (s *Store) flushFetched(ctx context.Context) {
	s.fetchMu.Lock()
	batch := make(map[int64]time.Time, len(s.fetched))
	for id, at := range s.fetched {
		batch[id] = at
	}
	s.fetchMu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		for id, at := range batch {
			if _, err := tx.Exec("UPDATE offers SET fetched_at = ?, state = iif(state = 0, 1, state) WHERE id = ? AND fetched_at = 0", millis(at), id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.log.Error("fetches could not be recorded", "error", err)
		return
	}
	s.fetchMu.Lock()
	defer s.fetchMu.Unlock()
	for id := range batch {
		delete(s.fetched, id)
	}
}
