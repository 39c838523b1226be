package oid4vci

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
)

// call is one request on its way through an endpoint.
type call struct {
	w http.ResponseWriter
	r *http.Request
	// endpoint is its name in metrics and for the doctor.
	endpoint string
	// offer is the offer's id once it is known.
	offer string
	// bound tells that its access token came with the DPoP scheme.
	bound bool
}

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
	write(w, status, "application/json", body)
}

func write(w http.ResponseWriter, status int, mediaType string, body []byte) {
	h := w.Header()
	h["Content-Type"] = []string{mediaType}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the peer may be gone
}

// failed answers what went wrong, keeps it for the operator, and logs what is
// not the wallet's fault.
func (i *Issuer) failed(c *call, err error) string {
	e := i.asRefusal(c, err)
	i.note(c, e)
	return e.Write(c.w)
}

// note keeps a refusal for the operator, and tells the wallet under which id.
func (i *Issuer) note(c *call, e *refusal.Refusal) {
	if id := i.doctor.Add(c.endpoint, c.offer, e, i.now()); id != "" {
		c.w.Header().Set("Request-Id", id)
	}
}

// away is the answer while the signer or its token cannot serve.
func away(retryAfter int) *refusal.Refusal {
	e := refusal.New("temporarily_unavailable", "", "issuing is not possible now: try again later", "").With(http.StatusServiceUnavailable)
	e.RetryAfter = retryAfter
	return e
}

// asRefusal turns any error into an answer. A token or signer that is away or
// busy is a 503 with Retry-After: the code, the access token and the nonce stay
// good (promise P10).
func (i *Issuer) asRefusal(c *call, err error) *refusal.Refusal {
	var known *refusal.Refusal
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, store.ErrToken) {
		return i.invalidToken(c.bound)
	}
	if e := wire.AsError(err); e != nil {
		switch e.Code {
		case wire.CodeBusy, wire.CodeUnavailable:
			// One line for each turned-away request would drown the log; metrics
			// count them, and the signer's log says what happened to the token.
			i.log.Debug("the signer cannot serve now", "path", c.r.Pattern, "code", e.Code)
		default:
			i.log.Error("the signer failed", "path", c.r.Pattern, "error", err)
		}
		if e.RetryAfter > 0 {
			return away(e.RetryAfter)
		}
		return away(5)
	}
	if errors.Is(err, store.ErrKeyAway) {
		i.log.Warn("a data key cannot be opened now", "path", c.r.Pattern, "error", err)
		return away(5)
	}
	if c.r.Context().Err() == nil {
		i.log.Error("request failed", "path", c.r.Pattern, "error", err)
	}
	return refusal.New("server_error", "", "internal error", "").With(http.StatusInternalServerError)
}
