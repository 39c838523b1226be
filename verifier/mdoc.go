package verifier

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// issuerSigned is ISO/IEC 18013-5 §8.3.2.1.2.2 IssuerSigned; unknown members
// are reserved for future use and ignored.
type issuerSigned struct {
	NameSpaces map[string][]cbor.RawMessage `cbor:"nameSpaces"`
	IssuerAuth cbor.RawMessage              `cbor:"issuerAuth"`
}

// issuerSignedItem is one data element; its bytes are hashed as they were sent.
type issuerSignedItem struct {
	DigestID          *uint64         `cbor:"digestID"`
	Random            []byte          `cbor:"random"`
	ElementIdentifier string          `cbor:"elementIdentifier"`
	ElementValue      cbor.RawMessage `cbor:"elementValue"`
}

// mso is the MobileSecurityObject (ISO/IEC 18013-5 §9.1.2.4).
type mso struct {
	Version         string                       `cbor:"version"`
	DigestAlgorithm string                       `cbor:"digestAlgorithm"`
	ValueDigests    map[string]map[uint64][]byte `cbor:"valueDigests"`
	DeviceKeyInfo   struct {
		DeviceKey cbor.RawMessage `cbor:"deviceKey"`
	} `cbor:"deviceKeyInfo"`
	DocType      string `cbor:"docType"`
	ValidityInfo struct {
		Signed     cbor.RawMessage `cbor:"signed"`
		ValidFrom  cbor.RawMessage `cbor:"validFrom"`
		ValidUntil cbor.RawMessage `cbor:"validUntil"`
	} `cbor:"validityInfo"`
	Status cbor.RawMessage `cbor:"status"`
}

// element is a data element that was read, with what its digest covers.
type element struct {
	namespace string
	sent      []byte // IssuerSignedItemBytes
	item      issuerSignedItem
}

// mdoc runs the reader's checks (ISO/IEC 18013-5 §9.3.1) on an IssuerSigned.
func (v *verification) mdoc(raw []byte) {
	const source = "ISO/IEC 18013-5 §8.3.2.1.2.2; OpenID4VCI 1.0 A.2.4"
	var signed issuerSigned
	err := decoding.Unmarshal(raw, &signed)
	if err == nil && len(signed.IssuerAuth) == 0 {
		err = errors.New("issuerAuth is missing")
	}
	var auth issuerAuth
	if err == nil {
		auth, err = parseIssuerAuth(signed.IssuerAuth)
	}
	var content []byte
	if err == nil {
		if content, err = unwrap(auth.payload); err != nil {
			err = fmt.Errorf("issuerAuth's payload: %w", err)
		}
	}
	var object mso
	if err == nil {
		if err = decoding.Unmarshal(content, &object); err != nil {
			err = fmt.Errorf("the mobile security object: %w", err)
		}
	}
	if !v.verdict(checkEncoding, source, err, "a strict IssuerSigned with an untagged COSE_Sign1 around a mobile security object") {
		return
	}
	v.report.Type = object.DocType
	elements := v.elements(signed.NameSpaces)
	v.shortForms(raw, content, elements)

	leaf, anchor := v.chain(auth.chain)
	v.coseSignature(auth, leaf)
	if leaf != nil {
		v.report.Issuer = leaf.Subject.String()
		v.documentSigner(leaf, anchor)
	}
	v.objectShape(object)
	v.digests(object, elements)
	v.mdocValidity(object, leaf)
	v.deviceKey(object)
	v.issuingPlace(elements, leaf)
	v.mandatory(object, elements)
	if len(object.Status) > 0 {
		v.skip("status", "ISO/IEC 18013-5 2nd edition §12.3.6", "the credential has a status reference; its list was not read")
	}
}

