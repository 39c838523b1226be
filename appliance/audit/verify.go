package audit

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

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
// kept elsewhere are on the same tree. path may be the folder that holds it. An
// error means the check could not be made; what was found is in the report.
func Verify(path, vkey string, kept ...[]byte) (*Report, error) {
	key, err := NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	data, cleanup, err := readCopy(path)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	report := &Report{}
	walkFile(data.file, report.problem)
	if err := verifyContent(data.path, key, kept, report); err != nil {
		report.problem("the database cannot be read whole: %v", err)
	}
	checkHeader(data.file, data.cookie, data.writer, report)
	return report, nil
}

// checkHeader compares header fields that no check of SQLite's covers with what
// the meta row repeats.
func checkHeader(file []byte, cookie, writer int64, report *Report) {
	meta := headerOf(file)
	if meta.cookie != cookie {
		report.problem("the header's schema cookie is %d, not %d", meta.cookie, cookie)
	}
	if meta.writer != writer {
		report.problem("the header's SQLite version is %d, not %d", meta.writer, writer)
	}
}

// copyOfLog is the file's content, its write-ahead log moved in.
type copyOfLog struct {
	path           string
	file           []byte
	cookie, writer int64
}

// readCopy brings the file (and the write-ahead log beside it, if there is one)
// into a private folder, so that nothing that is looked at changes.
func readCopy(path string) (*copyOfLog, func(), error) {
	if info, err := os.Stat(path); err != nil {
		return nil, nil, err
	} else if info.IsDir() {
		path = filepath.Join(path, "signer.db")
	}
	dir, err := os.MkdirTemp("", "chancery-audit-")
	if err != nil {
		return nil, nil, err
	}
	cleanup := func() { os.RemoveAll(dir) }
	c := &copyOfLog{path: filepath.Join(dir, "signer.db")}
	if err := c.fill(path); err != nil {
		cleanup()
		return nil, nil, err
	}
	return c, cleanup, nil
}

func (c *copyOfLog) fill(path string) error {
	var err error
	if c.file, err = os.ReadFile(path); err != nil {
		return err
	}
	if err := os.WriteFile(c.path, c.file, 0o600); err != nil {
		return err
	}
	if wal, err := os.ReadFile(path + "-wal"); err == nil && len(wal) > 0 {
		if err := os.WriteFile(c.path+"-wal", wal, 0o600); err != nil {
			return err
		}
		db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: c.path}).EscapedPath())
		if err != nil {
			return err
		}
		_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
		if err = errors.Join(err, db.Close()); err != nil {
			return nil // the content check says what is wrong
		}
		if c.file, err = os.ReadFile(c.path); err != nil {
			return err
		}
	}
	db, err := openCopy(c.path)
	if err != nil {
		return nil
	}
	defer db.Close()
	_ = db.QueryRow("SELECT cookie, writer FROM meta").Scan(&c.cookie, &c.writer)
	return nil
}

func openCopy(path string) (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&immutable=1&_pragma=cell_size_check(1)&_pragma=trusted_schema(0)")
}

// verifyContent checks entries and checkpoints.
func verifyContent(path string, key note.Verifier, kept [][]byte, report *Report) error {
	db, err := openCopy(path)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := integrity(db, report); err != nil {
		return err
	}
	if err := sameSchema(db, report); err != nil {
		return err
	}
	if err := db.QueryRow("SELECT origin FROM meta WHERE id = 1 AND typeof(origin) = 'text' AND (SELECT count(*) FROM meta) = 1").Scan(&report.Origin); err != nil {
		return fmt.Errorf("the meta row: %w", err)
	}
	if report.Origin != key.Name() {
		report.problem("the log is of %q, the key of %q", report.Origin, key.Name())
	}
	marks := map[int64][]Checkpoint{}
	if err := collectCheckpoints(db, key, kept, marks, report); err != nil {
		return err
	}
	if err := verifyEntries(db, marks, report); err != nil {
		return err
	}
	for size := range marks {
		if size > report.Size {
			report.problem("a checkpoint covers %d entries, but there are %d: entries were dropped", size, report.Size)
		}
	}
	return nil
}

