package sdjwt

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

var day = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// request is a small credential with disclosures of every kind: flat,
// structured, recursive, and elements of an array.
func request(t testing.TB, a issuance.Algorithm) Request {
	t.Helper()
	return Request{
		VCT: "urn:eudi:pid:1", Issuer: "https://issuer.example", Algorithm: a, Chain: [][]byte{{0x30, 1, 0}}, Holder: issuancetest.Key(t, issuance.ES256).Public(),
		IssuedAt: day, NotBefore: day, Expires: day.Add(14*24*time.Hour - time.Second),
		Claims: map[string]any{
			"family_name": "Đorđević-Łukasiewicz", "height": json.Number("171"), "sex": 2, "over_18": true, "none": nil, "html": "<b>&</b>",
			"address":       map[string]any{"country": "UT", "locality": "Port-Utopie", "geo": map[string]any{"lat": json.Number("1.50"), "lon": "x"}},
			"nationalities": []any{"UT", "SE"},
			"degrees":       []any{map[string]any{"name": "MA", "year": 2009}, []any{"nested", "list"}},
		},
		Disclose: []Path{{"family_name"}, {"height"}, {"address", "locality"}, {"address", "geo"}, {"address", "geo", "lat"}, {"nationalities", nil},
			{"degrees", 0}, {"degrees", 0, "name"}, {"degrees", 1, nil}, {"html"}, {"not_there"}},
	}
}

// parts splits a credential as a verifier does (RFC 9901 §7.1).
func parts(t testing.TB, text string) (compact string, disclosures []string) {
	t.Helper()
	if !strings.HasSuffix(text, "~") {
		t.Fatalf("the credential does not end with ~: %s", text)
	}
	all := strings.Split(strings.TrimSuffix(text, "~"), "~")
	return all[0], all[1:]
}

// TestJOSEJudges lets go-jose verify each algorithm, with a real certificate.
func TestJOSEJudges(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "verifier", "testdata", "golden", "ds.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	for _, a := range issuancetest.Algorithms {
		key := issuancetest.Key(t, a)
		r := request(t, a)
		r.Chain, r.KeyID = [][]byte{block.Bytes}, "k"
		p, err := Prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.Assemble(issuancetest.Sign(t, key, p.TBS))
		if err != nil {
			t.Fatal(err)
		}
		compact, disclosures := parts(t, text)
		object := issuancetest.Judge(t, a, key.Public(), compact)
		if h := object.Signatures[0].Protected; h.ExtraHeaders["typ"] != MediaType || h.KeyID != "k" {
			t.Errorf("%s: header %+v", a, h)
		}
		if _, err := object.Signatures[0].Protected.Certificates(x509.VerifyOptions{Roots: x509.NewCertPool()}); err == nil || strings.Contains(err.Error(), "no x5c") {
			t.Errorf("%s: go-jose says of x5c: %v", a, err)
		}
		if len(disclosures) != 12 {
			t.Errorf("%s: %d disclosures", a, len(disclosures))
		}
	}
}

// opened is what a verifier finds that has every disclosure.
type opened struct {
	claims map[string]any
	salts  []string
	unused int // digests that nothing belongs to
}

// unpack is a verifier's way to the claims (RFC 9901 §7.1, §7.3), written apart
// from the builder.
func unpack(t rapid.TB, tbs []byte, disclosures []string) opened {
	_, encoded, _ := strings.Cut(string(tbs), ".")
	payload := decodeJSON(t, encoded).(map[string]any)
	u := &unpacker{t: t, byDigest: map[string][]any{}}
	var o opened
	for _, d := range disclosures {
		content := decodeJSON(t, d).([]any)
		if len(content) != 2 && len(content) != 3 {
			t.Fatalf("a disclosure of %d parts", len(content))
		}
		u.byDigest[digestOf([]byte(d))] = content
		o.salts = append(o.salts, content[0].(string))
	}
	o.claims = u.open(payload).(map[string]any)
	delete(o.claims, "_sd_alg")
	if len(u.byDigest) > 0 {
		t.Fatalf("%d disclosures belong to no digest", len(u.byDigest))
	}
	o.unused = u.unused
	return o
}

