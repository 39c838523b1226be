package audit

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"chancery/appliance/database"
)

const origin = "issuer.example/log"

// noon is the time of all entries.
var noon = time.Unix(1_800_000_000, 0)

// key is a checkpoint key in memory; the token's are the same to this package.
type key struct {
	signer note.Signer
	vkey   string
}

func newKey(t testing.TB, kind string) key {
	t.Helper()
	var k key
	var err error
	if kind == "ed25519" {
		public, private, _ := ed25519.GenerateKey(rand.Reader)
		k.signer, err = NewSigner(origin, public, func(msg []byte) ([]byte, error) { return ed25519.Sign(private, msg), nil })
		if err == nil {
			k.vkey, err = VerifierKey(origin, public)
		}
	} else {
		private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		k.signer, err = NewSigner(origin, private.Public(), func(msg []byte) ([]byte, error) {
			digest := sha256.Sum256(msg)
			return ecdsa.SignASN1(rand.Reader, private, digest[:])
		})
		if err == nil {
			k.vkey, err = VerifierKey(origin, private.Public())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k key) verifier(t testing.TB) note.Verifier {
	t.Helper()
	v, err := NewVerifier(k.vkey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sign makes a checkpoint of any content.
func (k key) sign(t testing.TB, c Checkpoint) []byte {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: c.text()}, k.signer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func create(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signer.db")
	if err := Create(path, origin, noon); err != nil {
		t.Fatal(err)
	}
	return path
}

// tryOpen opens a log as the signer does: each entry is parsed.
func tryOpen(t testing.TB, path string, k key) (*Log, error) {
	t.Helper()
	return Open(path, func(_ int64, leaf []byte) error {
		_, err := ParseEntry(leaf)
		return err
	}, func() note.Verifier { return k.verifier(t) })
}

func openLog(t testing.TB, path string, k key) *Log {
	t.Helper()
	l, err := tryOpen(t, path, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func marshal(t testing.TB, e Entry) []byte {
	t.Helper()
	if e.Time == "" {
		e.Time = Stamp(noon)
	}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// leaf is an entry that only its number tells from others.
func leaf(t testing.TB, i int) []byte {
	t.Helper()
	return marshal(t, Entry{Kind: "offer.created", Subject: fmt.Sprintf("offer-%d", i)})
}

// long is an entry that fills n bytes and more.
func long(t testing.TB, n int) []byte {
	t.Helper()
	return marshal(t, Entry{Kind: KindRefused, Reason: strings.Repeat("x", n)})
}

// mustAppend appends leaves and returns the first one's index.
func mustAppend(t testing.TB, l *Log, leaves ...[]byte) int64 {
	t.Helper()
	first, err := l.Append(context.Background(), leaves...)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func mustCheckpoint(t testing.TB, l *Log, k key) []byte {
	t.Helper()
	signed, err := l.Checkpoint(context.Background(), k.signer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// filled makes a log of n entries and its first one, with checkpoints, and
// closes it.
func filled(t testing.TB, k key, n int) string {
	t.Helper()
	path := create(t)
	l := openLog(t, path, k)
	for i := range n {
		mustAppend(t, l, leaf(t, i))
		if i%7 == 0 || i == n-1 {
			mustCheckpoint(t, l, k)
		}
	}
	closeLog(t, l)
	return path
}

// change writes to the tables as somebody would who has the file.
func change(t testing.TB, path string, fn func(tx *database.Tx) error) {
	t.Helper()
	db, err := database.Open(path, schema)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Write(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// statements is a fn for change.
func statements(queries ...string) func(tx *database.Tx) error {
	return func(tx *database.Tx) error {
		for _, q := range queries {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return nil
	}
}

func verify(t testing.TB, path string, k key, kept ...[]byte) *Report {
	t.Helper()
	r, err := Verify(path, k.vkey, kept...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sound demands that a log of a size verifies.
func sound(t testing.TB, path string, k key, size int64, kept ...[]byte) *Report {
	t.Helper()
	r := verify(t, path, k, kept...)
	if !r.OK() || r.Size != size || r.Kept != len(kept) {
		t.Errorf("%d entries, %d of %d kept checkpoints, want %d entries: %v", r.Size, r.Kept, len(kept), size, r.Problems)
	}
	return r
}

// unsound demands that a problem is found that says why.
func unsound(t testing.TB, path string, k key, why string, kept ...[]byte) {
	t.Helper()
	if r := verify(t, path, k, kept...); r.OK() || !strings.Contains(strings.Join(r.Problems, "\n"), why) {
		t.Errorf("the problems are %q, want one with %q", r.Problems, why)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// snapshot is what a crash of the process at this instant would leave.
type snapshot struct{ file, wal []byte }

func snap(t testing.TB, path string) snapshot {
	t.Helper()
	return snapshot{read(t, path), read(t, path+"-wal")}
}

// put writes a snapshot to a folder of its own.
func (s snapshot) put(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signer.db")
	write(t, path, s.file)
	write(t, path+"-wal", s.wal)
	return path
}

func export(t testing.TB, path string) string {
	t.Helper()
	var b bytes.Buffer
	if err := Export(path, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
