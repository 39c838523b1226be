package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"chancery/issuance"
)

// PKCS#11 v3.0 values that the binding lacks.
const (
	ckkEdwards       = 0x40
	ckmEdwardsKeyGen = 0x1055
	ckmEdDSA         = 0x1057
	ckmAESKeyWrapKWP = 0x210B
)

// Sealing is the algorithm name of an AES-256 key that wraps data keys.
const Sealing issuance.Algorithm = "A256GCM"

// sealingBytes is the length of a sealing key.
const sealingBytes = 32

// KeySpec asks for a new key.
type KeySpec struct {
	// Label must be new in the token.
	Label string
	// Algorithm is ES256, ES384, ES512, EdDSA or [Sealing].
	Algorithm issuance.Algorithm
}

// KeyRef pins a key that a ceremony made: it must be in the token with this
// label, this CKA_ID and this public key, and nothing else may have either.
type KeyRef struct {
	Label     string
	ID        []byte
	Algorithm issuance.Algorithm
	Public    crypto.PublicKey // nil for a sealing key
}

// Attributes are a private or secret key's, as read back from the token. A nil
// member is one the token does not tell.
type Attributes struct {
	Sensitive        *bool `json:"sensitive"`
	AlwaysSensitive  *bool `json:"always_sensitive"`
	Extractable      *bool `json:"extractable"`
	NeverExtractable *bool `json:"never_extractable"`
	Local            *bool `json:"local"`
	Modifiable       *bool `json:"modifiable"`
	Private          *bool `json:"private"`
	Sign             *bool `json:"sign"`
	SignRecover      *bool `json:"sign_recover"`
	Encrypt          *bool `json:"encrypt"`
	Decrypt          *bool `json:"decrypt"`
	Wrap             *bool `json:"wrap"`
	Unwrap           *bool `json:"unwrap"`
	Derive           *bool `json:"derive"`
	// ValueRefused tells that the token refused to give the key's value away.
	ValueRefused bool `json:"value_refused"`
	// WrapRefused names the wrapping mechanisms that were tried on the key and
	// refused it; empty when the token has none.
	WrapRefused []string `json:"wrap_refused,omitempty"`
}

// KeyRecord is a key as it was made and proven.
type KeyRecord struct {
	KeyRef
	Attributes Attributes
}

// key is a key found in a generation.
type key struct {
	ref        KeyRef
	private    pkcs11.ObjectHandle
	attributes Attributes
}

// curveParams returns the DER of CKA_EC_PARAMS.
func curveParams(a issuance.Algorithm) []byte {
	var oid asn1.ObjectIdentifier
	switch a {
	case issuance.ES256:
		oid = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	case issuance.ES384:
		oid = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	case issuance.ES512:
		oid = asn1.ObjectIdentifier{1, 3, 132, 0, 35}
	case issuance.EdDSA:
		der, _ := asn1.MarshalWithParams("edwards25519", "printable")
		return der
	}
	der, _ := asn1.Marshal(oid)
	return der
}

// Load finds keys and proves each: exactly one private and one public object
// with its label and with its CKA_ID, the pinned public key, attributes that
// keep the key in the token, no way to wrap it out, and a signature that
// verifies. From then on every new generation proves them again. On an error
// none of them is loaded.
func (t *Token) Load(_ context.Context, refs []KeyRef) error {
	return t.alone("load keys", "", true, func(v *visit) error {
		found := make([]*key, len(refs))
		for i, ref := range refs {
			var err error
			if found[i], err = v.findKey(ref); err != nil {
				return err
			}
		}
		for i, ref := range refs {
			t.refs[ref.Label], v.gen.keys[ref.Label] = ref, found[i]
		}
		return nil
	})
}

// findAll finds every key again in a new generation.
func (t *Token) findAll(gen *generation) error {
	return t.visit(gen, "find keys", "", func(v *visit) error {
		for _, ref := range t.refs {
			k, err := v.findKey(ref)
			if err != nil {
				return err
			}
			gen.keys[ref.Label] = k
		}
		return nil
	})
}

// Labels returns the labels of all objects in the token, for a ceremony's checks.
func (t *Token) Labels() ([]string, error) {
	var labels []string
	err := t.alone("list keys", "", true, func(v *visit) error {
		labels = nil
		handles, err := v.find()
		if err != nil {
			return err
		}
		for _, h := range handles {
			value, err := v.get(h, pkcs11.CKA_LABEL)
			if class := ClassOf(err); err != nil && class.heals() {
				return err
			}
			if err == nil {
				labels = append(labels, string(value))
			}
		}
		return nil
	})
	return labels, err
}

// find returns every object that matches. To a session that is not logged in,
// the token shows no private object, which reads as "there is none": so an answer
// counts only when the session is still logged in after it.
func (v *visit) find(template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	var all []pkcs11.ObjectHandle
	err := v.call("C_FindObjects", func() error {
		if err := v.gen.ctx.FindObjectsInit(v.session, template); err != nil {
			return err
		}
		for {
			handles, _, err := v.gen.ctx.FindObjects(v.session, 64)
			if err != nil {
				v.gen.ctx.FindObjectsFinal(v.session)
				return err
			}
			if len(handles) == 0 {
				return v.gen.ctx.FindObjectsFinal(v.session)
			}
			all = append(all, handles...)
		}
	})
	if err != nil {
		return nil, err
	}
	return all, v.call("C_GetSessionInfo", func() error {
		info, err := v.gen.ctx.GetSessionInfo(v.session)
		if err == nil && info.State != pkcs11.CKS_RW_USER_FUNCTIONS {
			err = pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
		}
		return err
	})
}

