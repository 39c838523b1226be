package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"chancery/appliance/database"
)

// hashes are those of n leaves.
func hashes(n int) []tlog.Hash {
	list := make([]tlog.Hash, n)
	for i := range list {
		list[i] = tlog.RecordHash(fmt.Appendf(nil, "leaf %d", i))
	}
	return list
}

// split is the largest power of two below n (RFC 6962 §2.1).
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// treeHash is MTH of RFC 6962 §2.1, word for word.
func treeHash(d []tlog.Hash) tlog.Hash {
	if len(d) == 1 {
		return d[0]
	}
	k := split(len(d))
	return tlog.NodeHash(treeHash(d[:k]), treeHash(d[k:]))
}

// auditPath is PATH of RFC 6962 §2.1.1, word for word.
func auditPath(m int, d []tlog.Hash) []tlog.Hash {
	if len(d) == 1 {
		return nil
	}
	k := split(len(d))
	if m < k {
		return append(auditPath(m, d[:k]), treeHash(d[k:]))
	}
	return append(auditPath(m-k, d[k:]), treeHash(d[:k]))
}

// subProof is SUBPROOF of RFC 6962 §2.1.2, word for word; PROOF(m, D) is
// subProof(m, D, true).
func subProof(m int, d []tlog.Hash, whole bool) []tlog.Hash {
	if m == len(d) {
		if whole {
			return nil
		}
		return []tlog.Hash{treeHash(d)}
	}
	k := split(len(d))
	if m <= k {
		return append(subProof(m, d[:k], whole), treeHash(d[k:]))
	}
	return append(subProof(m-k, d[k:], false), treeHash(d[:k]))
}

// TestTreeEqualsTheSpecification holds roots and proofs of random trees against
// RFC 6962's definitions, written down again here, and the memory that a proof
// takes against the logarithm of the tree.
func TestTreeEqualsTheSpecification(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(r, "n")
		index := rapid.IntRange(0, n-1).Draw(r, "index")
		kept := rapid.IntRange(1, n).Draw(r, "kept")
		all := hashes(n)
		needed := nodes{}
		var inclusion tlog.RecordProof
		var consistency tlog.TreeProof
		prove := func(reader tlog.HashReader) (err error) {
			if inclusion, err = tlog.ProveRecord(int64(n), int64(index), reader); err == nil {
				consistency, err = tlog.ProveTree(int64(n), int64(kept), reader)
			}
			return err
		}
		if err := needed.want(prove); err != nil {
			r.Fatal(err)
		}
		if limit := 4 * bits.Len(uint(n)); len(needed) > limit {
			r.Errorf("%d hashes are kept for two proofs in %d leaves, more than %d", len(needed), n, limit)
		}
		var plain, kind tree
		for _, h := range all {
			plain.add(h)
			kind.addNode(h, needed.keep)
		}
		if plain.root() != treeHash(all) || kind.root() != treeHash(all) || plain.size != int64(n) {
			r.Fatalf("the root of %d leaves is not that of the specification", n)
		}
		if err := prove(needed); err != nil {
			r.Fatal(err)
		}
		if !slices.Equal(inclusion, auditPath(index, all)) {
			r.Errorf("the audit path of %d in %d is not that of the specification", index, n)
		}
		if !slices.Equal(consistency, subProof(kept, all[:n], true)) {
			r.Errorf("the consistency proof of %d in %d is not that of the specification", kept, n)
		}
	})
}

// TestEmptyTree compares with SHA-256 of nothing (RFC 6962 §2.1).
func TestEmptyTree(t *testing.T) {
	var empty tree
	if got := empty.root().String(); got != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
		t.Errorf("the root is %s", got)
	}
	if _, err := (nodes{}).ReadHashes([]int64{1}); err == nil {
		t.Error("a hash that nobody wanted is there")
	}
}

