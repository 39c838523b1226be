package hsm

import (
	"context"
	"crypto/rand"
	"errors"
	"os"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"chancery/issuance"
)

func attribute(kind uint, value any) *pkcs11.Attribute { return pkcs11.NewAttribute(kind, value) }

// keyType is CKA_KEY_TYPE of an algorithm's keys.
func keyType(a issuance.Algorithm) uint {
	switch a {
	case Sealing:
		return pkcs11.CKK_AES
	case issuance.EdDSA:
		return ckkEdwards
	}
	return pkcs11.CKK_EC
}

// privateTemplate is a private or secret key's. It tells the token everything
// the key may not do: what a template leaves out, tokens set as they like.
func privateTemplate(spec KeySpec, id []byte) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{
		attribute(pkcs11.CKA_KEY_TYPE, keyType(spec.Algorithm)),
		attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_PRIVATE, true),
		attribute(pkcs11.CKA_SENSITIVE, true), attribute(pkcs11.CKA_EXTRACTABLE, false),
		attribute(pkcs11.CKA_MODIFIABLE, false),
		attribute(pkcs11.CKA_SIGN, spec.Algorithm != Sealing), attribute(pkcs11.CKA_DECRYPT, spec.Algorithm == Sealing),
		attribute(pkcs11.CKA_UNWRAP, false), attribute(pkcs11.CKA_DERIVE, false),
		attribute(pkcs11.CKA_LABEL, spec.Label), attribute(pkcs11.CKA_ID, id),
	}
	if spec.Algorithm == Sealing {
		return append(template, attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_VALUE_LEN, sealingBytes),
			attribute(pkcs11.CKA_ENCRYPT, true), attribute(pkcs11.CKA_WRAP, false), attribute(pkcs11.CKA_VERIFY, false))
	}
	return append(template, attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attribute(pkcs11.CKA_SIGN_RECOVER, false))
}

// publicTemplate is the public half's. With usage false it leaves open what the
// public half may do: a TPM has one bit for signing and for verifying, and
// refuses to be told about both. The proof does not depend on it.
func publicTemplate(spec KeySpec, id []byte, usage bool) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attribute(pkcs11.CKA_KEY_TYPE, keyType(spec.Algorithm)),
		attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_PRIVATE, false), attribute(pkcs11.CKA_MODIFIABLE, false),
		attribute(pkcs11.CKA_WRAP, false), attribute(pkcs11.CKA_EC_PARAMS, curveParams(spec.Algorithm)),
		attribute(pkcs11.CKA_LABEL, spec.Label), attribute(pkcs11.CKA_ID, id),
	}
	if usage {
		template = append(template, attribute(pkcs11.CKA_VERIFY, true), attribute(pkcs11.CKA_VERIFY_RECOVER, false), attribute(pkcs11.CKA_ENCRYPT, false))
	}
	return template
}

// Generate makes a key with a random CKA_ID, proves it, and syncs it to disk.
// It is for ceremonies alone (promise P6). When making, proving or syncing
// fails, what was made is destroyed again, also in a token that had to be opened
// anew meanwhile; the ceremony decides whether to ask again. From a token that
// stays away nothing can be removed: its label is then refused the next time.
func (t *Token) Generate(ctx context.Context, spec KeySpec) (KeyRecord, error) {
	if spec.Label == "" {
		return KeyRecord{}, failure(ClassRefused, "generate", "", "a key needs a label")
	}
	if err := ctx.Err(); err != nil {
		return KeyRecord{}, failure(ClassBusy, "generate", spec.Label, "%w", err)
	}
	var record KeyRecord
	ref := KeyRef{Label: spec.Label, ID: make([]byte, 16), Algorithm: spec.Algorithm}
	rand.Read(ref.ID)
	err := t.alone("generate", spec.Label, false, func(v *visit) error {
		existing, err := v.find(attribute(pkcs11.CKA_LABEL, spec.Label))
		if err != nil {
			return err
		}
		if len(existing) > 0 {
			return failure(ClassRefused, "generate", spec.Label, "the token has an object with this label: choose another")
		}
		k, err := v.make(&ref)
		if err == nil {
			err = t.syncDirectory()
		}
		if err != nil {
			v.discard(ref.ID)
			return err
		}
		t.refs[spec.Label], v.gen.keys[spec.Label] = ref, k
		record = KeyRecord{ref, k.attributes}
		return nil
	})
	if ClassOf(err).heals() {
		t.alone("generate", spec.Label, false, func(v *visit) error { v.discard(ref.ID); return nil })
	}
	return record, err
}

