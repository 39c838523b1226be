package audit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Signature types of C2SP signed-note.
const (
	typeEd25519 = 0x01
	typeECDSA   = 0x02
)

// Checkpoint is a tree's size and root under an origin (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// text renders the note's text.
func (c Checkpoint) text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// parseCheckpoint reads a note's text strictly; extension lines are refused,
// as this log writes none.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] == "" {
		return Checkpoint{}, errors.New("a checkpoint has three lines: origin, size, root")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, errors.New("the checkpoint's size is not a number")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, errors.New("the checkpoint's root is not a SHA-256 in base64")
	}
	c := Checkpoint{Origin: lines[0], Size: size}
	copy(c.Root[:], root)
	return c, nil
}

// OpenCheckpoint checks a checkpoint's signature against the key and its form.
func OpenCheckpoint(data []byte, verifier note.Verifier) (Checkpoint, error) {
	n, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint is not signed by %s: %w", verifier.Name(), err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != verifier.Name() {
		return Checkpoint{}, fmt.Errorf("the checkpoint is of %q, not of %q", c.Origin, verifier.Name())
	}
	return c, nil
}

// VerifierKey returns the vkey string of a checkpoint key (C2SP signed-note):
// Ed25519 as type 0x01, NIST curves as type 0x02.
func VerifierKey(name string, public crypto.PublicKey) (string, error) {
	kind, material, id, err := keyMaterial(name, public)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s+%08x+%s", name, id, base64.StdEncoding.EncodeToString(append([]byte{kind}, material...))), nil
}

func keyMaterial(name string, public crypto.PublicKey) (kind byte, material []byte, id uint32, err error) {
	switch key := public.(type) {
	case ed25519.PublicKey:
		h := sha256.New()
		h.Write([]byte(name + "\n"))
		h.Write([]byte{typeEd25519})
		h.Write(key)
		return typeEd25519, key, binary.BigEndian.Uint32(h.Sum(nil)), nil
	case *ecdsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return 0, nil, 0, err
		}
		sum := sha256.Sum256(der)
		return typeECDSA, der, binary.BigEndian.Uint32(sum[:]), nil
	}
	return 0, nil, 0, fmt.Errorf("a %T cannot sign checkpoints: use Ed25519 or a NIST curve", public)
}

// verifier checks notes by a public key.
type verifier struct {
	name   string
	id     uint32
	public crypto.PublicKey
}

// NewVerifier reads a vkey string.
func NewVerifier(vkey string) (note.Verifier, error) {
	bad := errors.New("the verifier key is not NAME+HEXID+BASE64: take it from the ceremony's checkpoint.vkey")
	parts := strings.SplitN(strings.TrimSpace(vkey), "+", 3)
	if len(parts) != 3 {
		return nil, bad
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) < 2 {
		return nil, bad
	}
	var public crypto.PublicKey
	switch {
	case data[0] == typeEd25519 && len(data) == 1+ed25519.PublicKeySize:
		public = ed25519.PublicKey(bytes.Clone(data[1:]))
	case data[0] == typeECDSA:
		key, err := x509.ParsePKIXPublicKey(data[1:])
		if err != nil {
			return nil, bad
		}
		public = key
	default:
		return nil, bad
	}
	_, _, id, err := keyMaterial(parts[0], public)
	if err != nil {
		return nil, err
	}
	if fmt.Sprintf("%08x", id) != strings.ToLower(parts[1]) {
		return nil, errors.New("the verifier key's id does not fit its key: it was changed or cut")
	}
	return &verifier{parts[0], id, public}, nil
}

// Name returns the key's name, which is the log's origin.
func (v *verifier) Name() string { return v.name }

// KeyHash returns the key's id.
func (v *verifier) KeyHash() uint32 { return v.id }

// Verify tells whether sig signs msg.
func (v *verifier) Verify(msg, sig []byte) bool {
	switch key := v.public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, msg, sig)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(key, digest[:], sig)
	}
	return false
}

// signer makes notes with a function that signs a message in the token.
type signer struct {
	name string
	id   uint32
	sign func(msg []byte) ([]byte, error)
}

// NewSigner returns a note signer over a function that returns the signature
// of a message as the key's type has it: 64 bytes for Ed25519, ASN.1 DER of an
// ECDSA signature over SHA-256 for a NIST curve.
func NewSigner(name string, public crypto.PublicKey, sign func(msg []byte) ([]byte, error)) (note.Signer, error) {
	_, _, id, err := keyMaterial(name, public)
	if err != nil {
		return nil, err
	}
	return &signer{name, id, sign}, nil
}

// Name returns the key's name, which is the log's origin.
func (s *signer) Name() string { return s.name }

// KeyHash returns the key's id.
func (s *signer) KeyHash() uint32 { return s.id }

// Sign signs msg in the token.
func (s *signer) Sign(msg []byte) ([]byte, error) { return s.sign(msg) }
