package domainlinkage

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

const (
	id     = "did:web:issuer.example%3A8443:tenant"
	kid    = id + "#key-1"
	origin = "https://issuer.example:8443"
)

var now = time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)

func material() Material {
	return Material{KeyID: kid, Algorithm: issuance.ES256, ValidFrom: now.Add(999 * time.Millisecond), ValidUntil: now.AddDate(0, 0, 30)}
}

func prepared(t testing.TB, m Material) *issuance.Prepared {
	t.Helper()
	p, err := Prepare(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// parts reads header and payload as a verifier does.
func parts(t testing.TB, input []byte) (header, payload map[string]any) {
	t.Helper()
	var out [2]map[string]any
	for n, part := range strings.Split(string(input), ".")[:2] {
		data, err := jws.Base64URL(part)
		if err != nil {
			t.Fatal(err)
		}
		if out[n], err = jws.Object(data); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
	}
	return out[0], out[1]
}

// TestCheck324Judged lets go-jose verify each algorithm, and compares header and
// payload member by member with what the specification shows.
func TestCheck324Judged(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		key, m := issuancetest.Key(t, a), material()
		m.Algorithm = a
		p := prepared(t, m)
		if p.Format != issuance.FormatDomain || p.Algorithm != a {
			t.Errorf("%s: prepared as %s, %s", a, p.Format, p.Algorithm)
		}
		compact, err := p.Assemble(issuancetest.Sign(t, key, p.TBS))
		if err != nil {
			t.Fatal(err)
		}
		issuancetest.Judge(t, a, key.Public(), compact)
		header, payload := parts(t, []byte(compact))
		if want := map[string]any{"alg": string(a), "kid": kid}; !reflect.DeepEqual(header, want) {
			t.Errorf("%s: header %v, want %v", a, header, want)
		}
		want := map[string]any{
			"iss": id, "sub": id, "nbf": json.Number("1795597200"), "exp": json.Number("1798189200"),
			"vc": map[string]any{
				"@context": []any{"https://www.w3.org/2018/credentials/v1", "https://identity.foundation/.well-known/did-configuration/v1"},
				"type":     []any{"VerifiableCredential", "DomainLinkageCredential"},
				"issuer":   id, "issuanceDate": "2026-11-25T09:00:00Z", "expirationDate": "2026-12-25T09:00:00Z",
				"credentialSubject": map[string]any{"id": id, "origin": origin},
			},
		}
		if !reflect.DeepEqual(payload, want) {
			t.Errorf("%s: payload\n%v, want\n%v", a, payload, want)
		}
	}
}

// TestCheck324Resource: two members, and in one of them the credential.
func TestCheck324Resource(t *testing.T) {
	body, err := Resource("e30.e30.AA")
	if err != nil || string(body) != `{"@context":"https://identity.foundation/.well-known/did-configuration/v1","linked_dids":["e30.e30.AA"]}` {
		t.Errorf("%s, %v", body, err)
	}
}

// TestParseReadsWhatPrepareWrote, of any did:web and any dates.
func TestParseReadsWhatPrepareWrote(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		subject := "did:web:" + rapid.StringMatching(`[a-z][a-z0-9-]{0,8}(\.[a-z]{2,5}){0,2}(%3A[1-9][0-9]{0,3})?(:[a-z0-9_~-]{1,6}){0,3}`).Draw(r, "did")
		from := now.Add(time.Duration(rapid.IntRange(-1e9, 1e9).Draw(r, "nbf")) * time.Second)
		m := Material{KeyID: subject + "#" + rapid.StringMatching(`[A-Za-z0-9_-]{1,43}`).Draw(r, "fragment"), Algorithm: rapid.SampledFrom(issuancetest.Algorithms).Draw(r, "alg"),
			ValidFrom:  from.Add(time.Duration(rapid.IntRange(0, 999).Draw(r, "ms")) * time.Millisecond),
			ValidUntil: from.Add(time.Duration(rapid.IntRange(1, 1e8).Draw(r, "validity")) * time.Second)}
		p, err := Prepare(m)
		if err != nil {
			r.Fatal(err)
		}
		s, err := ParseTBS(p.TBS)
		if err != nil {
			r.Fatal(err)
		}
		want := issuance.Statement{Format: issuance.FormatDomain, Algorithm: m.Algorithm, Issuer: subject, KeyID: m.KeyID, Signed: from, ValidFrom: from, ValidUntil: m.ValidUntil}
		if !reflect.DeepEqual(s, want) {
			r.Fatalf("%+v was read, want %+v", s, want)
		}
	})
}

