package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Tx is a write in progress. Its statements run on the one writer connection
// and are prepared once for the program's life, so a query is a constant string.
type Tx struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
	dirty      bool // the fn that runs has run a changing statement
}

// Write runs fn in a transaction and returns when its changes are durable.
// Concurrent calls share a commit; a failing fn undoes its own changes alone.
// fn must not call Write and must not keep tx. When Write returns an error of
// the commit itself, none of the group's changes are there; should the machine
// stop before the next commit, they may be found made at the next start.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	j := &job{ctx: ctx, fn: fn, result: make(chan error, 1)}
	select {
	case <-db.closed:
		return ErrClosed
	default:
	}
	select {
	case db.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.closed:
		return ErrClosed
	}
	// Once queued the write happens or fails, whatever the caller's context
	// does: a caller that left would not know which.
	select {
	case err := <-j.result:
		return err
	case <-db.done:
		select {
		case err := <-j.result:
			return err
		default:
			return ErrClosed
		}
	}
}

// write is the writer goroutine: it owns conn and the prepared statements.
func (db *DB) write(conn *sql.Conn) {
	defer close(db.done)
	defer conn.Close()
	tx := &Tx{conn: conn, statements: map[string]*sql.Stmt{}}
	defer func() {
		for _, s := range tx.statements {
			s.Close()
		}
		conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
	}()
	for {
		var group []*job
		select {
		case j := <-db.jobs:
			group = append(group, j)
		case <-db.closed:
			select {
			case j := <-db.jobs:
				group = append(group, j)
			default:
				return
			}
		}
	collect:
		for len(group) < groupLimit {
			select {
			case j := <-db.jobs:
				group = append(group, j)
			default:
				break collect
			}
		}
		tx.commit(group)
	}
}

// commit runs a group in one transaction and tells each caller.
func (tx *Tx) commit(group []*job) {
	err := tx.run(group)
	for _, j := range group {
		if err != nil && j.err == nil {
			j.err = err
		}
		j.result <- j.err
	}
}

func (tx *Tx) run(group []*job) error {
	if err := tx.plain("BEGIN IMMEDIATE"); err != nil {
		tx.plain("ROLLBACK") // should an earlier one have failed half-way
		return fmt.Errorf("begin: %w", err)
	}
	written := false
	for _, j := range group {
		if j.err = j.ctx.Err(); j.err != nil {
			continue
		}
		changed, err := tx.one(j)
		if err != nil {
			tx.plain("ROLLBACK") // nothing to undo when SQLite did it already
			return err
		}
		written = written || changed
	}
	if !written {
		return tx.plain("ROLLBACK")
	}
	if err := tx.plain("COMMIT"); err != nil {
		// SQLite may have rolled back by itself; if not, this does.
		tx.plain("ROLLBACK")
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// one runs a caller's fn under a savepoint of its own. Some errors (a full disk,
// an I/O error) make SQLite roll the whole transaction back by itself, whatever
// statement met them; the savepoint is then gone, and its release, which fails,
// is what tells. Without it the group's next statement would open and commit a
// transaction of its own.
func (tx *Tx) one(j *job) (changed bool, err error) {
	if err := tx.plain("SAVEPOINT one"); err != nil {
		return false, fmt.Errorf("savepoint: %w", err)
	}
	tx.dirty = false
	j.err = j.fn(tx)
	if j.err != nil && tx.dirty {
		if err := tx.plain("ROLLBACK TO one"); err != nil {
			return false, fmt.Errorf("%w (after: %w)", err, j.err)
		}
	}
	if err := tx.plain("RELEASE one"); err != nil {
		return false, fmt.Errorf("release: %w", errors.Join(err, j.err))
	}
	return tx.dirty && j.err == nil, nil
}

// plain runs a statement without arguments.
func (tx *Tx) plain(query string) error {
	s, err := tx.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(context.Background())
	return err
}

func (tx *Tx) prepare(query string) (*sql.Stmt, error) {
	if s := tx.statements[query]; s != nil {
		return s, nil
	}
	s, err := tx.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	tx.statements[query] = s
	return s, nil
}

// Exec runs a changing statement and returns the number of rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	result, err := tx.exec(query, args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Insert runs an INSERT and returns the new row's id.
func (tx *Tx) Insert(query string, args ...any) (int64, error) {
	result, err := tx.exec(query, args)
	if err != nil {
		return 0, err
	}
	return result.LastInsertId()
}

func (tx *Tx) exec(query string, args []any) (sql.Result, error) {
	tx.dirty = true
	s, err := tx.prepare(query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(context.Background(), args...)
}

// Row runs a query for one row, which may also change rows (… RETURNING), and
// scans it. The result is false when there is none.
func (tx *Tx) Row(query string, args, into []any) (bool, error) {
	tx.dirty = true
	s, err := tx.prepare(query)
	if err != nil {
		return false, err
	}
	return scan(s.QueryRowContext(context.Background(), args...), into)
}

// Rows runs a query that changes nothing and calls each for every row, with a
// function that scans it.
func (tx *Tx) Rows(query string, args []any, each func(scan func(into ...any) error) error) error {
	s, err := tx.prepare(query)
	if err != nil {
		return err
	}
	return eachRow(context.Background(), s, args, each)
}

// Reader runs queries on a read-only connection.
type Reader struct {
	ctx context.Context
	db  *DB
}

func (r *Reader) prepare(query string) (*sql.Stmt, error) {
	r.db.mu.Lock()
	defer r.db.mu.Unlock()
	if s := r.db.statements[query]; s != nil {
		return s, nil
	}
	s, err := r.db.reader.Prepare(query)
	if err != nil {
		return nil, err
	}
	r.db.statements[query] = s
	return s, nil
}

// Row runs a query for one row and scans it; false when there is none.
func (r *Reader) Row(query string, args, into []any) (bool, error) {
	s, err := r.prepare(query)
	if err != nil {
		return false, err
	}
	return scan(s.QueryRowContext(r.ctx, args...), into)
}

// Rows runs a query and calls each for every row.
func (r *Reader) Rows(query string, args []any, each func(scan func(into ...any) error) error) error {
	s, err := r.prepare(query)
	if err != nil {
		return err
	}
	return eachRow(r.ctx, s, args, each)
}

func scan(row *sql.Row, into []any) (bool, error) {
	err := row.Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func eachRow(ctx context.Context, s *sql.Stmt, args []any, each func(scan func(into ...any) error) error) error {
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Flush moves the write-ahead log into the file and empties it, so that a copy
// of the one file is complete. It fails when a reader or a writer holds it up
// for longer than ten seconds.
func (db *DB) Flush(ctx context.Context) error {
	conn, err := sql.Open("sqlite", dsn(db.path, false))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetMaxOpenConns(1)
	var busy, frames, moved int
	if err := conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved); err != nil {
		return fmt.Errorf("%s: the write-ahead log: %w", db.path, err)
	}
	if busy != 0 {
		return fmt.Errorf("%s: the write-ahead log is in use, %d of its %d frames were moved: try again", db.path, moved, frames)
	}
	return nil
}
