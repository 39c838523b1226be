package jws

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// TestOthersVerify lets go-jose judge what this package puts together.
func TestOthersVerify(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		key := issuancetest.Key(t, a)
		input, err := Input(Header{Algorithm: a, Type: "JWT", KeyID: "k"}, map[string]any{"html": "<&>", "name": "Zoë"})
		if err != nil {
			t.Fatal(err)
		}
		compact := Join(input, issuancetest.Sign(t, key, input))
		object, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(a)})
		if err != nil {
			t.Fatalf("%s: go-jose does not parse it: %v", a, err)
		}
		payload, err := object.Verify(key.Public())
		if err != nil {
			t.Fatalf("%s: go-jose does not verify it: %v", a, err)
		}
		if want := `{"html":"<&>","name":"Zoë"}`; string(payload) != want {
			t.Errorf("payload %s, want %s", payload, want)
		}
		if h := object.Signatures[0].Protected; h.KeyID != "k" || h.ExtraHeaders["typ"] != "JWT" {
			t.Errorf("go-jose reads the header as %+v", h)
		}
		other := issuancetest.Key(t, a)
		if _, err := object.Verify(other.Public()); err == nil {
			t.Errorf("%s: verified under another key", a)
		}
	}
}

// drawValue draws a JSON value as Object returns them.
func drawValue(depth int) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Just[any](true), rapid.Just[any](false),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Int64(), func(n int64) any { return json.Number(jsonText(n)) }),
		rapid.Map(rapid.Float64Range(-1e30, 1e30), func(f float64) any { return json.Number(jsonText(f)) }),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	return rapid.OneOf(append(leaves,
		rapid.Map(rapid.SliceOfN(drawValue(depth-1), 0, 4), func(s []any) any { return append([]any{}, s...) }),
		rapid.Map(rapid.MapOfN(rapid.String(), drawValue(depth-1), 0, 4), func(m map[string]any) any { return m }))...)
}

func jsonText(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers
	}
	return string(data)
}

// TestParseReadsWhatInputWrote for any header and payload.
func TestParseReadsWhatInputWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := Header{
			Algorithm: rapid.SampledFrom(issuancetest.Algorithms).Draw(t, "alg"), Type: rapid.String().Draw(t, "typ"), KeyID: rapid.String().Draw(t, "kid"),
			X5C: rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 40), 1, 3).Draw(t, "x5c"),
		}
		payload := rapid.MapOfN(rapid.String(), drawValue(3), 0, 5).Draw(t, "payload")
		input, err := Input(header, payload)
		if err != nil {
			t.Fatal(err)
		}
		gotHeader, gotPayload, err := Parse(input)
		if err != nil {
			t.Fatalf("%v\n%s", err, input)
		}
		if !reflect.DeepEqual(gotHeader, header) || !reflect.DeepEqual(gotPayload, payload) {
			t.Fatalf("read %+v %#v, wrote %+v %#v", gotHeader, gotPayload, header, payload)
		}
	})
}

// TestParseRefusals has one defect in each input.
func TestParseRefusals(t *testing.T) {
	const header = `{"alg":"ES256","typ":"JWT","kid":"k"}`
	good := encode(header) + "." + encode(`{"a":1}`)
	if _, _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, input := range map[string]string{
		"empty":                        "",
		"one part":                     encode(header),
		"three parts":                  good + ".",
		"signature":                    good + "." + encode("signature"),
		"header not base64url":         strings.Replace(good, "e", "+", 1),
		"header padded":                encode(`{"alg":"ES256","typ":"JWT"}`) + "=." + encode(`{}`),
		"payload padded":               good + "=",
		"payload with stray bits":      encode(header) + ".e31",
		"line break in the header":     good[:10] + "\n" + good[10:],
		"line break in the payload":    good + "\r\n",
		"header not JSON":              encode("x") + "." + encode(`{}`),
		"header an array":              encode(`["ES256"]`) + "." + encode(`{}`),
		"header with a space":          encode(`{"alg":"ES256", "typ":"JWT"}`) + "." + encode(`{}`),
		"header in another order":      encode(`{"typ":"JWT","alg":"ES256"}`) + "." + encode(`{}`),
		"header in another case":       encode(`{"ALG":"ES256","typ":"JWT"}`) + "." + encode(`{}`),
		"header member twice":          encode(`{"alg":"ES384","alg":"ES256"}`) + "." + encode(`{}`),
		"header with crit":             encode(`{"alg":"ES256","crit":["x"]}`) + "." + encode(`{}`),
		"header with jwk":              encode(`{"alg":"ES256","jwk":{}}`) + "." + encode(`{}`),
		"header with escapes":          encode(`{"alg":"ES\u0032\u0035\u0036"}`) + "." + encode(`{}`),
		"header with null":             encode(`{"alg":"ES256","kid":null}`) + "." + encode(`{}`),
		"header with empty kid":        encode(`{"alg":"ES256","kid":""}`) + "." + encode(`{}`),
		"x5c in base64url":             encode(`{"alg":"ES256","x5c":["-_-_"]}`) + "." + encode(`{}`),
		"x5c with a line break":        encode(`{"alg":"ES256","x5c":["AQ\nID"]}`) + "." + encode(`{}`),
		"header followed by something": encode(`{"alg":"ES256"}x`) + "." + encode(`{}`),
		"payload an array":             encode(header) + "." + encode(`[]`),
		"payload member twice":         encode(header) + "." + encode(`{"a":1,"a":2}`),
		"payload twice, escaped":       encode(header) + "." + encode(`{"a":1,"\u0061":2}`),
		"payload followed by more":     encode(header) + "." + encode(`{}{}`),
		"payload empty":                encode(header) + ".",
		"too long":                     encode(header) + "." + encode(`{"a":"`+strings.Repeat("e", maxInput)+`"}`),
	} {
		if h, p, err := Parse([]byte(input)); err == nil {
			t.Errorf("%s: read as %+v %+v", name, h, p)
		}
	}
}

