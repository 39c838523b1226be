// Package oid4vci is the wallet-facing side of the appliance: OpenID for
// Verifiable Credential Issuance 1.0, pre-authorized code flow. The issuer is
// its own authorization server.
//
// Everything it reads is hostile. Whatever a request says is held against the
// offer in the store, never the other way round, and the order of the checks is
// the order of the specification's tables: nothing is spent before everything
// that may fail harmlessly has been checked.
//
// Beside the protocol the package serves what verifiers fetch from an issuer:
// its did:web document, its CRLs and its IACA certificates.
package oid4vci

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance/configuration"
)

// Options are what an issuer is made of.
type Options struct {
	// Issuer is the configuration file's part.
	Issuer         config.Issuer
	Store          *store.Store
	Signer         *wire.Client
	Configurations []*configuration.Configuration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log receives failures and one line for each credential; never personal data.
	Log *slog.Logger
	// Observe is told the endpoint, the outcome ("ok" or an error code) and the
	// time of each request; nil is allowed.
	Observe func(endpoint, outcome string, took time.Duration)
}

// Issuer serves the protocol. It is safe for concurrent use.
type Issuer struct {
	identifier     string
	path           string // the identifier's path, "" or "/…"
	options        config.Issuer
	store          *store.Store
	signer         *wire.Client
	configurations map[string]*configuration.Configuration
	ordered        []*configuration.Configuration
	now            func() time.Time
	log            *slog.Logger
	observe        func(endpoint, outcome string, took time.Duration)
	nonces         *nonces
	asMetadata     document

	// published changes as a whole when the signer's keys change.
	published atomic.Pointer[published]
}

// document is a resource that is built once and served often.
type document struct {
	mediaType string
	body      []byte
	etag      string
}

func newDocument(mediaType string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{mediaType, body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// New builds an issuer. It asks the signer nothing: until the first successful
// [Issuer.Refresh] it serves metadata without signing algorithms and answers
// credential requests with 503.
func New(o Options) (*Issuer, error) {
	u, err := url.Parse(o.Issuer.Identifier)
	if err != nil {
		return nil, err
	}
	i := &Issuer{identifier: o.Issuer.Identifier, path: u.Path, options: o.Issuer, store: o.Store, signer: o.Signer, now: o.Now, log: o.Log, observe: o.Observe,
		configurations: map[string]*configuration.Configuration{}, ordered: o.Configurations}
	if i.now == nil {
		i.now = time.Now
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	if i.observe == nil {
		i.observe = func(string, string, time.Duration) {}
	}
	for _, c := range o.Configurations {
		if i.configurations[c.ID] != nil {
			return nil, fmt.Errorf("configuration %s is there twice", c.ID)
		}
		i.configurations[c.ID] = c
	}
	if i.nonces, err = newNonces(o.Issuer.NonceLifetime.Std()); err != nil {
		return nil, err
	}
	if i.asMetadata, err = i.buildASMetadata(); err != nil {
		return nil, err
	}
	p, err := i.publish(wire.IdentitiesResponse{})
	if err != nil {
		return nil, err
	}
	i.published.Store(p)
	return i, nil
}

// Refresh asks the signer for its keys and publishes what follows from them.
// On an error what was published stays.
func (i *Issuer) Refresh(ctx context.Context) error {
	identities, err := i.signer.Identities(ctx)
	if err != nil {
		return err
	}
	if had := i.published.Load(); len(had.identities) > 0 && had.generation == identities.Generation {
		return nil
	}
	p, err := i.publish(identities)
	if err != nil {
		return err
	}
	i.published.Store(p)
	return nil
}

// Identities returns the keys as of the last [Issuer.Refresh].
func (i *Issuer) Identities() []wire.Identity { return i.published.Load().identities }

// Configurations returns the credential configurations, in file order.
func (i *Issuer) Configurations() []*configuration.Configuration { return i.ordered }

// Limits of request bodies in bytes.
const (
	maxForm = 64 << 10
	maxBody = 256 << 10
)

// endpoint is a handler that tells the outcome.
type endpoint func(w http.ResponseWriter, r *http.Request) string

// Handler returns the wallet listener's handler.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern, name string, e endpoint) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			i.observe(name, e(w, r), time.Since(start))
		})
	}
	metadata := func(w http.ResponseWriter, r *http.Request) string {
		w.Header().Set("Vary", "Accept, Accept-Language")
		return serveDocument(w, r, i.published.Load().metadata)
	}
	asMetadata := func(w http.ResponseWriter, r *http.Request) string { return serveDocument(w, r, i.asMetadata) }
	// The path is inserted by 1.0 (§12.2.2) and was appended by drafts up to 15;
	// both are served. RFC 8414 inserts.
	handle("GET /.well-known/openid-credential-issuer"+i.path, "metadata", metadata)
	handle("GET /.well-known/oauth-authorization-server"+i.path, "as_metadata", asMetadata)
	handle("GET /.well-known/openid-configuration"+i.path, "as_metadata", asMetadata)
	if i.path != "" {
		handle("GET "+i.path+"/.well-known/openid-credential-issuer", "metadata", metadata)
		handle("GET "+i.path+"/.well-known/openid-configuration", "as_metadata", asMetadata)
	}
	handle("GET "+i.path+"/offers/{secret}", "offer", i.serveOffer)
	handle("POST "+i.path+"/token", "token", i.serveToken)
	handle("POST "+i.path+"/nonce", "nonce", i.serveNonce)
	handle("POST "+i.path+"/credential", "credential", i.serveCredential)
	handle("GET "+i.path+"/crl/{file}", "crl", i.serveCRL)
	handle("GET "+i.path+"/iaca/{file}", "iaca", i.serveIACA)
	// The DID decides where its document is, so that is no pattern of the mux.
	return withHeaders(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, ok := i.published.Load().dids[r.URL.Path]
		if !ok {
			mux.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		i.observe("did", serveDID(w, r, d), time.Since(start))
	}))
}

// withHeaders sets what every answer carries. Any page may read every answer (CORS):
// wallets are web applications too, and nothing here is given out because of
// who a browser's user is.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Strict-Transport-Security"] = []string{"max-age=31536000"}
		h["X-Content-Type-Options"] = []string{"nosniff"}
		h["Access-Control-Allow-Origin"] = []string{"*"}
		h["Access-Control-Expose-Headers"] = []string{"WWW-Authenticate, Retry-After"}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
			// DPoP: clients may send a proof without knowing whether it is of use (RFC 9449 §5).
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serveDocument answers GET and HEAD with an entity tag.
func serveDocument(w http.ResponseWriter, r *http.Request, d document) string {
	h := w.Header()
	h.Set("Content-Type", d.mediaType)
	h.Set("Etag", d.etag)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "public, max-age=60")
	}
	if matches(r.Header.Values("If-None-Match"), d.etag) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return "not_modified"
	}
	h.Set("Content-Length", fmt.Sprint(len(d.body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(d.body) // the peer may be gone
	}
	return "ok"
}

// errInternal is what a wallet is told about a failure that is not its own.
var errInternal = errors.New("internal error")
