package audit

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"chancery/appliance/database"
)

// copies are ways to copy a log that is in use; each writes to a new file.
var copies = map[string]func(t *testing.T, from, to string){
	"VACUUM INTO": func(t *testing.T, from, to string) {
		db, err := database.Open(from, schema)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Backup(context.Background(), to), db.Close()); err != nil {
			t.Fatal(err)
		}
	},
	"sqlite3 .backup": func(t *testing.T, from, to string) {
		if _, err := exec.LookPath("sqlite3"); err != nil {
			t.Skip("sqlite3 is not installed: apt-get install sqlite3")
		}
		if out, err := exec.Command("sqlite3", from, ".backup '"+to+"'").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	},
}

// TestCopiesBySQLiteVerify copies a log as operators do. The copy verifies; a
// changed byte in it is noticed but for those that say which version of SQLite
// wrote it, which nothing depends on; and it can be put in the log's place.
func TestCopiesBySQLiteVerify(t *testing.T) {
	for name, how := range copies {
		t.Run(name, func(t *testing.T) {
			k := newKey(t, "ed25519")
			path := filled(t, k, 6)
			to := filepath.Join(t.TempDir(), "signer.db")
			how(t, path, to)
			sound(t, to, k, 7)
			if a, b := export(t, path), export(t, to); a != b {
				t.Error("the copy holds something else")
			}
			file := read(t, to)
			if isLive(file) {
				t.Error("the copy looks like the signer's own file")
			}
			places := upTo(100)
			for range 3000 {
				places = append(places, mathrand.IntN(len(file)))
			}
			flip(t, file, places, k, func(at int, to byte) {
				if (at < atWriter || at >= atWriter+4) && !metaVersion(file, at) {
					t.Errorf("byte %d (page %d, offset %d) changed from %#x to %#x without notice", at, at/pageSize+1, at%pageSize, file[at], to)
				}
			})
			l := openLog(t, to, k)
			mustAppend(t, l, leaf(t, 100))
			mustCheckpoint(t, l, k)
			closeLog(t, l)
			sound(t, to, k, 8)
			if !isLive(read(t, to)) {
				t.Error("the restored copy does not look like the signer's own file")
			}
		})
	}
}

// metaVersion tells whether a place is within the meta row's version: three bytes
// behind the log's name.
func metaVersion(file []byte, at int) bool {
	end := bytes.LastIndex(file, []byte(origin)) + len(origin)
	return at >= end && at < end+3
}

// TestALookChangesNothing verifies, proves and exports from a folder in which
// nothing may be written, and compares what is there before and after.
func TestALookChangesNothing(t *testing.T) {
	k := newKey(t, "ed25519")
	t.Setenv("TMPDIR", t.TempDir())
	_, after, kept := underWay(t, k, leaf(t, 3))
	for _, s := range []snapshot{{read(t, filled(t, k, 4)), nil}, after} {
		dir := t.TempDir()
		path := filepath.Join(dir, "signer.db")
		write(t, path, s.file)
		if s.wal != nil {
			write(t, path+"-wal", s.wal)
		} else {
			kept = nil
		}
		sound(t, path, k, 5)
		if _, err := Prove(path, k.vkey, Wanted{Match: func(i int64, _ Entry) bool { return i == 2 }, Kept: kept}); err != nil {
			t.Error(err)
		}
		if n := strings.Count(export(t, path), "\n"); n != 5 {
			t.Errorf("%d lines exported", n)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1+min(len(s.wal), 1) {
			t.Errorf("the folder holds %v (%v)", files, err)
		}
		if !bytes.Equal(read(t, path), s.file) || s.wal != nil && !bytes.Equal(read(t, path+"-wal"), s.wal) {
			t.Error("the copy was changed")
		}
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "chancery-audit-*")); err != nil || len(left) > 0 {
		t.Errorf("private folders are left: %v (%v)", left, err)
	}
}

