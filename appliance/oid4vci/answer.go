package oid4vci

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
)

// matches tells whether an If-None-Match header names the tag (RFC 9110 §13.1.2).
func matches(values []string, etag string) bool {
	for _, v := range values {
		for candidate := range strings.SplitSeq(v, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// writeJSON answers with a JSON body that must not be stored.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the peer may be gone
}

// refusal is an error answer in the protocol's form: RFC 6749 §5.2 for the
// token endpoint, OpenID4VCI 1.0 §8.3.1 for the credential endpoint.
type refusal struct {
	status      int
	code        string
	description string
	// challenge is the WWW-Authenticate header, when there is one.
	challenge string
	// retryAfter is in seconds.
	retryAfter int
	// bare leaves the body out (RFC 6750 §3.1).
	bare bool
}

// Error returns code and description.
func (e *refusal) Error() string { return e.code + ": " + e.description }

func refuse(status int, code, description string) *refusal {
	return &refusal{status: status, code: code, description: description}
}

// write sends the refusal and returns its code as the outcome.
func (e *refusal) write(w http.ResponseWriter) string {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	if e.challenge != "" {
		h.Set("WWW-Authenticate", e.challenge)
	}
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.bare {
		w.WriteHeader(e.status)
		return "unauthorized"
	}
	body, _ := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{e.code, printable(e.description)}) // strings always marshal
	writeJSON(w, e.status, body)
	return e.code
}

// printable keeps what error_description may hold: %x20-21 / %x23-5B / %x5D-7E
// (RFC 6749 §5.2, OpenID4VCI 1.0 §8.3.1.2).
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\\' || r < 0x20 || r > 0x7e:
			return '?'
		}
		return r
	}, s)
}

// failed answers what is not the wallet's fault and logs it.
func (i *Issuer) failed(w http.ResponseWriter, r *http.Request, err error) string {
	return i.asRefusal(r, err).write(w)
}

// asRefusal turns any error into an answer. A token or signer that is away or
// busy is a 503 with Retry-After: the code, the access token and the nonce stay
// good (promise P10).
func (i *Issuer) asRefusal(r *http.Request, err error) *refusal {
	var known *refusal
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, store.ErrToken) {
		return invalidToken()
	}
	away := &refusal{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", description: "issuing is not possible now: try again later", retryAfter: 5}
	if e := wire.AsError(err); e != nil {
		if e.RetryAfter > 0 {
			away.retryAfter = e.RetryAfter
		}
		switch e.Code {
		case wire.CodeBusy, wire.CodeUnavailable:
			// One line for each turned-away request would drown the log; metrics
			// count them, and the signer's log says what happened to the token.
			i.log.Debug("the signer cannot serve now", "path", r.Pattern, "code", e.Code)
		default:
			i.log.Error("the signer failed", "path", r.Pattern, "error", err)
		}
		return away
	}
	if errors.Is(err, store.ErrKeyAway) {
		i.log.Warn("a data key cannot be opened now", "path", r.Pattern, "error", err)
		return away
	}
	if r.Context().Err() == nil {
		i.log.Error("request failed", "path", r.Pattern, "error", err)
	}
	return refuse(http.StatusInternalServerError, "server_error", errInternal.Error())
}
