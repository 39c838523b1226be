package registry

import (
	"context"
	"crypto/ed25519"

	"golang.org/x/mod/sumdb/note"

	"chancery/appliance/audit"
	"chancery/hsm"
)

// NoteSigner signs checkpoints of a log with a key in the token.
func NoteSigner(token *hsm.Token, k Key, origin string) (note.Signer, error) {
	public, err := k.Public()
	if err != nil {
		return nil, err
	}
	return audit.NewSigner(origin, public, func(msg []byte) ([]byte, error) {
		raw, err := token.Sign(context.Background(), k.Label, msg)
		if _, plain := public.(ed25519.PublicKey); err != nil || plain {
			return raw, err
		}
		return hsm.DER(raw)
	})
}

// NoteVerifier checks them.
func NoteVerifier(k Key, origin string) (note.Verifier, error) {
	public, err := k.Public()
	if err != nil {
		return nil, err
	}
	vkey, err := audit.VerifierKey(origin, public)
	if err != nil {
		return nil, err
	}
	return audit.NewVerifier(vkey)
}
