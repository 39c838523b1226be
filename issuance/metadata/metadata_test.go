package metadata

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

const identifier = "https://issuer.example:8443/tenant"

var now = time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)

// party is a metadata signer: an anchor, an intermediate and a leaf under it.
type party struct {
	key    crypto.Signer
	chain  [][]byte // leaf and intermediate
	anchor []byte
}

func newParty(t testing.TB, a issuance.Algorithm) party {
	t.Helper()
	key, above, root := issuancetest.Key(t, a), issuancetest.Key(t, issuance.ES384), issuancetest.Key(t, issuance.ES256)
	anchor := certify(t, "Root", "Root", root.Public(), root)
	intermediate := certify(t, "Intermediate", "Root", above.Public(), root)
	return party{key, [][]byte{certify(t, "Signer", "Intermediate", key.Public(), above), intermediate}, anchor}
}

func certify(t testing.TB, subject, issuer string, public crypto.PublicKey, by crypto.Signer) []byte {
	t.Helper()
	leaf := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: subject}, NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(0, 1, 0),
		IsCA: subject != "Signer", BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(nil, &leaf, &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}, public, by)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (p party) material(t testing.TB) Material {
	t.Helper()
	a, err := issuance.AlgorithmFor(p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return Material{Issuer: identifier, Chain: p.chain, Algorithm: a, IssuedAt: now.Add(999 * time.Millisecond), ExpiresAt: now.Add(48 * time.Hour)}
}

// unsigned is metadata as the unsigned form's maker holds it: Go's own slices
// and named strings as well as JSON values.
func unsigned() map[string]any {
	return map[string]any{
		"credential_issuer": identifier, "credential_endpoint": identifier + "/credential", "nonce_endpoint": identifier + "/nonce",
		"batch_credential_issuance": map[string]any{"batch_size": 20},
		"display":                   []any{map[string]any{"name": "Düsseldorf <&> 役所", "locale": "de"}},
		"credential_configurations_supported": map[string]any{
			"mdl": map[string]any{"format": "mso_mdoc", "credential_signing_alg_values_supported": []any{int64(-7)},
				"cryptographic_binding_methods_supported": []string{"cose_key", "jwk"}},
			"pid": map[string]any{"format": "dc+sd-jwt", "proof_types_supported": map[string]any{
				"jwt": map[string]any{"proof_signing_alg_values_supported": []issuance.Algorithm{issuance.ES256}}}},
		},
	}
}

// object reads JSON as a wallet does.
func object(t testing.TB, data []byte) map[string]any {
	t.Helper()
	out, err := jws.Object(data)
	if err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return out
}

// TestCheck52To56Judged lets go-jose verify each algorithm under the certificate
// in x5c, which it verifies up to the anchor, and compares every parameter with
// the unsigned form's (checks 52 to 56).
func TestCheck52To56Judged(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		p := newParty(t, a)
		prepared, err := Prepare(unsigned(), p.material(t))
		if err != nil {
			t.Fatal(err)
		}
		if prepared.Format != issuance.FormatMetadata || prepared.Algorithm != a {
			t.Errorf("%s: prepared as %s, %s", a, prepared.Format, prepared.Algorithm)
		}
		compact, err := prepared.Assemble(issuancetest.Sign(t, p.key, prepared.TBS))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(a)})
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		header := signed.Signatures[0].Protected
		root, err := x509.ParseCertificate(p.anchor)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(root)
		chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: now})
		if err != nil || len(chains[0]) != 3 {
			t.Fatalf("%s: the chain: %v, %v", a, chains, err)
		}
		payload, err := signed.Verify(chains[0][0].PublicKey)
		if err != nil {
			t.Fatalf("%s: go-jose does not verify it: %v", a, err)
		}
		if header.ExtraHeaders["typ"] != "openidvci-issuer-metadata+jwt" || header.KeyID != "" || len(signed.Signatures) != 1 {
			t.Errorf("%s: header %+v", a, header)
		}
		text, err := jws.Base64URL(strings.Split(compact, ".")[0])
		if err != nil {
			t.Fatal(err)
		}
		var x5c []any
		for _, der := range p.chain {
			x5c = append(x5c, base64.StdEncoding.EncodeToString(der))
		}
		if got := object(t, text)["x5c"]; !reflect.DeepEqual(got, x5c) {
			t.Errorf("%s: x5c %v, want leaf and intermediate in standard base64", a, got)
		}
		plain, err := jws.Marshal(unsigned())
		if err != nil {
			t.Fatal(err)
		}
		want := object(t, plain)
		want["iss"], want["sub"] = identifier, identifier
		want["iat"], want["exp"] = json.Number("1795597200"), json.Number("1795770000")
		if got := object(t, payload); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: payload\n%v, want\n%v", a, got, want)
		}
	}
}