func decodeJSON(t rapid.TB, encoded string) any {
	data, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		t.Fatalf("%s: %v", encoded, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return value
}

type unpacker struct {
	t        rapid.TB
	byDigest map[string][]any
	unused   int
}

// take returns a disclosure's content once.
func (u *unpacker) take(digest any, size int) []any {
	content := u.byDigest[digest.(string)]
	if content == nil {
		u.unused++
		return nil
	}
	if len(content) != size {
		u.t.Fatalf("a disclosure of %d parts where %d belong", len(content), size)
	}
	delete(u.byDigest, digest.(string))
	return content
}

func (u *unpacker) open(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, member := range value {
			if name != "_sd" {
				out[name] = u.open(member)
			}
		}
		digests, _ := value["_sd"].([]any)
		if !slices.IsSortedFunc(digests, func(a, b any) int { return strings.Compare(a.(string), b.(string)) }) {
			u.t.Fatal("_sd is not sorted")
		}
		for _, digest := range digests {
			if content := u.take(digest, 3); content != nil {
				name := content[1].(string)
				if _, twice := out[name]; twice {
					u.t.Fatalf("%q is disclosed and there already", name)
				}
				out[name] = u.open(content[2])
			}
		}
		return out
	case []any:
		out := []any{}
		for _, element := range value {
			object, _ := element.(map[string]any)
			if object["..."] == nil {
				out = append(out, u.open(element))
			} else if content := u.take(object["..."], 2); content != nil {
				out = append(out, u.open(content[1]))
			}
		}
		return out
	}
	return value
}

// normal brings Go values to the form that JSON decoding gives.
func normal(t rapid.TB, claims map[string]any) map[string]any {
	data, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return decodeJSON(t, base64.RawURLEncoding.EncodeToString(data)).(map[string]any)
}

// personal removes the issuer's own claims.
func personal(claims map[string]any) map[string]any {
	for _, name := range issuers {
		delete(claims, name)
	}
	return claims
}

// TestEveryKindOfDisclosure looks at what stands in the open, where, and at what
// the disclosures bring back.
func TestEveryKindOfDisclosure(t *testing.T) {
	r := request(t, issuance.ES256)
	p, err := Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Assemble(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	_, disclosures := parts(t, text)
	_, encoded, _ := strings.Cut(string(p.TBS), ".")
	payload := decodeJSON(t, encoded).(map[string]any)
	address := payload["address"].(map[string]any)
	if len(payload["_sd"].([]any)) != 3 || payload["_sd_alg"] != "sha-256" || payload["family_name"] != nil || payload["sex"] != json.Number("2") || payload["over_18"] != true {
		t.Errorf("payload %v", payload)
	}
	if none, has := payload["none"]; !has || none != nil {
		t.Errorf("a claim that is null is %v, %v", none, has)
	}
	if len(address["_sd"].([]any)) != 2 || address["country"] != "UT" || len(address) != 2 {
		t.Errorf("address %v", address)
	}
	for _, name := range []string{"nationalities", "degrees"} {
		for i, element := range payload[name].([]any) {
			if object, _ := element.(map[string]any); name == "nationalities" && (len(object) != 1 || object["..."] == nil) {
				t.Errorf("nationalities[%d] is %v", i, element)
			}
		}
	}
	if _, hidden := payload["degrees"].([]any)[0].(map[string]any)["..."]; !hidden {
		t.Errorf("degrees %v", payload["degrees"])
	}
	if list, _ := payload["degrees"].([]any)[1].([]any); len(list) != 2 {
		t.Errorf("degrees %v", payload["degrees"])
	}
	o := unpack(t, p.TBS, disclosures)
	if got, want := personal(o.claims), normal(t, r.Claims); !reflect.DeepEqual(got, want) {
		t.Errorf("%v came out of %v", got, want)
	}
	if !slices.Contains(decodedTexts(t, disclosures), `<b>&</b>`) {
		t.Error("text was escaped on its way into a disclosure")
	}
}

func decodedTexts(t testing.TB, disclosures []string) []string {
	var all []string
	for _, d := range disclosures {
		content := decodeJSON(t, d).([]any)
		if text, ok := content[len(content)-1].(string); ok {
			all = append(all, text)
		}
	}
	return all
}

// drawClaims draws claims and the paths of some of them.
func drawClaims(t *rapid.T) (map[string]any, []Path) {
	leaf := rapid.OneOf(rapid.Map(rapid.String(), func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }), rapid.Just[any](nil))
	name := rapid.Map(rapid.OneOf(rapid.StringMatching(`[a-zäöß]{0,6}`), rapid.String()), func(s string) string {
		if CheckName(s, true) != nil {
			return "renamed"
		}
		return s
	})
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return leaf
		}
		return rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(value(depth-1), 0, 4), func(s []any) any { return append([]any{}, s...) }),
			rapid.Map(rapid.MapOfN(name, value(depth-1), 0, 4), func(m map[string]any) any { return m }))
	}
	claims := rapid.MapOfN(name, value(3), 0, 6).Draw(t, "claims")
	var paths []Path
	var walk func(at Path, v any)
	walk = func(at Path, v any) {
		if len(at) > 0 && rapid.Bool().Draw(t, "hide") {
			paths = append(paths, slices.Clone(at))
		}
		switch v := v.(type) {
		case map[string]any:
			for _, name := range sortedNames(v) {
				walk(append(slices.Clone(at), name), v[name])
			}
		case []any:
			if rapid.Bool().Draw(t, "hide all") {
				paths = append(paths, append(slices.Clone(at), nil))
				return
			}
			for i, e := range v {
				walk(append(slices.Clone(at), i), e)
			}
		}
	}
	walk(nil, claims)
	return claims, paths
}

