package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// eventKinds are the first parts of the kinds that chanceryd may write. None is
// the signer's own, so that chanceryd cannot forge a signature, a key or a
// ceremony in the log (promise P8).
var eventKinds = map[string]bool{
	"offer": true, "credential": true, "configuration": true, "operator": true, "database": true, "appliance": true,
	"metadata": true, "status": true, "wallet": true, "notification": true, "deferred": true, "encryption_key": true,
}

// ownActors are names that chanceryd's events cannot bear.
var ownActors = map[string]bool{"signer": true, "ceremony": true}

// Bounds of an event.
const (
	longestName   = 256  // of identifiers that go into the log, in bytes
	longestDetail = 1024 // bytes of one value
	maxDetails    = 16
)

// IsIdentifier tells whether a string from chanceryd may stand in the log as an
// identifier: 1 to 256 printable ASCII characters without spaces, not a text that
// could hold personal data.
func IsIdentifier(s string) bool {
	if s == "" || len(s) > longestName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Check refuses an event that the audit log does not take. Whoever records an
// event checks it first: one in an outbox that the log refuses blocks all that
// come after it.
func (e Event) Check() error {
	prefix, rest, found := strings.Cut(e.Kind, ".")
	switch {
	case !found || rest == "" || !eventKinds[prefix] || !IsIdentifier(e.Kind):
		return errors.New("kind must begin with one of the appliance's own names and a dot")
	case e.Time < 0 || e.Time > 253402300799999:
		return errors.New("time is not between 1970 and 9999")
	case !isName(e.Actor) || ownActors[e.Actor]:
		return errors.New("actor is too long or the signer's own")
	case !isName(e.Subject):
		return errors.New("subject is too long")
	case len(e.Detail) > maxDetails:
		return fmt.Errorf("%d details: at most %d", len(e.Detail), maxDetails)
	}
	for k, v := range e.Detail {
		if !IsIdentifier(k) || len(v) > longestDetail || !utf8.ValidString(v) {
			return errors.New("a detail's name is no identifier or its value too long")
		}
	}
	return nil
}

// isName tells whether a string is a name of a person or thing within bounds.
func isName(s string) bool { return len(s) <= longestName && utf8.ValidString(s) }
