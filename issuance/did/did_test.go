package did

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/mr-tron/base58"
	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

func equal(a crypto.PublicKey, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

// TestResolveReadsWhatIsMade, for every kind of key and both methods.
func TestResolveReadsWhatIsMade(t *testing.T) {
	for method, make := range map[string]func(crypto.PublicKey) (string, string, error){"did:jwk": JWK, "did:key": Key} {
		for _, a := range issuancetest.Algorithms {
			for range 20 { // both signs of y, and now and then a leading zero
				public := issuancetest.Key(t, a).Public()
				id, keyID, err := make(public)
				if err != nil {
					t.Fatal(err)
				}
				if Method(id) != method || !strings.HasPrefix(keyID, id+"#") {
					t.Errorf("%s: %s of %s", a, keyID, id)
				}
				got, err := Resolve(keyID)
				if err != nil || !equal(public, got) {
					t.Errorf("%s: %s is %v (%v)", a, keyID, got, err)
				}
			}
		}
	}
}

// TestVectors are did:key's, did:jwk's and did:web's own examples.
func TestVectors(t *testing.T) {
	type vector struct {
		DID                string          `json:"did"`
		JWK                json.RawMessage `json:"public_jwk"`
		VerificationMethod string          `json:"verification_method_id"`
		URL                string          `json:"url"`
	}
	var file struct {
		Key []vector `json:"did_key"`
		JWK []vector `json:"did_jwk"`
		Web []vector `json:"did_web"`
	}
	if err := json.Unmarshal(issuancetest.Vector(t, "did.json"), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Key) < 7 || len(file.JWK) < 2 || len(file.Web) < 4 {
		t.Fatalf("%d, %d, %d vectors", len(file.Key), len(file.JWK), len(file.Web))
	}
	for _, v := range append(file.Key, file.JWK...) {
		if v.VerificationMethod == "" { // X25519, for encryption
			if key, err := Resolve(v.DID + "#0"); err == nil {
				t.Errorf("%s is %v", v.DID, key)
			}
			continue
		}
		key, err := Resolve(v.VerificationMethod)
		if err != nil {
			t.Errorf("%s: %v", v.VerificationMethod, err)
			continue
		}
		want, err := jws.ParsePublicJWK(v.JWK)
		if err != nil || !equal(key, want) {
			t.Errorf("%s is %v, want %s", v.DID, key, v.JWK)
		}
		again := JWK
		if Method(v.DID) == "did:key" {
			again = Key
		}
		if id, keyID, err := again(key); err != nil || id != v.DID || keyID != v.VerificationMethod {
			t.Errorf("%s is made as %s (%v)", v.DID, id, err)
		}
	}
	for _, v := range file.Web {
		if url, err := WebURL(v.DID); err != nil || url != v.URL {
			t.Errorf("%s is served at %s (%v), want %s", v.DID, url, err, v.URL)
		}
		issuer := strings.TrimSuffix(strings.TrimSuffix(v.URL, "/did.json"), "/.well-known")
		if id, err := Web(issuer); err != nil || id != v.DID {
			t.Errorf("%s has %s (%v), want %s", issuer, id, err, v.DID)
		}
	}
}

func multibase(code uint64, data []byte) string {
	return "z" + base58.Encode(append(binary.AppendUvarint(nil, code), data...))
}

func didJWK(text string) string {
	return "did:jwk:" + base64.RawURLEncoding.EncodeToString([]byte(text))
}

// TestResolveRefusals has one defect in each DID URL.
func TestResolveRefusals(t *testing.T) {
	public := issuancetest.Key(t, issuance.ES256).Public().(*ecdsa.PublicKey)
	point, err := public.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	key := func(value string) string { return "did:key:" + value + "#" + value }
	good := multibase(codeP256, compressed)
	if _, err := Resolve(key(good)); err != nil {
		t.Fatal(err)
	}
	jwk, err := jws.PublicJWK(public)
	if err != nil {
		t.Fatal(err)
	}
	with := func(member string) string {
		return didJWK(strings.TrimSuffix(string(jwk), "}")+","+member+"}") + "#0"
	}
	if _, err := Resolve(with(`"use":"sig"`)); err != nil {
		t.Fatal(err)
	}
	off := append([]byte{2}, make([]byte, 32)...)
	for x := new(big.Int); x != nil; off[32]++ { // half of all x have no point
		x, _ = elliptic.UnmarshalCompressed(elliptic.P256(), off)
	}
	off[32]--
	for name, url := range map[string]string{
		"empty":                      "",
		"not a DID":                  "https://issuer.example#0",
		"no fragment":                "did:key:" + good,
		"empty fragment":             "did:key:" + good + "#",
		"another fragment":           "did:key:" + good + "#" + good[:len(good)-1],
		"two fragments":              key(good) + "#0",
		"another method":             "did:web:issuer.example#0",
		"capital method":             "did:KEY:" + good + "#" + good,
		"no multibase":               key(strings.TrimPrefix(good, "z")),
		"base64url multibase":        key("u" + base64.RawURLEncoding.EncodeToString(compressed)),
		"no value":                   "did:key:#",
		"bare z":                     key("z"),
		"not base58":                 key("z0OIl"),
		"a leading 1":                key("z1" + good[1:]),
		"a space":                    key(good + " "),
		"a query":                    "did:key:" + good + "?x=1#" + good,
		"a path":                     "did:key:" + good + "/a#" + good,
		"unknown key type":           key(multibase(0x1205, compressed)),
		"secp256k1":                  key(multibase(0xe7, compressed)),
		"X25519":                     key(multibase(0xec, make([]byte, 32))),
		"key type in a longer form":  key("z" + base58.Encode(append([]byte{0xed, 0x81, 0x00}, make([]byte, 32)...))),
		"key type alone":             key(multibase(codeP256, nil)),
		"uncompressed point":         key(multibase(codeP256, point)),
		"point too short":            key(multibase(codeP256, compressed[:32])),
		"point too long":             key(multibase(codeP256, append(compressed[:33:33], 0))),
		"point of another curve":     key(multibase(codeP384, compressed)),
		"first byte of a point is 4": key(multibase(codeP256, append([]byte{4}, compressed[1:]...))),
		"point at infinity":          key(multibase(codeP256, make([]byte, 33))),
		"point off the curve":        key(multibase(codeP256, off)),
		"x beyond the field":         key(multibase(codeP256, append([]byte{2}, []byte(strings.Repeat("\xff", 32))...))),
		"Ed25519 too short":          key(multibase(codeEd25519, make([]byte, 31))),
		"Ed25519 too long":           key(multibase(codeEd25519, make([]byte, 33))),
		"too long":                   with(`"x-vendor":"` + strings.Repeat("a", maxLength) + `"`),
		"jwk: fragment 1":            didJWK(string(jwk)) + "#1",
		"jwk: no fragment":           didJWK(string(jwk)),
		"jwk: padded":                didJWK(string(jwk)+" ") + "=#0",
		"jwk: line break":            didJWK(string(jwk)) + "\n#0",
		"jwk: not JSON":              didJWK("key") + "#0",
		"jwk: a list":                didJWK("[]") + "#0",
		"jwk: empty":                 "did:jwk:#0",
		"jwk: private":               with(`"d":"AAAA"`),
		"jwk: for encryption":        with(`"use":"enc"`),
		"jwk: use a number":          with(`"use":1`),
		"jwk: a member twice":        with(`"kty":"EC"`),
		"jwk: RSA":                   didJWK(`{"kty":"RSA","n":"AQAB","e":"AQAB"}`) + "#0",
		"jwk: symmetric":             didJWK(`{"kty":"oct","k":"AAAA"}`) + "#0",
		"jwk: X25519":                didJWK(`{"kty":"OKP","crv":"X25519","x":"`+strings.Repeat("A", 43)+`"}`) + "#0",
		"jwk: P-256K":                didJWK(strings.Replace(string(jwk), "P-256", "P-256K", 1)) + "#0",
	} {
		if got, err := Resolve(url); err == nil {
			t.Errorf("%s: %s is %v", name, url, got)
		}
	}
}

func TestMakeRefusals(t *testing.T) {
	//lint:ignore SA1019 no constructor gives a point that is off the curve
	offCurve := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	for name, public := range map[string]crypto.PublicKey{
		"nil": nil, "RSA": &rsa.PublicKey{N: big.NewInt(15), E: 3}, "P-224": &ecdsa.PublicKey{Curve: elliptic.P224()}, "off the curve": offCurve,
		"short Ed25519": ed25519.PublicKey{1}, "private": issuancetest.Key(t, issuance.EdDSA),
	} {
		if id, _, err := Key(public); err == nil {
			t.Errorf("%s: %s", name, id)
		}
		if id, _, err := JWK(public); err == nil {
			t.Errorf("%s: %s", name, id)
		}
		if id, err := WebKeyID("did:web:h", public); err == nil {
			t.Errorf("%s: %s", name, id)
		}
		if document, err := WebDocument("did:web:h", []WebKey{{"did:web:h#k", public}}); err == nil {
			t.Errorf("%s: %s", name, document)
		}
	}
}

func TestMethod(t *testing.T) {
	for s, want := range map[string]string{
		"did:jwk:abc": "did:jwk", "did:web:h:p#k": "did:web", "did:key:z#z": "did:key", "did:x:": "did:x",
		"": "", "did": "", "did:": "", "did:web": "", "did::x": "", "DID:web:h": "", "https://h": "", "xdid:web:h": "",
	} {
		if got := Method(s); got != want {
			t.Errorf("%q is %q, want %q", s, got, want)
		}
	}
}

func TestWeb(t *testing.T) {
	for issuer, want := range map[string][2]string{
		"https://issuer.example":                 {"did:web:issuer.example", "https://issuer.example/.well-known/did.json"},
		"https://issuer.example/":                {"did:web:issuer.example", "https://issuer.example/.well-known/did.json"},
		"https://Issuer.Example:8443":            {"did:web:issuer.example%3A8443", "https://issuer.example:8443/.well-known/did.json"},
		"https://localhost:8443/tenant/a_b-c.d~": {"did:web:localhost%3A8443:tenant:a_b-c.d~", "https://localhost:8443/tenant/a_b-c.d~/did.json"},
		"https://issuer.example/tenant/":         {"did:web:issuer.example:tenant", "https://issuer.example/tenant/did.json"},
		"https://xn--mnchen-3ya.example/1":       {"did:web:xn--mnchen-3ya.example:1", "https://xn--mnchen-3ya.example/1/did.json"},
	} {
		id, err := Web(issuer)
		if err != nil || id != want[0] {
			t.Errorf("%s: %s (%v), want %s", issuer, id, err, want[0])
			continue
		}
		if url, err := WebURL(id); err != nil || url != want[1] {
			t.Errorf("%s: %s (%v), want %s", id, url, err, want[1])
		}
	}
	for _, issuer := range []string{"", "issuer.example", "http://issuer.example", "https://", "https://:8443", "https://issuer.example?a=1", "https://issuer.example#a",
		"https://user@issuer.example", "https://127.0.0.1:8443", "https://[::1]:8443", "https://issuer.example//a", "https://issuer.example/a//b", "https://issuer.example/a%2Fb",
		"https://issuer.example/a:b", "https://a_b.example", "https://issuer..example", "https://issuer.example.", "https://é.example", "https://issuer.example/..", "https://issuer.example/a/../b", "https://issuer.example/é", "https://issuer.example/a b", "did:web:issuer.example"} {
		if id, err := Web(issuer); err == nil {
			t.Errorf("%s has %s", issuer, id)
		}
	}
	for _, id := range []string{"", "did:web:", "did:key:z", "did:web::a", "did:web:h:", "did:web:h::a", "did:web:h:..", "did:web:h:a/b", "did:web:h:a%2Fb", "did:web:h/a", "did:web:h?a",
		"did:web:h#a", "did:web:user@h", "did:web:h%2Fa", "did:web:h%3A80%3A81", "did:web:h%3Aport", "did:web:%3A80", "did:web:h h", "did:web:..", "did:web:h."} {
		if url, err := WebURL(id); err == nil {
			t.Errorf("%s is served at %s", id, url)
		}
	}
}

// TestWebLeadsBack: the document of an issuer's DID is below the issuer's URL.
func TestWebLeadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		origin := "https://" + rapid.StringMatching(`[a-z][a-z0-9-]{0,8}(\.[a-z]{2,5}){0,2}(:[1-9][0-9]{0,3})?`).Draw(t, "host")
		path := rapid.StringMatching(`(/[a-z0-9_~-]{1,6}){0,3}`).Draw(t, "path")
		id, err := Web(origin + path)
		if err != nil {
			t.Fatal(err)
		}
		want := origin + path + "/did.json"
		if path == "" {
			want = origin + "/.well-known/did.json"
		}
		if url, err := WebURL(id); err != nil || url != want {
			t.Fatalf("%s: %s is served at %s (%v)", origin+path, id, url, err)
		}
	})
}

