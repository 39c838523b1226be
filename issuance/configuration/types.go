package configuration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chancery/issuance"
	"chancery/issuance/mdoc"
)

// Type is what a claim's value is. In the offer's claims it is JSON; what it
// becomes depends on the format.
type Type string

// The types.
const (
	// TypeText is a string of 1 to 4096 characters.
	TypeText Type = "text"
	// TypeLatin1 is a string of 1 to 150 Latin-1 characters (ISO/IEC 18013-5 table 20).
	TypeLatin1 Type = "latin1"
	// TypeFullDate is YYYY-MM-DD; in an mdoc CBOR tag 1004.
	TypeFullDate Type = "full-date"
	// TypeDate is YYYY-MM-DD as a string in every format.
	TypeDate Type = "date"
	// TypeDateTime is RFC 3339; in an mdoc a tdate in UTC without fractions.
	TypeDateTime Type = "date-time"
	// TypeInteger is a whole number, bounded by min and max.
	TypeInteger Type = "integer"
	// TypeBoolean is true or false.
	TypeBoolean Type = "boolean"
	// TypeImage is a JPEG of at most 64 KiB and 2048 pixels a side, without
	// metadata, in base64; in an mdoc its bytes, elsewhere a data URL.
	TypeImage Type = "image"
	// TypeCountry is an ISO 3166-1 alpha-2 code.
	TypeCountry Type = "country"
	// TypeCountries is a list of such codes.
	TypeCountries Type = "countries"
	// TypeTexts is a list of strings.
	TypeTexts Type = "texts"
	// TypeObject is an object with the members that the claim names.
	TypeObject Type = "object"
	// TypeDrivingPrivileges is ISO/IEC 18013-5's driving_privileges.
	TypeDrivingPrivileges Type = "driving-privileges"
	// TypeAgeOver is derived from a birth date: whether the person is Age or older on the first day of validity.
	TypeAgeOver Type = "age-over"
)

func (t Type) known() bool {
	switch t {
	case TypeText, TypeLatin1, TypeFullDate, TypeDate, TypeDateTime, TypeInteger, TypeBoolean, TypeImage,
		TypeCountry, TypeCountries, TypeTexts, TypeObject, TypeDrivingPrivileges, TypeAgeOver:
		return true
	}
	return false
}

// Limits on images: wallets fetch them over mobile networks.
const (
	maxImageBytes  = 64 << 10
	maxImagePixels = 2048
)

// fromTOML brings a TOML value to the form that JSON decoding gives.
func fromTOML(v any) any {
	switch v := v.(type) {
	case int64:
		return json.Number(fmt.Sprint(v))
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = fromTOML(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			out[name] = fromTOML(e)
		}
		return out
	}
	return v
}

// convert turns a JSON value into what the format carries. The problem names no
// value.
func (c *Claim) convert(v any, format issuance.Format) (any, string) {
	value, problem := c.convertType(v, format)
	if problem == "" && c.oneOf != nil && !slices.Contains(c.oneOf, value) {
		return nil, "is none of the values that the configuration allows"
	}
	return value, problem
}

func (c *Claim) convertType(v any, format issuance.Format) (any, string) {
	inMdoc := format == issuance.FormatMdoc
	switch c.Type {
	case TypeText, TypeLatin1, TypeCountry:
		return convertText(c.Type, v)
	case TypeFullDate, TypeDate:
		s, ok := v.(string)
		date, err := mdoc.ParseFullDate(s)
		if !ok || err != nil {
			return nil, "must be a date of the calendar as YYYY-MM-DD"
		}
		if inMdoc && c.Type == TypeFullDate {
			return date, ""
		}
		return s, ""
	case TypeDateTime:
		s, _ := v.(string)
		t, err := time.Parse(time.RFC3339, s)
		if err != nil || mdoc.CheckTDate(t) != nil {
			return nil, "must be a date and time as RFC 3339 has it, for instance 2026-01-31T12:00:00Z"
		}
		if inMdoc {
			return mdoc.TDate(t), ""
		}
		return t.UTC().Format("2006-01-02T15:04:05Z"), ""
	case TypeInteger:
		return c.convertInteger(v)
	case TypeBoolean:
		if _, ok := v.(bool); !ok {
			return nil, "must be true or false"
		}
		return v, ""
	case TypeImage:
		return convertImage(v, inMdoc)
	case TypeCountries, TypeTexts:
		return c.convertList(v)
	case TypeObject:
		return c.convertObject(v)
	case TypeDrivingPrivileges:
		return convertPrivileges(v, inMdoc)
	}
	return nil, "is derived and cannot be given"
}

