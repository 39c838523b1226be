package verifier

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	_ "crypto/sha256" // the hashes of ES256, ES384 and ES512
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"chancery/verifier/strictjson"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
)

// suite is one signature algorithm with everything that must agree.
type suite struct {
	name  string // JOSE
	cose  int64
	curve elliptic.Curve // nil for Ed25519
	hash  crypto.Hash
	jwk   string // crv of JWK
	crv   int64  // crv of COSE_Key
	width int    // of a coordinate, in bytes
}

var suites = []suite{
	{"ES256", -7, elliptic.P256(), crypto.SHA256, "P-256", 1, 32},
	{"ES384", -35, elliptic.P384(), crypto.SHA384, "P-384", 2, 48},
	{"ES512", -36, elliptic.P521(), crypto.SHA512, "P-521", 3, 66},
	{"EdDSA", -8, nil, 0, "Ed25519", 6, 32},
}

// suiteOf returns the algorithm that a public key signs with.
func suiteOf(key crypto.PublicKey) (suite, error) {
	i := slices.IndexFunc(suites, func(s suite) bool {
		switch k := key.(type) {
		case *ecdsa.PublicKey:
			return s.curve == k.Curve
		case ed25519.PublicKey:
			return s.curve == nil
		}
		return false
	})
	if i < 0 {
		return suite{}, errors.New("the key is neither EC P-256, P-384, P-521 nor Ed25519")
	}
	return suites[i], nil
}

// verify checks a raw signature (r‖s of fixed width, or Ed25519's 64 bytes).
func (s suite) verify(key crypto.PublicKey, message, signature []byte) error {
	if len(signature) != 2*s.width {
		return fmt.Errorf("the signature has %d bytes, %s has %d", len(signature), s.name, 2*s.width)
	}
	if s.curve == nil {
		if !ed25519.Verify(key.(ed25519.PublicKey), message, signature) {
			return errors.New("the signature does not verify with the issuer's key")
		}
		return nil
	}
	h := s.hash.New()
	h.Write(message)
	r, t := new(big.Int).SetBytes(signature[:s.width]), new(big.Int).SetBytes(signature[s.width:])
	if !ecdsa.Verify(key.(*ecdsa.PublicKey), h.Sum(nil), r, t) {
		return errors.New("the signature does not verify with the issuer's key")
	}
	return nil
}

// coseKey reads an MSO's deviceKey (RFC 9052 §7) and lists members that a
// device key should not carry.
func coseKey(data []byte) (crypto.PublicKey, []string, error) {
	if major(data) != majorMap {
		return nil, nil, errors.New("is no untagged COSE_Key map")
	}
	var members map[any]cbor.RawMessage
	if err := decoding.Unmarshal(data, &members); err != nil {
		return nil, nil, fmt.Errorf("is no COSE_Key map: %w", err)
	}
	integer := func(label int64) (n int64) {
		if decoding.Unmarshal(members[label], &n) != nil {
			return 0
		}
		return n
	}
	i := slices.IndexFunc(suites, func(s suite) bool {
		kty := int64(2)
		if s.curve == nil {
			kty = 1
		}
		return s.crv == integer(-1) && kty == integer(1)
	})
	if i < 0 {
		return nil, nil, errors.New("is of no curve known here (P-256, P-384, P-521, Ed25519)")
	}
	s := suites[i]
	var x, y []byte
	if err := decoding.Unmarshal(members[int64(-2)], &x); err != nil || len(x) != s.width {
		return nil, nil, fmt.Errorf("has no x of %d bytes", s.width)
	}
	known := []any{int64(1), int64(-1), int64(-2)}
	var key crypto.PublicKey = ed25519.PublicKey(x)
	if s.curve != nil {
		known = append(known, int64(-3))
		if err := decoding.Unmarshal(members[int64(-3)], &y); err != nil || len(y) != s.width {
			return nil, nil, fmt.Errorf("has no uncompressed y of %d bytes", s.width)
		}
		point, err := ecdsa.ParseUncompressedPublicKey(s.curve, slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, nil, errors.New("is no point of its curve")
		}
		key = point
	}
	var extra []string
	for label := range members {
		if !slices.Contains(known, label) {
			extra = append(extra, fmt.Sprint(label))
		}
	}
	slices.Sort(extra)
	return key, extra, nil
}

// privateMembers are the JWK members that hold secrets (RFC 7518 §6).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// publicJWK reads a public JWK that was decoded from JSON.
func publicJWK(object map[string]any) (crypto.PublicKey, error) {
	for _, name := range privateMembers {
		if _, found := object[name]; found {
			return nil, fmt.Errorf("carries the private member %q", name)
		}
	}
	text := func(name string) string { s, _ := object[name].(string); return s }
	i := slices.IndexFunc(suites, func(s suite) bool {
		kty := "EC"
		if s.curve == nil {
			kty = "OKP"
		}
		return s.jwk == text("crv") && kty == text("kty")
	})
	if i < 0 {
		return nil, errors.New("is of no curve known here (P-256, P-384, P-521, Ed25519)")
	}
	s := suites[i]
	x, err := base64.RawURLEncoding.Strict().DecodeString(text("x"))
	if err != nil || len(x) != s.width {
		return nil, fmt.Errorf("has no x of %d bytes", s.width)
	}
	if s.curve == nil {
		return ed25519.PublicKey(x), nil
	}
	y, err := base64.RawURLEncoding.Strict().DecodeString(text("y"))
	if err != nil || len(y) != s.width {
		return nil, fmt.Errorf("has no y of %d bytes", s.width)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(s.curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("is no point of its curve")
	}
	return key, nil
}

// Thumbprint returns a public key's RFC 7638 thumbprint with SHA-256, base64url.
func Thumbprint(key crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: key}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("the key has no thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// ParseJWK reads a public JWK, for instance an issuer's pinned key.
func ParseJWK(data []byte) (crypto.PublicKey, error) {
	object, err := strictjson.Object(data)
	if err != nil {
		return nil, err
	}
	key, err := publicJWK(object)
	if err != nil {
		return nil, fmt.Errorf("the JWK %w", err)
	}
	return key, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	switch k := a.(type) {
	case *ecdsa.PublicKey:
		return k.Equal(b)
	case ed25519.PublicKey:
		return k.Equal(b)
	}
	return false
}

// holder records the key the credential is bound to and holds it against the
// expected one.
func (v *verification) holder(key crypto.PublicKey, source string) {
	v.report.HolderKey = key
	if key != nil {
		v.report.Holder, _ = Thumbprint(key)
	}
	switch {
	case v.o.Holder == nil && key == nil:
		v.skip("holder binding", source, "the credential is bound to no key")
	case v.o.Holder == nil:
		v.pass("holder binding", source, "bound to a key with thumbprint %s", v.report.Holder)
	case !sameKey(v.o.Holder, key):
		v.fail("holder binding", source, "the credential is not bound to the key that was proven")
	default:
		v.pass("holder binding", source, "bound to the key that was proven")
	}
}