// TestPrepareRefusals changes one thing in good material at a time.
func TestPrepareRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *Material)
		want   string
	}{
		"no key":                  {func(m *Material) { m.KeyID = "" }, "identifier"},
		"no fragment":             {func(m *Material) { m.KeyID = id }, "kid"},
		"an empty fragment":       {func(m *Material) { m.KeyID = id + "#" }, "kid"},
		"a thumbprint":            {func(m *Material) { m.KeyID = "AbC" }, "identifier"},
		"a did:key":               {func(m *Material) { m.KeyID = "did:key:z6Mk#z6Mk" }, "identifier"},
		"a did:jwk":               {func(m *Material) { m.KeyID = "did:jwk:e30#0" }, "identifier"},
		"a did:web that is none":  {func(m *Material) { m.KeyID = "did:web:#1" }, "identifier"},
		"no algorithm":            {func(m *Material) { m.Algorithm = "" }, "alg"},
		"alg none":                {func(m *Material) { m.Algorithm = "none" }, "alg"},
		"alg HS256":               {func(m *Material) { m.Algorithm = "HS256" }, "alg"},
		"no nbf":                  {func(m *Material) { m.ValidFrom = time.Time{} }, "nbf"},
		"no exp":                  {func(m *Material) { m.ValidUntil = time.Time{} }, "exp"},
		"exp before nbf":          {func(m *Material) { m.ValidUntil = now.Add(-time.Hour) }, "exp"},
		"exp in the same second":  {func(m *Material) { m.ValidUntil = m.ValidFrom.Truncate(time.Second) }, "exp"},
		"nbf before 1970":         {func(m *Material) { m.ValidFrom = time.Unix(-1, 0) }, "nbf"},
		"exp beyond the calendar": {func(m *Material) { m.ValidUntil = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "exp"},
	} {
		m := material()
		c.change(&m)
		if _, err := Prepare(m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a refusal for %q", name, err, c.want)
		}
	}
}

