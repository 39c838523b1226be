package audit

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"

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
	walkFile(c.file, report.problem)
	if err := c.verifyContent(key, kept, report); err != nil {
		report.problem("the database cannot be read whole: %v", err)
	}
	return report, nil
}

// witness is a checkpoint that the tree is held against.
type witness struct {
	Checkpoint
	kept bool // from elsewhere, not from the copy
}

// verifyContent checks the tables' rows.
func (c *copied) verifyContent(key note.Verifier, kept [][]byte, report *Report) error {
	if err := c.integrity(report); err != nil {
		return err
	}
	if err := c.sameSchema(); err != nil {
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

// verifyMeta compares the meta row with the key and with the header's fields
// that no check of SQLite's covers.
func (c *copied) verifyMeta(key note.Verifier, report *Report) error {
	var cookie, writer int64
	if err := c.db.QueryRow("SELECT origin, cookie, writer FROM meta WHERE id = 1 AND typeof(origin) = 'text' AND (SELECT count(*) FROM meta) = 1").
		Scan(&report.Origin, &cookie, &writer); err != nil {
		return fmt.Errorf("the meta row: %w", err)
	}
	if report.Origin != key.Name() {
		report.problem("the log is of %q, the key of %q", report.Origin, key.Name())
	}
	head := headerOf(c.file)
	if head.cookie != cookie {
		report.problem("the header's schema cookie is %d, not %d", head.cookie, cookie)
	}
	if head.writer != writer {
		report.problem("the header's SQLite version is %d, not %d", head.writer, writer)
	}
	return nil
}

// integrity lets SQLite check its structures.
func (c *copied) integrity(report *Report) error {
	rows, err := c.db.Query("PRAGMA integrity_check(5)")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var verdict string
		if err := rows.Scan(&verdict); err != nil {
			return err
		}
		if verdict != "ok" {
			report.problem("SQLite: %s", verdict)
		}
	}
	return rows.Err()
}

// sameSchema holds the file's schema against the one this program makes.
func (c *copied) sameSchema() error {
	want, err := referenceSchema()
	if err != nil {
		return err
	}
	got, err := schemaText(c.db)
	if err != nil {
		return err
	}
	if got != want {
		return errors.New("the file's tables are not those of an audit log")
	}
	return nil
}

func referenceSchema() (string, error) {
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
	return schemaText(db)
}

func schemaText(db *sql.DB) (string, error) {
	rows, err := db.Query("SELECT type, name, tbl_name, rootpage, sql, typeof(type) || typeof(name) || typeof(tbl_name) || typeof(rootpage) || typeof(sql), rowid FROM sqlite_schema ORDER BY rowid")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var b bytes.Buffer
	for rows.Next() {
		var kind, name, table, text, typeOf string
		var root, id int64
		if err := rows.Scan(&kind, &name, &table, &root, &text, &typeOf, &id); err != nil {
			return "", err
		}
		fmt.Fprintln(&b, kind, name, table, root, text, typeOf, id)
	}
	return b.String(), rows.Err()
}

// collectWitnesses reads the copy's checkpoints and those kept elsewhere, by size.
func (c *copied) collectWitnesses(key note.Verifier, kept [][]byte, report *Report) (map[int64][]witness, error) {
	witnesses := map[int64][]witness{}
	rows, err := c.db.Query("SELECT size, note, typeof(note) FROM checkpoints ORDER BY size")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var size int64
		var data []byte
		var kind string
		if err := rows.Scan(&size, &data, &kind); err != nil {
			return nil, err
		}
		checkpoint, err := openStored(data, key)
		switch {
		case kind != "blob":
			report.problem("checkpoint %d is stored as %s", size, kind)
		case err != nil:
			report.problem("checkpoint %d: %v", size, err)
		case checkpoint.Size != size:
			report.problem("checkpoint %d stands in the row of %d", checkpoint.Size, size)
		default:
			witnesses[size] = append(witnesses[size], witness{checkpoint, false})
		}
	}
	for i, data := range kept {
		checkpoint, err := OpenCheckpoint(data, key)
		if err != nil {
			report.problem("kept checkpoint %d: %v", i+1, err)
			continue
		}
		witnesses[checkpoint.Size] = append(witnesses[checkpoint.Size], witness{checkpoint, true})
	}
	return witnesses, rows.Err()
}

// verifyEntries recomputes the tree and pairs intents with outcomes.
func (c *copied) verifyEntries(witnesses map[int64][]witness, report *Report) error {
	rows, err := c.db.Query("SELECT id, leaf, hash, typeof(leaf), typeof(hash) FROM entries ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	var t tree
	open := map[int64]bool{}
	report.compare(witnesses[0], t)
	for rows.Next() {
		var id int64
		var leaf, stored sql.RawBytes
		var leafType, hashType string
		if err := rows.Scan(&id, &leaf, &stored, &leafType, &hashType); err != nil {
			return err
		}
		if id != t.size+1 {
			report.problem("entry %d is missing", t.size)
			return nil
		}
		hash := tlog.RecordHash(leaf)
		if !bytes.Equal(hash[:], stored) || leafType != "blob" || hashType != "blob" {
			report.problem("entry %d does not hash to what is stored", t.size)
		}
		pairOutcome(t.size, leaf, open, report)
		t.add(hash)
		report.compare(witnesses[t.size], t)
	}
	root := t.root()
	report.Size, report.Root, report.Open = t.size, base64.StdEncoding.EncodeToString(root[:]), int64(len(open))
	return rows.Err()
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

// pairOutcome keeps the set of intents without outcome.
func pairOutcome(index int64, leaf []byte, open map[int64]bool, report *Report) {
	e, err := ParseEntry(leaf)
	if err != nil {
		report.problem("entry %d: %v", index, err)
		return
	}
	switch e.Kind {
	case KindIntent:
		open[index] = true
		report.Signatures++
	case KindMade, KindFailed, KindAbandoned:
		if e.Intent == nil || !open[*e.Intent] {
			report.problem("entry %d is the outcome of no open intent", index)
			return
		}
		delete(open, *e.Intent)
	}
}
