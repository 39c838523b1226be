// Package refusal is an error answer of the wallet-facing endpoints: what the
// wallet is told, exactly as the specifications want it, and apart from it what
// the operator is told: which member was wrong and where the specification says
// so. Nothing in it is a secret, a claim or a value that somebody sent.
package refusal

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// Refusal is an answer that is no success. It is an error.
type Refusal struct {
	// Status is the HTTP status code.
	Status int
	// Code is the error code that the specification has for it.
	Code string
	// Description says in one sentence what was wrong; wallets see it.
	Description string

	// Member names the member, header or parameter that was wrong, for instance
	// "proofs.jwt[0] aud"; empty where there is none. Wallets never see it.
	Member string
	// Section is where the specification says what it wants, for instance
	// "OpenID4VCI 1.0 App. F.1". Wallets never see it.
	Section string

	// Challenge is the WWW-Authenticate header, when there is one.
	Challenge string
	// RetryAfter is in seconds; 0 for no Retry-After header.
	RetryAfter int
	// Header holds further headers, for instance DPoP-Nonce; nil for none.
	Header map[string]string
	// Bare leaves the body out (RFC 6750 §3.1).
	Bare bool
	// Extra holds further members of the body, which older drafts have; nil in 1.0.
	Extra map[string]any
}

// New returns a refusal with status 400.
func New(code, member, description, section string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Code: code, Member: member, Description: description, Section: section}
}

// With sets the status and returns e.
func (e *Refusal) With(status int) *Refusal {
	e.Status = status
	return e
}

// Error returns code and description.
func (e *Refusal) Error() string { return e.Code + ": " + e.Description }

// Write sends the refusal and returns its code, or "unauthorized" for a bare one.
func (e *Refusal) Write(w http.ResponseWriter) string {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	if e.Challenge != "" {
		h.Set("WWW-Authenticate", e.Challenge)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	for name, value := range e.Header {
		h.Set(name, value)
	}
	if e.Bare {
		w.WriteHeader(e.Status)
		return "unauthorized"
	}
	body := e.body()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // the peer may be gone
	return e.Code
}

func (e *Refusal) body() []byte {
	members := map[string]any{"error": e.Code}
	if e.Description != "" {
		members["error_description"] = printable(e.Description)
	}
	for name, value := range e.Extra {
		members[name] = value
	}
	body, err := json.Marshal(members)
	if err != nil { // only Extra could be unfit
		return []byte(`{"error":"server_error"}`)
	}
	return body
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