// TestParseReadsWhatPrepareWrote, for any metadata beside what it must hold.
func TestParseReadsWhatPrepareWrote(t *testing.T) {
	p := newParty(t, issuance.ES256)
	leaf := rapid.OneOf(rapid.Map(rapid.String(), func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }), rapid.Just[any](nil))
	value := rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(leaf, 0, 3), func(s []any) any { return s }), rapid.Map(rapid.MapOfN(rapid.String(), leaf, 0, 3), func(m map[string]any) any { return m }))
	rapid.Check(t, func(r *rapid.T) {
		metadata := unsigned()
		for name, v := range rapid.MapOfN(rapid.StringMatching(`x_\w*`), value, 0, 5).Draw(r, "further") {
			metadata[name] = v
		}
		before := fmt.Sprint(metadata)
		m := p.material(t)
		from := now.Add(time.Duration(rapid.IntRange(-1e9, 1e9).Draw(r, "iat")) * time.Second)
		m.IssuedAt, m.ExpiresAt = from.Add(time.Duration(rapid.IntRange(0, 999).Draw(r, "ms"))*time.Millisecond), from.Add(time.Duration(rapid.IntRange(1, 1e8).Draw(r, "validity"))*time.Second)
		prepared, err := Prepare(metadata, m)
		if err != nil {
			r.Fatal(err)
		}
		s, err := ParseTBS(prepared.TBS)
		if err != nil {
			r.Fatal(err)
		}
		want := issuance.Statement{Format: issuance.FormatMetadata, Algorithm: issuance.ES256, Issuer: identifier, Chain: p.chain,
			Signed: from, ValidFrom: from, ValidUntil: m.ExpiresAt}
		if !reflect.DeepEqual(s, want) {
			r.Fatalf("%+v was read, want %+v", s, want)
		}
		if fmt.Sprint(metadata) != before {
			r.Fatal("the metadata's map was changed")
		}
		_, claims, err := jws.Parse(prepared.TBS)
		if err != nil || len(claims) != len(metadata)+4 {
			r.Fatalf("%d claims from %d members, %v", len(claims), len(metadata), err)
		}
	})
}

