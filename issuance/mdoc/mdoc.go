// Package mdoc prepares ISO/IEC 18013-5 credentials: the IssuerSigned structure
// with its mobile security object, complete but for the signature.
//
// Everything that is hashed or signed is encoded once and travels as opaque
// bytes from then on (ISO/IEC 18013-5 §9.1.2).
package mdoc

import (
	"bufio"
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

type issuerSigned struct {
	NameSpaces map[string][]cbor.RawMessage `cbor:"nameSpaces"`
	IssuerAuth cbor.RawMessage              `cbor:"issuerAuth"`
}

// Prepare builds the credential. Its TBS are the COSE Sig_structure; Assemble
// returns base64url(IssuerSigned) without padding (OpenID4VCI 1.0 A.2.4).
func Prepare(r Request) (*issuance.Prepared, error) {
	return prepare(r, bufio.NewReaderSize(rand.Reader, 1024))
}

// prepare takes its randomness as an argument, so that vectors can be reproduced.
func prepare(r Request, random *bufio.Reader) (*issuance.Prepared, error) {
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
		Version: version, DigestAlgorithm: digestAlgorithm, ValueDigests: digests,
		DeviceKeyInfo: deviceKeyInfo{deviceKey}, DocType: r.DocType,
		ValidityInfo: validityInfo{Signed: newTDate(r.Signed), ValidFrom: newTDate(r.ValidFrom), ValidUntil: newTDate(r.ValidUntil)},
	}
	if !r.ExpectedUpdate.IsZero() {
		update := newTDate(r.ExpectedUpdate)
		object.ValidityInfo.ExpectedUpdate = &update
	}
	if r.Status != nil {
		object.Status = &status{statusList{r.Status.Index, r.Status.URI}}
	}
	if err := object.check(); err != nil {
		return nil, err
	}
	mso, err := encoder.Marshal(object)
	if err != nil {
		return nil, err
	}
	payload, err := embed(mso)
	if err != nil {
		return nil, err
	}
	return seal(r, items, payload)
}

// check refuses what has no place in the security object's own check.
func (r Request) check() error {
	if len(r.Elements) == 0 {
		return errors.New("an mdoc needs at least one element")
	}
	if len(r.Chain) == 0 {
		return errors.New("an mdoc needs the document signer's certificate")
	}
	if r.Algorithm.COSE() == 0 {
		return fmt.Errorf("algorithm %q cannot sign an mdoc", r.Algorithm)
	}
	type name struct{ namespace, identifier string }
	seen := make(map[name]bool, len(r.Elements))
	for _, e := range r.Elements {
		n := name{e.Namespace, e.Identifier}
		if CheckName(e.Namespace) != nil || CheckName(e.Identifier) != nil || seen[n] {
			return fmt.Errorf("element %q of namespace %q has no proper name or is there twice", e.Identifier, e.Namespace)
		}
		seen[n] = true
		if err := checkValue(e.Value, 0); err != nil {
			return fmt.Errorf("element %s/%s: %w", e.Namespace, e.Identifier, err)
		}
	}
	return nil
}

// CheckName refuses a docType, namespace or element identifier that is not 1 to
// 128 printable ASCII characters.
func CheckName(name string) error {
	if name == "" || len(name) > 128 {
		return errors.New("a name must have 1 to 128 characters")
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return errors.New("a name must be printable ASCII")
		}
	}
	return nil
}

// items salts, encodes and hashes every element, and adds the padding digests.
func (r Request) items(random *bufio.Reader) (map[string][]cbor.RawMessage, map[string]map[uint64][]byte, error) {
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
			return nil, nil, fmt.Errorf("namespace %s: more than %d digests", name, maxDigests)
		}
		ids, err := permutation(random, total)
		if err != nil {
			return nil, nil, err
		}
		items[name] = make([]cbor.RawMessage, 0, len(elements))
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

// issuerSignedItem is IssuerSignedItem (ISO/IEC 18013-5 §8.3.2.1.2.2).
type issuerSignedItem struct {
	DigestID          uint64 `cbor:"digestID"`
	Random            []byte `cbor:"random"`
	ElementIdentifier string `cbor:"elementIdentifier"`
	ElementValue      any    `cbor:"elementValue"`
}

// encodeItem returns IssuerSignedItemBytes: tag 24 around the encoded item.
func encodeItem(e Element, id uint64, random *bufio.Reader) (cbor.RawMessage, error) {
	var salt [SaltSize]byte
	if _, err := io.ReadFull(random, salt[:]); err != nil {
		return nil, err
	}
	item, err := encoder.Marshal(issuerSignedItem{id, salt[:], e.Identifier, e.Value})
	if err != nil {
		return nil, fmt.Errorf("element %s/%s cannot be encoded", e.Namespace, e.Identifier)
	}
	return embed(item)
}

// permutation returns 0..n-1 in an unpredictable order (Fisher–Yates), so that a
// digest id does not tell which element it is.
func permutation(random *bufio.Reader, n int) ([]uint64, error) {
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

// uniform returns a number below n, at most 2^16, without bias.
func uniform(random *bufio.Reader, n int) (int, error) {
	limit := 1 << 16 / n * n
	for {
		high, err := random.ReadByte()
		if err != nil {
			return 0, err
		}
		low, err := random.ReadByte()
		if err != nil {
			return 0, err
		}
		if v := int(high)<<8 | int(low); v < limit {
			return v % n, nil
		}
	}
}

// headerX5Chain is x5chain's label in a COSE header (RFC 9360 §2).
const headerX5Chain = 33

// seal builds the Sig_structure and what puts the signature in its place.
func seal(r Request, items map[string][]cbor.RawMessage, payload []byte) (*issuance.Prepared, error) {
	protected, err := protectedHeader(r.Algorithm)
	if err != nil {
		return nil, err
	}
	tbs, err := sigStructure(protected, payload)
	if err != nil {
		return nil, err
	}
	if len(tbs) > maxTBS {
		return nil, fmt.Errorf("a security object of %d bytes is too large: at most %d are signed", len(tbs), maxTBS)
	}
	var chain any = r.Chain[0] // one certificate stands alone, several in an array (RFC 9360 §2)
	if len(r.Chain) > 1 {
		chain = r.Chain
	}
	return issuance.NewPrepared(issuance.FormatMdoc, r.Algorithm, tbs, func(signature []byte) (string, error) {
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
	}), nil
}

// protectedHeader holds alg and nothing else.
func protectedHeader(a issuance.Algorithm) ([]byte, error) {
	return encoder.Marshal(map[int64]int64{1: a.COSE()})
}

// sigStructure is what is signed (RFC 9052 §4.4), without external data.
func sigStructure(protected, payload []byte) ([]byte, error) {
	return encoder.Marshal([]any{"Signature1", protected, []byte{}, payload})
}
