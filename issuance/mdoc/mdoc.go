// Package mdoc prepares ISO/IEC 18013-5 credentials: the IssuerSigned structure
// with its mobile security object, complete but for the signature.
//
// Everything that is hashed or signed is encoded once and travels as opaque
// bytes from then on (ISO/IEC 18013-5 §9.1.2).
package mdoc

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sort"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/issuance"
)

// SaltSize is the length in bytes of an item's random value; ISO/IEC 18013-5
// §9.1.2.5 wants at least 16.
const SaltSize = 32

// maxDigests bounds a namespace; digest ids stay far below 2^31.
const maxDigests = 1024

// Element is one data element. Value is a string, bool, int64, uint64, []byte,
// [TDate], [FullDate], []any or map[string]any of the same.
type Element struct {
	Namespace  string
	Identifier string
	Value      any
}

// StatusReference points into a Token Status List (ISO/IEC 18013-5 second edition §12.3.6).
type StatusReference struct {
	URI   string
	Index uint64
}

// Request is what goes into one mdoc.
type Request struct {
	DocType  string
	Elements []Element
	// DeviceKey is the holder's: P-256, P-384, P-521 or Ed25519.
	DeviceKey crypto.PublicKey
	// Chain holds the document signer's certificate and its issuers without the
	// IACA root, DER, leaf first.
	Chain [][]byte
	// Algorithm must be the one of the chain's leaf.
	Algorithm issuance.Algorithm
	// Signed, ValidFrom and ValidUntil are cut to whole seconds;
	// Signed ≤ ValidFrom < ValidUntil.
	Signed, ValidFrom, ValidUntil time.Time
	// ExpectedUpdate is left out when zero.
	ExpectedUpdate time.Time
	// PadTo pads each namespace with random digests to a multiple of this, so
	// that their number does not tell which optional elements exist; 0 means no padding.
	PadTo int
	// Status is left out when nil.
	Status *StatusReference
}

// TDate is a date-time: CBOR tag 0, RFC 3339 in UTC without fractions.
type TDate time.Time

// MarshalCBOR encodes the date-time; the zero time is refused.
func (d TDate) MarshalCBOR() ([]byte, error) {
	t := time.Time(d)
	if t.IsZero() || t.Year() < 1 || t.Year() > 9999 {
		return nil, errors.New("a tdate needs a time within the calendar")
	}
	return encoder.Marshal(cbor.Tag{Number: 0, Content: t.UTC().Format("2006-01-02T15:04:05Z")})
}

// FullDate is a calendar date YYYY-MM-DD: CBOR tag 1004 (RFC 8943).
type FullDate string

// ParseFullDate checks that a date is in the calendar.
func ParseFullDate(s string) (FullDate, error) {
	if _, err := time.Parse("2006-01-02", s); err != nil {
		return "", errors.New("not a date of the calendar as YYYY-MM-DD")
	}
	return FullDate(s), nil
}

// MarshalCBOR encodes the date.
func (d FullDate) MarshalCBOR() ([]byte, error) {
	if _, err := ParseFullDate(string(d)); err != nil {
		return nil, err
	}
	return encoder.Marshal(cbor.Tag{Number: 1004, Content: string(d)})
}

var encoder = func() cbor.EncMode {
	options := cbor.CoreDetEncOptions() // RFC 8949 §4.2.1
	options.NilContainers = cbor.NilContainerAsEmpty
	mode, err := options.EncMode()
	if err != nil {
		panic(err) // constant options
	}
	return mode
}()

// item is IssuerSignedItem; the encoder sorts the members.
type item struct {
	DigestID          uint64          `cbor:"digestID"`
	Random            []byte          `cbor:"random"`
	ElementIdentifier string          `cbor:"elementIdentifier"`
	ElementValue      cbor.RawMessage `cbor:"elementValue"`
}

type validityInfo struct {
	Signed         TDate  `cbor:"signed"`
	ValidFrom      TDate  `cbor:"validFrom"`
	ValidUntil     TDate  `cbor:"validUntil"`
	ExpectedUpdate *TDate `cbor:"expectedUpdate,omitempty"`
}

type statusList struct {
	Index uint64 `cbor:"idx"`
	URI   string `cbor:"uri"`
}

type status struct {
	StatusList statusList `cbor:"status_list"`
}

