package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"chancery/appliance/database"
)

// Event is something that happened and that the audit log is to know. It holds
// no personal data, codes or tokens.
type Event struct {
	// Seq numbers events of this database from 1 without gaps; set by the store.
	Seq  int64
	Time time.Time
	// Kind is for instance "offer.created".
	Kind string
	// Actor is an operator's name, "wallet" or "appliance".
	Actor string
	// Subject is the identifier of what it is about.
	Subject string
	Detail  map[string]string
}

// outbox remembers how far the audit log has the events.
type outbox struct {
	mu         sync.Mutex // guards what follows
	source     string
	base, sent int64
	signal     chan struct{}
}

func (o *outbox) load(r *database.Reader) error {
	o.signal = make(chan struct{}, 1)
	found, err := r.Row("SELECT source, source_base, sent FROM meta WHERE id = 1", nil, []any{&o.source, &o.base, &o.sent})
	return errors.Join(err, errNoMeta(found || err != nil))
}

// wake tells the drainer that there may be something.
func (o *outbox) wake() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// record writes an event within the transaction of the change that caused it.
func (s *Store) record(tx *database.Tx, e Event) error {
	detail := ""
	if len(e.Detail) > 0 {
		data, err := json.Marshal(e.Detail)
		if err != nil {
			return err
		}
		detail = string(data)
	}
	_, err := tx.Exec("INSERT INTO outbox (time, kind, actor, subject, detail) VALUES (?, ?, ?, ?, ?)", millis(e.Time), e.Kind, e.Actor, e.Subject, detail)
	return err
}

// Append records an event that no change of the store's causes. The time is
// set when it is zero.
func (s *Store) Append(ctx context.Context, e Event) error {
	if e.Time.IsZero() {
		e.Time = s.now()
	}
	err := s.db.Write(ctx, func(tx *database.Tx) error { return s.record(tx, e) })
	if err == nil {
		s.outbox.wake()
	}
	return err
}

// scanEvent reads a row of seq, time, kind, actor, subject, detail.
func scanEvent(scan func(...any) error) (e Event, err error) {
	var at int64
	var detail []byte
	if err := scan(&e.Seq, &at, &e.Kind, &e.Actor, &e.Subject, &detail); err != nil {
		return e, err
	}
	e.Time = timeOf(at)
	if len(detail) > 0 {
		err = json.Unmarshal(detail, &e.Detail)
	}
	return e, err
}

// EventFilter narrows a list of events; empty members do not.
type EventFilter struct {
	Kind    string
	Subject string
}

// Events returns up to limit events, newest first, and the cursor to go on
// with, which is empty at the end.
func (s *Store) Events(ctx context.Context, filter EventFilter, limit int, cursor string) ([]Event, string, error) {
	before, err := parseCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	var events []Event
	more := false
	err = s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT seq, time, kind, actor, subject, detail FROM outbox WHERE seq < ? AND (?2 = '' OR kind = ?2) AND (?3 = '' OR subject = ?3) ORDER BY seq DESC LIMIT ?4",
			[]any{before, filter.Kind, filter.Subject, limit + 1}, func(scan func(...any) error) error {
				e, err := scanEvent(scan)
				if err != nil || len(events) == limit {
					more = true
					return err
				}
				events = append(events, e)
				return nil
			})
	})
	if err != nil || !more {
		return events, "", err
	}
	return events, formatCursor(events[len(events)-1].Seq), nil
}

// drainLimit is how many events one message to the signer holds.
const drainLimit = 256

// Sender hands events of a source to the audit log. Numbers grow by one from 1;
// last is the number of the source's last event that is durable there.
type Sender func(ctx context.Context, source string, events []Event) (last uint64, err error)

// Drain sends what the audit log does not have yet, in order. Delivery is at
// least once; the log drops what it has by source and number. When the log
// knows more of this source than the database does, the database is an older
// copy that was restored: it goes on under a new source, and what was open in
// the copy is cancelled, as its codes may have been redeemed since.
func (s *Store) Drain(ctx context.Context, send Sender) error {
	for {
		s.outbox.mu.Lock()
		source, base, sent := s.outbox.source, s.outbox.base, s.outbox.sent
		s.outbox.mu.Unlock()
		events, err := s.unsent(ctx, base, sent)
		if err != nil {
			return err
		}
		last, err := send(ctx, source, events)
		if err != nil {
			return err
		}
		known := sent + int64(len(events))
		if int64(last)+base > known {
			var newest int64
			if err := s.db.Read(ctx, func(r *database.Reader) error {
				_, err := r.Row("SELECT coalesce(max(seq), 0) FROM outbox", nil, []any{&newest})
				return err
			}); err != nil {
				return err
			}
			if int64(last)+base > newest {
				return s.startOver(ctx)
			}
		}
		if next := int64(last) + base; next > sent {
			if err := s.setSent(ctx, next); err != nil {
				return err
			}
		} else if len(events) > 0 {
			return fmt.Errorf("the audit log has events up to %d, not %d", last, known-base)
		}
		if len(events) < drainLimit {
			return nil
		}
	}
}

func (s *Store) unsent(ctx context.Context, base, sent int64) (events []Event, err error) {
	err = s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT seq, time, kind, actor, subject, detail FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", []any{sent, drainLimit}, func(scan func(...any) error) error {
			e, err := scanEvent(scan)
			e.Seq -= base
			events = append(events, e)
			return err
		})
	})
	return events, err
}

func (s *Store) setSent(ctx context.Context, sent int64) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("UPDATE meta SET sent = ? WHERE id = 1 AND sent < ?", sent, sent)
		return err
	})
	if err != nil {
		return err
	}
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	s.outbox.sent = max(s.outbox.sent, sent)
	return nil
}
