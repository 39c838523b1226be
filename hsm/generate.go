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

// privateTemplate tells the token everything the key may not do: what a
// template leaves out, tokens set as they like.
func privateTemplate(spec KeySpec, id []byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_PRIVATE, true),
		attribute(pkcs11.CKA_SENSITIVE, true), attribute(pkcs11.CKA_EXTRACTABLE, false),
		attribute(pkcs11.CKA_MODIFIABLE, false),
		attribute(pkcs11.CKA_SIGN, spec.Algorithm != Sealing), attribute(pkcs11.CKA_DECRYPT, spec.Algorithm == Sealing),
		attribute(pkcs11.CKA_UNWRAP, false), attribute(pkcs11.CKA_DERIVE, false),
		attribute(pkcs11.CKA_LABEL, spec.Label), attribute(pkcs11.CKA_ID, id),
	}
}

// publicTemplate is the public half's. With usage false it leaves open what the
// public half may do: a TPM has one bit for signing and for verifying, and
// refuses to be told about both. The proof does not depend on it.
func publicTemplate(spec KeySpec, id []byte, keyType uint, usage bool) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attribute(pkcs11.CKA_KEY_TYPE, keyType),
		attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_PRIVATE, false), attribute(pkcs11.CKA_MODIFIABLE, false),
		attribute(pkcs11.CKA_WRAP, false), attribute(pkcs11.CKA_EC_PARAMS, curveParams(spec.Algorithm)),
		attribute(pkcs11.CKA_LABEL, spec.Label), attribute(pkcs11.CKA_ID, id),
	}
	if usage {
		template = append(template, attribute(pkcs11.CKA_VERIFY, true), attribute(pkcs11.CKA_ENCRYPT, false))
	}
	return template
}

// Generate makes a key with a random CKA_ID, proves it, and syncs it to disk.
// It is for ceremonies alone (promise P6). When making, proving or syncing
// fails, what was made is destroyed again. A lost token is opened anew, but the
// ceremony decides whether to ask again.
func (t *Token) Generate(ctx context.Context, spec KeySpec) (KeyRecord, error) {
	if spec.Label == "" {
		return KeyRecord{}, failure(ClassRefused, "generate", "", "a key needs a label")
	}
	if err := ctx.Err(); err != nil {
		return KeyRecord{}, failure(ClassBusy, "generate", spec.Label, "%w", err)
	}
	var record KeyRecord
	err := t.alone("generate", spec.Label, false, func(v *visit) error {
		existing, err := v.find(attribute(pkcs11.CKA_LABEL, spec.Label))
		if err != nil {
			return err
		}
		if len(existing) > 0 {
			return failure(ClassRefused, "generate", spec.Label, "the token has an object with this label: choose another")
		}
		ref := KeyRef{Label: spec.Label, ID: make([]byte, 16), Algorithm: spec.Algorithm}
		rand.Read(ref.ID)
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
	if err != nil {
		return nil, classify("C_GenerateKey", ref.Label, err)
	}
	if ref.Algorithm != Sealing {
		if ref.Public, err = v.readPublic(public, ref.Algorithm); err != nil {
			return nil, classify("read public key", ref.Label, err)
		}
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
	private := privateTemplate(spec, id)
	switch spec.Algorithm {
	case Sealing:
		if !gen.mechs[pkcs11.CKM_AES_KEY_GEN] || !gen.mechs[pkcs11.CKM_AES_GCM] {
			return 0, failure(ClassUnsupported, "generate", spec.Label, "the token has no AES-GCM")
		}
		_, err := gen.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)},
			append(private, attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
				attribute(pkcs11.CKA_VALUE_LEN, 32), attribute(pkcs11.CKA_ENCRYPT, true), attribute(pkcs11.CKA_WRAP, false),
				attribute(pkcs11.CKA_VERIFY, false)))
		return 0, err
	case issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA:
	default:
		return 0, failure(ClassUnsupported, "generate", spec.Label, "no key of algorithm %q can be made", spec.Algorithm)
	}
	mechanism, keyType := uint(pkcs11.CKM_EC_KEY_PAIR_GEN), uint(pkcs11.CKK_EC)
	if spec.Algorithm == issuance.EdDSA {
		mechanism, keyType = ckmEdwardsKeyGen, ckkEdwards
	}
	if !gen.mechs[mechanism] {
		return 0, failure(ClassUnsupported, "generate", spec.Label, "the token cannot make %s keys", spec.Algorithm)
	}
	public, _, err := gen.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
		publicTemplate(spec, id, keyType, usage),
		append(private, attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attribute(pkcs11.CKA_KEY_TYPE, keyType)))
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
	return t.alone("destroy", ref.Label, true, func(v *visit) error {
		handles, err := v.find(attribute(pkcs11.CKA_LABEL, ref.Label), attribute(pkcs11.CKA_ID, ref.ID))
		if err != nil {
			return err
		}
		if len(handles) == 0 {
			return failure(ClassKeyMissing, "destroy", ref.Label, "the token has no such key")
		}
		delete(t.refs, ref.Label)
		delete(v.gen.keys, ref.Label)
		for _, h := range handles {
			if err := v.call("C_DestroyObject", func() error { return v.gen.ctx.DestroyObject(v.session, h) }); err != nil {
				return classify("C_DestroyObject", ref.Label, err)
			}
		}
		return t.syncDirectory()
	})
}