func convertText(t Type, v any) (any, string) {
	s, ok := v.(string)
	if !ok || s == "" || !utf8.ValidString(s) {
		return nil, "must be a string that is not empty"
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return nil, "must hold no control characters"
		}
		if r == utf8.RuneError {
			return nil, "holds U+FFFD, which stands for a character that was lost on the way here: send UTF-8"
		}
	}
	switch t {
	case TypeLatin1:
		if utf8.RuneCountInString(s) > 150 {
			return nil, "must have at most 150 characters"
		}
		for _, r := range s {
			if r > 0xff {
				return nil, "must hold Latin-1 characters alone; a national-character element takes others"
			}
		}
	case TypeCountry:
		if len(s) != 2 || s[0] < 'A' || s[0] > 'Z' || s[1] < 'A' || s[1] > 'Z' {
			return nil, "must be a country code of two capital letters (ISO 3166-1 alpha-2)"
		}
	default:
		if utf8.RuneCountInString(s) > 4096 {
			return nil, "must have at most 4096 characters"
		}
	}
	return s, ""
}

func (c *Claim) convertInteger(v any) (any, string) {
	number, ok := v.(json.Number)
	n, err := number.Int64()
	if !ok || err != nil {
		return nil, "must be a whole number"
	}
	if c.Min != nil && n < *c.Min || c.Max != nil && n > *c.Max {
		return nil, "is out of the configuration's bounds"
	}
	return n, ""
}

// imagePrefix begins a JPEG's data URL (RFC 2397).
const imagePrefix = "data:image/jpeg;base64,"

// convertImage takes a JPEG's bytes out of base64, with or without the data
// URL's prefix. What they show is [checkImage]'s matter.
func convertImage(v any, inMdoc bool) (any, string) {
	s, ok := v.(string)
	s = strings.TrimPrefix(s, imagePrefix)
	data, err := base64.StdEncoding.Strict().DecodeString(s)
	if !ok || err != nil || strings.Contains(s, "\r") || strings.Contains(s, "\n") { // line breaks are skipped even when strict
		return nil, "must be a JPEG image in base64 without line breaks"
	}
	if len(data) > maxImageBytes {
		return nil, fmt.Sprintf("must be an image of at most %d bytes", maxImageBytes)
	}
	if inMdoc {
		return data, ""
	}
	return imagePrefix + s, ""
}

// endOfImage is a JPEG's last marker; one that was cut on its way lacks it.
var endOfImage = []byte{0xff, 0xd9}

// checkImage looks at an image that [convertImage] returned, once, when the offer
// is made: at its head and its end. The picture between them is not decoded, which
// would cost more than all the rest of an offer. Metadata is refused: it tells
// place, time and camera, and where it turns the image, wallets do not agree on
// whether to.
func checkImage(v any) string {
	data, ok := v.([]byte)
	if !ok {
		text, _ := v.(string)
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(text, imagePrefix)); err != nil {
			return "must be a JPEG image in base64"
		}
	}
	config, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return "must be a JPEG image"
	}
	if config.Width > maxImagePixels || config.Height > maxImagePixels {
		return fmt.Sprintf("must be an image of at most %d pixels a side", maxImagePixels)
	}
	if !bytes.HasSuffix(data, endOfImage) {
		return "must be a JPEG image that is whole"
	}
	if hasMetadata(data) {
		return "must hold no Exif, XMP or IPTC metadata: turn the image upright and remove them"
	}
	return ""
}

