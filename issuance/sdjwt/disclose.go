package sdjwt

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sort"

	"chancery/issuance/jws"
)

// selection is the tree of paths to be disclosed.
type selection struct {
	here     bool // a path ends here
	names    map[string]*selection
	indexes  map[int]*selection
	elements *selection // nil in a path: every element
}

func newSelection(paths []Path) (*selection, error) {
	root := &selection{}
	for _, path := range paths {
		at := root
		for _, step := range path {
			above := at
			if at = above.step(step); at == nil {
				return nil, fmt.Errorf("a path's step is a %T: it is a name, an index from 0, or nil", step)
			}
			if above.elements != nil && above.indexes != nil {
				return nil, errors.New("paths name every element of an array and one of them: use one way")
			}
		}
		if at == root {
			return nil, errors.New("a path is empty: the whole credential cannot be hidden")
		}
		at.here = true
	}
	if root.indexes != nil || root.elements != nil {
		return nil, errors.New("a path begins with the name of a claim")
	}
	return root, nil
}

// step returns the selection one step down, making it; nil for a step that is none.
func (s *selection) step(step any) *selection {
	switch step := step.(type) {
	case string:
		if s.names == nil {
			s.names = map[string]*selection{}
		}
		if s.names[step] == nil {
			s.names[step] = &selection{}
		}
		return s.names[step]
	case int:
		if step < 0 {
			return nil
		}
		if s.indexes == nil {
			s.indexes = map[int]*selection{}
		}
		if s.indexes[step] == nil {
			s.indexes[step] = &selection{}
		}
		return s.indexes[step]
	case nil:
		if s.elements == nil {
			s.elements = &selection{}
		}
		return s.elements
	}
	return nil
}

// member returns what is selected at a member of an object.
func (s *selection) member(name string) *selection {
	if s == nil {
		return nil
	}
	return s.names[name]
}

// element returns what is selected at an element of an array.
func (s *selection) element(i int) *selection {
	if s == nil {
		return nil
	}
	if one := s.indexes[i]; one != nil {
		return one
	}
	return s.elements
}

// builder turns claims into payload and disclosures.
type builder struct {
	random      io.Reader
	decoys      int
	disclosures []string
}

// object returns an object with what is selected taken out: its digests stand in _sd.
func (b *builder) object(claims map[string]any, s *selection, top bool) (map[string]any, error) {
	out := make(map[string]any, len(claims)+8) // room for the issuer's own
	var digests []string
	names := make([]string, 0, len(claims))
	for name := range claims {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := CheckName(name, top); err != nil {
			return nil, err
		}
		at := s.member(name)
		value, err := b.value(claims[name], at)
		if err != nil {
			return nil, err
		}
		if at == nil || !at.here {
			out[name] = value
			continue
		}
		digest, err := b.disclose(name, value)
		if err != nil {
			return nil, err
		}
		digests = append(digests, digest)
	}
	if len(digests) == 0 {
		return out, nil
	}
	for b.short(len(digests)) {
		decoy, err := b.decoy()
		if err != nil {
			return nil, err
		}
		digests = append(digests, decoy)
	}
	sort.Strings(digests) // the order must not tell the claims' (RFC 9901 §4.2.4.1)
	out["_sd"] = digests
	return out, nil
}

// short tells whether n digests need another decoy.
func (b *builder) short(n int) bool { return b.decoys > 1 && n%b.decoys != 0 }

// value goes down into objects and arrays. A path that goes further down than
// the value does is an error: what it meant to hide would stand in the open.
func (b *builder) value(value any, s *selection) (any, error) {
	within, elements := s != nil && s.names != nil, s != nil && (s.indexes != nil || s.elements != nil)
	switch value := value.(type) {
	case map[string]any:
		if elements {
			return nil, errors.New("a path names elements of what is an object")
		}
		return b.object(value, s, false)
	case []any:
		if within {
			return nil, errors.New("a path names members of what is an array")
		}
		return b.array(value, s)
	}
	if within || elements {
		return nil, errors.New("a path leads into what is neither object nor array")
	}
	return value, nil
}

// array returns an array with each element that is selected replaced by its
// digest, in place (RFC 9901 §4.2.4.2). Decoys follow at the end, so that an
// index means the same before and after disclosure.
func (b *builder) array(values []any, s *selection) (any, error) {
	out := make([]any, len(values))
	hidden := false
	for i, value := range values {
		at := s.element(i)
		value, err := b.value(value, at)
		if err != nil {
			return nil, err
		}
		if at != nil && at.here {
			digest, err := b.disclose(value)
			if err != nil {
				return nil, err
			}
			value, hidden = map[string]any{"...": digest}, true
		}
		out[i] = value
	}
	for hidden && b.short(len(out)) {
		decoy, err := b.decoy()
		if err != nil {
			return nil, err
		}
		out = append(out, map[string]any{"...": decoy})
	}
	return out, nil
}

// disclose makes a disclosure of a name and a value, or of an array's element
// alone, and returns its digest. The digest is over the base64url text as it is
// delivered; it is made once (RFC 9901 §4.2.3).
func (b *builder) disclose(content ...any) (string, error) {
	var salt [SaltSize]byte
	if _, err := io.ReadFull(b.random, salt[:]); err != nil {
		return "", err
	}
	data, err := jws.Marshal(append([]any{base64.RawURLEncoding.EncodeToString(salt[:])}, content...))
	if err != nil {
		return "", errors.New("a claim cannot be encoded as JSON")
	}
	disclosure := base64.RawURLEncoding.AppendEncode(nil, data)
	b.disclosures = append(b.disclosures, string(disclosure))
	return digestOf(disclosure), nil
}

func digestOf(disclosure []byte) string {
	sum := sha256.Sum256(disclosure)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// decoy is a digest of random bytes that nothing belongs to (RFC 9901 §4.2.5).
func (b *builder) decoy() (string, error) {
	var noise [sha256.Size]byte
	if _, err := io.ReadFull(b.random, noise[:]); err != nil {
		return "", err
	}
	return digestOf(noise[:]), nil
}