// make generates and proves a key, and sets ref.Public.
func (v *visit) make(ref *KeyRef) (*key, error) {
	var public pkcs11.ObjectHandle
	attempt := func(usage bool) error {
		return v.call("C_GenerateKey", func() (err error) {
			public, err = generate(v.gen, v.session, KeySpec{ref.Label, ref.Algorithm}, ref.ID, usage)
			return err
		})
	}
	err := attempt(true)
	if errors.As(err, new(pkcs11.Error)) && ref.Algorithm != Sealing {
		v.discard(ref.ID)
		if v.fresh() == nil {
			err = attempt(false)
		}
	}
	if err == nil && ref.Algorithm != Sealing {
		ref.Public, err = v.readPublic(public, ref.Algorithm)
	}
	if err != nil {
		return nil, err
	}
	return v.findKey(*ref)
}

// discard removes whatever has a CKA_ID that was chosen at random just now, and
// so is nobody else's. An error may come after the token made the objects.
func (v *visit) discard(id []byte) {
	if v.fresh() != nil {
		return
	}
	handles, err := v.find(attribute(pkcs11.CKA_ID, id))
	if err != nil {
		return
	}
	for _, h := range handles {
		v.call("C_DestroyObject", func() error { return v.gen.ctx.DestroyObject(v.session, h) })
	}
}

// generate makes the objects and returns the public one, if there is one.
func generate(gen *generation, session pkcs11.SessionHandle, spec KeySpec, id []byte, usage bool) (pkcs11.ObjectHandle, error) {
	mechanism := uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	switch spec.Algorithm {
	case Sealing:
		if !gen.mechs[pkcs11.CKM_AES_KEY_GEN] || !gen.mechs[pkcs11.CKM_AES_GCM] {
			return 0, failure(ClassUnsupported, "generate", spec.Label, "the token has no AES-GCM")
		}
		_, err := gen.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, privateTemplate(spec, id))
		return 0, err
	case issuance.ES256, issuance.ES384, issuance.ES512:
	case issuance.EdDSA:
		mechanism = ckmEdwardsKeyGen
	default:
		return 0, failure(ClassUnsupported, "generate", spec.Label, "no key of algorithm %q can be made", spec.Algorithm)
	}
	if !gen.mechs[mechanism] {
		return 0, failure(ClassUnsupported, "generate", spec.Label, "the token cannot make %s keys", spec.Algorithm)
	}
	public, _, err := gen.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
		publicTemplate(spec, id, usage), privateTemplate(spec, id))
	return public, err
}

// syncDirectory makes a software token's files durable before a key is reported.
func (t *Token) syncDirectory() error {
	if t.cfg.SyncDirectory == "" {
		return nil
	}
	dir, err := os.Open(t.cfg.SyncDirectory)
	if err != nil {
		return failure(ClassRefused, "sync token directory", "", "%w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return failure(ClassRefused, "sync token directory", "", "%w", err)
	}
	return nil
}

// Destroy removes a key's objects for ever. Only the key that ref pins is
// touched; that there is none is ClassKeyMissing.
func (t *Token) Destroy(_ context.Context, ref KeyRef) error {
	if ref.Label == "" || len(ref.ID) == 0 {
		return failure(ClassRefused, "destroy", ref.Label, "a key is named by label and CKA_ID, both")
	}
	begun := false
	return t.alone("destroy", ref.Label, true, func(v *visit) error {
		handles, err := v.find(attribute(pkcs11.CKA_LABEL, ref.Label), attribute(pkcs11.CKA_ID, ref.ID))
		if err != nil {
			return err
		}
		if len(handles) == 0 && !begun {
			return failure(ClassKeyMissing, "destroy", ref.Label, "the token has no such key")
		}
		begun = true
		delete(t.refs, ref.Label)
		delete(v.gen.keys, ref.Label)
		for _, h := range handles {
			if err := v.call("C_DestroyObject", func() error { return v.gen.ctx.DestroyObject(v.session, h) }); err != nil {
				return err
			}
		}
		return t.syncDirectory()
	})
}