// TestPrepareRefusals changes one thing in good metadata or material at a time.
func TestPrepareRefusals(t *testing.T) {
	p, other := newParty(t, issuance.ES256), newParty(t, issuance.ES256)
	own := certify(t, "Signer", "Signer", p.key.Public(), p.key)
	for name, c := range map[string]struct {
		change func(metadata map[string]any, m *Material)
		want   string
	}{
		"iss given":              {func(o map[string]any, _ *Material) { o["iss"] = identifier }, `"iss"`},
		"sub given":              {func(o map[string]any, _ *Material) { o["sub"] = identifier }, `"sub"`},
		"iat given":              {func(o map[string]any, _ *Material) { o["iat"] = 1795597200 }, `"iat"`},
		"exp given":              {func(o map[string]any, _ *Material) { o["exp"] = nil }, `"exp"`},
		"nbf given":              {func(o map[string]any, _ *Material) { o["nbf"] = 0 }, "nbf"},
		"aud given":              {func(o map[string]any, _ *Material) { o["aud"] = "wallet" }, "aud"},
		"jti given":              {func(o map[string]any, _ *Material) { o["jti"] = "1" }, "jti"},
		"signed within signed":   {func(o map[string]any, _ *Material) { o["signed_metadata"] = "e30.e30." }, "signed_metadata"},
		"another's metadata":     {func(o map[string]any, _ *Material) { o["credential_issuer"] = "https://evil.example" }, "credential_issuer"},
		"no credential_issuer":   {func(o map[string]any, _ *Material) { delete(o, "credential_issuer") }, "credential_issuer"},
		"no credential_endpoint": {func(o map[string]any, _ *Material) { delete(o, "credential_endpoint") }, "credential_endpoint"},
		"no configurations":      {func(o map[string]any, _ *Material) { delete(o, "credential_configurations_supported") }, "credential_configurations_supported"},
		"nothing":                {func(o map[string]any, _ *Material) { clear(o) }, "credential_issuer"},
		"no JSON value":          {func(o map[string]any, _ *Material) { o["x"] = func() {} }, "JSON"},
		"raw JSON with a double": {func(o map[string]any, _ *Material) { o["x"] = json.RawMessage(`{"a":1,"a":2}`) }, "twice"},
		"nested too deep": {func(o map[string]any, _ *Material) {
			o["x"] = json.RawMessage(strings.Repeat("[", 40) + strings.Repeat("]", 40))
		}, "deep"},
		"more than is signed":     {func(o map[string]any, _ *Material) { o["x"] = strings.Repeat("x", 1<<20) }, "bytes"},
		"no issuer":               {func(_ map[string]any, m *Material) { m.Issuer = "" }, "sub"},
		"another issuer":          {func(_ map[string]any, m *Material) { m.Issuer += "/" }, "credential_issuer"},
		"no chain":                {func(_ map[string]any, m *Material) { m.Chain = nil }, "x5c"},
		"the anchor in the chain": {func(_ map[string]any, m *Material) { m.Chain = append(slices.Clone(m.Chain), p.anchor) }, "x5c"},
		"the anchor alone":        {func(_ map[string]any, m *Material) { m.Chain = [][]byte{other.anchor} }, "x5c"},
		"a self-signed leaf":      {func(_ map[string]any, m *Material) { m.Chain = [][]byte{own} }, "x5c"},
		"no certificate":          {func(_ map[string]any, m *Material) { m.Chain = [][]byte{{0x30, 0}} }, "x5c"},
		"an empty certificate":    {func(_ map[string]any, m *Material) { m.Chain = [][]byte{p.chain[0], {}} }, "x5c"},
		"no algorithm":            {func(_ map[string]any, m *Material) { m.Algorithm = "" }, "alg"},
		"alg none":                {func(_ map[string]any, m *Material) { m.Algorithm = "none" }, "alg"},
		"alg HS256":               {func(_ map[string]any, m *Material) { m.Algorithm = "HS256" }, "alg"},
		"no iat":                  {func(_ map[string]any, m *Material) { m.IssuedAt = time.Time{} }, "iat"},
		"no exp":                  {func(_ map[string]any, m *Material) { m.ExpiresAt = time.Time{} }, "exp"},
		"exp before iat":          {func(_ map[string]any, m *Material) { m.ExpiresAt = now.Add(-time.Hour) }, "exp"},
		"exp in the same second":  {func(_ map[string]any, m *Material) { m.ExpiresAt = m.IssuedAt.Truncate(time.Second) }, "exp"},
		"iat before 1970":         {func(_ map[string]any, m *Material) { m.IssuedAt = time.Unix(-1, 0) }, "iat"},
		"exp beyond the calendar": {func(_ map[string]any, m *Material) { m.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "exp"},
	} {
		t.Run(name, func(t *testing.T) {
			metadata, m := unsigned(), p.material(t)
			c.change(metadata, &m)
			if _, err := Prepare(metadata, m); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want a refusal for %q", err, c.want)
			}
		})
	}
}