func sortedNames(m map[string]any) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestParseReadsWhatPrepareWrote, for any claims and paths, and whoever has
// every disclosure finds every claim.
func TestParseReadsWhatPrepareWrote(t *testing.T) {
	var keys []crypto.PublicKey
	for _, a := range issuancetest.Algorithms {
		keys = append(keys, issuancetest.Key(t, a).Public())
	}
	rapid.Check(t, func(t *rapid.T) {
		claims, paths := drawClaims(t)
		before := fmt.Sprint(claims)
		r := Request{VCT: "urn:" + rapid.String().Draw(t, "vct"), Issuer: "https://" + rapid.String().Draw(t, "issuer"), KeyID: rapid.String().Draw(t, "kid"),
			Chain: [][]byte{rapid.SliceOfN(rapid.Byte(), 1, 10).Draw(t, "certificate")}, Algorithm: rapid.SampledFrom(issuancetest.Algorithms).Draw(t, "alg"),
			Claims: claims, Disclose: paths, Decoys: rapid.IntRange(0, 5).Draw(t, "decoys"),
			IssuedAt: day, Expires: day.Add(time.Duration(rapid.IntRange(1, 1e6).Draw(t, "seconds")) * time.Second)}
		if rapid.Bool().Draw(t, "bound") {
			r.Holder = rapid.SampledFrom(keys).Draw(t, "holder")
		}
		if rapid.Bool().Draw(t, "status") {
			r.Status = &StatusReference{"https://status.example/1", rapid.Uint64().Draw(t, "index")}
			r.VCTIntegrity = "sha256-AAAA"
		}
		p, err := Prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseTBS(p.TBS)
		if err != nil {
			t.Fatal(err)
		}
		want := issuance.Statement{Format: issuance.FormatSDJWT, Algorithm: r.Algorithm, Types: []string{r.VCT}, Issuer: r.Issuer, KeyID: r.KeyID, Chain: r.Chain,
			Signed: day, ValidFrom: day, ValidUntil: r.Expires}
		if !reflect.DeepEqual(s, want) {
			t.Fatalf("%+v was read, want %+v", s, want)
		}
		text, err := p.Assemble(make([]byte, r.Algorithm.SignatureSize()))
		if err != nil {
			t.Fatal(err)
		}
		_, disclosures, _ := strings.Cut(strings.TrimSuffix(text, "~"), "~")
		var list []string
		if disclosures != "" {
			list = strings.Split(disclosures, "~")
		}
		o := unpack(t, p.TBS, list)
		if got, want := personal(o.claims), normal(t, claims); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v came out of %v with paths %v", got, want, paths)
		}
		if r.Decoys < 2 && o.unused > 0 || fmt.Sprint(claims) != before {
			t.Fatalf("%d digests without a disclosure; the claims are now %v", o.unused, claims)
		}
	})
}

