package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"chancery/appliance/database"
)

// schema is signer.db. checkpoints keeps one row for each stretch of entries,
// which is overwritten in place: a deletion would leave stale bytes on the page
// that the verifier could account for to nothing.
var schema = database.Schema{ApplicationID: 0x43484c47, Migrations: []string{`
CREATE TABLE entries (
	id   INTEGER PRIMARY KEY, -- the entry's index in the tree plus one
	leaf BLOB NOT NULL,       -- one line of JSON
	hash BLOB NOT NULL        -- RFC 6962 leaf hash
) STRICT;
CREATE TABLE checkpoints (
	slot INTEGER PRIMARY KEY, -- size divided by 4096
	size INTEGER NOT NULL,    -- how many entries it covers
	note BLOB NOT NULL        -- C2SP signed note
) STRICT;
CREATE TABLE meta (
	id     INTEGER PRIMARY KEY CHECK (id = 1),
	origin TEXT NOT NULL,     -- as the first entry has it
	writer INTEGER NOT NULL   -- the SQLite version that wrote the first page
) STRICT;
`}}

// checkpointSpacing is how far apart, in entries, old checkpoints are kept: of
// each stretch of this length the newest, and so always the newest of all.
const checkpointSpacing = 4096

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

	signing sync.Mutex // held while a checkpoint is made
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
// checkpoints. It leaves nothing behind when it fails.
func Create(path, origin string, now time.Time) error {
	if err := checkName(origin); err != nil {
		return err
	}
	leaf, err := Entry{Time: Stamp(now), Kind: KindLogCreated, Actor: "signer", Subject: origin}.Marshal()
	if err != nil {
		return err
	}
	if err := database.Create(path, schema); err != nil {
		return err
	}
	if err := begin(path, origin, leaf); err != nil {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			os.Remove(path + suffix)
		}
		return err
	}
	return nil
}

// begin writes the first entry.
func begin(path, origin string, leaf []byte) error {
	db, err := database.Open(path, schema)
	if err != nil {
		return err
	}
	hash := tlog.RecordHash(leaf)
	err = db.Write(context.Background(), func(tx *database.Tx) error {
		if _, err := tx.Insert("INSERT INTO entries (id, leaf, hash) VALUES (1, ?, ?)", leaf, hash[:]); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO meta (id, origin, writer) VALUES (1, ?, 0)", origin)
		return err
	})
	return errors.Join(err, db.Close())
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
	if err != nil {
		return l.fail(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tree = grown
	return nil
}

// Append adds leaves, as [Entry.Marshal] makes them, in order and returns the
// first one's index once all are durable. Concurrent calls share a commit. On any
// error the caller must not do what it wanted to record; after one that is
// [ErrFailed] nothing more can be appended.
func (l *Log) Append(ctx context.Context, leaves ...[]byte) (first int64, err error) {
	for _, leaf := range leaves {
		if _, err := ParseEntry(leaf); err != nil {
			return 0, fmt.Errorf("not an entry: %w", err)
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

// Checkpoint signs the present tree and stores the note. It returns the newest
// note when no entry came since. After a failure to store it nothing more can be
// appended ([ErrFailed]): the disk is then not to be trusted with entries either.
func (l *Log) Checkpoint(ctx context.Context, key note.Signer) ([]byte, error) {
	l.signing.Lock()
	defer l.signing.Unlock()
	l.mu.Lock()
	now, covered, newest, failed := l.tree, l.covered, l.newest, l.failed
	l.mu.Unlock()
	if failed != nil {
		return nil, failed
	}
	if newest != nil && now.size == covered {
		return newest, nil
	}
	if key.Name() != l.origin {
		return nil, fmt.Errorf("the checkpoint key is named %q, the log %q", key.Name(), l.origin)
	}
	signed, err := note.Sign(&note.Note{Text: Checkpoint{l.origin, now.size, now.root()}.text()}, key)
	if err != nil {
		return nil, fmt.Errorf("checkpoint at %d: %w", now.size, err)
	}
	err = l.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("INSERT INTO checkpoints (slot, size, note) VALUES (?1, ?2, ?3) ON CONFLICT (slot) DO UPDATE SET size = ?2, note = ?3",
			now.size/checkpointSpacing, now.size, signed)
		return err
	})
	if err != nil {
		if errors.Is(err, database.ErrClosed) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil, err // it was not tried
		}
		return nil, l.fail(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.covered, l.newest = now.size, signed
	return signed, nil
}

// fail makes the log take nothing more.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return l.failed
}

// Close finishes what was queued and closes the file.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.stop) })
	<-l.done
	return errors.Join(l.db.Close(), l.lock.Close())
}
