package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	_ "crypto/sha256" // for crypto.Hash.New
	_ "crypto/sha512"
	"errors"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"chancery/issuance"
)

// Sign signs a message with the key of a label and returns the raw signature:
// r‖s of fixed length, or Ed25519's 64 bytes. It hashes the message itself and
// verifies the signature before it returns it (promise P2). After a lost
// session the token is opened anew and the signature tried once more.
func (t *Token) Sign(ctx context.Context, label string, message []byte) ([]byte, error) {
	return do(ctx, t, "C_Sign", label, func(v *visit) ([]byte, error) {
		k := v.gen.keys[label]
		if k == nil {
			return nil, failure(ClassKeyMissing, "C_Sign", label, "no such key is loaded")
		}
		return v.sign(k, message)
	})
}

// sign hashes, signs and verifies.
func (v *visit) sign(k *key, message []byte) ([]byte, error) {
	a := k.ref.Algorithm
	if a.SignatureSize() == 0 {
		return nil, failure(ClassRefused, "C_Sign", k.ref.Label, "the key does not sign")
	}
	data, mechanism := message, uint(ckmEdDSA)
	if h := a.Hash(); h != 0 {
		digest := h.New()
		digest.Write(message)
		data, mechanism = digest.Sum(nil), pkcs11.CKM_ECDSA
	}
	var signature []byte
	err := v.call("C_Sign", func() (err error) {
		signature, err = v.gen.fn.sign(v.session, mechanism, k.private, data)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(signature) != a.SignatureSize() || !verify(k.ref.Public, data, signature) {
		v.spoiled = true
		return nil, failure(ClassBadSignature, "C_Sign", k.ref.Label, "the token's %d bytes are no signature of the message by this key", len(signature))
	}
	return signature, nil
}

// verify checks a raw signature over a digest, or over a message for Ed25519.
func verify(public crypto.PublicKey, data, signature []byte) bool {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		n := len(signature) / 2
		return ecdsa.Verify(public, data, new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
	case ed25519.PublicKey:
		return ed25519.Verify(public, data, signature)
	}
	return false
}

// A sealed text's IV and tag, in bytes.
const (
	ivSize  = 12
	tagSize = 16
)

// Seal encrypts with AES-256-GCM inside the token under the key of a label;
// aad is bound to the result and must be given again. The result is IV ‖
// ciphertext ‖ tag.
func (t *Token) Seal(ctx context.Context, label string, plaintext, aad []byte) ([]byte, error) {
	return do(ctx, t, "C_Encrypt", label, func(v *visit) ([]byte, error) {
		k := v.gen.keys[label]
		if k == nil || k.ref.Algorithm != Sealing {
			return nil, failure(ClassKeyMissing, "C_Encrypt", label, "no such sealing key is loaded")
		}
		return v.seal(k, plaintext, aad)
	})
}

// Unseal opens what [Token.Seal] made; anything else is [ClassRefused].
func (t *Token) Unseal(ctx context.Context, label string, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < ivSize+tagSize {
		return nil, failure(ClassRefused, "C_Decrypt", label, "%d bytes are too short for a sealed text", len(sealed))
	}
	return do(ctx, t, "C_Decrypt", label, func(v *visit) ([]byte, error) {
		k := v.gen.keys[label]
		if k == nil || k.ref.Algorithm != Sealing {
			return nil, failure(ClassKeyMissing, "C_Decrypt", label, "no such sealing key is loaded")
		}
		opened, err := v.unseal(k, sealed, aad)
		if errors.Is(err, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)) {
			return v.unsealAgain(k, sealed, aad, err)
		}
		return opened, err
	})
}

// unsealAgain tells a sealed text that does not open from a token that does not
// work, where the token has one answer for both: the text is tried once more,
// and then one that was sealed just now.
func (v *visit) unsealAgain(k *key, sealed, aad []byte, first error) ([]byte, error) {
	if v.fresh() != nil {
		return nil, first
	}
	opened, err := v.unseal(k, sealed, aad)
	if !errors.Is(err, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)) {
		return opened, err
	}
	if v.fresh() != nil || v.sealAndUnseal(k, []byte("probe")) != nil {
		return nil, first
	}
	return nil, notOurs(k)
}

