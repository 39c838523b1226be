package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// TestPublicJWK lets go-jose read each key back and count its thumbprint.
func TestPublicJWK(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		public := issuancetest.Key(t, a).Public()
		data, err := PublicJWK(public)
		if err != nil {
			t.Fatal(err)
		}
		var judge jose.JSONWebKey
		if err := judge.UnmarshalJSON(data); err != nil || !judge.Valid() || !judge.IsPublic() || !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(judge.Key) {
			t.Errorf("%s: go-jose reads %s as %+v (%v)", a, data, judge, err)
		}
		sum, err := judge.Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Thumbprint(public); err != nil || got != base64.RawURLEncoding.EncodeToString(sum) {
			t.Errorf("%s: thumbprint %s (%v), go-jose's is %s", a, got, err, base64.RawURLEncoding.EncodeToString(sum))
		}
		parsed, err := ParsePublicJWK(data)
		if err != nil || !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(parsed) {
			t.Errorf("%s: read back as %v, %v", a, parsed, err)
		}
	}
}

// TestLeadingZeros: one coordinate in 256 begins with a zero byte, which stays.
func TestLeadingZeros(t *testing.T) {
	for x, y := false, false; !x || !y; {
		key := issuancetest.Key(t, issuance.ES256).Public().(*ecdsa.PublicKey)
		point, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 0 && point[33] != 0 {
			continue
		}
		x, y = x || point[1] == 0, y || point[33] == 0
		data, err := PublicJWK(key)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]string
		if err := json.Unmarshal(data, &members); err != nil || len(members["x"]) != 43 || len(members["y"]) != 43 {
			t.Fatalf("%s (%v)", data, err)
		}
	}
}

