package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

func pin() ([]byte, error) { return []byte(hsmtest.PIN), nil }

func config(t testing.TB) Config {
	t.Helper()
	dir := hsmtest.SoftHSM(t)
	return Config{Module: hsmtest.Module(t), TokenLabel: hsmtest.Label, PIN: pin, Sessions: 2, SyncDirectory: dir}
}

func openToken(t testing.TB, cfg Config) *Token {
	t.Helper()
	token, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(token.Close)
	return token
}

func generateKey(t testing.TB, token *Token, label string, a issuance.Algorithm) KeyRecord {
	t.Helper()
	record, err := token.Generate(context.Background(), KeySpec{label, a})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func wantClass(t testing.TB, err error, want Class) {
	t.Helper()
	if ClassOf(err) != want {
		t.Errorf("error %v has class %q, want %q", err, ClassOf(err), want)
	}
}

// suite is what every token must do that the appliance is used with.
func suite(t *testing.T, token *Token, algorithms []issuance.Algorithm) {
	ctx := context.Background()
	for _, a := range algorithms {
		t.Run(string(a), func(t *testing.T) {
			record := generateKey(t, token, "key "+string(a), a)
			for _, message := range [][]byte{nil, []byte("m"), make([]byte, 100_000)} {
				signature, err := token.Sign(ctx, record.Label, message)
				if err != nil {
					t.Fatal(err)
				}
				if len(signature) != a.SignatureSize() || !verifies(record.Public, a, message, signature) {
					t.Errorf("%d bytes: not a signature of the message", len(message))
				}
			}
			if _, err := token.Generate(ctx, KeySpec{record.Label, a}); err == nil {
				t.Error("a label was used twice")
			}
			if err := token.Load(ctx, []KeyRef{record.KeyRef}); err != nil {
				t.Errorf("the key does not load: %v", err)
			}
			checkPins(t, token, record)
			checkX509(t, token, record.Label)
			if err := token.Destroy(ctx, record.KeyRef); err != nil {
				t.Error(err)
			}
			_, err := token.Sign(ctx, record.Label, nil)
			wantClass(t, err, ClassKeyMissing)
			wantClass(t, token.Load(ctx, []KeyRef{record.KeyRef}), ClassKeyMissing)
		})
	}
	_, err := token.Sign(ctx, "no such key", nil)
	wantClass(t, err, ClassKeyMissing)
}

// checkPins loads the key with one thing changed each time.
func checkPins(t *testing.T, token *Token, record KeyRecord) {
	t.Helper()
	ctx := context.Background()
	other := record.KeyRef
	other.ID = append([]byte{}, record.ID...)
	other.ID[0] ^= 1
	wantClass(t, token.Load(ctx, []KeyRef{other}), ClassKeyMissing)
	other = record.KeyRef
	other.ID = nil
	wantClass(t, token.Load(ctx, []KeyRef{other}), ClassRefused)
	other = record.KeyRef
	other.Label += "x"
	wantClass(t, token.Load(ctx, []KeyRef{other}), ClassKeyMissing)
	other = record.KeyRef
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other.Public = stranger.Public()
	wantClass(t, token.Load(ctx, []KeyRef{other}), ClassKeyMissing)
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
	if _, err := signer.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); ClassOf(err) != ClassRefused {
		t.Errorf("a bare digest: %v", err)
	}
}

func verifies(public crypto.PublicKey, a issuance.Algorithm, message, signature []byte) bool {
	if key, ok := public.(ed25519.PublicKey); ok {
		return ed25519.Verify(key, message, signature)
	}
	digest := a.Hash().New()
	digest.Write(message)
	n := len(signature) / 2
	return ecdsa.Verify(public.(*ecdsa.PublicKey), digest.Sum(nil), new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
}

func TestSoftHSM(t *testing.T) {
	token := openToken(t, config(t))
	suite(t, token, []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA})
	evidence, err := token.Evidence()
	if err != nil || evidence.Label != hsmtest.Label || len(evidence.Mechanisms) == 0 {
		t.Errorf("evidence: %+v, %v", evidence, err)
	}
}

