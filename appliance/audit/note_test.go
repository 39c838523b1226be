package audit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// TestEd25519NotesAreTheLibrarys exchanges keys and notes with x/mod's own
// Ed25519 notes in both directions.
func TestEd25519NotesAreTheLibrarys(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{origin, 7, tlog.RecordHash([]byte("x"))}
	signed, err := note.Sign(&note.Note{Text: c.text()}, theirs)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := openStored(signed, ours); err != nil || got != c {
		t.Errorf("their note: %+v, %v", got, err)
	}

	k := newKey(t, "ed25519")
	verifier, err := note.NewVerifier(k.vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(k.sign(t, c), note.VerifierList(verifier))
	if err != nil || n.Text != c.text() {
		t.Errorf("our note: %v", err)
	}
	if tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.SplitN(c.text(), "\n", 2)[1])); err != nil || tree.N != 7 || tree.Hash != c.Root {
		t.Errorf("size and root as the library reads them: %+v, %v", tree, err)
	}
}

// TestECDSANotes computes the key's id and the signature's place as C2SP
// signed-note has them for type 0x02, apart from the code.
func TestECDSANotes(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := []byte{0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der = append(der, point...)
	sum := sha256.Sum256(der)
	want := fmt.Sprintf("%s+%x+%s", origin, sum[:4], base64.StdEncoding.EncodeToString(append([]byte{2}, der...)))
	vkey, err := VerifierKey(origin, private.Public())
	if err != nil || vkey != want {
		t.Errorf("the key is %s, want %s (%v)", vkey, want, err)
	}
	signer, err := NewSigner(origin, private.Public(), func(msg []byte) ([]byte, error) {
		digest := sha256.Sum256(msg)
		return ecdsa.SignASN1(rand.Reader, private, digest[:])
	})
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{origin, 3, tlog.Hash{}}
	signed, err := note.Sign(&note.Note{Text: c.text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(signed), "\n\n\u2014 "+origin+" ")
	data, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
	if err != nil || !bytes.Equal(data[:4], sum[:4]) {
		t.Fatalf("the signature line %q does not begin with the key's id (%v)", line, err)
	}
	digest := sha256.Sum256([]byte(c.text()))
	if !ecdsa.VerifyASN1(&private.PublicKey, digest[:], data[4:]) {
		t.Error("the signature is not over the note's text")
	}
	verifier, err := NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if verifier.Name() != origin || verifier.KeyHash() != binary.BigEndian.Uint32(sum[:4]) {
		t.Errorf("the verifier is of %q, %x", verifier.Name(), verifier.KeyHash())
	}
}

// TestLargerCurves signs with each curve that a token may have.
func TestLargerCurves(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P384(), elliptic.P521()} {
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := NewSigner(origin, private.Public(), func(msg []byte) ([]byte, error) {
			digest := sha256.Sum256(msg)
			return ecdsa.SignASN1(rand.Reader, private, digest[:])
		})
		if err != nil {
			t.Fatal(err)
		}
		vkey, err := VerifierKey(origin, private.Public())
		if err != nil {
			t.Fatal(err)
		}
		k := key{signer, vkey}
		if _, err := openStored(k.sign(t, Checkpoint{origin, 1, tlog.Hash{}}), k.verifier(t)); err != nil {
			t.Error(err)
		}
	}
}

// TestKeysThatCannotSignCheckpoints refuses keys and names.
func TestKeysThatCannotSignCheckpoints(t *testing.T) {
	public := newPublic(t)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		name   string
		public crypto.PublicKey
	}{
		"no name": {"", public}, "a space": {"a b", public}, "a plus": {"a+b", public}, "a line": {"a\nb", public},
		"another space": {"a\u00a0b", public}, "a control character": {"a\x7f", public}, "no UTF-8": {"\xff", public},
		"P-224": {origin, small.Public()}, "RSA": {origin, stranger.Public()}, "nothing": {origin, nil},
	} {
		if vkey, err := VerifierKey(test.name, test.public); err == nil {
			t.Errorf("%s: %s", name, vkey)
		}
		if _, err := NewSigner(test.name, test.public, nil); err == nil {
			t.Errorf("%s: it signs", name)
		}
	}
}

