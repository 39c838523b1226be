package audit

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// copied is a copy of signer.db that is looked at. Nothing in it is trusted, and
// nothing of it is changed: without a write-ahead log beside it the file itself
// is opened as immutable, with one both are copied into a private folder first
// and the log is moved in there.
type copied struct {
	path  string
	state state
	file  []byte // mapped, not read: a log may be larger than the memory
	db    *sql.DB
	dir   string // the private folder, or ""
	// problems are what the write-ahead log showed.
	problems []string
}

// state tells whether a file and its write-ahead log changed in between.
type state [2]struct {
	size     int64
	modified time.Time
}

func stateOf(path string) (s state, err error) {
	for i, name := range []string{path, path + "-wal"} {
		info, err := os.Stat(name)
		if i == 1 && errors.Is(err, fs.ErrNotExist) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		if !info.Mode().IsRegular() {
			return s, fmt.Errorf("%s is not a regular file", name)
		}
		s[i].size, s[i].modified = info.Size(), info.ModTime()
	}
	return s, nil
}

// openCopy opens the file at path, or signer.db in the folder at path.
func openCopy(path string) (*copied, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "signer.db")
	}
	for attempt := 1; ; attempt++ {
		c := &copied{path: path}
		err := c.open()
		if err == nil {
			return c, nil
		}
		c.close()
		if !errors.Is(err, errInUse) || attempt == 10 {
			return nil, err
		}
	}
}

func (c *copied) open() error {
	var err error
	if c.state, err = stateOf(c.path); err != nil {
		return err
	}
	path := c.path
	if c.state[1].size > 0 {
		if path, err = c.moveIn(); err != nil {
			return err
		}
	}
	if c.file, err = mapFile(path); err != nil {
		return err
	}
	c.db, err = sql.Open("sqlite", source(path, "mode=ro&immutable=1&_pragma=cell_size_check(1)&_pragma=trusted_schema(0)&_pragma=query_only(1)"))
	return err
}

// source builds SQLite's name of a file. The path is made absolute, lest one
// that begins with "//" or holds a colon be read as something else.
func source(path, parameters string) string {
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + parameters
}

// mapFile maps a file into memory for reading; nil for an empty one.
func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// unmap takes back what mapFile gave.
func unmap(data []byte) error {
	if data == nil {
		return nil
	}
	return unix.Munmap(data)
}

// moveIn copies the file and its write-ahead log into a private folder, moves
// the log in there, and returns the path of the result.
func (c *copied) moveIn() (string, error) {
	var err error
	if c.dir, err = os.MkdirTemp("", "chancery-audit-"); err != nil {
		return "", err
	}
	private := filepath.Join(c.dir, "signer.db")
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(c.path+suffix, private+suffix); err != nil {
			return "", err
		}
	}
	if now, err := stateOf(c.path); err != nil || now != c.state {
		return "", errors.Join(err, fmt.Errorf("%s %w", c.path, errInUse))
	}
	wal, err := mapFile(private + "-wal")
	if err != nil {
		return "", err
	}
	changed, torn := walkWAL(wal)
	if changed != nil || torn != nil {
		// Times of change are coarse: a commit may have been copied while it was written.
		if err := c.settled(wal); err != nil {
			return "", errors.Join(err, unmap(wal))
		}
	}
	if changed != nil {
		c.problems = append(c.problems, changed.Error())
	}
	if torn != nil {
		c.problems = append(c.problems, torn.Error()+". If the signer stopped while it wrote, start it and take a new copy; if not, the copy was cut or changed")
	}
	if err := unmap(wal); err != nil {
		return "", err
	}
	db, err := sql.Open("sqlite", source(private, "mode=rw&_pragma=trusted_schema(0)"))
	if err != nil {
		return "", err
	}
	_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	if err = errors.Join(err, db.Close()); err != nil {
		c.problems = append(c.problems, fmt.Sprintf("the write-ahead log cannot be moved into the file: %v", err))
	}
	return private, nil
}

// tick is longer than the steps in which a file system counts times of change.
const tick = 20 * time.Millisecond

// settled tells, a moment after the write-ahead log was copied, whether it is
// still as it was copied.
func (c *copied) settled(wal []byte) error {
	time.Sleep(tick)
	if now, err := os.ReadFile(c.path + "-wal"); err != nil || !bytes.Equal(now, wal) {
		return fmt.Errorf("%s %w", c.path, errInUse)
	}
	return nil
}

// errInUse says that what was read of a file at different times need not fit
// together.
var errInUse = errors.New("changes while it is read: take a copy of it first, for instance with sqlite3's .backup")

// unchanged tells, at the end of a look, whether the file was the same all the
// time. A private copy was; a write-ahead log that grew since does not matter.
func (c *copied) unchanged() error {
	if c.dir != "" {
		return nil
	}
	now, err := stateOf(c.path)
	if err == nil && now[0] != c.state[0] {
		err = fmt.Errorf("%s %w", c.path, errInUse)
	}
	return err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (c *copied) close() {
	if c.db != nil {
		c.db.Close()
	}
	unmap(c.file)
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}

// queryRows runs a query without arguments and calls each for every row, with a
// function that scans it.
type queryRows func(query string, each func(scan func(into ...any) error) error) error

// rows is the copy's [queryRows].
func (c *copied) rows(query string, each func(scan func(into ...any) error) error) error {
	rows, err := c.db.QueryContext(context.Background(), query)
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

// eachEntry reads the entries in order, from a file whose tables are those of
// an audit log. leaf must not be kept.
func (c *copied) eachEntry(each func(index int64, leaf []byte) error) error {
	if err := sameSchema(c.rows); err != nil {
		return err
	}
	return c.rows("SELECT id, leaf FROM entries ORDER BY id", func(scan func(...any) error) error {
		var id int64
		var leaf sql.RawBytes
		if err := scan(&id, &leaf); err != nil {
			return err
		}
		return each(id-1, leaf)
	})
}

// newestCheckpoint returns the newest checkpoint stored in the copy.
func (c *copied) newestCheckpoint() ([]byte, error) {
	if err := sameSchema(c.rows); err != nil {
		return nil, err
	}
	var data []byte
	err := c.db.QueryRow("SELECT note FROM checkpoints ORDER BY slot DESC LIMIT 1").Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errors.New("the log has no checkpoint yet: take a copy after the signer's next one")
	}
	return data, err
}

// Export writes the log as JSON lines, each entry as it was hashed. It checks
// nothing; [Verify] does.
func Export(path string, w io.Writer) error {
	c, err := openCopy(path)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.eachEntry(func(_ int64, leaf []byte) error {
		if _, err := w.Write(leaf); err != nil {
			return err
		}
		_, err := w.Write([]byte{'\n'})
		return err
	}); err != nil {
		return err
	}
	return c.unchanged()
}

// NewestCheckpoint returns the newest signed checkpoint in a copy, to be kept
// elsewhere. It checks nothing.
func NewestCheckpoint(path string) ([]byte, error) {
	c, err := openCopy(path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	signed, err := c.newestCheckpoint()
	return signed, errors.Join(err, c.unchanged())
}
