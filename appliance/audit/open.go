package audit

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"chancery/appliance/database"
)

// Open opens the log for writing, replays every entry through replay (which may
// be nil), recomputes the tree, and compares it with the stored hashes and
// checkpoints. keyOf is asked for the checkpoint key after the replay; it may
// return nil when there is none yet. A mismatch is [ErrTampered].
//
// What a crash left is taken up: entries that were durable are there, one commit
// that was under way may be.
func Open(path string, replay func(index int64, leaf []byte) error, keyOf func() note.Verifier) (*Log, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	l, err := openLocked(path, lock, replay, keyOf)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	go l.run()
	return l, nil
}

func openLocked(path string, lock *os.File, replay func(index int64, leaf []byte) error, keyOf func() note.Verifier) (*Log, error) {
	if err := checkWAL(path + "-wal"); err != nil {
		return nil, err
	}
	db, err := database.Open(path, schema)
	if err != nil {
		return nil, err
	}
	l := &Log{db: db, lock: lock, requests: make(chan *request, 1024), stop: make(chan struct{}), done: make(chan struct{})}
	ctx := context.Background()
	err = db.Read(ctx, func(r *database.Reader) error { return l.load(r, replay, keyOf) })
	if err == nil {
		// What a crash left in the write-ahead log goes first: torn frames must not
		// stand behind new ones, where they would look like tampering.
		err = db.Flush(ctx)
	}
	if err == nil {
		err = l.stamp(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
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

// checkWAL refuses a write-ahead log of which SQLite would silently drop commits
// that were durable once.
func checkWAL(path string) error {
	wal, err := mapFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unmap(wal)
	if changed, _ := walkWAL(wal); changed != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrTampered, changed)
	}
	return nil
}

// load reads the whole log.
func (l *Log) load(r *database.Reader, replay func(int64, []byte) error, keyOf func() note.Verifier) error {
	rows := func(query string, each func(scan func(...any) error) error) error { return r.Rows(query, nil, each) }
	if err := sameSchema(rows); err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	notes := map[int64][]byte{}
	if err := rows("SELECT size, note FROM checkpoints ORDER BY slot", func(scan func(...any) error) error {
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
	roots := map[int64]tlog.Hash{}
	if err := l.loadEntries(rows, replay, func() {
		if notes[l.tree.size] != nil {
			roots[l.tree.size] = l.tree.root()
		}
	}); err != nil {
		return err
	}
	if err := l.loadOrigin(r); err != nil {
		return err
	}
	return checkRoots(notes, roots, keyOf)
}

// batchBytes is about how much of the log is in one batch between the goroutine
// that reads and the one that replays; at most six batches are in memory.
const batchBytes = 64 << 10

// loadEntries reads and hashes the entries while another goroutine replays those
// before. grown is called after each was added to the tree.
func (l *Log) loadEntries(rows queryRows, replay func(int64, []byte) error, grown func()) error {
	if replay == nil {
		replay = func(int64, []byte) error { return nil }
	}
	batches, done := make(chan [][]byte, 4), make(chan error)
	go func() { done <- replayAll(batches, replay) }()
	var batch [][]byte
	size := 0
	err := rows("SELECT id, leaf, hash FROM entries ORDER BY id", func(scan func(...any) error) error {
		var id int64
		var leaf []byte
		var stored sql.RawBytes
		if err := scan(&id, &leaf, &stored); err != nil {
			return err
		}
		hash := tlog.RecordHash(leaf)
		if id != l.tree.size+1 || !bytes.Equal(hash[:], stored) {
			return fmt.Errorf("%w: entry %d", ErrTampered, l.tree.size)
		}
		l.tree.add(hash)
		grown()
		if batch, size = append(batch, leaf), size+len(leaf); size >= batchBytes {
			batches <- batch
			batch, size = nil, 0
		}
		return nil
	})
	batches <- batch
	close(batches)
	return errors.Join(<-done, err)
}

// replayAll takes all batches, also those after a failure.
func replayAll(batches <-chan [][]byte, replay func(int64, []byte) error) (failed error) {
	var index int64
	for batch := range batches {
		for _, leaf := range batch {
			if failed == nil {
				if err := replay(index, leaf); err != nil {
					failed = fmt.Errorf("entry %d: %w", index, err)
				}
			}
			index++
		}
	}
	return failed
}

// loadOrigin reads the log's name and holds it against the first entry's.
func (l *Log) loadOrigin(r *database.Reader) error {
	var leaf []byte
	ok, err := r.Row("SELECT m.origin, e.leaf FROM meta AS m JOIN entries AS e ON e.id = 1", nil, []any{&l.origin, &leaf})
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: the meta row or the first entry is missing", ErrTampered)
	}
	if err := checkFirst(leaf, l.origin); err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	return nil
}

// checkFirst demands that the first entry names the log.
func checkFirst(leaf []byte, origin string) error {
	e, err := ParseEntry(leaf)
	if err != nil {
		return fmt.Errorf("entry 0: %w", err)
	}
	if e.Kind != KindLogCreated || e.Subject != origin {
		return fmt.Errorf("entry 0 does not make the log of %q", origin)
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

// stamp writes the first page anew when it was written by another version of
// SQLite, or the file is a restored copy, so that the header's fields are as the
// verifier expects them: a fixed schema cookie, and the version that meta repeats.
func (l *Log) stamp(ctx context.Context) error {
	return l.db.Write(ctx, func(tx *database.Tx) error {
		var cookie, had int64
		var version string
		if _, err := tx.Row("SELECT schema_version, writer, sqlite_version() FROM pragma_schema_version, meta", nil, []any{&cookie, &had, &version}); err != nil {
			return err
		}
		number, err := versionNumber(version)
		if err != nil || cookie == liveCookie && had == number {
			return err
		}
		if _, err := tx.Exec("UPDATE meta SET writer = ?", number); err != nil {
			return err
		}
		_, err = tx.Exec(fmt.Sprintf("PRAGMA schema_version = %d", liveCookie))
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
