// Package admin is the operators' API: pre-authorized offers, credentials that
// wait for an approval, wallets' refused requests, configurations, identities,
// what will break, events. It is served on a listener of its own; every request
// needs an operator's bearer token.
//
// Names and shapes follow what users of comparable products know: errors are
// {code, message, details}, lists {data, nextCursor}.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"chancery/appliance/foresight"
	"chancery/appliance/oid4vci/doctor"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/issuance/configuration"
)

// Links are the ways in which an offer reaches a wallet.
type Links struct {
	// URI is openid-credential-offer:// by reference, HAIP haip-vci:// by
	// reference, ByValue openid-credential-offer:// with the offer within.
	URI, HAIP, ByValue string
}

// Config is what the API works on; every member is required.
type Config struct {
	Store *store.Store
	// Configurations by id.
	Configurations map[string]*configuration.Configuration
	// Identities asks the signer (or a cache of its answer).
	Identities func(ctx context.Context) (wire.IdentitiesResponse, error)
	// Doctor has wallets' latest refused requests.
	Doctor *doctor.Ring
	// Foresight looks at what is wrong and what will be.
	Foresight func(ctx context.Context) foresight.Report
	// ClientAuthentication tells whether the issuer has a way to authenticate clients.
	ClientAuthentication bool
	// Links makes an offer's links from its secrets.
	Links func(store.Created) (Links, error)
	// DefaultExpiry and LongestExpiry bound an offer's life.
	DefaultExpiry, LongestExpiry time.Duration
	// CodeLength is a transaction code's when an offer names none.
	CodeLength int
	Now        func() time.Time
	Log        *slog.Logger
}

// maxBody bounds a request in bytes: the claims' bound, with room around them.
const maxBody = configuration.MaxClaims + 64<<10

// api is the handler.
type api struct {
	Config
	// failures slows down guessing of tokens, over all addresses: operators are few.
	failures *rate.Limiter
}

// New returns the API's handler.
func New(c Config) http.Handler {
	a := &api{Config: c, failures: rate.NewLimiter(rate.Every(500*time.Millisecond), 20)}
	mux := http.NewServeMux()
	const offers = "/v1/openid/offers/pre-authorized"
	mux.Handle("POST "+offers, a.operator(a.createOffer))
	mux.Handle("GET "+offers, a.operator(a.listOffers))
	mux.Handle("GET "+offers+"/{id}", a.operator(a.readOffer))
	mux.Handle("DELETE "+offers+"/{id}", a.operator(a.cancelOffer))
	mux.Handle("POST /v1/openid/offers/qr", a.operator(a.renderQR))
	const deferred = "/v1/openid/deferred"
	mux.Handle("GET "+deferred, a.operator(a.listDeferred))
	mux.Handle("GET "+deferred+"/{id}", a.operator(a.readDeferred))
	mux.Handle("POST "+deferred+"/{id}/approve", a.operator(a.approveDeferred))
	mux.Handle("POST "+deferred+"/{id}/refuse", a.operator(a.refuseDeferred))
	mux.Handle("GET /v1/openid/failures", a.operator(a.listFailures))
	mux.Handle("GET /v1/openid/failures/{id}", a.operator(a.readFailure))
	mux.Handle("GET /v1/openid/configurations", a.operator(a.listConfigurations))
	mux.Handle("GET /v1/openid/configurations/{id}", a.operator(a.readConfiguration))
	mux.Handle("GET /v1/identities", a.operator(a.listIdentities))
	mux.Handle("GET /v1/identities/{label}", a.operator(a.readIdentity))
	mux.Handle("GET /v1/foresight", a.operator(a.readForesight))
	mux.Handle("GET /v1/events", a.operator(a.listEvents))
	return a.plain(mux)
}

// Detail is one fault of a request.
type Detail struct {
	Msg      string `json:"msg"`
	Param    string `json:"param,omitempty"`
	Location string `json:"location,omitempty"` // "body", "query" or "path"
}

