package oid4vci

import (
	"fmt"
	"net/http"
	"time"
)

// Limits of request bodies in bytes.
const (
	maxForm = 64 << 10
	maxBody = 256 << 10
)

// endpoint is a handler that tells the outcome.
type endpoint func(c *call) string

// Handler returns the wallet listener's handler.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern, name string, e endpoint) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			i.observe(name, e(&call{w: w, r: r, endpoint: name}), time.Since(start))
		})
	}
	for _, r := range i.metadataRoutes() {
		handle(r.pattern, r.name, r.serve)
	}
	handle("GET "+i.path+"/offers/{secret}", "offer", i.serveOffer)
	handle("POST "+i.path+"/token", "token", i.serveToken)
	handle("POST "+i.path+"/nonce", "nonce", i.serveNonce)
	handle("POST "+i.path+"/credential", "credential", i.serveCredential)
	handle("POST "+i.path+"/deferred", "deferred", i.serveDeferred)
	handle("POST "+i.path+"/notification", "notification", i.serveNotification)
	if i.clients.Challenge() != "" {
		handle("POST "+i.path+"/challenge", "challenge", i.serveChallenge)
	}
	if i.options.AuthorizationEndpoint {
		handle("GET "+i.path+"/authorize", "authorize", i.serveAuthorize)
		handle("POST "+i.path+"/authorize", "authorize", i.serveAuthorize)
	}
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

// Headers that a page in a browser may read, and may send without being asked
// for them (Fetch standard, CORS protocol).
const (
	exposedHeaders = "WWW-Authenticate, Retry-After, DPoP-Nonce, OAuth-Client-Attestation-Challenge, Request-Id, ETag"
	allowedHeaders = "Authorization, Content-Type, DPoP, If-None-Match, OAuth-Client-Attestation, OAuth-Client-Attestation-PoP"
)

// withHeaders sets what every answer carries. Any page may read every answer (CORS):
// wallets are web applications too, and nothing here is given out because of
// who a browser's user is.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Strict-Transport-Security"] = []string{"max-age=31536000"}
		h["X-Content-Type-Options"] = []string{"nosniff"}
		h["Access-Control-Allow-Origin"] = []string{"*"}
		h["Access-Control-Expose-Headers"] = []string{exposedHeaders}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
			h.Set("Access-Control-Allow-Headers", allowedHeaders)
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
