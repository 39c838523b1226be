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
func (t *tree) add(h tlog.Hash) { t.addNode(h, nil) }

// addNode appends a leaf's hash and shows visit, unless it is nil, each subtree
// that is complete with it: its level, its number on that level, and its root.
func (t *tree) addNode(h tlog.Hash, visit func(level int, n int64, h tlog.Hash)) {
	level := 0
	for n := t.size; ; n >>= 1 {
		if visit != nil {
			visit(level, n, h)
		}
		if n&1 == 0 {
			break
		}
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

// nodes holds those hashes of a tree that proofs need, by tlog's numbering. It
// is filled in two steps: ask a proof for what it would read, then let the tree
// grow and keep that. So a proof takes memory by the logarithm of the log.
type nodes map[int64]tlog.Hash

// want notes the hashes that prove reads.
func (n nodes) want(prove func(r tlog.HashReader) error) error {
	return prove(tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		for _, i := range indexes {
			n[i] = tlog.Hash{}
		}
		return make([]tlog.Hash, len(indexes)), nil
	}))
}

// keep is for [tree.addNode].
func (n nodes) keep(level int, number int64, h tlog.Hash) {
	i := tlog.StoredHashIndex(level, number)
	if _, wanted := n[i]; wanted {
		n[i] = h
	}
}

// ReadHashes returns stored hashes by their tlog index.
func (n nodes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, ok := n[index]
		if !ok {
			return nil, fmt.Errorf("hash %d was not asked for", index)
		}
		out[i] = h
	}
	return out, nil
}
