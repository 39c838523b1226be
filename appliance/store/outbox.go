package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"chancery/appliance/database"
	"chancery/appliance/signer/wire"
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

	signal chan struct{}
	opened int64       // the newest event's number when the file was opened
	joined atomic.Bool // the log was asked; see Store.join
}

func (o *outbox) load(r *database.Reader) error {
	o.signal = make(chan struct{}, 1)
	found, err := r.Row("SELECT source, source_base, sent, (SELECT coalesce(max(seq), 0) FROM outbox) FROM meta WHERE id = 1", nil,
		[]any{&o.source, &o.base, &o.sent, &o.opened})
	switch {
	case err != nil:
		return err
	case !found:
		return errors.New("the database has no identity: it was not made by init")
	case o.sent > o.opened:
		return fmt.Errorf("event %d was sent, but holds only %d events: restore the file from a backup", o.sent, o.opened)
	case o.base > o.sent:
		return fmt.Errorf("event %d is before the outbox begins, at %d: restore the file from a backup", o.sent, o.base)
	}
	return nil
}

// position returns the source, the outbox number before its first event, and
// that of the last event which the log has.
func (o *outbox) position() (source string, base, sent int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.source, o.base, o.sent
}

// wake tells the drainer that there may be something.
func (o *outbox) wake() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// record writes an event within the transaction of the change that caused it,
// which fails when the audit log would not take the event.
func (s *Store) record(tx *database.Tx, e Event) error {
	if err := (wire.Event{Time: millis(e.Time), Kind: e.Kind, Actor: e.Actor, Subject: e.Subject, Detail: e.Detail}).Check(); err != nil {
		return fmt.Errorf("event %q: %w", e.Kind, err)
	}
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
// least once; the log drops what it has by source and number. Only one Drain
// runs at a time. The first one also learns whether the database is an older copy
// that was restored; until then [Store.Redeem] and [Store.Grant] fail for the
// offers that were in the file when it was opened.
func (s *Store) Drain(ctx context.Context, send Sender) error {
	if !s.outbox.joined.Load() {
		if err := s.join(ctx, send); err != nil {
			return err
		}
	}
	for {
		source, base, sent := s.outbox.position()
		events, err := s.unsent(ctx, base, sent)
		if err != nil || len(events) == 0 {
			return err
		}
		last, err := send(ctx, source, events)
		if errors.Is(err, ErrOutOfStep) {
			s.outbox.joined.Store(false) // the next try asks it again
		}
		if err != nil {
			return err
		}
		if first, newest := events[0].Seq, events[len(events)-1].Seq; last < uint64(first) || last > uint64(newest) {
			return fmt.Errorf("the audit log has this database's events up to %d, after %d to %d were sent: does a second chanceryd run on a copy of the database?", last, first, newest)
		}
		if err := s.setSent(ctx, base+int64(last)); err != nil {
			return err
		}
	}
}

// join asks the log, once after the database was opened, how far it has the
// events: what it has is the truth, whatever the database believes.
//
// An event is durable in the database before it is sent. So when the log has
// more of this source than the database held when it was opened, the database is
// an older copy that was restored: it goes on under a new source, and what was
// open in the copy is cancelled, as its codes may have been redeemed since. Until
// that is known, no offer that was in the file is redeemed or issued.
//
// When the log has less than it has confirmed, the log is the older copy. It gets
// the events again, as far as the outbox still holds them without a gap.
func (s *Store) join(ctx context.Context, send Sender) error {
	source, base, sent := s.outbox.position()
	last, err := send(ctx, source, nil)
	if err != nil {
		return err
	}
	known := base + int64(min(last, 1<<62))
	switch {
	case known > s.outbox.opened:
		err = s.startOver(ctx)
	case known < sent:
		s.log.Warn("the audit log is an older copy: it gets events again", "has", known-base, "confirmed", sent-base)
		if _, err = s.unsent(ctx, base, known); err == nil {
			err = s.setSent(ctx, known)
		}
	case known > sent: // it stopped between sending and noting so
		err = s.setSent(ctx, known)
	}
	if err == nil {
		s.outbox.joined.Store(true)
	}
	return err
}

// ready refuses what a restored copy must not do with an offer; see join.
func (s *Store) ready(offer int64) error {
	if offer > s.inherited || s.outbox.joined.Load() {
		return nil
	}
	return fmt.Errorf("the audit log was not asked yet whether chancery.db is an older copy: %w", ErrKeyAway)
}

// unsent reads the next events after the outbox number sent.
func (s *Store) unsent(ctx context.Context, base, sent int64) (events []Event, err error) {
	next := sent - base
	err = s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT seq, time, kind, actor, subject, detail FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", []any{sent, drainLimit}, func(scan func(...any) error) error {
			e, err := scanEvent(scan)
			e.Seq -= base
			if next++; err == nil && e.Seq != next {
				err = fmt.Errorf("the outbox lacks event %d, which the audit log does not have", next)
			}
			events = append(events, e)
			return err
		})
	})
	return events, err
}

func (s *Store) setSent(ctx context.Context, sent int64) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("UPDATE meta SET sent = ? WHERE id = 1", sent)
		return err
	})
	if err != nil {
		return err
	}
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	s.outbox.sent = sent
	return nil
}

// Joined tells whether the audit log was asked since the database was opened.
// Until then nothing that was in the file is redeemed or issued.
func (s *Store) Joined() bool { return s.outbox.joined.Load() }
