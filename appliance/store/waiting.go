package store

import (
	"context"
	"errors"
	"math/bits"

	"chancery/appliance/database"
)

// Waiting returns the hashes of the request that a configuration was deferred
// on, so that a request can be told that is repeated. [ErrNotFound] when it was
// not deferred, or is decided and over.
func (g *Grant) Waiting(ctx context.Context, configuration string) (keysHash, proofsHash [32]byte, err error) {
	if !g.Deferring(configuration) {
		return keysHash, proofsHash, ErrNotFound
	}
	var keys, proofs []byte
	err = g.store.db.Read(ctx, func(r *database.Reader) error {
		found, err := r.Row("SELECT keys_hash, proofs_hash FROM deferred WHERE offer = ? AND configuration = ? AND state IN (0, 1)",
			[]any{g.id, bits.TrailingZeros64(uint64(g.bit(configuration)))}, []any{&keys, &proofs})
		if err == nil && !found {
			err = ErrNotFound
		}
		return err
	})
	if err == nil && (len(keys) != 32 || len(proofs) != 32) {
		err = errors.New("the deferred request has no hashes: the row was changed")
	}
	if err != nil {
		return keysHash, proofsHash, err
	}
	return [32]byte(keys), [32]byte(proofs), nil
}
