package wallet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"chancery/verifier/strictjson"

	"github.com/go-jose/go-jose/v4"
)

// The algorithms of encryption that the wallet has (RFC 7518 §4.6, §5.3).
var (
	keyAlgorithms     = []string{"ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"}
	contentEncryption = []string{"A256GCM", "A128GCM"}
)

// RequestEncryption is credential_request_encryption (OpenID4VCI 1.0 §12.2.4).
type RequestEncryption struct {
	// Keys are those of the jwks that the wallet can encrypt to.
	Keys     []jose.JSONWebKey
	Enc      []string
	Zip      []string // empty: no compression
	Required bool
}

// ResponseEncryption is credential_response_encryption (OpenID4VCI 1.0 §12.2.4).
type ResponseEncryption struct {
	Alg, Enc []string
	Zip      []string // empty: no compression
	Required bool
}

// encryption checks both encryption members.
func (m *Metadata) encryption(object map[string]any) error {
	const request, response = "credential_request_encryption", "credential_response_encryption"
	if value, found := object[request]; found {
		entry, _ := value.(map[string]any)
		e := &RequestEncryption{}
		var err error
		if e.Enc, e.Zip, e.Required, err = encryptionRules(entry); err == nil {
			set, _ := entry["jwks"].(map[string]any)
			e.Keys, err = encryptionKeys(set)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", request, err)
		}
		m.RequestEncryption = e
	}
	if value, found := object[response]; found {
		entry, _ := value.(map[string]any)
		e := &ResponseEncryption{}
		var err error
		if e.Enc, e.Zip, e.Required, err = encryptionRules(entry); err == nil {
			e.Alg, err = texts(entry, "alg_values_supported")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", response, err)
		}
		if m.RequestEncryption == nil {
			return fmt.Errorf("%s is there without %s, which its use needs (OpenID4VCI 1.0 §8.2)", response, request)
		}
		m.ResponseEncryption = e
	}
	return nil
}

func encryptionRules(entry map[string]any) (enc, zip []string, required bool, err error) {
	if enc, err = texts(entry, "enc_values_supported"); err != nil {
		return nil, nil, false, err
	}
	if _, found := entry["zip_values_supported"]; found {
		if zip, err = texts(entry, "zip_values_supported"); err != nil {
			return nil, nil, false, err
		}
	}
	required, ok := entry["encryption_required"].(bool)
	if !ok {
		return nil, nil, false, errors.New("encryption_required is missing or neither true nor false")
	}
	return enc, zip, required, nil
}

