package hsm

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// TestNSSIsRefused: NSS reports a key as not extractable and wraps it out all
// the same. The attributes alone would pass; the attempt does not.
func TestNSSIsRefused(t *testing.T) {
	nss := hsmtest.NewNSS(t)
	token := openToken(t, Config{Module: nss.Module, Reserved: nss.Reserved, TokenLabel: hsmtest.Label, PIN: pin})
	ctx := context.Background()
	label := newLabel()
	_, err := token.Generate(ctx, KeySpec{label, issuance.ES256})
	wantClass(t, err, ClassKeyUnsafe)
	if err == nil || !strings.Contains(err.Error(), "let the key out by CKM_AES_KEY_WRAP") {
		t.Errorf("refused for another reason: %v", err)
	}
	if labels, err := token.Labels(); err != nil || len(labels) != 0 {
		t.Errorf("left in the token: %q, %v", labels, err)
	}
	refuses(t, token, label, ClassKeyMissing)

	// What it tells of the key is all right, but for CKA_LOCAL, which it sets on
	// none of its keys.
	err = token.alone("test", label, false, func(v *visit) error {
		ref := KeyRef{Label: label, ID: []byte(label), Algorithm: issuance.ES256}
		if _, err := generate(v.gen, v.session, KeySpec{label, ref.Algorithm}, ref.ID, true); err != nil {
			return err
		}
		h, err := v.only(ref, pkcs11.CKO_PRIVATE_KEY)
		if err != nil {
			return err
		}
		a, err := v.readAttributes(h)
		if err != nil {
			return err
		}
		if a.Local == nil || *a.Local || !a.ValueRefused {
			t.Errorf("CKA_LOCAL %s, value refused: %v; if NSS sets it now, correct the comments that say otherwise", show(a.Local), a.ValueRefused)
		}
		if v.marksLocal(ref.Algorithm) {
			t.Error("a throw-away key has CKA_LOCAL")
		}
		if breach := a.breach(false, func() bool { return false }); breach != "" {
			t.Errorf("the attributes alone refuse it: %s", breach)
		}
		if breach := a.breach(false, func() bool { return true }); !strings.HasPrefix(breach, "CKA_LOCAL is false") {
			t.Errorf("without CKA_LOCAL: %q", breach)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNSSThroughFaults reaches NSS through the fault module, which gives it the
// arguments that it wants, without Config.Reserved.
func TestNSSThroughFaults(t *testing.T) {
	nss := hsmtest.NewNSS(t)
	fault := hsmtest.WithFaults(t, nss.Module)
	t.Setenv("FAULT_INIT", nss.Reserved)
	token := openToken(t, Config{Module: fault.Module, TokenLabel: hsmtest.Label, PIN: pin})
	_, err := token.Generate(context.Background(), KeySpec{newLabel(), issuance.ES256})
	wantClass(t, err, ClassKeyUnsafe)
}

func remoteConfig(r *hsmtest.Remote) Config {
	return Config{Module: r.Module, TokenLabel: hsmtest.Label, PIN: pin, Sessions: 2}
}

// TestRemoteProcessDies ends the process that holds the token, with everything
// that was open in it, and starts it again.
func TestRemoteProcessDies(t *testing.T) {
	remote := hsmtest.NewRemote(t)
	token := openToken(t, remoteConfig(remote))
	token.pauses.first = 10 * time.Millisecond
	key := generateKey(t, token, newLabel(), issuance.ES256).Label
	for range 3 {
		sign(t, token, key)
		remote.Kill()
		_, err := token.Sign(t.Context(), key, []byte("m"))
		if c := ClassOf(err); c != ClassTokenGone && c != ClassSessionLost {
			t.Fatalf("class %q: %v", c, err)
		}
		if s := token.State(); s.Ready || s.Class != ClassTokenGone {
			t.Errorf("without the process: %+v", s)
		}
		remote.Start(t)
		until(t, "the token is found again", func() bool { return token.State().Ready })
		sign(t, token, key)
	}
}
