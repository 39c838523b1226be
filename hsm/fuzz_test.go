package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"reflect"
	"testing"

	"chancery/issuance"
)

// FuzzPoint reads what a token says is a public key. The corpus has what
// SoftHSM, a TPM and NSS say; the TPM's P-521 is not DER.
func FuzzPoint(f *testing.F) {
	for a, curve := range curves {
		g := append([]byte{4}, append(curve.Params().Gx.FillBytes(make([]byte, a.SignatureSize()/2)), curve.Params().Gy.FillBytes(make([]byte, a.SignatureSize()/2))...)...)
		f.Add(g, string(a))
		wrapped, err := asn1.Marshal(g)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wrapped, string(a))
		f.Add(append(wrapped, 0), string(a))
		f.Add(make([]byte, len(g)), string(a))
	}
	f.Add([]byte{4, 0}, "EdDSA")
	f.Add(make([]byte, 32), "EdDSA")
	f.Add(append([]byte{4, 32}, make([]byte, 32)...), "EdDSA")
	f.Add([]byte(nil), "A256GCM")
	f.Fuzz(func(t *testing.T, value []byte, algorithm string) {
		a := issuance.Algorithm(algorithm)
		public, err := parsePoint(value, a)
		if err != nil {
			if public != nil {
				t.Errorf("an error and the key %v", public)
			}
			return
		}
		if got, err := issuance.AlgorithmFor(public); err != nil || got != a {
			t.Errorf("asked for %s, got a key for %s, %v", a, got, err)
		}
		bare, ok := public.(ed25519.PublicKey)
		point := []byte(bare)
		if !ok {
			if point, err = public.(*ecdsa.PublicKey).Bytes(); err != nil {
				t.Fatal(err)
			}
		}
		wrapped, err := asn1.Marshal(point)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(value, point) && !bytes.Equal(value, wrapped) {
			t.Errorf("%x was read, and means %x", value, point)
		}
		for _, form := range [][]byte{point, wrapped} {
			if again, err := parsePoint(form, a); err != nil || !reflect.DeepEqual(again, public) {
				t.Errorf("%x is read as another key, %v", form, err)
			}
		}
	})
}

// TestABarePointThatLooksLikeDER: a bare point begins with an OCTET STRING's tag,
// and one in 256 goes on with the length that follows.
func TestABarePointThatLooksLikeDER(t *testing.T) {
	curve := elliptic.P256()
	for x := new(big.Int).Lsh(big.NewInt(63), 248); ; x.Add(x, big.NewInt(1)) {
		compressed := append([]byte{2}, x.FillBytes(make([]byte, 32))...)
		_, y := elliptic.UnmarshalCompressed(curve, compressed)
		if y == nil {
			continue // no point has this x
		}
		point := append([]byte{4}, append(x.Bytes(), y.FillBytes(make([]byte, 32))...)...)
		if rest, err := asn1.Unmarshal(point, new([]byte)); err != nil || len(rest) != 0 {
			t.Fatal("this point does not look like DER: the test is not one")
		}
		if _, err := parsePoint(point, issuance.ES256); err != nil {
			t.Error(err)
		}
		return
	}
}

// FuzzDER turns signatures into DER and reads them with another parser.
func FuzzDER(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Add(make([]byte, 132))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		der, err := DER(raw)
		if (err != nil) != (len(raw) == 0 || len(raw)%2 != 0) {
			t.Fatalf("%d bytes: %v", len(raw), err)
		}
		if err != nil {
			return
		}
		var signature struct{ R, S *big.Int }
		rest, err := asn1.Unmarshal(der, &signature)
		if err != nil || len(rest) != 0 {
			t.Fatalf("%x: %v", der, err)
		}
		n := len(raw) / 2
		if signature.R.Sign() < 0 || signature.S.Sign() < 0 || !bytes.Equal(append(signature.R.FillBytes(make([]byte, n)), signature.S.FillBytes(make([]byte, n))...), raw) {
			t.Errorf("%x is %x", raw, der)
		}
	})
}

// FuzzSignature gives the check of a signature what a token might return: it
// holds good only what the standard library's other check does.
func FuzzSignature(f *testing.F) {
	seed := make([]byte, 32)
	seed[31] = 1
	ec, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed)
	if err != nil {
		f.Fatal(err)
	}
	ed := ed25519.NewKeyFromSeed(seed)
	digest := make([]byte, 32)
	f.Add(ed25519.Sign(ed, digest))
	f.Add(make([]byte, 64))
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, signature []byte) {
		der, err := DER(signature)
		if want := err == nil && ecdsa.VerifyASN1(&ec.PublicKey, digest, der); verify(ec.Public(), digest, signature) != want {
			t.Errorf("ECDSA: %x is good: %v", signature, !want)
		}
		if want := bytes.Equal(signature, ed25519.Sign(ed, digest)); verify(ed.Public(), digest, signature) != want {
			t.Errorf("Ed25519: %x is good: %v", signature, !want)
		}
	})
}

// FuzzUnseal gives a real token sealed texts that nobody sealed: none opens, each
// is refused, and the token is not taken for lost.
func FuzzUnseal(f *testing.F) {
	token := openToken(f, config(f))
	key := generateKey(f, token, newLabel(), Sealing).Label
	sealed, err := token.Seal(f.Context(), key, []byte("a data key"), []byte("epoch"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte{})
	f.Add(make([]byte, ivSize+tagSize), []byte("epoch"))
	f.Add(sealed, []byte{})
	f.Add(sealed[:len(sealed)-1], []byte("epoch"))
	f.Add(append(bytes.Clone(sealed), 0), []byte("epoch"))
	f.Fuzz(func(t *testing.T, text, aad []byte) {
		opened, err := token.Unseal(t.Context(), key, text, aad)
		if bytes.Equal(text, sealed) && bytes.Equal(aad, []byte("epoch")) {
			return
		}
		wantClass(t, err, ClassRefused)
		if opened != nil {
			t.Errorf("%x opened to %x", text, opened)
		}
		if s := token.State(); s.Generation != 1 {
			t.Errorf("%x cost the token: %+v", text, s)
		}
	})
}