// encryptionKeys checks a JWK Set: public keys with alg and a kid of their own
// (OpenID4VCI 1.0 §10, §12.2.4). Kinds of keys that the wallet lacks are left out.
func encryptionKeys(set map[string]any) ([]jose.JSONWebKey, error) {
	list, _ := set["keys"].([]any)
	if len(list) == 0 {
		return nil, errors.New("jwks has no keys")
	}
	var keys []jose.JSONWebKey
	seen := map[string]bool{}
	for _, item := range list {
		entry, _ := item.(map[string]any)
		for _, name := range []string{"kty", "kid", "alg"} {
			if _, err := text(entry, name); err != nil {
				return nil, fmt.Errorf("a key of the jwks: %w", err)
			}
		}
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, found := entry[name]; found {
				return nil, errors.New("a key of the jwks is not public")
			}
		}
		if kid := entry["kid"].(string); seen[kid] {
			return nil, errors.New("two keys of the jwks have one kid")
		} else {
			seen[kid] = true
		}
		if use, found := entry["use"]; found && use != "enc" {
			return nil, errors.New("a key of the jwks is not for encryption (use)")
		}
		if entry["kty"] != "EC" || !slices.Contains(keyAlgorithms, entry["alg"].(string)) {
			continue
		}
		data, err := json.Marshal(entry)
		if err != nil {
			return nil, err
		}
		var key jose.JSONWebKey
		if err := json.Unmarshal(data, &key); err != nil {
			return nil, errors.New("a key of the jwks is no point on its curve")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// envelope is how the answer to one request comes: encrypted to key, or plain
// when nil.
type envelope struct {
	key      *ecdsa.PrivateKey
	kid      string
	alg, enc string
	zip      bool
}

// seal writes the request's body, encrypted where the issuer requires it or the
// wallet was told to, and asks for an encrypted answer on the same terms
// (OpenID4VCI 1.0 §8.2, §10). The envelope is nil for a plain answer.
func (f *flow) seal(r *request, body map[string]any) (*envelope, error) {
	in, out := f.m.RequestEncryption, f.m.ResponseEncryption
	var e *envelope
	var err error
	if f.w.Encrypt && in == nil {
		return nil, errors.New("the issuer supports no encryption: leave out --encrypt")
	}
	if out != nil && (out.Required || f.w.Encrypt) {
		if e, err = f.w.envelope(out); err != nil {
			return nil, err
		}
		body["credential_response_encryption"] = e.parameters()
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r.header = map[string]string{"Content-Type": jsonType}
	if e == nil && (in == nil || !in.Required && !f.w.Encrypt) {
		r.body = data
		return nil, nil
	}
	r.header["Content-Type"] = jwtType
	if e != nil {
		r.header["Accept"] = jwtType + ", " + jsonType
	}
	r.body, err = in.encrypt(data, f.w.RequestAlgorithm)
	return e, err
}

// encrypt makes a JWE of a request for the first of the issuer's keys, or the
// first for an algorithm.
func (e *RequestEncryption) encrypt(data []byte, algorithm string) ([]byte, error) {
	i := slices.IndexFunc(contentEncryption, func(enc string) bool { return slices.Contains(e.Enc, enc) })
	k := slices.IndexFunc(e.Keys, func(key jose.JSONWebKey) bool { return algorithm == "" || key.Algorithm == algorithm })
	if k < 0 || i < 0 {
		return nil, errors.New("the wallet has none of the issuer's algorithms for encrypted requests, or may not use it")
	}
	options := &jose.EncrypterOptions{}
	if slices.Contains(e.Zip, "DEF") {
		options.Compression = jose.DEFLATE
	}
	key := e.Keys[k]
	encrypter, err := jose.NewEncrypter(jose.ContentEncryption(contentEncryption[i]),
		jose.Recipient{Algorithm: jose.KeyAlgorithm(key.Algorithm), Key: key.Key, KeyID: key.KeyID}, options)
	if err != nil {
		return nil, err
	}
	object, err := encrypter.Encrypt(data)
	if err != nil {
		return nil, err
	}
	compact, err := object.CompactSerialize()
	return []byte(compact), err
}

// envelope makes a fresh key on P-256 and chooses algorithms for the answer.
func (w *Wallet) envelope(rules *ResponseEncryption) (*envelope, error) {
	pick := func(told string, ours, theirs []string, what string) (string, error) {
		if told != "" {
			ours = slices.DeleteFunc(slices.Clone(ours), func(name string) bool { return name != told })
		}
		for _, name := range theirs {
			if slices.Contains(ours, name) {
				return name, nil
			}
		}
		return "", fmt.Errorf("the wallet may use no %s of the issuer's for encrypted responses: [%s]", what, strings.Join(theirs, ", "))
	}
	e := &envelope{kid: rand.Text(), zip: slices.Contains(rules.Zip, "DEF")}
	var err error
	if e.alg, err = pick(w.ResponseAlgorithm, keyAlgorithms, rules.Alg, "alg"); err != nil {
		return nil, err
	}
	if e.enc, err = pick(w.ResponseEncryption, contentEncryption, rules.Enc, "enc"); err != nil {
		return nil, err
	}
	e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return e, err
}

// parameters are credential_response_encryption in a request (OpenID4VCI 1.0 §8.2).
func (e *envelope) parameters() map[string]any {
	p := map[string]any{"jwk": jose.JSONWebKey{Key: e.key.Public(), KeyID: e.kid, Algorithm: e.alg, Use: "enc"}, "enc": e.enc}
	if e.zip {
		p["zip"] = "DEF"
	}
	return p
}

// open reads a 200 or 202 that was asked for with an envelope, or plainly.
func (e *envelope) open(a *answer) (map[string]any, error) {
	if a.status != http.StatusOK && a.status != http.StatusAccepted {
		return nil, a.failure()
	}
	if err := a.noStore(); err != nil {
		return nil, err
	}
	if e == nil {
		if err := a.mediaType(jsonType); err != nil {
			return nil, err
		}
		return a.object()
	}
	if err := a.mediaType(jwtType); err != nil {
		return nil, err
	}
	plain, err := e.decrypt(string(a.body))
	if err != nil {
		return nil, a.wrong("the encrypted answer: %v", err)
	}
	object, err := strictjson.Object(plain)
	if err != nil {
		return nil, a.wrong("the encrypted answer: %v", err)
	}
	return object, nil
}

// decrypt opens a JWE of exactly the algorithms and the key that were asked for.
func (e *envelope) decrypt(compact string) ([]byte, error) {
	first, _, _ := strings.Cut(compact, ".")
	data, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return nil, errors.New("it is no compact JWE")
	}
	header, err := strictjson.Object(data)
	if err != nil {
		return nil, err
	}
	if header["kid"] != e.kid {
		return nil, errors.New("its kid is not that of the wallet's key (OpenID4VCI 1.0 §10)")
	}
	if zip, found := header["zip"]; found && (!e.zip || zip != "DEF") {
		return nil, errors.New("its zip was not asked for")
	}
	object, err := jose.ParseEncryptedCompact(compact, []jose.KeyAlgorithm{jose.KeyAlgorithm(e.alg)}, []jose.ContentEncryption{jose.ContentEncryption(e.enc)})
	if err != nil {
		return nil, fmt.Errorf("it is not a JWE with the alg and enc that were asked for: %w", err)
	}
	plain, err := object.Decrypt(e.key)
	if err != nil {
		return nil, errors.New("it cannot be decrypted with the wallet's key")
	}
	return plain, nil
}
