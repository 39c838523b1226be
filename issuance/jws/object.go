package jws

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds nesting.
const maxDepth = 32

var (
	errJSON   = errors.New("not valid JSON")
	errTwice  = errors.New("a JSON member is there twice")
	errDeep   = errors.New("JSON is nested too deep")
	errObject = errors.New("not a JSON object")
	errTail   = errors.New("something follows the JSON object")
	errUTF8   = errors.New("JSON is not valid UTF-8")
)

// Object decodes one JSON object strictly: no member twice, at any depth;
// valid UTF-8 and no lone surrogate, where encoding/json would put U+FFFD and
// say nothing; nothing after the object; bounded nesting. Values are nil, bool,
// string, json.Number, []any and map[string]any.
//
// Every request, proof and claim set passes through here several times, and
// encoding/json's tokens, the only way in it to see a member twice, take ten
// times as long; a fuzz test holds the two against each other.
func Object(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errUTF8
	}
	r := reader{data: data}
	value, err := r.value(0)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errObject
	}
	if r.space(); r.at < len(data) {
		return nil, errTail
	}
	return object, nil
}

// reader reads JSON (RFC 8259) that is known to be valid UTF-8.
type reader struct {
	data []byte
	at   int
}

// space skips white space and returns the byte after it, 0 at the end.
func (r *reader) space() byte {
	for ; r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// take skips white space and one byte, which must be c.
func (r *reader) take(c byte) bool {
	if r.space() != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	switch r.space() {
	case '{':
		return r.object(depth)
	case '[':
		return r.array(depth)
	case '"':
		return r.text()
	case 't':
		return true, r.word("true")
	case 'f':
		return false, r.word("false")
	case 'n':
		return nil, r.word("null")
	}
	return r.number()
}

func (r *reader) object(depth int) (any, error) {
	r.at++
	object := map[string]any{}
	if r.take('}') {
		return object, nil
	}
	for {
		if r.space() != '"' {
			return nil, errJSON
		}
		name, err := r.text()
		if err != nil {
			return nil, err
		}
		if _, twice := object[name]; twice {
			return nil, errTwice
		}
		if !r.take(':') {
			return nil, errJSON
		}
		if object[name], err = r.value(depth + 1); err != nil {
			return nil, err
		}
		if r.take('}') {
			return object, nil
		}
		if !r.take(',') {
			return nil, errJSON
		}
	}
}

func (r *reader) array(depth int) (any, error) {
	r.at++
	array := []any{}
	if r.take(']') {
		return array, nil
	}
	for {
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
		if r.take(']') {
			return array, nil
		}
		if !r.take(',') {
			return nil, errJSON
		}
	}
}

func (r *reader) word(word string) error {
	if end := r.at + len(word); end <= len(r.data) && string(r.data[r.at:end]) == word {
		r.at = end
		return nil
	}
	return errJSON
}

// number takes the characters that numbers consist of; encoding/json says
// whether they are one.
func (r *reader) number() (any, error) {
	start := r.at
	for ; r.at < len(r.data); r.at++ {
		if c := r.data[r.at]; (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
	}
	if text := r.data[start:r.at]; json.Valid(text) {
		return json.Number(text), nil
	}
	return nil, errJSON
}

// text reads a string; most have no escapes and are taken as they stand.
func (r *reader) text() (string, error) {
	r.at++
	start := r.at
	n := bytes.IndexByte(r.data[start:], '"')
	if n < 0 {
		return "", errJSON
	}
	plain := r.data[start : start+n]
	if escape := bytes.IndexByte(plain, '\\'); escape >= 0 {
		plain = plain[:escape]
	}
	for _, c := range plain {
		if c < ' ' {
			return "", errJSON
		}
	}
	r.at += len(plain)
	if len(plain) < n {
		return r.escaped(start)
	}
	r.at++
	return string(plain), nil
}

// escapes are the one-letter escapes (RFC 8259 §7).
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escaped reads on from the first backslash of a string that began at start.
func (r *reader) escaped(start int) (string, error) {
	out := append([]byte(nil), r.data[start:r.at]...)
	for r.at < len(r.data) {
		c := r.data[r.at]
		r.at++
		switch {
		case c == '"':
			return string(out), nil
		case c < ' ' || c == '\\' && r.at == len(r.data):
			return "", errJSON
		case c != '\\':
			out = append(out, c)
		case r.data[r.at] == 'u':
			r.at--
			point, err := r.codePoint()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, point)
		default:
			plain := escapes[r.data[r.at]]
			if plain == 0 {
				return "", errJSON
			}
			out = append(out, plain)
			r.at++
		}
	}
	return "", errJSON
}

// codePoint reads \uXXXX, or two of them that are one surrogate pair.
func (r *reader) codePoint() (rune, error) {
	high, err := r.unit()
	if err != nil || !utf16.IsSurrogate(high) {
		return high, err
	}
	low, err := r.unit()
	if err != nil {
		return 0, err
	}
	point := utf16.DecodeRune(high, low)
	if point == utf8.RuneError {
		return 0, errJSON
	}
	return point, nil
}

// unit reads \uXXXX.
func (r *reader) unit() (rune, error) {
	end := r.at + 6
	if end > len(r.data) || r.data[r.at] != '\\' || r.data[r.at+1] != 'u' {
		return 0, errJSON
	}
	n, err := strconv.ParseUint(string(r.data[r.at+2:end]), 16, 16)
	if err != nil {
		return 0, errJSON
	}
	r.at = end
	return rune(n), nil
}
