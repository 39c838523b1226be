package audit

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Report is what [Verify] found in a copy of the log.
type Report struct {
	Origin string `json:"origin"`
	// Size is the number of entries, Covered of those under the newest checkpoint.
	Size    int64 `json:"size"`
	Covered int64 `json:"covered"`
	// Root is the present tree's root, base64.
	Root string `json:"root"`
	// Checkpoints is the number of signed checkpoints in the copy that fit.
	Checkpoints int `json:"checkpoints"`
	// Kept is the number of checkpoints from elsewhere that fit.
	Kept int `json:"kept"`
	// Signatures counts intents, and Open those without an outcome.
	Signatures int64 `json:"signatures"`
	Open       int64 `json:"open"`
	// Problems lists what does not fit; empty when the log is sound.
	Problems []string `json:"problems,omitempty"`
}

// problemLimit bounds a report: a file of noise has no end of problems.
const problemLimit = 50

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) < problemLimit {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// OK tells whether nothing was found.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// Verify checks a copy of signer.db without changing it: every byte of the file
// is accounted for, every entry hashes to what is stored, the tree gives the
// root of each checkpoint, each checkpoint is signed by vkey, and checkpoints
// kept elsewhere are on the same tree. path may be the folder that holds it; a
// write-ahead log beside the file is checked and taken into account. An error
// means the check could not be made; what was found is in the report.
func Verify(path, vkey string, kept ...[]byte) (*Report, error) {
	key, err := NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	c, err := openCopy(path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	report := &Report{Problems: c.problems}
	if err := c.walk(report); err != nil {
		return nil, err
	}
	if err := c.verifyContent(key, kept, report); err != nil {
		report.problem("the database cannot be read whole: %v", err)
	}
	return report, c.unchanged()
}

// walk accounts for the file's bytes. The file is mapped, so that a medium that
// fails, or a file that becomes shorter, is met as a fault of the memory.
func (c *copied) walk(report *Report) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			err = fmt.Errorf("%s cannot be read: %w", c.path, fault)
		default:
			panic(fault)
		}
	}()
	walkFile(c.file, report.problem)
	return nil
}

// witness is a checkpoint that the tree is held against.
type witness struct {
	Checkpoint
	kept bool // from elsewhere, not from the copy
}

// verifyContent checks the tables' rows. The schema comes first: SQLite is not
// to work on tables that this program did not make.
func (c *copied) verifyContent(key note.Verifier, kept [][]byte, report *Report) error {
	if err := sameSchema(c.rows); err != nil {
		return err
	}
	if err := c.integrity(report); err != nil {
		return err
	}
	if err := c.verifyMeta(key, report); err != nil {
		return err
	}
	witnesses, err := c.collectWitnesses(key, kept, report)
	if err != nil {
		return err
	}
	if err := c.verifyEntries(witnesses, report); err != nil {
		return err
	}
	for size := range witnesses {
		if size > report.Size {
			report.problem("a checkpoint covers %d entries, but there are %d: entries were dropped", size, report.Size)
		}
	}
	return nil
}

// verifyMeta compares the meta row with the key and with the header's field
// that no check of SQLite's covers.
func (c *copied) verifyMeta(key note.Verifier, report *Report) error {
	var writer int64
	if err := c.db.QueryRow("SELECT origin, writer FROM meta WHERE id = 1 AND (SELECT count(*) FROM meta) = 1").Scan(&report.Origin, &writer); err != nil {
		return fmt.Errorf("the meta row: %w", err)
	}
	if report.Origin != key.Name() {
		report.problem("the log is of %q, the key of %q", report.Origin, key.Name())
	}
	if len(c.file) >= pageSize && isLive(c.file) && int64(binary.BigEndian.Uint32(c.file[atWriter:])) != writer {
		report.problem("the header's SQLite version is %d, not %d", binary.BigEndian.Uint32(c.file[atWriter:]), writer)
	}
	return nil
}

// integrity lets SQLite check its structures.
func (c *copied) integrity(report *Report) error {
	return c.rows("PRAGMA integrity_check(5)", func(scan func(...any) error) error {
		var verdict string
		if err := scan(&verdict); err != nil {
			return err
		}
		if verdict != "ok" {
			report.problem("SQLite: %s", verdict)
		}
		return nil
	})
}

