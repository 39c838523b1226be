package hsm

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"github.com/miekg/pkcs11"

	"chancery/issuance"
)

// prove reads a key's attributes back, tries to take the key out, and uses it
// once. What a token was told is not what it did.
func (v *visit) prove(k *key) error {
	unsafe := func(format string, args ...any) error {
		return failure(ClassKeyUnsafe, "prove key", k.ref.Label, format, args...)
	}
	var err error
	if k.attributes, err = v.readAttributes(k.private); err != nil {
		return classify("prove key", k.ref.Label, err)
	}
	for _, a := range k.attributes.demands(k.ref.Algorithm == Sealing) {
		if a.is == nil && a.optional || a.is != nil && *a.is == a.want {
			continue
		}
		if a.name == "CKA_LOCAL" && !v.marksLocal(k.ref.Algorithm) {
			continue
		}
		return unsafe("%s is %s, it must be %v: the token does not protect this key", a.name, show(a.is), a.want)
	}
	if !k.attributes.ValueRefused {
		return unsafe("the token tells the key's value: it is not a place for issuing keys")
	}
	var out string
	if k.attributes.WrapRefused, out, err = v.wrapOut(k.private); err != nil {
		return classify("prove key", k.ref.Label, err)
	}
	if out != "" {
		return unsafe("the token let the key out by %s: it is not a place for issuing keys", out)
	}
	return v.tryOut(k)
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
		{"CKA_LOCAL", a.Local, true, true},
		{"CKA_PRIVATE", a.Private, true, false},
		{"CKA_MODIFIABLE", a.Modifiable, false, true},
		{"CKA_UNWRAP", a.Unwrap, false, true},
		{"CKA_DERIVE", a.Derive, false, true},
		{"CKA_DECRYPT", a.Decrypt, sealing, true},
		{"CKA_SIGN", a.Sign, !sealing, true},
		{"CKA_WRAP", a.Wrap, false, true},
	}
}

func (v *visit) readAttributes(h pkcs11.ObjectHandle) (a Attributes, err error) {
	for _, read := range []struct {
		kind uint
		to   **bool
	}{
		{pkcs11.CKA_SENSITIVE, &a.Sensitive}, {pkcs11.CKA_ALWAYS_SENSITIVE, &a.AlwaysSensitive},
		{pkcs11.CKA_EXTRACTABLE, &a.Extractable}, {pkcs11.CKA_NEVER_EXTRACTABLE, &a.NeverExtractable},
		{pkcs11.CKA_LOCAL, &a.Local}, {pkcs11.CKA_MODIFIABLE, &a.Modifiable}, {pkcs11.CKA_PRIVATE, &a.Private},
		{pkcs11.CKA_SIGN, &a.Sign}, {pkcs11.CKA_ENCRYPT, &a.Encrypt}, {pkcs11.CKA_DECRYPT, &a.Decrypt},
		{pkcs11.CKA_WRAP, &a.Wrap}, {pkcs11.CKA_UNWRAP, &a.Unwrap}, {pkcs11.CKA_DERIVE, &a.Derive},
	} {
		value, err := v.get(h, read.kind)
		if ClassOf(err).heals() {
			return a, err // a token that went away is not one that does not tell
		}
		if err == nil && len(value) == 1 {
			is := value[0] != 0
			*read.to = &is
		}
	}
	value, err := v.get(h, pkcs11.CKA_VALUE)
	if ClassOf(err).heals() {
		return a, err
	}
	a.ValueRefused = err != nil || len(value) == 0
	clear(value)
	return a, nil
}

// marksLocal tells whether the module sets CKA_LOCAL on what it generates: it is
// asked for a throw-away key. A module that cannot make one is held to the
// standard.
func (v *visit) marksLocal(a issuance.Algorithm) bool {
	if v.fresh() != nil {
		return true
	}
	var h pkcs11.ObjectHandle
	err := v.call("C_GenerateKey", func() (err error) { h, err = throwAway(v.gen, v.session, a); return err })
	if err != nil {
		return true
	}
	value, err := v.get(h, pkcs11.CKA_LOCAL)
	v.spoiled = true // the throw-away key ends with its session
	return err != nil || len(value) != 1 || value[0] != 0
}

