package trust

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// Errors of [Status.Check]. They show nothing of what was read.
var (
	// ErrNotValid: the list says that the attestation is revoked, suspended or
	// anything else than valid.
	ErrNotValid = errors.New("its status list says that it is not valid")
	// ErrReference: the status claim is not as the draft wants it.
	ErrReference = errors.New("its status must hold a status_list with an idx and an https uri")
	// ErrList: the list was fetched and is not one that may be believed.
	ErrList = errors.New("its status list is not a valid Status List Token of a trusted provider, or has no such index")
	// ErrUnreachable: the list could not be fetched, and such attestations are
	// refused.
	ErrUnreachable = errors.New("its status list could not be fetched")
)

// StatusOptions configure a [Status].
type StatusOptions struct {
	// Providers sign the lists, with an x5c that leads to one of their anchors
	// or with one of their keys.
	Providers *Providers
	// FailClosed refuses an attestation whose list cannot be fetched.
	FailClosed bool
	// AllowedHosts may have addresses that are not public: loopback, private,
	// link-local. A list on any other host with such an address is not fetched.
	AllowedHosts []string
	// RootCAs vouch for the lists' servers; nil for the system's.
	RootCAs *x509.CertPool
	// Timeout bounds one fetch with everything in it. Default 5 s.
	Timeout time.Duration
	// MaxEntries and MaxBytes bound the lists kept in memory. Defaults 64 and 16 MiB.
	MaxEntries, MaxBytes int
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Status asks Token Status Lists (draft-ietf-oauth-status-list) whether an
// attestation still stands. Any number of goroutines may use it.
type Status struct {
	options StatusOptions
	client  *http.Client
	cache   cache
	// fetching lets so many fetches run at a time, as each may take several
	// times maxList of memory.
	fetching chan struct{}
}

// maxFetches bounds the fetches at a time.
const maxFetches = 2

// NewStatus returns a Status.
func NewStatus(o StatusOptions) *Status {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 64
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 16 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Status{
		options: o, client: guardedClient(o),
		cache:    cache{lists: map[string]list{}, maxEntries: o.MaxEntries, maxBytes: o.MaxBytes},
		fetching: make(chan struct{}, maxFetches),
	}
}

// Check takes a decoded status claim of an attestation whose signature was
// verified, and returns nil when its status is valid (draft-ietf-oauth-status-list
// §8.3), or when there is no claim. A nil Status checks nothing.
func (s *Status) Check(ctx context.Context, status any) error {
	if s == nil || status == nil {
		return nil
	}
	uri, index, err := reference(status)
	if err != nil {
		return err
	}
	l, err := s.list(ctx, uri)
	if errors.Is(err, ErrUnreachable) && !s.options.FailClosed {
		return nil
	}
	if err != nil {
		return err
	}
	value, ok := l.at(index)
	if !ok {
		return ErrList
	}
	if value != 0 {
		return ErrNotValid
	}
	return nil
}

// reference reads {"status_list":{"idx":…,"uri":…}}; further mechanisms beside
// it are ignored.
func reference(status any) (uri string, index uint64, err error) {
	object, _ := status.(map[string]any)
	list, _ := object["status_list"].(map[string]any)
	number, isNumber := list["idx"].(json.Number)
	uri, _ = list["uri"].(string)
	if !isNumber || !fetchable(uri) {
		return "", 0, ErrReference
	}
	i, err := number.Int64()
	if err != nil || i < 0 {
		return "", 0, ErrReference
	}
	return uri, uint64(i), nil
}

// fetchable tells whether a URI may be asked for at all.
func fetchable(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && len(uri) <= 2048 && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && u.Fragment == "" && u.Opaque == ""
}

// How long a list is kept that does not say so, and at most; and how long one
// that could not be fetched is not asked for again.
const (
	defaultTTL = 5 * time.Minute
	maxTTL     = 12 * time.Hour
	retryAfter = 10 * time.Second
)

// list returns a list from the cache or fetches it, once for all who wait.
func (s *Status) list(ctx context.Context, uri string) (list, error) {
	if l, ok := s.cache.get(uri, s.options.Now()); ok {
		return l, l.err
	}
	// The fetch is for all who ask for the list now, so it does not end with the
	// first one's request; its own timeout bounds it.
	result := s.cache.flights.DoChan(uri, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Timeout)
		defer cancel()
		l := s.fetch(ctx, uri)
		s.cache.put(uri, l, s.options.Now())
		return l, nil
	})
	select {
	case r := <-result:
		l, _ := r.Val.(list)
		return l, l.err
	case <-ctx.Done():
		return list{}, ErrUnreachable
	}
}

// fetch asks for a list and judges it; whatever comes of it is kept, faults for
// a short time.
func (s *Status) fetch(ctx context.Context, uri string) list {
	failed := func(err error) list { return list{err: err, until: s.options.Now().Add(retryAfter)} }
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return failed(ErrUnreachable)
	}
	compact, err := s.get(ctx, uri)
	if err != nil {
		return failed(err)
	}
	l, err := s.read(compact, uri)
	if err != nil {
		return failed(ErrList)
	}
	return l
}
