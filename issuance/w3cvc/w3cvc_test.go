package w3cvc

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

var day = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

const issuer = "did:web:issuer.example%3A8443:tenant"

func request(t testing.TB, a issuance.Algorithm) Request {
	t.Helper()
	holder := issuancetest.Key(t, issuance.ES256).Public()
	subject, _, err := did.JWK(holder)
	if err != nil {
		t.Fatal(err)
	}
	return Request{
		ID: "urn:uuid:b3b9e4a6-7e1b-4c9b-9a52-3a0d5b2f8f10", Issuer: issuer, KeyID: issuer + "#key", Types: []string{"ResidencePermitCredential"},
		Contexts: []string{"https://issuer.example/context.json"}, SubjectID: subject, Holder: holder, Algorithm: a,
		Subject:   map[string]any{"family_name": "Đorđević-Łukasiewicz", "permit": map[string]any{"number": "UT-RP-4812", "html": "<&>"}, "remarks": []any{"a", "b"}, "sex": int64(2), "work": true},
		ValidFrom: day, ValidUntil: day.Add(90*24*time.Hour - time.Second),
	}
}

// payloadOf decodes the payload of a signing input or a compact JWT.
func payloadOf(t rapid.TB, text string) map[string]any {
	part := strings.Split(text, ".")[1]
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		t.Fatalf("%v", err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	var out map[string]any
	if err := decoder.Decode(&out); err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// TestJOSEJudges lets go-jose verify each algorithm, and looks at every member.
func TestJOSEJudges(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		key := issuancetest.Key(t, a)
		r := request(t, a)
		p, err := Prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		compact, err := p.Assemble(issuancetest.Sign(t, key, p.TBS))
		if err != nil {
			t.Fatal(err)
		}
		object := issuancetest.Judge(t, a, key.Public(), compact)
		if h := object.Signatures[0].Protected; h.KeyID != r.KeyID || h.ExtraHeaders["typ"] != "JWT" {
			t.Errorf("%s: header %+v", a, h)
		}
		jwk, err := jws.PublicJWK(r.Holder)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"iss":"%s","jti":"%s","sub":"%s","nbf":1795478400,"exp":1803254399,"cnf":{"jwk":%s},"vc":{
			"@context":["https://www.w3.org/2018/credentials/v1","https://issuer.example/context.json"],
			"type":["VerifiableCredential","ResidencePermitCredential"],
			"id":"%s","issuer":"%s","issuanceDate":"2026-11-24T00:00:00Z","expirationDate":"2027-02-21T23:59:59Z",
			"credentialSubject":{"id":"%s","family_name":"Đorđević-Łukasiewicz","permit":{"number":"UT-RP-4812","html":"<&>"},"remarks":["a","b"],"sex":2,"work":true}}}`,
			issuer, r.ID, r.SubjectID, jwk, r.ID, issuer, r.SubjectID)
		if got, want := payloadOf(t, compact), payloadOf(t, "."+base64.RawURLEncoding.EncodeToString([]byte(want))); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: payload\n%v, want\n%v", a, got, want)
		}
	}
}

// TestNoSubject: without a subject identifier neither side has one.
func TestNoSubject(t *testing.T) {
	r := request(t, issuance.ES256)
	r.SubjectID, r.Holder, r.Contexts = "", nil, nil
	p, err := Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	payload := payloadOf(t, string(p.TBS))
	vc := payload["vc"].(map[string]any)
	_, sub := payload["sub"]
	_, cnf := payload["cnf"]
	_, id := vc["credentialSubject"].(map[string]any)["id"]
	if sub || cnf || id || len(vc["@context"].([]any)) != 1 {
		t.Errorf("%v", payload)
	}
	if _, err := ParseTBS(p.TBS); err != nil {
		t.Error(err)
	}
}

// TestParseReadsWhatPrepareWrote, for any request that Prepare takes.
func TestParseReadsWhatPrepareWrote(t *testing.T) {
	var keys []crypto.PublicKey
	for _, a := range issuancetest.Algorithms {
		keys = append(keys, issuancetest.Key(t, a).Public())
	}
	leaf := rapid.OneOf(rapid.Map(rapid.String(), func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }), rapid.Just[any](nil))
	value := rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(leaf, 0, 3), func(s []any) any { return s }), rapid.Map(rapid.MapOfN(rapid.String(), leaf, 0, 3), func(m map[string]any) any { return m }))
	rapid.Check(t, func(t *rapid.T) {
		from := day.Add(time.Duration(rapid.IntRange(-1e9, 1e9).Draw(t, "from")) * time.Second)
		r := Request{
			ID: "urn:" + rapid.String().Draw(t, "id"), Issuer: issuer, KeyID: issuer + "#" + rapid.StringMatching(`.+`).Draw(t, "kid"),
			Types:    rapid.SliceOfN(rapid.StringMatching(`[A-Z][a-zé]+`), 1, 3).Draw(t, "types"),
			Contexts: rapid.SliceOfN(rapid.StringMatching(`https://[a-z]+`), 0, 2).Draw(t, "contexts"), Algorithm: rapid.SampledFrom(issuancetest.Algorithms).Draw(t, "alg"),
			Subject:   rapid.MapOfN(rapid.StringMatching(`[a-hj-z]\w*`), value, 0, 5).Draw(t, "subject"),
			ValidFrom: from.Add(time.Duration(rapid.IntRange(0, 999).Draw(t, "ms")) * time.Millisecond), ValidUntil: from.Add(time.Duration(rapid.IntRange(1, 1e8).Draw(t, "until")) * time.Second),
		}
		if rapid.Bool().Draw(t, "bound") {
			r.Holder, r.SubjectID = rapid.SampledFrom(keys).Draw(t, "holder"), "did:example:"+rapid.StringMatching(`[a-z]*`).Draw(t, "subject id")
		}
		before := fmt.Sprint(r.Subject)
		p, err := Prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseTBS(p.TBS)
		if err != nil {
			t.Fatal(err)
		}
		if s.ValidFrom.Equal(from) && s.Signed.Equal(from) && s.ValidUntil.Equal(r.ValidUntil) {
			s.ValidFrom, s.Signed, s.ValidUntil = time.Time{}, time.Time{}, time.Time{}
		}
		if want := (issuance.Statement{Format: issuance.FormatJWTVC, Algorithm: r.Algorithm, Types: r.Types, Issuer: issuer, KeyID: r.KeyID}); !reflect.DeepEqual(s, want) {
			t.Fatalf("%+v was read, want %+v", s, want)
		}
		if fmt.Sprint(r.Subject) != before {
			t.Fatal("the subject's map was changed")
		}
		subject := payloadOf(t, string(p.TBS))["vc"].(map[string]any)["credentialSubject"].(map[string]any)
		if len(subject) != len(r.Subject) && (r.SubjectID == "" || len(subject) != len(r.Subject)+1) {
			t.Fatalf("subject %v from %v", subject, r.Subject)
		}
	})
}

