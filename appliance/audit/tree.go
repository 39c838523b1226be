package audit

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the right edge of a Merkle tree (RFC 6962 §2.1): enough to append and
// to tell the root, in memory that grows with the logarithm of its size.
type tree struct {
	size int64
	// edge[l] is the root of the complete subtree of 2^l leaves where bit l of
	// size is set.
	edge [64]tlog.Hash
}

// add appends a leaf's hash.
func (t *tree) add(h tlog.Hash) {
	level := 0
	for n := t.size; n&1 == 1; n >>= 1 {
		h = tlog.NodeHash(t.edge[level], h)
		level++
	}
	t.edge[level] = h
	t.size++
}

// root returns the tree's root; that of the empty tree is SHA-256 of nothing.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		root, err := tlog.TreeHash(0, nil)
		if err != nil {
			return tlog.Hash{}
		}
		return root
	}
	var root tlog.Hash
	have := false
	for level := range 63 {
		if t.size>>level&1 == 0 {
			continue
		}
		if have {
			root = tlog.NodeHash(t.edge[level], root)
		} else {
			root, have = t.edge[level], true
		}
	}
	return root
}

// hashes holds a whole tree in memory as tlog numbers it, for proofs.
type hashes []tlog.Hash

func (h *hashes) add(n int64, leaf tlog.Hash) error {
	stored, err := tlog.StoredHashesForRecordHash(n, leaf, h)
	*h = append(*h, stored...)
	return err
}

// ReadHashes returns stored hashes by their tlog index.
func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index < 0 || index >= int64(len(*h)) {
			return nil, fmt.Errorf("hash %d is not in the tree", index)
		}
		out[i] = (*h)[index]
	}
	return out, nil
}
