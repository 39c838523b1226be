package hsm

import (
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
	if err := v.checkType(k); err != nil {
		return err
	}
	var err error
	if k.attributes, err = v.readAttributes(k.private); err != nil {
		return err
	}
	if breach := k.attributes.breach(k.ref.Algorithm == Sealing, func() bool { return v.marksLocal(k.ref.Algorithm) }); breach != "" {
		return unsafe("%s: the token does not protect this key", breach)
	}
	var out string
	if k.attributes.WrapRefused, out, err = v.wrapOut(k.private); err != nil {
		return err
	}
	if out != "" {
		return unsafe("the token let the key out by %s: it is not a place for issuing keys", out)
	}
	return v.tryOut(k)
}

// checkType demands the key type of the algorithm, and 256 bits of an AES key.
// The curve is the pinned public key's.
func (v *visit) checkType(k *key) error {
	got, err := v.number(k.private, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return err
	}
	if want := uint64(keyType(k.ref.Algorithm)); got != want {
		return failure(ClassKeyMissing, "prove key", k.ref.Label, "the token holds a key of type %#x, the ceremony made one of type %#x", got, want)
	}
	if k.ref.Algorithm != Sealing {
		return nil
	}
	if got, err = v.number(k.private, pkcs11.CKA_VALUE_LEN); err != nil {
		return err
	}
	if got != sealingBytes {
		return failure(ClassKeyMissing, "prove key", k.ref.Label, "the token holds an AES key of %d bytes, the ceremony made one of %d", got, sealingBytes)
	}
	return nil
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
		{"CKA_SIGN_RECOVER", a.SignRecover, false, true},
		{"CKA_WRAP", a.Wrap, false, true},
	}
}

// breach tells the first demand that the attributes do not meet; "" when they
// meet all. Whether the module sets CKA_LOCAL is asked only when that decides.
func (a Attributes) breach(sealing bool, marksLocal func() bool) string {
	for _, d := range a.demands(sealing) {
		if d.is == nil && d.optional || d.is != nil && *d.is == d.want || d.name == "CKA_LOCAL" && !marksLocal() {
			continue
		}
		return fmt.Sprintf("%s is %s, it must be %v", d.name, show(d.is), d.want)
	}
	if !a.ValueRefused {
		return "CKA_VALUE is told to who asks for it"
	}
	return ""
}

func (v *visit) readAttributes(h pkcs11.ObjectHandle) (a Attributes, err error) {
	for _, read := range []struct {
		kind uint
		to   **bool
	}{
		{pkcs11.CKA_SENSITIVE, &a.Sensitive}, {pkcs11.CKA_ALWAYS_SENSITIVE, &a.AlwaysSensitive},
		{pkcs11.CKA_EXTRACTABLE, &a.Extractable}, {pkcs11.CKA_NEVER_EXTRACTABLE, &a.NeverExtractable},
		{pkcs11.CKA_LOCAL, &a.Local}, {pkcs11.CKA_MODIFIABLE, &a.Modifiable}, {pkcs11.CKA_PRIVATE, &a.Private},
		{pkcs11.CKA_SIGN, &a.Sign}, {pkcs11.CKA_SIGN_RECOVER, &a.SignRecover}, {pkcs11.CKA_ENCRYPT, &a.Encrypt}, {pkcs11.CKA_DECRYPT, &a.Decrypt},
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
		return aesWrapper(gen, session, nil)
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

// aesWrapper makes an AES key in the token that may wrap others.
func aesWrapper(gen *generation, session pkcs11.SessionHandle, _ *pkcs11.Mechanism) (pkcs11.ObjectHandle, error) {
	return gen.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), attribute(pkcs11.CKA_VALUE_LEN, 32),
		attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_ENCRYPT, true),
	})
}

