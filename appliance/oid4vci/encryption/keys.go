package encryption

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/store"
	"chancery/issuance/jws"
)

// KeyStore keeps the keys that requests are encrypted to; [*store.Store] is one.
// A key's private part is a private JWK with alg and kid, its kid the RFC 7638
// thumbprint. At rest it is sealed under a data key that the token guards.
type KeyStore interface {
	// EncryptionKeys returns every key. It fails while the token that opens them is away.
	EncryptionKeys(ctx context.Context) ([]store.EncryptionKey, error)
	// AddEncryptionKey keeps a new key durably.
	AddEncryptionKey(ctx context.Context, kid string, private []byte) error
	// RetireEncryptionKeys deletes keys whose overlap is over.
	RetireEncryptionKeys(ctx context.Context, kids ...string) error
}

// key is a key that was loaded. Nothing in it changes.
type key struct {
	id        string
	algorithm jose.KeyAlgorithm
	private   *ecdsa.PrivateKey
	public    json.RawMessage // the published JWK
	created   time.Time
}

// keyset is what is in use; it changes as a whole.
type keyset struct {
	published []*key // one for each algorithm, in order
	byID      map[string]*key
	// until is when a replaced key stops decrypting. A published key has none.
	until   map[string]time.Time
	version uint64
}

// find returns a key that decrypts now, or nil.
func (s *keyset) find(id string, now time.Time) *key {
	if until, replaced := s.until[id]; replaced && !now.Before(until) {
		return nil
	}
	return s.byID[id]
}

// Refresh loads the keys, makes those that are missing or whose time is over,
// and forgets those whose overlap has passed. It is meant to be called at start
// and every few minutes. On an error what was loaded stays in use, also past
// its time, and the error says what failed; the log hears it once.
func (e *Encryption) Refresh(ctx context.Context) error {
	if e.options.Request == Off {
		return nil
	}
	e.refreshing.Lock()
	defer e.refreshing.Unlock()
	err := e.refresh(ctx)
	switch failing := err != nil; {
	case failing && !e.failing:
		e.log.Warn("the request encryption keys cannot be loaded or rotated now: those that are loaded stay in use", "loaded", len(e.keys.Load().byID), "error", err)
	case !failing && e.failing:
		e.log.Info("the request encryption keys can be loaded and rotated again", "loaded", len(e.keys.Load().byID))
	}
	e.failing = err != nil
	return err
}

func (e *Encryption) refresh(ctx context.Context) error {
	stored, err := e.options.Store.EncryptionKeys(ctx)
	if err != nil {
		return fmt.Errorf("load the request encryption keys: %w", err)
	}
	now := e.now()
	byAlgorithm := map[jose.KeyAlgorithm][]*key{}
	for _, s := range stored {
		k, err := load(s)
		if err != nil {
			return err
		}
		byAlgorithm[k.algorithm] = append(byAlgorithm[k.algorithm], k)
	}
	var errs []error
	next := &keyset{byID: map[string]*key{}, until: map[string]time.Time{}}
	var over []string
	for _, algorithm := range keyAlgorithms {
		keys := byAlgorithm[algorithm]
		slices.SortStableFunc(keys, func(a, b *key) int { return a.created.Compare(b.created) })
		if len(keys) == 0 || now.Sub(keys[len(keys)-1].created) >= e.options.Rotation {
			if k, err := e.add(ctx, algorithm, now); err != nil {
				errs = append(errs, err)
			} else {
				keys = append(keys, k)
			}
		}
		over = append(over, next.put(keys, e.options.Overlap, now)...)
	}
	e.use(next)
	if len(over) > 0 {
		if err := e.options.Store.RetireEncryptionKeys(ctx, over...); err != nil {
			errs = append(errs, fmt.Errorf("delete old request encryption keys: %w", err))
		}
	}
	return errors.Join(errs...)
}

// put takes over one algorithm's keys, oldest first, and returns the ids of
// those whose overlap is over.
func (s *keyset) put(keys []*key, overlap time.Duration, now time.Time) (over []string) {
	for n, k := range keys {
		if n == len(keys)-1 {
			s.published = append(s.published, k)
		} else if until := keys[n+1].created.Add(overlap); now.Before(until) {
			s.until[k.id] = until
		} else {
			over = append(over, k.id)
			continue
		}
		s.byID[k.id] = k
	}
	return over
}

// use puts a set in use and gives it its version.
func (e *Encryption) use(next *keyset) {
	had := e.keys.Load()
	next.version = had.version
	if !slices.EqualFunc(had.published, next.published, func(a, b *key) bool { return a.id == b.id }) {
		next.version++
		e.log.Info("request encryption keys published", "keys", slices.Sorted(maps.Keys(next.byID)))
	}
	e.keys.Store(next)
}

// add makes a key. It is stored before anybody can encrypt to it.
func (e *Encryption) add(ctx context.Context, algorithm jose.KeyAlgorithm, now time.Time) (*key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := jws.Thumbprint(private.Public())
	if err != nil {
		return nil, err
	}
	jwk := jose.JSONWebKey{Key: private, KeyID: id, Algorithm: string(algorithm), Use: "enc"}
	data, err := jwk.MarshalJSON()
	if err != nil {
		return nil, err
	}
	defer clear(data)
	k, err := load(store.EncryptionKey{Kid: id, Private: data, CreatedAt: now})
	if err != nil {
		return nil, err
	}
	if err := e.options.Store.AddEncryptionKey(ctx, id, data); err != nil {
		return nil, fmt.Errorf("add a request encryption key for %s: %w", algorithm, err)
	}
	return k, nil
}

// load reads a stored key. What is not as [Encryption.add] makes it is an error
// (promise P7).
func load(s store.EncryptionKey) (*key, error) {
	unknown := fmt.Errorf("the request encryption key %s in the store is none that this program makes: restore the store from a backup", cmp.Or(s.Kid, "without kid"))
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(s.Private); err != nil {
		return nil, unknown // the error could quote the key
	}
	private, ok := jwk.Key.(*ecdsa.PrivateKey)
	algorithm := jose.KeyAlgorithm(jwk.Algorithm)
	if !ok || !jwk.Valid() || private.Curve != elliptic.P256() || jwk.KeyID != s.Kid || !slices.Contains(keyAlgorithms, algorithm) {
		return nil, unknown
	}
	jwk = jwk.Public()
	public, err := jwk.MarshalJSON()
	if err != nil {
		return nil, unknown
	}
	return &key{id: s.Kid, algorithm: algorithm, private: private, public: public, created: s.CreatedAt}, nil
}