// TestKnownRoots compares with the vectors of Certificate Transparency's own
// tests: eight leaves, of which the roots are given for each size.
func TestKnownRoots(t *testing.T) {
	leaves := []string{"", "\x00", "\x10", "\x20\x21", "\x30\x31", "\x40\x41\x42\x43", "\x50\x51\x52\x53\x54\x55\x56\x57", "\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f"}
	roots := map[int]string{
		1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var t8 tree
	for i, leaf := range leaves {
		t8.add(tlog.RecordHash([]byte(leaf)))
		root := t8.root()
		if want, known := roots[i+1]; known && fmt.Sprintf("%x", root[:]) != want {
			t.Errorf("the root of %d leaves is %x, want %s", i+1, root[:], want)
		}
	}
}

// proven makes a log of 34 entries and a proof of one of them, and that an older
// checkpoint is its beginning.
func proven(t *testing.T, k key) (path string, kept []byte, proof *Proof) {
	t.Helper()
	path = create(t)
	l := openLog(t, path, k)
	for i := range 33 {
		mustAppend(t, l, leaf(t, i))
		if i == 11 {
			kept = mustCheckpoint(t, l, k)
		}
	}
	mustCheckpoint(t, l, k)
	closeLog(t, l)
	proof, err := Prove(path, k.vkey, Wanted{Match: subject("offer-17"), Kept: kept})
	if err != nil {
		t.Fatal(err)
	}
	return path, kept, proof
}

func subject(is string) func(int64, Entry) bool {
	return func(_ int64, e Entry) bool { return e.Subject == is }
}

// reprint takes a proof through its JSON, indented, as a person would send it.
func reprint(t testing.TB, p *Proof) *Proof {
	t.Helper()
	data, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseProof(data)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestPromiseP5AProofShowsAnEntryAndTheLogsBeginning(t *testing.T) {
	k := newKey(t, "p256")
	path, kept, proof := proven(t, k)
	got, err := VerifyProof(reprint(t, proof), k.vkey, kept, newest(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Entries) != 1 || got.Entries[0].Subject != "offer-17" || got.Checkpoint.Size != 34 || got.Kept == nil || got.Kept.Size != 13 {
		t.Errorf("proven: %+v", got)
	}
	all, err := Prove(path, k.vkey, Wanted{Match: func(int64, Entry) bool { return true }})
	if err != nil || len(all.Entries) != 34 || all.Kept != nil {
		t.Fatalf("all entries: %v", err)
	}
	if _, err := VerifyProof(reprint(t, all), k.vkey); err != nil {
		t.Errorf("all entries: %v", err)
	}
}

// TestChangedProofs changes each part of a proof.
func TestChangedProofs(t *testing.T) {
	k := newKey(t, "ed25519")
	path, kept, good := proven(t, k)
	zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, change := range map[string]func(p *Proof){
		"another leaf":             func(p *Proof) { p.Entries[0].Leaf = string(leaf(t, 18)) },
		"another index":            func(p *Proof) { p.Entries[0].Index++ },
		"an index before":          func(p *Proof) { p.Entries[0].Index = -1 },
		"an index behind":          func(p *Proof) { p.Entries[0].Index = 34 },
		"a shorter path":           func(p *Proof) { p.Entries[0].Path = p.Entries[0].Path[1:] },
		"a longer path":            func(p *Proof) { p.Entries[0].Path = append(p.Entries[0].Path, zero) },
		"another path":             func(p *Proof) { p.Entries[0].Path[2] = zero },
		"a path of no hash":        func(p *Proof) { p.Entries[0].Path[0] = "AAAA" },
		"a path of no base64":      func(p *Proof) { p.Entries[0].Path[0] = "?" },
		"another size":             func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n34\n", "\n35\n", 1) },
		"no checkpoint":            func(p *Proof) { p.Checkpoint = "" },
		"another kept size":        func(p *Proof) { p.Kept.Checkpoint = strings.Replace(p.Kept.Checkpoint, "\n13\n", "\n14\n", 1) },
		"checkpoints swapped":      func(p *Proof) { p.Checkpoint, p.Kept.Checkpoint = p.Kept.Checkpoint, p.Checkpoint },
		"a shorter way":            func(p *Proof) { p.Kept.Path = p.Kept.Path[1:] },
		"another way":              func(p *Proof) { p.Kept.Path[0] = zero },
		"a way of no hash":         func(p *Proof) { p.Kept.Path[0] = "" },
		"a kept tree that is none": func(p *Proof) { p.Kept.Checkpoint = string(k.sign(t, Checkpoint{origin, 13, tlog.Hash{1}})) },
		"a kept tree of none":      func(p *Proof) { p.Kept.Checkpoint = string(k.sign(t, Checkpoint{origin, 0, tlog.Hash{}})) },
		"nothing":                  func(p *Proof) { p.Entries, p.Kept = nil, nil },
		"another log's checkpoint": func(p *Proof) { p.Checkpoint = string(k.sign(t, Checkpoint{"other.example/log", 34, tlog.Hash{}})) },
		"an entry that is none": func(p *Proof) {
			one := []byte("no entry")
			*p = Proof{Checkpoint: string(k.sign(t, Checkpoint{origin, 1, tlog.RecordHash(one)})), Entries: []EntryProof{{Leaf: string(one)}}}
		},
	} {
		p := reprint(t, good)
		change(p)
		if _, err := VerifyProof(p, k.vkey); err == nil {
			t.Errorf("%s: the proof verifies", name)
		}
	}
	if _, err := VerifyProof(good, newKey(t, "ed25519").vkey); err == nil {
		t.Error("the proof verifies under another key")
	}
	if _, err := VerifyProof(good, "nonsense"); err == nil {
		t.Error("the proof verifies under no key")
	}
	// A checkpoint that was kept, but is not the one in the proof.
	between := k.sign(t, Checkpoint{origin, 14, tlog.Hash{}})
	for _, other := range [][]byte{between, []byte("no checkpoint")} {
		if _, err := VerifyProof(good, k.vkey, kept, other); err == nil {
			t.Errorf("the proof is about %q", other)
		}
	}
	alone, err := Prove(path, k.vkey, Wanted{Match: subject("offer-17")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyProof(alone, k.vkey, kept); err == nil || !strings.Contains(err.Error(), "not about the kept checkpoint of 13 entries") {
		t.Errorf("a proof without an older checkpoint is about one: %v", err)
	}
}

// TestProofsThatCannotBeMade asks for what the log does not give.
func TestProofsThatCannotBeMade(t *testing.T) {
	k := newKey(t, "ed25519")
	path, kept, _ := proven(t, k)
	future := k.sign(t, Checkpoint{origin, 35, tlog.Hash{}})
	foreign := k.sign(t, Checkpoint{origin, 13, tlog.Hash{1}})
	for name, test := range map[string]struct {
		wanted Wanted
		why    string
	}{
		"no match":                        {Wanted{Match: subject("offer-99")}, "no entry matches"},
		"nothing":                         {Wanted{}, "proves nothing"},
		"a checkpoint of the future":      {Wanted{Kept: future}, "covers 35 entries, the newest one 34"},
		"a checkpoint of another history": {Wanted{Kept: foreign}, "not the beginning of the log"},
		"no checkpoint":                   {Wanted{Kept: []byte("x")}, "the kept checkpoint"},
	} {
		if _, err := Prove(path, k.vkey, test.wanted); err == nil || !strings.Contains(err.Error(), test.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Prove(path, "nonsense", Wanted{Kept: kept}); err == nil {
		t.Error("proven under no key")
	}
	if _, err := Prove(path, newKey(t, "ed25519").vkey, Wanted{Kept: kept}); err == nil {
		t.Error("proven under another key")
	}
	l := openLog(t, path, k)
	mustAppend(t, l, leaf(t, 50))
	closeLog(t, l)
	if _, err := Prove(path, k.vkey, Wanted{Match: subject("offer-50")}); err == nil || !strings.Contains(err.Error(), "entry 34 is newer than the newest checkpoint of 34 entries") {
		t.Errorf("an entry without a checkpoint: %v", err)
	}
	change(t, path, statements("DELETE FROM entries WHERE id = 3"))
	if _, err := Prove(path, k.vkey, Wanted{Kept: kept}); err == nil || !strings.Contains(err.Error(), "entry 2 is missing") {
		t.Errorf("a log with a gap: %v", err)
	}
	if _, err := Prove(create(t), k.vkey, Wanted{Kept: kept}); err == nil || !strings.Contains(err.Error(), "no checkpoint yet") {
		t.Errorf("a log without a checkpoint: %v", err)
	}
}

// TestAChangedLogProvesNothing changes an entry and its hash: no proof comes out.
func TestAChangedLogProvesNothing(t *testing.T) {
	k := newKey(t, "ed25519")
	path, kept, _ := proven(t, k)
	change(t, path, func(tx *database.Tx) error {
		h := tlog.RecordHash(leaf(t, 99))
		_, err := tx.Exec("UPDATE entries SET leaf = ?, hash = ? WHERE id = 3", leaf(t, 99), h[:])
		return err
	})
	for _, wanted := range []Wanted{{Kept: kept}, {Match: subject("offer-17")}} {
		if p, err := Prove(path, k.vkey, wanted); err == nil || !strings.Contains(err.Error(), "does not fit its checkpoints") {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// TestAKeptCheckpointOfNothing goes on from an empty tree.
func TestAKeptCheckpointOfNothing(t *testing.T) {
	k := newKey(t, "ed25519")
	path, _, _ := proven(t, k)
	var empty tree
	kept := k.sign(t, Checkpoint{origin, 0, empty.root()})
	proof, err := Prove(path, k.vkey, Wanted{Kept: kept})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyProof(reprint(t, proof), k.vkey, kept); err != nil {
		t.Error(err)
	}
	sound(t, path, k, 34, kept)
	proof.Kept.Path = []string{base64.StdEncoding.EncodeToString(make([]byte, 32))}
	if _, err := VerifyProof(proof, k.vkey); err == nil {
		t.Error("a way from nothing")
	}
}

// TestProofsInJSON reads proofs strictly.
func TestProofsInJSON(t *testing.T) {
	k := newKey(t, "ed25519")
	_, _, proof := proven(t, k)
	good, err := json.Marshal(proof)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":          nil,
		"a list":           []byte("[]"),
		"two":              append(bytes.Clone(good), good...),
		"an unknown thing": bytes.Replace(good, []byte(`"index"`), []byte(`"number"`), 1),
		"cut":              good[:len(good)-1],
		"text behind":      append(bytes.Clone(good), "x"...),
	} {
		if _, err := ParseProof(bad); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	if _, err := ParseProof(append(bytes.Clone(good), " \n"...)); err != nil {
		t.Errorf("white space behind: %v", err)
	}
}
