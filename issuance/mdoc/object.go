package mdoc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// What every security object says, and its bounds: digest ids stay far below
// 2^31, and maxTBS holds the largest object with its envelope.
const (
	version         = "1.0"
	digestAlgorithm = "SHA-256"
	maxNamespaces   = 16
	maxDigests      = 1024
	maxTBS          = 256 << 10
)

// securityObject is the MobileSecurityObject (ISO/IEC 18013-5 §9.1.2.4).
type securityObject struct {
	Version         string                       `cbor:"version"`
	DigestAlgorithm string                       `cbor:"digestAlgorithm"`
	ValueDigests    map[string]map[uint64][]byte `cbor:"valueDigests"`
	DeviceKeyInfo   deviceKeyInfo                `cbor:"deviceKeyInfo"`
	DocType         string                       `cbor:"docType"`
	ValidityInfo    validityInfo                 `cbor:"validityInfo"`
	Status          *status                      `cbor:"status,omitempty"`
}

type deviceKeyInfo struct {
	DeviceKey cbor.RawMessage `cbor:"deviceKey"`
}

type validityInfo struct {
	Signed         TDate  `cbor:"signed"`
	ValidFrom      TDate  `cbor:"validFrom"`
	ValidUntil     TDate  `cbor:"validUntil"`
	ExpectedUpdate *TDate `cbor:"expectedUpdate,omitempty"`
}

type status struct {
	StatusList statusList `cbor:"status_list"`
}

type statusList struct {
	Index uint64 `cbor:"idx"`
	URI   string `cbor:"uri"`
}

// check refuses what no reader would accept. [Prepare] and [ParseTBS] both pass
// through it, so that what is built is what is signed.
func (o *securityObject) check() error {
	if o.Version != version || o.DigestAlgorithm != digestAlgorithm {
		return fmt.Errorf("version must be %q and digestAlgorithm %q", version, digestAlgorithm)
	}
	if err := CheckName(o.DocType); err != nil {
		return fmt.Errorf("docType: %w", err)
	}
	if len(o.ValueDigests) == 0 || len(o.ValueDigests) > maxNamespaces {
		return fmt.Errorf("valueDigests must name 1 to %d namespaces", maxNamespaces)
	}
	for name, digests := range o.ValueDigests {
		if CheckName(name) != nil || len(digests) == 0 || len(digests) > maxDigests {
			return errors.New("valueDigests: a namespace has no proper name, is empty or too large")
		}
		for id, digest := range digests {
			if id >= 1<<31 || len(digest) != sha256.Size {
				return fmt.Errorf("valueDigests: an id is not below 2^31 or a digest is not of %d bytes", sha256.Size)
			}
		}
	}
	if o.Status != nil && o.Status.StatusList.URI == "" {
		return errors.New("status_list has no uri")
	}
	v := o.ValidityInfo
	if v.ValidFrom.before(v.Signed) || !v.ValidFrom.before(v.ValidUntil) {
		return errors.New("the validity must satisfy signed ≤ validFrom < validUntil")
	}
	if v.ExpectedUpdate != nil && !v.Signed.before(*v.ExpectedUpdate) {
		return errors.New("expectedUpdate must be after signed")
	}
	return nil
}

// coseKey is a COSE_Key with nothing but kty, crv, x and y (RFC 9053 §7).
type coseKey struct {
	Kty int64  `cbor:"1,keyasint"`
	Crv int64  `cbor:"-1,keyasint"`
	X   []byte `cbor:"-2,keyasint"`
	Y   []byte `cbor:"-3,keyasint,omitempty"`
}

// Key types, and the curves by their identifiers (RFC 9053 §7.1).
const (
	ktyOKP     = 1
	ktyEC2     = 2
	crvEd25519 = 6
)

var coseCurves = map[int64]elliptic.Curve{1: elliptic.P256(), 2: elliptic.P384(), 3: elliptic.P521()}

// COSEKey encodes a public key as an untagged COSE_Key with nothing but kty,
// crv, x and y; coordinates keep their leading zeros (RFC 9053 §7.1).
func COSEKey(public crypto.PublicKey) ([]byte, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		for crv, curve := range coseCurves {
			if key.Curve != curve {
				continue
			}
			point, err := key.Bytes()
			if err != nil {
				return nil, fmt.Errorf("the device key: %w", err)
			}
			n := 1 + len(point)/2
			return encoder.Marshal(coseKey{ktyEC2, crv, point[1:n], point[n:]})
		}
		return nil, errors.New("the device key's curve is not P-256, P-384 or P-521")
	case ed25519.PublicKey:
		if len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the device key has %d bytes, an Ed25519 key %d", len(key), ed25519.PublicKeySize)
		}
		return encoder.Marshal(coseKey{Kty: ktyOKP, Crv: crvEd25519, X: key})
	}
	return nil, fmt.Errorf("a %T cannot be a device key", public)
}

// checkCOSEKey refuses a device key that is not what COSEKey writes: other
// members, another encoding, another curve, a point that is not on it.
func checkCOSEKey(data []byte) error {
	var key coseKey
	if err := strict.Unmarshal(data, &key); err != nil {
		return errors.New("not a COSE_Key with kty, crv, x and y alone")
	}
	if again, err := encoder.Marshal(key); err != nil || !bytes.Equal(again, data) {
		return errors.New("not in deterministic encoding")
	}
	if key.Kty == ktyOKP && key.Crv == crvEd25519 && len(key.X) == ed25519.PublicKeySize && key.Y == nil {
		return nil
	}
	curve := coseCurves[key.Crv]
	if key.Kty != ktyEC2 || curve == nil {
		return errors.New("not a key of P-256, P-384, P-521 or Ed25519")
	}
	if n := (curve.Params().BitSize + 7) / 8; len(key.X) != n || len(key.Y) != n {
		return fmt.Errorf("coordinates must have %d bytes", n)
	}
	point := append(append([]byte{4}, key.X...), key.Y...)
	if _, err := ecdsa.ParseUncompressedPublicKey(curve, point); err != nil {
		return errors.New("the point is not on the curve")
	}
	return nil
}
