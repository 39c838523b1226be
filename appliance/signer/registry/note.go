package registry

import (
	"crypto/ed25519"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
	"chancery/issuance"
)

// CheckpointKey returns the one key that signs checkpoints: EdDSA or ES256.
func (r *Registry) CheckpointKey() (Key, error) {
	k, err := r.Sole(wire.PurposeCheckpoint)
	if err == nil && k.Algorithm != issuance.EdDSA && k.Algorithm != issuance.ES256 {
		err = fmt.Errorf("key %q: checkpoints are signed with EdDSA or ES256, not %s", k.Label, k.Algorithm)
	}
	return k, err
}

// NoteVerifier checks the log's checkpoints by the checkpoint key; nil without
// one. It is what [audit.Open] asks for after the replay.
func (r *Registry) NoteVerifier() note.Verifier {
	k, err := r.CheckpointKey()
	if err != nil {
		return nil
	}
	public, err := k.Public()
	if err != nil {
		return nil
	}
	vkey, err := audit.VerifierKey(r.Origin, public)
	if err != nil {
		return nil
	}
	verifier, err := audit.NewVerifier(vkey)
	if err != nil {
		return nil
	}
	return verifier
}

// NoteSigner signs the log's checkpoints with the checkpoint key. sign has the
// token sign a message and returns the raw signature.
func (r *Registry) NoteSigner(sign func(label string, message []byte) ([]byte, error)) (note.Signer, error) {
	k, err := r.CheckpointKey()
	if err != nil {
		return nil, err
	}
	public, err := k.Public()
	if err != nil {
		return nil, err
	}
	return audit.NewSigner(r.Origin, public, func(message []byte) ([]byte, error) {
		raw, err := sign(k.Label, message)
		if _, plain := public.(ed25519.PublicKey); err != nil || plain {
			return raw, err
		}
		return hsm.DER(raw)
	})
}