// TestDecoys: every _sd and every array with hidden elements has a multiple of
// digests, whatever is in them, and what has nothing hidden has none.
func TestDecoys(t *testing.T) {
	for hidden := range 10 {
		claims := map[string]any{"list": []any{}, "open": []any{"a"}, "empty": map[string]any{}}
		var paths []Path
		for i := range hidden {
			claims[fmt.Sprintf("c%d", i)] = i
			claims["list"] = append(claims["list"].([]any), i)
			paths = append(paths, Path{fmt.Sprintf("c%d", i)})
		}
		r := request(t, issuance.ES256)
		r.Claims, r.Disclose, r.Decoys = claims, append(paths, Path{"list", nil}), 4
		p, err := Prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		_, encoded, _ := strings.Cut(string(p.TBS), ".")
		payload := decodeJSON(t, encoded).(map[string]any)
		digests, _ := payload["_sd"].([]any)
		want := (hidden + 3) / 4 * 4
		if len(digests) != want || len(payload["list"].([]any)) != want || len(payload["open"].([]any)) != 1 || len(payload["empty"].(map[string]any)) != 0 {
			t.Errorf("%d hidden: %v", hidden, payload)
		}
		if _, has := payload["_sd_alg"]; has != (hidden > 0) {
			t.Errorf("%d hidden: _sd_alg is there: %v", hidden, has)
		}
	}
}

// TestNothingHidden: without disclosures the credential is <jwt>~ (SD-JWT VC §2.2.2.5).
func TestNothingHidden(t *testing.T) {
	r := request(t, issuance.ES256)
	r.Disclose, r.Decoys = nil, 8
	p, err := Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Assemble(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	if compact, disclosures := parts(t, text); len(disclosures) != 0 || compact+"~" != text {
		t.Errorf("%s", text)
	}
	_, encoded, _ := strings.Cut(string(p.TBS), ".")
	if payload := decodeJSON(t, encoded).(map[string]any); payload["_sd"] != nil || payload["_sd_alg"] != nil {
		t.Errorf("%v", payload)
	}
}

// TestNothingLinksABatch: no salt, digest or decoy is there twice, and a salt
// has at least 128 bits.
func TestNothingLinksABatch(t *testing.T) {
	r := request(t, issuance.ES256)
	r.Decoys = 8
	seen := map[string]bool{}
	note := func(kind, text string) {
		if seen[text] {
			t.Fatalf("a %s is there twice", kind)
		}
		seen[text] = true
	}
	for range 64 {
		p, err := Prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.Assemble(make([]byte, 64))
		if err != nil {
			t.Fatal(err)
		}
		_, disclosures := parts(t, text)
		for _, salt := range unpack(t, p.TBS, disclosures).salts {
			if raw, err := jws.Base64URL(salt); err != nil || len(raw) < 16 {
				t.Fatalf("salt %s", salt)
			}
			note("salt", salt)
		}
		_, claims, err := jws.Parse(p.TBS)
		if err != nil {
			t.Fatal(err)
		}
		digests := map[string]bool{}
		if err := checkDigests(claims, true, digests); err != nil {
			t.Fatal(err)
		}
		for digest := range digests {
			note("digest", digest)
		}
	}
}

// TestNoRandomnessNoCredential cuts the randomness off at every byte.
func TestNoRandomnessNoCredential(t *testing.T) {
	r := request(t, issuance.ES256)
	r.Claims, r.Disclose, r.Decoys = map[string]any{"a": 1, "l": []any{1}}, []Path{{"a"}, {"l", nil}}, 2
	const need = 2*SaltSize + 2*32 // two disclosures, two decoys
	all := make([]byte, need)
	for i := range all {
		all[i] = byte(i)
	}
	for n := range need {
		if _, err := prepare(r, bytes.NewReader(all[:n])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("a credential from %d bytes of %d: %v", n, need, err)
		}
	}
	if _, err := prepare(r, bytes.NewReader(all)); err != nil {
		t.Fatal(err)
	}
}
