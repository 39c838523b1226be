package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"chancery/issuance"
)

// Keys that the appliance would not make, and what becomes of them.

// plant makes a key pair as any other program might.
func plant(t *testing.T, token *Token, label, id any) {
	t.Helper()
	common := func() []*pkcs11.Attribute {
		return []*pkcs11.Attribute{attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_LABEL, label), attribute(pkcs11.CKA_ID, id)}
	}
	_, _, err := token.gen.ctx.GenerateKeyPair(token.gen.keeper, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		append(common(), attribute(pkcs11.CKA_EC_PARAMS, curveParams(issuance.ES256))), append(common(), attribute(pkcs11.CKA_SIGN, true)))
	if err != nil {
		t.Fatal(err)
	}
}

// but is the template of what the appliance would make, with some attributes
// changed; nil leaves one to the token.
func but(template []*pkcs11.Attribute, change map[uint]any) []*pkcs11.Attribute {
	template = slices.DeleteFunc(template, func(a *pkcs11.Attribute) bool { _, changed := change[a.Type]; return changed })
	for kind, value := range change {
		if value != nil {
			template = append(template, attribute(kind, value))
		}
	}
	return template
}

// plantWith makes a key pair as the appliance does, but for some attributes of
// the private half, and returns what a ceremony would have recorded.
func plantWith(t *testing.T, token *Token, label string, change map[uint]any) KeyRef {
	t.Helper()
	ref := KeyRef{Label: label, ID: []byte(label), Algorithm: issuance.ES256}
	spec := KeySpec{label, issuance.ES256}
	public, _, err := token.gen.ctx.GenerateKeyPair(token.gen.keeper, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		publicTemplate(spec, ref.ID, true), but(privateTemplate(spec, ref.ID), change))
	if err != nil {
		t.Fatal(err)
	}
	ref.Public = publicOf(t, token, public)
	return ref
}

