// Package jws builds and reads back JWS signing inputs (RFC 7515 §5.1) for
// credentials that are signed in two phases: the input leaves for the signer,
// the signature comes back. Verification of foreign JWS is go-jose's work.
package jws

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
)

// maxInput bounds what is parsed.
const maxInput = 1 << 20

// Header is the protected header of what the appliance signs.
type Header struct {
	Algorithm issuance.Algorithm `json:"alg"`
	Type      string             `json:"typ,omitempty"`
	KeyID     string             `json:"kid,omitempty"`
	// X5C holds DER certificates, leaf first; in JSON they are standard base64.
	X5C [][]byte `json:"x5c,omitempty"`
}

// Input returns BASE64URL(header) "." BASE64URL(payload); payload is marshalled
// without HTML escaping.
func Input(header Header, payload any) ([]byte, error) {
	h, err := Marshal(header)
	if err != nil {
		return nil, err
	}
	p, err := Marshal(payload)
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding
	out := make([]byte, b64.EncodedLen(len(h))+1+b64.EncodedLen(len(p)))
	b64.Encode(out, h)
	n := b64.EncodedLen(len(h))
	out[n] = '.'
	b64.Encode(out[n+1:], p)
	return out, nil
}

// Join appends a raw signature to a signing input.
func Join(input, signature []byte) string {
	return string(input) + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Marshal encodes JSON without HTML escaping and without a final newline.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Parse reads a signing input back: strict base64url, a header with no members
// but those of [Header], a payload that is one JSON object without duplicate
// members at any depth.
func Parse(input []byte) (Header, map[string]any, error) {
	if len(input) > maxInput {
		return Header{}, nil, fmt.Errorf("%d bytes are more than is signed", len(input))
	}
	h, p, ok := strings.Cut(string(input), ".")
	if !ok || strings.Contains(p, ".") {
		return Header{}, nil, errors.New("not a signing input of header and payload")
	}
	b64 := base64.RawURLEncoding.Strict()
	header, err := b64.DecodeString(h)
	if err != nil {
		return Header{}, nil, errors.New("the header is not base64url without padding")
	}
	payload, err := b64.DecodeString(p)
	if err != nil {
		return Header{}, nil, errors.New("the payload is not base64url without padding")
	}
	var out Header
	if _, err := Object(header); err != nil {
		return Header{}, nil, fmt.Errorf("header: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(header))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil {
		return Header{}, nil, fmt.Errorf("header: %w", err)
	}
	// encoding/json matches names in any case; what is signed has one spelling.
	if again, err := Marshal(out); err != nil || !bytes.Equal(again, header) {
		return Header{}, nil, errors.New("header: not as this program writes it")
	}
	claims, err := Object(payload)
	if err != nil {
		return Header{}, nil, fmt.Errorf("payload: %w", err)
	}
	return out, claims, nil
}

// maxDepth bounds nesting.
const maxDepth = 32

// Object decodes one JSON object strictly: no duplicate members, nothing after
// it, bounded nesting. Numbers are json.Number.
func Object(data []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	value, err := strictValue(decoder, 0)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return object, nil
}

func strictValue(decoder *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("JSON is nested too deep")
	}
	token, err := decoder.Token()
	if err != nil {
		return nil, errors.New("not valid JSON")
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for decoder.More() {
			name, err := decoder.Token()
			if err != nil {
				return nil, errors.New("not valid JSON")
			}
			key, _ := name.(string)
			if _, twice := object[key]; twice {
				return nil, errors.New("a JSON member is there twice")
			}
			if object[key], err = strictValue(decoder, depth+1); err != nil {
				return nil, err
			}
		}
		_, err := decoder.Token()
		return object, jsonError(err)
	case json.Delim('['):
		array := []any{}
		for decoder.More() {
			value, err := strictValue(decoder, depth+1)
			if err != nil {
				return nil, err
			}
			array = append(array, value)
		}
		_, err := decoder.Token()
		return array, jsonError(err)
	}
	return token, nil
}

func jsonError(err error) error {
	if err != nil {
		return errors.New("not valid JSON")
	}
	return nil
}

// PublicJWK returns a public key as a JWK with nothing but its key members.
func PublicJWK(public crypto.PublicKey) (json.RawMessage, error) {
	if _, err := issuance.AlgorithmFor(public); err != nil {
		return nil, err
	}
	return jose.JSONWebKey{Key: public}.MarshalJSON()
}

// ParsePublicJWK reads a JWK that must be public, valid and of a kind that the
// appliance knows; alg, use and kid may stand in it and are ignored.
func ParsePublicJWK(data []byte) (crypto.PublicKey, error) {
	object, err := Object(data)
	if err != nil {
		return nil, fmt.Errorf("JWK: %w", err)
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, has := object[private]; has {
			return nil, errors.New("JWK: it holds a private key")
		}
	}
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(data); err != nil || !key.Valid() || !key.IsPublic() {
		return nil, errors.New("JWK: not a valid public key")
	}
	if _, err := issuance.AlgorithmFor(key.Key); err != nil {
		return nil, fmt.Errorf("JWK: %w", err)
	}
	return key.Key, nil
}

// Thumbprint returns a key's RFC 7638 thumbprint, SHA-256, base64url.
func Thumbprint(public crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// Date reads a NumericDate claim (RFC 7519 §2) in whole seconds; zero time when
// the claim is absent.
func Date(claims map[string]any, name string) (time.Time, error) {
	value, has := claims[name]
	if !has {
		return time.Time{}, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is not a number", name)
	}
	seconds, err := number.Int64()
	if err != nil || seconds < 0 || seconds > 253402300799 {
		return time.Time{}, fmt.Errorf("%s is not a date in whole seconds", name)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// String reads a claim that must be a non-empty string.
func String(claims map[string]any, name string) (string, error) {
	value, ok := claims[name].(string)
	if !ok || value == "" {
		return "", fmt.Errorf("%s is missing or not a string", name)
	}
	return value, nil
}