// TestThumbprintOfRFC8037 is RFC 8037 appendix A.3.
func TestThumbprintOfRFC8037(t *testing.T) {
	x, err := Base64URL("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Thumbprint(ed25519.PublicKey(x)); err != nil || got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestPublicJWKRefusals(t *testing.T) {
	//lint:ignore SA1019 no constructor gives a point that is off the curve
	offCurve := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	for name, key := range map[string]crypto.PublicKey{
		"nil": nil, "RSA": &rsa.PublicKey{N: big.NewInt(15), E: 3}, "off the curve": offCurve, "short": ed25519.PublicKey{1, 2}, "a private key": issuancetest.Key(t, issuance.ES256),
	} {
		if data, err := PublicJWK(key); err == nil {
			t.Errorf("%s: %s", name, data)
		}
		if got, err := Thumbprint(key); err == nil {
			t.Errorf("%s: thumbprint %s", name, got)
		}
		if got, err := Confirmation(key); err == nil {
			t.Errorf("%s: confirmation %v", name, got)
		}
	}
}

// members returns a P-256 key's JWK members, to be changed.
func members(t testing.TB) map[string]any {
	t.Helper()
	data, err := PublicJWK(issuancetest.Key(t, issuance.ES256).Public())
	if err != nil {
		t.Fatal(err)
	}
	object, err := Object(data)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// TestParsePublicJWK changes one thing in a good key at a time.
func TestParsePublicJWK(t *testing.T) {
	other := members(t)
	for name, test := range map[string]struct {
		change func(m map[string]any)
		good   bool
	}{
		"unchanged":        {func(map[string]any) {}, true},
		"alg, use, kid":    {func(m map[string]any) { m["alg"], m["use"], m["kid"] = "ES256", "sig", "k" }, true},
		"unknown member":   {func(m map[string]any) { m["x-vendor"] = true }, true},
		"private":          {func(m map[string]any) { m["d"] = m["x"] }, false},
		"private, empty":   {func(m map[string]any) { m["d"] = "" }, false},
		"symmetric member": {func(m map[string]any) { m["k"] = "AAAA" }, false},
		"RSA's private":    {func(m map[string]any) { m["p"] = "AAAA" }, false},
		"no kty":           {func(m map[string]any) { delete(m, "kty") }, false},
		"oct":              {func(m map[string]any) { m["kty"] = "oct" }, false},
		"no crv":           {func(m map[string]any) { delete(m, "crv") }, false},
		"other curve":      {func(m map[string]any) { m["crv"] = "P-384" }, false},
		"secp256k1":        {func(m map[string]any) { m["crv"] = "secp256k1" }, false},
		"no y":             {func(m map[string]any) { delete(m, "y") }, false},
		"x a number":       {func(m map[string]any) { m["x"] = 1 }, false},
		"not on the curve": {func(m map[string]any) { m["y"] = other["y"] }, false},
		"x short":          {func(m map[string]any) { m["x"] = "AQ" }, false},
		"x padded":         {func(m map[string]any) { m["x"] = m["x"].(string) + "=" }, false},
		"x with a zero":    {func(m map[string]any) { m["x"] = "A" + m["x"].(string) }, false},
		"encryption key": {func(m map[string]any) {
			m["kty"], m["crv"], m["x"] = "OKP", "X25519", strings.Repeat("A", 43)
			delete(m, "y")
		}, false},
		"Ed25519, too long": {func(m map[string]any) {
			m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", strings.Repeat("A", 44)
			delete(m, "y")
		}, false},
	} {
		m := members(t)
		test.change(m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := ParsePublicJWK(data); (err == nil) != test.good {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
	for _, data := range []string{"", "{}", "[]", "null", `{"kty":"EC","kty":"EC"}`, `{"kty":"RSA","n":"AQAB","e":"AQAB"}`} {
		if key, err := ParsePublicJWK([]byte(data)); err == nil {
			t.Errorf("%s is %v", data, key)
		}
	}
}

// TestCheckConfirmation changes one thing in a good cnf at a time.
func TestCheckConfirmation(t *testing.T) {
	if err := CheckConfirmation(map[string]any{}); err != nil {
		t.Errorf("without cnf: %v", err)
	}
	for _, a := range issuancetest.Algorithms {
		cnf, err := Confirmation(issuancetest.Key(t, a).Public())
		if err != nil {
			t.Fatal(err)
		}
		data, err := Marshal(map[string]any{"cnf": cnf})
		if err != nil {
			t.Fatal(err)
		}
		claims, err := Object(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckConfirmation(claims); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	with := func(change func(m map[string]any)) any {
		m := members(t)
		change(m)
		return map[string]any{"jwk": m}
	}
	for name, cnf := range map[string]any{
		"null": nil, "a string": "key", "empty": map[string]any{}, "kid alone": map[string]any{"kid": "k"}, "jwk null": map[string]any{"jwk": nil},
		"jwk a string": map[string]any{"jwk": "x"}, "jwk a list": map[string]any{"jwk": []any{}},
		"kid beside jwk": map[string]any{"jwk": members(t), "kid": "k"},
		"private":        with(func(m map[string]any) { m["d"] = m["x"] }),
		"with kid":       with(func(m map[string]any) { m["kid"] = "serial-4711" }),
		"with use":       with(func(m map[string]any) { m["use"] = "sig" }),
		"bad point":      with(func(m map[string]any) { m["y"] = m["x"] }),
	} {
		if err := CheckConfirmation(map[string]any{"cnf": cnf}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzParsePublicJWK(f *testing.F) {
	for _, a := range issuancetest.Algorithms {
		data, err := PublicJWK(issuancetest.Key(f, a).Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(data))
	}
	f.Add([]byte(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}`))
	f.Add([]byte(`{"kty":"oct","k":"AA"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ParsePublicJWK(data)
		if err != nil {
			return
		}
		again, err := PublicJWK(key)
		if err != nil {
			t.Fatalf("%s is read and cannot be written: %v", data, err)
		}
		parsed, err := ParsePublicJWK(again)
		if err != nil || fmt.Sprint(parsed) != fmt.Sprint(key) {
			t.Fatalf("%s became %s (%v)", data, again, err)
		}
	})
}
