package mdoc

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/issuance"
)

// ParseTBS reads a COSE Sig_structure over a mobile security object back, as
// strictly as [Prepare] writes it: one protected header, SHA-256, times in
// order, a device key on its curve, no member beyond those, and the one
// encoding that this program gives it, to the last byte.
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	if len(tbs) > maxTBS {
		return issuance.Statement{}, fmt.Errorf("%d bytes are more than an MSO has", len(tbs))
	}
	algorithm, payload, err := parseSigStructure(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	mso, err := unembed(payload)
	if err != nil {
		return issuance.Statement{}, fmt.Errorf("payload: %w", err)
	}
	var o securityObject
	if err := strict.Unmarshal(mso, &o); err != nil {
		return issuance.Statement{}, fmt.Errorf("mobile security object: %w", err)
	}
	if err := o.check(); err != nil {
		return issuance.Statement{}, fmt.Errorf("mobile security object: %w", err)
	}
	if err := checkCOSEKey(o.DeviceKeyInfo.DeviceKey); err != nil {
		return issuance.Statement{}, fmt.Errorf("deviceKey: %w", err)
	}
	if again, err := encoder.Marshal(o); err != nil || !bytes.Equal(again, mso) {
		return issuance.Statement{}, errors.New("mobile security object: not in deterministic encoding")
	}
	v := o.ValidityInfo
	return issuance.Statement{Format: issuance.FormatMdoc, Algorithm: algorithm, Types: []string{o.DocType},
		Signed: time.Time(v.Signed), ValidFrom: time.Time(v.ValidFrom), ValidUntil: time.Time(v.ValidUntil)}, nil
}

func parseSigStructure(tbs []byte) (issuance.Algorithm, []byte, error) {
	var parts struct {
		_         struct{} `cbor:",toarray"`
		Context   string
		Protected []byte
		External  []byte
		Payload   []byte
	}
	if err := strict.Unmarshal(tbs, &parts); err != nil {
		return "", nil, fmt.Errorf("not a Sig_structure: %w", err)
	}
	// The context is written anew: whatever else stood there, the bytes differ.
	// So does external data, which is empty here.
	if again, err := sigStructure(parts.Protected, parts.Payload); err != nil || !bytes.Equal(again, tbs) {
		return "", nil, errors.New("not the Sig_structure of one signature, without external data, in deterministic encoding")
	}
	for _, a := range []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA} {
		if header, err := protectedHeader(a); err == nil && bytes.Equal(header, parts.Protected) {
			return a, parts.Payload, nil
		}
	}
	return "", nil, errors.New("the protected header must hold alg alone, of a known algorithm")
}

// unembed unwraps a byte string in tag 24.
func unembed(data []byte) ([]byte, error) {
	var tag cbor.RawTag
	if err := strict.Unmarshal(data, &tag); err != nil || tag.Number != tagEmbedded {
		return nil, errors.New("not embedded CBOR (tag 24)")
	}
	var inner []byte
	if err := strict.Unmarshal(tag.Content, &inner); err != nil {
		return nil, errors.New("tag 24 holds no byte string")
	}
	if again, err := embed(inner); err != nil || !bytes.Equal(again, data) {
		return nil, errors.New("not in deterministic encoding")
	}
	return inner, nil
}
