package encryption

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance/jws"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.IsZero() {
		c.now = start
	}
	return c.now
}

func (c *clock) pass(d time.Duration) {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now.Add(d)
}

// memory keeps keys, and fails when it is told to.
type memory struct {
	clock                 clock
	mu                    sync.Mutex
	keys                  []store.EncryptionKey
	read, added, retiring error
}

func (m *memory) EncryptionKeys(context.Context) ([]store.EncryptionKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys), m.read
}

func (m *memory) AddEncryptionKey(_ context.Context, kid string, private []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.added == nil {
		m.keys = append(m.keys, store.EncryptionKey{Kid: kid, Private: bytes.Clone(private), CreatedAt: m.clock.Now()})
	}
	return m.added
}

func (m *memory) RetireEncryptionKeys(_ context.Context, kids ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retiring == nil {
		m.keys = slices.DeleteFunc(m.keys, func(k store.EncryptionKey) bool { return slices.Contains(kids, k.Kid) })
	}
	return m.retiring
}

func (m *memory) fail(read, added, retiring error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read, m.added, m.retiring = read, added, retiring
}

var errAway = errors.New("the token is away")

const (
	rotation = 30 * 24 * time.Hour
	overlap  = 24 * time.Hour
)

// closed makes an Encryption that has loaded nothing yet.
func closed(t testing.TB, o Options, m *memory) *Encryption {
	t.Helper()
	o.Rotation, o.Overlap, o.Store, o.Now = rotation, overlap, m, m.clock.Now
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// opened makes one that has its keys.
func opened(t testing.TB, o Options, m *memory) *Encryption {
	t.Helper()
	e := closed(t, o, m)
	if err := e.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	return e
}

// all takes and gives everything.
func all() Options { return Options{Request: Optional, Response: Optional, Zip: true} }

// refused checks that an error is invalid_encryption_parameters with status 400,
// about the member, and returns its description.
func refused(t testing.TB, err error, member string) string {
	t.Helper()
	r := &refusal.Refusal{}
	if !errors.As(err, &r) {
		t.Errorf("%s: not refused: %v", member, err)
		return ""
	}
	if r.Status != 400 || r.Code != "invalid_encryption_parameters" || r.Description == "" || r.Section == "" || r.Member != member {
		t.Errorf("%s: %+v", member, r)
	}
	return r.Description
}

// published returns the JWKs in the metadata as a wallet reads them.
func published(t testing.TB, e *Encryption) []map[string]any {
	t.Helper()
	request, _ := e.Metadata()
	data, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var read struct {
		JWKS struct {
			Keys []map[string]any `json:"keys"`
		} `json:"jwks"`
	}
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	return read.JWKS.Keys
}

// to returns the first published key: its public key and a header that fits.
func to(t testing.TB, e *Encryption) (*ecdsa.PublicKey, map[string]any) {
	t.Helper()
	k := e.keys.Load().published[0]
	return &k.private.PublicKey, map[string]any{"alg": "ECDH-ES", "enc": "A128GCM", "kid": k.id}
}

// asObject is how a request's member arrives.
func asObject(t testing.TB, value any) map[string]any {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	object, err := jws.Object(data)
	if err != nil {
		t.Fatal(err)
	}
	return object
}
