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
	"unicode"
	"unicode/utf8"

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
	Origin string    `json:"origin"`
	Size   int64     `json:"size"`
	Root   tlog.Hash `json:"root"` // base64
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

// openStored is [OpenCheckpoint] for a note in signer.db, which holds the log's
// own signature and nothing more, in the one way this program writes it: lenient
// base64 would let a byte change without notice.
func openStored(data []byte, verifier note.Verifier) (Checkpoint, error) {
	c, err := OpenCheckpoint(data, verifier)
	if err != nil {
		return c, err
	}
	head := c.text() + "\n\u2014 " + verifier.Name() + " "
	encoded, ok := strings.CutPrefix(string(data), head)
	if !ok || !strings.HasSuffix(encoded, "\n") {
		return c, errors.New("the checkpoint holds more than the log's own signature")
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(encoded, "\n")); err != nil || strings.Count(encoded, "\n") != 1 {
		return c, errors.New("the checkpoint's signature is not in the form that the log writes")
	}
	return c, nil
}

// checkName says whether a name may be a key's and a log's (C2SP signed-note).
func checkName(name string) error {
	bad := func(r rune) bool { return r < 0x20 || r == 0x7f || r == '+' || unicode.IsSpace(r) }
	if name == "" || !utf8.ValidString(name) || strings.IndexFunc(name, bad) >= 0 {
		return fmt.Errorf("%q cannot name a log: it needs a name without spaces and plus, for instance issuer.example/log", name)
	}
	return nil
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

// keyMaterial returns a key's signature type, its encoding and its id. The id of
// a NIST key is, unlike that of Ed25519, a hash of the key alone.
func keyMaterial(name string, public crypto.PublicKey) (kind byte, material []byte, id uint32, err error) {
	if err := checkName(name); err != nil {
		return 0, nil, 0, err
	}
	switch key := public.(type) {
	case ed25519.PublicKey:
		h := sha256.New()
		h.Write([]byte(name + "\n"))
		h.Write([]byte{typeEd25519})
		h.Write(key)
		return typeEd25519, key, binary.BigEndian.Uint32(h.Sum(nil)), nil
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits != 256 && bits != 384 && bits != 521 {
			break
		}
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return 0, nil, 0, err
		}
		sum := sha256.Sum256(der)
		return typeECDSA, der, binary.BigEndian.Uint32(sum[:]), nil
	}
	return 0, nil, 0, fmt.Errorf("a %T cannot sign checkpoints: use Ed25519 or P-256", public)
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
	data, err := base64.StdEncoding.Strict().DecodeString(parts[2])
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
	verifier
	sign func(msg []byte) ([]byte, error)
}

// NewSigner returns a note signer over a function that returns the signature
// of a message as the key's type has it: 64 bytes for Ed25519, ASN.1 DER of an
// ECDSA signature over SHA-256 for a NIST curve, whichever it is. A signature
// that does not verify is refused, so that no checkpoint is stored that the next
// start would take for a forgery.
func NewSigner(name string, public crypto.PublicKey, sign func(msg []byte) ([]byte, error)) (note.Signer, error) {
	_, _, id, err := keyMaterial(name, public)
	if err != nil {
		return nil, err
	}
	return &signer{verifier{name, id, public}, sign}, nil
}

// Sign signs msg in the token and checks the result.
func (s *signer) Sign(msg []byte) ([]byte, error) {
	sig, err := s.sign(msg)
	if err != nil {
		return nil, err
	}
	if !s.Verify(msg, sig) {
		return nil, fmt.Errorf("the signature by the checkpoint key of %s does not verify: 64 bytes of Ed25519 or ASN.1 ECDSA over SHA-256 are wanted", s.name)
	}
	return sig, nil
}
