package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"testing"

	"chancery/issuance"
)

// TestMessageSigner: it takes the message and no digest, and no other hash than
// the key's.
func TestMessageSigner(t *testing.T) {
	token := openToken(t, config(t))
	for a, hash := range map[issuance.Algorithm]crypto.Hash{issuance.ES256: crypto.SHA256, issuance.ES512: crypto.SHA512, issuance.EdDSA: 0} {
		record := generateKey(t, token, newLabel(), a)
		signer, err := token.MessageSigner(record.Label)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 31, 32, 64} {
			_, err = signer.Sign(rand.Reader, make([]byte, size), hash)
			wantClass(t, err, ClassRefused)
		}
		for _, opts := range []crypto.SignerOpts{nil, hash} {
			signature, err := crypto.SignMessage(signer, rand.Reader, []byte("message"), opts)
			if opts == nil {
				signature, err = signer.SignMessage(rand.Reader, []byte("message"), nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !verifiesDER(record.Public, a, []byte("message"), signature) {
				t.Errorf("%s: %x is no signature", a, signature)
			}
		}
		_, err = signer.SignMessage(rand.Reader, []byte("message"), crypto.SHA1)
		wantClass(t, err, ClassRefused)
	}
	_, err := token.MessageSigner("no such key")
	wantClass(t, err, ClassKeyMissing)
}

func verifiesDER(public crypto.PublicKey, a issuance.Algorithm, message, signature []byte) bool {
	switch a {
	case issuance.ES256:
		digest := sha256.Sum256(message)
		return ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], signature)
	case issuance.ES512:
		digest := sha512.Sum512(message)
		return ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], signature)
	}
	return verifies(public, a, message, signature)
}

func TestDER(t *testing.T) {
	for _, c := range []struct{ raw, der []byte }{
		{[]byte{1, 2}, []byte{0x30, 6, 2, 1, 1, 2, 1, 2}},
		{[]byte{0, 1, 0, 2}, []byte{0x30, 6, 2, 1, 1, 2, 1, 2}},
		{[]byte{0x80, 0xff}, []byte{0x30, 8, 2, 2, 0, 0x80, 2, 2, 0, 0xff}},
		{[]byte{0, 0}, []byte{0x30, 6, 2, 1, 0, 2, 1, 0}},
	} {
		if der, err := DER(c.raw); err != nil || !bytes.Equal(der, c.der) {
			t.Errorf("%x is %x, %v; want %x", c.raw, der, err, c.der)
		}
	}
	for _, raw := range [][]byte{nil, {1}, {1, 2, 3}} {
		_, err := DER(raw)
		wantClass(t, err, ClassRefused)
	}
}

// TestUnsealTellsGarbageFromATokenThatFails: SoftHSM has one answer for a text
// that does not open and for a device that fails.
func TestUnsealTellsGarbageFromATokenThatFails(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	token.pauses.brief = 0
	ctx := context.Background()
	key := generateKey(t, token, newLabel(), Sealing).Label
	sealed, err := token.Seal(ctx, key, []byte("a data key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	garbage := bytes.Clone(sealed)
	garbage[len(garbage)-1] ^= 1
	for _, c := range []struct {
		order  string
		sealed []byte
		want   Class
		anew   int
	}{
		{"# none", sealed, "", 0},
		{"# none", garbage, ClassRefused, 0},
		{"fail C_Decrypt 0x5 1 0", sealed, "", 0},             // the second try opens it
		{"fail C_Decrypt 0x5 1 0", garbage, ClassRefused, 0},  // the second try and a probe decide
		{"fail C_Decrypt 0x5 3 0", sealed, "", 1},             // the probe fails as well: the token is opened anew
		{"fail C_Decrypt 0x5 3 0", garbage, ClassRefused, 1},  // and then it is the text
		{"fail C_DecryptInit 0xB3 1 0", sealed, "", 1},        // a lost session
		{"fail C_Decrypt 0x40 1 0", sealed, ClassRefused, 0},  // the token says it itself
		{"fail C_Decrypt 0x41 1 0", garbage, ClassRefused, 0}, // or calls it a wrong length
		{"fail C_Encrypt 0x5 1 0", sealed, "", 0},             // not asked for
	} {
		before := token.State().Generation
		fault.Order(t, c.order)
		opened, err := token.Unseal(ctx, key, c.sealed, nil)
		wantClass(t, err, c.want)
		if c.want == "" && string(opened) != "a data key" {
			t.Errorf("%s: opened %q", c.order, opened)
		}
		if anew := token.State().Generation - before; anew != c.anew {
			t.Errorf("%s: opened anew %d times, want %d (%v)", c.order, anew, c.anew, err)
		}
	}
	fault.Order(t, "fail C_Encrypt 0x30 1 0")
	if again, err := token.Seal(ctx, key, []byte("a data key"), nil); err != nil || len(again) != len(sealed) {
		t.Errorf("a device error while sealing: %v", err)
	}
}

// TestVerifyTakesAnything: what a token returns may be of any length.
func TestVerifyTakesAnything(t *testing.T) {
	token := openToken(t, config(t))
	for _, a := range []issuance.Algorithm{issuance.ES256, issuance.EdDSA} {
		record := generateKey(t, token, newLabel(), a)
		for n := range 140 {
			if verify(record.Public, make([]byte, 32), bytes.Repeat([]byte{0xff}, n)) || verify(record.Public, make([]byte, 32), make([]byte, n)) {
				t.Errorf("%s: %d bytes are a signature", a, n)
			}
		}
	}
	if verify("not a key", nil, nil) {
		t.Error("a signature by what is no key")
	}
}
