package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// grouped runs fns in one commit: the writer is held until all are queued.
func grouped(t testing.TB, db *DB, fns ...func(*Tx) error) []error {
	t.Helper()
	held, release := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := db.Write(context.Background(), func(*Tx) error { close(held); <-release; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-held
	jobs := make([]*job, len(fns))
	for i, fn := range fns {
		jobs[i] = &job{ctx: context.Background(), fn: fn, result: make(chan error, 1)}
		db.jobs <- jobs[i]
	}
	close(release)
	errs := make([]error, len(fns))
	for i, j := range jobs {
		errs[i] = <-j.result
	}
	wait.Wait()
	return errs
}

func insert(name string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Insert("INSERT INTO things (name) VALUES (?)", name)
		return err
	}
}

// TestARollbackBySQLiteFailsTheGroup makes SQLite roll the whole transaction
// back in the middle of a group, as it does by itself on a full disk. Whether or
// not the fn that met it says so, nobody of the group is told success, nothing
// of it is in the file, and the next group works.
func TestARollbackBySQLiteFailsTheGroup(t *testing.T) {
	for _, silent := range []bool{false, true} {
		db := open(t)
		if err := db.Write(context.Background(), insert("there")); err != nil {
			t.Fatal(err)
		}
		errs := grouped(t, db, insert("before"), func(tx *Tx) error {
			_, err := tx.Exec("INSERT OR ROLLBACK INTO things (name) VALUES ('there')")
			if err == nil {
				t.Error("the statement did not fail")
			}
			if silent {
				return nil
			}
			return err
		}, insert("after"), func(tx *Tx) error { return nil })
		for i, err := range errs {
			if err == nil {
				t.Errorf("silent=%t: write %d of the group was told success", silent, i)
			}
		}
		if n := count(t, db); n != 1 {
			t.Errorf("silent=%t: %d rows, want 1", silent, n)
		}
		if err := db.Write(context.Background(), insert("later")); err != nil || count(t, db) != 2 {
			t.Errorf("silent=%t: the next write: %v", silent, err)
		}
	}
}

// TestAFailingReadDoesNotUndo holds that a fn that only reads and fails leaves
// its neighbours' writes alone.
func TestAFailingReadDoesNotUndo(t *testing.T) {
	db := open(t)
	refused := errors.New("refused")
	errs := grouped(t, db, insert("a"), func(tx *Tx) error {
		if err := tx.Rows("SELECT id FROM things", nil, func(func(...any) error) error { return nil }); err != nil {
			return err
		}
		return refused
	}, func(tx *Tx) error {
		_, err := tx.Exec("SELECT nonsense FROM nowhere")
		return err
	}, insert("b"))
	if errs[0] != nil || !errors.Is(errs[1], refused) || errs[2] == nil || errs[3] != nil {
		t.Errorf("%v", errs)
	}
	if n := count(t, db); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// TestRowReturning holds that the conditional change and its row count, which
// decide races, work: of 64 callers that redeem one thing, one wins.
func TestRowReturning(t *testing.T) {
	db := open(t)
	if err := db.Write(context.Background(), insert("code")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	winners := 0
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			err := db.Write(context.Background(), func(tx *Tx) error {
				var id int64
				won, err := tx.Row("UPDATE things SET name = 'spent' WHERE name = 'code' RETURNING id", nil, []any{&id})
				mu.Lock()
				defer mu.Unlock()
				if won {
					winners++
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if winners != 1 {
		t.Errorf("%d callers won", winners)
	}
}

// TestGroupsAgainstAModel draws writes that insert, delete, fail or fail to run,
// in groups of any size, and compares the file with a map; then it closes, opens
// and compares again.
func TestGroupsAgainstAModel(t *testing.T) {
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		path := filepath.Join(dir, fmt.Sprintf("%d.db", round))
		if err := Create(path, testSchema); err != nil {
			rt.Fatal(err)
		}
		db, err := Open(path, testSchema)
		if err != nil {
			rt.Fatal(err)
		}
		model := map[string]bool{}
		refused := errors.New("refused")
		for range rapid.IntRange(1, 5).Draw(rt, "groups") {
			var fns []func(*Tx) error
			var want []bool
			for range rapid.IntRange(1, 70).Draw(rt, "writes") {
				name := fmt.Sprint(rapid.IntRange(0, 9).Draw(rt, "name"))
				switch rapid.IntRange(0, 2).Draw(rt, "what") {
				case 0:
					fns, want = append(fns, insert(name)), append(want, !model[name])
					model[name] = true
				case 1:
					fns = append(fns, func(tx *Tx) error {
						_, err := tx.Exec("DELETE FROM things WHERE name = ?", name)
						return err
					})
					want = append(want, true)
					delete(model, name)
				case 2:
					fns = append(fns, func(tx *Tx) error {
						if _, err := tx.Exec("DELETE FROM things"); err != nil {
							return err
						}
						return refused
					})
					want = append(want, false)
				}
			}
			for i, err := range grouped(t, db, fns...) {
				if (err == nil) != want[i] {
					rt.Fatalf("write %d: %v, want success: %t", i, err, want[i])
				}
			}
		}
		for range 2 {
			if n := count(t, db); n != len(model) {
				rt.Fatalf("%d rows, the model has %d", n, len(model))
			}
			if err := db.Close(); err != nil {
				rt.Fatal(err)
			}
			if db, err = Open(path, testSchema); err != nil {
				rt.Fatal(err)
			}
		}
		db.Close()
		os.Remove(path)
	})
}

// TestCancelledWrites holds that a write whose caller has left before its turn
// is not made, and that one which was begun is.
func TestCancelledWrites(t *testing.T) {
	db := open(t)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := db.Write(gone, insert("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that had left: %v", err)
	}
	leaving, cancel := context.WithCancel(context.Background())
	if err := db.Write(leaving, func(tx *Tx) error {
		cancel()
		return insert("b")(tx)
	}); err != nil {
		t.Errorf("a caller that leaves while it is written: %v", err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// TestCloseUnderLoad closes while 32 callers write; whoever was told success
// finds the row after the next open, and nobody hangs.
func TestCloseUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	if err := Create(path, testSchema); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, testSchema)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	written := map[string]bool{}
	enough := make(chan struct{})
	var wait sync.WaitGroup
	for c := range 32 {
		wait.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d", c, i)
				if err := db.Write(context.Background(), insert(name)); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				if written[name] = true; len(written) == 500 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wait.Wait()
	if _, err := os.Stat(path + "-wal"); !os.IsNotExist(err) {
		t.Errorf("the write-ahead log is still there: %v", err)
	}
	if db, err = Open(path, testSchema); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if n := count(t, db); n != len(written) {
		t.Errorf("%d rows, %d were acknowledged", n, len(written))
	}
}

// TestDeletedContentIsGone deletes a row, flushes, and looks for its bytes in
// the files: they must not be there (secure_delete, and the log emptied).
func TestDeletedContentIsGone(t *testing.T) {
	db := open(t)
	secret := bytes.Repeat([]byte("sesame-"), 3000)
	ctx := context.Background()
	if err := db.Write(ctx, insert(string(secret))); err != nil {
		t.Fatal(err)
	}
	found := func() (n int) {
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(db.Path() + suffix)
			if err != nil {
				t.Fatal(err)
			}
			n += bytes.Count(data, []byte("sesame-"))
		}
		return n
	}
	if found() == 0 {
		t.Fatal("the test does not see the content before it is deleted")
	}
	if err := db.Write(ctx, func(tx *Tx) error { _, err := tx.Exec("DELETE FROM things"); return err }); err != nil {
		t.Fatal(err)
	}
	if err := db.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n := found(); n != 0 {
		t.Errorf("the deleted content is found %d times", n)
	}
}

// TestNothingUncommittedIsInTheFile undoes a write that is larger than SQLite's
// cache: neither the file nor the write-ahead log holds anything of it.
func TestNothingUncommittedIsInTheFile(t *testing.T) {
	db := open(t)
	before, err := os.ReadFile(db.path + "-wal")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if err := db.Write(context.Background(), func(tx *Tx) error {
		for i := range 3000 { // twelve megabytes; the cache has two
			if _, err := tx.Insert("INSERT INTO things (name) VALUES (?)", fmt.Sprintf("%04000d", i)); err != nil {
				return err
			}
		}
		return refused
	}); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(db.path + "-wal"); err != nil || len(after) > len(before) {
		t.Errorf("the write-ahead log grew from %d to %d bytes (%v)", len(before), len(after), err)
	}
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
}
