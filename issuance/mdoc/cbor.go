package mdoc

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Tags (RFC 8949 §3.4, RFC 8943).
const (
	tagDateTime = 0
	tagEmbedded = 24
	tagFullDate = 1004
)

// encoder writes RFC 8949 §4.2.1's deterministic encoding.
var encoder = func() cbor.EncMode {
	options := cbor.CoreDetEncOptions()
	options.NilContainers = cbor.NilContainerAsEmpty
	mode, err := options.EncMode()
	if err != nil {
		panic(err) // constant options
	}
	return mode
}()

// strict reads what is to be signed.
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

// embed returns data as embedded CBOR: tag 24 around a byte string.
func embed(data []byte) (cbor.RawMessage, error) {
	return encoder.Marshal(cbor.Tag{Number: tagEmbedded, Content: data})
}

// layout is RFC 3339 in UTC without fractions, always 20 characters.
const layout = "2006-01-02T15:04:05Z"

// TDate is a date-time: CBOR tag 0, RFC 3339 in UTC without fractions.
type TDate time.Time

// newTDate cuts a time to whole seconds.
func newTDate(t time.Time) TDate { return TDate(t.UTC().Truncate(time.Second)) }

func (d TDate) before(other TDate) bool { return time.Time(d).Before(time.Time(other)) }

// CheckTDate refuses a time that RFC 3339 has no date for: the zero time, and
// years that have not four digits.
func CheckTDate(t time.Time) error {
	if year := t.UTC().Year(); t.IsZero() || year < 1 || year > 9999 {
		return errors.New("a tdate needs a time within the years 1 to 9999")
	}
	return nil
}

// MarshalCBOR encodes the date-time; what [CheckTDate] refuses is an error.
func (d TDate) MarshalCBOR() ([]byte, error) {
	t := time.Time(d)
	if err := CheckTDate(t); err != nil {
		return nil, err
	}
	return encoder.Marshal(cbor.Tag{Number: tagDateTime, Content: t.UTC().Format(layout)})
}

// UnmarshalCBOR decodes a date-time in the form that MarshalCBOR gives.
func (d *TDate) UnmarshalCBOR(data []byte) error {
	if len(data) == 2+len(layout) && data[0] == tagDateTime|0xc0 && data[1] == 0x60|byte(len(layout)) {
		if t, err := time.Parse(layout, string(data[2:])); err == nil {
			*d = TDate(t)
			return nil
		}
	}
	return errors.New("not a tdate in UTC without fractions")
}

// FullDate is a calendar date YYYY-MM-DD: CBOR tag 1004 (RFC 8943).
type FullDate string

// ParseFullDate checks that a date is in the calendar.
func ParseFullDate(s string) (FullDate, error) {
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return "", errors.New("not a date of the calendar as YYYY-MM-DD")
	}
	return FullDate(s), nil
}

// MarshalCBOR encodes the date.
func (d FullDate) MarshalCBOR() ([]byte, error) {
	if _, err := ParseFullDate(string(d)); err != nil {
		return nil, err
	}
	return encoder.Marshal(cbor.Tag{Number: tagFullDate, Content: string(d)})
}

// maxValueDepth bounds an element value's nesting.
const maxValueDepth = 8

// checkValue refuses a Go value that is none of [Element]'s: the encoder would
// take it, and write null, a float or text that is not UTF-8.
func checkValue(value any, depth int) error {
	if depth > maxValueDepth {
		return errors.New("the value is nested too deep")
	}
	switch value := value.(type) {
	case bool, int64, uint64, []byte, TDate, FullDate:
		return nil
	case string:
		if !utf8.ValidString(value) {
			return errors.New("a text is not valid UTF-8")
		}
		return nil
	case []any:
		for _, element := range value {
			if err := checkValue(element, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for name, member := range value {
			if !utf8.ValidString(name) {
				return errors.New("a member's name is not valid UTF-8")
			}
			if err := checkValue(member, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a %T is no data element's value", value)
}
