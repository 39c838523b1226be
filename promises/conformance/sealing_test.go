package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// What is advertised, in the order of the metadata.
var (
	keyAlgorithms     = []jose.KeyAlgorithm{jose.ECDH_ES, jose.ECDH_ES_A128KW, jose.ECDH_ES_A256KW}
	contentAlgorithms = []jose.ContentEncryption{jose.A128GCM, jose.A256GCM, jose.A128CBC_HS256, jose.A256CBC_HS512}
)

// uncompressed is an instance that encrypts and does not compress.
func uncompressed(t testing.TB) *instance {
	return start(t, "uncompressed", settings{sections: "[issuer.encryption]\nrequest = \"optional\"\nresponse = \"optional\"\ncompression = false\n"})
}

// requestKeys are the keys in the metadata that requests are encrypted to.
func (i *instance) requestKeys(t testing.TB) []jose.JSONWebKey {
	t.Helper()
	var body struct {
		Request struct {
			JWKS jose.JSONWebKeySet `json:"jwks"`
		} `json:"credential_request_encryption"`
	}
	if err := json.Unmarshal(i.do(t, http.MethodGet, i.wellKnown(issuerName), nil).body, &body); err != nil || len(body.Request.JWKS.Keys) == 0 {
		t.Fatalf("the metadata has %d keys: %v", len(body.Request.JWKS.Keys), err)
	}
	return body.Request.JWKS.Keys
}

// sealing is how a wallet encrypts a request: with the first key of the metadata,
// A128GCM and no compression, if nothing else is said.
type sealing struct {
	key *jose.JSONWebKey
	alg jose.KeyAlgorithm // "" for the key's
	enc jose.ContentEncryption
	zip bool
	// header are further members of the protected header.
	header members
}

// seal encrypts a request as most wallets do.
func (i *instance) seal(t testing.TB, request members) []byte {
	t.Helper()
	return []byte(i.sealAs(t, marshal(t, request), sealing{}))
}

// sealAs encrypts a plaintext (OpenID4VCI 1.0 §10).
func (i *instance) sealAs(t testing.TB, plaintext []byte, how sealing) string {
	t.Helper()
	if how.key == nil {
		how.key = &i.requestKeys(t)[0]
	}
	if how.alg == "" {
		how.alg = jose.KeyAlgorithm(how.key.Algorithm)
	}
	if how.enc == "" {
		how.enc = jose.A128GCM
	}
	options := &jose.EncrypterOptions{}
	if how.zip {
		options.Compression = jose.DEFLATE
	}
	for name, value := range how.header {
		options = options.WithHeader(jose.HeaderKey(name), value)
	}
	encrypter, err := jose.NewEncrypter(how.enc, jose.Recipient{Algorithm: how.alg, Key: how.key.Key, KeyID: how.key.KeyID}, options)
	if err != nil {
		t.Fatal(err)
	}
	object, err := encrypter.Encrypt(plaintext)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// sealed sends a request to a protected endpoint, encrypted.
func (s *session) sealed(t testing.TB, path string, request members, how sealing) answer {
	t.Helper()
	return s.post(t, path, []byte(s.sealAs(t, marshal(t, request), how)), "Content-Type", "application/jwt")
}

// recipient is a wallet's key that answers are encrypted to.
type recipient struct {
	private *ecdsa.PrivateKey
	alg     jose.KeyAlgorithm
	kid     string
}

// newRecipient makes a key as most wallets have it.
func newRecipient(t testing.TB) recipient {
	return recipientOn(t, elliptic.P256(), jose.ECDH_ES, rand.Text())
}

func recipientOn(t testing.TB, curve elliptic.Curve, alg jose.KeyAlgorithm, kid string) recipient {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return recipient{private, alg, kid}
}

// parameters are credential_response_encryption as most wallets have it.
func (r recipient) parameters(t testing.TB) members {
	t.Helper()
	return r.asked(t, jose.A256GCM, false)
}

// open decrypts the answer to [recipient.parameters], so that it can be read as a
// plain one.
func (r recipient) open(t testing.TB, a answer) answer {
	t.Helper()
	return r.opened(t, a, a.status, jose.A256GCM, false)
}

// asked is credential_response_encryption for an enc, with or without compression.
func (r recipient) asked(t testing.TB, enc jose.ContentEncryption, zip bool) members {
	t.Helper()
	var jwk members
	if err := json.Unmarshal(marshal(t, jose.JSONWebKey{Key: r.private.Public(), KeyID: r.kid, Algorithm: string(r.alg), Use: "enc"}), &jwk); err != nil {
		t.Fatal(err)
	}
	m := members{"jwk": jwk, "enc": enc}
	if zip {
		m["zip"] = "DEF"
	}
	return m
}

// opened decrypts an answer that must be encrypted, with nothing else in its header
// than what was asked for, and returns it as if it had not been (checks 265 to 267).
func (r recipient) opened(t testing.TB, a answer, status int, enc jose.ContentEncryption, zip bool) answer {
	t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/jwt" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v: %.300s", a.status, a.header, a.body)
	}
	object, err := jose.ParseEncryptedCompact(string(a.body), []jose.KeyAlgorithm{r.alg}, []jose.ContentEncryption{enc})
	if err != nil {
		t.Fatal(err)
	}
	plaintext, err := object.Decrypt(r.private)
	if err != nil {
		t.Fatal(err)
	}
	protected, _, _ := strings.Cut(string(a.body), ".")
	decoded, err := base64.RawURLEncoding.DecodeString(protected)
	if err != nil {
		t.Fatal(err)
	}
	var got members
	if err := json.Unmarshal(decoded, &got); err != nil {
		t.Fatal(err)
	}
	want := members{"alg": string(r.alg), "enc": string(enc)}
	if r.kid != "" {
		want["kid"] = r.kid
	}
	if zip {
		want["zip"] = "DEF"
	}
	if epk, _ := got["epk"].(members); epk["crv"] != r.private.Params().Name || epk["d"] != nil {
		t.Errorf("epk %v", got["epk"])
	}
	delete(got, "epk")
	if !maps.Equal(got, want) {
		t.Errorf("header %v, want %v and epk", got, want)
	}
	return answer{a.status, http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}, plaintext}
}

// asking is a right credential request for an encrypted answer.
func (s *session) asking(t testing.TB, id string, encryption any) members {
	t.Helper()
	m := request(id, s.proof(t, newKey(t, jose.ES256), s.nonce(t), nil))
	if encryption != nil {
		m["credential_response_encryption"] = encryption
	}
	return m
}
