package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// signer is a key and a token that go-jose made with it.
func token(t *testing.T, key crypto.Signer, algorithm issuance.Algorithm, header map[jose.HeaderKey]any, payload string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func keys(t *testing.T) map[issuance.Algorithm]crypto.Signer {
	t.Helper()
	out := map[issuance.Algorithm]crypto.Signer{}
	for algorithm, curve := range map[issuance.Algorithm]elliptic.Curve{issuance.ES256: elliptic.P256(), issuance.ES384: elliptic.P384(), issuance.ES512: elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[algorithm] = key
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out[issuance.EdDSA] = key
	return out
}

// Another library's tokens are read, and verify under their key and no other;
// no bit of a signature may change.
func TestOtherPeoplesTokens(t *testing.T) {
	all := keys(t)
	for algorithm, key := range all {
		compact := token(t, key, algorithm, map[jose.HeaderKey]any{"typ": "x+jwt"}, `{"a":"b","n":1}`)
		read, err := Parse(compact, 1<<12)
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if read.Header["typ"] != "x+jwt" || read.String("a") != "b" || read.String("n") != "" || !read.Verify(key.Public()) {
			t.Errorf("%s: %+v", algorithm, read)
		}
		if got, err := read.Algorithm([]issuance.Algorithm{algorithm}); err != nil || got != algorithm {
			t.Errorf("%s: %v", got, err)
		}
		if _, err := read.Algorithm(nil); err == nil {
			t.Errorf("%s: allowed by an empty list", algorithm)
		}
		for other, stranger := range all {
			if other != algorithm && read.Verify(stranger.Public()) {
				t.Errorf("%s verifies under the %s key", algorithm, other)
			}
		}
		for at := 0; at < len(read.signature)*8; at += 13 {
			read.signature[at/8] ^= 1 << (at % 8)
			if read.Verify(key.Public()) {
				t.Errorf("%s: bit %d does not matter", algorithm, at)
			}
			read.signature[at/8] ^= 1 << (at % 8)
		}
	}
	if Verify("no key", nil, nil) {
		t.Error("no key verifies")
	}
}

func TestParseRefuses(t *testing.T) {
	b := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for name, c := range map[string]struct {
		compact string
		want    error
	}{
		"empty":               {"", ErrCompact},
		"two parts":           {b("{}") + "." + b("{}"), ErrCompact},
		"five parts (a JWE)":  {strings.Repeat(b("{}")+".", 4) + "x", ErrCompact},
		"padding":             {b("{}") + "=." + b("{}") + ".", ErrBase64},
		"line break":          {b("{}") + ".\n" + b("{}") + ".", ErrBase64},
		"header no object":    {b("[]") + "." + b("{}") + ".", ErrHeader},
		"header member twice": {b(`{"alg":"a","alg":"b"}`) + "." + b("{}") + ".", ErrHeader},
		"payload no object":   {b("{}") + "." + b("1") + ".", ErrClaims},
		"claim twice":         {b("{}") + "." + b(`{"a":1,"a":1}`) + ".", ErrClaims},
		"crit":                {b(`{"crit":["x"]}`) + "." + b("{}") + ".", ErrCritical},
		"b64":                 {b(`{"b64":false}`) + "." + b("{}") + ".", ErrCritical},
		"long":                {strings.Repeat("a", 101), ErrLong},
	} {
		if _, err := Parse(c.compact, 100); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	read, err := Parse(b(`{"alg":"none"}`)+"."+b("{}")+".", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []any{"none", "HS256", nil, 1} {
		read.Header["alg"] = alg
		if _, err := read.Algorithm([]issuance.Algorithm{issuance.ES256}); err != ErrAlgorithm {
			t.Errorf("%v: %v", alg, err)
		}
	}
}

// A JWK is a public key on its curve, meant for what it is used for.
func TestPublicKey(t *testing.T) {
	for algorithm, key := range keys(t) {
		data, err := jws.PublicJWK(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		members, err := jws.Object(data)
		if err != nil {
			t.Fatal(err)
		}
		with := func(name string, value any) map[string]any {
			out := map[string]any{name: value}
			for n, v := range members {
				if _, has := out[n]; !has {
					out[n] = v
				}
			}
			return out
		}
		for _, good := range []map[string]any{members, with("use", "sig"), with("alg", string(algorithm)), with("kid", "1"), with("key_ops", []any{"verify"}), with("ext", true)} {
			got, err := PublicKey(good)
			if equal, ok := got.(interface{ Equal(crypto.PublicKey) bool }); err != nil || !ok || !equal.Equal(key.Public()) {
				t.Errorf("%s: %v: %v", algorithm, good, err)
			}
		}
		off := []byte(members["x"].(string))
		off[0] ^= 1
		for name, bad := range map[string]any{"private": with("d", "AAAA"), "symmetric": map[string]any{"kty": "oct", "k": "AAAA"}, "another use": with("use", "enc"),
			"another alg": with("alg", "RS256"), "another operation": with("key_ops", []any{"sign"}), "short": with("x", "AAAA"), "no object": "x", "nothing": map[string]any{},
			"another kind": with("kty", "RSA"), "not JSON": with("z", make(chan int))} {
			if _, err := PublicKey(bad); err == nil {
				t.Errorf("%s: %s: accepted", algorithm, name)
			}
		}
		if _, err := PublicKey(with("x", string(off))); err == nil && algorithm != issuance.EdDSA {
			t.Errorf("%s: a point off the curve is accepted", algorithm)
		}
	}
}

func TestDate(t *testing.T) {
	for text, want := range map[string]int64{"1": 1000, "1701960444": 1701960444000, "1701960444.5": 1701960444500, "1.7e9": 1700000000000} {
		if got, ok := Date(json.Number(text)); !ok || got.UnixMilli() != want {
			t.Errorf("%s: %v %t", text, got, ok)
		}
	}
	for _, value := range []any{nil, "1701960444", 1701960444.0, json.Number("0"), json.Number("-1"), json.Number("-0.5"), json.Number("1e999"), json.Number("1099511627776"), json.Number("99999999999999999999"), true} {
		if got, ok := Date(value); ok {
			t.Errorf("%v: %v", value, got)
		}
	}
}

func TestCertificatesRefused(t *testing.T) {
	for name, value := range map[string]any{"no array": "x", "empty": []any{}, "no string": []any{1}, "empty string": []any{""}, "no base64": []any{"-"}, "line break": []any{"AA\n=="}, "no certificate": []any{"AAAA"}, "nine": make([]any, 9)} {
		if _, err := Certificates(value); err != ErrChain {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.AAAA")
	f.Fuzz(func(t *testing.T, compact string) {
		read, err := Parse(compact, 1<<12)
		if err == nil && (read.Header == nil || read.Claims == nil) {
			t.Error("read without header or claims")
		}
	})
}

// TestPlainJWK: what the short way takes, the general one takes too, with the
// same key; it leaves everything else to the general one.
func TestPlainJWK(t *testing.T) {
	for algorithm, private := range keys(t) {
		data, err := jws.PublicJWK(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		members, err := jws.Object(data)
		if err != nil {
			t.Fatal(err)
		}
		key := plainJWK(members)
		if (key == nil) != (algorithm == issuance.ES512) {
			t.Errorf("%s: %v", algorithm, key)
		}
		if equal, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool }); key != nil && (!ok || !equal.Equal(key)) {
			t.Errorf("%s: another key", algorithm)
		}
		for name, value := range map[string]any{"d": "AAAA", "x5c": []any{}, "x": "AAAA", "kty": "RSA", "crv": "P-521"} {
			changed := maps.Clone(members)
			changed[name] = value
			if key := plainJWK(changed); key != nil {
				t.Errorf("%s with %s: %v", algorithm, name, key)
			}
		}
	}
}
