package hsm

import (
	"errors"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

func tpmConfig(tpm *hsmtest.TPM) Config {
	return Config{Module: tpm.Module, TokenLabel: hsmtest.Label, PIN: pin, Sessions: 4}
}

// TestTPMPowerFailure kills the TPM between signatures and brings it back with
// the state it had: the same key signs, nothing is restarted, and the PIN is not
// locked by looking for it.
func TestTPMPowerFailure(t *testing.T) {
	if !hsmtest.UnderBus(t) {
		return
	}
	tpm := hsmtest.NewTPM(t)
	token := openToken(t, tpmConfig(tpm))
	token.pauses.login = 200 * time.Millisecond
	key := generateKey(t, token, newLabel(), issuance.ES256).Label
	for range 2 {
		tpm.Kill()
		_, err := token.Sign(t.Context(), key, []byte("m"))
		if c := ClassOf(err); c != ClassTokenGone && c != ClassSessionLost {
			t.Fatalf("class %q: %v", c, err)
		}
		if token.State().Ready {
			t.Error("ready without a TPM")
		}
		tpm.Start(t)
		until(t, "the TPM is found again", func() bool { return token.State().Ready })
		sign(t, token, key)
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

// TestTPMThousandSessions opens sessions until the TPM's module has no more, as a
// program does that forgets to close them: the next caller waits for one.
func TestTPMThousandSessions(t *testing.T) {
	if !hsmtest.UnderBus(t) {
		return
	}
	token := openToken(t, tpmConfig(hsmtest.NewTPM(t)))
	key := generateKey(t, token, newLabel(), issuance.ES256).Label
	n := 0
	for ; n < 2000; n++ {
		if _, err := token.openSession(token.gen); err != nil {
			if !errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) {
				t.Fatal(err)
			}
			break
		}
	}
	t.Logf("%d sessions beside those in use", n)
	if n == 2000 {
		t.Error("the module has no cap any more: correct the comments that say so")
	}
	for range 3 {
		done := make(chan error, 8)
		for range cap(done) {
			go func() {
				_, err := token.Sign(t.Context(), key, []byte("m"))
				done <- err
			}()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	if s := token.State(); s.Generation != 1 {
		t.Errorf("%+v", s)
	}
}
