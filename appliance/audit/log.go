package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"chancery/appliance/database"
)

// schema is signer.db. meta repeats what the file's header says, so that the
// offline verifier can tell when the header was changed.
var schema = database.Schema{ApplicationID: 0x43484c47, Migrations: []string{`
CREATE TABLE entries (
	id   INTEGER PRIMARY KEY, -- the entry's index in the tree plus one
	leaf BLOB NOT NULL,       -- one line of JSON
	hash BLOB NOT NULL        -- RFC 6962 leaf hash
) STRICT;
CREATE TABLE checkpoints (
	size INTEGER PRIMARY KEY, -- how many entries it covers
	note BLOB NOT NULL        -- C2SP signed note
) STRICT;
CREATE TABLE meta (
	id     INTEGER PRIMARY KEY CHECK (id = 1),
	origin TEXT NOT NULL,
	cookie INTEGER NOT NULL,  -- the header's schema cookie
	writer INTEGER NOT NULL   -- the SQLite version that wrote the file
) STRICT;
`}}

// Errors that callers tell apart.
var (
	// ErrTampered says that the file does not hold what was once appended.
	ErrTampered = errors.New("the audit log does not match itself: it was changed or damaged")
	// ErrFailed says that an append failed and nothing more is appended: the
	// state on disk is known again only after a restart.
	ErrFailed = errors.New("the audit log failed and takes no more entries: restart the signer")
	// ErrLocked says that another process has the log open.
	ErrLocked = errors.New("another process has the audit log open")
)

// batchLimit bounds the leaves of one commit.
const batchLimit = 512

// Log is the open log. It is safe for concurrent use. The appender goroutine
// owns tree and changes it after a commit alone.
type Log struct {
	db     *database.DB
	lock   *os.File
	origin string

	requests chan *request
	stop     chan struct{}
	done     chan struct{}
	once     sync.Once

	mu      sync.Mutex // guards what follows
	tree    tree
	covered int64 // size under the newest checkpoint
	newest  []byte
	failed  error
}

type request struct {
	leaves [][]byte
	first  int64
	result chan error
}

// Create makes signer.db with its first entry. origin names the log in its
// checkpoints.
func Create(path, origin string, now time.Time) error {
	if err := database.Create(path, schema); err != nil {
		return err
	}
	db, err := database.Open(path, schema)
	if err != nil {
		return err
	}
	leaf, err := Entry{Time: Stamp(now), Kind: KindLogCreated, Actor: "signer", Subject: origin}.Marshal()
	if err == nil {
		err = db.Write(context.Background(), func(tx *database.Tx) error {
			hash := tlog.RecordHash(leaf)
			if _, err := tx.Insert("INSERT INTO entries (id, leaf, hash) VALUES (1, ?, ?)", leaf, hash[:]); err != nil {
				return err
			}
			_, err := tx.Exec("INSERT INTO meta (id, origin, cookie, writer) VALUES (1, ?, 0, 0)", origin)
			return err
		})
	}
	return errors.Join(err, db.Close())
}

// Open opens the log for writing, replays every entry through replay (which may
// be nil), recomputes the tree, and compares it with the stored hashes and
// checkpoints. keyOf is asked for the checkpoint key after the replay; it may
// return nil when there is none yet. A mismatch is [ErrTampered].
func Open(path string, replay func(index int64, leaf []byte) error, keyOf func() note.Verifier) (*Log, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	db, err := database.Open(path, schema)
	if err != nil {
		lock.Close()
		return nil, err
	}
	l := &Log{db: db, lock: lock, requests: make(chan *request, 1024), stop: make(chan struct{}), done: make(chan struct{})}
	if err := l.load(replay, keyOf); err != nil {
		db.Close()
		lock.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	go l.run()
	return l, nil
}

// lockFile takes the exclusive lock that makes this process the one writer.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	return f, nil
}