// rsaWrapper brings an RSA public key into the token that may wrap others, as an
// attacker would bring the own one. Nobody knows the factors of this one. It is
// left out where the token says that RSA does not wrap: tpm2-pkcs11 then takes
// the object, but confuses it with the keys that it has.
func rsaWrapper(gen *generation, session pkcs11.SessionHandle, mechanism *pkcs11.Mechanism) (pkcs11.ObjectHandle, error) {
	info, err := gen.ctx.GetMechanismInfo(gen.slot, []*pkcs11.Mechanism{mechanism})
	if err == nil && info.Flags&pkcs11.CKF_WRAP == 0 {
		err = pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)
	}
	if err != nil {
		return 0, err
	}
	modulus := make([]byte, 256)
	rand.Read(modulus)
	modulus[0] |= 0x80
	modulus[len(modulus)-1] |= 1
	return gen.ctx.CreateObject(session, []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		attribute(pkcs11.CKA_MODULUS, modulus), attribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_ENCRYPT, true),
	})
}

// wrappers are the mechanisms that a key is tried to be wrapped out with, and
// what makes the wrapping key of each.
var wrappers = []struct {
	name      string
	mechanism uint
	key       func(*generation, pkcs11.SessionHandle, *pkcs11.Mechanism) (pkcs11.ObjectHandle, error)
	parameter any
}{
	{"CKM_AES_KEY_WRAP_PAD", pkcs11.CKM_AES_KEY_WRAP_PAD, aesWrapper, nil},
	{"CKM_AES_KEY_WRAP", pkcs11.CKM_AES_KEY_WRAP, aesWrapper, nil},
	{"CKM_AES_KEY_WRAP_KWP", ckmAESKeyWrapKWP, aesWrapper, nil},
	{"CKM_AES_CBC_PAD", pkcs11.CKM_AES_CBC_PAD, aesWrapper, make([]byte, 16)},
	{"CKM_RSA_PKCS", pkcs11.CKM_RSA_PKCS, rsaWrapper, nil},
	{"CKM_RSA_PKCS_OAEP", pkcs11.CKM_RSA_PKCS_OAEP, rsaWrapper, pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil)},
}

// wrapOut tries to take a key out under a throw-away wrapping key. It returns
// the mechanisms that refused, or the one that let the key out. A mechanism for
// which the token takes no wrapping key is no way out.
func (v *visit) wrapOut(h pkcs11.ObjectHandle) (refused []string, out string, err error) {
	for _, w := range wrappers {
		if !v.gen.mechs[w.mechanism] {
			continue
		}
		if err := v.fresh(); err != nil {
			return nil, "", err
		}
		var wrapping pkcs11.ObjectHandle
		mechanism := pkcs11.NewMechanism(w.mechanism, w.parameter)
		if err := v.call("make a wrapping key", func() (err error) { wrapping, err = w.key(v.gen, v.session, mechanism); return err }); err != nil {
			if ClassOf(err).heals() {
				return nil, "", err
			}
			continue
		}
		var wrapped []byte
		err := v.call("C_WrapKey", func() (err error) {
			wrapped, err = v.gen.ctx.WrapKey(v.session, []*pkcs11.Mechanism{mechanism}, wrapping, h)
			return err
		})
		v.spoiled = true // the wrapping key ends with its session
		switch {
		case err == nil && len(wrapped) > 0:
			clear(wrapped)
			return nil, w.name, nil
		case ClassOf(err).heals():
			return nil, "", err // a token that went away refused nothing
		}
		refused = append(refused, w.name)
	}
	return refused, "", nil
}

// tryOut signs, or seals and opens, random bytes.
func (v *visit) tryOut(k *key) error {
	probe := append([]byte("chancery key proof\x00"), make([]byte, 32)...)
	rand.Read(probe[len(probe)-32:])
	err := v.fresh()
	if err == nil && k.ref.Algorithm == Sealing {
		err = v.sealAndUnseal(k, probe)
	} else if err == nil {
		_, err = v.sign(k, probe)
	}
	return err
}