type deviceKeyInfo struct {
	DeviceKey cbor.RawMessage `cbor:"deviceKey"`
}

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

type issuerSigned struct {
	NameSpaces map[string][]cbor.RawMessage `cbor:"nameSpaces"`
	IssuerAuth cbor.RawMessage              `cbor:"issuerAuth"`
}

// Prepare builds the credential. Its TBS are the COSE Sig_structure; Assemble
// returns base64url(IssuerSigned) without padding (OpenID4VCI 1.0 A.2.4).
func Prepare(r Request) (*issuance.Prepared, error) { return prepare(r, rand.Reader) }

// prepare takes its randomness as an argument, so that vectors can be reproduced.
func prepare(r Request, random io.Reader) (*issuance.Prepared, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	deviceKey, err := COSEKey(r.DeviceKey)
	if err != nil {
		return nil, err
	}
	items, digests, err := r.items(random)
	if err != nil {
		return nil, err
	}
	object := securityObject{
		Version: "1.0", DigestAlgorithm: "SHA-256", ValueDigests: digests,
		DeviceKeyInfo: deviceKeyInfo{deviceKey}, DocType: r.DocType,
		ValidityInfo: validityInfo{Signed: TDate(r.Signed), ValidFrom: TDate(r.ValidFrom), ValidUntil: TDate(r.ValidUntil)},
	}
	if !r.ExpectedUpdate.IsZero() {
		update := TDate(r.ExpectedUpdate)
		object.ValidityInfo.ExpectedUpdate = &update
	}
	if r.Status != nil {
		object.Status = &status{statusList{r.Status.Index, r.Status.URI}}
	}
	mso, err := encoder.Marshal(object)
	if err != nil {
		return nil, err
	}
	payload, err := encoder.Marshal(cbor.Tag{Number: 24, Content: mso})
	if err != nil {
		return nil, err
	}
	return seal(r, items, payload)
}

// check refuses what no reader would accept, before anything is built.
func (r Request) check() error {
	if r.DocType == "" || len(r.Elements) == 0 {
		return errors.New("an mdoc needs a docType and at least one element")
	}
	if len(r.Chain) == 0 {
		return errors.New("an mdoc needs the document signer's certificate")
	}
	if r.Algorithm.COSE() == 0 {
		return fmt.Errorf("algorithm %q cannot sign an mdoc", r.Algorithm)
	}
	signed, from, until := r.Signed.Truncate(time.Second), r.ValidFrom.Truncate(time.Second), r.ValidUntil.Truncate(time.Second)
	if from.Before(signed) || !until.After(from) {
		return errors.New("the validity must satisfy signed ≤ validFrom < validUntil")
	}
	type name struct{ namespace, identifier string }
	seen := make(map[name]bool, len(r.Elements))
	for _, e := range r.Elements {
		n := name{e.Namespace, e.Identifier}
		if e.Namespace == "" || e.Identifier == "" || seen[n] {
			return fmt.Errorf("element %s/%s is unnamed or there twice", e.Namespace, e.Identifier)
		}
		seen[n] = true
	}
	return nil
}

// items salts, encodes and hashes every element, and adds the padding digests.
func (r Request) items(random io.Reader) (map[string][]cbor.RawMessage, map[string]map[uint64][]byte, error) {
	byNamespace := map[string][]Element{}
	for _, e := range r.Elements {
		byNamespace[e.Namespace] = append(byNamespace[e.Namespace], e)
	}
	names := make([]string, 0, len(byNamespace))
	for name := range byNamespace {
		names = append(names, name)
	}
	sort.Strings(names)
	items := make(map[string][]cbor.RawMessage, len(names))
	digests := make(map[string]map[uint64][]byte, len(names))
	for _, name := range names {
		elements := byNamespace[name]
		total := len(elements)
		if r.PadTo > 1 {
			total = (total + r.PadTo - 1) / r.PadTo * r.PadTo
		}
		if total > maxDigests {
			return nil, nil, fmt.Errorf("namespace %s: more than %d elements", name, maxDigests)
		}
		ids, err := permutation(random, total)
		if err != nil {
			return nil, nil, err
		}
		digests[name] = make(map[uint64][]byte, total)
		for i, e := range elements {
			encoded, err := encodeItem(e, ids[i], random)
			if err != nil {
				return nil, nil, err
			}
			sum := sha256.Sum256(encoded)
			items[name] = append(items[name], encoded)
			digests[name][ids[i]] = sum[:]
		}
		for _, id := range ids[len(elements):] {
			decoy := make([]byte, sha256.Size)
			if _, err := io.ReadFull(random, decoy); err != nil {
				return nil, nil, err
			}
			digests[name][id] = decoy
		}
	}
	return items, digests, nil
}

