package database

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

var testSchema = Schema{ApplicationID: 0x43485354, Migrations: []string{
	"CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
}}

func open(t testing.TB) *DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	if err := Create(path, testSchema); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, testSchema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func count(t testing.TB, db *DB) (n int) {
	t.Helper()
	if err := db.Read(context.Background(), func(r *Reader) error {
		_, err := r.Row("SELECT count(*) FROM things", nil, []any{&n})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAFailureUndoesItselfAlone runs 200 writes at once, half of which fail
// after having written; exactly the other half's rows stay.
func TestAFailureUndoesItselfAlone(t *testing.T) {
	db := open(t)
	refused := errors.New("refused")
	var wait sync.WaitGroup
	for i := range 200 {
		wait.Go(func() {
			err := db.Write(context.Background(), func(tx *Tx) error {
				if _, err := tx.Insert("INSERT INTO things (name) VALUES (?)", fmt.Sprint(i)); err != nil {
					return err
				}
				if i%2 == 1 {
					return refused
				}
				return nil
			})
			if (i%2 == 1) != errors.Is(err, refused) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	if n := count(t, db); n != 100 {
		t.Errorf("%d rows, want 100", n)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	if _, err := Open(path, testSchema); !errors.Is(err, ErrMissing) {
		t.Errorf("missing file: %v", err)
	}
	if err := Create(path, testSchema); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, testSchema); !errors.Is(err, ErrExists) {
		t.Errorf("second creation: %v", err)
	}
	if _, err := Open(path, Schema{ApplicationID: 1, Migrations: testSchema.Migrations}); !errors.Is(err, ErrForeign) {
		t.Errorf("another application's file: %v", err)
	}
	newer := Schema{testSchema.ApplicationID, append([]string{}, append(testSchema.Migrations, "CREATE TABLE more (id INTEGER PRIMARY KEY) STRICT")...)}
	db, err := Open(path, newer)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(path, testSchema); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer schema: %v", err)
	}
}

func TestBackupAndClose(t *testing.T) {
	db := open(t)
	ctx := context.Background()
	if err := db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Insert("INSERT INTO things (name) VALUES ('a')")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := db.Backup(ctx, copied); err != nil {
		t.Fatal(err)
	}
	if err := db.Backup(ctx, copied); !errors.Is(err, ErrExists) {
		t.Errorf("backup over a file: %v", err)
	}
	second, err := Open(copied, testSchema)
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, second); n != 1 {
		t.Errorf("the copy has %d rows", n)
	}
	second.Close()
	if err := second.Write(ctx, func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db := open(b)
			work := make(chan int)
			var wait sync.WaitGroup
			for range callers {
				wait.Go(func() {
					for i := range work {
						if err := db.Write(context.Background(), func(tx *Tx) error {
							_, err := tx.Insert("INSERT INTO things (id, name) VALUES (?, ?)", i+1, fmt.Sprint(i))
							return err
						}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for i := range b.N {
				work <- i
			}
			close(work)
			wait.Wait()
		})
	}
}
