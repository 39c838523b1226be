package conformance

import (
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// seal encrypts a request to the first key of the metadata (OpenID4VCI 1.0 §10).
func (i *instance) seal(t testing.TB, request members) []byte {
	t.Helper()
	a := i.do(t, http.MethodGet, "/.well-known/openid-credential-issuer", nil)
	encryption, _ := a.object(t)["credential_request_encryption"].(members)
	jwks, _ := encryption["jwks"].(members)
	keys, _ := jwks["keys"].([]any)
	if len(keys) == 0 {
		t.Fatalf("%d, no keys: %.300s", a.status, a.body)
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(marshal(t, keys[0])); err != nil {
		t.Fatal(err)
	}
	encrypter, err := jose.NewEncrypter(jose.A128GCM, jose.Recipient{Algorithm: jose.KeyAlgorithm(k.Algorithm), Key: k.Key, KeyID: k.KeyID}, nil)
	if err != nil {
		t.Fatal(err)
	}
	object, err := encrypter.Encrypt(marshal(t, request))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(compact)
}

// recipient is whom an answer is encrypted for.
type recipient struct{ key }

func newRecipient(t testing.TB) recipient { return recipient{newKey(t, jose.ES256)} }

// parameters are credential_response_encryption.
func (r recipient) parameters(t testing.TB) members {
	t.Helper()
	jwk := r.members(t)
	jwk["alg"], jwk["use"], jwk["kid"] = "ECDH-ES", "enc", "r"
	return members{"jwk": jwk, "enc": "A256GCM"}
}

// open decrypts an answer, which must be encrypted, so that it can be read as a
// plain one.
func (r recipient) open(t testing.TB, a answer) answer {
	t.Helper()
	if a.header.Get("Content-Type") != "application/jwt" {
		t.Fatalf("%d, Content-Type %q: %.300s", a.status, a.header.Get("Content-Type"), a.body)
	}
	object, err := jose.ParseEncryptedCompact(string(a.body), []jose.KeyAlgorithm{jose.ECDH_ES}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatal(err)
	}
	if a.body, err = object.Decrypt(r.private); err != nil {
		t.Fatal(err)
	}
	a.header = a.header.Clone()
	a.header.Set("Content-Type", "application/json")
	return a
}