// TestPrepareRefusals changes one thing in a good request at a time.
func TestPrepareRefusals(t *testing.T) {
	for name, change := range map[string]func(r *Request){
		"no id":                       func(r *Request) { r.ID = "" },
		"id no URI":                   func(r *Request) { r.ID = "b3b9e4a6" },
		"id not UTF-8":                func(r *Request) { r.ID = "urn:\xff" },
		"no issuer":                   func(r *Request) { r.Issuer, r.KeyID = "", "#key" },
		"issuer a URL":                func(r *Request) { r.Issuer, r.KeyID = "https://issuer.example", "https://issuer.example#key" },
		"issuer with a fragment":      func(r *Request) { r.Issuer, r.KeyID = issuer+"#a", issuer+"#a#b" },
		"no key id":                   func(r *Request) { r.KeyID = "" },
		"key id of another DID":       func(r *Request) { r.KeyID = "did:web:issuer.example%3A8443:tenant2#key" },
		"key id without a fragment":   func(r *Request) { r.KeyID = issuer },
		"key id with an empty one":    func(r *Request) { r.KeyID = issuer + "#" },
		"relative key id":             func(r *Request) { r.KeyID = "#key" },
		"no types":                    func(r *Request) { r.Types = nil },
		"empty type":                  func(r *Request) { r.Types = []string{"A", ""} },
		"base type":                   func(r *Request) { r.Types = []string{"VerifiableCredential"} },
		"type not UTF-8":              func(r *Request) { r.Types = []string{"\xff"} },
		"empty context":               func(r *Request) { r.Contexts = []string{""} },
		"base context":                func(r *Request) { r.Contexts = []string{baseContext} },
		"subject no DID":              func(r *Request) { r.SubjectID = "holder" },
		"subject with a fragment":     func(r *Request) { r.SubjectID += "#0" },
		"claim id":                    func(r *Request) { r.Subject["id"] = "x" },
		"claim id null":               func(r *Request) { r.Subject["id"], r.SubjectID = nil, "" },
		"float":                       func(r *Request) { r.Subject["a"] = 1.5 },
		"claim not UTF-8":             func(r *Request) { r.Subject["a"] = []any{"\xff"} },
		"number that is none":         func(r *Request) { r.Subject["a"] = json.Number("1e") },
		"unknown algorithm":           func(r *Request) { r.Algorithm = "none" },
		"RSA holder":                  func(r *Request) { r.Holder = &rsa.PublicKey{N: big.NewInt(15), E: 3} },
		"no start":                    func(r *Request) { r.ValidFrom = time.Time{} },
		"no end":                      func(r *Request) { r.ValidUntil = time.Time{} },
		"ends before it begins":       func(r *Request) { r.ValidUntil = r.ValidFrom.Add(-time.Hour) },
		"ends within the same second": func(r *Request) { r.ValidUntil = r.ValidFrom.Add(999 * time.Millisecond) },
		"before 1970":                 func(r *Request) { r.ValidFrom = time.Unix(-1, 0) },
		"beyond the calendar":         func(r *Request) { r.ValidUntil = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
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

// header and payload as maps, to be changed.
type input struct{ header, payload, vc, subject map[string]any }

func take(t testing.TB) input {
	t.Helper()
	p, err := Prepare(request(t, issuance.ES256))
	if err != nil {
		t.Fatal(err)
	}
	payload := payloadOf(t, string(p.TBS))
	vc := payload["vc"].(map[string]any)
	return input{payloadOf(t, "."+strings.Split(string(p.TBS), ".")[0]), payload, vc, vc["credentialSubject"].(map[string]any)}
}

// TestParseRefusals changes one thing in a good signing input at a time.
func TestParseRefusals(t *testing.T) {
	good := take(t)
	if _, err := ParseTBS(issuancetest.SigningInput(t, good.header, good.payload)); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for name, change := range map[string]func(in input){
		"typ missing":                 func(in input) { delete(in.header, "typ") },
		"typ vc+jwt":                  func(in input) { in.header["typ"] = "vc+jwt" },
		"alg none":                    func(in input) { in.header["alg"] = "none" },
		"alg RS256":                   func(in input) { in.header["alg"] = "RS256" },
		"no kid":                      func(in input) { delete(in.header, "kid") },
		"kid of another DID":          func(in input) { in.header["kid"] = "did:web:evil.example#key" },
		"kid a bare DID":              func(in input) { in.header["kid"] = issuer },
		"kid with an empty fragment":  func(in input) { in.header["kid"] = issuer + "#" },
		"x5c":                         func(in input) { in.header["x5c"] = []any{"MAA="} },
		"jwk":                         func(in input) { in.header["jwk"] = map[string]any{} },
		"no iss":                      func(in input) { delete(in.payload, "iss") },
		"iss an object":               func(in input) { in.payload["iss"] = map[string]any{"id": issuer} },
		"iss another":                 func(in input) { in.payload["iss"] = "did:web:evil.example" },
		"issuer another":              func(in input) { in.vc["issuer"] = "did:web:evil.example" },
		"issuer an object":            func(in input) { in.vc["issuer"] = map[string]any{"id": issuer} },
		"no issuer":                   func(in input) { delete(in.vc, "issuer") },
		"no jti":                      func(in input) { delete(in.payload, "jti") },
		"no id":                       func(in input) { delete(in.vc, "id") },
		"no jti and no id":            func(in input) { delete(in.payload, "jti"); delete(in.vc, "id") },
		"jti another":                 func(in input) { in.payload["jti"] = "urn:uuid:1" },
		"jti and id objects":          func(in input) { in.payload["jti"], in.vc["id"] = map[string]any{}, map[string]any{} },
		"jti and id lists":            func(in input) { in.payload["jti"], in.vc["id"] = []any{}, []any{} },
		"no nbf":                      func(in input) { delete(in.payload, "nbf") },
		"nbf a text":                  func(in input) { in.payload["nbf"] = "1795478400" },
		"nbf another":                 func(in input) { in.payload["nbf"] = 1795478401 },
		"no exp":                      func(in input) { delete(in.payload, "exp") },
		"exp another":                 func(in input) { in.payload["exp"] = 1803254400 },
		"exp before nbf":              func(in input) { in.payload["exp"] = 1795478399 },
		"exp at nbf":                  func(in input) { in.payload["exp"], in.vc["expirationDate"] = 1795478400, "2026-11-24T00:00:00Z" },
		"no issuanceDate":             func(in input) { delete(in.vc, "issuanceDate") },
		"issuanceDate with offset":    func(in input) { in.vc["issuanceDate"] = "2026-11-24T00:00:00+00:00" },
		"issuanceDate with fractions": func(in input) { in.vc["issuanceDate"] = "2026-11-24T00:00:00.000Z" },
		"no expirationDate":           func(in input) { delete(in.vc, "expirationDate") },
		"expirationDate an object":    func(in input) { in.vc["expirationDate"] = map[string]any{} },
		"no sub":                      func(in input) { delete(in.payload, "sub") },
		"sub another":                 func(in input) { in.payload["sub"] = "did:example:2" },
		"sub empty":                   func(in input) { in.payload["sub"], in.subject["id"] = "", "" },
		"sub null":                    func(in input) { in.payload["sub"], in.subject["id"] = nil, nil },
		"sub and id objects":          func(in input) { in.payload["sub"], in.subject["id"] = map[string]any{}, map[string]any{} },
		"sub and id lists":            func(in input) { in.payload["sub"], in.subject["id"] = []any{}, []any{} },
		"no subject id":               func(in input) { delete(in.subject, "id") },
		"no subject":                  func(in input) { delete(in.vc, "credentialSubject") },
		"two subjects":                func(in input) { in.vc["credentialSubject"] = []any{in.subject, in.subject} },
		"no vc":                       func(in input) { delete(in.payload, "vc") },
		"vc a text":                   func(in input) { in.payload["vc"] = "{}" },
		"no context":                  func(in input) { delete(in.vc, "@context") },
		"context a text":              func(in input) { in.vc["@context"] = baseContext },
		"context of VCDM 2.0":         func(in input) { in.vc["@context"] = []any{"https://www.w3.org/ns/credentials/v2"} },
		"base context second":         func(in input) { in.vc["@context"] = []any{"https://x.example", baseContext} },
		"context an object":           func(in input) { in.vc["@context"] = []any{baseContext, map[string]any{"@vocab": "x"}} },
		"no type":                     func(in input) { delete(in.vc, "type") },
		"type a text":                 func(in input) { in.vc["type"] = "ResidencePermitCredential" },
		"base type alone":             func(in input) { in.vc["type"] = []any{baseType} },
		"base type second":            func(in input) { in.vc["type"] = []any{"ResidencePermitCredential", baseType} },
		"base type twice":             func(in input) { in.vc["type"] = []any{baseType, "A", baseType} },
		"type a number":               func(in input) { in.vc["type"] = []any{baseType, 1} },
		"type empty":                  func(in input) { in.vc["type"] = []any{baseType, ""} },
		"aud":                         func(in input) { in.payload["aud"] = "x" },
		"vp":                          func(in input) { in.payload["vp"] = map[string]any{} },
		"iat":                         func(in input) { in.payload["iat"] = 1795478400 },
		"Vc":                          func(in input) { in.payload["Vc"] = in.vc },
		"vc.proof":                    func(in input) { in.vc["proof"] = map[string]any{} },
		"vc.credentialStatus":         func(in input) { in.vc["credentialStatus"] = map[string]any{} },
		"cnf with a private key": func(in input) {
			in.payload["cnf"].(map[string]any)["jwk"].(map[string]any)["d"] = "AAAA"
		},
		"cnf with a kid": func(in input) { in.payload["cnf"].(map[string]any)["kid"] = "k" },
		"cnf a text":     func(in input) { in.payload["cnf"] = "key" },
	} {
		t.Run(name, func(t *testing.T) {
			in := take(t)
			change(in)
			if s, err := ParseTBS(issuancetest.SigningInput(t, in.header, in.payload)); err == nil {
				t.Errorf("read as %+v", s)
			}
		})
	}
}

func TestAssembleRefusals(t *testing.T) {
	p, err := Prepare(request(t, issuance.ES384))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 64, 95, 97, 104} {
		if _, err := p.Assemble(make([]byte, n)); err == nil {
			t.Errorf("assembled with %d bytes", n)
		}
	}
	if _, err := p.Assemble(make([]byte, 96)); err != nil {
		t.Error(err)
	}
	if _, err := p.Assemble(make([]byte, 96)); err == nil {
		t.Error("assembled twice")
	}
}

// TestVector reads OpenID4VCI 1.0 A.1.1.4's example: its JSON is read, but a
// credential under an https issuer and without an end is not signed here.
func TestVector(t *testing.T) {
	var file struct {
		Credential struct {
			Compact    string
			Payload    map[string]any
			Thumbprint string         `json:"issuer_jwk_thumbprint_sha256"`
			JWK        map[string]any `json:"issuer_public_jwk"`
		} `json:"jwt_vc_json"`
	}
	if err := json.Unmarshal(issuancetest.Vector(t, "oid4vci-oauth.json"), &file); err != nil {
		t.Fatal(err)
	}
	tbs := file.Credential.Compact[:strings.LastIndex(file.Credential.Compact, ".")]
	if _, err := ParseTBS([]byte(tbs)); err == nil {
		t.Error("it would be signed")
	}
	if own, err := types(payloadOf(t, tbs)["vc"].(map[string]any)); err != nil || !reflect.DeepEqual(own, []string{"UniversityDegreeCredential"}) {
		t.Errorf("types %v, %v", own, err)
	}
	data, err := json.Marshal(file.Credential.JWK)
	if err != nil {
		t.Fatal(err)
	}
	key, err := jws.ParsePublicJWK(data)
	if err != nil {
		t.Fatal(err)
	}
	if thumbprint, err := jws.Thumbprint(key); err != nil || thumbprint != file.Credential.Thumbprint {
		t.Errorf("thumbprint %s, %v", thumbprint, err)
	}
}

func FuzzParseTBS(f *testing.F) {
	p, err := Prepare(request(f, issuance.ES256))
	if err != nil {
		f.Fatal(err)
	}
	header, payload, _ := strings.Cut(string(p.TBS), ".")
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"iss":"` + issuer + `","jti":{},"nbf":1,"exp":2,"sub":[],"vc":{"credentialSubject":{"id":[]},"id":{}}}`))
	// The payload is changed before it is encoded: random base64url seldom is JSON.
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := ParseTBS([]byte(header + "." + base64.RawURLEncoding.EncodeToString(payload)))
		if err != nil {
			return
		}
		if s.Issuer != issuer || len(s.Types) == 0 || !s.ValidUntil.After(s.ValidFrom) || !s.Signed.Equal(s.ValidFrom) {
			t.Fatalf("%s is read as %+v", payload, s)
		}
	})
}

func BenchmarkPrepareAndAssemble(b *testing.B) {
	r, signature := request(b, issuance.ES256), make([]byte, 64)
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
	p, err := Prepare(request(b, issuance.ES256))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ParseTBS(p.TBS); err != nil {
			b.Fatal(err)
		}
	}
}