// TestParseRefusals changes one thing in a good signing input at a time.
func TestParseRefusals(t *testing.T) {
	p := newParty(t, issuance.ES256)
	prepared, err := Prepare(unsigned(), p.material(t))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(prepared.TBS), ".")
	take := func() (header, payload map[string]any) {
		out := [2]map[string]any{}
		for i, part := range parts {
			data, err := jws.Base64URL(part)
			if err != nil {
				t.Fatal(err)
			}
			out[i] = object(t, data)
		}
		return out[0], out[1]
	}
	header, payload := take()
	if _, err := ParseTBS(issuancetest.SigningInput(t, header, payload)); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for name, change := range map[string]func(header, payload map[string]any){
		"no typ":                         func(h, _ map[string]any) { delete(h, "typ") },
		"typ JWT":                        func(h, _ map[string]any) { h["typ"] = "JWT" },
		"typ with a 4":                   func(h, _ map[string]any) { h["typ"] = "openid4vci-issuer-metadata+jwt" },
		"typ with application":           func(h, _ map[string]any) { h["typ"] = "application/openidvci-issuer-metadata+jwt" },
		"typ in another case":            func(h, _ map[string]any) { h["typ"] = "OpenIDVCI-issuer-metadata+jwt" },
		"typ of an SD-JWT VC":            func(h, _ map[string]any) { h["typ"] = "dc+sd-jwt" },
		"no alg":                         func(h, _ map[string]any) { delete(h, "alg") },
		"alg none":                       func(h, _ map[string]any) { h["alg"] = "none" },
		"alg HS256":                      func(h, _ map[string]any) { h["alg"] = "HS256" },
		"alg RS256":                      func(h, _ map[string]any) { h["alg"] = "RS256" },
		"kid":                            func(h, _ map[string]any) { h["kid"] = "key" },
		"jwk":                            func(h, _ map[string]any) { h["jwk"] = map[string]any{} },
		"crit":                           func(h, _ map[string]any) { h["crit"] = []any{"exp"} },
		"no x5c":                         func(h, _ map[string]any) { delete(h, "x5c") },
		"empty x5c":                      func(h, _ map[string]any) { h["x5c"] = []any{} },
		"x5c a text":                     func(h, _ map[string]any) { h["x5c"] = h["x5c"].([]any)[0] },
		"x5c in base64url":               func(h, _ map[string]any) { h["x5c"] = []any{base64.RawURLEncoding.EncodeToString(p.chain[0])} },
		"x5c in PEM":                     func(h, _ map[string]any) { h["x5c"] = []any{"-----BEGIN CERTIFICATE-----"} },
		"a certificate with a tail":      func(h, _ map[string]any) { h["x5c"] = []any{append(slices.Clone(p.chain[0]), 0)} },
		"the anchor in x5c":              func(h, _ map[string]any) { h["x5c"] = append(h["x5c"].([]any), p.anchor) },
		"no iss":                         func(_, o map[string]any) { delete(o, "iss") },
		"iss another":                    func(_, o map[string]any) { o["iss"] = "https://evil.example" },
		"iss an object":                  func(_, o map[string]any) { o["iss"] = map[string]any{"id": identifier} },
		"no sub":                         func(_, o map[string]any) { delete(o, "sub") },
		"sub another":                    func(_, o map[string]any) { o["sub"] = "https://evil.example" },
		"sub empty in all three":         func(_, o map[string]any) { o["iss"], o["sub"], o["credential_issuer"] = "", "", "" },
		"null in all three":              func(_, o map[string]any) { o["iss"], o["sub"], o["credential_issuer"] = nil, nil, nil },
		"lists in all three":             func(_, o map[string]any) { o["iss"], o["sub"], o["credential_issuer"] = []any{}, []any{}, []any{} },
		"no credential_issuer":           func(_, o map[string]any) { delete(o, "credential_issuer") },
		"credential_issuer with a slash": func(_, o map[string]any) { o["credential_issuer"] = identifier + "/" },
		"credential_issuer a list":       func(_, o map[string]any) { o["credential_issuer"] = []any{identifier} },
		"no iat":                         func(_, o map[string]any) { delete(o, "iat") },
		"iat a text":                     func(_, o map[string]any) { o["iat"] = "1795597200" },
		"iat in fractions":               func(_, o map[string]any) { o["iat"] = json.Number("1795597200.5") },
		"no exp":                         func(_, o map[string]any) { delete(o, "exp") },
		"exp null":                       func(_, o map[string]any) { o["exp"] = nil },
		"exp at iat":                     func(_, o map[string]any) { o["exp"] = o["iat"] },
		"nbf":                            func(_, o map[string]any) { o["nbf"] = o["iat"] },
		"aud":                            func(_, o map[string]any) { o["aud"] = identifier },
		"jti":                            func(_, o map[string]any) { o["jti"] = "1" },
		"signed_metadata":                func(_, o map[string]any) { o["signed_metadata"] = nil },
		"no endpoint":                    func(_, o map[string]any) { delete(o, "credential_endpoint") },
		"endpoint a list":                func(_, o map[string]any) { o["credential_endpoint"] = []any{identifier} },
		"no configurations":              func(_, o map[string]any) { delete(o, "credential_configurations_supported") },
		"configurations a list":          func(_, o map[string]any) { o["credential_configurations_supported"] = []any{} },
		"configurations null":            func(_, o map[string]any) { o["credential_configurations_supported"] = nil },
		"metadata a level deeper": func(_, o map[string]any) {
			o["metadata"] = o["credential_configurations_supported"]
			delete(o, "credential_configurations_supported")
		},
	} {
		t.Run(name, func(t *testing.T) {
			header, payload := take()
			change(header, payload)
			if s, err := ParseTBS(issuancetest.SigningInput(t, header, payload)); err == nil {
				t.Errorf("read as %+v", s)
			}
		})
	}
	for name, tbs := range map[string]string{"nothing": "", "the header alone": parts[0], "with a signature": string(prepared.TBS) + ".AAAA", "a digest": strings.Repeat("\x01", 32)} {
		if s, err := ParseTBS([]byte(tbs)); err == nil {
			t.Errorf("%s is read as %+v", name, s)
		}
	}
}

