// Package jws builds and reads back JWS signing inputs (RFC 7515 §5.1) for
// credentials that are signed in two phases: the input leaves for the signer,
// the signature comes back. Verification of foreign JWS is go-jose's work.
package jws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"chancery/issuance"
)

// maxInput bounds what is parsed.
const maxInput = 1 << 20

// Header is the protected header of what the appliance signs.
type Header struct {
	Algorithm issuance.Algorithm `json:"alg"`
	Type      string             `json:"typ,omitempty"`
	KeyID     string             `json:"kid,omitempty"`
	// X5C holds DER certificates, leaf first; in JSON they are standard base64.
	X5C [][]byte `json:"x5c,omitempty"`
}

// CheckValue refuses a value that would not arrive as it was given: a float,
// text that is not UTF-8, a type that JSON has no value for. Good are nil, bool,
// string, json.Number, Go integers, and []any and map[string]any of these.
func CheckValue(value any) error {
	switch value := value.(type) {
	case nil, bool, json.Number, int, int64, uint64:
		return nil
	case string:
		if utf8.ValidString(value) {
			return nil
		}
		return errors.New("a text is not valid UTF-8")
	case []any:
		for _, element := range value {
			if err := CheckValue(element); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for name, member := range value {
			if !utf8.ValidString(name) {
				return errors.New("a member's name is not valid UTF-8")
			}
			if err := CheckValue(member); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	return fmt.Errorf("a %T is no JSON value here: give numbers as json.Number or integers", value)
}

// Input returns BASE64URL(header) "." BASE64URL(payload); payload is marshalled
// without HTML escaping.
func Input(header Header, payload any) ([]byte, error) {
	h, err := Marshal(header)
	if err != nil {
		return nil, err
	}
	p, err := Marshal(payload)
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding
	out := make([]byte, b64.EncodedLen(len(h))+1+b64.EncodedLen(len(p)))
	b64.Encode(out, h)
	n := b64.EncodedLen(len(h))
	out[n] = '.'
	b64.Encode(out[n+1:], p)
	return out, nil
}

// Join appends a raw signature to a signing input.
func Join(input, signature []byte) string {
	return string(input) + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Marshal encodes JSON without HTML escaping and without a final newline.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

var errBase64URL = errors.New("not base64url without padding")

// Base64URL decodes base64url without padding, which has one text for each
// value: no stray bits at the end, and no line breaks, which encoding/base64
// skips even when it is strict (RFC 7515 §2).
func Base64URL(text string) ([]byte, error) {
	if strings.Contains(text, "\r") || strings.Contains(text, "\n") {
		return nil, errBase64URL
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errBase64URL
	}
	return data, nil
}

// Parse reads a signing input back: strict base64url, a header that is the one
// encoding of a [Header], a payload that [Object] reads.
func Parse(input []byte) (Header, map[string]any, error) {
	if len(input) > maxInput {
		return Header{}, nil, fmt.Errorf("%d bytes are more than is signed", len(input))
	}
	h, p, ok := strings.Cut(string(input), ".")
	if !ok || strings.Contains(p, ".") {
		return Header{}, nil, errors.New("not a signing input of header and payload")
	}
	header, err := Base64URL(h)
	if err != nil {
		return Header{}, nil, fmt.Errorf("the header is %w", err)
	}
	payload, err := Base64URL(p)
	if err != nil {
		return Header{}, nil, fmt.Errorf("the payload is %w", err)
	}
	var out Header
	if err := json.Unmarshal(header, &out); err != nil {
		return Header{}, nil, errors.New("header: not a JSON object with alg, typ, kid and x5c")
	}
	// encoding/json takes names in any case, unknown ones and any twice; what is
	// signed has one spelling.
	if again, err := Marshal(out); err != nil || !bytes.Equal(again, header) {
		return Header{}, nil, errors.New("header: not alg, typ, kid and x5c alone, as this program writes them")
	}
	claims, err := Object(payload)
	if err != nil {
		return Header{}, nil, fmt.Errorf("payload: %w", err)
	}
	return out, claims, nil
}

// lastSecond is the end of the year 9999, beyond which RFC 3339 has no dates.
const lastSecond = 253402300799

// NumericDate returns a time as a claim (RFC 7519 §2), cut to whole seconds. It
// refuses what [Date] would not read: times before 1970 and after 9999.
func NumericDate(t time.Time) (int64, error) {
	seconds := t.Unix()
	if seconds < 0 || seconds > lastSecond {
		return 0, errors.New("a date must be within the years 1970 to 9999")
	}
	return seconds, nil
}

// Date reads a NumericDate claim (RFC 7519 §2) in whole seconds; zero time when
// the claim is absent.
func Date(claims map[string]any, name string) (time.Time, error) {
	value, has := claims[name]
	if !has {
		return time.Time{}, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is not a number", name)
	}
	seconds, err := number.Int64()
	if err != nil || seconds < 0 || seconds > lastSecond {
		return time.Time{}, fmt.Errorf("%s is not a date in whole seconds", name)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Validity reads nbf and exp (RFC 7519 §4.1.4, §4.1.5) where both are required.
func Validity(claims map[string]any) (from, until time.Time, err error) {
	if from, err = Date(claims, "nbf"); err != nil {
		return from, until, err
	}
	if until, err = Date(claims, "exp"); err != nil {
		return from, until, err
	}
	if from.IsZero() || !until.After(from) {
		return from, until, errors.New("nbf and exp are required, in this order")
	}
	return from, until, nil
}

// String reads a claim that must be a non-empty string.
func String(claims map[string]any, name string) (string, error) {
	value, ok := claims[name].(string)
	if !ok || value == "" {
		return "", fmt.Errorf("%s is missing or not a string", name)
	}
	return value, nil
}
