package sdjwt

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

// TestPrepareRefusals changes one thing in a good request at a time.
func TestPrepareRefusals(t *testing.T) {
	claim := func(name string, value any) func(*Request) {
		return func(r *Request) { r.Claims, r.Disclose = map[string]any{name: value}, nil }
	}
	path := func(p ...any) func(*Request) { return func(r *Request) { r.Disclose = []Path{p} } }
	tests := map[string]func(r *Request){
		"no vct":                     func(r *Request) { r.VCT = "" },
		"vct not UTF-8":              func(r *Request) { r.VCT = "urn:\xff" },
		"issuer not UTF-8":           func(r *Request) { r.Issuer = "https://\xff" },
		"no x5c and no kid":          func(r *Request) { r.Chain = nil },
		"kid without iss":            func(r *Request) { r.Chain, r.KeyID, r.Issuer = nil, "did:web:h#k", "" },
		"unknown algorithm":          func(r *Request) { r.Algorithm = "HS256" },
		"none":                       func(r *Request) { r.Algorithm = "none" },
		"RSA holder":                 func(r *Request) { r.Holder = &rsa.PublicKey{N: big.NewInt(15), E: 3} },
		"private holder":             func(r *Request) { r.Holder = issuancetest.Key(t, issuance.ES256) },
		"status without URI":         func(r *Request) { r.Status = &StatusReference{"", 1} },
		"no times":                   func(r *Request) { r.IssuedAt, r.NotBefore = time.Time{}, time.Time{} },
		"no exp":                     func(r *Request) { r.Expires = time.Time{} },
		"exp at nbf":                 func(r *Request) { r.Expires = r.NotBefore.Add(999 * time.Millisecond) },
		"exp before iat":             func(r *Request) { r.IssuedAt = r.Expires.Add(time.Second) },
		"before 1970":                func(r *Request) { r.IssuedAt = time.Unix(-1, 0) },
		"beyond the calendar":        func(r *Request) { r.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"float":                      claim("a", 1.5),
		"deep float":                 claim("a", []any{map[string]any{"b": 1.5}}),
		"text not UTF-8":             claim("a", "\xff"),
		"name not UTF-8":             claim("\xff", 1),
		"struct":                     claim("a", struct{}{}),
		"number that is none":        claim("a", json.Number("1.")),
		"nested _sd":                 claim("a", map[string]any{"_sd": []any{}}),
		"nested ...":                 claim("a", []any{map[string]any{"...": "x"}}),
		"nested _sd_alg":             claim("a", map[string]any{"_sd_alg": "sha-256"}),
		"empty path":                 path(),
		"path of a number type":      path("nationalities", int64(0)),
		"path of a negative index":   path("nationalities", -1),
		"path that begins with nil":  path(nil),
		"path that begins with 0":    path(0),
		"elements of a text":         path("family_name", nil),
		"elements of an object":      path("address", nil),
		"element 0 of an object":     path("address", 0),
		"member of an array":         path("nationalities", "a"),
		"member of a text":           path("family_name", "a"),
		"member of a number, deep":   path("degrees", 0, "year", "x"),
		"elements and one of them":   func(r *Request) { r.Disclose = []Path{{"nationalities", nil}, {"nationalities", 0}} },
		"one element and all others": func(r *Request) { r.Disclose = []Path{{"nationalities", 0}, {"nationalities", nil}} },
	}
	for _, name := range append(slices.Clone(issuers), "_sd", "...", "_sd_alg") {
		tests["claim "+name] = claim(name, "x")
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(t, issuance.ES256)
			change(&r)
			if _, err := Prepare(r); err == nil {
				t.Error("it is prepared")
			} else if strings.Contains(err.Error(), "Łukasiewicz") {
				t.Errorf("the error holds a value: %v", err)
			}
		})
	}
}

