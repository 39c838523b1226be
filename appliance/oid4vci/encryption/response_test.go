package encryption

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// walletKey is a wallet's key with its JWK's members.
func walletKey(t testing.TB, curve elliptic.Curve) (*ecdsa.PrivateKey, map[string]any) {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: private.Public()}
	return private, asObject(t, jwk)
}

// jwkOf returns a new public key's JWK.
func jwkOf(t testing.TB, curve elliptic.Curve) map[string]any {
	t.Helper()
	_, jwk := walletKey(t, curve)
	return jwk
}

// TestRows265And266And267Response: every curve, alg, enc, with and without zip
// and kid. The second reading of the RFCs opens what was made and finds exactly
// the header that was asked for.
func TestRows265And266And267Response(t *testing.T) {
	e := opened(t, all(), &memory{})
	text := `{"credentials":[{"credential":"` + strings.Repeat("a", 3000) + `"}]}`
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		for _, alg := range keyAlgorithms {
			for _, enc := range contentAlgorithms {
				for _, zips := range []bool{false, true} {
					private, jwk := walletKey(t, curve)
					jwk["alg"] = string(alg)
					value := map[string]any{"jwk": jwk, "enc": string(enc), "unknown": "ignored"}
					want := []string{"alg", "enc", "epk"}
					if zips {
						value["zip"], jwk["kid"] = "DEF", "a<b>\u00e4"
						want = append(want, "kid", "zip")
					}
					r, err := e.ParseResponse(value)
					if err != nil {
						t.Fatal(err)
					}
					compact, err := r.Encrypt([]byte(text))
					if err != nil {
						t.Fatal(err)
					}
					header, got := openJWE(t, compact, private)
					if string(got) != text || !slices.Equal(slices.Sorted(maps.Keys(header)), want) || header["alg"] != string(alg) || header["enc"] != string(enc) || header["kid"] != jwk["kid"] || header["zip"] != value["zip"] {
						t.Errorf("%s %s %s: %v", curve.Params().Name, alg, enc, header)
					}
					if zips != (len(compact) < len(text)) {
						t.Errorf("zip %t: %d bytes", zips, len(compact))
					}
				}
			}
		}
	}
}

// TestEmptyKid: a kid that is there is copied, whatever it is.
func TestEmptyKid(t *testing.T) {
	private, jwk := walletKey(t, elliptic.P256())
	jwk["alg"], jwk["kid"] = "ECDH-ES", ""
	r, err := opened(t, all(), &memory{}).ParseResponse(map[string]any{"jwk": jwk, "enc": "A128GCM"})
	if err != nil {
		t.Fatal(err)
	}
	compact, err := r.Encrypt(nil)
	if err != nil {
		t.Fatal(err)
	}
	if header, plaintext := openJWE(t, compact, private); header["kid"] != "" || len(plaintext) > 0 {
		t.Errorf("%v %q", header, plaintext)
	}
}

// TestFreshEphemeral: no two answers share a key, an initialization vector or a text.
func TestFreshEphemeral(t *testing.T) {
	jwk := jwkOf(t, elliptic.P256())
	jwk["alg"] = "ECDH-ES"
	r, err := opened(t, all(), &memory{}).ParseResponse(map[string]any{"jwk": jwk, "enc": "A128GCM"})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 20 {
		compact, err := r.Encrypt([]byte("the same"))
		if err != nil {
			t.Fatal(err)
		}
		for n, part := range strings.Split(compact, ".") {
			if n != 1 && seen[part] {
				t.Errorf("part %d again", n)
			}
			seen[part] = true
		}
	}
}