// sameSchema holds a file's tables against those this program makes; there is
// nothing else, above all no trigger.
func sameSchema(rows queryRows) error {
	want, err := referenceSchema()
	if err != nil {
		return err
	}
	got, err := schemaText(rows)
	if err != nil {
		return err
	}
	if got != want {
		return errors.New("the file's tables are not those of an audit log")
	}
	return nil
}

// referenceSchema is what schemaText gives for a new log.
var referenceSchema = sync.OnceValues(func() (string, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return "", err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, migration := range schema.Migrations {
		if _, err := db.Exec(migration); err != nil {
			return "", err
		}
	}
	return schemaText((&copied{db: db}).rows)
})

func schemaText(rows queryRows) (string, error) {
	var b bytes.Buffer
	err := rows("SELECT type, name, tbl_name, rootpage, sql, typeof(type) || typeof(name) || typeof(tbl_name) || typeof(rootpage) || typeof(sql), rowid FROM sqlite_schema ORDER BY rowid",
		func(scan func(...any) error) error {
			var kind, name, table, text, typeOf string
			var root, id int64
			if err := scan(&kind, &name, &table, &root, &text, &typeOf, &id); err != nil {
				return err
			}
			fmt.Fprintln(&b, kind, name, table, root, text, typeOf, id)
			return nil
		})
	return b.String(), err
}

// collectWitnesses reads the copy's checkpoints and those kept elsewhere, by size.
func (c *copied) collectWitnesses(key note.Verifier, kept [][]byte, report *Report) (map[int64][]witness, error) {
	witnesses := map[int64][]witness{}
	for i, data := range kept {
		checkpoint, err := OpenCheckpoint(data, key)
		if err != nil {
			report.problem("kept checkpoint %d: %v", i+1, err)
			continue
		}
		witnesses[checkpoint.Size] = append(witnesses[checkpoint.Size], witness{checkpoint, true})
	}
	err := c.rows("SELECT slot, size, note FROM checkpoints ORDER BY slot", func(scan func(...any) error) error {
		var slot, size int64
		var data []byte
		if err := scan(&slot, &size, &data); err != nil {
			return err
		}
		checkpoint, err := openStored(data, key)
		switch {
		case err != nil:
			report.problem("checkpoint %d: %v", size, err)
		case checkpoint.Size != size || size/checkpointSpacing != slot:
			report.problem("checkpoint %d stands in the row %d of %d", checkpoint.Size, slot, size)
		default:
			witnesses[size] = append(witnesses[size], witness{checkpoint, false})
		}
		return nil
	})
	return witnesses, err
}

// verifyEntries recomputes the tree and follows what the entries tell.
func (c *copied) verifyEntries(witnesses map[int64][]witness, report *Report) error {
	var t tree
	report.compare(witnesses[0], t)
	story := newStory(report)
	err := c.rows("SELECT id, leaf, hash FROM entries ORDER BY id", func(scan func(...any) error) error {
		var id int64
		var leaf, stored sql.RawBytes
		if err := scan(&id, &leaf, &stored); err != nil {
			return err
		}
		if id != t.size+1 {
			return fmt.Errorf("entry %d is missing", t.size)
		}
		hash := tlog.RecordHash(leaf)
		if !bytes.Equal(hash[:], stored) {
			report.problem("entry %d does not hash to what is stored", t.size)
		}
		story.take(t.size, leaf)
		t.add(hash)
		report.compare(witnesses[t.size], t)
		return nil
	})
	root := t.root()
	report.Size, report.Root, report.Open = t.size, base64.StdEncoding.EncodeToString(root[:]), int64(len(story.open))
	return err
}

// compare holds checkpoints of a tree's size against its root.
func (r *Report) compare(witnesses []witness, t tree) {
	for _, w := range witnesses {
		switch {
		case w.Root != t.root():
			r.problem("the entries up to %d do not give the root of the checkpoint: one of them was changed, added, moved or dropped", t.size)
		case w.kept:
			r.Kept++
		default:
			r.Checkpoints++
			r.Covered = max(r.Covered, t.size)
		}
	}
}
