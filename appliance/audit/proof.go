package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows, to somebody who has the log's public key and not the log, that
// entries are in the tree of a checkpoint, and that an older checkpoint's tree is
// the beginning of it.
type Proof struct {
	// Checkpoint is the signed note, the newest of the log when the proof was made.
	Checkpoint string `json:"checkpoint"`
	// Entries are those that are proven.
	Entries []EntryProof `json:"entries,omitempty"`
	// Kept is the older checkpoint, or nil.
	Kept *KeptProof `json:"kept,omitempty"`
}

// EntryProof shows that one entry is in the tree.
type EntryProof struct {
	// Index is the entry's number, from 0.
	Index int64 `json:"index"`
	// Leaf is the entry's line, byte for byte as it was hashed.
	Leaf string `json:"leaf"`
	// Path is the audit path (RFC 6962 §2.1.1), hashes in base64.
	Path []string `json:"path"`
}

// KeptProof shows that nothing under an older checkpoint was changed since.
type KeptProof struct {
	// Checkpoint is the older signed note, as it was kept.
	Checkpoint string `json:"checkpoint"`
	// Path is the consistency proof (RFC 6962 §2.1.2), hashes in base64.
	Path []string `json:"path"`
}

// Wanted is what [Prove] is asked to prove.
type Wanted struct {
	// Match tells which entries; nil for none.
	Match func(index int64, e Entry) bool
	// Kept is an older checkpoint, a signed note; nil for none.
	Kept []byte
}

// Prove makes a proof under the newest checkpoint of a copy. Entries that match
// but are newer than the checkpoint are an error, as is a match of none. The
// result was checked with [VerifyProof]: a log that does not give the roots of
// its checkpoints proves nothing.
func Prove(path, vkey string, wanted Wanted) (*Proof, error) {
	key, err := NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	c, err := openCopy(path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	signed, err := c.newestCheckpoint()
	if err != nil {
		return nil, err
	}
	newest, err := openStored(signed, key)
	if err != nil {
		return nil, err
	}
	p := &Proof{Checkpoint: string(signed)}
	if wanted.Match != nil {
		if err := c.findEntries(p, newest.Size, wanted.Match); err != nil {
			return nil, err
		}
	}
	var kept Checkpoint
	if wanted.Kept != nil {
		if kept, err = OpenCheckpoint(wanted.Kept, key); err != nil {
			return nil, fmt.Errorf("the kept checkpoint: %w", err)
		}
		if err := orderOf(kept, newest); err != nil {
			return nil, err
		}
		p.Kept = &KeptProof{Checkpoint: string(wanted.Kept)}
	}
	if err := c.fillPaths(p, newest.Size, kept.Size); err != nil {
		return nil, err
	}
	if _, err := p.check(key); err != nil {
		return nil, fmt.Errorf("the log does not fit its checkpoints (audit verify says more): %w", err)
	}
	return p, nil
}

// findEntries puts the entries that match into the proof.
func (c *copied) findEntries(p *Proof, size int64, match func(int64, Entry) bool) error {
	err := c.eachEntry(func(index int64, leaf []byte) error {
		e, err := ParseEntry(leaf)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if !match(index, e) {
			return nil
		}
		if index >= size {
			return fmt.Errorf("entry %d is newer than the newest checkpoint of %d entries: take a copy after the next checkpoint", index, size)
		}
		p.Entries = append(p.Entries, EntryProof{Index: index, Leaf: string(leaf)})
		return nil
	})
	if err == nil && len(p.Entries) == 0 {
		err = errors.New("no entry matches")
	}
	return err
}

// fillPaths grows the tree once, keeps the hashes that the proof needs, and
// fills in its paths. kept is the size of the older checkpoint's tree.
func (c *copied) fillPaths(p *Proof, size, kept int64) error {
	needed := nodes{}
	fill := func(r tlog.HashReader) error {
		for i := range p.Entries {
			path, err := tlog.ProveRecord(size, p.Entries[i].Index, r)
			if err != nil {
				return err
			}
			p.Entries[i].Path = encodePath(path)
		}
		if p.Kept == nil || kept == 0 {
			return nil // everything begins with nothing
		}
		path, err := tlog.ProveTree(size, kept, r)
		if err == nil {
			p.Kept.Path = encodePath(path)
		}
		return err
	}
	if err := needed.want(fill); err != nil {
		return err
	}
	var t tree
	if err := c.eachEntry(func(index int64, leaf []byte) error {
		if index != t.size {
			return fmt.Errorf("entry %d is missing", t.size)
		}
		if index < size {
			t.addNode(tlog.RecordHash(leaf), needed.keep)
		}
		return nil
	}); err != nil {
		return err
	}
	return fill(needed)
}

func encodePath(hashes []tlog.Hash) []string {
	path := make([]string, len(hashes))
	for i, h := range hashes {
		path[i] = base64.StdEncoding.EncodeToString(h[:])
	}
	return path
}

func decodePath(path []string) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(path))
	for i, text := range path {
		h, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(h) != tlog.HashSize {
			return nil, fmt.Errorf("path[%d] is not a hash in base64", i)
		}
		copy(hashes[i][:], h)
	}
	return hashes, nil
}

