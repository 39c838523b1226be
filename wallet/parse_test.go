package wallet

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/verifier/strictjson"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"
)

func TestWellKnown(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://issuer.example.com/tenant":  "https://issuer.example.com/.well-known/openid-credential-issuer/tenant",
		"https://tenant.issuer.example.com":  "https://tenant.issuer.example.com/.well-known/openid-credential-issuer",
		"https://issuer.example.com/":        "https://issuer.example.com/.well-known/openid-credential-issuer",
		"https://issuer.example.com:8443/a/": "https://issuer.example.com:8443/.well-known/openid-credential-issuer/a/",
		"https://issuer.example.com/a%2Fb":   "https://issuer.example.com/.well-known/openid-credential-issuer/a%2Fb",
	} {
		if got, err := wellKnown(issuer, "openid-credential-issuer"); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", issuer, got, err, want)
		}
	}
}

func TestLinksRefused(t *testing.T) {
	for name, link := range map[string]string{
		"empty":           "",
		"no scheme":       "?credential_offer={}",
		"http":            "http://wallet.example?credential_offer={}",
		"other scheme":    "mailto:x?credential_offer={}",
		"nothing":         "openid-credential-offer://",
		"both":            "openid-credential-offer://?credential_offer={}&credential_offer_uri=https%3A%2F%2Fx",
		"twice":           "openid-credential-offer://?credential_offer={}&credential_offer={}",
		"more":            "openid-credential-offer://?credential_offer={}&state=1",
		"empty offer":     "openid-credential-offer://?credential_offer=",
		"http reference":  "openid-credential-offer://?credential_offer_uri=http%3A%2F%2Fx.example",
		"with fragment":   "openid-credential-offer://?credential_offer_uri=https%3A%2F%2Fx.example%2F%23a",
		"with user":       "openid-credential-offer://?credential_offer_uri=https%3A%2F%2Fa%3Ab%40x.example",
		"broken encoding": "openid-credential-offer://?credential_offer=%zz",
		"semicolon":       "openid-credential-offer://?credential_offer={};a=b",
	} {
		if _, _, err := ParseLink(link); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// An offer that is encoded as the standard says is read back as it was.
func TestOfferRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.StringN(1, 20, -1), 1, 5, rapid.ID[string]).Draw(t, "ids")
		code := rapid.StringN(1, 40, -1).Draw(t, "code")
		data, err := json.Marshal(map[string]any{"credential_issuer": "https://issuer.example/ä", "credential_configuration_ids": ids,
			"grants": map[string]any{grantType: map[string]any{"pre-authorized_code": code, "tx_code": map[string]any{"input_mode": "text"}}}})
		if err != nil {
			t.Fatal(err)
		}
		value, reference, err := ParseLink("haip-vci://?credential_offer=" + url.QueryEscape(string(data)))
		if err != nil || reference != "" {
			t.Fatal(err, reference)
		}
		offer, err := ParseOffer(value)
		if err != nil {
			t.Fatal(err)
		}
		if offer.Code != code || len(offer.Configurations) != len(ids) || offer.TxCode.InputMode != "text" {
			t.Fatalf("%+v", offer)
		}
	})
}

func TestDIDVectors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "shared", "specs", "vectors", "did.json"))
	if err != nil {
		t.Skip("shared vectors are not on this machine")
	}
	var file struct {
		Key []struct {
			DID string          `json:"did"`
			JWK json.RawMessage `json:"public_jwk"`
			URL string          `json:"verification_method_id"`
		} `json:"did_key"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Key {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(v.JWK); err != nil {
			t.Fatal(err)
		}
		if k, ok := key.Key.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P521() {
			if _, err := didURL(DIDKey, key.Key); err == nil {
				t.Error("P-521 is no key of this wallet")
			}
			continue
		}
		if got, err := didURL(DIDKey, key.Key); err != nil || got != v.URL {
			t.Errorf("%s, %v; want %s", got, err, v.URL)
		}
	}
}

func TestPrivateJWK(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := PrivateJWK(key)
	if err != nil {
		t.Fatal(err)
	}
	var back jose.JSONWebKey
	if err := back.UnmarshalJSON(data); err != nil || !key.Equal(back.Key) {
		t.Errorf("%s: %v", data, err)
	}
	if _, err := didURL(DIDKey, "no key"); err == nil {
		t.Error("a text is no key")
	}
	if _, err := didURL(JWK, key.Public()); err == nil {
		t.Error("jwk is no DID method")
	}
}

func FuzzLink(f *testing.F) {
	f.Add("openid-credential-offer://?credential_offer_uri=https%3A%2F%2Fissuer.example%2Foffer%2F1")
	f.Add(`haip-vci://?credential_offer={"credential_issuer":"https://i.example"}`)
	f.Add("openid-credential-offer://?credential_offer=%7B%7D&credential_offer=1")
	f.Fuzz(func(t *testing.T, link string) {
		value, reference, err := ParseLink(link)
		if err == nil && (len(value) == 0) == (reference == "") {
			t.Errorf("%q gives both or neither", link)
		}
		if err == nil && reference != "" && !strings.HasPrefix(strings.ToLower(reference), "https://") {
			t.Errorf("%q leads to %q", link, reference)
		}
	})
}

