package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func FuzzParseEntry(f *testing.F) {
	for _, seed := range []string{
		`{"time":"2026-01-01T00:00:00.000Z","kind":"offer.created","seq":1}`,
		`{"time":"2026-01-01T00:00:00.000Z","kind":"signature.made","key":"ds","types":["a","b"],"intent":4}`,
		`{"time":"2026-01-01T00:00:00.000Z","kind":"key.created","detail":{"label":"ds"}}`,
		`{"time":"2026-01-01T00:00:00.000Z","kind":"offer.created","subject":"Łódź \"quoted\""}`,
		`{"kind":1}`, `{"time":"`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		agree(t, data)
		e, err := ParseEntry(data)
		if err != nil {
			return
		}
		if again, err := e.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("what was read is written as %s (%v)", again, err)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	for _, kind := range []string{"ed25519", "p256"} {
		k := newKey(f, kind)
		f.Add(k.sign(f, Checkpoint{Origin: origin, Size: 3}), k.vkey)
		f.Add(append(k.sign(f, Checkpoint{Origin: origin, Size: 3}), "\u2014 w AAAAAA==\n"...), k.vkey)
	}
	f.Add([]byte("x\n1\n\n"), "a+b+c")
	f.Fuzz(func(t *testing.T, data []byte, vkey string) {
		v, err := NewVerifier(vkey)
		if err != nil {
			return
		}
		kept, err := OpenCheckpoint(data, v)
		if err == nil && (kept.Size < 0 || kept.Origin != v.Name()) {
			t.Errorf("%+v is a checkpoint of %q", kept, v.Name())
		}
		if stored, err := openStored(data, v); err == nil && stored != kept {
			t.Errorf("stored %+v, kept %+v", stored, kept)
		}
	})
}

func FuzzProof(f *testing.F) {
	k := newKey(f, "ed25519")
	leaf := `{"time":"2026-01-01T00:00:00.000Z","kind":"offer.created","seq":1}`
	one, two := tlog.RecordHash([]byte(leaf)), tlog.RecordHash([]byte("x"))
	small, large := k.sign(f, Checkpoint{origin, 1, one}), k.sign(f, Checkpoint{origin, 2, tlog.NodeHash(one, two)})
	for _, p := range []Proof{
		{Checkpoint: string(small), Entries: []EntryProof{{Leaf: leaf}}},
		{Checkpoint: string(large), Entries: []EntryProof{{Leaf: leaf, Path: []string{two.String()}}}, Kept: &KeptProof{Checkpoint: string(small), Path: []string{two.String()}}},
	} {
		if _, err := VerifyProof(&p, k.vkey, small); err != nil {
			f.Fatal(err)
		}
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"checkpoint":"","entries":[{"index":-1,"leaf":"","path":["AA=="]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProof(data)
		if err != nil {
			return
		}
		proven, err := VerifyProof(p, k.vkey)
		if err != nil {
			return
		}
		// Only what the key signed can be proven: these two trees.
		for _, e := range proven.Entries {
			if e.Kind != "offer.created" || e.Seq != 1 {
				t.Errorf("%+v is proven", e)
			}
		}
		if proven.Kept != nil && proven.Kept.Size > proven.Checkpoint.Size {
			t.Errorf("%+v comes before %+v", proven.Kept, proven.Checkpoint)
		}
	})
}

// edited changes data in many places at once: each four bytes of the fuzzer's are
// three of a place and one that is put there, and a rest of one byte cuts. So the
// fuzzer's input stays small, though the files are large.
func edited(data, edits []byte) []byte {
	out := bytes.Clone(data)
	for ; len(edits) >= 4; edits = edits[4:] {
		out[(int(edits[0])<<16|int(edits[1])<<8|int(edits[2]))%len(out)] = edits[3]
	}
	if len(edits) == 1 {
		out = out[:len(out)*int(edits[0])/256]
	}
	return out
}

func FuzzWalkWAL(f *testing.F) {
	wal := append(newWAL(binary.LittleEndian).commit(1).commit(2).data, newWAL(binary.BigEndian).commit(1).data...)
	f.Add([]byte{})
	f.Add([]byte{0, 0, 40, 9, 0, 16, 56, 0})
	f.Add([]byte{0, 0, 3, 0x83, 200})
	f.Fuzz(func(t *testing.T, edits []byte) {
		changed, torn := walkWAL(edited(wal, edits))
		if changed != nil && torn != nil {
			t.Errorf("both %v and %v", changed, torn)
		}
	})
}

// FuzzWalkFile walks a file with interior and overflow pages.
func FuzzWalkFile(f *testing.F) {
	k := newKey(f, "ed25519")
	path := filled(f, k, 60)
	l := openLog(f, path, k)
	mustAppend(f, l, long(f, 9000))
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	file := read(f, path)
	f.Add([]byte{})
	f.Add([]byte{0, 16, 3, 0xff, 0, 16, 13, 0x7f})
	f.Add([]byte{0, 0, 36, 1, 0, 0, 35, 2, 128})
	f.Fuzz(func(t *testing.T, edits []byte) {
		data := edited(file, edits)
		report := &Report{}
		walkFile(data, report.problem)
		if len(data) < len(file) && report.OK() {
			t.Error("half a file is accounted for")
		}
	})
}

// FuzzVerify changes a sound file. Verify comes to an end, and where it finds
// nothing the entries are as they were.
func FuzzVerify(f *testing.F) {
	k := newKey(f, "ed25519")
	path := filled(f, k, 12)
	file, whole := read(f, path), export(f, path)
	f.Add([]byte{0, 0, 100, 0x0d})
	f.Add([]byte{0, 16, 0, 0x05, 0, 16, 3, 0xff})
	f.Add([]byte{0, 0, 52, 1, 0, 0, 36, 1, 0, 0, 32, 0})
	f.Fuzz(func(t *testing.T, edits []byte) {
		path := filepath.Join(t.TempDir(), "copy.db")
		if err := os.WriteFile(path, edited(file, edits), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Verify(path, k.vkey); err == nil && r.OK() && export(t, path) != whole {
			t.Error("the entries were changed without notice")
		}
	})
}