// TestVerifierKeys reads keys strictly.
func TestVerifierKeys(t *testing.T) {
	for _, kind := range []string{"ed25519", "p256"} {
		good := newKey(t, kind).vkey
		if _, err := NewVerifier(" " + good + "\n"); err != nil {
			t.Errorf("with white space around: %v", err)
		}
		name, rest, _ := strings.Cut(good, "+")
		id, material, _ := strings.Cut(rest, "+")
		data, _ := base64.StdEncoding.DecodeString(material)
		encode := func(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
		for what, bad := range map[string]string{
			"nothing":         "",
			"two parts":       name + "+" + id,
			"another name":    "", // an ECDSA key's id does not hold the name
			"another id":      name + "+00000000+" + material,
			"another key":     name + "+" + id + "+" + encode(append(data[:len(data)-1:len(data)-1], data[len(data)-1]^1)),
			"another type":    name + "+" + id + "+" + encode(append([]byte{3}, data[1:]...)),
			"the type alone":  name + "+" + id + "+" + encode(data[:1]),
			"a shorter key":   name + "+" + id + "+" + encode(data[:len(data)-1]),
			"a longer key":    name + "+" + id + "+" + encode(append(bytes.Clone(data), 0)),
			"no base64":       name + "+" + id + "+?",
			"a name's space":  name + " x+" + id + "+" + material,
			"a material more": good + "+x",
		} {
			if _, err := NewVerifier(bad); err == nil {
				t.Errorf("%s %s: %s is a key", kind, what, bad)
			}
		}
		if _, err := NewVerifier("other" + good); (err == nil) != (kind == "p256") {
			t.Errorf("%s with another name: %v", kind, err)
		}
	}
}

// TestASignerThatErrs gets signatures that do not verify from the token.
func TestASignerThatErrs(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := Checkpoint{origin, 1, tlog.Hash{}}.text()
	gone := errors.New("the token is away")
	for name, sign := range map[string]func(msg []byte) ([]byte, error){
		"nothing":        func([]byte) ([]byte, error) { return nil, nil },
		"another digest": func(msg []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, private, msg[:32]) },
		"raw": func(msg []byte) ([]byte, error) {
			digest := sha256.Sum256(msg)
			r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
			if err != nil {
				return nil, err
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
		},
		"an error": func([]byte) ([]byte, error) { return nil, gone },
	} {
		signer, err := NewSigner(origin, private.Public(), sign)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err == nil {
			t.Errorf("%s: signed as %q", name, signed)
		}
		if name == "an error" && !errors.Is(err, gone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v := (&verifier{origin, 0, "no key"}); v.Verify(nil, nil) {
		t.Error("no key verifies")
	}
}

// TestCheckpointText reads what it writes and nothing else.
func TestCheckpointText(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := Checkpoint{Origin: rapid.StringMatching(`[!-*,-~]{1,40}`).Draw(r, "origin"), Size: rapid.Int64Range(0, 1<<62).Draw(r, "size")}
		copy(c.Root[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(r, "root"))
		if got, err := parseCheckpoint(c.text()); err != nil || got != c {
			r.Fatalf("%q is read as %+v: %v", c.text(), got, err)
		}
	})
	good := Checkpoint{origin, 12, tlog.Hash{}}.text()
	for name, bad := range map[string]string{
		"nothing":          "",
		"two lines":        origin + "\n12\n",
		"an extension":     good + "more\n",
		"no last line end": strings.TrimSuffix(good, "\n"),
		"no origin":        strings.TrimPrefix(good, origin),
		"a negative size":  strings.Replace(good, "12", "-12", 1),
		"a zero before":    strings.Replace(good, "12", "012", 1),
		"a plus":           strings.Replace(good, "12", "+12", 1),
		"no size":          strings.Replace(good, "12", "", 1),
		"too large":        strings.Replace(good, "12", "9223372036854775808", 1),
		"a short root":     strings.Replace(good, "AAAA", "", 1),
		"a loose root":     strings.Replace(good, "A=", "B=", 1),
		"no base64":        strings.Replace(good, "AAAA", "????", 1),
	} {
		if bad == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if c, err := parseCheckpoint(bad); err == nil {
			t.Errorf("%s: read as %+v", name, c)
		}
	}
}

// TestOpenCheckpoint opens notes that were kept elsewhere: a witness may have
// signed them, too.
func TestOpenCheckpoint(t *testing.T) {
	k := newKey(t, "ed25519")
	c := Checkpoint{origin, 3, tlog.Hash{2}}
	skey, _, err := note.GenerateKey(rand.Reader, "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := note.Sign(&note.Note{Text: c.text()}, k.signer, witness)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(cosigned, k.verifier(t)); err != nil || got != c {
		t.Errorf("with a witness: %+v, %v", got, err)
	}
	if _, err := openStored(cosigned, k.verifier(t)); err == nil {
		t.Error("with a witness: it could stand in signer.db")
	}
	alone, err := note.Sign(&note.Note{Text: c.text()}, witness)
	if err != nil {
		t.Fatal(err)
	}
	renamed := k.sign(t, Checkpoint{"other.example/log", 3, tlog.Hash{2}})
	for name, bad := range map[string][]byte{"by the witness alone": alone, "of another log": renamed, "no note": []byte("x"), "nothing": nil} {
		if c, err := OpenCheckpoint(bad, k.verifier(t)); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if ed, err := VerifierKey(origin, ed25519.PublicKey(make([]byte, 32))); err != nil || !strings.HasPrefix(ed, origin+"+") {
		t.Errorf("%s, %v", ed, err)
	}
}
