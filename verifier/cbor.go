package verifier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Tag numbers of ISO/IEC 18013-5 values.
const (
	tagDateTime = 0    // tdate, RFC 8949 §3.4.1
	tagEncoded  = 24   // embedded CBOR, RFC 8949 §3.4.5.1
	tagFullDate = 1004 // full-date, RFC 8943
)

// CBOR major types (RFC 8949 §3.1). The decoder looks through tags that it was
// not asked for, so where a tag would be an error the major type is looked at first.
const (
	majorBytes = 2
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
)

// major returns an item's major type, or -1 when there is no item.
func major(item []byte) int {
	if len(item) == 0 {
		return -1
	}
	return int(item[0] >> 5)
}

// decoding is the strict mode in which everything foreign is read: duplicate
// keys, indefinite lengths and invalid UTF-8 are refused, member names are
// matched letter for letter.
var decoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		IntDec:            cbor.IntDecConvertSignedOrFail,
		BignumTag:         cbor.BignumTagForbidden,
		MaxNestedLevels:   16,
		MaxArrayElements:  4096,
		MaxMapPairs:       4096,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
}()

// unwrap returns the content of an embedded CBOR item, #6.24(bstr).
func unwrap(item []byte) ([]byte, error) {
	var tag cbor.RawTag
	if err := decoding.Unmarshal(item, &tag); err != nil {
		return nil, err
	}
	if tag.Number != tagEncoded {
		return nil, fmt.Errorf("has tag %d instead of 24", tag.Number)
	}
	if major(tag.Content) != majorBytes {
		return nil, errors.New("tag 24 holds no byte string")
	}
	var content []byte
	if err := decoding.Unmarshal(tag.Content, &content); err != nil {
		return nil, fmt.Errorf("tag 24 holds no byte string: %w", err)
	}
	return content, nil
}

// tdate reads a tdate: tag 0 and RFC 3339 in UTC, without a fraction
// (ISO/IEC 18013-5 §9.1.2.4).
func tdate(item []byte) (time.Time, error) {
	var tag cbor.RawTag
	if err := decoding.Unmarshal(item, &tag); err != nil || tag.Number != tagDateTime {
		return time.Time{}, errors.New("is no tdate (tag 0)")
	}
	var text string
	if err := decoding.Unmarshal(tag.Content, &text); err != nil {
		return time.Time{}, errors.New("holds no text under tag 0")
	}
	t, err := time.Parse("2006-01-02T15:04:05Z", text)
	if err != nil || len(text) != len("2006-01-02T15:04:05Z") {
		return time.Time{}, errors.New("is not written as YYYY-MM-DDThh:mm:ssZ, in UTC and without a fraction")
	}
	return t, nil
}

// byteString encodes a definite-length byte string head and content: all that
// the verifier itself ever encodes.
func byteString(content []byte) []byte {
	n := len(content)
	var head []byte
	switch {
	case n < 24:
		head = []byte{0x40 | byte(n)}
	case n <= math.MaxUint8:
		head = []byte{0x58, byte(n)}
	case n <= math.MaxUint16:
		head = binary.BigEndian.AppendUint16([]byte{0x59}, uint16(n))
	default:
		head = binary.BigEndian.AppendUint32([]byte{0x5a}, uint32(n))
	}
	return append(head, content...)
}

// shortest says whether every head in one well-formed item is written in its
// shortest form (RFC 8949 §4.1; ISO/IEC 18013-5 2nd edition §8.3). Embedded
// CBOR is a byte string to it; the caller unwraps and asks again.
func shortest(item []byte) bool {
	for len(item) > 0 {
		major, info := item[0]>>5, item[0]&31
		item = item[1:]
		value, width := uint64(info), 0
		if info >= 24 && info <= 27 {
			width = 1 << (info - 24)
			if len(item) < width {
				return false
			}
			var wide [8]byte
			copy(wide[8-width:], item)
			value = binary.BigEndian.Uint64(wide[:])
			item = item[width:]
		}
		if major != 7 && !fits(value, width) {
			return false
		}
		if major == 2 || major == 3 {
			if uint64(len(item)) < value {
				return false
			}
			item = item[value:]
		}
	}
	return true
}

// fits says whether value needs an argument of width bytes.
func fits(value uint64, width int) bool {
	switch width {
	case 1:
		return value >= 24
	case 2:
		return value > math.MaxUint8
	case 4:
		return value > math.MaxUint16
	case 8:
		return value > math.MaxUint32
	}
	return true
}
