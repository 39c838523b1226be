package store

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"chancery/appliance/database"
)

// EncryptionKey is a private key that opens encrypted credential requests.
type EncryptionKey struct {
	// Kid is its identifier in the metadata's key set.
	Kid string
	// Private is the key as it was given to [Store.AddEncryptionKey].
	Private   []byte
	CreatedAt time.Time
}

// EncryptionKeys returns the keys, oldest first, opened.
// The error wraps [ErrKeyAway] when the token has to open them and cannot.
func (s *Store) EncryptionKeys(ctx context.Context) ([]EncryptionKey, error) {
	type row struct {
		EncryptionKey
		context         string
		wrapped, sealed []byte
	}
	var rows []row
	err := s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT kid, context, wrapped, sealed, created_at FROM encryption_keys ORDER BY created_at, kid", nil, func(scan func(...any) error) error {
			var k row
			var created int64
			err := scan(&k.Kid, &k.context, &k.wrapped, &k.sealed, &created)
			k.CreatedAt = timeOf(created)
			rows = append(rows, k)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	var keys []EncryptionKey
	for _, k := range rows {
		key, err := s.options.DataKeys.Open(ctx, k.context, k.wrapped)
		if err != nil {
			return nil, fmt.Errorf("request-encryption key %s: %w: %w", k.Kid, ErrKeyAway, err)
		}
		aead, err := gcm(key)
		clear(key)
		if err != nil {
			return nil, err
		}
		if k.Private, err = decrypt(aead, k.sealed, []byte(k.Kid)); err != nil {
			return nil, fmt.Errorf("request-encryption key %s does not open: the row was changed", k.Kid)
		}
		keys = append(keys, k.EncryptionKey)
	}
	return keys, nil
}

// AddEncryptionKey seals a private key under a data key of its own, which the
// token wraps. [ErrExists] when there is one with this kid; the error wraps
// [ErrKeyAway] while the token is away.
func (s *Store) AddEncryptionKey(ctx context.Context, kid string, private []byte) error {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	binding := "chancery.db request-encryption key " + base64.RawURLEncoding.EncodeToString(random[:])
	key, wrapped, err := s.options.DataKeys.New(ctx, binding)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyAway, err)
	}
	defer clear(key)
	aead, err := gcm(key)
	if err != nil {
		return err
	}
	sealed, err := encrypt(aead, private, []byte(kid))
	if err != nil {
		return err
	}
	now := s.now()
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec("INSERT INTO encryption_keys (kid, context, wrapped, sealed, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kid) DO NOTHING",
			kid, binding, wrapped, sealed, millis(now))
		if err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("request-encryption key %s: %w", kid, ErrExists)
		}
		return s.record(tx, Event{Time: now, Kind: "encryption_key.added", Actor: "appliance", Subject: kid})
	})
	if err == nil {
		s.outbox.wake()
	}
	return err
}

// RetireEncryptionKeys deletes keys; those that are not there are left out.
func (s *Store) RetireEncryptionKeys(ctx context.Context, kids ...string) error {
	now := s.now()
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		for _, kid := range kids {
			n, err := tx.Exec("DELETE FROM encryption_keys WHERE kid = ?", kid)
			if err == nil && n == 1 {
				err = s.record(tx, Event{Time: now, Kind: "encryption_key.deleted", Actor: "appliance", Subject: kid})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.outbox.wake()
	}
	return err
}
