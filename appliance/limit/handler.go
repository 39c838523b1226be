package limit

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// Classes of requests. Each has buckets of its own: a wallet that polls
// documents does not use up what it needs for a credential.
const (
	// Read are GET, HEAD and OPTIONS: documents that are there already.
	Read = "read"
	// Write is every other method: the endpoints that cost a signature or a commit.
	Write = "write"
)

// defaultEntries is how many addresses each class knows at once: about 10 MiB
// when all of them are taken.
const defaultEntries = 1 << 16

// Options are what a limiter is made of.
type Options struct {
	// PerAddress is what one client address may ask for, in each class.
	PerAddress Rate
	// Addresses tell who the client is; nil means the connection's peer.
	Addresses *Addresses
	// Entries bounds the addresses known at once in each class; zero means 65536.
	Entries int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Refused is told the class of each refused request; nil is allowed.
	Refused func(class string)
}

// Limiter refuses requests of client addresses that ask for too much. It is safe
// for concurrent use.
type Limiter struct {
	addresses   *Addresses
	read, write *Buckets[netip.Addr]
	now         func() time.Time
	refused     func(class string)
}

// New returns a limiter.
func New(o Options) *Limiter {
	if o.Entries == 0 {
		o.Entries = defaultEntries
	}
	l := &Limiter{addresses: o.Addresses, now: o.Now, refused: o.Refused,
		read: NewBuckets[netip.Addr](o.PerAddress, o.Entries), write: NewBuckets[netip.Addr](o.PerAddress, o.Entries)}
	if l.addresses == nil {
		l.addresses = &Addresses{}
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.refused == nil {
		l.refused = func(string) {}
	}
	return l
}

// Handler answers 429 with Retry-After (RFC 6585 §4) before next has read
// anything, when the client's address is over its rate. Without a limit it is
// next itself.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	if l.read.limit == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		class, buckets := Write, l.write
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
			class, buckets = Read, l.read
		}
		wait, ok := buckets.Allow(network(l.addresses.Client(r)), l.now())
		if ok {
			next.ServeHTTP(w, r)
			return
		}
		l.refused(class)
		tooMany(w, wait)
	})
}

// tooMany writes the refusal. Pages may read it (CORS): a wallet that is a web
// application must learn when to come back.
func tooMany(w http.ResponseWriter, wait time.Duration) {
	seconds := Seconds(wait)
	body := fmt.Sprintf(`{"error":"too_many_requests","error_description":"slow down: try again in %d s"}`, seconds)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("Retry-After", strconv.Itoa(seconds))
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Retry-After")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write([]byte(body)) // the peer may be gone
}

// Seconds is a wait as Retry-After has it (RFC 9110 §10.2.3): whole seconds,
// rounded up, at least one.
func Seconds(wait time.Duration) int {
	return max(int((wait+time.Second-1)/time.Second), 1)
}

// network is what shares a bucket: an IPv4 address, or an IPv6 /64, which is
// what one subscriber has at least.
func network(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
