package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPragmas asks each connection what it is set to.
func TestPragmas(t *testing.T) {
	db := open(t)
	common := map[string]string{"foreign_keys": "1", "trusted_schema": "0", "secure_delete": "1", "cell_size_check": "1",
		"journal_mode": "wal", "busy_timeout": "10000", "temp_store": "2"}
	ask := func(where string, row func(query string, into []any) (bool, error), extra map[string]string) {
		for _, set := range []map[string]string{common, extra} {
			for name, want := range set {
				var is string
				if _, err := row("PRAGMA "+name, []any{&is}); err != nil || is != want {
					t.Errorf("%s: %s is %q (%v), want %q", where, name, is, err, want)
				}
			}
		}
	}
	if err := db.Write(context.Background(), func(tx *Tx) error {
		ask("writer", func(q string, into []any) (bool, error) { return tx.Row(q, nil, into) },
			map[string]string{"synchronous": "2", "wal_autocheckpoint": "4000", "cache_spill": "0", "query_only": "0"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Read(context.Background(), func(r *Reader) error {
		ask("reader", func(q string, into []any) (bool, error) { return r.Row(q, nil, into) }, map[string]string{"query_only": "1"})
		_, err := r.Row("DELETE FROM things RETURNING id", nil, []any{new(int)})
		if err == nil {
			t.Error("a reader can write")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestOddPaths makes databases in files whose names mean something in a URL.
func TestOddPaths(t *testing.T) {
	for _, name := range []string{"a b.db", "a?mode=memory.db", "a#b.db", "a%20b.db", "ä.db", "a&b+c.db"} {
		path := filepath.Join(t.TempDir(), name)
		if err := Create(path, testSchema); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		db, err := Open(path, testSchema)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := db.Write(context.Background(), insert("a")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := errors.Join(db.Flush(context.Background()), db.Backup(context.Background(), path+".copy"), db.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, file := range []string{path, path + ".copy"} {
			if data, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(data, []byte("SQLite format 3\x00")) {
				t.Errorf("%s holds no database: %v", file, err)
			}
		}
	}
}

// TestDamage opens files that are no database, or no whole one.
func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "good.db")
	if err := Create(path, testSchema); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, testSchema)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if err := db.Write(context.Background(), insert(fmt.Sprintf("%0100d", i))); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"text":      []byte(strings.Repeat("this is no database\n", 300)),
		"cut":       good[:len(good)/2],
		"empty":     {},
		"b-tree":    overwrite(good, 4096, bytes.Repeat([]byte{0xff}, 64)),
		"no schema": overwrite(good, 100, make([]byte, 3000)),
	} {
		bad := filepath.Join(t.TempDir(), "bad.db")
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(bad, testSchema)
		if err == nil {
			db.Close()
			t.Errorf("%s: opened", name)
		} else if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func overwrite(data []byte, at int, with []byte) []byte {
	changed := bytes.Clone(data)
	copy(changed[at:], with)
	return changed
}

// TestAFailingMigrationChangesNothing tries a migration with a fault in its
// second statement; the file stays as it was and opens with the old schema.
func TestAFailingMigrationChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	if err := Create(path, testSchema); err != nil {
		t.Fatal(err)
	}
	broken := Schema{testSchema.ApplicationID, []string{testSchema.Migrations[0], "CREATE TABLE more (id INTEGER PRIMARY KEY) STRICT; CREATE TABLE things (id INTEGER) STRICT"}}
	if _, err := Open(path, broken); err == nil {
		t.Fatal("a broken migration went through")
	}
	db, err := Open(path, testSchema)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.Read(context.Background(), func(r *Reader) error {
		_, err := r.Row("SELECT count(*) FROM sqlite_schema WHERE name = 'more'", nil, []any{&n})
		return err
	}); err != nil || n != 0 {
		t.Errorf("half a migration is there: %d, %v", n, err)
	}
	elsewhere := filepath.Join(t.TempDir(), "new.db")
	if err := Create(elsewhere, broken); err == nil {
		t.Error("a file with a broken migration was made")
	}
	if left, _ := filepath.Glob(elsewhere + "*"); len(left) != 0 {
		t.Errorf("a failed creation leaves %v", left)
	}
}

// TestFullDisk fills the disk under the database: writes fail, rows that were
// acknowledged stay, and when there is room again writes work again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small file system cannot be mounted here (%v): run as root", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	path, ballast := filepath.Join(dir, "test.db"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, testSchema); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, testSchema)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	acknowledged := 0
	for i := 0; ; i++ {
		if err := db.Write(context.Background(), insert(fmt.Sprintf("%0400d", i))); err != nil {
			t.Logf("after %d rows: %v", acknowledged, err)
			break
		}
		acknowledged++
	}
	if n := count(t, db); n != acknowledged {
		t.Errorf("%d rows, %d acknowledged", n, acknowledged)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(context.Background(), insert("later")); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if n := count(t, db); n != acknowledged+1 {
		t.Errorf("%d rows, %d acknowledged", n, acknowledged+1)
	}
}

// TestUnwritableFile opens a database that this user may read only. Root may
// write everything, so the test runs itself again as another user.
func TestUnwritableFile(t *testing.T) {
	if path := os.Getenv("DATABASE_TEST_UNWRITABLE"); path != "" {
		_, err := Open(path, testSchema)
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("opened for writing: %v", err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run as a user who may not write")
	}
	dir, err := os.MkdirTemp("/tmp", "database-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, binary := filepath.Join(dir, "test.db"), filepath.Join(dir, "database.test")
	if err := Create(path, testSchema); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(binary, self, 0o755), os.Chmod(dir, 0o755), os.Chmod(path, 0o444)); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(binary, "-test.run", "^TestUnwritableFile$")
	command.Dir = dir
	command.Env = append(os.Environ(), "DATABASE_TEST_UNWRITABLE="+path)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
