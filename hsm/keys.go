package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"chancery/issuance"
)

// PKCS#11 v3.0 values that the binding lacks.
const (
	ckkEdwards       = 0x40
	ckmEdwardsKeyGen = 0x1055
	ckmEdDSA         = 0x1057
)

// Sealing is the algorithm name of an AES-256 key that wraps data keys.
const Sealing issuance.Algorithm = "A256GCM"

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
	Encrypt          *bool `json:"encrypt"`
	Decrypt          *bool `json:"decrypt"`
	Wrap             *bool `json:"wrap"`
	Unwrap           *bool `json:"unwrap"`
	Derive           *bool `json:"derive"`
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

// curveOID returns the DER of CKA_EC_PARAMS.
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

func publicTemplate(spec KeySpec, id []byte, keyType uint) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attribute(pkcs11.CKA_KEY_TYPE, keyType),
		attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_PRIVATE, false), attribute(pkcs11.CKA_MODIFIABLE, false),
		attribute(pkcs11.CKA_VERIFY, true), attribute(pkcs11.CKA_ENCRYPT, false), attribute(pkcs11.CKA_WRAP, false),
		attribute(pkcs11.CKA_EC_PARAMS, curveParams(spec.Algorithm)),
		attribute(pkcs11.CKA_LABEL, spec.Label), attribute(pkcs11.CKA_ID, id),
	}
}

// Generate makes a key with a random CKA_ID, proves it, and syncs it to disk.
// It is for ceremonies alone (promise P6). When the proof fails the key is
// destroyed again.
func (t *Token) Generate(_ context.Context, spec KeySpec) (KeyRecord, error) {
	t.life.Lock()
	defer t.life.Unlock()
	gen := t.gen
	if gen == nil {
		return KeyRecord{}, failure(t.class, "generate", spec.Label, "the token is not available")
	}
	if spec.Label == "" {
		return KeyRecord{}, failure(ClassRefused, "generate", "", "a key needs a label")
	}
	existing, err := t.find(gen, attribute(pkcs11.CKA_LABEL, spec.Label))
	if err != nil {
		return KeyRecord{}, err
	}
	if len(existing) > 0 {
		return KeyRecord{}, failure(ClassRefused, "generate", spec.Label, "the token has an object with this label: choose another")
	}
	id := make([]byte, 16)
	rand.Read(id)
	var handles []pkcs11.ObjectHandle
	if err := t.timed("C_GenerateKey", func() (err error) { handles, err = generate(gen, spec, id); return err }); err != nil {
		return KeyRecord{}, classify("C_GenerateKey", spec.Label, err)
	}
	ref := KeyRef{Label: spec.Label, ID: id, Algorithm: spec.Algorithm}
	if spec.Algorithm != Sealing {
		if ref.Public, err = readPublic(gen, handles[0], spec.Algorithm); err != nil {
			destroy(gen, handles)
			return KeyRecord{}, classify("read public key", spec.Label, err)
		}
	}
	k, err := t.findKey(gen, ref)
	if err == nil {
		err = t.syncDirectory()
	}
	if err != nil {
		destroy(gen, handles)
		return KeyRecord{}, err
	}
	t.refs[spec.Label], gen.keys[spec.Label] = ref, k
	return KeyRecord{ref, k.attributes}, nil
}

func destroy(gen *generation, handles []pkcs11.ObjectHandle) {
	for _, h := range handles {
		gen.ctx.DestroyObject(gen.keeper, h)
	}
}

