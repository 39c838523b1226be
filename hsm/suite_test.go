package hsm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// suiteKeys is the life of a key of each algorithm.
func suiteKeys(t *testing.T, p product) {
	token := openToken(t, p.cfg)
	ctx := context.Background()
	for _, a := range p.signing() {
		t.Run(string(a), func(t *testing.T) {
			record := generateKey(t, token, newLabel(), a)
			for _, message := range [][]byte{nil, []byte("m"), make([]byte, 100_000)} {
				signature, err := token.Sign(ctx, record.Label, message)
				if err != nil {
					t.Fatal(err)
				}
				if len(signature) != a.SignatureSize() || !verifies(record.Public, a, message, signature) {
					t.Errorf("%d bytes: not a signature of the message", len(message))
				}
			}
			_, err := token.Generate(ctx, KeySpec{record.Label, a})
			wantClass(t, err, ClassRefused) // a label is used once
			if err := token.Load(ctx, []KeyRef{record.KeyRef}); err != nil {
				t.Errorf("the key does not load: %v", err)
			}
			checkPins(t, token, record)
			checkX509(t, token, record.Label)
			if err := token.Destroy(ctx, record.KeyRef); err != nil {
				t.Error(err)
			}
			refuses(t, token, record.Label, ClassKeyMissing)
			wantClass(t, token.Load(ctx, []KeyRef{record.KeyRef}), ClassKeyMissing)
			wantClass(t, token.Destroy(ctx, record.KeyRef), ClassKeyMissing)
		})
	}
	refuses(t, token, "no such key", ClassKeyMissing)
}

// checkPins loads the key with one thing changed each time, and the key itself
// last: what is refused changes nothing.
func checkPins(t *testing.T, token *Token, record KeyRecord) {
	t.Helper()
	ctx := context.Background()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherID := bytes.Clone(record.ID)
	otherID[0] ^= 1
	for name, c := range map[string]struct {
		change func(r *KeyRef)
		want   Class
	}{
		"another CKA_ID":      {func(r *KeyRef) { r.ID = otherID }, ClassKeyMissing},
		"half a CKA_ID":       {func(r *KeyRef) { r.ID = r.ID[:8] }, ClassKeyMissing},
		"no CKA_ID":           {func(r *KeyRef) { r.ID = nil }, ClassRefused},
		"another label":       {func(r *KeyRef) { r.Label += "x" }, ClassKeyMissing},
		"no label":            {func(r *KeyRef) { r.Label = "" }, ClassRefused},
		"a stranger's public": {func(r *KeyRef) { r.Public = stranger.Public() }, ClassKeyMissing},
		"no public":           {func(r *KeyRef) { r.Public = nil }, ClassKeyMissing},
		"called a sealing":    {func(r *KeyRef) { r.Algorithm = Sealing }, ClassKeyMissing},
	} {
		other := record.KeyRef
		c.change(&other)
		if err := token.Load(ctx, []KeyRef{other}); ClassOf(err) != c.want {
			t.Errorf("%s: %v, want class %q", name, err, c.want)
		}
	}
	sign(t, token, record.Label)
}

// checkX509 lets crypto/x509 make and check a certificate with the key.
func checkX509(t *testing.T, token *Token, label string) {
	t.Helper()
	signer, err := token.MessageSigner(label)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature); err != nil {
		t.Error(err)
	}
}

// suiteAttributes makes a key for each algorithm and holds what the token tells
// of it against what it was told.
func suiteAttributes(t *testing.T, p product) {
	token := openToken(t, p.cfg)
	for _, a := range p.algorithms {
		t.Run(string(a), func(t *testing.T) {
			record := generateKey(t, token, newLabel(), a)
			for _, d := range record.Attributes.demands(a == Sealing) {
				// Neither SoftHSM nor the TPM knows CKA_WRAP of a private key, and a
				// secret key has no CKA_SIGN_RECOVER.
				if d.is == nil && (d.name == "CKA_WRAP" && a != Sealing || d.name == "CKA_SIGN_RECOVER" && a == Sealing) {
					continue
				}
				if d.is == nil || *d.is != d.want {
					t.Errorf("%s is %s", d.name, show(d.is))
				}
			}
			if !record.Attributes.ValueRefused {
				t.Error("the token tells the key's value")
			}
			if len(record.ID) != 16 {
				t.Errorf("a CKA_ID of %d bytes", len(record.ID))
			}
			if again := generateKey(t, token, newLabel(), a); bytes.Equal(again.ID, record.ID) {
				t.Error("two keys have one CKA_ID")
			}
		})
	}
}

