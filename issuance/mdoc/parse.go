package mdoc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/issuance"
)

// maxTBS bounds what is parsed: the largest MSO with its envelope.
const maxTBS = 256 << 10

var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		UTF8: cbor.UTF8RejectInvalid, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   16, MaxArrayElements: 4096, MaxMapPairs: 4096,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return mode
}()

// keyMembers returns a public key's COSE_Key members.
func keyMembers(public crypto.PublicKey) (kty, crv int64, x, y []byte, err error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			crv = 1
		case elliptic.P384():
			crv = 2
		case elliptic.P521():
			crv = 3
		default:
			return 0, 0, nil, nil, errors.New("the device key's curve is not P-256, P-384 or P-521")
		}
		point, err := key.Bytes()
		if err != nil {
			return 0, 0, nil, nil, fmt.Errorf("the device key: %w", err)
		}
		n := len(point) / 2
		return 2, crv, point[1 : 1+n], point[1+n:], nil
	case ed25519.PublicKey:
		return 1, 6, key, nil, nil
	}
	return 0, 0, nil, nil, fmt.Errorf("a %T cannot be a device key", public)
}

// parsed forms keep what Prepare writes as types; times are strings until they
// are checked.
type parsedObject struct {
	Version         string                       `cbor:"version"`
	DigestAlgorithm string                       `cbor:"digestAlgorithm"`
	ValueDigests    map[string]map[uint64][]byte `cbor:"valueDigests"`
	DeviceKeyInfo   struct {
		DeviceKey map[int64]cbor.RawMessage `cbor:"deviceKey"`
	} `cbor:"deviceKeyInfo"`
	DocType      string `cbor:"docType"`
	ValidityInfo struct {
		Signed         cbor.RawTag  `cbor:"signed"`
		ValidFrom      cbor.RawTag  `cbor:"validFrom"`
		ValidUntil     cbor.RawTag  `cbor:"validUntil"`
		ExpectedUpdate *cbor.RawTag `cbor:"expectedUpdate,omitempty"`
	} `cbor:"validityInfo"`
	Status *status `cbor:"status,omitempty"`
}

// ParseTBS reads a COSE Sig_structure over a mobile security object back, as
// strictly as [Prepare] writes it: one protected header, SHA-256, times in
// order, a device key on its curve, deterministic encoding throughout. Whatever
// else may be in the bytes, it is not signed.
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	if len(tbs) > maxTBS {
		return issuance.Statement{}, fmt.Errorf("%d bytes are more than an MSO has", len(tbs))
	}
	algorithm, payload, err := parseSigStructure(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	mso, err := embedded(payload)
	if err != nil {
		return issuance.Statement{}, fmt.Errorf("payload: %w", err)
	}
	var o parsedObject
	if err := strict.Unmarshal(mso, &o); err != nil {
		return issuance.Statement{}, fmt.Errorf("mobile security object: %w", err)
	}
	s := issuance.Statement{Format: issuance.FormatMdoc, Algorithm: algorithm, Types: []string{o.DocType}}
	if err := o.check(&s); err != nil {
		return issuance.Statement{}, fmt.Errorf("mobile security object: %w", err)
	}
	if err := canonical(mso); err != nil {
		return issuance.Statement{}, fmt.Errorf("mobile security object: %w", err)
	}
	return s, nil
}

func parseSigStructure(tbs []byte) (issuance.Algorithm, []byte, error) {
	var parts []cbor.RawMessage
	if err := strict.Unmarshal(tbs, &parts); err != nil {
		return "", nil, fmt.Errorf("Sig_structure: %w", err)
	}
	if len(parts) != 4 || !bytes.Equal(parts[0], []byte("\x6aSignature1")) || !bytes.Equal(parts[2], []byte{0x40}) {
		return "", nil, errors.New("not a Sig_structure of one signature without external data")
	}
	var protected, payload []byte
	if strict.Unmarshal(parts[1], &protected) != nil || strict.Unmarshal(parts[3], &payload) != nil {
		return "", nil, errors.New("Sig_structure: header and payload are byte strings")
	}
	// The protected header is alg alone: these are all the forms there are.
	for _, a := range []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA} {
		want, err := encoder.Marshal(map[int64]int64{1: a.COSE()})
		if err == nil && bytes.Equal(protected, want) {
			rebuilt, err := encoder.Marshal([]any{"Signature1", protected, []byte{}, payload})
			if err != nil || !bytes.Equal(rebuilt, tbs) {
				return "", nil, errors.New("Sig_structure: not in deterministic encoding")
			}
			return a, payload, nil
		}
	}
	return "", nil, errors.New("the protected header must hold alg alone, of a known algorithm")
}

// embedded unwraps a byte string in tag 24.
func embedded(data []byte) ([]byte, error) {
	var tag cbor.RawTag
	if err := strict.Unmarshal(data, &tag); err != nil || tag.Number != 24 {
		return nil, errors.New("not embedded CBOR (tag 24)")
	}
	var inner []byte
	if err := strict.Unmarshal(tag.Content, &inner); err != nil {
		return nil, errors.New("tag 24 holds no byte string")
	}
	if again, err := encoder.Marshal(cbor.Tag{Number: 24, Content: inner}); err != nil || !bytes.Equal(again, data) {
		return nil, errors.New("not in deterministic encoding")
	}
	return inner, nil
}