// generate makes the objects; the public one first.
func generate(gen *generation, spec KeySpec, id []byte) ([]pkcs11.ObjectHandle, error) {
	private := privateTemplate(spec, id)
	switch spec.Algorithm {
	case Sealing:
		if !gen.mechs[pkcs11.CKM_AES_KEY_GEN] || !gen.mechs[pkcs11.CKM_AES_GCM] {
			return nil, failure(ClassUnsupported, "generate", spec.Label, "the token has no AES-GCM")
		}
		h, err := gen.ctx.GenerateKey(gen.keeper, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)},
			append(private, attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
				attribute(pkcs11.CKA_VALUE_LEN, 32), attribute(pkcs11.CKA_ENCRYPT, true), attribute(pkcs11.CKA_WRAP, false),
				attribute(pkcs11.CKA_VERIFY, false)))
		return []pkcs11.ObjectHandle{h}, err
	case issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA:
	default:
		return nil, failure(ClassUnsupported, "generate", spec.Label, "no key of algorithm %q can be made", spec.Algorithm)
	}
	mechanism, keyType := uint(pkcs11.CKM_EC_KEY_PAIR_GEN), uint(pkcs11.CKK_EC)
	if spec.Algorithm == issuance.EdDSA {
		mechanism, keyType = ckmEdwardsKeyGen, ckkEdwards
	}
	if !gen.mechs[mechanism] {
		return nil, failure(ClassUnsupported, "generate", spec.Label, "the token cannot make %s keys", spec.Algorithm)
	}
	public, h, err := gen.ctx.GenerateKeyPair(gen.keeper, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
		publicTemplate(spec, id, keyType),
		append(private, attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attribute(pkcs11.CKA_KEY_TYPE, keyType)))
	return []pkcs11.ObjectHandle{public, h}, err
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

// Destroy removes a key's objects for ever. Only the key that ref pins is touched.
func (t *Token) Destroy(_ context.Context, ref KeyRef) error {
	t.life.Lock()
	defer t.life.Unlock()
	if t.gen == nil {
		return failure(t.class, "destroy", ref.Label, "the token is not available")
	}
	handles, err := t.find(t.gen, attribute(pkcs11.CKA_LABEL, ref.Label), attribute(pkcs11.CKA_ID, ref.ID))
	if err != nil {
		return err
	}
	for _, h := range handles {
		if err := t.gen.ctx.DestroyObject(t.gen.keeper, h); err != nil {
			return classify("C_DestroyObject", ref.Label, err)
		}
	}
	delete(t.refs, ref.Label)
	delete(t.gen.keys, ref.Label)
	return t.syncDirectory()
}

// Load finds keys and proves each: exactly one private and one public object
// with its label and with its CKA_ID, the pinned public key, attributes that
// keep the key in the token, no way to wrap it out, and a signature that
// verifies. From then on every new generation proves them again.
func (t *Token) Load(_ context.Context, refs []KeyRef) error {
	t.life.Lock()
	defer t.life.Unlock()
	if t.gen == nil {
		return failure(t.class, "load keys", "", "the token is not available")
	}
	for _, ref := range refs {
		k, err := t.findKey(t.gen, ref)
		if err != nil {
			return err
		}
		t.refs[ref.Label], t.gen.keys[ref.Label] = ref, k
	}
	return nil
}

// findAll finds every key again in a new generation.
func (t *Token) findAll(gen *generation) error {
	for _, ref := range t.refs {
		k, err := t.findKey(gen, ref)
		if err != nil {
			return err
		}
		gen.keys[ref.Label] = k
	}
	return nil
}

// Labels returns the labels of all keys in the token, for a ceremony's checks.
func (t *Token) Labels() ([]string, error) {
	t.life.Lock()
	defer t.life.Unlock()
	if t.gen == nil {
		return nil, failure(t.class, "list keys", "", "the token is not available")
	}
	handles, err := t.find(t.gen)
	if err != nil {
		return nil, err
	}
	var labels []string
	for _, h := range handles {
		if value, err := get(t.gen, h, pkcs11.CKA_LABEL); err == nil {
			labels = append(labels, string(value))
		}
	}
	return labels, nil
}

// find returns every object that matches; life is held exclusively.
func (t *Token) find(gen *generation, template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	var all []pkcs11.ObjectHandle
	err := t.timed("C_FindObjects", func() error {
		if err := gen.ctx.FindObjectsInit(gen.keeper, template); err != nil {
			return err
		}
		for {
			handles, _, err := gen.ctx.FindObjects(gen.keeper, 64)
			if err != nil {
				gen.ctx.FindObjectsFinal(gen.keeper)
				return err
			}
			if len(handles) == 0 {
				return gen.ctx.FindObjectsFinal(gen.keeper)
			}
			all = append(all, handles...)
		}
	})
	if err != nil {
		return nil, classify("C_FindObjects", "", err)
	}
	return all, nil
}