func suiteSealing(t *testing.T, p product) {
	token := openToken(t, p.cfg)
	ctx := context.Background()
	key := generateKey(t, token, newLabel(), Sealing).Label
	signer := generateKey(t, token, newLabel(), issuance.ES256).Label
	for _, plaintext := range [][]byte{nil, []byte("x"), []byte("thirty-two bytes of a data key.."), make([]byte, 10_000)} {
		sealed, err := token.Seal(ctx, key, plaintext, []byte("epoch 1"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := token.Seal(ctx, key, plaintext, []byte("epoch 1"))
		if err != nil || bytes.Equal(again, sealed) {
			t.Errorf("two seals are alike: the IV is not random (%v)", err)
		}
		opened, err := token.Unseal(ctx, key, sealed, []byte("epoch 1"))
		if err != nil || !bytes.Equal(opened, plaintext) {
			t.Errorf("opened %d bytes of %d, %v", len(opened), len(plaintext), err)
		}
	}
	before := token.State().Generation
	sealed, err := token.Seal(ctx, key, []byte("a data key"), []byte("epoch 1"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = token.Unseal(ctx, key, sealed, []byte("epoch 2"))
	wantClass(t, err, ClassRefused)
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		_, err := token.Unseal(ctx, key, changed, []byte("epoch 1"))
		wantClass(t, err, ClassRefused)
		_, err = token.Unseal(ctx, key, sealed[:i], []byte("epoch 1"))
		wantClass(t, err, ClassRefused)
	}
	if now := token.State().Generation; now != before {
		t.Errorf("what does not open cost %d generations", now-before)
	}
	_, err = token.Seal(ctx, signer, nil, nil)
	wantClass(t, err, ClassKeyMissing)
	_, err = token.Unseal(ctx, signer, sealed, nil)
	wantClass(t, err, ClassKeyMissing)
	refuses(t, token, key, ClassRefused) // a sealing key does not sign
	_, err = token.MessageSigner(key)
	wantClass(t, err, ClassKeyMissing)
}

// suiteStrangers puts objects into the token that a ceremony did not make.
func suiteStrangers(t *testing.T, p product) {
	token := openToken(t, p.cfg)
	for name, c := range map[string]struct{ label, id func(r KeyRecord) any }{
		"duplicate CKA_ID": {func(KeyRecord) any { return newLabel() }, func(r KeyRecord) any { return r.ID }},
		"duplicate label":  {func(r KeyRecord) any { return r.Label }, func(KeyRecord) any { return []byte(newLabel()) }},
		"both":             {func(r KeyRecord) any { return r.Label }, func(r KeyRecord) any { return r.ID }},
	} {
		t.Run(name, func(t *testing.T) {
			record := generateKey(t, token, newLabel(), issuance.ES256)
			plant(t, token, c.label(record), c.id(record))
			wantClass(t, token.Load(context.Background(), []KeyRef{record.KeyRef}), ClassKeyMissing)
		})
	}
}

// suiteReopened closes the token and opens it again: keys are where they were,
// and those that were not loaded are not used.
func suiteReopened(t *testing.T, p product) {
	ctx := context.Background()
	token := openToken(t, p.cfg)
	first := generateKey(t, token, newLabel(), issuance.ES256)
	second := generateKey(t, token, newLabel(), issuance.ES256)
	labels, err := token.Labels()
	if err != nil || !slices.Contains(labels, first.Label) || !slices.Contains(labels, second.Label) {
		t.Errorf("labels %q, %v", labels, err)
	}
	token.Close()
	refuses(t, token, first.Label, ClassClosed)
	wantClass(t, token.Load(ctx, nil), ClassClosed)
	if s := token.State(); s.Ready || s.Class != ClassClosed {
		t.Errorf("after Close: %+v", s)
	}
	token = openToken(t, p.cfg)
	if err := token.Load(ctx, []KeyRef{first.KeyRef}); err != nil {
		t.Fatal(err)
	}
	sign(t, token, first.Label)
	refuses(t, token, second.Label, ClassKeyMissing)
	wrong := second.KeyRef
	wrong.Label = first.Label
	wantClass(t, token.Load(ctx, []KeyRef{second.KeyRef, wrong}), ClassKeyMissing)
	refuses(t, token, second.Label, ClassKeyMissing) // all or none of them
}

func suiteEvidence(t *testing.T, p product) {
	token := openToken(t, p.cfg)
	record := generateKey(t, token, newLabel(), issuance.ES256)
	e, err := token.Evidence()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"library": e.Library, "manufacturer": e.Manufacturer, "model": e.Model, "hardware": e.Hardware, "firmware": e.Firmware} {
		if value == "" {
			t.Errorf("no %s", name)
		}
	}
	if e.Module != p.cfg.Module || e.Label != hsmtest.Label || len(e.Mechanisms) == 0 {
		t.Errorf("%+v", e)
	}
	if a := e.Keys[record.Label]; a.Sensitive == nil || !*a.Sensitive {
		t.Errorf("the key's attributes are not there: %+v", a)
	}
	token.Close()
	_, err = token.Evidence()
	wantClass(t, err, ClassClosed)
}

// suiteCannot asks for what the token cannot make: it is refused, nothing is left
// behind, and the token goes on.
func suiteCannot(t *testing.T, p product) {
	token := openToken(t, p.cfg)
	ctx := context.Background()
	key := generateKey(t, token, newLabel(), issuance.ES256).Label
	for _, a := range append(slices.Clone(every), "RS256", "") {
		if slices.Contains(p.algorithms, a) {
			continue
		}
		label := newLabel()
		_, err := token.Generate(ctx, KeySpec{label, a})
		if err == nil {
			t.Errorf("a key for %q was made: add it to the suite", a)
		}
		t.Logf("%q: %v", a, err)
		labels, err := token.Labels()
		if err != nil || slices.Contains(labels, label) {
			t.Errorf("%q: something was left in the token (%v)", a, err)
		}
		refuses(t, token, label, ClassKeyMissing)
	}
	_, err := token.Generate(ctx, KeySpec{"", issuance.ES256})
	wantClass(t, err, ClassRefused)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = token.Generate(canceled, KeySpec{newLabel(), issuance.ES256})
	wantClass(t, err, ClassBusy)
	wantClass(t, token.Destroy(ctx, KeyRef{Label: key}), ClassRefused)
	if s := token.State(); !s.Ready || s.Generation != 1 {
		t.Errorf("what cannot be made cost the token: %+v", s)
	}
	sign(t, token, key)
}