// hasMetadata looks through the segments before a JPEG's picture for APP1 (Exif,
// XMP) and APP13 (IPTC).
func hasMetadata(data []byte) bool {
	const app1, app13, startOfScan = 0xe1, 0xed, 0xda
	for at := 2; at+4 <= len(data); {
		marker := data[at+1]
		switch {
		case data[at] != 0xff || marker == startOfScan:
			return false
		case marker == 0xff: // a fill byte
			at++
			continue
		case marker == app1 || marker == app13:
			return true
		}
		at += 2 + (int(data[at+2])<<8 | int(data[at+3]))
	}
	return false
}

func (c *Claim) convertList(v any) (any, string) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > 64 || c.Min != nil && int64(len(list)) < *c.Min || c.Max != nil && int64(len(list)) > *c.Max {
		return nil, "must be a list within the configuration's bounds, not empty"
	}
	element := TypeText
	if c.Type == TypeCountries {
		element = TypeCountry
	}
	out := make([]any, len(list))
	for i, e := range list {
		value, problem := convertText(element, e)
		if problem != "" {
			return nil, fmt.Sprintf("entry %d %s", i, problem)
		}
		out[i] = value
	}
	return out, ""
}

func (c *Claim) convertObject(v any) (any, string) {
	object, ok := v.(map[string]any)
	if !ok || len(object) == 0 {
		return nil, "must be an object that is not empty"
	}
	out := make(map[string]any, len(object))
	for name, member := range object {
		t, known := c.Members[name]
		if !known {
			return nil, "has a member that the configuration does not name"
		}
		value, problem := (&Claim{Type: t}).convert(member, issuance.FormatJWTVC)
		if problem != "" {
			return nil, fmt.Sprintf("member %s %s", name, problem)
		}
		out[name] = value
	}
	return out, ""
}

// convertPrivileges reads driving_privileges (ISO/IEC 18013-5 §7.2.4).
func convertPrivileges(v any, inMdoc bool) (any, string) {
	list, ok := v.([]any)
	if !ok || len(list) > 64 {
		return nil, "must be a list of driving privileges"
	}
	out := make([]any, len(list))
	for i, entry := range list {
		privilege, problem := convertPrivilege(entry, inMdoc)
		if problem != "" {
			return nil, fmt.Sprintf("entry %d %s", i, problem)
		}
		out[i] = privilege
	}
	return out, ""
}

func convertPrivilege(entry any, inMdoc bool) (any, string) {
	object, _ := entry.(map[string]any)
	if object["vehicle_category_code"] == nil {
		return nil, "needs a vehicle_category_code"
	}
	out := map[string]any{}
	for name, member := range object {
		var value any
		var problem string
		switch name {
		case "vehicle_category_code":
			value, problem = convertText(TypeLatin1, member)
		case "issue_date", "expiry_date":
			format := issuance.FormatJWTVC
			if inMdoc {
				format = issuance.FormatMdoc
			}
			value, problem = (&Claim{Type: TypeFullDate}).convert(member, format)
		case "codes":
			value, problem = convertCodes(member)
		default:
			problem = "is not a member of a driving privilege"
		}
		if problem != "" {
			return nil, name + " " + problem
		}
		out[name] = value
	}
	return out, ""
}

func convertCodes(v any) (any, string) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, "must be a list that is not empty"
	}
	out := make([]any, len(list))
	for i, entry := range list {
		object, _ := entry.(map[string]any)
		code := map[string]any{}
		for name, member := range object {
			if name != "code" && name != "sign" && name != "value" {
				return nil, fmt.Sprintf("entry %d has a member that is not code, sign or value", i)
			}
			value, problem := convertText(TypeLatin1, member)
			if problem != "" {
				return nil, fmt.Sprintf("entry %d: %s %s", i, name, problem)
			}
			code[name] = value
		}
		if code["code"] == nil {
			return nil, fmt.Sprintf("entry %d needs a code", i)
		}
		out[i] = code
	}
	return out, ""
}