// TestIssuersClaims has every claim that the issuer adds, and nothing else.
func TestIssuersClaims(t *testing.T) {
	r := request(t, issuance.ES256)
	r.Claims, r.Disclose, r.VCTIntegrity, r.Status = nil, nil, "sha256-AAAA", &StatusReference{"https://status.example/1", 1<<64 - 1}
	r.IssuedAt, r.NotBefore = day.Add(time.Hour+time.Millisecond), day.Add(999*time.Millisecond)
	jwk, err := jws.PublicJWK(r.Holder)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"vct":"urn:eudi:pid:1","iss":"https://issuer.example","iat":1795482000,"nbf":1795478400,"exp":1796687999,"vct#integrity":"sha256-AAAA",
		"status":{"status_list":{"idx":18446744073709551615,"uri":"https://status.example/1"}},"cnf":{"jwk":` + string(jwk) + `}}`
	_, encoded, _ := strings.Cut(string(p.TBS), ".")
	if got, want := decodeJSON(t, encoded), decodeJSON(t, base64.RawURLEncoding.EncodeToString([]byte(want))); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s, err := ParseTBS(p.TBS)
	if err != nil || !s.Signed.Equal(day.Add(time.Hour)) || !s.ValidFrom.Equal(day) {
		t.Errorf("%+v, %v", s, err)
	}
	r.Issuer, r.VCTIntegrity, r.Status, r.Holder, r.IssuedAt = "", "", nil, nil, time.Time{}
	if p, err = Prepare(r); err != nil {
		t.Fatal(err)
	}
	_, encoded, _ = strings.Cut(string(p.TBS), ".")
	if got := decodeJSON(t, encoded).(map[string]any); len(got) != 3 {
		t.Errorf("%v: want vct, nbf and exp alone", got)
	}
}

func TestAssembleRefusals(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		p, err := Prepare(request(t, a))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, a.SignatureSize() - 1, a.SignatureSize() + 1, 70} {
			if _, err := p.Assemble(make([]byte, n)); err == nil {
				t.Errorf("%s: assembled with %d bytes", a, n)
			}
		}
		if _, err := p.Assemble(make([]byte, a.SignatureSize())); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if _, err := p.Assemble(make([]byte, a.SignatureSize())); err == nil {
			t.Errorf("%s: assembled twice", a)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range issuers {
		if CheckName(name, true) == nil || CheckName(name, false) != nil {
			t.Errorf("%s is the issuer's at the top, and free below", name)
		}
	}
	for _, name := range []string{"_sd", "...", "_sd_alg"} {
		if CheckName(name, true) == nil || CheckName(name, false) == nil {
			t.Errorf("%s is taken everywhere", name)
		}
	}
	for _, name := range []string{"", "sub", "family_name", "_SD", "....", "Iss"} {
		if err := CheckName(name, true); err != nil {
			t.Error(err)
		}
	}
}

// headerAndClaims takes a good signing input apart.
func headerAndClaims(t testing.TB) (header, claims map[string]any) {
	t.Helper()
	r := request(t, issuance.ES256)
	r.Status, r.VCTIntegrity = &StatusReference{"https://status.example/1", 7}, "sha256-AAAA"
	p, err := Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	h, c, _ := strings.Cut(string(p.TBS), ".")
	return decodeJSON(t, h).(map[string]any), decodeJSON(t, c).(map[string]any)
}

// TestParseRefusals changes one thing in a good signing input at a time.
func TestParseRefusals(t *testing.T) {
	h, c := headerAndClaims(t)
	if _, err := ParseTBS(issuancetest.SigningInput(t, h, c)); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	digest := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	header := func(name string, value any) func(h, c map[string]any) {
		return func(h, _ map[string]any) { h[name] = value }
	}
	claim := func(name string, value any) func(h, c map[string]any) {
		return func(_, c map[string]any) { c[name] = value }
	}
	without := func(name string) func(h, c map[string]any) {
		return func(h, c map[string]any) { delete(h, name); delete(c, name) }
	}
	number := func(n string) json.Number { return json.Number(n) }
	tests := map[string]func(h, c map[string]any){
		"typ missing":              without("typ"),
		"typ of a JWT":             header("typ", "JWT"),
		"typ of a key binding JWT": header("typ", "kb+jwt"),
		"typ of nobody":            header("typ", "vc+sd-jwt2"),
		"alg missing":              without("alg"),
		"alg none":                 header("alg", "none"),
		"alg HS256":                header("alg", "HS256"),
		"no x5c, no kid":           without("x5c"),
		"x5c empty":                header("x5c", []any{}),
		"jku":                      header("jku", "https://evil.example/keys"),
		"kid without iss":          func(h, c map[string]any) { delete(h, "x5c"); h["kid"] = "did:web:h#k"; delete(c, "iss") },
		"no vct":                   without("vct"),
		"vct a list":               claim("vct", []any{"urn:eudi:pid:1"}),
		"vct empty":                claim("vct", ""),
		"aka_vcts":                 claim("aka_vcts", []any{"urn:other"}),
		"vct#integrity a number":   claim("vct#integrity", number("1")),
		"iss empty":                claim("iss", ""),
		"iss an object":            claim("iss", map[string]any{"id": "x"}),
		"iss null":                 claim("iss", nil),
		"no exp":                   without("exp"),
		"exp a text":               claim("exp", "1795478400"),
		"exp a fraction":           claim("exp", number("1895478400.5")),
		"exp an exponent":          claim("exp", number("2e9")),
		"exp at nbf":               claim("exp", number("1795478400")),
		"exp negative":             claim("exp", number("-1")),
		"no iat and no nbf":        func(h, c map[string]any) { delete(c, "iat"); delete(c, "nbf") },
		"iat after exp":            claim("iat", number("1995478400")),
		"nbf after exp":            claim("nbf", number("1995478400")),
		"nbf null":                 claim("nbf", nil),
		"status a text":            claim("status", "valid"),
		"status null":              claim("status", nil),
		"status of another kind":   claim("status", map[string]any{"status_bits": map[string]any{}}),
		"status of two kinds":      func(_, c map[string]any) { c["status"].(map[string]any)["other"] = 1 },
		"status without uri":       claim("status", map[string]any{"status_list": map[string]any{"idx": number("1")}}),
		"status without idx":       claim("status", map[string]any{"status_list": map[string]any{"uri": "u"}}),
		"idx negative":             claim("status", map[string]any{"status_list": map[string]any{"idx": number("-1"), "uri": "u"}}),
		"idx a text":               claim("status", map[string]any{"status_list": map[string]any{"idx": "1", "uri": "u"}}),
		"idx a fraction":           claim("status", map[string]any{"status_list": map[string]any{"idx": number("1.0"), "uri": "u"}}),
		"status with more":         claim("status", map[string]any{"status_list": map[string]any{"idx": number("1"), "uri": "u", "_sd": []any{digest}}}),
		"cnf null":                 claim("cnf", nil),
		"cnf a thumbprint":         claim("cnf", map[string]any{"jkt": digest}),
		"cnf with a private key":   func(_, c map[string]any) { c["cnf"].(map[string]any)["jwk"].(map[string]any)["d"] = digest },
		"cnf with a kid":           func(_, c map[string]any) { c["cnf"].(map[string]any)["jwk"].(map[string]any)["kid"] = "serial" },
		"_sd an object":            claim("_sd", map[string]any{}),
		"_sd empty":                claim("_sd", []any{}),
		"_sd with a number":        claim("_sd", []any{number("1")}),
		"_sd with a short digest":  claim("_sd", []any{digest[:40]}),
		"_sd with a padded digest": claim("_sd", []any{digest + "="}),
		"_sd with a line break":    claim("_sd", []any{digest[:5] + "\n" + digest[5:]}),
		"_sd with SHA-512":         claim("_sd", []any{base64.RawURLEncoding.EncodeToString(make([]byte, 64))}),
		"digest twice in _sd":      claim("_sd", []any{digest, digest}),
		"digest twice, deep":       claim("x", []any{map[string]any{"_sd": []any{digest}}, map[string]any{"...": digest}}),
		"_sd_alg missing":          without("_sd_alg"),
		"_sd_alg SHA-512":          claim("_sd_alg", "sha-512"),
		"_sd_alg an object":        claim("_sd_alg", map[string]any{}),
		"_sd_alg below":            claim("x", map[string]any{"_sd_alg": "sha-256"}),
		"_sd_alg without digests": func(_, c map[string]any) {
			for name := range c {
				if slices.Contains([]string{"_sd", "address", "nationalities", "degrees"}, name) {
					delete(c, name)
				}
			}
		},
		"placeholder with more":    claim("x", []any{map[string]any{"...": digest, "a": 1}}),
		"placeholder a number":     claim("x", []any{map[string]any{"...": number("1")}}),
		"placeholder at the top":   claim("...", digest),
		"placeholder in an object": claim("x", map[string]any{"...": digest}),
	}
	for name, change := range tests {
		h, c := headerAndClaims(t)
		change(h, c)
		if s, err := ParseTBS(issuancetest.SigningInput(t, h, c)); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

// TestParseTakes what another order of times and no key binding gives.
func TestParseTakes(t *testing.T) {
	for name, change := range map[string]func(h, c map[string]any){
		"iat alone":      func(_, c map[string]any) { delete(c, "nbf") },
		"nbf alone":      func(_, c map[string]any) { delete(c, "iat") },
		"no cnf":         func(_, c map[string]any) { delete(c, "cnf") },
		"no status":      func(_, c map[string]any) { delete(c, "status") },
		"no iss":         func(_, c map[string]any) { delete(c, "iss") },
		"a DID's key":    func(h, c map[string]any) { delete(h, "x5c"); h["kid"], c["iss"] = "did:web:h#k", "did:web:h" },
		"x5c and kid":    func(h, _ map[string]any) { h["kid"] = "k" },
		"sub":            func(_, c map[string]any) { c["sub"] = "a" },
		"a claim called": func(_, c map[string]any) { c["Status"] = []any{map[string]any{}} },
	} {
		h, c := headerAndClaims(t)
		change(h, c)
		s, err := ParseTBS(issuancetest.SigningInput(t, h, c))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !s.Signed.Equal(day) || !s.ValidFrom.Equal(day) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestVectors holds digests and a whole credential of others against this
// package's (RFC 9901 §4.2.3, OpenID4VCI 1.0 A.3.4).
func TestVectors(t *testing.T) {
	var file struct {
		Digests []struct {
			Array      []any
			Disclosure string
			Digest     string `json:"sha256_digest_b64url"`
		}
		Credential struct {
			Compact string
			Payload map[string]any
		} `json:"sd_jwt_vc"`
	}
	if err := json.Unmarshal(issuancetest.Vector(t, "sd-jwt.json"), &file); err != nil {
		t.Fatal(err)
	}
	same := 0
	for _, d := range file.Digests {
		if got := digestOf([]byte(d.Disclosure)); got != d.Digest {
			t.Errorf("digest of %s is %s, want %s", d.Disclosure, got, d.Digest)
		}
		data, err := jws.Marshal(d.Array)
		if err != nil {
			t.Fatal(err)
		}
		if base64.RawURLEncoding.EncodeToString(data) == d.Disclosure {
			same++ // others put spaces, line breaks or escapes into the same array
		}
	}
	if same != 1 {
		t.Errorf("%d disclosures are written as here, want the one without spaces", same)
	}
	compact, disclosures := parts(t, file.Credential.Compact)
	seen := map[string]bool{}
	if err := checkDigests(file.Credential.Payload, true, seen); err != nil {
		t.Fatal(err)
	}
	for _, d := range disclosures {
		if !seen[digestOf([]byte(d))] {
			t.Errorf("%s belongs to no digest", d)
		}
		delete(seen, digestOf([]byte(d)))
	}
	if len(seen) != 0 {
		t.Errorf("%d digests are left", len(seen))
	}
	// Its header has spaces, and a kid that is no DID's: read by others, not signed here.
	if _, err := ParseTBS([]byte(compact[:strings.LastIndex(compact, ".")])); err == nil {
		t.Error("a header with spaces is signed")
	}
}

func FuzzParseTBS(f *testing.F) {
	for _, a := range issuancetest.Algorithms {
		r := request(f, a)
		r.Status = &StatusReference{"https://status.example/1", 7}
		p, err := Prepare(r)
		if err != nil {
			f.Fatal(err)
		}
		header, payload, _ := strings.Cut(string(p.TBS), ".")
		for i, part := range []string{header, payload} {
			data, err := base64.RawURLEncoding.DecodeString(part)
			if err != nil {
				f.Fatal(err)
			}
			if i == 1 {
				f.Add(string(a), data)
			}
		}
	}
	f.Add("ES256", []byte(`{"_sd":[],"vct":"x","exp":2,"iat":1}`))
	f.Add("none", []byte(`{"vct":{},"...":1}`))
	// The payload is changed before it is encoded: random base64url seldom is JSON.
	f.Fuzz(func(t *testing.T, algorithm string, payload []byte) {
		header, err := jws.Marshal(jws.Header{Algorithm: issuance.Algorithm(algorithm), Type: MediaType, X5C: [][]byte{{0x30}}})
		if err != nil {
			return
		}
		b64 := base64.RawURLEncoding
		s, err := ParseTBS([]byte(b64.EncodeToString(header) + "." + b64.EncodeToString(payload)))
		if err != nil {
			return
		}
		if s.Algorithm.SignatureSize() == 0 || len(s.Types) != 1 || s.Types[0] == "" || !s.ValidUntil.After(s.ValidFrom) || !s.ValidUntil.After(s.Signed) {
			t.Fatalf("%s is read as %+v", payload, s)
		}
	})
}

func BenchmarkPrepare(b *testing.B) {
	r := request(b, issuance.ES256)
	r.Decoys = 8
	for b.Loop() {
		if _, err := Prepare(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepareAndAssemble(b *testing.B) {
	r, signature := request(b, issuance.ES256), make([]byte, 64)
	r.Decoys = 8
	for b.Loop() {
		p, err := Prepare(r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Assemble(signature); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseTBS(b *testing.B) {
	r := request(b, issuance.ES256)
	r.Decoys = 8
	p, err := Prepare(r)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ParseTBS(p.TBS); err != nil {
			b.Fatal(err)
		}
	}
}
