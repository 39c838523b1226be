package strictjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":              "",
		"name twice":         `{"a":1,"a":2}`,
		"name twice, nested": `{"x":[{"a":1,"\u0061":2}]}`,
		"more data":          `{} {}`,
		"trailing comma":     `[1,]`,
		"open object":        `{"a":1`,
		"open array":         `[1`,
		"no UTF-8":           "\"\xff\"",
		"too deep":           strings.Repeat("[", MaxDepth+2) + strings.Repeat("]", MaxDepth+2),
		"single quotes":      `{'a':1}`,
		"bare word":          `NaN`,
		"number as name":     `{1:2}`,
	} {
		if value, err := Decode([]byte(text)); err == nil {
			t.Errorf("%s: decoded as %v", name, value)
		}
	}
}

func TestObject(t *testing.T) {
	if _, err := Object([]byte(`[]`)); err == nil {
		t.Error("an array is no object")
	}
	object, err := Object([]byte(` {"a":1.50,"b":[true,null,"x"]} `))
	want := map[string]any{"a": json.Number("1.50"), "b": []any{true, nil, "x"}}
	if err != nil || !reflect.DeepEqual(object, want) {
		t.Errorf("%v, %v", object, err)
	}
}

// What the standard library encodes comes back as it was.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.String())).Draw(t, "value")
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		object, err := Object(data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(object)
		if err != nil || string(again) != string(data) {
			t.Fatalf("%s became %s", data, again)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,2,{"b":null}]}`, `[[[]]]`, `"x"`, `{"a":1,"a":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		value, err := Decode(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Errorf("%q is not JSON", data)
		}
		if _, err := json.Marshal(value); err != nil {
			t.Errorf("%q: %v", data, err)
		}
	})
}