// encodeItem returns IssuerSignedItemBytes: tag 24 around the encoded item.
func encodeItem(e Element, id uint64, random io.Reader) (cbor.RawMessage, error) {
	value, err := encoder.Marshal(e.Value)
	if err == nil {
		err = strict.Wellformed(value)
	}
	if err != nil {
		return nil, fmt.Errorf("element %s/%s cannot be encoded", e.Namespace, e.Identifier)
	}
	salt := make([]byte, SaltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return nil, err
	}
	inner, err := encoder.Marshal(item{id, salt, e.Identifier, value})
	if err != nil {
		return nil, err
	}
	return encoder.Marshal(cbor.Tag{Number: 24, Content: inner})
}

// permutation returns 0..n-1 in an unpredictable order (Fisher–Yates), so that a
// digest id does not tell which element it is.
func permutation(random io.Reader, n int) ([]uint64, error) {
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = uint64(i)
	}
	for i := n - 1; i > 0; i-- {
		j, err := uniform(random, i+1)
		if err != nil {
			return nil, err
		}
		ids[i], ids[j] = ids[j], ids[i]
	}
	return ids, nil
}

// uniform returns a number below n without bias.
func uniform(random io.Reader, n int) (int, error) {
	limit := 1 << 16 / n * n
	var b [2]byte
	for {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return 0, err
		}
		if v := int(b[0])<<8 | int(b[1]); v < limit {
			return v % n, nil
		}
	}
}

// COSE header and key labels (RFC 9052 §3.1, §7; RFC 9360 §2; RFC 9053 §7).
const (
	headerX5Chain = 33
	keyKty        = 1
	keyCrv        = -1
	keyX          = -2
	keyY          = -3
)

// seal builds the Sig_structure and what puts the signature in its place.
func seal(r Request, items map[string][]cbor.RawMessage, payload []byte) (*issuance.Prepared, error) {
	protected, err := encoder.Marshal(map[int64]int64{1: r.Algorithm.COSE()})
	if err != nil {
		return nil, err
	}
	tbs, err := encoder.Marshal([]any{"Signature1", protected, []byte{}, payload})
	if err != nil {
		return nil, err
	}
	var chain any = r.Chain[0] // one certificate stands alone, several in an array (RFC 9360 §2)
	if len(r.Chain) > 1 {
		chain = r.Chain
	}
	used := false
	assemble := func(signature []byte) (string, error) {
		if used {
			return "", errors.New("a prepared credential is assembled once")
		}
		if len(signature) != r.Algorithm.SignatureSize() {
			return "", fmt.Errorf("a signature of %d bytes, %s has %d", len(signature), r.Algorithm, r.Algorithm.SignatureSize())
		}
		used = true
		// issuerAuth is COSE_Sign1 without its tag.
		auth, err := encoder.Marshal([]any{protected, map[int64]any{headerX5Chain: chain}, payload, signature})
		if err != nil {
			return "", err
		}
		out, err := encoder.Marshal(issuerSigned{items, auth})
		if err != nil {
			return "", err
		}
		return base64.RawURLEncoding.EncodeToString(out), nil
	}
	return &issuance.Prepared{Format: issuance.FormatMdoc, Algorithm: r.Algorithm, TBS: tbs, Assemble: assemble}, nil
}

// COSEKey encodes a public key as an untagged COSE_Key with nothing but kty,
// crv, x and y; coordinates keep their leading zeros (RFC 9053 §7.1).
func COSEKey(public crypto.PublicKey) ([]byte, error) {
	kty, crv, x, y, err := keyMembers(public)
	if err != nil {
		return nil, err
	}
	members := map[int64]any{keyKty: kty, keyCrv: crv, keyX: x}
	if y != nil {
		members[keyY] = y
	}
	return encoder.Marshal(members)
}