func (l *Log) load(replay func(int64, []byte) error, keyOf func() note.Verifier) error {
	ctx := context.Background()
	roots := map[int64]tlog.Hash{}
	err := l.db.Read(ctx, func(r *database.Reader) error {
		if ok, err := r.Row("SELECT origin FROM meta", nil, []any{&l.origin}); err != nil || !ok {
			return fmt.Errorf("%w: the meta row is missing (%v)", ErrTampered, err)
		}
		notes := map[int64][]byte{}
		if err := r.Rows("SELECT size, note FROM checkpoints ORDER BY size", nil, func(scan func(...any) error) error {
			var size int64
			var data []byte
			if err := scan(&size, &data); err != nil {
				return err
			}
			notes[size], l.covered, l.newest = data, size, data
			return nil
		}); err != nil {
			return err
		}
		if err := r.Rows("SELECT id, leaf, hash FROM entries ORDER BY id", nil, func(scan func(...any) error) error {
			return l.replayRow(scan, replay, notes, roots)
		}); err != nil {
			return err
		}
		if l.tree.size < l.covered {
			return fmt.Errorf("%w: %d entries, but a checkpoint covers %d", ErrTampered, l.tree.size, l.covered)
		}
		return checkRoots(notes, roots, keyOf)
	})
	if err != nil {
		return err
	}
	return l.updateMeta(ctx)
}

// replayRow takes one entry at load.
func (l *Log) replayRow(scan func(...any) error, replay func(int64, []byte) error, notes map[int64][]byte, roots map[int64]tlog.Hash) error {
	var id int64
	var leaf, stored []byte
	if err := scan(&id, &leaf, &stored); err != nil {
		return err
	}
	hash := tlog.RecordHash(leaf)
	if id != l.tree.size+1 || !bytes.Equal(hash[:], stored) {
		return fmt.Errorf("%w: entry %d", ErrTampered, l.tree.size)
	}
	if replay != nil {
		if err := replay(id-1, leaf); err != nil {
			return fmt.Errorf("entry %d: %w", id-1, err)
		}
	}
	l.tree.add(hash)
	if notes[l.tree.size] != nil {
		roots[l.tree.size] = l.tree.root()
	}
	return nil
}

// checkRoots holds every checkpoint against the tree.
func checkRoots(notes map[int64][]byte, roots map[int64]tlog.Hash, keyOf func() note.Verifier) error {
	if len(notes) == 0 {
		return nil
	}
	var key note.Verifier
	if keyOf != nil {
		key = keyOf()
	}
	if key == nil {
		return fmt.Errorf("%w: it has checkpoints, but no entry made a checkpoint key", ErrTampered)
	}
	for size, data := range notes {
		c, err := openStored(data, key)
		if err != nil {
			return fmt.Errorf("%w: checkpoint %d: %w", ErrTampered, size, err)
		}
		if c.Size != size || c.Root != roots[size] {
			return fmt.Errorf("%w: the entries up to %d do not give the checkpoint's root", ErrTampered, size)
		}
	}
	return nil
}

// updateMeta repeats the header's schema cookie and this library's version.
func (l *Log) updateMeta(ctx context.Context) error {
	return l.db.Write(ctx, func(tx *database.Tx) error {
		var cookie, had, hadVersion int64
		var version string
		if _, err := tx.Row("PRAGMA schema_version", nil, []any{&cookie}); err != nil {
			return err
		}
		if _, err := tx.Row("SELECT sqlite_version()", nil, []any{&version}); err != nil {
			return err
		}
		number, err := versionNumber(version)
		if err != nil {
			return err
		}
		if _, err := tx.Row("SELECT cookie, writer FROM meta", nil, []any{&had, &hadVersion}); err != nil {
			return err
		}
		if had == cookie && hadVersion == number {
			return nil
		}
		_, err = tx.Exec("UPDATE meta SET cookie = ?, writer = ?", cookie, number)
		return err
	})
}

// versionNumber turns "3.50.4" into 3050004, as the file's header has it.
func versionNumber(version string) (int64, error) {
	var major, minor, patch int64
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return 0, fmt.Errorf("SQLite's version %q: %w", version, err)
	}
	return major*1_000_000 + minor*1000 + patch, nil
}

// run is the appender: it groups what waits into one commit.
func (l *Log) run() {
	defer close(l.done)
	for {
		var group []*request
		select {
		case r := <-l.requests:
			group = append(group, r)
		case <-l.stop:
			select {
			case r := <-l.requests:
				group = append(group, r)
			default:
				return
			}
		}
		leaves := len(group[0].leaves)
	collect:
		for leaves < batchLimit {
			select {
			case r := <-l.requests:
				group = append(group, r)
				leaves += len(r.leaves)
			default:
				break collect
			}
		}
		err := l.commit(group)
		for _, r := range group {
			r.result <- err
		}
	}
}

