package store

import (
	"context"
	"time"

	"chancery/appliance/database"
)

// NotificationGrace is how long after its end an access token still serves the
// notification endpoint, and nothing else.
const NotificationGrace = 24 * time.Hour

// unfinished are the offers that can be cancelled.
const unfinished = "state IN (0, 1, 2) OR refresh_hash IS NOT NULL"

// unchanged is for offers that end in the state they are in.
const unchanged State = -1

// end makes an offer final, if the condition holds, and shreds its claims: its
// key is overwritten, the sealed claims, the transaction code's MAC and the hashes
// of the holder's keys are deleted. Refresh and transaction_id die with it. The
// access token dies too, or is kept for notifications, until the sweeper forgets it.
// With [unchanged] as state the offer keeps its own.
func end(tx *database.Tx, id int64, state State, now time.Time, keepToken bool, condition string) (bool, error) {
	n, err := tx.Exec(`UPDATE offers SET state = iif(?1 < 0, state, ?1), finished_at = iif(finished_at = 0, ?2, finished_at), pending = 0, epoch = NULL, tx_mac = NULL, refresh_hash = NULL,
			token_hash = iif(?3, token_hash, NULL), jkt = iif(?3, jkt, NULL), client_key = iif(?3, client_key, NULL), client = iif(?3, client, ''), due_at = iif(?3, token_expires + ?4, NULL)
		WHERE id = ?5 AND (`+condition+`)`, int(state), millis(now), keepToken, NotificationGrace.Milliseconds(), id)
	if err != nil || n == 0 {
		return false, err
	}
	if err := forgetHashes(tx, id); err != nil {
		return true, err
	}
	if _, err := tx.Exec("UPDATE deferred SET state = 4, transaction_hash = NULL, "+noHolders+" WHERE offer = ? AND state IN (0, 1)", id); err != nil {
		return true, err
	}
	return true, shred(tx, id)
}

// shred deletes an offer's claims and overwrites its key.
func shred(tx *database.Tx, id int64) error {
	if _, err := tx.Exec("DELETE FROM claims WHERE offer = ?", id); err != nil {
		return err
	}
	return putKey(tx, id, noKey[:])
}

// noHolders takes from a deferred request what tells of the holder's keys.
const noHolders = "holders = NULL, keys_hash = x'', proofs_hash = x''"

// forgetHashes takes away what tells whether a request is a repetition.
func forgetHashes(tx *database.Tx, id int64) error {
	_, err := tx.Exec("UPDATE issues SET keys_hash = NULL, proofs_hash = NULL WHERE offer = ? AND keys_hash IS NOT NULL", id)
	return err
}

// due is an offer that the sweeper has to do with.
type due struct {
	id     int64
	uuid   []byte
	state  State
	signed bool // a credential is recorded
	sealed bool // there are claims
}

// dueRows reads offers with the columns that a due has.
func dueRows(tx *database.Tx, condition string, args ...any) (rows []due, err error) {
	err = tx.Rows("SELECT id, uuid, state, signed > 0, epoch IS NOT NULL FROM offers WHERE due_at IS NOT NULL AND "+condition, args, func(scan func(...any) error) error {
		var d due
		var state int64
		err := scan(&d.id, &d.uuid, &state, &d.signed, &d.sealed)
		d.state = State(state)
		rows = append(rows, d)
		return err
	})
	return rows, err
}

// expire does with up to sweepLimit offers what is due, and returns how many
// there were and how many of them have ended. An offer is due when its code, its
// token or its refresh token has run out: then it ends. An issued one is due when
// retries are over or its refresh token has run out: then its claims are shredded.
// At last, when no notification may come any more, its token is forgotten and
// with it what tells the wallet from others.
func (s *Store) expire(ctx context.Context) (n, ended int, err error) {
	now := s.now()
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		ended = 0
		rows, err := dueRows(tx, "due_at <= ? ORDER BY due_at LIMIT ?", millis(now), sweepLimit)
		if err != nil {
			return err
		}
		n = len(rows)
		for _, d := range rows {
			switch {
			case d.state <= Redeemed:
				ended++
				err = s.expireOne(tx, d, now)
			case d.sealed:
				_, err = end(tx, d.id, unchanged, now, true, "epoch IS NOT NULL")
			default:
				_, err = tx.Exec("UPDATE offers SET due_at = NULL, token_hash = NULL, jkt = NULL, client_key = NULL, client = '' WHERE id = ? AND epoch IS NULL", d.id)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return n, ended, err
}

// expireOne ends an offer that has run out. One with a credential already counts
// as issued, or as accepted when the wallet has said so of each.
func (s *Store) expireOne(tx *database.Tx, d due, now time.Time) error {
	states := []State{Expired}
	if d.signed {
		states = []State{Issued}
		open, _, err := unnotified(tx, d.id)
		if err != nil {
			return err
		}
		if open == 0 {
			states = []State{Issued, Accepted}
		}
	}
	if _, err := end(tx, d.id, states[len(states)-1], now, d.signed, "state IN (0, 1, 2)"); err != nil {
		return err
	}
	for _, state := range states {
		if err := s.record(tx, Event{Time: now, Kind: "offer." + state.String(), Actor: "appliance", Subject: formatUUID(d.uuid)}); err != nil {
			return err
		}
	}
	return nil
}