func publicOf(t *testing.T, token *Token, h pkcs11.ObjectHandle) crypto.PublicKey {
	t.Helper()
	public, err := (&visit{t: token, gen: token.gen, session: token.gen.keeper}).readPublic(h, issuance.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// importKey brings a key pair into the token that was made outside.
func importKey(t *testing.T, token *Token, label string, curve elliptic.Curve, a issuance.Algorithm) KeyRef {
	t.Helper()
	outside, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := outside.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := asn1.Marshal(point)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := outside.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	id := []byte(label)
	spec := KeySpec{label, a}
	for _, template := range [][]*pkcs11.Attribute{
		append(publicTemplate(spec, id, true), attribute(pkcs11.CKA_EC_POINT, wrapped)),
		append(privateTemplate(spec, id), attribute(pkcs11.CKA_EC_PARAMS, curveParams(a)), attribute(pkcs11.CKA_VALUE, secret)),
	} {
		if _, err := token.gen.ctx.CreateObject(token.gen.keeper, template); err != nil {
			t.Fatal(err)
		}
	}
	return KeyRef{Label: label, ID: id, Algorithm: a, Public: outside.Public()}
}

// TestKeysThatMayLeave plants keys that can be used otherwise than for signing,
// or out of the token.
func TestKeysThatMayLeave(t *testing.T) {
	token := openToken(t, config(t))
	ctx := context.Background()
	for name, change := range map[string]map[uint]any{
		"extractable":       {pkcs11.CKA_EXTRACTABLE: true},
		"not sensitive":     {pkcs11.CKA_SENSITIVE: false},
		"both":              {pkcs11.CKA_EXTRACTABLE: true, pkcs11.CKA_SENSITIVE: false},
		"decrypts":          {pkcs11.CKA_DECRYPT: true},
		"unwraps":           {pkcs11.CKA_UNWRAP: true},
		"derives":           {pkcs11.CKA_DERIVE: true},
		"signs recoverably": {pkcs11.CKA_SIGN_RECOVER: true},
		"modifiable":        {pkcs11.CKA_MODIFIABLE: true},
		"as tokens like it": {pkcs11.CKA_DECRYPT: nil, pkcs11.CKA_UNWRAP: nil, pkcs11.CKA_MODIFIABLE: nil, pkcs11.CKA_SIGN_RECOVER: nil},
		"not private":       {pkcs11.CKA_PRIVATE: false},
	} {
		t.Run(name, func(t *testing.T) {
			ref := plantWith(t, token, newLabel(), change)
			err := token.Load(ctx, []KeyRef{ref})
			wantClass(t, err, ClassKeyUnsafe)
			refuses(t, token, ref.Label, ClassKeyMissing)
		})
	}
	t.Run("brought in from outside", func(t *testing.T) {
		wantClass(t, token.Load(ctx, []KeyRef{importKey(t, token, newLabel(), elliptic.P256(), issuance.ES256)}), ClassKeyUnsafe)
	})
	t.Run("nothing wrong", func(t *testing.T) { // so that it was the attributes above
		if err := token.Load(ctx, []KeyRef{plantWith(t, token, newLabel(), nil)}); err != nil {
			t.Error(err)
		}
	})
}

// TestEveryAttributeCounts turns each attribute over, and lets each be untold.
func TestEveryAttributeCounts(t *testing.T) {
	for _, sealing := range []bool{false, true} {
		yes := func() bool { return true }
		good := func() Attributes {
			return Attributes{Sensitive: new(true), AlwaysSensitive: new(true), Extractable: new(false), NeverExtractable: new(true), Local: new(true),
				Private: new(true), Modifiable: new(false), Sign: new(!sealing), SignRecover: new(false), Decrypt: new(sealing),
				Wrap: new(false), Unwrap: new(false), Derive: new(false), ValueRefused: true}
		}
		if breach := good().breach(sealing, yes); breach != "" {
			t.Fatalf("a good key: %s", breach)
		}
		for i, d := range good().demands(sealing) {
			a := good()
			*a.demands(sealing)[i].is = !d.want
			if a.breach(sealing, yes) == "" {
				t.Errorf("%s does not count", d.name)
			}
		}
		for i, d := range good().demands(sealing) {
			a := untold(good(), i)
			if told := a.breach(sealing, yes) == ""; told != d.optional {
				t.Errorf("%s is not told, and the key is good: %v", d.name, told)
			}
		}
		told := good()
		told.ValueRefused = false
		if told.breach(sealing, yes) == "" {
			t.Error("a token that tells the value is good enough")
		}
		notLocal := good()
		*notLocal.Local = false
		if breach := notLocal.breach(sealing, func() bool { return false }); breach != "" {
			t.Errorf("a module that sets CKA_LOCAL on nothing: %s", breach)
		}
	}
}

// untold takes away the attribute of the i-th demand.
func untold(a Attributes, i int) Attributes {
	*[]**bool{&a.Sensitive, &a.AlwaysSensitive, &a.Extractable, &a.NeverExtractable, &a.Local, &a.Private, &a.Modifiable,
		&a.Unwrap, &a.Derive, &a.Decrypt, &a.Sign, &a.SignRecover, &a.Wrap}[i] = nil
	return a
}

// TestTheAttemptToWrapOut shows that it is one: a key that may leave does leave,
// by each mechanism that the token has for it.
func TestTheAttemptToWrapOut(t *testing.T) {
	token := openToken(t, config(t))
	kept := generateKey(t, token, newLabel(), issuance.ES256)
	if want := []string{"CKM_AES_KEY_WRAP_PAD", "CKM_AES_KEY_WRAP", "CKM_AES_CBC_PAD", "CKM_RSA_PKCS", "CKM_RSA_PKCS_OAEP"}; !slices.Equal(kept.Attributes.WrapRefused, want) {
		t.Errorf("tried were %q, want %q", kept.Attributes.WrapRefused, want)
	}
	loose := plantWith(t, token, newLabel(), map[uint]any{pkcs11.CKA_EXTRACTABLE: true})
	err := token.alone("test", "", false, func(v *visit) error {
		h, err := v.only(loose, pkcs11.CKO_PRIVATE_KEY)
		if err != nil {
			return err
		}
		refused, out, err := v.wrapOut(h)
		if out != "CKM_AES_KEY_WRAP_PAD" || err != nil {
			t.Errorf("refused %q, out by %q, %v", refused, out, err)
		}
		return v.fresh()
	})
	if err != nil {
		t.Error(err)
	}
}

// TestWhatIsReadOfAKey reads a key that the token does not protect, and one while
// the token goes away: an attribute that could not be read is not one that the
// token does not tell.
func TestWhatIsReadOfAKey(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	token.pauses.brief = 0
	ref := plantWith(t, token, newLabel(), map[uint]any{pkcs11.CKA_EXTRACTABLE: true, pkcs11.CKA_SENSITIVE: false})
	read := func(orders ...string) (a Attributes, err error) {
		err = token.alone("test", "", false, func(v *visit) error {
			h, err := v.only(ref, pkcs11.CKO_PRIVATE_KEY)
			if err == nil {
				fault.Order(t, orders...)
				a, err = v.readAttributes(h)
			}
			return err
		})
		return a, err
	}
	a, err := read()
	if err != nil || a.ValueRefused || *a.Sensitive || *a.AlwaysSensitive || !*a.Extractable || *a.NeverExtractable || !*a.Local {
		t.Errorf("%+v, %v", a, err)
	}
	calls := 0
	for ; calls < 50; calls++ {
		a, err := read(fmt.Sprintf("fail C_GetAttributeValue 0x32 1 %d", calls))
		if err == nil { // that many calls there are not
			if a.Sensitive == nil || a.Derive == nil || a.ValueRefused {
				t.Errorf("%+v", a)
			}
			break
		}
		wantClass(t, err, ClassTokenGone)
	}
	if calls < 15 || calls == 50 {
		t.Errorf("%d calls read all the attributes", calls)
	}
}

// TestWrongKindOfKey plants keys of another kind under the pinned label and CKA_ID.
func TestWrongKindOfKey(t *testing.T) {
	token := openToken(t, config(t))
	ctx := context.Background()
	secret := func(kind, mechanism uint, length int) KeyRef {
		label := newLabel()
		ref := KeyRef{Label: label, ID: []byte(label), Algorithm: Sealing}
		_, err := token.gen.ctx.GenerateKey(token.gen.keeper, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
			but(privateTemplate(KeySpec{label, Sealing}, ref.ID), map[uint]any{pkcs11.CKA_KEY_TYPE: kind, pkcs11.CKA_VALUE_LEN: length}))
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	wantClass(t, token.Load(ctx, []KeyRef{secret(pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, 16)}), ClassKeyMissing) // AES-128
	wantClass(t, token.Load(ctx, []KeyRef{secret(pkcs11.CKK_GENERIC_SECRET, pkcs11.CKM_GENERIC_SECRET_KEY_GEN, 32)}), ClassKeyMissing)
	if err := token.Load(ctx, []KeyRef{secret(pkcs11.CKK_AES, pkcs11.CKM_AES_KEY_GEN, 32)}); err != nil {
		t.Error(err)
	}
	other := importKey(t, token, newLabel(), elliptic.P384(), issuance.ES384)
	other.Algorithm = issuance.ES256 // another curve than pinned
	wantClass(t, token.Load(ctx, []KeyRef{other}), ClassKeyMissing)
	other.Algorithm = issuance.EdDSA
	wantClass(t, token.Load(ctx, []KeyRef{other}), ClassKeyMissing)
}

// TestAPublicHalfOfAnother gives the private key the public half of another one,
// as pairing by label or by an empty CKA_ID does: the signature tells.
func TestAPublicHalfOfAnother(t *testing.T) {
	token := openToken(t, config(t))
	ctx := context.Background()
	mine, theirs := plantWith(t, token, newLabel(), nil), plantWith(t, token, newLabel(), nil)
	err := token.alone("test", "", false, func(v *visit) error {
		for _, ref := range []KeyRef{mine, theirs} {
			h, err := v.only(ref, pkcs11.CKO_PUBLIC_KEY)
			if err == nil {
				err = v.gen.ctx.DestroyObject(v.session, h)
			}
			if err != nil {
				return err
			}
		}
		point, err := theirs.Public.(*ecdsa.PublicKey).Bytes()
		if err != nil {
			return err
		}
		wrapped, err := asn1.Marshal(point)
		if err != nil {
			return err
		}
		_, err = v.gen.ctx.CreateObject(v.session, append(publicTemplate(KeySpec{mine.Label, mine.Algorithm}, mine.ID, true), attribute(pkcs11.CKA_EC_POINT, wrapped)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantClass(t, token.Load(ctx, []KeyRef{mine}), ClassKeyMissing) // not the pinned one
	fooled := mine
	fooled.Public = theirs.Public
	wantClass(t, token.Load(ctx, []KeyRef{fooled}), ClassBadSignature)
	if bytes.Equal(mine.ID, theirs.ID) {
		t.Error("the test is not one")
	}
}