// throwAway makes a key that ends with its session, of the same kind as a's.
func throwAway(gen *generation, session pkcs11.SessionHandle, a issuance.Algorithm) (pkcs11.ObjectHandle, error) {
	if a == Sealing {
		return wrappingKey(gen, session)
	}
	mechanism := uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	if a == issuance.EdDSA {
		mechanism = ckmEdwardsKeyGen
	}
	_, h, err := gen.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
		[]*pkcs11.Attribute{attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_EC_PARAMS, curveParams(a)), attribute(pkcs11.CKA_VERIFY, true)},
		[]*pkcs11.Attribute{attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_SIGN, true)})
	return h, err
}

func wrappingKey(gen *generation, session pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	return gen.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), attribute(pkcs11.CKA_VALUE_LEN, 32),
		attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_ENCRYPT, true),
	})
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

// wrapOut tries to take a key out under a throw-away wrapping key. It returns
// the mechanisms that refused, or the one that let the key out. A token that
// cannot make a wrapping key has no way out by wrapping.
func (v *visit) wrapOut(h pkcs11.ObjectHandle) (refused []string, out string, err error) {
	if !v.gen.mechs[pkcs11.CKM_AES_KEY_GEN] {
		return nil, "", nil
	}
	for _, w := range wrappers {
		if !v.gen.mechs[w.mechanism] {
			continue
		}
		if err := v.fresh(); err != nil {
			return nil, "", err
		}
		var wrapping pkcs11.ObjectHandle
		if err := v.call("C_GenerateKey", func() (err error) { wrapping, err = wrappingKey(v.gen, v.session); return err }); err != nil {
			if e := classify("C_GenerateKey", "", err); e.Class.heals() {
				return nil, "", e
			}
			return refused, "", nil
		}
		var parameter any
		if w.iv {
			parameter = make([]byte, 16)
		}
		var wrapped []byte
		err := v.call("C_WrapKey", func() (err error) {
			wrapped, err = v.gen.ctx.WrapKey(v.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(w.mechanism, parameter)}, wrapping, h)
			return err
		})
		v.spoiled = true // the wrapping key ends with its session
		switch {
		case err == nil && len(wrapped) > 0:
			clear(wrapped)
			return nil, w.name, nil
		case err != nil && classify("C_WrapKey", "", err).Class.heals():
			return nil, "", classify("C_WrapKey", "", err) // a token that went away refused nothing
		}
		refused = append(refused, w.name)
	}
	return refused, "", nil
}

// tryOut signs, or seals and opens, random bytes.
func (v *visit) tryOut(k *key) error {
	probe := append([]byte("chancery key proof\x00"), make([]byte, 32)...)
	rand.Read(probe[len(probe)-32:])
	if err := v.fresh(); err != nil {
		return err
	}
	if k.ref.Algorithm != Sealing {
		err := v.call("C_Sign", func() error {
			_, err := signWith(v.gen, v.session, k, probe)
			return err
		})
		if err != nil {
			return classify("prove key", k.ref.Label, err)
		}
		return nil
	}
	if err := v.call("C_Encrypt", func() error { return sealAndOpen(v.gen, v.session, k, probe) }); err != nil {
		return classify("prove key", k.ref.Label, err)
	}
	return nil
}

// sealAndOpen seals a probe, opens it, and compares.
func sealAndOpen(gen *generation, session pkcs11.SessionHandle, k *key, probe []byte) error {
	sealed, err := sealWith(gen, session, k, probe, []byte("proof"))
	if err != nil {
		return err
	}
	opened, err := unsealWith(gen, session, k, sealed, []byte("proof"))
	if err == nil && !bytes.Equal(opened, probe) {
		err = failure(ClassBadSignature, "C_Decrypt", k.ref.Label, "what was sealed does not open to the same")
	}
	return err
}
