package hsm

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// A TPM is the second token: other people's module, slow, serial, with 1024
// sessions and a PIN that locks. It has no AES-GCM, no Ed25519, and gives
// P-521 points that are not DER.

func tpmConfig(tpm *hsmtest.TPM) Config {
	return Config{Module: tpm.Module, TokenLabel: hsmtest.Label, PIN: pin, Sessions: 4}
}

func TestTPM(t *testing.T) {
	if !hsmtest.UnderBus(t) {
		return
	}
	tpm := hsmtest.NewTPM(t)
	token := openToken(t, tpmConfig(tpm))
	suite(t, token, []issuance.Algorithm{issuance.ES256, issuance.ES384})
	attributes(t, token, issuance.ES256, issuance.ES384)
	t.Run("evidence", func(t *testing.T) {
		evidence, err := token.Evidence()
		if err != nil || evidence.Manufacturer == "" || evidence.Model == "" || evidence.Firmware == "" {
			t.Errorf("%+v, %v", evidence, err)
		}
	})
	t.Run("what it cannot do", func(t *testing.T) {
		for _, a := range []issuance.Algorithm{issuance.EdDSA, Sealing} {
			_, err := token.Generate(context.Background(), KeySpec{"no", a})
			wantClass(t, err, ClassUnsupported)
		}
		_, err := token.Generate(context.Background(), KeySpec{"no", issuance.ES512})
		if err == nil {
			t.Error("P-521: this module's points were not DER; if they are now, add it to the suite")
		}
		labels, err := token.Labels()
		if err != nil {
			t.Fatal(err)
		}
		for _, label := range labels {
			if label == "no" {
				t.Error("what could not be proven was left in the token")
			}
		}
		if s := token.State(); !s.Ready {
			t.Errorf("a key that cannot be made took the token away: %+v", s)
		}
	})
}

// TestTPMTwoCallsForEachSignature counts through the fault module.
func TestTPMTwoCallsForEachSignature(t *testing.T) {
	if !hsmtest.UnderBus(t) {
		return
	}
	tpm := hsmtest.NewTPM(t)
	fault := hsmtest.WithFaults(t, tpm.Module)
	cfg := tpmConfig(tpm)
	cfg.Module = fault.Module
	token := openToken(t, cfg)
	generateKey(t, token, "k", issuance.ES256)
	callsForEachSignature(t, token, fault, 10)
	t.Run("session cap", func(t *testing.T) {
		sessionCap(t, token, fault)
	})
}

// TestTPMPowerFailure kills the TPM between signatures and brings it back with
// the state it had: the same key signs, nothing is restarted, and the PIN is not
// locked by looking for it.
func TestTPMPowerFailure(t *testing.T) {
	if !hsmtest.UnderBus(t) {
		return
	}
	ctx := context.Background()
	tpm := hsmtest.NewTPM(t)
	token := openToken(t, tpmConfig(tpm))
	token.pauses.login = 200 * time.Millisecond
	record := generateKey(t, token, "k", issuance.ES256)
	tpm.Kill()
	_, err := token.Sign(ctx, "k", []byte("m"))
	if c := ClassOf(err); c != ClassTokenGone && c != ClassSessionLost {
		t.Fatalf("class %q: %v", c, err)
	}
	if token.State().Ready {
		t.Error("ready without a TPM")
	}
	tpm.Start(t)
	until(t, "the TPM is found again", func() bool { return token.State().Ready })
	signature, err := token.Sign(ctx, "k", []byte("m"))
	if err != nil || !verifies(record.Public, issuance.ES256, []byte("m"), signature) {
		t.Fatalf("after the power failure: %v", err)
	}
}

// TestTPMWrongPIN spends tries until the TPM locks: each open costs one, all have
// one class, and the right PIN is not tried into the lock either.
func TestTPMWrongPIN(t *testing.T) {
	if !hsmtest.UnderBus(t) {
		return
	}
	tpm := hsmtest.NewTPM(t)
	tpm.ResetLockout(t, 3)
	wrong := tpmConfig(tpm)
	wrong.PIN = func() ([]byte, error) { return []byte("000000"), nil }
	_, err := Open(wrong)
	wantClass(t, err, ClassPINRefused)
	openToken(t, tpmConfig(tpm)).Close() // one wrong PIN costs one try: two are left
	for range 3 {
		_, err = Open(wrong)
		wantClass(t, err, ClassPINRefused)
	}
	_, err = Open(tpmConfig(tpm))
	wantClass(t, err, ClassPINRefused)
	if !errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_LOCKED)) {
		t.Errorf("the TPM is not locked: %v", err)
	}
	tpm.ResetLockout(t, 3)
	openToken(t, tpmConfig(tpm))
}
