package audit

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"chancery/appliance/database"
)

const origin = "issuer.example/log"

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

func create(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signer.db")
	if err := Create(path, origin, time.Unix(1_800_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return path
}

func openLog(t testing.TB, path string, k key) *Log {
	t.Helper()
	l, err := Open(path, nil, func() note.Verifier { return k.verifier(t) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func leaf(t testing.TB, i int) []byte {
	t.Helper()
	b, err := Entry{Time: Stamp(time.Unix(1_800_000_000, 0)), Kind: "offer.created", Subject: fmt.Sprintf("offer-%d", i), Seq: uint64(i)}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// filled makes a log of n entries with checkpoints and closes it.
func filled(t testing.TB, k key, n int) string {
	t.Helper()
	path := create(t)
	l := openLog(t, path, k)
	for i := range n {
		if _, err := l.Append(context.Background(), leaf(t, i)); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 || i == n-1 {
			if _, err := l.Checkpoint(context.Background(), k.signer); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func verify(t testing.TB, path string, k key, kept ...[]byte) *Report {
	t.Helper()
	r, err := Verify(path, k.vkey, kept...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newest returns the newest checkpoint in a copy.
func newest(t testing.TB, path string) []byte {
	t.Helper()
	c, err := openCopy(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	signed, err := c.newestCheckpoint()
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestASoundLogVerifies(t *testing.T) {
	for _, kind := range []string{"ed25519", "p256"} {
		k := newKey(t, kind)
		path := filled(t, k, 40)
		r := verify(t, path, k)
		if !r.OK() || r.Size != 41 || r.Covered != 41 {
			t.Errorf("%s: %+v", kind, r)
		}
		if r := verify(t, filepath.Dir(path), k); !r.OK() {
			t.Errorf("by its folder: %v", r.Problems)
		}
		l := openLog(t, path, k)
		if l.Size() != 41 {
			t.Errorf("reopened with %d entries", l.Size())
		}
	}
}

// TestPromiseP5EveryByteFlipIsNoticed flips each byte of a small log, and
// random bytes of a larger one with overflow pages and interior pages.
func TestPromiseP5EveryByteFlipIsNoticed(t *testing.T) {
	k := newKey(t, "ed25519")
	small, err := os.ReadFile(filled(t, k, 6))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	flips := make([]int, len(small))
	for i := range flips {
		flips[i] = i
	}
	if testing.Short() {
		flips = flips[:200]
	}
	flipAll(t, dir, small, flips, k)

	path := filled(t, k, 300)
	l := openLog(t, path, k)
	long := Entry{Time: Stamp(time.Unix(1, 0)), Kind: "key.created", Reason: strings.Repeat("x", 20000)}
	data, _ := long.Marshal()
	if _, err := l.Append(context.Background(), data); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Checkpoint(context.Background(), k.signer); err != nil {
		t.Fatal(err)
	}
	l.Close()
	large, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flips = nil
	for range 1500 {
		flips = append(flips, mathrand.IntN(len(large)))
	}
	flipAll(t, dir, large, flips, k)
}

func flipAll(t *testing.T, dir string, file []byte, flips []int, k key) {
	t.Helper()
	path := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, path, k); !r.OK() {
		t.Fatalf("the unchanged copy: %v", r.Problems)
	}
	missed := 0
	for _, at := range flips {
		changed := bytes.Clone(file)
		changed[at] ^= byte(1 << mathrand.IntN(8))
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(path, k.vkey)
		if err == nil && r.OK() {
			if missed++; missed < 10 {
				t.Errorf("byte %d (page %d, offset %d) changed from %#x to %#x without notice", at, at/pageSize+1, at%pageSize, file[at], changed[at])
			}
		}
	}
	if missed > 0 {
		t.Errorf("%d of %d flips were not noticed", missed, len(flips))
	}
}

// TestForgeriesAreNoticed rewrites the log as an attacker with write access
// would, keeping it consistent within itself where that is possible.
func TestForgeriesAreNoticed(t *testing.T) {
	k := newKey(t, "ed25519")
	other := newKey(t, "ed25519")
	for _, test := range []struct {
		name  string
		forge func(tx *database.Tx) error
		kept  bool // noticed only with a checkpoint that was kept elsewhere
	}{
		{"an entry's text", func(tx *database.Tx) error {
			_, err := tx.Exec("UPDATE entries SET leaf = ? WHERE id = 3", leaf(t, 99))
			return err
		}, false},
		{"an entry with its hash", func(tx *database.Tx) error {
			h := tlog.RecordHash(leaf(t, 99))
			_, err := tx.Exec("UPDATE entries SET leaf = ?, hash = ? WHERE id = 3", leaf(t, 99), h[:])
			return err
		}, false},
		{"the last entry dropped", func(tx *database.Tx) error {
			_, err := tx.Exec("DELETE FROM entries WHERE id = (SELECT max(id) FROM entries)")
			return err
		}, false},
		{"two entries swapped", func(tx *database.Tx) error {
			if _, err := tx.Exec("UPDATE entries SET id = 1000 WHERE id = 3"); err != nil {
				return err
			}
			if _, err := tx.Exec("UPDATE entries SET id = 3 WHERE id = 4"); err != nil {
				return err
			}
			_, err := tx.Exec("UPDATE entries SET id = 4 WHERE id = 1000")
			return err
		}, false},
		{"another key's checkpoint", func(tx *database.Tx) error {
			data, err := note.Sign(&note.Note{Text: Checkpoint{Origin: origin, Size: 5}.text()}, other.signer)
			if err != nil {
				return err
			}
			_, err = tx.Exec("UPDATE checkpoints SET note = ?", data)
			return err
		}, false},
		{"tail and checkpoints dropped", func(tx *database.Tx) error {
			if _, err := tx.Exec("DELETE FROM entries WHERE id > 5"); err != nil {
				return err
			}
			_, err := tx.Exec("DELETE FROM checkpoints")
			return err
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filled(t, k, 20)
			kept := newest(t, path)
			db, err := database.Open(path, schema)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Write(context.Background(), test.forge); err != nil {
				t.Fatal(err)
			}
			db.Close()
			if r := verify(t, path, k, kept); r.OK() {
				t.Error("the verifier did not notice")
			}
			l, err := Open(path, nil, func() note.Verifier { return k.verifier(t) })
			if err == nil {
				l.Close()
			}
			if !test.kept && !errors.Is(err, ErrTampered) {
				t.Errorf("the signer would start: %v", err)
			}
		})
	}
}

func TestProofs(t *testing.T) {
	k := newKey(t, "p256")
	path := filled(t, k, 33)
	proof, err := Prove(path, k.vkey, Wanted{Match: func(_ int64, e Entry) bool { return e.Subject == "offer-17" }})
	if err != nil || len(proof.Entries) != 1 {
		t.Fatalf("%v, %+v", err, proof)
	}
	proven, err := VerifyProof(proof, k.vkey)
	if err != nil || proven.Entries[0].Subject != "offer-17" || proven.Checkpoint.Size != 34 {
		t.Fatalf("%v %+v", err, proven)
	}
	for name, change := range map[string]func(p *Proof){
		"leaf":       func(p *Proof) { p.Entries[0].Leaf = string(leaf(t, 18)) },
		"index":      func(p *Proof) { p.Entries[0].Index++ },
		"path":       func(p *Proof) { p.Entries[0].Path = p.Entries[0].Path[1:] },
		"checkpoint": func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "34", "35", 1) },
	} {
		p := &Proof{Checkpoint: proof.Checkpoint, Entries: []EntryProof{proof.Entries[0]}}
		change(p)
		if _, err := VerifyProof(p, k.vkey); err == nil {
			t.Errorf("a proof with another %s verifies", name)
		}
	}
	if _, err := Prove(path, k.vkey, Wanted{Match: func(int64, Entry) bool { return false }}); err == nil {
		t.Error("no match is no proof")
	}
}

// TestTreeEqualsTlog holds the right edge against the library's tree hash.
func TestTreeEqualsTlog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(t, "n")
		var edge tree
		var leaves []tlog.Hash
		reader := nodes{}
		for i := range n {
			h := tlog.RecordHash([]byte(fmt.Sprint(i, rapid.Byte().Draw(t, "b"))))
			edge.add(h)
			leaves = append(leaves, h)
		}
		if err := reader.want(func(r tlog.HashReader) error { _, err := tlog.TreeHash(int64(n), r); return err }); err != nil {
			t.Fatal(err)
		}
		var again tree
		for _, h := range leaves {
			again.addNode(h, reader.keep)
		}
		want, err := tlog.TreeHash(int64(n), reader)
		if err != nil || edge.root() != want {
			t.Fatalf("%d leaves: %v, want %v (%v)", n, edge.root(), want, err)
		}
	})
}

func TestConcurrentAppendsAreAllThere(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	var mu sync.Mutex
	seen := map[int64]bool{0: true}
	var wait sync.WaitGroup
	for i := range 200 {
		wait.Go(func() {
			first, err := l.Append(context.Background(), leaf(t, 2*i), leaf(t, 2*i+1))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[first] || seen[first+1] {
				t.Errorf("append %d: index %d, %v", i, first, err)
			}
			seen[first], seen[first+1] = true, true
		})
	}
	wait.Wait()
	if l.Size() != 401 {
		t.Errorf("%d entries, want 401", l.Size())
	}
}

func TestOneWriter(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	if _, err := Open(path, nil, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: %v", err)
	}
	l.Close()
	if _, err := l.Append(context.Background(), leaf(t, 1)); !errors.Is(err, database.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

// TestAFailedCommitStopsTheLog makes the disk full: the append is refused, so
// is every later one, and a restart finds what was acknowledged.
func TestAFailedCommitStopsTheLog(t *testing.T) {
	dir := fullDisk(t)
	k := newKey(t, "ed25519")
	path := filepath.Join(dir, "signer.db")
	if err := Create(path, origin, time.Now()); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, path, k)
	acknowledged := int64(1)
	var failure error
	for i := range 100_000 {
		if _, failure = l.Append(context.Background(), leaf(t, i)); failure != nil {
			break
		}
		acknowledged++
	}
	if !errors.Is(failure, ErrFailed) {
		t.Fatalf("a full disk: %v", failure)
	}
	if _, err := l.Append(context.Background(), leaf(t, 0)); !errors.Is(err, ErrFailed) || !errors.Is(l.Failed(), ErrFailed) {
		t.Errorf("the next append: %v", err)
	}
	l.Close()
	os.Remove(filepath.Join(dir, "ballast"))
	again := openLog(t, path, k)
	if again.Size() != acknowledged {
		t.Errorf("%d entries after the restart, %d were acknowledged", again.Size(), acknowledged)
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-01T00:00:00.000Z","kind":"offer.created","seq":1}`))
	f.Add([]byte(`{"time":"2026-01-01T00:00:00.000Z","kind":"signature.made","intent":4}`))
	f.Add([]byte(`{"kind":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEntry(data)
		if err != nil {
			return
		}
		if _, err := e.Marshal(); err != nil && len(data) < MaxLeaf/8 {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

func FuzzWalk(f *testing.F) {
	k := newKey(f, "ed25519")
	file, err := os.ReadFile(filled(f, k, 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add(file[:4096])
	f.Fuzz(func(t *testing.T, data []byte) {
		walkFile(data, func(string, ...any) {})
	})
}

func FuzzCheckpoint(f *testing.F) {
	k := newKey(f, "ed25519")
	signed, err := note.Sign(&note.Note{Text: Checkpoint{Origin: origin, Size: 3}.text()}, k.signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed, k.vkey)
	f.Add([]byte("x\n1\n\n"), "a+b+c")
	f.Fuzz(func(t *testing.T, data []byte, vkey string) {
		v, err := NewVerifier(vkey)
		if err != nil {
			return
		}
		if c, err := OpenCheckpoint(data, v); err == nil && c.Size < 0 {
			t.Error("a negative size")
		}
	})
}

// BenchmarkAppend compares one durable commit an entry with commits that
// concurrent callers share.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			k := newKey(b, "ed25519")
			l := openLog(b, create(b), k)
			data := leaf(b, 1)
			work := make(chan struct{})
			var wait sync.WaitGroup
			for range callers {
				wait.Go(func() {
					for range work {
						if _, err := l.Append(context.Background(), data); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wait.Wait()
		})
	}
}
