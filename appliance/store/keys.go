package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"chancery/appliance/database"
)

// An epoch's data key lives in the database wrapped by the token, and open in
// this process's memory. It wraps each offer's own key. An offer is shredded by
// overwriting its wrapped key; its sealed claims are deleted as well, and when the
// last offer of an epoch has ended, so is the epoch's wrapped key.
//
// An offer whose credentials were issued keeps its claims for retries. Its own
// key is then wrapped under a key that is made of the epoch's and the access
// token's secret, which the database does not have: the wallet can open the claims
// with the appliance, and the appliance cannot without the wallet.

// epochKey is an epoch's key in use.
type epochKey struct {
	id        int64
	context   string
	wrapped   []byte
	createdAt time.Time

	opening sync.Mutex // one opening at a time
	aead    cipher.AEAD
	mac     []byte
	retries []byte
}

// keyring holds the epochs.
type keyring struct {
	mu      sync.Mutex // guards what follows
	epochs  map[int64]*epochKey
	current *epochKey
	last    int64
	source  string
	// making is held while a new epoch is made.
	making sync.Mutex
}

func (k *keyring) load(r *database.Reader) error {
	k.epochs = map[int64]*epochKey{}
	if _, err := r.Row("SELECT source FROM meta WHERE id = 1", nil, []any{&k.source}); err != nil {
		return err
	}
	return r.Rows("SELECT id, context, wrapped, created_at FROM epochs ORDER BY id", nil, func(scan func(...any) error) error {
		e := &epochKey{}
		var created int64
		if err := scan(&e.id, &e.context, &e.wrapped, &created); err != nil {
			return err
		}
		e.createdAt = timeOf(created)
		k.epochs[e.id] = e
		k.current, k.last = e, e.id
		return nil
	})
}

// forget drops the open keys.
func (k *keyring) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.epochs)
	k.current = nil
}

// use sets the key that opens this epoch.
func (e *epochKey) use(key []byte) error {
	if len(key) != 32 {
		return fmt.Errorf("a data key of %d bytes", len(key))
	}
	block, err := aes.NewCipher(derive(key, "wrap offers' keys"))
	if err != nil {
		return err
	}
	if e.aead, err = cipher.NewGCM(block); err != nil {
		return err
	}
	e.mac = derive(key, "transaction codes")
	e.retries = derive(key, "retries")
	return nil
}

// derive separates an epoch key's uses.
func derive(key []byte, purpose string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("chancery epoch key: " + purpose))
	return mac.Sum(nil)
}

// epoch returns an epoch with its key open. The error wraps [ErrKeyAway] when
// the token has to open it and cannot, and [ErrNotFound] when the epoch was
// retired: then no open offer needs it.
func (s *Store) epoch(ctx context.Context, id int64) (*epochKey, error) {
	s.keys.mu.Lock()
	e := s.keys.epochs[id]
	s.keys.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("epoch %d: %w", id, ErrNotFound)
	}
	return s.openEpoch(ctx, e)
}

// openEpoch opens an epoch's key if it is not open yet.
func (s *Store) openEpoch(ctx context.Context, e *epochKey) (*epochKey, error) {
	e.opening.Lock()
	defer e.opening.Unlock()
	if e.aead != nil {
		return e, nil
	}
	key, err := s.options.DataKeys.Open(ctx, e.context, e.wrapped)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyAway, err)
	}
	if err := e.use(key); err != nil {
		return nil, err
	}
	clear(key)
	return e, nil
}

// currentEpoch returns the epoch that new offers are sealed under. While the
// token is away the newest open one serves on, past its time: offers can still
// be made (promise P10).
func (s *Store) currentEpoch(ctx context.Context) (*epochKey, error) {
	s.keys.mu.Lock()
	e := s.keys.current
	s.keys.mu.Unlock()
	if e == nil {
		return s.newEpoch(ctx)
	}
	return s.openEpoch(ctx, e)
}

// newEpoch makes a data key in the token and records it before it is used.
func (s *Store) newEpoch(ctx context.Context) (*epochKey, error) {
	k := &s.keys
	k.making.Lock()
	defer k.making.Unlock()
	k.mu.Lock()
	if e := k.current; e != nil && s.now().Sub(e.createdAt) < s.options.DataKeyLifetime {
		k.mu.Unlock()
		return s.openEpoch(ctx, e) // somebody else was first
	}
	e := &epochKey{id: k.last + 1, createdAt: s.now()}
	e.context = fmt.Sprintf("chancery.db %s epoch %d", k.source, e.id)
	k.mu.Unlock()
	key, wrapped, err := s.options.DataKeys.New(ctx, e.context)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyAway, err)
	}
	e.wrapped = wrapped
	if err := e.use(key); err != nil {
		return nil, err
	}
	clear(key)
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("INSERT INTO epochs (id, context, wrapped, created_at) VALUES (?, ?, ?, ?)", e.id, e.context, e.wrapped, millis(e.createdAt))
		return err
	})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epochs[e.id], k.current, k.last = e, e, e.id
	return e, nil
}

