package signer

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
)

// foreignKinds are the first parts of the kinds that chanceryd may write. None
// is the signer's own, so that chanceryd cannot forge a signature, a key or a
// ceremony in the log (promise P8).
var foreignKinds = map[string]bool{
	"offer": true, "credential": true, "configuration": true, "operator": true, "database": true,
	"appliance": true, "metadata": true, "status": true, "wallet": true, "notification": true,
}

// ownActors are names that chanceryd's events cannot bear.
var ownActors = map[string]bool{"signer": true, "ceremony": true}

// Bounds of an event.
const (
	maxEvents     = 512
	maxSources    = 1024
	longestDetail = 1024 // bytes of one value
	maxDetails    = 16
	// longestDetails bounds all details of one event, in bytes of JSON.
	longestDetails = 32 << 10
)

// appendEvents writes chanceryd's events in order, each once: what the log has
// already is left out, and a gap is refused.
func (s *Server) appendEvents(_ context.Context, c *core, in wire.AppendRequest) (wire.AppendResponse, error) {
	if err := checkEvents(in); err != nil {
		return wire.AppendResponse{}, err
	}
	c.events.Lock()
	defer c.events.Unlock()
	last, known := c.registry.LastSeq[in.Source]
	if !known && len(c.registry.LastSeq) >= maxSources {
		return wire.AppendResponse{}, bad("the log knows %d sources already", maxSources)
	}
	var entries []audit.Entry
	next := last
	for _, e := range in.Events {
		if e.Seq <= next {
			continue
		}
		if e.Seq != next+1 {
			return wire.AppendResponse{}, bad("event %d follows %d: events come without gaps", e.Seq, next)
		}
		entry, err := event(in.Source, e)
		if err != nil {
			return wire.AppendResponse{}, err
		}
		entries = append(entries, entry)
		next++
	}
	if len(entries) > 0 {
		if err := c.append(entries...); err != nil {
			return wire.AppendResponse{}, err
		}
		c.registry.LastSeq[in.Source] = next
	}
	return wire.AppendResponse{LastSeq: next}, nil
}

func bad(format string, args ...any) *wire.Error {
	return &wire.Error{Code: wire.CodeBadRequest, Message: fmt.Sprintf(format, args...)}
}

func checkEvents(in wire.AppendRequest) error {
	if !name(in.Source, false) {
		return bad("source must be an identifier in printable ASCII")
	}
	if len(in.Events) > maxEvents {
		return bad("%d events: at most %d at once", len(in.Events), maxEvents)
	}
	for i, e := range in.Events {
		if err := checkEvent(e); err != nil {
			return bad("event %d: %v", i, err)
		}
	}
	return nil
}

func checkEvent(e wire.Event) error {
	prefix, rest, found := strings.Cut(e.Kind, ".")
	switch {
	case !found || rest == "" || !foreignKinds[prefix] || !name(e.Kind, false):
		return fmt.Errorf("kind must begin with one of the appliance's own names and a dot")
	case e.Seq == 0:
		return fmt.Errorf("seq begins with 1")
	case e.Time < 0 || e.Time > 253402300799999:
		return fmt.Errorf("time is not between 1970 and 9999")
	case !text(e.Actor) || ownActors[e.Actor]:
		return fmt.Errorf("actor is too long or the signer's own")
	case !text(e.Subject):
		return fmt.Errorf("subject is too long")
	case len(e.Detail) > maxDetails:
		return fmt.Errorf("%d details: at most %d", len(e.Detail), maxDetails)
	}
	for k, v := range e.Detail {
		if !name(k, false) || len(v) > longestDetail || !utf8.ValidString(v) {
			return fmt.Errorf("a detail's name is no identifier or its value too long")
		}
	}
	return nil
}

// text tells whether a string is a name of a person or thing within bounds.
func text(s string) bool { return len(s) <= longestName && utf8.ValidString(s) }

// event is the log's entry of an event.
func event(source string, e wire.Event) (audit.Entry, error) {
	entry := audit.Entry{Time: audit.Stamp(time.UnixMilli(e.Time)), Kind: audit.Kind(e.Kind), Actor: e.Actor, Subject: e.Subject, Source: source, Seq: e.Seq}
	if len(e.Detail) > 0 {
		detail, err := json.Marshal(e.Detail)
		if err != nil {
			return entry, err
		}
		if len(detail) > longestDetails {
			return entry, bad("event %d: its details have %d bytes, at most %d are recorded", e.Seq, len(detail), longestDetails)
		}
		entry.Detail = detail
	}
	return entry, nil
}