// integrity lets SQLite check its structures.
func integrity(db *sql.DB, report *Report) error {
	rows, err := db.Query("PRAGMA integrity_check(5)")
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
func sameSchema(db *sql.DB, report *Report) error {
	want, err := referenceSchema()
	if err != nil {
		return err
	}
	got, err := schemaText(db)
	if err != nil {
		return err
	}
	if got != want {
		report.problem("the file's tables are not those of an audit log")
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

// collectCheckpoints reads the copy's checkpoints and those kept elsewhere.
func collectCheckpoints(db *sql.DB, key note.Verifier, kept [][]byte, marks map[int64][]Checkpoint, report *Report) error {
	rows, err := db.Query("SELECT size, note, typeof(note) FROM checkpoints ORDER BY size")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var size int64
		var data []byte
		var kind string
		if err := rows.Scan(&size, &data, &kind); err != nil {
			return err
		}
		c, err := OpenCheckpoint(data, key)
		if err != nil || kind != "blob" {
			report.problem("checkpoint %d (%s): %v", size, kind, err)
			continue
		}
		if c.Size != size {
			report.problem("checkpoint %d stands in the row of %d", c.Size, size)
		}
		marks[c.Size] = append(marks[c.Size], c)
		report.Checkpoints++
		report.Covered = max(report.Covered, c.Size)
	}
	for i, data := range kept {
		c, err := OpenCheckpoint(data, key)
		if err != nil {
			report.problem("kept checkpoint %d: %v", i+1, err)
			continue
		}
		marks[c.Size] = append(marks[c.Size], c)
		report.Kept++
	}
	return rows.Err()
}

// verifyEntries recomputes the tree and pairs intents with outcomes.
func verifyEntries(db *sql.DB, marks map[int64][]Checkpoint, report *Report) error {
	rows, err := db.Query("SELECT id, leaf, hash, typeof(leaf), typeof(hash) FROM entries ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	var t tree
	open := map[int64]bool{}
	for rows.Next() {
		var id int64
		var leaf, stored []byte
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
		for _, c := range marks[t.size] {
			if c.Root != t.root() {
				report.problem("the entries up to %d do not give the root of the checkpoint: one of them was changed, added, moved or dropped", t.size)
			}
		}
	}
	root := t.root()
	report.Size, report.Root, report.Open = t.size, base64.StdEncoding.EncodeToString(root[:]), int64(len(open))
	return rows.Err()
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

// Export writes the log as JSON lines, each entry as it was hashed.
func Export(path string, w io.Writer) error {
	return eachEntry(path, func(_ int64, leaf []byte) error {
		_, err := w.Write(append(bytes.Clone(leaf), '\n'))
		return err
	})
}

// eachEntry reads the entries of a copy.
func eachEntry(path string, each func(index int64, leaf []byte) error) error {
	c, cleanup, err := readCopy(path)
	if err != nil {
		return err
	}
	defer cleanup()
	db, err := openCopy(c.path)
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.QueryContext(context.Background(), "SELECT id, leaf FROM entries ORDER BY id")
	if err != nil {
		return fmt.Errorf("%s is not an audit log: %w", path, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var leaf []byte
		if err := rows.Scan(&id, &leaf); err != nil {
			return err
		}
		if err := each(id-1, leaf); err != nil {
			return err
		}
	}
	return rows.Err()
}

// newestCheckpoint returns the newest checkpoint stored in a copy, or nil.
func newestCheckpoint(path string) ([]byte, error) {
	c, cleanup, err := readCopy(path)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	db, err := openCopy(c.path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var data []byte
	err = db.QueryRow("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errors.New("the log has no checkpoint yet")
	}
	return data, err
}

// Proof shows that one entry is in the tree of a checkpoint; it needs nothing else.
type Proof struct {
	Index int64 `json:"index"`
	// Leaf is the entry, as it was hashed.
	Leaf json.RawMessage `json:"leaf"`
	// Path holds the audit path (RFC 6962 §2.1.1), base64.
	Path []string `json:"path"`
	// Checkpoint is the signed note.
	Checkpoint string `json:"checkpoint"`
}

// Prove makes the inclusion proofs of the entries that match under the newest
// checkpoint of a copy. match sees every entry; its matches must be under the
// checkpoint, or Prove says that the next checkpoint must be waited for.
func Prove(path, vkey string, match func(index int64, e Entry) bool) ([]Proof, error) {
	key, err := NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	signed, err := newestCheckpoint(path)
	if err != nil {
		return nil, err
	}
	c, err := OpenCheckpoint(signed, key)
	if err != nil {
		return nil, err
	}
	var all hashes
	var proofs []Proof
	err = eachEntry(path, func(index int64, leaf []byte) error {
		if index < c.Size {
			if err := all.add(index, tlog.RecordHash(leaf)); err != nil {
				return err
			}
		}
		e, err := ParseEntry(leaf)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if !match(index, e) {
			return nil
		}
		if index >= c.Size {
			return fmt.Errorf("entry %d is newer than the newest checkpoint of %d entries: take a copy after the next checkpoint", index, c.Size)
		}
		proofs = append(proofs, Proof{Index: index, Leaf: bytes.Clone(leaf), Checkpoint: string(signed)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(proofs) == 0 {
		return nil, errors.New("no entry matches")
	}
	for i := range proofs {
		proof, err := tlog.ProveRecord(c.Size, proofs[i].Index, &all)
		if err != nil {
			return nil, err
		}
		for _, h := range proof {
			proofs[i].Path = append(proofs[i].Path, base64.StdEncoding.EncodeToString(h[:]))
		}
	}
	return proofs, nil
}

// VerifyProof checks a proof with the public key alone and returns the entry.
func VerifyProof(p Proof, vkey string) (Entry, Checkpoint, error) {
	key, err := NewVerifier(vkey)
	if err != nil {
		return Entry{}, Checkpoint{}, err
	}
	c, err := OpenCheckpoint([]byte(p.Checkpoint), key)
	if err != nil {
		return Entry{}, Checkpoint{}, err
	}
	path := make(tlog.RecordProof, len(p.Path))
	for i, text := range p.Path {
		h, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(h) != tlog.HashSize {
			return Entry{}, Checkpoint{}, fmt.Errorf("path[%d] is not a hash in base64", i)
		}
		copy(path[i][:], h)
	}
	if p.Index < 0 || p.Index >= c.Size {
		return Entry{}, Checkpoint{}, fmt.Errorf("entry %d is not under the checkpoint of %d entries", p.Index, c.Size)
	}
	if err := tlog.CheckRecord(path, c.Size, c.Root, p.Index, tlog.RecordHash(p.Leaf)); err != nil {
		return Entry{}, Checkpoint{}, fmt.Errorf("the entry is not in the checkpoint's tree: %w", err)
	}
	e, err := ParseEntry(p.Leaf)
	return e, c, err
}