// known returns the epochs' ids, oldest first, and the current epoch.
func (k *keyring) known() (ids []int64, current *epochKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.epochs)), k.current
}

// Rotate opens every epoch's key that is not open yet and makes a new epoch
// when the current one's time is over. While the token is away it returns an
// error and changes nothing. A key that does not open keeps neither the others
// shut nor the next one from being made.
func (s *Store) Rotate(ctx context.Context) error {
	var errs []error
	ids, current := s.keys.known()
	for _, id := range ids {
		if _, err := s.epoch(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	if current == nil || s.now().Sub(current.createdAt) >= s.options.DataKeyLifetime {
		_, err := s.newEpoch(ctx)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// retireEpochs deletes the keys of past epochs that no open offer needs. An
// offer that is still on its way into one finds its epoch gone, and is refused.
func (s *Store) retireEpochs(ctx context.Context) error {
	ids, current := s.keys.known()
	for _, id := range ids {
		if id == current.id {
			continue
		}
		var n int64
		err := s.db.Write(ctx, func(tx *database.Tx) (err error) {
			n, err = tx.Exec("DELETE FROM epochs WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM offers WHERE due_at IS NOT NULL AND epoch = ?1)", id)
			return err
		})
		if err != nil {
			return err
		}
		if n == 1 {
			s.keys.mu.Lock()
			delete(s.keys.epochs, id)
			s.keys.mu.Unlock()
		}
	}
	return nil
}

// An offer's wrapped key is nonce, key and tag; noKey stands where there is none.
// putKey and keyColumn have both sizes in their SQL.
const (
	keysInBlock = 64
	wrappedSize = 12 + 32 + 16
)

var noKey [wrappedSize]byte

// putKey writes an offer's wrapped key, or noKey, into its place among 64 in a row.
//
// What SQLite deletes, or moves when it balances pages, can stay in the unused
// part of a page, also with secure_delete. These rows have one size, which fills
// a page, so that none ever shares or leaves a trace on another's page, and a
// key is overwritten where it lies. Sealed claims and epochs' keys may leave
// traces: they open nothing without this key.
func putKey(tx *database.Tx, offer int64, wrapped []byte) error {
	block, at := offer/keysInBlock, offer%keysInBlock*wrappedSize
	n, err := tx.Exec("UPDATE keys SET wrapped = CAST(substr(wrapped, 1, ?2) || ?3 || substr(wrapped, ?2 + 61) AS BLOB) WHERE block = ?1", block, at, wrapped)
	if err != nil || n == 1 {
		return err
	}
	_, err = tx.Exec("INSERT INTO keys (block, wrapped) VALUES (?1, CAST(zeroblob(?2) || ?3 || zeroblob(3780 - ?2) AS BLOB))", block, at, wrapped)
	return err
}

// keyColumn is the wrapped key of the offer o in keys k.
const keyColumn = "substr(k.wrapped, o.id % 64 * 60 + 1, 60)"

// seal encrypts claims under a key of the offer's own and wraps that key.
func (e *epochKey) seal(uuid [16]byte, claims []byte) (wrapped, sealed []byte, err error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, nil, err
	}
	defer clear(key[:])
	if wrapped, err = encrypt(e.aead, key[:], uuid[:]); err != nil {
		return nil, nil, err
	}
	aead, err := gcm(key[:])
	if err != nil {
		return nil, nil, err
	}
	sealed, err = encrypt(aead, claims, uuid[:])
	return wrapped, sealed, err
}

// forRetries returns what wraps an issued offer's key: HKDF (RFC 5869) over the
// access token's secret, salted with a key of the epoch's.
func (e *epochKey) forRetries(token secret) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, token[:], e.retries, "chancery offer's key: retry", 32)
	if err != nil {
		return nil, err
	}
	return gcm(key)
}

// unwrap returns an offer's own key.
func unwrap(wrapping cipher.AEAD, uuid, wrapped []byte) ([]byte, error) {
	key, err := decrypt(wrapping, wrapped, uuid)
	if err != nil {
		return nil, errors.New("the offer's key does not open: the row was changed")
	}
	return key, nil
}

// openClaims returns an offer's claims.
func openClaims(key, uuid, sealed []byte) ([]byte, error) {
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	claims, err := decrypt(aead, sealed, uuid)
	if err != nil {
		return nil, errors.New("the offer's claims do not open: the row was changed")
	}
	return claims, nil
}

// transactionMAC is what stands in the row for a transaction code: six digits
// cannot be guessed from it without the epoch's key.
func (e *epochKey) transactionMAC(uuid []byte, code string) []byte {
	mac := hmac.New(sha256.New, e.mac)
	mac.Write(uuid)
	mac.Write([]byte(code))
	return mac.Sum(nil)
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// encrypt returns nonce ‖ ciphertext ‖ tag.
func encrypt(aead cipher.AEAD, plaintext, aad []byte) ([]byte, error) {
	out := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plaintext)+aead.Overhead())
	if _, err := rand.Read(out); err != nil {
		return nil, err
	}
	return aead.Seal(out, out, plaintext, aad), nil
}

func decrypt(aead cipher.AEAD, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("too short")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], aad)
}
