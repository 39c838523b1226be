// Package store is chancery.db: offers with their claims, codes and tokens,
// records of what was issued, data-key epochs, the operators' tokens, and the
// outbox through which chanceryd's events reach the signer's audit log.
//
// Trust: chancery.db is written by chanceryd alone. Who changes it can forge
// offers within the keys' profiles, which shows in the audit log; claims stay
// sealed. Codes and tokens are in it as SHA-256 of random secrets, transaction
// codes as a MAC under a key that the token guards: the file alone opens nothing.
//
// Who is given a secret also gets the row's id in it (id ‖ secret), so that no
// random index is needed. One conditional UPDATE and its row count decide every
// transition of an offer (promise P4); see the State constants.
package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"chancery/appliance/database"
)

// Errors that callers tell apart. None names a secret.
var (
	// ErrNotFound says that no such offer, operator, event, transaction,
	// notification_id or repetition exists.
	ErrNotFound = errors.New("not found")
	// ErrState says that an offer is no longer in a state that allows the change.
	ErrState = errors.New("the offer's state does not allow this")
	// ErrKeyAway says that the signer is needed first and cannot be reached now,
	// or its token cannot: to open a data key, or to tell a restored copy of the
	// database. Nothing was changed: trying again later may succeed.
	ErrKeyAway = errors.New("the signer or its token is needed and away")
	// ErrOutOfStep is a [Sender]'s: the audit log does not take these events after
	// those it has. It was replaced by another copy of itself.
	ErrOutOfStep = errors.New("the audit log does not have the events before these")
	// ErrCode covers a pre-authorized code that is unknown, expired, used,
	// cancelled or locked; the caller cannot tell which.
	ErrCode = errors.New("the pre-authorized code is not valid")
	// ErrClient says that a code or refresh token belongs to another client, to
	// one that has authenticated, or to other keys. Nothing was spent.
	ErrClient = errors.New("the client or its keys are not those that this was given to")
	// ErrTransactionCodeMissing and ErrTransactionCodeUnexpected say that a
	// transaction code was left out, or sent though the offer has none.
	ErrTransactionCodeMissing    = errors.New("the offer needs a transaction code")
	ErrTransactionCodeUnexpected = errors.New("the offer has no transaction code")
	// ErrTransactionCodeWrong says that an attempt was counted, durably.
	ErrTransactionCodeWrong = errors.New("the transaction code is wrong")
	// ErrToken covers a token, of a wallet or of an operator, that is unknown,
	// expired, used up or revoked.
	ErrToken = errors.New("the token is not valid")
	// ErrNotGranted says that a token does not cover a configuration, or that
	// it was issued already.
	ErrNotGranted = errors.New("the access token does not cover the credential")
	// ErrKeys says that a request names other keys than the one that it repeats.
	ErrKeys = errors.New("these are not the keys of the first request")
	// ErrRepeated says that credentials were signed again too often.
	ErrRepeated = errors.New("the credentials were signed again too often")
	// ErrExists says that an operator, or a key, of that name is there already.
	ErrExists = errors.New("exists already")
)

// DataKeys makes and opens data keys in the token, through the signer. context
// is bound to the wrapped form; key has 32 bytes.
type DataKeys struct {
	New  func(ctx context.Context, context string) (key, wrapped []byte, err error)
	Open func(ctx context.Context, context string, wrapped []byte) (key []byte, err error)
}

// Options configure a store.
type Options struct {
	DataKeys DataKeys
	// DataKeyLifetime is how long one epoch's key takes new offers.
	DataKeyLifetime time.Duration
	// Retention is how long a finished offer's record and sent events stay.
	Retention time.Duration
	// Attempts is how many wrong transaction codes lock an offer.
	Attempts int
	// RetryWindow is how long after an offer was issued its claims are kept for a
	// wallet that asks again; the access token's end ends it too. 0 turns retries
	// off: claims are shredded with the last credential.
	RetryWindow time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log receives what the store does by itself; nil discards it.
	Log *slog.Logger
}

// Store is an open chancery.db. It is safe for concurrent use within one
// process; a second process may add and revoke operators only.
type Store struct {
	db      *database.DB
	options Options
	now     func() time.Time
	log     *slog.Logger

	inherited int64        // the newest offer's id when the file was opened
	nextOffer atomic.Int64 // the last offer id given out
	keys      keyring
	outbox    outbox

	fetchMu sync.Mutex          // guards fetched
	fetched map[int64]time.Time // first fetches that are not yet in the database

	turnsMu sync.Mutex // guards turns
	turns   map[[32]byte]*turn

	operatorsMu sync.Mutex // guards operators
	operators   map[[32]byte]cachedOperator
}

// Create makes a new chancery.db. It fails with [database.ErrExists] when the
// file is there already.
func Create(path string) error {
	var source [16]byte
	if _, err := rand.Read(source[:]); err != nil {
		return err
	}
	first := schema
	first.Migrations = append([]string{}, schema.Migrations...)
	last := len(first.Migrations) - 1
	first.Migrations[last] += fmt.Sprintf("\nINSERT INTO meta (id, source, source_base, sent) VALUES (1, '%s', 0, 0);", hex.EncodeToString(source[:]))
	return database.Create(path, first)
}

// Open opens an existing chancery.db. It needs no signer: data keys are opened
// when they are needed or by [Store.Run]. Codes and access tokens that are in the
// file are good from the first contact with the audit log on; see [Store.Drain].
func Open(path string, options Options) (*Store, error) {
	db, err := database.Open(path, schema)
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, options: options, now: options.Now, log: options.Log,
		fetched: map[int64]time.Time{}, turns: map[[32]byte]*turn{}, operators: map[[32]byte]cachedOperator{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.load(); err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// load reads what is kept in memory.
func (s *Store) load() error {
	return s.db.Read(context.Background(), func(r *database.Reader) error {
		if _, err := r.Row("SELECT coalesce(max(id), 0) FROM offers", nil, []any{&s.inherited}); err != nil {
			return err
		}
		s.nextOffer.Store(s.inherited)
		if err := s.keys.load(r); err != nil {
			return err
		}
		return s.outbox.load(r)
	})
}

// Close finishes what was queued and closes the file.
func (s *Store) Close() error {
	s.flushFetched(context.Background())
	s.keys.forget()
	return s.db.Close()
}

// Backup writes a consistent copy to path, which must not exist.
func (s *Store) Backup(ctx context.Context, path string) error { return s.db.Backup(ctx, path) }

// Path returns the file's path.
func (s *Store) Path() string { return s.db.Path() }

// millis and timeOf convert between the database's Unix milliseconds and times;
// 0 and the zero time stand for each other.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