func TestAssembleRefusals(t *testing.T) {
	prepared, err := Prepare(unsigned(), newParty(t, issuance.ES512).material(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 64, 131, 133, 139} {
		if _, err := prepared.Assemble(make([]byte, n)); err == nil {
			t.Errorf("assembled with %d bytes", n)
		}
	}
	if _, err := prepared.Assemble(make([]byte, 132)); err != nil {
		t.Error(err)
	}
	if _, err := prepared.Assemble(make([]byte, 132)); err == nil {
		t.Error("assembled twice")
	}
}

// FuzzParseTBS gives any payload under a good header: what is read has one
// issuer, and an end after its start. The payload is changed before it is
// encoded: random base64url seldom is JSON.
func FuzzParseTBS(f *testing.F) {
	prepared, err := Prepare(unsigned(), newParty(f, issuance.ES256).material(f))
	if err != nil {
		f.Fatal(err)
	}
	header, payload, _ := strings.Cut(string(prepared.TBS), ".")
	data, err := jws.Base64URL(payload)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"iss":[],"sub":{},"credential_issuer":null,"iat":1,"exp":2,"credential_endpoint":"x","credential_configurations_supported":{}}`))
	f.Add([]byte(`{"iss":"a","sub":"a","credential_issuer":"a","iat":1,"exp":2,"credential_endpoint":"x","credential_configurations_supported":{}}`))
	f.Add([]byte(`{"iss":"a","sub":"a","Sub":"b","credential_issuer":"a","iat":1,"exp":2,"credential_endpoint":"x","credential_configurations_supported":{}}`))
	f.Add([]byte(`{"iss":"a","sub":"a","credential_issuer":"a","iat":2,"exp":1e9,"credential_endpoint":"x","credential_configurations_supported":{}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := ParseTBS([]byte(header + "." + base64.RawURLEncoding.EncodeToString(payload)))
		if err != nil {
			return
		}
		claims := object(t, payload)
		if s.Issuer == "" || claims["iss"] != s.Issuer || claims["sub"] != s.Issuer || claims["credential_issuer"] != s.Issuer ||
			!s.ValidUntil.After(s.ValidFrom) || !s.Signed.Equal(s.ValidFrom) || len(s.Chain) == 0 || len(s.Types) != 0 {
			t.Fatalf("%s is read as %+v", payload, s)
		}
	})
}
