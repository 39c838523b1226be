// Package replay remembers the identifiers of tokens that may be used once, for
// as long as they could be used: jti of DPoP proofs, of proofs of possession,
// of client assertions. It keeps hashes alone, in memory and bounded.
//
// After a restart nothing is remembered: a token seen just before may be shown
// once more within its window. What it is good for, a code or a nonce, is
// single-use in the database for itself.
package replay

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

// Key is the hash of an identifier in its context.
type Key [16]byte

// NewKey hashes parts, none of which can pass for another's end or beginning.
func NewKey(parts ...string) Key {
	h := sha256.New()
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return Key(h.Sum(nil)[:len(Key{})])
}

// Errors of [Cache.Add].
var (
	// ErrSeen: the identifier was used before.
	ErrSeen = errors.New("it was used before")
	// ErrFull: no more can be remembered now, so nothing more can be accepted.
	ErrFull = errors.New("too many are remembered")
)

// Cache remembers keys. Any number of goroutines may use it.
type Cache struct {
	lifetime  time.Duration
	max       int
	forgetful bool

	mu sync.Mutex // guards what follows
	// current and older are two generations, each as long as a token can be
	// used: when current is full of age, older is dropped whole.
	current, older map[Key]struct{}
	turned         time.Time
}

// New returns a cache that remembers a key for at least lifetime, at most max keys.
// A key takes about 40 bytes.
//
// Time passes as the monotonic clock has it, where the times given have one: a
// wall clock that leaps ahead forgets nothing. One that is set back makes old
// tokens acceptable again, so lifetime should have a margin for small steps;
// after a larger one, what was seen more than a lifetime ago may pass once more.
//
// A full cache accepts nothing ([ErrFull]). To forget the oldest instead would
// let whoever can fill it use a captured token again; so it is for tokens that
// not anybody can make.
func New(lifetime time.Duration, max int) *Cache {
	return &Cache{lifetime: lifetime, max: max, current: map[Key]struct{}{}, older: map[Key]struct{}{}}
}

// NewForgetful returns a cache that when it is full forgets the older half. It is
// for tokens that anybody can make and that are worth little when shown again:
// nobody can fill it to keep others out.
func NewForgetful(lifetime time.Duration, max int) *Cache {
	c := New(lifetime, max)
	c.forgetful = true
	return c
}

// Add remembers a key, or returns [ErrSeen] or [ErrFull].
func (c *Cache) Add(key Key, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.turned); age >= c.lifetime {
		c.older, c.current = c.current, map[Key]struct{}{}
		if age >= 2*c.lifetime { // even the newest key is older than lifetime
			c.older = map[Key]struct{}{}
		}
		c.turned = now
	}
	if _, seen := c.current[key]; seen {
		return ErrSeen
	}
	if _, seen := c.older[key]; seen {
		return ErrSeen
	}
	switch {
	case c.forgetful && len(c.current) >= max(1, c.max/2):
		c.older, c.current, c.turned = c.current, map[Key]struct{}{}, now
	case !c.forgetful && len(c.current)+len(c.older) >= c.max:
		return ErrFull
	}
	c.current[key] = struct{}{}
	return nil
}

// Seen tells whether a key is remembered.
func (c *Cache) Seen(key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, current := c.current[key]
	_, older := c.older[key]
	return current || older
}

// Len returns how many keys are remembered.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.current) + len(c.older)
}
