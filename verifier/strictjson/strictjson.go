// Package strictjson reads JSON from strangers (RFC 8259, I-JSON RFC 7493): one
// value, valid UTF-8, no name twice in an object, bounded depth. Numbers stay
// as they were written. Neither the verifier nor the wallet reads foreign JSON
// in another way, because two readers that disagree on a repeated name are a
// hole.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// MaxDepth is how deeply arrays and objects may nest.
const MaxDepth = 32

// Decode parses data into nil, bool, string, [json.Number], []any and map[string]any.
func Decode(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("JSON is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	value, err := decode(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("JSON is followed by more data")
	}
	return value, nil
}

// Object parses data that must be a JSON object.
func Object(data []byte) (map[string]any, error) {
	value, err := Decode(data)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("JSON is not an object")
	}
	return object, nil
}

func decode(d *json.Decoder, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("JSON nests deeper than %d levels", MaxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", noEOF(err))
	}
	switch token {
	case json.Delim('{'):
		return decodeObject(d, depth)
	case json.Delim('['):
		return decodeArray(d, depth)
	}
	return token, nil
}

func decodeObject(d *json.Decoder, depth int) (any, error) {
	object := map[string]any{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", noEOF(err))
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("not JSON: an object's name is no string")
		}
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("JSON object has the name %q twice", name)
		}
		if object[name], err = decode(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token() // the closing brace, or what is wrong with it
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", noEOF(err))
	}
	return object, nil
}

func decodeArray(d *json.Decoder, depth int) (any, error) {
	array := []any{}
	for d.More() {
		value, err := decode(d, depth+1)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", noEOF(err))
	}
	return array, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
