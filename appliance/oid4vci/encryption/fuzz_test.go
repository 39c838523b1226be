package encryption

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance/jws"
)

// isRefusal fails when an error is none that a wallet may be told.
func isRefusal(t *testing.T, err error) {
	t.Helper()
	r := &refusal.Refusal{}
	if !errors.As(err, &r) || r.Status != 400 || r.Code != "invalid_encryption_parameters" || strings.ContainsAny(r.Description, "\"\\") {
		t.Fatalf("%+v", err)
	}
}

// FuzzDecrypt: any body gives a bounded plaintext or a refusal.
func FuzzDecrypt(f *testing.F) {
	o := all()
	e := closed(f, o, &memory{})
	bob, err := load(store.EncryptionKey{Kid: bobName, Private: bobJWK(), CreatedAt: start})
	if err != nil {
		f.Fatal(err)
	}
	e.keys.Store(&keyset{published: []*key{bob}, byID: map[string]*key{bobName: bob}})
	for _, more := range []map[string]any{{}, {"zip": "DEF"}, {"apu": "QQ", "apv": "QQ"}, {"crit": []any{"b64"}}, {"alg": "dir"}, {"enc": "A256CBC-HS512"}} {
		header := map[string]any{"alg": "ECDH-ES", "enc": "A128GCM", "kid": bobName}
		plaintext := []byte(`{"a":"b"}`)
		for name, value := range more {
			header[name] = value
			if name == "zip" {
				plaintext = deflated(f, plaintext)
			}
		}
		f.Add([]byte(forge(f, &bob.private.PublicKey, header, plaintext)))
	}
	f.Add([]byte("e30...."))
	f.Fuzz(func(t *testing.T, body []byte) {
		plaintext, err := e.Decrypt(body)
		if err != nil {
			isRefusal(t, err)
		} else if len(plaintext) > MaxPlaintext || bytes.Count(body, []byte(".")) != 4 {
			t.Fatalf("%d bytes from %q", len(plaintext), body)
		}
	})
}

// FuzzRecipient: any parameters give a JWE with the header they ask for, or a refusal.
func FuzzRecipient(f *testing.F) {
	o := all()
	o.Drafts = true
	e := closed(f, o, &memory{})
	jwk := `{"kty":"EC","crv":"P-256","x":"` + bobX + `","y":"` + bobY + `","alg":"ECDH-ES","kid":"k"}`
	for _, text := range []string{
		`{"jwk":` + jwk + `,"enc":"A128GCM"}`,
		`{"jwk":` + jwk + `,"enc":"A256CBC-HS512","zip":"DEF"}`,
		`{"jwk":` + strings.Replace(jwk, `"alg":"ECDH-ES",`, "", 1) + `,"alg":"ECDH-ES+A256KW","enc":"A256GCM"}`,
		`{"jwk":` + strings.Replace(jwk, `"kid"`, `"d"`, 1) + `,"enc":"A128GCM"}`,
		`{"jwk":{"alg":{}},"alg":{},"enc":"A128GCM"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		value, err := jws.Object(data)
		if err != nil {
			return
		}
		r, err := e.ParseResponse(value)
		if err != nil {
			isRefusal(t, err)
			return
		}
		compact, err := r.Encrypt([]byte("text"))
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if _, err := jose.ParseEncryptedCompact(compact, []jose.KeyAlgorithm{r.alg}, []jose.ContentEncryption{r.enc}); err != nil {
			t.Fatal(err)
		}
		protected, _, _ := strings.Cut(compact, ".")
		var header map[string]any
		if err := json.Unmarshal(unb64(t, protected), &header); err != nil {
			t.Fatal(err)
		}
		asked := value["jwk"].(map[string]any)
		if header["kid"] != asked["kid"] || header["enc"] != value["enc"] || header["zip"] != value["zip"] {
			t.Fatalf("%s: %s", data, unb64(t, protected))
		}
	})
}