// commit writes a group durably. After a failure the state on disk is not
// known, so the log takes nothing more: the next start will look.
func (l *Log) commit(group []*request) error {
	l.mu.Lock()
	grown, failed := l.tree, l.failed
	l.mu.Unlock()
	if failed != nil {
		return failed
	}
	err := l.db.Write(context.Background(), func(tx *database.Tx) error {
		for _, r := range group {
			r.first = grown.size
			for _, leaf := range r.leaves {
				hash := tlog.RecordHash(leaf)
				if _, err := tx.Exec("INSERT INTO entries (id, leaf, hash) VALUES (?, ?, ?)", grown.size+1, leaf, hash[:]); err != nil {
					return err
				}
				grown.add(hash)
			}
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		return l.failed
	}
	l.tree = grown
	return nil
}

// Append adds leaves in order and returns the first one's index once all are
// durable. Concurrent calls share a commit. After any error nothing more can be
// appended ([ErrFailed]); the caller must not do what it wanted to record.
func (l *Log) Append(ctx context.Context, leaves ...[]byte) (first int64, err error) {
	for _, leaf := range leaves {
		if len(leaf) == 0 || len(leaf) > MaxLeaf {
			return 0, fmt.Errorf("an entry of %d bytes: 1 to %d are allowed", len(leaf), MaxLeaf)
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r := &request{leaves: leaves, result: make(chan error, 1)}
	select {
	case <-l.stop:
		return 0, database.ErrClosed
	default:
	}
	select {
	case l.requests <- r:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-l.done:
		return 0, database.ErrClosed
	}
	select {
	case err := <-r.result:
		return r.first, err
	case <-l.done:
		select {
		case err := <-r.result:
			return r.first, err
		default:
			return 0, database.ErrClosed
		}
	}
}

// Size returns the number of durable entries.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree.size
}

// Origin returns the log's name.
func (l *Log) Origin() string { return l.origin }

// Failed returns why the log takes no more entries, or nil.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// LatestCheckpoint returns the newest checkpoint and the number of entries it
// covers; nil when there is none.
func (l *Log) LatestCheckpoint() ([]byte, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest, l.covered
}

// checkpointSpacing is how far apart, in entries, old checkpoints are kept; the
// newest is always kept.
const checkpointSpacing = 4096

// Checkpoint signs the present tree and stores the note. It returns the newest
// note when no entry came since.
func (l *Log) Checkpoint(ctx context.Context, key note.Signer) ([]byte, error) {
	l.mu.Lock()
	now, covered, newest := l.tree, l.covered, l.newest
	l.mu.Unlock()
	if newest != nil && now.size == covered {
		return newest, nil
	}
	if key.Name() != l.origin {
		return nil, fmt.Errorf("the checkpoint key is named %q, the log %q", key.Name(), l.origin)
	}
	signed, err := note.Sign(&note.Note{Text: Checkpoint{l.origin, now.size, now.root()}.text()}, key)
	if err != nil {
		return nil, fmt.Errorf("checkpoint at %s: %w", strconv.FormatInt(now.size, 10), err)
	}
	err = l.db.Write(ctx, func(tx *database.Tx) error {
		if covered/checkpointSpacing == now.size/checkpointSpacing {
			if _, err := tx.Exec("DELETE FROM checkpoints WHERE size = ?", covered); err != nil {
				return err
			}
		}
		_, err := tx.Exec("INSERT INTO checkpoints (size, note) VALUES (?, ?)", now.size, signed)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.covered, l.newest = now.size, signed
	return signed, nil
}

// Flush moves the write-ahead log into signer.db, so that a copy of the one
// file is complete.
func (l *Log) Flush(ctx context.Context) error { return l.db.Flush(ctx) }

// Entries calls each for the entries from index from on, in order.
func (l *Log) Entries(ctx context.Context, from int64, each func(index int64, leaf []byte) error) error {
	return l.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT id, leaf FROM entries WHERE id > ? ORDER BY id", []any{from}, func(scan func(...any) error) error {
			var id int64
			var leaf []byte
			if err := scan(&id, &leaf); err != nil {
				return err
			}
			return each(id-1, leaf)
		})
	})
}

// Close finishes what was queued and closes the file.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.stop) })
	<-l.done
	return errors.Join(l.db.Close(), l.lock.Close())
}