// attributes makes a key for each algorithm and holds what the token tells of it
// against what it was told.
func attributes(t *testing.T, token *Token, algorithms ...issuance.Algorithm) {
	for _, a := range algorithms {
		t.Run("attributes of "+string(a), func(t *testing.T) {
			record := generateKey(t, token, "attributes "+string(a), a)
			for _, d := range record.Attributes.demands(a == Sealing) {
				if d.is == nil && d.name == "CKA_WRAP" && a != Sealing {
					continue // neither SoftHSM nor the TPM knows it of a private key
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
		})
	}
}

func TestAttributesAreAsTold(t *testing.T) {
	token := openToken(t, config(t))
	attributes(t, token, issuance.ES256, issuance.EdDSA, Sealing)
	evidence, err := token.Evidence()
	if err != nil {
		t.Fatal(err)
	}
	for label, a := range evidence.Keys {
		if !slices.Equal(a.WrapRefused, []string{"CKM_AES_KEY_WRAP_PAD", "CKM_AES_KEY_WRAP", "CKM_AES_CBC_PAD"}) {
			t.Errorf("%s: only %q refused to wrap it out", label, a.WrapRefused)
		}
	}
}

func TestSeal(t *testing.T) {
	token := openToken(t, config(t))
	ctx := context.Background()
	generateKey(t, token, "seal", Sealing)
	generateKey(t, token, "sign", issuance.ES256)
	sealed, err := token.Seal(ctx, "seal", []byte("thirty-two bytes of a data key.."), []byte("epoch 1"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := token.Seal(ctx, "seal", []byte("thirty-two bytes of a data key.."), []byte("epoch 1"))
	if err != nil || string(again) == string(sealed) {
		t.Errorf("two seals are alike: the IV is not random (%v)", err)
	}
	opened, err := token.Unseal(ctx, "seal", sealed, []byte("epoch 1"))
	if err != nil || string(opened) != "thirty-two bytes of a data key.." {
		t.Errorf("opened %q, %v", opened, err)
	}
	_, err = token.Unseal(ctx, "seal", sealed, []byte("epoch 2"))
	wantClass(t, err, ClassRefused)
	for i := range sealed {
		changed := append([]byte{}, sealed...)
		changed[i] ^= 1
		if _, err := token.Unseal(ctx, "seal", changed, []byte("epoch 1")); err == nil {
			t.Fatalf("byte %d changed and it still opens", i)
		}
	}
	_, err = token.Unseal(ctx, "seal", sealed[:20], nil)
	wantClass(t, err, ClassRefused)
	_, err = token.Seal(ctx, "sign", nil, nil)
	wantClass(t, err, ClassKeyMissing)
	_, err = token.Sign(ctx, "seal", nil)
	wantClass(t, err, ClassRefused)
}

func TestOpenRefusals(t *testing.T) {
	cfg := config(t)
	for name, test := range map[string]struct {
		change func(c *Config)
		want   Class
	}{
		"relative module":   {func(c *Config) { c.Module = "libsofthsm2.so" }, ClassRefused},
		"no module":         {func(c *Config) { c.Module = "/nonexistent.so" }, ClassTokenGone},
		"not a module":      {func(c *Config) { c.Module = notAModule(t) }, ClassTokenGone},
		"no selector":       {func(c *Config) { c.TokenLabel = "" }, ClassRefused},
		"two selectors":     {func(c *Config) { c.TokenSerial = "1" }, ClassRefused},
		"no such label":     {func(c *Config) { c.TokenLabel = "other" }, ClassTokenGone},
		"no such serial":    {func(c *Config) { c.TokenLabel, c.TokenSerial = "", "0" }, ClassTokenGone},
		"wrong PIN":         {func(c *Config) { c.PIN = func() ([]byte, error) { return []byte("000000"), nil } }, ClassPINRefused},
		"PIN not available": {func(c *Config) { c.PIN = func() ([]byte, error) { return nil, os.ErrNotExist } }, ClassRefused},
	} {
		t.Run(name, func(t *testing.T) {
			c := cfg
			test.change(&c)
			_, err := Open(c)
			wantClass(t, err, test.want)
		})
	}
	hsmtest.AddToken(t, hsmtest.Label)
	_, err := Open(cfg)
	wantClass(t, err, ClassRefused) // two tokens with the label
}

func notAModule(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "x.so")
	if err := os.WriteFile(path, []byte("not a module"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecondOpenInAProcessIsRefused(t *testing.T) {
	cfg := config(t)
	token := openToken(t, cfg)
	wrong := cfg
	wrong.PIN = func() ([]byte, error) { return []byte("wrong"), nil }
	_, err := Open(wrong)
	wantClass(t, err, ClassRefused)
	token.Close()
	openToken(t, cfg)
	_, err = token.Sign(context.Background(), "x", nil)
	wantClass(t, err, ClassClosed)
}

func TestBySerial(t *testing.T) {
	cfg := config(t)
	token := openToken(t, cfg)
	evidence, err := token.Evidence()
	if err != nil {
		t.Fatal(err)
	}
	token.Close()
	cfg.TokenLabel, cfg.TokenSerial = "", evidence.Serial
	openToken(t, cfg)
}

// TestStrangersKeysAreRefused puts objects into the token that a ceremony did
// not make: a duplicate CKA_ID, a duplicate label, a key that may be taken out.
func TestStrangersKeysAreRefused(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		label, id func(r KeyRecord) any
		want      Class
	}{
		"duplicate CKA_ID": {func(KeyRecord) any { return "other" }, func(r KeyRecord) any { return r.ID }, ClassKeyMissing},
		"duplicate label":  {func(r KeyRecord) any { return r.Label }, func(KeyRecord) any { return []byte{9} }, ClassKeyMissing},
		"both":             {func(r KeyRecord) any { return r.Label }, func(r KeyRecord) any { return r.ID }, ClassKeyMissing},
	} {
		t.Run(name, func(t *testing.T) {
			token := openToken(t, config(t))
			record := generateKey(t, token, "k", issuance.ES256)
			plant(t, token, test.label(record), test.id(record), true)
			wantClass(t, token.Load(ctx, []KeyRef{record.KeyRef}), test.want)
		})
	}
	t.Run("extractable", func(t *testing.T) {
		token := openToken(t, config(t))
		public := plant(t, token, "weak", []byte{7}, false)
		wantClass(t, token.Load(ctx, []KeyRef{{Label: "weak", ID: []byte{7}, Algorithm: issuance.ES256, Public: public}}), ClassKeyUnsafe)
	})
}

// plant makes a key pair that the appliance would not make.
func plant(t *testing.T, token *Token, label, id any, sensitive bool) crypto.PublicKey {
	t.Helper()
	common := func() []*pkcs11.Attribute {
		return []*pkcs11.Attribute{attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_LABEL, label), attribute(pkcs11.CKA_ID, id)}
	}
	public, _, err := token.gen.ctx.GenerateKeyPair(token.gen.keeper, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		append(common(), attribute(pkcs11.CKA_EC_PARAMS, curveParams(issuance.ES256)), attribute(pkcs11.CKA_VERIFY, true)),
		append(common(), attribute(pkcs11.CKA_SIGN, true), attribute(pkcs11.CKA_PRIVATE, true), attribute(pkcs11.CKA_SENSITIVE, sensitive), attribute(pkcs11.CKA_EXTRACTABLE, !sensitive)))
	if err != nil {
		t.Fatal(err)
	}
	key, err := (&visit{t: token, gen: token.gen, session: token.gen.keeper}).readPublic(public, issuance.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestQueueIsBounded(t *testing.T) {
	cfg := config(t)
	fault := hsmtest.WithFaults(t, cfg.Module)
	cfg.Module, cfg.Sessions, cfg.Queue = fault.Module, 1, 3
	token := openToken(t, cfg)
	generateKey(t, token, "k", issuance.ES256)
	fault.Order(t, "latency C_Sign 200000")
	var wait sync.WaitGroup
	results := make(chan error, 12)
	for range 12 {
		wait.Go(func() {
			_, err := token.Sign(context.Background(), "k", []byte("m"))
			results <- err
		})
	}
	wait.Wait()
	close(results)
	done, busy := 0, 0
	for err := range results {
		switch ClassOf(err) {
		case "":
			done++
		case ClassBusy:
			busy++
		default:
			t.Error(err)
		}
	}
	if done != 4 || busy != 8 {
		t.Errorf("%d signed, %d busy: want 4 (one out, three waiting) and 8", done, busy)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	<-token.permits // the only one is out
	_, err := token.Sign(ctx, "k", nil)
	wantClass(t, err, ClassBusy)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	for _, callers := range []int{1, 2, 8, 64} {
		b.Run(fmt.Sprintf("callers-%d", callers), func(b *testing.B) {
			token := openToken(b, config(b))
			generateKey(b, token, "k", issuance.ES256)
			work := make(chan struct{})
			var wait sync.WaitGroup
			for range callers {
				wait.Go(func() {
					for range work {
						if _, err := token.Sign(context.Background(), "k", []byte("message")); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wait.Wait()
		})
	}
}

// BenchmarkRawSign is the module's own speed: what BenchmarkSign is compared with.
func BenchmarkRawSign(b *testing.B) {
	token := openToken(b, config(b))
	generateKey(b, token, "k", issuance.ES256)
	digest := make([]byte, 32)
	k := token.gen.keys["k"]
	for b.Loop() {
		if _, err := token.gen.fn.sign(token.gen.keeper, pkcs11.CKM_ECDSA, k.private, digest); err != nil {
			b.Fatal(err)
		}
	}
}