// elements reads every item. An item that does not parse fails the digest check
// later by its absence, and is named here.
func (v *verification) elements(namespaces map[string][]cbor.RawMessage) []element {
	const source = "ISO/IEC 18013-5 §9.1.2.5"
	var all []element
	var faults []string
	names := make([]string, 0, len(namespaces))
	for name := range namespaces {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		seenID, seenName := map[uint64]bool{}, map[string]bool{}
		for i, sent := range namespaces[name] {
			e, err := readElement(name, sent)
			if err == nil && (seenID[*e.item.DigestID] || seenName[e.item.ElementIdentifier]) {
				err = errors.New("repeats a digest ID or an element identifier")
			}
			if err != nil {
				faults = append(faults, fmt.Sprintf("%s, item %d: %v", name, i+1, err))
				continue
			}
			seenID[*e.item.DigestID], seenName[e.item.ElementIdentifier] = true, true
			all = append(all, e)
			v.report.Claims = append(v.report.Claims, mdocClaim(e))
		}
	}
	if len(all) == 0 && len(faults) == 0 {
		faults = append(faults, "the credential carries no data elements")
	}
	v.faults("data elements", source, faults, fmt.Sprintf("%d in %d namespaces, each once", len(all), len(names)))
	v.salts(all)
	return all
}

func readElement(namespace string, sent []byte) (element, error) {
	content, err := unwrap(sent)
	if err != nil {
		return element{}, err
	}
	e := element{namespace: namespace, sent: sent}
	if err := decoding.Unmarshal(content, &e.item); err != nil {
		return element{}, err
	}
	if e.item.DigestID == nil || e.item.ElementIdentifier == "" || len(e.item.ElementValue) == 0 {
		return element{}, errors.New("lacks digestID, elementIdentifier or elementValue")
	}
	return e, nil
}

// salts checks that each item's random is long enough and its own.
func (v *verification) salts(elements []element) {
	var faults []string
	seen := map[string]bool{}
	for _, e := range elements {
		if len(e.item.Random) < 16 {
			faults = append(faults, fmt.Sprintf("%s has a random of %d bytes, at least 16 are needed", e.item.ElementIdentifier, len(e.item.Random)))
		}
		if seen[string(e.item.Random)] {
			faults = append(faults, e.item.ElementIdentifier+" shares its random with another element")
		}
		seen[string(e.item.Random)] = true
	}
	v.faults("salts", "ISO/IEC 18013-5 §9.1.2.5", faults, "at least 16 bytes, all different")
}

func (v *verification) shortForms(raw, object []byte, elements []element) {
	fine := shortest(raw) && shortest(object)
	for _, e := range elements {
		content, err := unwrap(e.sent)
		fine = fine && err == nil && shortest(content)
	}
	const name, source = "shortest CBOR forms", "ISO/IEC 18013-5 2nd edition §8.3"
	if fine {
		v.pass(name, source, "every length and integer")
	} else {
		v.warn(name, source, "some length or integer is not in its shortest form")
	}
}

func (v *verification) objectShape(o mso) {
	const source = "ISO/IEC 18013-5 §9.1.2.4"
	var faults []string
	if o.Version != "1.0" {
		faults = append(faults, "version is not \"1.0\"")
	}
	if digestHash(o.DigestAlgorithm) == 0 {
		faults = append(faults, "digestAlgorithm is none of SHA-256, SHA-384, SHA-512")
	}
	if o.DocType == "" {
		faults = append(faults, "docType is missing")
	}
	if len(o.ValueDigests) == 0 {
		faults = append(faults, "valueDigests is empty")
	}
	v.faults("mobile security object", source, faults, "version 1.0, "+o.DigestAlgorithm)
	if v.o.Type == "" {
		return
	}
	var err error
	if o.DocType != v.o.Type {
		err = fmt.Errorf("the credential is a %q, expected %q", o.DocType, v.o.Type)
	}
	v.verdict("type", source, err, o.DocType)
}

