// Package limit keeps one client from taking what is there for all: token
// buckets for each client address and for each offer, a bound on open
// connections, and the answer to the question who the client is when proxies
// stand in front.
//
// Every structure here is filled by strangers, so every one has a bound: when it
// is reached, what was least recently used is forgotten. Addresses are kept in memory
// alone, until newer ones take their place; they reach no metric, and the log at
// its level "debug" only, where it tells of broken TLS handshakes.
package limit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how much is allowed.
type Rate struct {
	// Requests are allowed in each span of Per; zero or less means no limit.
	Requests int
	// Per is the span; zero means a second.
	Per time.Duration
	// Burst is how many may come at once after a quiet time; less than 1 means
	// as many as Requests.
	Burst int
}

// Buckets are token buckets, one for each key. A key's bucket is forgotten when
// half of the table's entries came after its last use; a key that comes back
// then starts with a full bucket. Nobody is refused because the table is full.
// It is safe for concurrent use.
type Buckets[K comparable] struct {
	limit      rate.Limit // 0: no limit
	burst      int
	generation int // the size of each of the two

	// mu guards the two generations: a key that is used moves to the young one;
	// when that is full it becomes the old one, and what was old is dropped.
	mu         sync.Mutex
	young, old map[K]*rate.Limiter
}

// NewBuckets returns buckets for at most entries keys at once (at least 2).
func NewBuckets[K comparable](r Rate, entries int) *Buckets[K] {
	b := &Buckets[K]{burst: r.Burst, generation: max(entries/2, 1), young: map[K]*rate.Limiter{}}
	if r.Requests <= 0 {
		return b
	}
	if r.Per <= 0 {
		r.Per = time.Second
	}
	if b.burst < 1 {
		b.burst = r.Requests
	}
	b.limit = rate.Limit(float64(r.Requests) / r.Per.Seconds())
	return b
}

// Allow takes one token from the key's bucket. When there is none it takes
// nothing and returns how long it is until there is one.
func (b *Buckets[K]) Allow(key K, now time.Time) (wait time.Duration, ok bool) {
	if b.limit == 0 {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.bucket(key)
	if l.AllowN(now, 1) {
		return 0, true
	}
	missing := 1 - l.TokensAt(now)
	return time.Duration(missing / float64(b.limit) * float64(time.Second)), false
}

// bucket finds or makes the key's bucket. The caller holds the lock.
func (b *Buckets[K]) bucket(key K) *rate.Limiter {
	if l := b.young[key]; l != nil {
		return l
	}
	l := b.old[key]
	if l == nil {
		l = rate.NewLimiter(b.limit, b.burst)
	}
	if len(b.young) == b.generation {
		b.old, b.young = b.young, make(map[K]*rate.Limiter)
	}
	delete(b.old, key)
	b.young[key] = l
	return l
}