// TestWebDocument reads a document back as a resolver does.
func TestWebDocument(t *testing.T) {
	const id = "did:web:issuer.example:tenant"
	var keys []WebKey
	for _, a := range issuancetest.Algorithms {
		public := issuancetest.Key(t, a).Public()
		keyID, err := WebKeyID(id, public)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, WebKey{keyID, public})
	}
	data, err := WebDocument(id, keys)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Context []string `json:"@context"`
		ID      string
		Methods []struct {
			ID, Type, Controller string
			JWK                  json.RawMessage `json:"publicKeyJwk"`
		} `json:"verificationMethod"`
		Assertion []string `json:"assertionMethod"`
		Service   []struct {
			ID, Type string
			Endpoint struct{ Origins []string } `json:"serviceEndpoint"`
		}
	}
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	if document.ID != id || document.Context[0] != "https://www.w3.org/ns/did/v1" || len(document.Methods) != len(keys) || len(document.Assertion) != len(keys) {
		t.Errorf("%s", data)
	}
	for i, m := range document.Methods {
		key, err := jws.ParsePublicJWK(m.JWK)
		if err != nil || !equal(keys[i].Public, key) || m.ID != keys[i].ID || m.Controller != id || m.Type != "JsonWebKey2020" || document.Assertion[i] != m.ID {
			t.Errorf("%+v (%v)", m, err)
		}
		if thumbprint, err := jws.Thumbprint(key); err != nil || m.ID != id+"#"+thumbprint {
			t.Errorf("%s has the thumbprint %s", m.ID, thumbprint)
		}
	}
	if s := document.Service; len(s) != 1 || s[0].Type != "LinkedDomains" || len(s[0].Endpoint.Origins) != 1 || s[0].Endpoint.Origins[0] != "https://issuer.example" {
		t.Errorf("service %+v", s)
	}
	if data, err := WebDocument(id, nil); err != nil || !strings.Contains(string(data), `"verificationMethod":[]`) {
		t.Errorf("%s, %v", data, err)
	}
	if data, err := WebDocument("did:key:z", nil); err == nil {
		t.Errorf("%s", data)
	}
}