// Error is an answer that is no success.
type Error struct {
	Status  int      `json:"-"`
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Details []Detail `json:"details"`
	// RetryAfter is in seconds; 0 leaves the header out.
	RetryAfter int `json:"-"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// mostDetails bounds the faults that an answer lists.
const mostDetails = 100

func invalid(details ...Detail) *Error {
	if more := len(details) - mostDetails; more > 0 {
		details = append(details[:mostDetails:mostDetails], Detail{Msg: fmt.Sprintf("%d further faults are not listed", more)})
	}
	return &Error{Status: http.StatusBadRequest, Code: "BadRequest", Message: "The request is not valid.", Details: details}
}

// result is a success: a status and what is sent as JSON; nil sends no body.
type result struct {
	status int
	body   any
	// raw is sent instead of body, with its media type.
	raw       []byte
	mediaType string
}

// handler serves an authenticated operator.
type handler func(r *http.Request, operator store.Operator) (result, error)

// operator authenticates, calls h, and maps its error to a status: the one place
// where that is done.
func (a *api) operator(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		operator, err := a.authenticate(w, r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		out, err := h(r, operator)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		a.send(w, out)
	})
}

// authenticate finds the operator of the bearer token.
func (a *api) authenticate(w http.ResponseWriter, r *http.Request) (store.Operator, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	refused := &Error{Status: http.StatusUnauthorized, Code: "Unauthorized", Message: "An operator's token is needed: send Authorization: Bearer TOKEN."}
	if len(r.Header.Values("Authorization")) == 1 && strings.EqualFold(scheme, "Bearer") {
		operator, err := a.Store.OperatorByToken(r.Context(), strings.TrimSpace(token))
		if err == nil {
			return operator, nil
		}
		if !errors.Is(err, store.ErrToken) {
			return operator, err
		}
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="chancery"`)
	if !a.failures.Allow() {
		return store.Operator{}, &Error{Status: http.StatusTooManyRequests, Code: "TooManyRequests", Message: "Too many requests without a valid token.", RetryAfter: 5}
	}
	if err := a.Store.Append(r.Context(), store.Event{Kind: "operator.refused", Actor: "unknown"}); err != nil {
		return store.Operator{}, err
	}
	return store.Operator{}, refused
}

// fail answers an error.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	var e *Error
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &tooLong):
		e = &Error{Status: http.StatusRequestEntityTooLarge, Code: "TooLarge", Message: "The request's body is too long."}
	case errors.Is(err, store.ErrNotFound):
		e = &Error{Status: http.StatusNotFound, Code: "NotFound", Message: "There is no such resource."}
	case errors.Is(err, store.ErrState):
		e = &Error{Status: http.StatusConflict, Code: "Conflict", Message: "The offer has come to its end already: its state does not allow this."}
	case errors.Is(err, store.ErrKeyAway) || wire.AsError(err) != nil:
		e = &Error{Status: http.StatusServiceUnavailable, Code: "Unavailable", Message: "The signer or its token is not available now; nothing was changed.", RetryAfter: 5}
	default:
		a.Log.ErrorContext(r.Context(), "admin request failed", "path", r.Pattern, "error", err)
		e = &Error{Status: http.StatusInternalServerError, Code: "Internal", Message: "The request failed within the appliance; its log says why."}
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if e.Details == nil {
		e.Details = []Detail{}
	}
	a.send(w, result{status: e.Status, body: e})
}

func (a *api) send(w http.ResponseWriter, out result) {
	w.Header().Set("Cache-Control", "no-store")
	if out.raw != nil {
		w.Header().Set("Content-Type", out.mediaType)
		w.WriteHeader(out.status)
		w.Write(out.raw)
		return
	}
	if out.body == nil {
		w.WriteHeader(out.status)
		return
	}
	data, err := json.Marshal(out.body)
	if err != nil {
		a.Log.Error("an answer cannot be encoded", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(out.status)
	w.Write(append(data, '\n'))
}

// plain gives the mux's own answers (404, 405) the API's shape, and every answer
// the headers of an API that no page may read.
func (a *api) plain(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		allowed := allowedMethods(mux, r)
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			if slices.Contains(allowed, http.MethodGet) {
				w.Header().Set("Allow", strings.Join(append(allowed, http.MethodHead), ", "))
			}
			a.fail(w, r, &Error{Status: http.StatusMethodNotAllowed, Code: "MethodNotAllowed", Message: "Use " + strings.Join(allowed, " or ") + "."})
			return
		}
		a.fail(w, r, store.ErrNotFound)
	})
}

// allowedMethods asks the mux which methods a path has.
func allowedMethods(mux *http.ServeMux, r *http.Request) []string {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := mux.Handler(probe); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	return allowed
}
