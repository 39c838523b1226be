package store

import (
	"context"
	"crypto/rand"
	"testing"

	"chancery/hsm"
	"chancery/hsm/hsmtest"
)

// TestARealToken seals offers under data keys that a PKCS#11 token wraps, as the
// signer has it do: they open after a restart, and a key that was moved to
// another epoch does not.
func TestARealToken(t *testing.T) {
	directory := hsmtest.SoftHSM(t)
	token, err := hsm.Open(hsm.Config{Module: hsmtest.Module(t), TokenLabel: hsmtest.Label, PIN: func() ([]byte, error) { return []byte(hsmtest.PIN), nil }, SyncDirectory: directory})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	ctx := context.Background()
	if _, err := token.Generate(ctx, hsm.KeySpec{Label: "sealing", Algorithm: hsm.Sealing}); err != nil {
		t.Fatal(err)
	}
	f := open(t)
	f.options.DataKeys = DataKeys{
		New: func(ctx context.Context, binding string) (key, wrapped []byte, err error) {
			key = make([]byte, 32)
			rand.Read(key)
			wrapped, err = token.Seal(ctx, "sealing", key, []byte(binding))
			return key, wrapped, err
		},
		Open: func(ctx context.Context, binding string, wrapped []byte) ([]byte, error) {
			return token.Unseal(ctx, "sealing", wrapped, []byte(binding))
		},
	}
	f.restart()
	c := f.create(6)
	f.restart()
	access := f.redeem(c)
	g := f.grant(access)
	if claims, err := g.Claims(ctx); err != nil || string(claims) != claimsText {
		t.Errorf("claims: %v", err)
	}
	g.Release()
	f.tamper("UPDATE epochs SET context = context || '0'")
	f.restart()
	g = f.grant(access)
	defer g.Release()
	if _, err := g.Claims(ctx); hsm.ClassOf(err) != hsm.ClassRefused {
		t.Errorf("a key under another epoch's name: %v", err)
	}
}