// TestRows268And269Parameters changes one thing in good parameters at a time.
func TestRows268And269Parameters(t *testing.T) {
	e := opened(t, all(), &memory{})
	for name, c := range map[string]struct {
		member  string
		changes map[string]any // of the jwk, when they begin with jwk.
	}{
		"enc unsupported":  {".enc", map[string]any{"enc": "A192GCM"}},
		"enc missing":      {".enc", map[string]any{"enc": nil}},
		"enc no string":    {".enc", map[string]any{"enc": map[string]any{}}},
		"zip unsupported":  {".zip", map[string]any{"zip": "GZIP"}},
		"zip null":         {".zip", map[string]any{"zip": nil}},
		"alg unsupported":  {".jwk.alg", map[string]any{"jwk.alg": "RSA-OAEP-256"}},
		"alg none":         {".jwk.alg", map[string]any{"jwk.alg": "none"}},
		"alg missing":      {".jwk.alg", map[string]any{"jwk.alg": nil}},
		"alg outside":      {".jwk.alg", map[string]any{"jwk.alg": nil, "alg": "ECDH-ES"}},
		"alg no string":    {".jwk.alg", map[string]any{"jwk.alg": map[string]any{}}},
		"jwk missing":      {".jwk.alg", map[string]any{"jwk": nil}},
		"jwk no object":    {".jwk.alg", map[string]any{"jwk": "x"}},
		"for signatures":   {".jwk.use", map[string]any{"jwk.use": "sig"}},
		"kid no string":    {".jwk.kid", map[string]any{"jwk.kid": json.Number("1")}},
		"kid long":         {".jwk.kid", map[string]any{"jwk.kid": strings.Repeat("k", maxKid+1)}},
		"private":          {".jwk", map[string]any{"jwk.d": bobD}},
		"symmetric member": {".jwk", map[string]any{"jwk.k": "AAAA"}},
		"off the curve":    {".jwk", map[string]any{"jwk.y": bobY}},
		"wrong curve":      {".jwk", map[string]any{"jwk.crv": "P-384"}},
		"secp256k1":        {".jwk", map[string]any{"jwk.crv": "secp256k1"}},
		"RSA":              {".jwk", map[string]any{"jwk.kty": "RSA", "jwk.n": "AQAB", "jwk.e": "AQAB"}},
		"Ed25519":          {".jwk", map[string]any{"jwk": map[string]any{"alg": "ECDH-ES", "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}},
		"X25519":           {".jwk", map[string]any{"jwk": map[string]any{"alg": "ECDH-ES", "kty": "OKP", "crv": "X25519", "x": strings.Repeat("A", 43)}}},
		"not JSON":         {".jwk", map[string]any{"jwk.z": make(chan int)}},
	} {
		jwk := jwkOf(t, elliptic.P256())
		jwk["alg"], jwk["use"], jwk["kid"] = "ECDH-ES", "enc", "k"
		value := map[string]any{"jwk": jwk, "enc": "A256GCM"}
		if _, err := e.ParseResponse(value); err != nil {
			t.Fatal(err)
		}
		for member, to := range c.changes {
			if inner, ok := strings.CutPrefix(member, "jwk."); ok {
				jwk[inner] = to
			} else {
				value[member] = to
			}
		}
		_, err := e.ParseResponse(value)
		t.Run(name, func(t *testing.T) { refused(t, err, "credential_response_encryption"+c.member) })
	}
	for _, value := range []any{nil, "x", []any{}, json.Number("1"), true} {
		_, err := e.ParseResponse(value)
		refused(t, err, "credential_response_encryption")
	}
	plain := opened(t, Options{Request: Optional, Response: Optional}, &memory{})
	jwk := jwkOf(t, elliptic.P256())
	jwk["alg"] = "ECDH-ES"
	_, err := plain.ParseResponse(map[string]any{"jwk": jwk, "enc": "A128GCM", "zip": "DEF"})
	refused(t, err, "credential_response_encryption.zip")
}

// TestDrafts: drafts up to 15 have alg beside the jwk; where both are there they agree.
func TestDrafts(t *testing.T) {
	o := all()
	o.Drafts = true
	e := opened(t, o, &memory{})
	for name, c := range map[string]struct {
		inner, outer any
		member       string
	}{
		"beside":         {nil, "ECDH-ES+A256KW", ""},
		"both":           {"ECDH-ES", "ECDH-ES", ""},
		"inside":         {"ECDH-ES", nil, ""},
		"they differ":    {"ECDH-ES", "ECDH-ES+A256KW", ".alg"},
		"unsupported":    {nil, "RSA-OAEP", ".jwk.alg"},
		"both no string": {map[string]any{}, map[string]any{}, ".alg"},
		"neither":        {nil, nil, ".jwk.alg"},
	} {
		private, jwk := walletKey(t, elliptic.P256())
		value := map[string]any{"jwk": jwk, "enc": "A128GCM"}
		if c.inner != nil {
			jwk["alg"] = c.inner
		}
		if c.outer != nil {
			value["alg"] = c.outer
		}
		r, err := e.ParseResponse(value)
		if c.member != "" {
			refused(t, err, "credential_response_encryption"+c.member)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		compact, err := r.Encrypt([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		want := c.outer
		if want == nil {
			want = c.inner
		}
		if header, _ := openJWE(t, compact, private); header["alg"] != want {
			t.Errorf("%s: %v", name, header)
		}
	}
}
