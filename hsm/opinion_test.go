package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"testing"

	"github.com/ThalesGroup/crypto11"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// theirs opens the token with crypto11. It and this package are never open at
// once: whichever is closed first would finalise the module for both.
func theirs(t *testing.T, cfg Config) *crypto11.Context {
	t.Helper()
	other, err := crypto11.Configure(&crypto11.Config{Path: cfg.Module, TokenLabel: hsmtest.Label, Pin: hsmtest.PIN, MaxSessions: 3, GCMIVLength: ivSize})
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// suiteOpinion lets another PKCS#11 library look at the same token: it finds the
// keys that were made here, reads the same public halves, and its signatures verify.
func suiteOpinion(t *testing.T, p product) {
	token := openToken(t, p.cfg)
	var made []KeyRecord
	var sealed []byte
	for _, a := range p.algorithms {
		if a == issuance.EdDSA {
			continue // crypto11 does not know it
		}
		record := generateKey(t, token, newLabel(), a)
		made = append(made, record)
		if a == Sealing {
			var err error
			if sealed, err = token.Seal(t.Context(), record.Label, []byte("a data key"), []byte("epoch")); err != nil {
				t.Fatal(err)
			}
		}
	}
	token.Close()

	other := theirs(t, p.cfg)
	defer func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, record := range made {
		if record.Algorithm == Sealing {
			theyOpen(t, other, record, sealed)
		} else {
			theySign(t, other, record)
		}
	}
}

func theyOpen(t *testing.T, other *crypto11.Context, record KeyRecord, sealed []byte) {
	t.Helper()
	key, err := other.FindKey(record.ID, []byte(record.Label))
	if err != nil || key == nil {
		t.Fatalf("crypto11 does not find the sealing key: %v", err)
	}
	aead, err := key.NewGCM()
	if err != nil {
		t.Fatal(err)
	}
	opened, err := aead.Open(nil, sealed[:ivSize], sealed[ivSize:], []byte("epoch"))
	if err != nil || !bytes.Equal(opened, []byte("a data key")) {
		t.Errorf("crypto11 opens %q, %v", opened, err)
	}
}

func theySign(t *testing.T, other *crypto11.Context, record KeyRecord) {
	t.Helper()
	signer, err := other.FindKeyPair(record.ID, []byte(record.Label))
	if err != nil || signer == nil {
		t.Fatalf("crypto11 does not find the %s key: %v", record.Algorithm, err)
	}
	public := record.Public.(*ecdsa.PublicKey)
	if !public.Equal(signer.Public()) {
		t.Errorf("crypto11 reads another public key for %s", record.Algorithm)
	}
	digest := record.Algorithm.Hash().New()
	digest.Write([]byte("message"))
	signature, err := signer.Sign(rand.Reader, digest.Sum(nil), record.Algorithm.Hash())
	if err != nil || !ecdsa.VerifyASN1(public, digest.Sum(nil), signature) {
		t.Errorf("crypto11's signature with the %s key: %v", record.Algorithm, err)
	}
}

// suiteElsewhere takes a key that another library made with every attribute told.
func suiteElsewhere(t *testing.T, p product) {
	other := theirs(t, p.cfg)
	ref := theirKey(t, other)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	token := openToken(t, p.cfg)
	if err := token.Load(t.Context(), []KeyRef{ref}); err != nil {
		t.Fatal(err)
	}
	signature, err := token.Sign(t.Context(), ref.Label, []byte("message"))
	if err != nil || !verifies(ref.Public, ref.Algorithm, []byte("message"), signature) {
		t.Errorf("a signature by a key that crypto11 made: %v", err)
	}
}

// theirKey lets crypto11 make a key with every attribute told.
func theirKey(t *testing.T, other *crypto11.Context) KeyRef {
	t.Helper()
	ref := KeyRef{Label: newLabel(), ID: make([]byte, 16), Algorithm: issuance.ES256}
	rand.Read(ref.ID)
	public, err := crypto11.NewAttributeSetWithIDAndLabel(ref.ID, []byte(ref.Label))
	if err != nil {
		t.Fatal(err)
	}
	private := public.Copy()
	for kind, value := range map[crypto11.AttributeType]bool{
		crypto11.CkaPrivate: true, crypto11.CkaModifiable: false, crypto11.CkaDecrypt: false, crypto11.CkaUnwrap: false,
		crypto11.CkaDerive: false, crypto11.CkaSignRecover: false,
	} {
		if err := private.Set(kind, value); err != nil {
			t.Fatal(err)
		}
	}
	signer, err := other.GenerateECDSAKeyPairWithAttributes(public, private, curves[ref.Algorithm])
	if err != nil {
		t.Fatal(err)
	}
	ref.Public = signer.Public()
	return ref
}

// TestTheirHabitsAreRefused shows why keys are made and found here and not by
// crypto11: what it leaves out of a template the token sets as it likes, and a
// second key with the same CKA_ID is handed the first one's public half.
func TestTheirHabitsAreRefused(t *testing.T) {
	cfg := config(t)
	other := theirs(t, cfg)
	var made []KeyRef
	for _, label := range []string{newLabel(), newLabel()} {
		signer, err := other.GenerateECDSAKeyPairWithLabel([]byte("one"), []byte(label), curves[issuance.ES256])
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, KeyRef{Label: label, ID: []byte("one"), Algorithm: issuance.ES256, Public: signer.Public()})
	}
	lone := newLabel()
	signer, err := other.GenerateECDSAKeyPairWithLabel([]byte(lone), []byte(lone), curves[issuance.ES256])
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	token := openToken(t, cfg)
	for _, ref := range made {
		wantClass(t, token.Load(t.Context(), []KeyRef{ref}), ClassKeyMissing)
	}
	wantClass(t, token.Load(t.Context(), []KeyRef{{Label: lone, ID: []byte(lone), Algorithm: issuance.ES256, Public: signer.Public()}}), ClassKeyUnsafe)
}

// TestAnotherLibraryIsNotOpenBeside: while crypto11 has the module, it is not
// opened here.
func TestAnotherLibraryIsNotOpenBeside(t *testing.T) {
	cfg := config(t)
	other := theirs(t, cfg)
	_, err := Open(cfg)
	wantClass(t, err, ClassRefused)
	if random, err := other.NewRandomReader(); err != nil {
		t.Error(err)
	} else if _, err := random.Read(make([]byte, 8)); err != nil {
		t.Errorf("the refused open took the module away: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	openToken(t, cfg)
}