// ParseProof reads a proof's JSON strictly.
func ParseProof(data []byte) (*Proof, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	p := &Proof{}
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("not a proof as \"audit prove\" prints it: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the proof")
	}
	return p, nil
}

// Proven is what a proof shows.
type Proven struct {
	Checkpoint Checkpoint `json:"checkpoint"`
	// Entries are those of the proof, in its order.
	Entries []Entry `json:"entries,omitempty"`
	// Kept is the older checkpoint, or nil.
	Kept *Checkpoint `json:"kept,omitempty"`
}

// VerifyProof checks a proof with the public key alone. Each of kept, signed
// notes, must be one of the two checkpoints that the proof is about.
func VerifyProof(p *Proof, vkey string, kept ...[]byte) (*Proven, error) {
	key, err := NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	proven, err := p.check(key)
	if err != nil {
		return nil, err
	}
	for _, data := range kept {
		c, err := OpenCheckpoint(data, key)
		if err != nil {
			return nil, fmt.Errorf("the kept checkpoint: %w", err)
		}
		if c != proven.Checkpoint && (proven.Kept == nil || c != *proven.Kept) {
			return nil, fmt.Errorf("the proof is not about the kept checkpoint of %d entries: make it with audit prove --checkpoint", c.Size)
		}
	}
	return proven, nil
}

func (p *Proof) check(key note.Verifier) (*Proven, error) {
	if len(p.Entries) == 0 && p.Kept == nil {
		return nil, errors.New("the proof proves nothing: it has neither entries nor an older checkpoint")
	}
	newest, err := OpenCheckpoint([]byte(p.Checkpoint), key)
	if err != nil {
		return nil, err
	}
	proven := &Proven{Checkpoint: newest}
	for _, proof := range p.Entries {
		e, err := proof.check(newest)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", proof.Index, err)
		}
		proven.Entries = append(proven.Entries, e)
	}
	if p.Kept != nil {
		kept, err := OpenCheckpoint([]byte(p.Kept.Checkpoint), key)
		if err != nil {
			return nil, fmt.Errorf("the kept checkpoint: %w", err)
		}
		if err := p.Kept.check(kept, newest); err != nil {
			return nil, err
		}
		proven.Kept = &kept
	}
	return proven, nil
}

func (p EntryProof) check(newest Checkpoint) (Entry, error) {
	path, err := decodePath(p.Path)
	if err != nil {
		return Entry{}, err
	}
	if p.Index < 0 || p.Index >= newest.Size {
		return Entry{}, fmt.Errorf("it is not under the checkpoint of %d entries", newest.Size)
	}
	if err := tlog.CheckRecord(path, newest.Size, newest.Root, p.Index, tlog.RecordHash([]byte(p.Leaf))); err != nil {
		return Entry{}, fmt.Errorf("it is not in the checkpoint's tree: %w", err)
	}
	return ParseEntry([]byte(p.Leaf))
}

// orderOf refuses a kept checkpoint that is newer than the newest one.
func orderOf(kept, newest Checkpoint) error {
	if kept.Size > newest.Size {
		return fmt.Errorf("the kept checkpoint covers %d entries, the newest one %d: entries were dropped, or the copy is older than the checkpoint", kept.Size, newest.Size)
	}
	return nil
}

func (p *KeptProof) check(kept, newest Checkpoint) error {
	path, err := decodePath(p.Path)
	if err != nil {
		return fmt.Errorf("the kept checkpoint: %w", err)
	}
	if err := orderOf(kept, newest); err != nil {
		return err
	}
	if kept.Size == 0 {
		var empty tree
		if kept.Root != empty.root() || len(path) != 0 {
			return errors.New("the kept checkpoint of no entries has entries")
		}
		return nil
	}
	if err := tlog.CheckTree(path, newest.Size, newest.Root, kept.Size, kept.Root); err != nil {
		return fmt.Errorf("the kept checkpoint's %d entries are not the beginning of the log: %w", kept.Size, err)
	}
	return nil
}
