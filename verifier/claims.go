package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	_ "image/jpeg" // portraits
	_ "image/png"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// mandatoryMDL are the elements that every mDL carries (ISO/IEC 18013-5 Table 5).
var mandatoryMDL = []string{"family_name", "given_name", "birth_date", "issue_date", "expiry_date", "issuing_country",
	"issuing_authority", "document_number", "portrait", "driving_privileges", "un_distinguishing_sign"}

const (
	docTypeMDL   = "org.iso.18013.5.1.mDL"
	namespaceMDL = "org.iso.18013.5.1"
)

// mandatory checks a fresh mDL for completeness; a presentation may show less.
func (v *verification) mandatory(o mso, elements []element) {
	if o.DocType != docTypeMDL || !v.o.Fresh {
		return
	}
	var faults []string
	for _, name := range mandatoryMDL {
		if !slices.ContainsFunc(elements, func(e element) bool { return e.namespace == namespaceMDL && e.item.ElementIdentifier == name }) {
			faults = append(faults, name+" is missing")
		}
	}
	v.faults("mandatory elements", "ISO/IEC 18013-5 Table 5", faults, "all 11 of an mDL")
}

// issuingPlace compares issuing_country and issuing_jurisdiction with the
// signer's certificate: a rule for the mDL, good advice for other documents.
func (v *verification) issuingPlace(elements []element, leaf *x509.Certificate) {
	const source = "ISO/IEC 18013-5 §9.3.3"
	if leaf == nil {
		return
	}
	for _, e := range elements {
		var want []string
		switch e.item.ElementIdentifier {
		case "issuing_country":
			want = leaf.Subject.Country
		case "issuing_jurisdiction":
			if want = leaf.Subject.Province; len(want) == 0 {
				continue
			}
		default:
			continue
		}
		var have string
		var err error
		if decoding.Unmarshal(e.item.ElementValue, &have) != nil || len(want) != 1 || want[0] != have {
			err = fmt.Errorf("the element is not what the signer's certificate names (%s)", strings.Join(want, ", "))
		}
		name := strings.ReplaceAll(e.item.ElementIdentifier, "_", " ")
		if err != nil && e.namespace != namespaceMDL {
			v.warn(name, source, "%v", err)
			continue
		}
		v.verdict(name, source, err, "as in the signer's certificate")
	}
}

func mdocClaim(e element) Claim {
	value := cborValue(e.item.ElementValue, 0)
	return Claim{Path: []string{e.namespace, e.item.ElementIdentifier}, Value: value, Text: describeValue(value), Selective: true}
}

// cborValue turns an element's value into Go values; tagged dates become
// time.Time (tdate) or their text (full-date).
func cborValue(raw cbor.RawMessage, depth int) any {
	if depth > 16 {
		return nil
	}
	switch major(raw) {
	case majorArray:
		var items []cbor.RawMessage
		if decoding.Unmarshal(raw, &items) != nil {
			return nil
		}
		values := make([]any, len(items))
		for i, item := range items {
			values[i] = cborValue(item, depth+1)
		}
		return values
	case majorMap:
		var members map[any]cbor.RawMessage
		if decoding.Unmarshal(raw, &members) != nil {
			return nil
		}
		values := map[string]any{}
		for name, member := range members {
			values[fmt.Sprint(name)] = cborValue(member, depth+1)
		}
		return values
	case majorTag:
		if t, err := tdate(raw); err == nil {
			return t
		}
		var tag cbor.RawTag
		if decoding.Unmarshal(raw, &tag) != nil {
			return nil
		}
		return cborValue(tag.Content, depth+1)
	}
	var value any
	if decoding.Unmarshal(raw, &value) != nil {
		return nil
	}
	return value
}

// describeValue shows a value on one line: pictures by kind and size, dates as
// they are written, nested values in brackets.
func describeValue(value any) string {
	switch x := value.(type) {
	case nil:
		return "(nothing)"
	case string:
		if data, ok := imageURL(x); ok {
			return describeBytes(data)
		}
		return printable(x)
	case bool:
		if x {
			return "yes"
		}
		return "no"
	case []byte:
		return describeBytes(x)
	case time.Time:
		return x.UTC().Format(time.RFC3339)
	case json.Number:
		return x.String()
	case []any:
		parts := make([]string, len(x))
		for i, item := range x {
			parts[i] = describeValue(item)
		}
		return strings.Join(parts, "; ")
	case map[string]any:
		names := make([]string, 0, len(x))
		for name := range x {
			names = append(names, name)
		}
		slices.Sort(names)
		parts := make([]string, len(names))
		for i, name := range names {
			parts[i] = printable(name) + "=" + describeValue(x[name])
			if _, deep := x[name].([]any); deep {
				parts[i] = printable(name) + "=[" + describeValue(x[name]) + "]"
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(value)
}

// printable makes a stranger's text safe for a terminal: no control characters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) || r == ' ' {
			return r
		}
		return '\uFFFD'
	}, text)
}

// imageURL returns the content of a data URL with an image in base64 (RFC 2397).
func imageURL(text string) ([]byte, bool) {
	rest, found := strings.CutPrefix(text, "data:image/")
	if !found {
		return nil, false
	}
	_, encoded, found := strings.Cut(rest, ";base64,")
	if !found {
		return nil, false
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	return data, err == nil
}

func describeBytes(data []byte) string {
	if c, kind, err := image.DecodeConfig(bytes.NewReader(data)); err == nil {
		return fmt.Sprintf("%s image, %d × %d, %d bytes", strings.ToUpper(kind), c.Width, c.Height, len(data))
	}
	if len(data) > 16 {
		return fmt.Sprintf("%d bytes, beginning %s", len(data), hex.EncodeToString(data[:8]))
	}
	return hex.EncodeToString(data)
}