// TestWebOrigin: the origin is the host's, as browsers write it.
func TestWebOrigin(t *testing.T) {
	for id, want := range map[string]string{
		"did:web:issuer.example":               "https://issuer.example",
		"did:web:issuer.example:tenant:a":      "https://issuer.example",
		"did:web:issuer.example%3A8443:tenant": "https://issuer.example:8443",
		"did:web:issuer.example%3A443":         "https://issuer.example",
		"did:web:issuer.example%3A4430":        "https://issuer.example:4430",
		"did:web:Issuer.Example%3A443:Tenant":  "https://issuer.example",
		"did:web:":                             "", "did:web:h/a": "", "did:key:z6Mk": "", "https://issuer.example": "", "": "",
	} {
		if got, err := WebOrigin(id); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q (%v), want %q", id, got, err, want)
		}
	}
}

func FuzzResolve(f *testing.F) {
	for _, a := range issuancetest.Algorithms {
		for _, make := range []func(crypto.PublicKey) (string, string, error){JWK, Key} {
			_, keyID, err := make(issuancetest.Key(f, a).Public())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(keyID)
		}
	}
	f.Add("did:key:z1#z1")
	f.Add("did:jwk:e30#0")
	f.Fuzz(func(t *testing.T, url string) {
		key, err := Resolve(url)
		if err != nil {
			return
		}
		make := JWK
		if Method(url) == "did:key" {
			make = Key
		}
		_, keyID, err := make(key)
		if err != nil {
			t.Fatalf("%q is %v, which has no DID: %v", url, key, err)
		}
		if Method(url) == "did:key" && keyID != url {
			t.Fatalf("%q is made as %q", url, keyID)
		}
		if again, err := Resolve(keyID); err != nil || !equal(key, again) {
			t.Fatalf("%q is %v, and %q %v (%v)", url, key, keyID, again, err)
		}
	})
}

func FuzzWebURL(f *testing.F) {
	f.Add("did:web:issuer.example%3A8443:tenant")
	f.Add("did:web:h:..:a")
	f.Fuzz(func(t *testing.T, id string) {
		url, err := WebURL(id)
		if err != nil {
			return
		}
		host, _, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
		if !strings.HasSuffix(url, "/did.json") || host == "" || strings.ContainsAny(url, "?#@ \n") || strings.Contains(url, "/../") {
			t.Fatalf("%q is served at %q", id, url)
		}
	})
}

func BenchmarkResolve(b *testing.B) {
	for method, make := range map[string]func(crypto.PublicKey) (string, string, error){"jwk": JWK, "key": Key} {
		_, keyID, err := make(issuancetest.Key(b, issuance.ES256).Public())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(method, func(b *testing.B) {
			for b.Loop() {
				if _, err := Resolve(keyID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
