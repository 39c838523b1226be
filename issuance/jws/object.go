package jws

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds nesting, maxValues the values in all of an object: each costs
// many times its byte.
const (
	maxDepth  = 32
	maxValues = 1 << 14
)

var (
	errDeep   = errors.New("JSON is nested too deep")
	errMany   = errors.New("JSON holds too many values")
	errObject = errors.New("not a JSON object")
	errTail   = errors.New("something follows the JSON object")
	errTwice  = errors.New("a JSON member is there twice")
	errJSON   = errors.New("not valid JSON in UTF-8")
)

// Object decodes one JSON object strictly: no member twice, at any depth;
// valid UTF-8 and no lone surrogate, where encoding/json would put U+FFFD and
// say nothing; nothing after the object; bounded nesting. Values are nil, bool,
// string, json.Number, []any and map[string]any. An error shows nothing of what
// was read.
func Object(data []byte) (map[string]any, error) {
	d := &decoder{Decoder: jsontext.NewDecoder(bytes.NewBuffer(data))}
	value, err := d.value()
	if err != nil {
		return nil, plain(err)
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errObject
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errTail
	}
	return object, nil
}

// plain turns the decoder's errors, which quote their input, into this package's.
func plain(err error) error {
	switch {
	case errors.Is(err, errDeep), errors.Is(err, errMany):
		return err
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errTwice
	}
	return errJSON
}

// decoder counts the values that it has read.
type decoder struct {
	*jsontext.Decoder
	values int
}

// value reads the next value.
func (d *decoder) value() (any, error) {
	if d.values++; d.values > maxValues {
		return nil, errMany
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case 't', 'f':
		return token.Bool(), nil
	case '"':
		return token.String(), nil
	case '0':
		return json.Number(token.String()), nil
	case '{', '[':
		if d.StackDepth() > maxDepth {
			return nil, errDeep
		}
		if token.Kind() == '[' {
			return d.array()
		}
		return d.object()
	}
	return nil, nil // null
}

func (d *decoder) object() (any, error) {
	object := map[string]any{}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		name := token.String() // before the next token overwrites it
		if object[name], err = d.value(); err != nil {
			return nil, err
		}
	}
	_, err := d.ReadToken()
	return object, err
}

func (d *decoder) array() (any, error) {
	array := []any{}
	for d.PeekKind() != ']' {
		value, err := d.value()
		if err != nil {
			return nil, err
		}
		array = append(array, value)
	}
	_, err := d.ReadToken()
	return array, err
}
