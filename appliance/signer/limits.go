package signer

import (
	"sync"
	"time"
)

// window caps how many may pass in any span of its length. It is exact: it
// keeps the time of each of the last that passed. It is not safe for concurrent
// use.
type window struct {
	span time.Duration
	ring []time.Time
	next int // the oldest one's place
}

func newWindow(limit int, span time.Duration) *window {
	return &window{span: span, ring: make([]time.Time, limit)}
}

// fill counts what passed before the window was made.
func (w *window) fill(times []time.Time) {
	for _, t := range times {
		w.ring[w.next] = t
		w.next = (w.next + 1) % len(w.ring)
	}
}

// take lets n pass, or none and tells how long to wait. More than the limit at
// once never pass; the wait is the whole span then.
func (w *window) take(n int, now time.Time) (wait time.Duration, ok bool) {
	if n > len(w.ring) {
		return w.span, false
	}
	if n == 0 {
		return 0, true
	}
	// The n-th oldest must have left the window.
	oldest := w.ring[(w.next+n-1)%len(w.ring)]
	if free := oldest.Add(w.span); !oldest.IsZero() && now.Before(free) {
		return free.Sub(now), false
	}
	for range n {
		w.ring[w.next] = now
		w.next = (w.next + 1) % len(w.ring)
	}
	return 0, true
}

// giveBack takes the last n out again: those whose places they took had left the
// window, so nothing is forgotten.
func (w *window) giveBack(n int) {
	for range n {
		w.next = (w.next - 1 + len(w.ring)) % len(w.ring)
		w.ring[w.next] = time.Time{}
	}
}

// limiter lets a burst pass and then one each pause; it counts the others.
type limiter struct {
	burst int
	pause time.Duration

	mu      sync.Mutex // guards what follows
	tokens  float64
	at      time.Time
	dropped int
}

func newLimiter(burst int, pause time.Duration) limiter {
	return limiter{burst: burst, pause: pause, tokens: float64(burst)}
}

// take tells whether one may pass, and how many did not since the last that did.
func (l *limiter) take(now time.Time) (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && now.After(l.at) {
		l.tokens = min(float64(l.burst), l.tokens+float64(now.Sub(l.at))/float64(l.pause))
	}
	l.at = now
	if l.tokens < 1 {
		l.dropped++
		return 0, false
	}
	l.tokens--
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}
