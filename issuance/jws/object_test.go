package jws

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestObjectReads(t *testing.T) {
	for text, want := range map[string]map[string]any{
		`{}`:                                   {},
		" \t\r\n{ \"a\" : 1 } \n":              {"a": json.Number("1")},
		`{"a":-0,"b":1e5,"c":1.25E-3}`:         {"a": json.Number("-0"), "b": json.Number("1e5"), "c": json.Number("1.25E-3")},
		`{"":""}`:                              {"": ""},
		`{"t":true,"f":false,"n":null}`:        {"t": true, "f": false, "n": nil},
		`{"a":[],"b":[1,"x",[true]]}`:          {"a": []any{}, "b": []any{json.Number("1"), "x", []any{true}}},
		`{"o":{"a":1},"p":{"a":1}}`:            {"o": map[string]any{"a": json.Number("1")}, "p": map[string]any{"a": json.Number("1")}},
		`{"e":"\"\\\/\b\f\n\r\t"}`:             {"e": "\"\\/\b\f\n\r\t"},
		`{"e":"a\u00e9\u0000b"}`:               {"e": "aé\x00b"},
		`{"e":"\ud83d\ude00 x"}`:               {"e": "😀 x"},
		`{"\u0061":"Đ\u0111"}`:                 {"a": "Đđ"},
		`{"e":"\ufffd` + "\ufffd\u2028" + `"}`: {"e": "\ufffd\ufffd\u2028"},
	} {
		got, err := Object([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v", text, got, err)
		}
	}
}

// TestObjectRefusals has one defect in each text.
func TestObjectRefusals(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	if _, err := Object([]byte(nested(maxDepth))); err != nil {
		t.Errorf("nested as deep as is allowed: %v", err)
	}
	for text, want := range map[string]error{
		``: errJSON, ` `: errJSON, `{`: errJSON, `{"a"`: errJSON, `{"a":`: errJSON, `{"a":1`: errJSON, `{"a":1,`: errJSON, `{"a":[1`: errJSON, `{"a":[1,`: errJSON,
		`{"a":1,}`: errJSON, `{,}`: errJSON, `{"a":[1,]}`: errJSON, `{"a":[,]}`: errJSON, `{"a" 1}`: errJSON, `{"a":1 "b":2}`: errJSON, `{"a":[1 2]}`: errJSON,
		`{a:1}`: errJSON, `{'a':1}`: errJSON, `{1:1}`: errJSON, `{"a":tru}`: errJSON, `{"a":nul`: errJSON, `{"a":True}`: errJSON, `{"a":undefined}`: errJSON,
		`{"a":01}`: errJSON, `{"a":+1}`: errJSON, `{"a":.5}`: errJSON, `{"a":1.}`: errJSON, `{"a":1e}`: errJSON, `{"a":--1}`: errJSON, `{"a":0x1}`: errJSON, `{"a":NaN}`: errJSON,
		`{"a":"}`: errJSON, `{"a":"\`: errJSON, `{"a":"\"}`: errJSON, `{"a":"\x"}`: errJSON, `{"a":"\u12"}`: errJSON, `{"a":"\u12g4"}`: errJSON, `{"a":"\u+123"}`: errJSON,
		"{\"a\":\"\n\"}": errJSON, "{\"a\":\"\\n\x01\"}": errJSON, "{\"a\":\"x": errJSON, "{\"a\":\"\\nx": errJSON,
		`{"a":"\ud800"}`: errJSON, `{"a":"\ud800\u0061"}`: errJSON, `{"a":"\udc00\ud800"}`: errJSON, `{"a":"\ud800x"}`: errJSON,
		`[]`: errObject, `"a"`: errObject, `1`: errObject, `null`: errObject, `true`: errObject,
		`{} {}`: errTail, `{}x`: errTail, "{}\x00": errTail,
		`{"a":1,"a":1}`: errTwice, `{"a":1,"\u0061":2}`: errTwice, `{"o":{"a":1,"b":2,"a":3}}`: errTwice, `{"l":[{"a":1,"a":2}]}`: errTwice, `{"":1,"":2}`: errTwice,
		"{\"a\":\"\xff\"}": errJSON, "{\"\xc3\":1}": errJSON, "\xef\xbb\xbf{}": errJSON, "{\"a\":\"\xed\xa0\x80\"}": errJSON,
		`{"a":[` + strings.Repeat("0,", maxValues) + `0]}`: errMany, `{"a":[` + strings.Repeat("[],", maxValues) + `0]}`: errMany,
		nested(maxDepth + 1): errDeep, `{"a":` + strings.Repeat("[", 100000): errDeep,
	} {
		if got, err := Object([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%.60q: %v, %v; want %v", text, got, err, want)
		}
	}
}

// reference reads with encoding/json's tokens, which see each member; numbers
// and text are its own.
func reference(data []byte) (map[string]any, bool) {
	if !utf8.Valid(data) || loneSurrogate.Match(data) {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil {
		return nil, false
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, false
	}
	object, ok := value.(map[string]any)
	return object, ok && !twice(json.NewDecoder(bytes.NewReader(data)))
}

// loneSurrogate finds an escape that is no half of a pair; it may also find one
// behind an escaped backslash, so it leaves some good texts out.
var loneSurrogate = regexp.MustCompile(`\\u[dD][89a-fA-F]`)

// twice tells whether a member is there twice in a value that is valid JSON.
func twice(decoder *json.Decoder) bool {
	token, err := decoder.Token()
	if err != nil {
		return false
	}
	delim, _ := token.(json.Delim)
	seen := map[string]bool{}
	for delim != 0 && decoder.More() {
		if delim == '{' {
			name, _ := decoder.Token()
			if seen[name.(string)] {
				return true
			}
			seen[name.(string)] = true
		}
		if twice(decoder) {
			return true
		}
	}
	if delim != 0 {
		_, _ = decoder.Token()
	}
	return false
}

// agree holds Object against encoding/json.
func agree(data []byte) string {
	got, err := Object(data)
	want, ok := reference(data)
	switch {
	case errors.Is(err, errDeep) || errors.Is(err, errMany) || loneSurrogate.Match(data):
	case ok != (err == nil):
		return "one of the two refuses it: " + string(data)
	case ok && !reflect.DeepEqual(got, want):
		return "they read different values: " + string(data)
	}
	return ""
}

func TestObjectAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, err := json.Marshal(rapid.MapOfN(rapid.String(), drawValue(4), 0, 6).Draw(t, "object"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Object(data); err != nil || len(got) == 0 && string(data) != "{}" {
			t.Fatalf("%s: %v", data, err)
		}
		// The same with one byte changed, which most of the time breaks it.
		data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] = rapid.SampledFrom([]byte(`{}[]",:\\u0e.-+ n`+"\n\x00\xff")).Draw(t, "byte")
		if problem := agree(data); problem != "" {
			t.Fatal(problem)
		}
	})
}

func FuzzObject(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("..", "..", "examples", "claims", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no example claims: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"a":"\ud83d\ude00\u0000","b":[1e5,-0,true,null,{}],"":""}`))
	f.Add([]byte(`{"a":1,"\u0061":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if problem := agree(data); problem != "" {
			t.Fatal(problem)
		}
	})
}

func BenchmarkObject(b *testing.B) {
	data, err := os.ReadFile(filepath.Join("..", "..", "examples", "claims", "org.iso.18013.5.1.mDL.json"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Object(data); err != nil {
			b.Fatal(err)
		}
	}
}