// TestALogInUse verifies the signer's own file while it writes: the report is of
// one instant, or there is none.
func TestALogInUse(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	mustCheckpoint(t, l, k)
	sound(t, path, k, 1)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				if _, err := l.Append(context.Background(), leaf(t, i)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	verified := 0
	for range 40 {
		r, err := Verify(path, k.vkey)
		switch {
		case errors.Is(err, errInUse):
		case err != nil:
			t.Error(err)
		case !r.OK():
			t.Errorf("%v", r.Problems)
		default:
			verified++
		}
	}
	t.Logf("%d of 40 looks met the log at rest", verified)
	close(stop)
	<-stopped
	sound(t, path, k, l.Size())
	// What was read before it changed counts.
	c, err := openCopy(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	mustAppend(t, l, leaf(t, 0))
	if err := c.unchanged(); err != nil {
		t.Errorf("a private copy: %v", err)
	}
}

// TestAFileThatChangesUnderALook moves a write-ahead log into the file while the
// file itself is looked at.
func TestAFileThatChangesUnderALook(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	if err := l.db.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	c, err := openCopy(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	mustAppend(t, l, leaf(t, 0))
	if err := c.unchanged(); err != nil {
		t.Errorf("with a write-ahead log since: %v", err)
	}
	if err := l.db.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.unchanged(); !errors.Is(err, errInUse) {
		t.Errorf("with the write-ahead log moved in: %v", err)
	}
}

// TestWhatIsNoLog looks at everything but an audit log.
func TestWhatIsNoLog(t *testing.T) {
	k := newKey(t, "ed25519")
	dir := t.TempDir()
	at := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		write(t, path, data)
		return path
	}
	other := filepath.Join(dir, "other.db")
	if err := database.Create(other, database.Schema{ApplicationID: 1, Migrations: []string{"CREATE TABLE entries (id INTEGER PRIMARY KEY, leaf BLOB) STRICT"}}); err != nil {
		t.Fatal(err)
	}
	good := read(t, filled(t, k, 3))
	for name, path := range map[string]string{
		"empty": at("empty", nil), "text": at("text", []byte("no database")), "noise": at("noise", bytes.Repeat([]byte{0xa5}, 8*pageSize)),
		"zeros": at("zeros", make([]byte, 4*pageSize)), "another program's": other, "cut": at("cut", good[:len(good)-pageSize]),
		"cut in a page": at("part", good[:len(good)-100]), "a page more": at("more", append(bytes.Clone(good), make([]byte, pageSize)...)),
		"a page twice": at("twice", append(bytes.Clone(good), good[pageSize:2*pageSize]...)),
	} {
		if r, err := Verify(path, k.vkey); err == nil && r.OK() {
			t.Errorf("%s: sound", name)
		}
		if strings.Contains(name, " page") {
			continue // SQLite reads what the header says, and the rest is there
		}
		if err := Export(path, io.Discard); err == nil {
			t.Errorf("%s: exported", name)
		}
		if _, err := Prove(path, k.vkey, Wanted{Match: func(int64, Entry) bool { return true }}); err == nil {
			t.Errorf("%s: proven", name)
		}
		if _, err := NewestCheckpoint(path); err == nil {
			t.Errorf("%s: it has a checkpoint", name)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"nothing": filepath.Join(dir, "nothing"), "an empty folder": t.TempDir(), "a pipe": pipe} {
		if r, err := Verify(path, k.vkey); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if _, err := Verify(at("good", good), "no key"); err == nil {
		t.Error("verified without a key")
	}
	unsound(t, filepath.Join(dir, "good"), newKey(t, "ed25519"), "is not signed by")
}

// TestOddNames verifies logs whose names mean something in a URL.
func TestOddNames(t *testing.T) {
	k := newKey(t, "ed25519")
	good := read(t, filled(t, k, 3))
	t.Chdir(t.TempDir())
	for _, name := range []string{"a b.db", "a?mode=memory.db", "a#b.db", "a%20b.db", "ä.db", "file:x.db", ":memory:"} {
		write(t, name, good)
		sound(t, name, k, 4)
	}
}

// TestAWriteAheadLogOfAnotherFile puts a write-ahead log beside a file that it
// does not belong to.
func TestAWriteAheadLogOfAnotherFile(t *testing.T) {
	k := newKey(t, "ed25519")
	_, after, _ := underWay(t, k, leaf(t, 3))
	_, other, _ := underWay(t, newKey(t, "ed25519"), long(t, 9000))
	if r := verify(t, snapshot{after.file, other.wal}.put(t), k); r.OK() {
		t.Error("the log is sound with another's write-ahead log")
	}
}

// TestNoMapping maps what holds nothing.
func TestNoMapping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty")
	write(t, path, nil)
	data, err := mapFile(path)
	if err != nil || data != nil {
		t.Errorf("%v, %v", data, err)
	}
	if err := unmap(data); err != nil {
		t.Error(err)
	}
	if _, err := mapFile(filepath.Dir(path)); err == nil {
		t.Error("a folder is mapped")
	}
}

// TestAFileThatShrinks cuts a file after it was mapped: the walk meets a fault of
// the memory and says so.
func TestAFileThatShrinks(t *testing.T) {
	k := newKey(t, "ed25519")
	path := filled(t, k, 3)
	c, err := openCopy(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := os.Truncate(path, pageSize); err != nil {
		t.Fatal(err)
	}
	if err := c.walk(&Report{}); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("the walk: %v", err)
	}
	if err := c.unchanged(); err == nil {
		t.Error("the file did not change")
	}
}

// TestHostileSchema writes views and expressions that SQLite would evaluate into
// a copy's schema: it is refused before anything else is asked.
func TestHostileSchema(t *testing.T) {
	k := newKey(t, "ed25519")
	for _, statement := range []string{
		"CREATE VIEW checks AS SELECT * FROM entries",
		"CREATE INDEX i ON entries (abs(id)) WHERE id > 3",
		"ALTER TABLE meta ADD COLUMN more INTEGER AS (id + 1)",
		"ALTER TABLE entries RENAME COLUMN hash TO checksum",
	} {
		path := filled(t, k, 3)
		db, err := sql.Open("sqlite", source(path, "mode=rw"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
		db.Close()
		unsound(t, path, k, "not those of an audit log")
	}
}

// TestHeaderFields sets each field of the header that the walk compares to
// another value.
func TestHeaderFields(t *testing.T) {
	good := read(t, filled(t, newKey(t, "ed25519"), 3))
	for at, name := range map[int]string{
		0: "not a SQLite database", 16: "page size", 18: "format version", 19: "format version", 20: "reserved space", 21: "largest payload",
		22: "smallest payload", 23: "leaf payload", 24: "change counter", 28: "number of pages", 32: "", 36: "free pages", 40: "schema cookie",
		44: "schema format", 48: "cache size", 52: "largest root page", 56: "text encoding", 60: "schema version", 64: "incremental vacuum",
		68: "application id", 72: "belongs to nothing", 91: "belongs to nothing", 92: "change counter", 96: "SQLite version",
	} {
		file := bytes.Clone(good)
		file[at] ^= 0x41
		report := &Report{}
		walkFile(file, report.problem)
		if !strings.Contains(strings.Join(report.Problems, "\n"), name) || report.OK() {
			t.Errorf("at %d: %q does not name the %s", at, report.Problems, name)
		}
	}
	binary.BigEndian.PutUint32(good[atWriter:], 2_999_999)
	report := &Report{}
	walkFile(good, report.problem)
	if report.OK() {
		t.Error("SQLite 2.999.999 wrote the file")
	}
}