// digests recomputes the digest of every element over the bytes as they were sent.
func (v *verification) digests(o mso, elements []element) {
	const source = "ISO/IEC 18013-5 §9.3.1"
	hash := digestHash(o.DigestAlgorithm)
	if hash == 0 {
		return
	}
	var faults []string
	total := 0
	for namespace, digests := range o.ValueDigests {
		if len(digests) == 0 {
			faults = append(faults, namespace+" has no digests")
		}
		total += len(digests)
		for id, digest := range digests {
			if len(digest) != hash.Size() || id >= 1<<31 {
				faults = append(faults, fmt.Sprintf("%s digest %d has %d bytes or too large an ID", namespace, id, len(digest)))
			}
		}
	}
	for _, e := range elements {
		want, found := o.ValueDigests[e.namespace][*e.item.DigestID]
		h := hash.New()
		h.Write(e.sent)
		if !found || string(h.Sum(nil)) != string(want) {
			faults = append(faults, fmt.Sprintf("%s/%s does not match its signed digest", e.namespace, e.item.ElementIdentifier))
		}
	}
	slices.Sort(faults)
	v.faults(checkDigests, source, faults, fmt.Sprintf("all %d elements match; %d digests are signed", len(elements), total))
}

// mdocValidity checks the validityInfo, in itself and against the certificate.
func (v *verification) mdocValidity(o mso, leaf *x509.Certificate) {
	const source = "ISO/IEC 18013-5 §9.1.2.4, §9.3.1"
	var times [3]time.Time
	var faults []string
	for i, m := range []struct {
		name string
		raw  cbor.RawMessage
	}{{"signed", o.ValidityInfo.Signed}, {"validFrom", o.ValidityInfo.ValidFrom}, {"validUntil", o.ValidityInfo.ValidUntil}} {
		t, err := tdate(m.raw)
		if err != nil {
			faults = append(faults, m.name+" "+err.Error())
		}
		times[i] = t
	}
	signed, from, until := times[0], times[1], times[2]
	if len(faults) == 0 && from.Before(signed) {
		faults = append(faults, "validFrom is before signed")
	}
	if len(faults) == 0 && !until.After(from) {
		faults = append(faults, "validUntil is not after validFrom")
	}
	if !v.faults("validity info", source, faults, "signed ≤ validFrom < validUntil, in UTC without fractions") {
		return
	}
	v.report.Signed, v.report.ValidFrom, v.report.ValidUntil = &signed, &from, &until
	v.period(source)
	if leaf == nil {
		return
	}
	var err error
	if signed.Before(leaf.NotBefore) || signed.After(leaf.NotAfter) {
		err = fmt.Errorf("signed at %s, the certificate is valid from %s to %s", stamp(signed), stamp(leaf.NotBefore), stamp(leaf.NotAfter))
	}
	v.verdict("signed in the certificate's time", source, err, stamp(signed))
	v.endsBefore(until, leaf.NotAfter)
}

// endsBefore checks that the credential does not outlive its signer's
// certificate. The first edition did not ask for it, so it is held against a
// fresh credential only.
func (v *verification) endsBefore(until, notAfter time.Time) {
	const name, source = "ends in the certificate's time", "ISO/IEC 18013-5 2nd edition §12.3.4"
	outcome := Passed
	if until.After(notAfter) {
		outcome = Warning
		if v.o.Fresh {
			outcome = Failed
		}
	}
	v.note(outcome, name, source, "valid until %s, the certificate until %s", stamp(until), stamp(notAfter))
}

// period checks now against the report's validity.
func (v *verification) period(source string) {
	from, until := v.report.ValidFrom, v.report.ValidUntil
	switch {
	case from != nil && v.o.Now.Before(*from):
		v.fail(checkValidity, source, "not valid before %s", stamp(*from))
	case until != nil && v.o.Now.After(*until):
		v.fail(checkValidity, source, "expired at %s", stamp(*until))
	case from != nil && until != nil:
		v.pass(checkValidity, source, "%s to %s", stamp(*from), stamp(*until))
	case until != nil:
		v.pass(checkValidity, source, "until %s", stamp(*until))
	default:
		v.pass(checkValidity, source, "without an end")
	}
}

func (v *verification) deviceKey(o mso) {
	const source = "ISO/IEC 18013-5 §9.1.2.4"
	key, extra, err := coseKey(o.DeviceKeyInfo.DeviceKey)
	if err != nil {
		v.fail("device key", source, "deviceKey %v", err)
		return
	}
	if len(extra) > 0 {
		v.warn("device key", source, "deviceKey has the superfluous members %v", extra)
	} else {
		v.pass("device key", source, "a bare COSE_Key on its curve")
	}
	v.holder(key, source)
}
