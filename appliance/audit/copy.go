package audit

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// copied is a copy of signer.db that is looked at. Nothing in it is trusted, and
// nothing of it is changed: without a write-ahead log beside it the file itself
// is opened as immutable, with one both are copied into a private folder first
// and the log is moved in there.
type copied struct {
	file []byte // mapped, not read: a log may be larger than the memory
	db   *sql.DB
	dir  string // the private folder, or ""
	// problems are what the write-ahead log showed.
	problems []string
}

// openCopy opens the file at path, or signer.db in the folder at path.
func openCopy(path string) (*copied, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		path = filepath.Join(path, "signer.db")
	}
	c := &copied{}
	if err := c.open(path); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *copied) open(path string) error {
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		if path, err = c.moveIn(path); err != nil {
			return err
		}
	}
	var err error
	if c.file, err = mapFile(path); err != nil {
		return err
	}
	c.db, err = sql.Open("sqlite", "file:"+(&url.URL{Path: absolute(path)}).EscapedPath()+
		"?mode=ro&immutable=1&_pragma=cell_size_check(1)&_pragma=trusted_schema(0)&_pragma=query_only(1)")
	return err
}

// absolute keeps a relative path that begins with "//" or holds a colon from
// being read as something else in a URL.
func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// mapFile maps a file into memory for reading.
func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, nil
	}
	if info.Size() != int64(int(info.Size())) || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file that can be mapped into memory", path)
	}
	return unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// moveIn copies the file and its write-ahead log into a private folder, moves
// the log in there, and returns the path of the result.
func (c *copied) moveIn(path string) (string, error) {
	var err error
	if c.dir, err = os.MkdirTemp("", "chancery-audit-"); err != nil {
		return "", err
	}
	private := filepath.Join(c.dir, "signer.db")
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(path+suffix, private+suffix); err != nil {
			return "", err
		}
	}
	wal, err := mapFile(private + "-wal")
	if err != nil {
		return "", err
	}
	walkWAL(wal, func(format string, args ...any) { c.problems = append(c.problems, fmt.Sprintf(format, args...)) })
	unix.Munmap(wal)
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: absolute(private)}).EscapedPath()+"?mode=rw&_pragma=trusted_schema(0)")
	if err != nil {
		return "", err
	}
	_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	if err = errors.Join(err, db.Close()); err != nil {
		c.problems = append(c.problems, fmt.Sprintf("the write-ahead log cannot be moved into the file: %v", err))
	}
	return private, nil
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
	if c.file != nil {
		unix.Munmap(c.file)
	}
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}

// eachEntry reads the entries in order, from a file whose tables are those of
// an audit log.
func (c *copied) eachEntry(each func(index int64, leaf []byte) error) error {
	if err := c.sameSchema(); err != nil {
		return err
	}
	rows, err := c.db.Query("SELECT id, leaf FROM entries ORDER BY id")
	if err != nil {
		return err
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

// newestCheckpoint returns the newest checkpoint stored in the copy.
func (c *copied) newestCheckpoint() ([]byte, error) {
	if err := c.sameSchema(); err != nil {
		return nil, err
	}
	var data []byte
	err := c.db.QueryRow("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").Scan(&data)
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
	return c.eachEntry(func(_ int64, leaf []byte) error {
		if _, err := w.Write(leaf); err != nil {
			return err
		}
		_, err := w.Write([]byte{'\n'})
		return err
	})
}