// findKey finds and proves one key.
func (t *Token) findKey(gen *generation, ref KeyRef) (*key, error) {
	if ref.Label == "" || len(ref.ID) == 0 {
		return nil, failure(ClassRefused, "find key", ref.Label, "a key is found by label and CKA_ID, both")
	}
	class := uint(pkcs11.CKO_PRIVATE_KEY)
	if ref.Algorithm == Sealing {
		class = pkcs11.CKO_SECRET_KEY
	}
	private, err := t.only(gen, ref, class)
	if err != nil {
		return nil, err
	}
	if ref.Algorithm != Sealing {
		public, err := t.only(gen, ref, pkcs11.CKO_PUBLIC_KEY)
		if err != nil {
			return nil, err
		}
		held, err := readPublic(gen, public, ref.Algorithm)
		if err != nil {
			return nil, classify("read public key", ref.Label, err)
		}
		if pinned, ok := ref.Public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pinned.Equal(held) {
			return nil, failure(ClassKeyMissing, "find key", ref.Label, "its public key is not the one of the ceremony")
		}
	}
	k := &key{ref: ref, private: private}
	if err := t.prove(gen, k); err != nil {
		return nil, err
	}
	return k, nil
}

// only demands exactly one object of a class with the key's label and with its
// CKA_ID, and that they are the same object.
func (t *Token) only(gen *generation, ref KeyRef, class uint) (pkcs11.ObjectHandle, error) {
	byID, err := t.find(gen, attribute(pkcs11.CKA_CLASS, class), attribute(pkcs11.CKA_ID, ref.ID))
	if err != nil {
		return 0, err
	}
	byLabel, err := t.find(gen, attribute(pkcs11.CKA_CLASS, class), attribute(pkcs11.CKA_LABEL, ref.Label))
	if err != nil {
		return 0, err
	}
	if len(byID) != 1 || len(byLabel) != 1 || byID[0] != byLabel[0] {
		return 0, failure(ClassKeyMissing, "find key", ref.Label, "%d objects of class %d have its CKA_ID and %d its label: there must be the one of the ceremony", len(byID), class, len(byLabel))
	}
	return byID[0], nil
}

func get(gen *generation, h pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	attributes, err := gen.ctx.GetAttributeValue(gen.keeper, h, []*pkcs11.Attribute{attribute(kind, nil)})
	if err != nil {
		return nil, err
	}
	if len(attributes) != 1 {
		return nil, errors.New("the token answers no attribute")
	}
	return attributes[0].Value, nil
}

// readPublic reads a public key object and checks that it fits the algorithm.
func readPublic(gen *generation, h pkcs11.ObjectHandle, a issuance.Algorithm) (crypto.PublicKey, error) {
	point, err := get(gen, h, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	// Correct tokens wrap the point in a DER OCTET STRING, some give it bare.
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	var public crypto.PublicKey
	if a == issuance.EdDSA {
		if len(point) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 public key of %d bytes", len(point))
		}
		public = ed25519.PublicKey(bytes.Clone(point))
	} else {
		curve := map[issuance.Algorithm]elliptic.Curve{issuance.ES256: elliptic.P256(), issuance.ES384: elliptic.P384(), issuance.ES512: elliptic.P521()}[a]
		if curve == nil {
			return nil, fmt.Errorf("algorithm %q has no public key", a)
		}
		if public, err = ecdsa.ParseUncompressedPublicKey(curve, point); err != nil {
			return nil, err
		}
	}
	if got, err := issuance.AlgorithmFor(public); err != nil || got != a {
		return nil, fmt.Errorf("the key is for %s, not for %s", got, a)
	}
	return public, nil
}