func TestBase64URL(t *testing.T) {
	for text, want := range map[string]string{"": "", "QQ": "A", "-_8": "\xfb\xff", "Zm9v": "foo"} {
		if got, err := Base64URL(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"QQ==", "QR", "+/8", "Zm9v\n", "\rZm9v", "Zm 9v", "Z", "Zm9v."} {
		if got, err := Base64URL(text); err == nil {
			t.Errorf("%q is decoded to %q", text, got)
		}
	}
}

func TestCheckValue(t *testing.T) {
	for _, good := range []any{nil, true, "Đorđević", json.Number("12"), 1, int64(-5), uint64(7), []any{"a", []any{}}, map[string]any{"é": map[string]any{}}} {
		if err := CheckValue(good); err != nil {
			t.Errorf("%#v: %v", good, err)
		}
	}
	for _, bad := range []any{1.5, float32(1), "\xff", []any{"\xc3"}, map[string]any{"\xff": 1}, map[string]any{"a": []any{1.5}}, []string{"a"}, struct{}{}, []byte("a"), int32(1), time.Time{}} {
		if err := CheckValue(bad); err == nil {
			t.Errorf("%#v is taken", bad)
		} else if strings.Contains(err.Error(), "1.5") {
			t.Errorf("the error holds the value: %v", err)
		}
	}
	if _, err := Input(Header{}, map[string]any{"f": math.NaN()}); err == nil {
		t.Error("a number that JSON does not have was encoded")
	}
}

func TestDates(t *testing.T) {
	for _, moment := range []time.Time{time.Unix(0, 0), time.Unix(1, 999999999), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
		seconds, err := NumericDate(moment)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Date(map[string]any{"exp": json.Number(jsonText(seconds))}, "exp")
		if err != nil || !got.Equal(moment.Truncate(time.Second)) || got.Location() != time.UTC {
			t.Errorf("%s became %s (%v)", moment, got, err)
		}
	}
	for _, moment := range []time.Time{{}, time.Unix(-1, 0), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if seconds, err := NumericDate(moment); err == nil {
			t.Errorf("%s became %d", moment, seconds)
		}
	}
	if got, err := Date(map[string]any{}, "exp"); err != nil || !got.IsZero() {
		t.Errorf("an absent date is %s, %v", got, err)
	}
	for _, bad := range []any{"1", nil, true, json.Number("1.5"), json.Number("1e3"), json.Number("-1"), json.Number("253402300800"), json.Number("99999999999999999999")} {
		if got, err := Date(map[string]any{"exp": bad}, "exp"); err == nil {
			t.Errorf("%#v is %s", bad, got)
		}
	}
}

func TestString(t *testing.T) {
	if got, err := String(map[string]any{"iss": "https://h"}, "iss"); err != nil || got != "https://h" {
		t.Errorf("%q, %v", got, err)
	}
	for _, claims := range []map[string]any{{}, {"iss": ""}, {"iss": nil}, {"iss": json.Number("1")}, {"iss": map[string]any{}}} {
		if got, err := String(claims, "iss"); err == nil {
			t.Errorf("%v: %q", claims, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, a := range issuancetest.Algorithms {
		input, err := Input(Header{Algorithm: a, Type: "dc+sd-jwt", X5C: [][]byte{{48, 3}}}, map[string]any{"exp": 1, "cnf": map[string]any{}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(input))
	}
	f.Add(encode(`{"alg":"ES256","alg":"none"}`) + "." + encode(`{"a":1,"a":2}`))
	f.Add("e30.e30\n")
	f.Fuzz(func(t *testing.T, input string) {
		header, claims, err := Parse([]byte(input))
		if err != nil {
			return
		}
		// What is read, and written again, is read as the same.
		again, err := Input(header, claims)
		if err != nil {
			t.Fatal(err)
		}
		header2, claims2, err := Parse(again)
		if err != nil || !reflect.DeepEqual(header, header2) || !reflect.DeepEqual(claims, claims2) {
			t.Fatalf("%q reads as %+v %+v and, written again, as %+v %+v (%v)", input, header, claims, header2, claims2, err)
		}
		if head, _, _ := strings.Cut(string(again), "."); !strings.HasPrefix(input, head+".") {
			t.Fatalf("%q has a header that is written otherwise", input)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	input, err := Input(Header{Algorithm: issuance.ES256, Type: "dc+sd-jwt", X5C: [][]byte{make([]byte, 700)}},
		map[string]any{"vct": "urn:eudi:pid:1", "iat": 1, "exp": 2, "_sd": []any{strings.Repeat("a", 43), strings.Repeat("b", 43)}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Parse(input); err != nil {
			b.Fatal(err)
		}
	}
}
