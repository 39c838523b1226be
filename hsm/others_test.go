package hsm

import (
	"context"
	"testing"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// TestNSSIsRefused: NSS reports a key as not extractable and wraps it out all
// the same. The attributes alone would pass; the attempt does not.
func TestNSSIsRefused(t *testing.T) {
	nss := hsmtest.NewNSS(t)
	token := openToken(t, Config{Module: nss.Module, Reserved: nss.Reserved, TokenLabel: hsmtest.Label, PIN: pin})
	_, err := token.Generate(context.Background(), KeySpec{"k", issuance.ES256})
	wantClass(t, err, ClassKeyUnsafe)
	t.Log(err)
}

func TestRemote(t *testing.T) {
	remote := hsmtest.NewRemote(t)
	token := openToken(t, Config{Module: remote.Module, TokenLabel: hsmtest.Label, PIN: pin, Sessions: 2})
	suite(t, token, []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512})
}
