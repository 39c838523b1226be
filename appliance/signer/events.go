package signer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
)

// Bounds of a request, and of what one event adds to the log.
const (
	maxEvents  = 512
	maxSources = 1024
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
		err := e.Check()
		if err == nil && e.Seq == 0 {
			err = errors.New("seq begins with 1")
		}
		if err != nil {
			return bad("event %d: %v", i, err)
		}
	}
	return nil
}

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
