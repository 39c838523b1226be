package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"chancery/appliance/database"
)

// sweepLimit is how many rows one transaction of the sweeper changes.
const sweepLimit = 200

// Sweep ends what is due and shreds its claims, deletes records past their
// retention and epochs that nobody needs, and moves what was deleted out of the
// write-ahead log.
func (s *Store) Sweep(ctx context.Context) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := s.retain(ctx); err != nil {
		return err
	}
	if err := s.retireEpochs(ctx); err != nil {
		return err
	}
	return s.db.Flush(ctx)
}

// settle writes down what time and fetches have changed.
func (s *Store) settle(ctx context.Context) error {
	s.flushFetched(ctx)
	ended := 0
	for {
		n, some, err := s.expire(ctx)
		if err != nil {
			return err
		}
		ended += some
		if n < sweepLimit {
			break
		}
	}
	if ended > 0 {
		s.outbox.wake()
		s.log.Info("offers expired", "count", ended)
	}
	return nil
}

// retainWindow is how many offers are looked at together for their retention.
const retainWindow = 5000

// retain deletes finished offers and sent events past their retention. Both
// tables grow in time's order, so only their oldest rows are looked at, up to the
// first offers that have finished too lately; the newest event stays, because the
// next one's number follows it.
func (s *Store) retain(ctx context.Context) error {
	cutoff := millis(s.now().Add(-s.options.Retention))
	for from := int64(0); ; {
		var n int64
		err := s.db.Write(ctx, func(tx *database.Tx) (err error) {
			if n, err = tx.Exec(`DELETE FROM offers WHERE id IN (SELECT id FROM (SELECT id, finished_at, epoch FROM offers WHERE id > ? ORDER BY id LIMIT ?)
				WHERE finished_at > 0 AND finished_at < ? AND epoch IS NULL LIMIT ?)`, from, retainWindow, cutoff, sweepLimit); err != nil {
				return err
			}
			if _, err = tx.Exec("DELETE FROM keys WHERE block < (SELECT min(id) / 64 FROM offers)"); err != nil {
				return err
			}
			m, err := tx.Exec(`DELETE FROM outbox WHERE seq IN (SELECT seq FROM (SELECT seq, time FROM outbox ORDER BY seq LIMIT ?)
				WHERE time < ? AND seq <= (SELECT sent FROM meta) AND seq < (SELECT max(seq) FROM outbox))`, sweepLimit, cutoff)
			n = max(n, m)
			return err
		})
		if err != nil {
			return err
		}
		if n == sweepLimit {
			continue
		}
		// Offers with a long life, for a refresh token, must not hide those behind them.
		var rows, young int64
		if err := s.db.Read(ctx, func(r *database.Reader) error {
			_, err := r.Row(`SELECT coalesce(max(id), 0), count(*), count(*) FILTER (WHERE finished_at >= ? AND epoch IS NULL) FROM
				(SELECT id, finished_at, epoch FROM offers WHERE id > ? ORDER BY id LIMIT ?)`, []any{cutoff, from, retainWindow}, []any{&from, &rows, &young})
			return err
		}); err != nil || rows < retainWindow || young > 0 {
			return err
		}
	}
}

// startOver gives a restored database a new source, whose first event is the
// first that was recorded since the file was opened; see [Store.join].
func (s *Store) startOver(ctx context.Context) error {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	source, base, now := hex.EncodeToString(id[:]), s.outbox.opened, s.now()
	cancelled := 0
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		cancelled = 0
		rows, err := dueRows(tx, "epoch IS NOT NULL AND id <= ?", s.inherited)
		if err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE meta SET source = ?, source_base = ?, sent = ? WHERE id = 1", source, base, base); err != nil {
			return err
		}
		for _, d := range rows {
			ended, err := end(tx, d.id, Cancelled, now, false, unfinished)
			if err == nil && !ended { // an issued one, whose retries end
				_, err = end(tx, d.id, unchanged, now, false, "epoch IS NOT NULL")
			}
			if err != nil {
				return err
			}
			if !ended {
				continue
			}
			cancelled++
			if err := s.record(tx, Event{Time: now, Kind: "offer.cancelled", Actor: "appliance", Subject: formatUUID(d.uuid), Detail: map[string]string{"reason": "restored"}}); err != nil {
				return err
			}
		}
		return s.record(tx, Event{Time: now, Kind: "database.restored", Actor: "appliance", Detail: map[string]string{"cancelled": fmt.Sprint(cancelled)}})
	})
	if err != nil {
		return err
	}
	s.outbox.mu.Lock()
	s.outbox.source, s.outbox.base, s.outbox.sent = source, base, base
	s.outbox.mu.Unlock()
	s.log.Warn("chancery.db is an older copy: open offers were cancelled, and operators that were revoked since the copy was made are valid again: revoke them anew", "cancelled", cancelled)
	return nil
}

// Back-off of a drain that failed. The first tries follow each other closely: at
// a start wallets wait for them.
const (
	firstDrain = 20 * time.Millisecond
	lastDrain  = time.Second
)

// Run does the store's own work until ctx ends: it keeps data keys open and
// fresh, sweeps, and drains the outbox.
func (s *Store) Run(ctx context.Context, send Sender) {
	sweep := time.NewTicker(20 * time.Second)
	defer sweep.Stop()
	rotate := time.NewTicker(5 * time.Second)
	defer rotate.Stop()
	flush := time.NewTicker(500 * time.Millisecond)
	defer flush.Stop()
	// A short pause after each drain gathers events into one message.
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	draining, again := true, firstDrain
	drain := func() {
		err := s.Drain(ctx, send)
		if draining = err != nil; !draining {
			again = firstDrain
			return
		}
		if again == firstDrain { // once for each outage
			s.tell(ctx, "outbox", err)
		}
		pause.Reset(again)
		again = min(2*again, lastDrain)
	}
	drain() // first: until the audit log was asked, nothing is redeemed
	s.tell(ctx, "data keys", s.Rotate(ctx))
	s.tell(ctx, "sweep", s.Sweep(ctx))
	for {
		var signal chan struct{}
		if !draining {
			signal = s.outbox.signal
		}
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			s.tell(ctx, "sweep", s.Sweep(ctx))
			s.outbox.wake() // for events that another process recorded
		case <-rotate.C:
			s.tell(ctx, "data keys", s.Rotate(ctx))
		case <-flush.C:
			s.flushFetched(ctx)
		case <-signal:
			draining = true
			pause.Reset(100 * time.Millisecond)
		case <-pause.C:
			drain()
		}
	}
}

func (s *Store) tell(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		s.log.Warn("will be tried again", "what", what, "error", err)
	}
}

// Backlog returns how many events the audit log does not have yet.
func (s *Store) Backlog(ctx context.Context) (n int64, err error) {
	_, _, sent := s.outbox.position()
	err = s.db.Read(ctx, func(r *database.Reader) error {
		_, err := r.Row("SELECT coalesce(max(seq), 0) - ? FROM outbox", []any{sent}, []any{&n})
		return err
	})
	return max(n, 0), err
}
