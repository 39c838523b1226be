package verifier

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// COSE header labels (RFC 9052 §3.1, RFC 9360 §2).
const (
	labelAlgorithm = 1
	labelCritical  = 2
	labelChain     = 33
)

// issuerAuth is an untagged COSE_Sign1 (RFC 9052 §4.2) taken apart.
type issuerAuth struct {
	protected []byte // as it is signed
	algorithm int64
	chain     [][]byte // DER, leaf first
	payload   []byte
	signature []byte
}

// parseIssuerAuth takes IssuerAuth apart: an array of four, without tag 18.
func parseIssuerAuth(data []byte) (issuerAuth, error) {
	if major(data) != majorArray {
		return issuerAuth{}, errors.New("issuerAuth is no array; a COSE_Sign1 must stand here without tag 18")
	}
	var parts []cbor.RawMessage
	if err := decoding.Unmarshal(data, &parts); err != nil {
		return issuerAuth{}, fmt.Errorf("issuerAuth: %w", err)
	}
	if len(parts) != 4 {
		return issuerAuth{}, fmt.Errorf("issuerAuth has %d parts, a COSE_Sign1 has 4", len(parts))
	}
	var a issuerAuth
	for i, part := range []struct {
		name string
		to   *[]byte
	}{{"protected header", &a.protected}, {}, {"payload", &a.payload}, {"signature", &a.signature}} {
		if part.to == nil {
			continue
		}
		if major(parts[i]) != majorBytes {
			return issuerAuth{}, fmt.Errorf("issuerAuth's %s is no byte string", part.name)
		}
		if err := decoding.Unmarshal(parts[i], part.to); err != nil {
			return issuerAuth{}, fmt.Errorf("issuerAuth's %s: %w", part.name, err)
		}
	}
	return a, a.headers(parts[1])
}

// headers reads alg from the protected and x5chain from the unprotected header.
func (a *issuerAuth) headers(unprotected []byte) error {
	if major(a.protected) != majorMap || major(unprotected) != majorMap {
		return errors.New("issuerAuth's headers are no maps")
	}
	var signed, open map[any]cbor.RawMessage
	if err := decoding.Unmarshal(a.protected, &signed); err != nil {
		return fmt.Errorf("issuerAuth's protected header: %w", err)
	}
	if err := decoding.Unmarshal(unprotected, &open); err != nil {
		return fmt.Errorf("issuerAuth's unprotected header: %w", err)
	}
	if err := decoding.Unmarshal(signed[int64(labelAlgorithm)], &a.algorithm); err != nil {
		return errors.New("issuerAuth's protected header has no integer alg (1)")
	}
	if _, found := signed[int64(labelCritical)]; found {
		return errors.New("issuerAuth has critical headers (2), which are not understood")
	}
	for label := range signed {
		if _, twice := open[label]; twice {
			return fmt.Errorf("issuerAuth has the header %v both protected and unprotected", label)
		}
	}
	return a.certificates(open[int64(labelChain)])
}

// certificates reads x5chain: one certificate as a byte string, more as an array.
func (a *issuerAuth) certificates(value cbor.RawMessage) error {
	switch {
	case major(value) < 0:
		return errors.New("issuerAuth has no x5chain (33) in its unprotected header")
	case major(value) == majorBytes:
		var one []byte
		err := decoding.Unmarshal(value, &one)
		a.chain = [][]byte{one}
		return err
	case major(value) != majorArray:
		return errors.New("x5chain is neither a byte string nor an array")
	}
	if err := decoding.Unmarshal(value, &a.chain); err != nil {
		return fmt.Errorf("x5chain: %w", err)
	}
	if len(a.chain) < 2 || len(a.chain) > 8 {
		return fmt.Errorf("x5chain is an array of %d certificates; 2 to 8 are, one is a byte string", len(a.chain))
	}
	return nil
}

// toBeSigned builds the Sig_structure (RFC 9052 §4.4) byte by byte: context
// "Signature1", the protected header, no external data, the payload.
func (a *issuerAuth) toBeSigned() []byte {
	return slices.Concat([]byte("\x84\x6aSignature1"), byteString(a.protected), []byte{0x40}, byteString(a.payload))
}

// coseSignature verifies the issuer's signature with the leaf's key.
func (v *verification) coseSignature(a issuerAuth, leaf *x509.Certificate) {
	const source = "ISO/IEC 18013-5 §9.1.2.4; RFC 9052 §4.4"
	i := slices.IndexFunc(suites, func(s suite) bool { return s.cose == a.algorithm })
	if i < 0 {
		v.fail(checkSignature, source, "alg %d is none of ES256 (-7), ES384 (-35), ES512 (-36), EdDSA (-8)", a.algorithm)
		return
	}
	v.report.Algorithm = suites[i].name
	if leaf == nil {
		return
	}
	v.verdict(checkSignature, source, checkedBy(suites[i], leaf.PublicKey, a.toBeSigned(), a.signature), suites[i].name+", verified with the leaf certificate's key")
}

// checkedBy verifies after it made sure that algorithm and key belong together.
func checkedBy(s suite, key crypto.PublicKey, message, signature []byte) error {
	own, err := suiteOf(key)
	if err != nil {
		return err
	}
	if own.name != s.name {
		return fmt.Errorf("alg is %s, the issuer's key signs %s", s.name, own.name)
	}
	return s.verify(key, message, signature)
}

// digestHash returns the hash of an MSO's digestAlgorithm, or 0.
func digestHash(name string) crypto.Hash {
	switch name {
	case "SHA-256":
		return crypto.SHA256
	case "SHA-384":
		return crypto.SHA384
	case "SHA-512":
		return crypto.SHA512
	}
	return 0
}
