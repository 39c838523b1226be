package wallet

import (
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// mustSign makes a JWT with a new key in its header.
func mustSign(t *testing.T, kind string, claims map[string]any) string {
	t.Helper()
	key, err := generateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	text, err := signJWT(key, kind, map[jose.HeaderKey]any{"jwk": publicJWK(key)}, claims)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSignedMetadata(t *testing.T) {
	other, err := NewAttester("Other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(i *strict, header, claims map[string]any)
		words  string // empty: it is taken
	}{
		"good":                {func(i *strict, h, c map[string]any) {}, ""},
		"attesting party":     {func(i *strict, h, c map[string]any) { c["iss"] = "https://registrar.example" }, ""},
		"without exp":         {func(i *strict, h, c map[string]any) { delete(c, "exp") }, ""},
		"typ":                 {func(i *strict, h, c map[string]any) { h["typ"] = "openid4vci-issuer-metadata+jwt" }, "typ is not"},
		"no x5c":              {func(i *strict, h, c map[string]any) { h["x5c"] = []string{} }, "x5c"},
		"with the anchor":     {func(i *strict, h, c map[string]any) { h["x5c"] = x5c(i.signer.Certificate, i.signer.Anchor) }, "self-signed"},
		"the anchor alone":    {func(i *strict, h, c map[string]any) { h["x5c"] = x5c(i.signer.Anchor) }, "self-signed"},
		"another's chain":     {func(i *strict, h, c map[string]any) { h["x5c"] = x5c(other.Certificate) }, "unknown authority"},
		"no chain":            {func(i *strict, h, c map[string]any) { h["x5c"] = x5c(i.signer.Certificate, other.Certificate) }, "no chain"},
		"no certificate":      {func(i *strict, h, c map[string]any) { h["x5c"] = []string{"AAAA"} }, "certificates"},
		"sub":                 {func(i *strict, h, c map[string]any) { c["sub"] = i.server.URL + "/" }, "sub is not"},
		"no iat":              {func(i *strict, h, c map[string]any) { delete(c, "iat") }, "iat"},
		"of the future":       {func(i *strict, h, c map[string]any) { c["iat"] = i.now.Unix() + 90 }, "iat"},
		"over":                {func(i *strict, h, c map[string]any) { c["exp"] = i.now.Unix() }, "exp"},
		"something missing":   {func(i *strict, h, c map[string]any) { delete(c, "nonce_endpoint") }, "nonce_endpoint is missing"},
		"something different": {func(i *strict, h, c map[string]any) { c["credential_endpoint"] = "https://x.example/" }, "credential_endpoint"},
		"something more":      {func(i *strict, h, c map[string]any) { c["display"] = []any{map[string]any{"name": "x"}} }, "display is not in"},
		"of another's making": {func(i *strict, h, c map[string]any) {
			i.signer = &Attester{Anchor: i.signer.Anchor, Certificate: i.signer.Certificate, Key: other.Key}
		}, "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			w := i.wallet()
			w.SignedMetadata, w.MetadataAnchors = true, []*x509.Certificate{i.signer.Anchor}
			i.signed = func(h, claims map[string]any) { c.change(i, h, claims) }
			_, err := w.Accept(t.Context(), i.link(), "")
			if c.words == "" && err != nil || c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
				t.Errorf("%v; want %q", err, c.words)
			}
		})
	}
}

func TestSignedMetadataWithoutAnchors(t *testing.T) {
	i := newStrict(t)
	w := i.wallet()
	w.SignedMetadata = true
	i.accept(w)
}

func TestAttester(t *testing.T) {
	now := time.Now()
	a, err := NewAttester("Attester", now)
	if err != nil {
		t.Fatal(err)
	}
	anchor, certificate, key, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseAttester(certificate, key)
	if err != nil || !back.Certificate.Equal(a.Certificate) || !samePublic(back.Key.Public(), a.Key.Public()) {
		t.Fatalf("%+v, %v", back, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(anchor)
	if _, err := back.Certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		t.Error(err)
	}
	if selfSigned(back.Certificate) || !selfSigned(a.Anchor) {
		t.Error("the wrong certificate is self-signed")
	}
	other, err := NewAttester("Other", now)
	if err != nil {
		t.Fatal(err)
	}
	_, _, otherKey, err := other.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2][]byte{
		"another's key":  {certificate, otherKey},
		"no certificate": {key, key},
		"no key":         {certificate, certificate},
		"not PEM":        {[]byte("x"), key},
		"the anchor":     {anchor, key},
	} {
		if _, err := ParseAttester(c[0], c[1]); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestStatesRefused(t *testing.T) {
	i := newStrict(t)
	i.deferrals = 1
	good := i.accept(i.wallet()).State
	encode := func(change func(map[string]any)) []byte {
		data, err := good.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := json.Unmarshal(data, &object); err != nil {
			t.Fatal(err)
		}
		change(object)
		if data, err = json.Marshal(object); err != nil {
			t.Fatal(err)
		}
		return data
	}
	if _, err := ParseState(encode(func(map[string]any) {})); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string]any){
		"no issuer":    func(o map[string]any) { delete(o, "credential_issuer") },
		"http issuer":  func(o map[string]any) { o["credential_issuer"] = "http://x.example" },
		"no token":     func(o map[string]any) { delete(o, "access_token") },
		"no DPoP key":  func(o map[string]any) { delete(o, "dpop_key") },
		"another type": func(o map[string]any) { o["token_type"] = "mac" },
		"unknown":      func(o map[string]any) { o["x"] = 1 },
		"public key":   func(o map[string]any) { delete(o["dpop_key"].(map[string]any), "d") },
		"pending's key": func(o map[string]any) {
			delete(o["pending"].([]any)[0].(map[string]any)["keys"].([]any)[0].(map[string]any), "d")
		},
	} {
		if _, err := ParseState(encode(change)); err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), good.AccessToken) || strings.Contains(err.Error(), good.RefreshToken) {
			t.Errorf("%s: the error tells a secret", name)
		}
	}
}

func TestPrivateKeysRefused(t *testing.T) {
	key, err := generateKey("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "k-1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, kid, err := ParsePrivateJWK(data); err != nil || kid != "k-1" {
		t.Errorf("kid %q, %v", kid, err)
	}
	public, err := json.Marshal(publicJWK(key))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{}", "x", string(public)} {
		if _, _, err := ParsePrivateJWK([]byte(text)); err == nil {
			t.Errorf("%s: taken", text)
		}
	}
}