// findKey finds and proves one key.
func (v *visit) findKey(ref KeyRef) (*key, error) {
	if ref.Label == "" || len(ref.ID) == 0 {
		return nil, failure(ClassRefused, "find key", ref.Label, "a key is found by label and CKA_ID, both")
	}
	class := uint(pkcs11.CKO_PRIVATE_KEY)
	if ref.Algorithm == Sealing {
		class = pkcs11.CKO_SECRET_KEY
	}
	private, err := v.only(ref, class)
	if err != nil {
		return nil, err
	}
	if ref.Algorithm != Sealing {
		public, err := v.only(ref, pkcs11.CKO_PUBLIC_KEY)
		if err != nil {
			return nil, err
		}
		held, err := v.readPublic(public, ref.Algorithm)
		if err != nil {
			return nil, err
		}
		if pinned, ok := ref.Public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pinned.Equal(held) {
			return nil, failure(ClassKeyMissing, "find key", ref.Label, "its public key is not the one of the ceremony")
		}
	}
	k := &key{ref: ref, private: private}
	if err := v.prove(k); err != nil {
		return nil, err
	}
	return k, nil
}

// only demands exactly one object of a class with the key's label and with its
// CKA_ID, and that they are the same object.
func (v *visit) only(ref KeyRef, class uint) (pkcs11.ObjectHandle, error) {
	byID, err := v.find(attribute(pkcs11.CKA_CLASS, class), attribute(pkcs11.CKA_ID, ref.ID))
	if err != nil {
		return 0, err
	}
	byLabel, err := v.find(attribute(pkcs11.CKA_CLASS, class), attribute(pkcs11.CKA_LABEL, ref.Label))
	if err != nil {
		return 0, err
	}
	if len(byID) != 1 || len(byLabel) != 1 || byID[0] != byLabel[0] {
		return 0, failure(ClassKeyMissing, "find key", ref.Label, "%d objects of class %d have its CKA_ID and %d its label: there must be the one of the ceremony", len(byID), class, len(byLabel))
	}
	return byID[0], nil
}

// get reads one attribute; what the token says of it is classified.
func (v *visit) get(h pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	var attributes []*pkcs11.Attribute
	err := v.call("C_GetAttributeValue", func() (err error) {
		attributes, err = v.gen.ctx.GetAttributeValue(v.session, h, []*pkcs11.Attribute{attribute(kind, nil)})
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(attributes) != 1 {
		return nil, errors.New("the token answers no attribute")
	}
	return attributes[0].Value, nil
}

// number reads an attribute that is a CK_ULONG.
func (v *visit) number(h pkcs11.ObjectHandle, kind uint) (uint64, error) {
	value, err := v.get(h, kind)
	if err == nil && len(value) != 8 {
		err = fmt.Errorf("an attribute of %d bytes is not a number", len(value))
	}
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(value), nil
}

// readPublic reads a public key object and checks that it fits the algorithm.
func (v *visit) readPublic(h pkcs11.ObjectHandle, a issuance.Algorithm) (crypto.PublicKey, error) {
	point, err := v.get(h, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	public, err := parsePoint(point, a)
	if err != nil {
		return nil, failure(ClassKeyMissing, "read public key", "", "%w", err)
	}
	return public, nil
}

// curves are the curves of the algorithms that have one here.
var curves = map[issuance.Algorithm]elliptic.Curve{issuance.ES256: elliptic.P256(), issuance.ES384: elliptic.P384(), issuance.ES512: elliptic.P521()}

// parsePoint reads the value of CKA_EC_POINT: the DER OCTET STRING of an
// uncompressed point, or of Ed25519's 32 bytes (PKCS#11 v2.40 mechanisms,
// section 2.3.3). Some tokens give the point bare. Which of the two it is only
// its length can tell: a bare point begins with 4, which is an OCTET STRING's tag.
func parsePoint(value []byte, a issuance.Algorithm) (crypto.PublicKey, error) {
	curve, size := curves[a], ed25519.PublicKeySize
	if curve != nil {
		size = 1 + 2*((curve.Params().BitSize+7)/8)
	} else if a != issuance.EdDSA {
		return nil, fmt.Errorf("algorithm %q has no public key", a)
	}
	point := value
	if len(value) != size {
		if rest, err := asn1.Unmarshal(value, &point); err != nil || len(rest) != 0 || len(point) != size {
			return nil, fmt.Errorf("%d bytes are not a public key for %s", len(value), a)
		}
	}
	if curve == nil {
		return ed25519.PublicKey(bytes.Clone(point)), nil
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, err // and no nil pointer that looks like a key
	}
	return public, nil
}