func FuzzOffer(f *testing.F) {
	f.Add([]byte(`{"credential_issuer":"https://i.example","credential_configuration_ids":["a"],"grants":{"` + grantType + `":{"pre-authorized_code":"c","tx_code":{"length":6}}}}`))
	f.Add([]byte(`{"credential_issuer":"https://i.example","credential_configuration_ids":[null],"grants":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		offer, err := ParseOffer(data)
		if err == nil && (offer.Issuer == "" || len(offer.Configurations) == 0 || offer.Code == "") {
			t.Errorf("incomplete: %+v", offer)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"credential_issuer":"https://i.example","credential_endpoint":"https://i.example/c","nonce_endpoint":"https://i.example/n",` +
		`"credential_configurations_supported":{"a":{"format":"mso_mdoc","doctype":"d","cryptographic_binding_methods_supported":["cose_key"],` +
		`"proof_types_supported":{"jwt":{"proof_signing_alg_values_supported":["ES256"]}},"credential_metadata":{"claims":[{"path":["n","e"],"mandatory":true}]}}}}`))
	f.Add([]byte(`{"credential_issuer":"https://i.example","credential_configurations_supported":{"a":{"format":"x"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		object, err := strictjson.Object(data)
		if err != nil {
			return
		}
		if m, err := ParseMetadata(object, "https://i.example"); err == nil {
			for _, c := range m.Configurations {
				c.Missing(nil)
			}
		}
		if _, err := parseServer(object, "https://i.example"); err == nil && object["issuer"] != "https://i.example" {
			t.Error("another's metadata was taken")
		}
		if list, _, err := parseResponse(object, 2); err == nil && (len(list) == 0 || len(list) > 2 || list[0] == "") {
			t.Errorf("credentials %q were taken", list)
		}
	})
}

// Nothing that is not signed or sealed for the wallet is taken as if it were.
func FuzzMessages(f *testing.F) {
	f.Add("eyJ0eXAiOiJvcGVuaWR2Y2ktaXNzdWVyLW1ldGFkYXRhK2p3dCIsIng1YyI6WyJBQUFBIl19.e30.AAAA")
	f.Add("eyJraWQiOiJrIiwiYWxnIjoiRUNESC1FUyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnt9fQ..AAAA.AAAA.AAAA")
	f.Add(`{"credential_issuer":"https://i.example","credential_configuration_ids":["a"],"access_token":"t","token_type":"Bearer","pending":[{"keys":[{"kty":"EC"}]}]}`)
	f.Add(`DPoP algs="ES256", error="use_dpop_nonce"`)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := openMetadata(text, nil, time.Now()); err == nil && !strings.Contains(text, ".") {
			t.Error("something unsigned was taken")
		}
		e := &envelope{key: key, kid: "k", alg: "ECDH-ES", enc: "A256GCM", zip: true}
		if _, err := e.decrypt(text); err == nil {
			t.Error("something was decrypted that nobody sealed")
		}
		if s, err := ParseState([]byte(text)); err == nil && (s.AccessToken == "" || len(s.Configurations) == 0) {
			t.Errorf("incomplete: %+v", s)
		}
		a := &answer{step: StepCredential, status: 401, header: http.Header{"Www-Authenticate": {text}, "Content-Type": {jsonType}}, body: []byte(text)}
		if e := a.failure(); strings.ContainsFunc(e.Description, notAllowed) {
			t.Errorf("description %q", e.Description)
		}
	})
}