// TestParseRefusals changes one thing in a good signing input at a time.
func TestParseRefusals(t *testing.T) {
	good := prepared(t, material()).TBS
	header, payload := parts(t, good)
	if _, err := ParseTBS(issuancetest.SigningInput(t, header, payload)); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	vc := func(payload map[string]any) map[string]any { return payload["vc"].(map[string]any) }
	subject := func(payload map[string]any) map[string]any { return vc(payload)["credentialSubject"].(map[string]any) }
	for name, change := range map[string]func(h, p map[string]any){
		"typ JWT":                 func(h, _ map[string]any) { h["typ"] = "JWT" },
		"no alg":                  func(h, _ map[string]any) { delete(h, "alg") },
		"alg none":                func(h, _ map[string]any) { h["alg"] = "none" },
		"alg RS256":               func(h, _ map[string]any) { h["alg"] = "RS256" },
		"no kid":                  func(h, _ map[string]any) { delete(h, "kid") },
		"kid without fragment":    func(h, _ map[string]any) { h["kid"] = id },
		"kid of an empty one":     func(h, _ map[string]any) { h["kid"] = id + "#" },
		"kid of another DID":      func(h, _ map[string]any) { h["kid"] = "did:web:evil.example#key-1" },
		"kid of a longer DID":     func(h, _ map[string]any) { h["kid"] = id + ":more#key-1" },
		"kid relative":            func(h, _ map[string]any) { h["kid"] = "#key-1" },
		"x5c":                     func(h, _ map[string]any) { h["x5c"] = []any{"AAAA"} },
		"jwk":                     func(h, _ map[string]any) { h["jwk"] = map[string]any{} },
		"crit":                    func(h, _ map[string]any) { h["crit"] = []any{"exp"} },
		"no iss":                  func(_, p map[string]any) { delete(p, "iss") },
		"iss a number":            func(_, p map[string]any) { p["iss"] = 1 },
		"iss another DID":         func(_, p map[string]any) { p["iss"] = "did:web:evil.example" },
		"iss the origin":          func(_, p map[string]any) { p["iss"] = origin },
		"no sub":                  func(_, p map[string]any) { delete(p, "sub") },
		"sub another DID":         func(_, p map[string]any) { p["sub"] = "did:web:evil.example" },
		"no nbf":                  func(_, p map[string]any) { delete(p, "nbf") },
		"nbf a text":              func(_, p map[string]any) { p["nbf"] = "1795597200" },
		"nbf with a fraction":     func(_, p map[string]any) { p["nbf"] = json.Number("1795597200.5") },
		"nbf another second":      func(_, p map[string]any) { p["nbf"] = 1795597201 },
		"no exp":                  func(_, p map[string]any) { delete(p, "exp") },
		"exp before nbf":          func(_, p map[string]any) { p["exp"] = 1795597199 },
		"exp another second":      func(_, p map[string]any) { p["exp"] = 1798189201 },
		"iat":                     func(_, p map[string]any) { p["iat"] = 1795597200 },
		"jti":                     func(_, p map[string]any) { p["jti"] = "urn:uuid:1" },
		"aud":                     func(_, p map[string]any) { p["aud"] = "wallet" },
		"cnf":                     func(_, p map[string]any) { p["cnf"] = map[string]any{} },
		"no vc":                   func(_, p map[string]any) { delete(p, "vc") },
		"vc a text":               func(_, p map[string]any) { p["vc"] = "e30" },
		"vc null":                 func(_, p map[string]any) { p["vc"] = nil },
		"an id":                   func(_, p map[string]any) { vc(p)["id"] = "urn:uuid:1" },
		"a proof":                 func(_, p map[string]any) { vc(p)["proof"] = map[string]any{} },
		"a status":                func(_, p map[string]any) { vc(p)["credentialStatus"] = map[string]any{} },
		"no context":              func(_, p map[string]any) { delete(vc(p), "@context") },
		"one context":             func(_, p map[string]any) { vc(p)["@context"] = vc(p)["@context"].([]any)[:1] },
		"contexts turned round":   func(_, p map[string]any) { vc(p)["@context"] = []any{context, baseContext} },
		"no type":                 func(_, p map[string]any) { delete(vc(p), "type") },
		"another type":            func(_, p map[string]any) { vc(p)["type"] = []any{"VerifiableCredential", "ResidencePermitCredential"} },
		"a type more":             func(_, p map[string]any) { vc(p)["type"] = append(vc(p)["type"].([]any), "ResidencePermitCredential") },
		"issuer another DID":      func(_, p map[string]any) { vc(p)["issuer"] = "did:web:evil.example" },
		"issuer an object":        func(_, p map[string]any) { vc(p)["issuer"] = map[string]any{"id": id} },
		"no issuer":               func(_, p map[string]any) { delete(vc(p), "issuer") },
		"no issuanceDate":         func(_, p map[string]any) { delete(vc(p), "issuanceDate") },
		"another issuanceDate":    func(_, p map[string]any) { vc(p)["issuanceDate"] = "2026-11-25T09:00:01Z" },
		"issuanceDate in a zone":  func(_, p map[string]any) { vc(p)["issuanceDate"] = "2026-11-25T10:00:00+01:00" },
		"no expirationDate":       func(_, p map[string]any) { delete(vc(p), "expirationDate") },
		"another expirationDate":  func(_, p map[string]any) { vc(p)["expirationDate"] = "2036-12-25T09:00:00Z" },
		"no subject":              func(_, p map[string]any) { delete(vc(p), "credentialSubject") },
		"two subjects":            func(_, p map[string]any) { vc(p)["credentialSubject"] = []any{subject(p), subject(p)} },
		"subject of another DID":  func(_, p map[string]any) { subject(p)["id"] = "did:web:evil.example" },
		"subject with a claim":    func(_, p map[string]any) { subject(p)["familyName"] = "x" },
		"no origin":               func(_, p map[string]any) { delete(subject(p), "origin") },
		"another origin":          func(_, p map[string]any) { subject(p)["origin"] = "https://evil.example" },
		"origin of another port":  func(_, p map[string]any) { subject(p)["origin"] = "https://issuer.example" },
		"origin with a path":      func(_, p map[string]any) { subject(p)["origin"] = origin + "/tenant" },
		"origin without a scheme": func(_, p map[string]any) { subject(p)["origin"] = "issuer.example:8443" },
		"origin without TLS":      func(_, p map[string]any) { subject(p)["origin"] = "http://issuer.example:8443" },
		"two origins":             func(_, p map[string]any) { subject(p)["origin"] = []any{origin, "https://evil.example"} },
	} {
		header, payload := parts(t, good)
		change(header, payload)
		if s, err := ParseTBS(issuancetest.SigningInput(t, header, payload)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	for name, tbs := range map[string]string{"nothing": "", "one part": "e30", "three parts": string(good) + ".AA", "padding": string(good) + "=", "no JSON": "AA.AA",
		"a foreign DID throughout": strings.Join([]string{base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"did:key:z#z"}`)),
			base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"did:key:z","sub":"did:key:z","nbf":1,"exp":2,"vc":{}}`))}, ".")} {
		if s, err := ParseTBS([]byte(tbs)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzParseTBS(f *testing.F) {
	header, payload, _ := strings.Cut(string(prepared(f, material()).TBS), ".")
	data, err := jws.Base64URL(payload)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(strings.Replace(string(data), origin, "https://evil.example", 1)))
	f.Add([]byte(`{"iss":[],"sub":{},"nbf":1,"exp":2,"vc":[]}`))
	f.Add([]byte(`{"iss":"` + id + `","sub":"` + id + `","nbf":1,"exp":2,"vc":{"id":null}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := ParseTBS([]byte(header + "." + base64.RawURLEncoding.EncodeToString(payload)))
		if err != nil {
			return
		}
		// What is accepted is what Prepare makes for this key and these dates.
		again, err := Prepare(Material{KeyID: s.KeyID, Algorithm: s.Algorithm, ValidFrom: s.ValidFrom, ValidUntil: s.ValidUntil})
		if err != nil {
			t.Fatalf("%s is read as %+v, and cannot be made: %v", payload, s, err)
		}
		got, err := jws.Object(payload)
		if err != nil {
			t.Fatal(err)
		}
		if _, want := parts(t, again.TBS); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s is accepted as %v", payload, want)
		}
	})
}