// canonical demands the encoding that this program's encoder gives.
func canonical(data []byte) error {
	var any parsedAgain
	if err := strict.Unmarshal(data, &any); err != nil {
		return err
	}
	again, err := encoder.Marshal(any)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errors.New("not in deterministic encoding")
	}
	return nil
}

// parsedAgain re-encodes an MSO: tags stay raw, everything else is rebuilt.
type parsedAgain struct {
	Version         string                       `cbor:"version"`
	DigestAlgorithm string                       `cbor:"digestAlgorithm"`
	ValueDigests    map[string]map[uint64][]byte `cbor:"valueDigests"`
	DeviceKeyInfo   struct {
		DeviceKey map[int64]any `cbor:"deviceKey"`
	} `cbor:"deviceKeyInfo"`
	DocType      string                 `cbor:"docType"`
	ValidityInfo map[string]cbor.RawTag `cbor:"validityInfo"`
	Status       *status                `cbor:"status,omitempty"`
}

func (o *parsedObject) check(s *issuance.Statement) error {
	if o.Version != "1.0" || o.DigestAlgorithm != "SHA-256" {
		return errors.New("version must be \"1.0\" and digestAlgorithm \"SHA-256\"")
	}
	if o.DocType == "" || len(o.DocType) > 256 {
		return errors.New("docType is missing or too long")
	}
	if len(o.ValueDigests) == 0 || len(o.ValueDigests) > 64 {
		return errors.New("valueDigests must name 1 to 64 namespaces")
	}
	for name, digests := range o.ValueDigests {
		if name == "" || len(digests) == 0 || len(digests) > maxDigests {
			return errors.New("a namespace is unnamed, empty or too large")
		}
		for id, digest := range digests {
			if id >= 1<<31 || len(digest) != 32 {
				return errors.New("a digest id is not below 2^31 or a digest is not of 32 bytes")
			}
		}
	}
	if _, err := parseCOSEKey(o.DeviceKeyInfo.DeviceKey); err != nil {
		return fmt.Errorf("deviceKey: %w", err)
	}
	if o.Status != nil && o.Status.StatusList.URI == "" {
		return errors.New("status_list has no uri")
	}
	return o.times(s)
}

func (o *parsedObject) times(s *issuance.Statement) error {
	var err error
	if s.Signed, err = parseTDate(o.ValidityInfo.Signed); err != nil {
		return fmt.Errorf("signed: %w", err)
	}
	if s.ValidFrom, err = parseTDate(o.ValidityInfo.ValidFrom); err != nil {
		return fmt.Errorf("validFrom: %w", err)
	}
	if s.ValidUntil, err = parseTDate(o.ValidityInfo.ValidUntil); err != nil {
		return fmt.Errorf("validUntil: %w", err)
	}
	if o.ValidityInfo.ExpectedUpdate != nil {
		if _, err := parseTDate(*o.ValidityInfo.ExpectedUpdate); err != nil {
			return fmt.Errorf("expectedUpdate: %w", err)
		}
	}
	if s.ValidFrom.Before(s.Signed) || !s.ValidUntil.After(s.ValidFrom) {
		return errors.New("the validity must satisfy signed ≤ validFrom < validUntil")
	}
	return nil
}

func parseTDate(tag cbor.RawTag) (time.Time, error) {
	var text string
	if tag.Number != 0 || strict.Unmarshal(tag.Content, &text) != nil || len(text) != 20 {
		return time.Time{}, errors.New("not a tdate in UTC without fractions")
	}
	return time.Parse("2006-01-02T15:04:05Z", text)
}

// parseCOSEKey reads a device key with exactly the members that COSEKey writes.
func parseCOSEKey(members map[int64]cbor.RawMessage) (crypto.PublicKey, error) {
	var kty, crv int64
	var x, y []byte
	if strict.Unmarshal(members[keyKty], &kty) != nil || strict.Unmarshal(members[keyCrv], &crv) != nil || strict.Unmarshal(members[keyX], &x) != nil {
		return nil, errors.New("kty, crv and x are required")
	}
	if kty == 1 && crv == 6 && len(members) == 3 && len(x) == ed25519.PublicKeySize {
		return ed25519.PublicKey(x), nil
	}
	curve := map[int64]elliptic.Curve{1: elliptic.P256(), 2: elliptic.P384(), 3: elliptic.P521()}[crv]
	if kty != 2 || curve == nil || len(members) != 4 || strict.Unmarshal(members[keyY], &y) != nil {
		return nil, errors.New("not a key of a supported curve with kty, crv, x and y alone")
	}
	n := (curve.Params().BitSize + 7) / 8
	if len(x) != n || len(y) != n {
		return nil, fmt.Errorf("coordinates must have %d bytes", n)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
}
