// Package database opens SQLite files the one way the appliance uses them:
// write-ahead log, full synchronisation, one writer connection with group
// commit and a few read-only ones, strict tables, embedded forward-only
// migrations. It is the only place with pragmas.
//
// A file is made by [Create] alone. [Open] refuses one that is missing, damaged,
// of another application, or newer than the program (promise P7).
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"modernc.org/sqlite" // also the driver "sqlite"
)

// Schema is what a database file must be.
type Schema struct {
	// ApplicationID is written into the file's header and compared at open.
	ApplicationID int32
	// Migrations are SQL scripts; the file's user_version counts those applied.
	// A script is never changed once released.
	Migrations []string
}

// Errors that callers tell apart.
var (
	ErrMissing  = errors.New("the database does not exist")
	ErrExists   = errors.New("the database exists already")
	ErrForeign  = errors.New("the file is not this program's database")
	ErrNewer    = errors.New("the database was written by a newer version of this program")
	ErrDamaged  = errors.New("the database is damaged")
	ErrReadOnly = errors.New("the database cannot be written")
	ErrClosed   = errors.New("the database is closed")
)

// groupLimit is how many writes share one commit at most.
const groupLimit = 64

// DB is an open database. It is safe for concurrent use.
type DB struct {
	path   string
	writer *sql.DB // one connection, used by the writer goroutine alone
	reader *sql.DB // read-only connections

	jobs   chan *job
	closed chan struct{}
	done   chan struct{}
	once   sync.Once

	mu         sync.Mutex           // guards statements
	statements map[string]*sql.Stmt // prepared on reader
}

// job is one write and where its result goes.
type job struct {
	ctx    context.Context
	fn     func(*Tx) error
	err    error
	result chan error
}

// dsn builds the data source name; every connection gets the same pragmas.
func dsn(path string, readOnly bool) string {
	q := url.Values{}
	for _, pragma := range []string{"busy_timeout(10000)", "foreign_keys(1)", "trusted_schema(0)", "secure_delete(1)", "cell_size_check(1)", "temp_store(2)"} {
		q.Add("_pragma", pragma)
	}
	if readOnly {
		q.Set("mode", "ro")
		q.Add("_pragma", "query_only(1)")
	} else {
		q.Set("mode", "rw")
		q.Add("_pragma", "synchronous(2)")
		q.Add("_pragma", "wal_autocheckpoint(4000)")
		q.Add("_pragma", "cache_spill(0)") // what is not committed is not in the write-ahead log
		q.Set("_txlock", "immediate")
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// Create makes the file with the whole schema. It fails with [ErrExists] when
// the file is there already, and leaves nothing behind when it fails otherwise.
func Create(path string, schema Schema) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	if err != nil {
		return err
	}
	f.Close()
	defer func() {
		if err != nil {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				os.Remove(path + suffix)
			}
		}
	}()
	db, err := sql.Open("sqlite", dsn(path, false))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	for _, statement := range []string{
		"PRAGMA page_size = 4096", "PRAGMA auto_vacuum = 0", "PRAGMA journal_mode = WAL",
		"PRAGMA application_id = " + strconv.Itoa(int(schema.ApplicationID)),
	} {
		if _, err = db.Exec(statement); err != nil {
			db.Close()
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if err = migrate(db, schema); err != nil {
		db.Close()
		return fmt.Errorf("%s: %w", path, err)
	}
	if err = db.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// migrate applies what the file lacks, one transaction a script.
func migrate(db *sql.DB, schema Schema) error {
	var version int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(schema.Migrations) {
		return fmt.Errorf("%w: it has schema %d, this program knows %d: run the newer program", ErrNewer, version, len(schema.Migrations))
	}
	for ; version < len(schema.Migrations); version++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		if _, err := tx.Exec(schema.Migrations[version]); err != nil {
			tx.Rollback()
			return fmt.Errorf("migration %d: %w", version+1, err)
		}
		if _, err := tx.Exec("PRAGMA user_version = " + strconv.Itoa(version+1)); err != nil {
			tx.Rollback()
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// Open opens an existing file, checks it, and applies missing migrations.
func Open(path string, schema Schema) (*DB, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: only init makes it", path, ErrMissing)
	} else if err != nil {
		return nil, err
	}
	writer, err := sql.Open("sqlite", dsn(path, false))
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	if err := check(writer, schema); err != nil {
		writer.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := migrate(writer, schema); err != nil {
		writer.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	reader, err := sql.Open("sqlite", dsn(path, true))
	if err != nil {
		writer.Close()
		return nil, err
	}
	reader.SetMaxOpenConns(4)
	reader.SetMaxIdleConns(4)
	db := &DB{path: path, writer: writer, reader: reader, jobs: make(chan *job, 4*groupLimit),
		closed: make(chan struct{}), done: make(chan struct{}), statements: map[string]*sql.Stmt{}}
	conn, err := writer.Conn(context.Background())
	if err != nil {
		writer.Close()
		reader.Close()
		return nil, err
	}
	go db.write(conn)
	return db, nil
}

// check refuses a file that is not what the schema says or that is damaged.
func check(db *sql.DB, schema Schema) error {
	var id int32
	if err := db.QueryRow("PRAGMA application_id").Scan(&id); err != nil {
		return classify(err)
	}
	if id != schema.ApplicationID {
		return fmt.Errorf("%w: application id %#x, not %#x", ErrForeign, id, schema.ApplicationID)
	}
	var mode string
	if err := db.QueryRow("PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return classify(err)
	}
	if mode != "wal" {
		return fmt.Errorf("%w: the journal mode is %q and cannot be changed to WAL", ErrReadOnly, mode)
	}
	var verdict string
	if err := db.QueryRow("PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return classify(err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s: restore it from a backup", ErrDamaged, verdict)
	}
	return nil
}

// SQLite's primary result codes that say what to do.
const (
	codeReadOnly = 8
	codeCorrupt  = 11
	codeCantOpen = 14
	codeNotADB   = 26
)

// classify tells a file that is damaged from one that only cannot be written:
// the first needs a backup, the second another owner or mode.
func classify(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case codeReadOnly, codeCantOpen:
		return fmt.Errorf("%w: check who owns it and its folder, and their modes: %w", ErrReadOnly, err)
	case codeCorrupt:
		return fmt.Errorf("%w: restore it from a backup: %w", ErrDamaged, err)
	case codeNotADB:
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return err
}

// Path returns the file's path.
func (db *DB) Path() string { return db.path }

// Read calls fn with a reader that must not be kept. Each query sees the last
// commit before it: where two answers must fit each other, ask in one query.
// A query inside another one's loop takes a second of the four connections; at
// worst four such callers wait for each other, so collect first, then ask.
func (db *DB) Read(ctx context.Context, fn func(r *Reader) error) error {
	select {
	case <-db.closed:
		return ErrClosed
	default:
	}
	return fn(&Reader{ctx: ctx, db: db})
}

// Backup writes a compact, consistent copy to path, which must not exist.
func (db *DB) Backup(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	if err != nil {
		return err
	}
	f.Close()
	conn, err := sql.Open("sqlite", dsn(db.path, true))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetMaxOpenConns(1) // the pragma and the copy need the same connection
	if _, err := conn.ExecContext(ctx, "PRAGMA query_only(0)"); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		os.Remove(path)
		return fmt.Errorf("backup to %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Close finishes what was queued, moves the write-ahead log into the file and
// closes it.
func (db *DB) Close() error {
	db.once.Do(func() { close(db.closed) })
	<-db.done
	db.reader.Close()
	return db.writer.Close()
}
