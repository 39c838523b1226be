package hsm

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"github.com/miekg/pkcs11"
)

// prove reads a key's attributes back, tries to wrap the key out, and uses it
// once. What a token was told is not what it did.
func (t *Token) prove(gen *generation, k *key) error {
	unsafe := func(format string, args ...any) error {
		return failure(ClassKeyUnsafe, "prove key", k.ref.Label, format, args...)
	}
	k.attributes = readAttributes(gen, k.private)
	for _, a := range k.attributes.demands(k.ref.Algorithm == Sealing) {
		if a.is == nil && a.optional {
			continue
		}
		if a.is == nil || *a.is != a.want {
			return unsafe("%s is %s, it must be %v: the token does not protect this key", a.name, show(a.is), a.want)
		}
	}
	refused, err := t.wrapOut(gen, k.private)
	if err != nil {
		return unsafe("%w", err)
	}
	k.attributes.WrapRefused = refused
	return t.tryOut(gen, k)
}

func show(b *bool) string {
	if b == nil {
		return "not told"
	}
	return fmt.Sprint(*b)
}

// demand is what an attribute must be.
type demand struct {
	name     string
	is       *bool
	want     bool
	optional bool // some tokens do not tell it
}

func (a Attributes) demands(sealing bool) []demand {
	return []demand{
		{"CKA_SENSITIVE", a.Sensitive, true, false},
		{"CKA_ALWAYS_SENSITIVE", a.AlwaysSensitive, true, false},
		{"CKA_EXTRACTABLE", a.Extractable, false, false},
		{"CKA_NEVER_EXTRACTABLE", a.NeverExtractable, true, false},
		{"CKA_LOCAL", a.Local, true, false},
		{"CKA_PRIVATE", a.Private, true, false},
		{"CKA_MODIFIABLE", a.Modifiable, false, true},
		{"CKA_UNWRAP", a.Unwrap, false, true},
		{"CKA_DERIVE", a.Derive, false, true},
		{"CKA_DECRYPT", a.Decrypt, sealing, true},
		{"CKA_SIGN", a.Sign, !sealing, true},
		{"CKA_WRAP", a.Wrap, false, true},
	}
}

func readAttributes(gen *generation, h pkcs11.ObjectHandle) Attributes {
	read := func(kind uint) *bool {
		value, err := get(gen, h, kind)
		if err != nil || len(value) != 1 {
			return nil
		}
		b := value[0] != 0
		return &b
	}
	return Attributes{
		Sensitive: read(pkcs11.CKA_SENSITIVE), AlwaysSensitive: read(pkcs11.CKA_ALWAYS_SENSITIVE),
		Extractable: read(pkcs11.CKA_EXTRACTABLE), NeverExtractable: read(pkcs11.CKA_NEVER_EXTRACTABLE),
		Local: read(pkcs11.CKA_LOCAL), Modifiable: read(pkcs11.CKA_MODIFIABLE), Private: read(pkcs11.CKA_PRIVATE),
		Sign: read(pkcs11.CKA_SIGN), Encrypt: read(pkcs11.CKA_ENCRYPT), Decrypt: read(pkcs11.CKA_DECRYPT),
		Wrap: read(pkcs11.CKA_WRAP), Unwrap: read(pkcs11.CKA_UNWRAP), Derive: read(pkcs11.CKA_DERIVE),
	}
}

// wrappers are the mechanisms that a key is tried to be wrapped out with.
var wrappers = []struct {
	name      string
	mechanism uint
	iv        bool
}{
	{"CKM_AES_KEY_WRAP_PAD", pkcs11.CKM_AES_KEY_WRAP_PAD, false},
	{"CKM_AES_KEY_WRAP", pkcs11.CKM_AES_KEY_WRAP, false},
	{"CKM_AES_CBC_PAD", pkcs11.CKM_AES_CBC_PAD, true},
}

// wrapOut tries to take a key out under a throw-away wrapping key, and returns
// the mechanisms that refused. It works in a session of its own, because an
// error leaves a session unusable. A token that cannot make a wrapping key has
// no way out by wrapping.
func (t *Token) wrapOut(gen *generation, h pkcs11.ObjectHandle) (refused []string, err error) {
	if !gen.mechs[pkcs11.CKM_AES_KEY_GEN] {
		return nil, nil
	}
	for _, w := range wrappers {
		if !gen.mechs[w.mechanism] {
			continue
		}
		var out []byte
		failed := t.timed("C_WrapKey", func() error {
			session, err := gen.ctx.OpenSession(gen.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			if err != nil {
				return err
			}
			defer gen.ctx.CloseSession(session)
			wrapping, err := gen.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
				attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), attribute(pkcs11.CKA_VALUE_LEN, 32),
				attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_ENCRYPT, true),
			})
			if err != nil {
				return err
			}
			var parameter any
			if w.iv {
				parameter = make([]byte, 16)
			}
			out, err = gen.ctx.WrapKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(w.mechanism, parameter)}, wrapping, h)
			return err
		})
		if failed == nil && len(out) > 0 {
			clear(out)
			return nil, fmt.Errorf("the token let the key out by %s: it is not a place for issuing keys", w.name)
		}
		refused = append(refused, w.name)
	}
	return refused, nil
}

// tryOut signs, or seals and opens, random bytes.
func (t *Token) tryOut(gen *generation, k *key) error {
	probe := append([]byte("chancery key proof\x00"), make([]byte, 32)...)
	rand.Read(probe[len(probe)-32:])
	session, err := t.session(gen)
	if err != nil {
		return classify("C_OpenSession", k.ref.Label, err)
	}
	err = t.timed("C_Sign", func() error {
		if k.ref.Algorithm != Sealing {
			_, err := signWith(gen, session, k, probe)
			return err
		}
		sealed, err := sealWith(gen, session, k, probe, []byte("proof"))
		if err != nil {
			return err
		}
		opened, err := unsealWith(gen, session, k, sealed, []byte("proof"))
		if err == nil && !bytes.Equal(opened, probe) {
			err = failure(ClassBadSignature, "C_Decrypt", k.ref.Label, "what was sealed does not open to the same")
		}
		return err
	})
	if err != nil {
		gen.ctx.CloseSession(session)
		return classify("prove key", k.ref.Label, err)
	}
	select {
	case gen.idle <- session:
	default:
		gen.ctx.CloseSession(session)
	}
	return nil
}