func notOurs(k *key) error {
	return failure(ClassRefused, "C_Decrypt", k.ref.Label, "it was not sealed by this key with this context")
}

func (v *visit) seal(k *key, plaintext, aad []byte) (sealed []byte, err error) {
	iv := make([]byte, ivSize)
	rand.Read(iv)
	params := pkcs11.NewGCMParams(iv, aad, tagSize*8)
	defer params.Free()
	var out []byte
	err = v.call("C_Encrypt", func() (err error) {
		if err = v.gen.ctx.EncryptInit(v.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k.private); err == nil {
			out, err = v.gen.ctx.Encrypt(v.session, plaintext)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if iv = params.IV(); len(iv) != ivSize || len(out) != len(plaintext)+tagSize { // some tokens choose the IV themselves
		v.spoiled = true
		return nil, failure(ClassBadSignature, "C_Encrypt", k.ref.Label, "%d bytes were sealed to %d with an IV of %d", len(plaintext), len(out), len(iv))
	}
	return append(iv, out...), nil
}

func (v *visit) unseal(k *key, sealed, aad []byte) (opened []byte, err error) {
	params := pkcs11.NewGCMParams(sealed[:ivSize], aad, tagSize*8)
	defer params.Free()
	err = v.call("C_Decrypt", func() (err error) {
		if err = v.gen.ctx.DecryptInit(v.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k.private); err == nil {
			opened, err = v.gen.ctx.Decrypt(v.session, sealed[ivSize:])
		}
		return err
	})
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_ENCRYPTED_DATA_INVALID)) || errors.Is(err, pkcs11.Error(pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE)) {
		return nil, notOurs(k)
	}
	return opened, err
}

// sealAndUnseal seals a probe, opens it, and compares.
func (v *visit) sealAndUnseal(k *key, probe []byte) error {
	sealed, err := v.seal(k, probe, []byte("proof"))
	if err != nil {
		return err
	}
	opened, err := v.unseal(k, sealed, []byte("proof"))
	if err == nil && !bytes.Equal(opened, probe) {
		err = failure(ClassBadSignature, "C_Decrypt", k.ref.Label, "what was sealed does not open to the same")
	}
	return err
}

// MessageSigner signs X.509 structures with a key in the token, for
// crypto/x509. It is a crypto.MessageSigner: it takes the message, never a digest.
type MessageSigner struct {
	token  *Token
	label  string
	public crypto.PublicKey
	alg    issuance.Algorithm
}

// MessageSigner returns the signer of a loaded key.
func (t *Token) MessageSigner(label string) (*MessageSigner, error) {
	t.life.RLock()
	defer t.life.RUnlock()
	ref, ok := t.refs[label]
	if !ok || ref.Public == nil {
		return nil, failure(ClassKeyMissing, "signer", label, "no such signing key is loaded")
	}
	return &MessageSigner{t, label, ref.Public, ref.Algorithm}, nil
}

// Public returns the key's public half.
func (s *MessageSigner) Public() crypto.PublicKey { return s.public }

// Sign refuses: what is signed must be seen whole.
func (s *MessageSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, failure(ClassRefused, "sign", s.label, "a bare digest is not signed: use SignMessage")
}

// SignMessage signs a message as X.509 wants it: ECDSA as ASN.1 DER.
// It waits no longer than [Config].CallTimeout once it is its turn.
func (s *MessageSigner) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts != nil && opts.HashFunc() != s.alg.Hash() {
		return nil, failure(ClassRefused, "sign", s.label, "%s is signed with %v, not %v", s.alg, s.alg.Hash(), opts.HashFunc())
	}
	raw, err := s.token.Sign(context.Background(), s.label, message)
	if err != nil || s.alg == issuance.EdDSA {
		return raw, err
	}
	return DER(raw)
}

// DER turns a raw ECDSA signature r‖s into ASN.1 DER (RFC 3279 §2.2.3). Halves
// of different length are an error.
func DER(raw []byte) ([]byte, error) {
	n := len(raw) / 2
	if n == 0 || len(raw)%2 != 0 {
		return nil, failure(ClassRefused, "sign", "", "%d bytes are not r and s of one length", len(raw))
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:n]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[n:]))
	})
	return b.Bytes()
}
