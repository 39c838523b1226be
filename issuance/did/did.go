// Package did reads did:key and did:jwk, which carry their key, and makes
// did:web documents. A DID that a wallet sent is a string to be kept as it is;
// it is never re-encoded.
package did

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/mr-tron/base58"

	"chancery/issuance/jws"
)

// maxLength bounds a DID URL in bytes.
const maxLength = 2048

// Multicodec codes of public keys (did:key §3.1).
const (
	codeEd25519 = 0xed
	codeP256    = 0x1200
	codeP384    = 0x1201
	codeP521    = 0x1202
)

// Resolve returns the key that a did:key or did:jwk URL names. A fragment must
// be there and be the method's own: #0 for did:jwk, the multibase value again
// for did:key.
func Resolve(didURL string) (crypto.PublicKey, error) {
	if len(didURL) > maxLength {
		return nil, fmt.Errorf("a DID URL of %d bytes is too long", len(didURL))
	}
	id, fragment, ok := strings.Cut(didURL, "#")
	if !ok {
		return nil, errors.New("the DID URL has no fragment: it must name a verification method")
	}
	switch {
	case strings.HasPrefix(id, "did:jwk:"):
		if fragment != "0" {
			return nil, errors.New("the fragment of a did:jwk URL is 0")
		}
		return resolveJWK(strings.TrimPrefix(id, "did:jwk:"))
	case strings.HasPrefix(id, "did:key:"):
		value := strings.TrimPrefix(id, "did:key:")
		if fragment != value {
			return nil, errors.New("the fragment of a did:key URL repeats its value")
		}
		return resolveKey(value)
	}
	return nil, errors.New("only did:key and did:jwk are resolved")
}

// Method returns "did:key" or the like, or "" when s is no DID.
func Method(s string) string {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 || parts[0] != "did" || parts[1] == "" {
		return ""
	}
	return "did:" + parts[1]
}

func resolveJWK(encoded string) (crypto.PublicKey, error) {
	data, err := jws.Base64URL(encoded)
	if err != nil {
		return nil, fmt.Errorf("did:jwk: %w", err)
	}
	key, err := jws.ParsePublicJWK(data)
	if err != nil {
		return nil, fmt.Errorf("did:jwk: %w", err)
	}
	var members struct {
		Use string `json:"use"`
	}
	if json.Unmarshal(data, &members) != nil || members.Use == "enc" {
		return nil, errors.New("did:jwk: the key is for encryption")
	}
	return key, nil
}

func resolveKey(value string) (crypto.PublicKey, error) {
	if !strings.HasPrefix(value, "z") {
		return nil, errors.New("did:key: not multibase base58btc")
	}
	data, err := base58.Decode(value[1:])
	if err != nil || "z"+base58.Encode(data) != value {
		return nil, errors.New("did:key: not base58btc")
	}
	code, n := binary.Uvarint(data)
	if n <= 0 || n != len(binary.AppendUvarint(nil, code)) {
		return nil, errors.New("did:key: the key type is malformed")
	}
	data = data[n:]
	switch code {
	case codeEd25519:
		if len(data) != ed25519.PublicKeySize {
			return nil, errors.New("did:key: an Ed25519 key has 32 bytes")
		}
		return ed25519.PublicKey(data), nil
	case codeP256:
		return decompress(elliptic.P256(), data)
	case codeP384:
		return decompress(elliptic.P384(), data)
	case codeP521:
		return decompress(elliptic.P521(), data)
	}
	return nil, fmt.Errorf("did:key: key type %#x is not supported", code)
}

func decompress(curve elliptic.Curve, data []byte) (crypto.PublicKey, error) {
	if len(data) != 1+(curve.Params().BitSize+7)/8 {
		return nil, errors.New("did:key: the point has the wrong length")
	}
	x, y := elliptic.UnmarshalCompressed(curve, data)
	if x == nil {
		return nil, errors.New("did:key: the point is not on the curve")
	}
	point := make([]byte, 2*len(data)-1)
	point[0] = 4
	x.FillBytes(point[1:len(data)])
	y.FillBytes(point[len(data):])
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

// JWK returns the did:jwk of a public key and its key's DID URL.
func JWK(public crypto.PublicKey) (id, keyID string, err error) {
	jwk, err := jws.PublicJWK(public)
	if err != nil {
		return "", "", err
	}
	id = "did:jwk:" + base64.RawURLEncoding.EncodeToString(jwk)
	return id, id + "#0", nil
}

// Key returns the did:key of a public key and its key's DID URL.
func Key(public crypto.PublicKey) (id, keyID string, err error) {
	var data []byte
	switch key := public.(type) {
	case ed25519.PublicKey:
		if len(key) != ed25519.PublicKeySize {
			return "", "", fmt.Errorf("did:key: an Ed25519 key has %d bytes", ed25519.PublicKeySize)
		}
		data = append(binary.AppendUvarint(nil, codeEd25519), key...)
	case *ecdsa.PublicKey:
		code := map[elliptic.Curve]uint64{elliptic.P256(): codeP256, elliptic.P384(): codeP384, elliptic.P521(): codeP521}[key.Curve]
		if code == 0 {
			return "", "", errors.New("did:key: the curve is not P-256, P-384 or P-521")
		}
		point, err := key.Bytes()
		if err != nil {
			return "", "", fmt.Errorf("did:key: %w", err)
		}
		n := len(point) / 2
		compressed := append([]byte{2 + point[len(point)-1]&1}, point[1:1+n]...)
		data = append(binary.AppendUvarint(nil, code), compressed...)
	default:
		return "", "", fmt.Errorf("did:key: a %T has no key type", public)
	}
	value := "z" + base58.Encode(data)
	return "did:key:" + value, "did:key:" + value + "#" + value, nil
}

// host is a DID's host with its port; segment a path segment that reads the same
// in a URL and in a DID.
var (
	host    = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(%3A[0-9]{1,5})?$`)
	segment = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)
)

// Web returns the did:web of an issuer's https URL (did:web §3.1). The host must
// be a name, not an address, and the path's segments free of characters that
// would have to be escaped, so that [WebURL] leads back to the same place.
func Web(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q has no did:web: it must be an https URL of host and path alone", issuer)
	}
	if net.ParseIP(u.Hostname()) != nil {
		return "", fmt.Errorf("%q has no did:web: its host must be a name, not an address", issuer)
	}
	name := strings.ReplaceAll(strings.ToLower(u.Host), ":", "%3A")
	if !host.MatchString(name) {
		return "", fmt.Errorf("%q has no did:web: its host must be a name of letters, digits and hyphens", issuer)
	}
	id := "did:web:" + name
	path := u.EscapedPath()
	if path == "" || path == "/" {
		return id, nil
	}
	for s := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		if !segment.MatchString(s) || s == "." || s == ".." {
			return "", fmt.Errorf("%q has no did:web: its path must consist of letters, digits and . _ ~ - between slashes", issuer)
		}
		id += ":" + s
	}
	return id, nil
}

// WebURL returns where a did:web's document is served (did:web §3.2).
func WebURL(id string) (string, error) {
	rest, ok := strings.CutPrefix(id, "did:web:")
	if !ok || rest == "" {
		return "", errors.New("not a did:web")
	}
	parts := strings.Split(rest, ":")
	if !host.MatchString(parts[0]) {
		return "", errors.New("did:web: the host is malformed")
	}
	origin := "https://" + strings.Replace(parts[0], "%3A", ":", 1)
	if len(parts) == 1 {
		return origin + "/.well-known/did.json", nil
	}
	for _, s := range parts[1:] {
		if !segment.MatchString(s) || s == "." || s == ".." {
			return "", errors.New("did:web: the path is malformed")
		}
	}
	return origin + "/" + strings.Join(parts[1:], "/") + "/did.json", nil
}

// WebOrigin returns the origin of the host that serves a did:web's document, as
// browsers write it: without the port that https has anyway (RFC 6454 §6.2).
func WebOrigin(id string) (string, error) {
	where, err := WebURL(id)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(where, "https://"), "/")
	return "https://" + strings.TrimSuffix(strings.ToLower(name), ":443"), nil
}

// WebKey is a verification method of a did:web document.
type WebKey struct {
	// ID is the DID URL; [WebKeyID] makes it.
	ID     string
	Public crypto.PublicKey
}

// WebKeyID returns a key's DID URL under a did:web: the fragment is its RFC 7638
// thumbprint, so that it is never used for another key.
func WebKeyID(id string, public crypto.PublicKey) (string, error) {
	thumbprint, err := jws.Thumbprint(public)
	if err != nil {
		return "", err
	}
	return id + "#" + thumbprint, nil
}

// WebDocument returns the document of a did:web with its keys as assertion
// methods, in their order. A LinkedDomains service names the DID's own origin (DIF
// Well Known DID Configuration, "Linked Domain Service Endpoint").
func WebDocument(id string, keys []WebKey) ([]byte, error) {
	origin, err := WebOrigin(id)
	if err != nil {
		return nil, err
	}
	methods, assertions := []any{}, []string{}
	for _, k := range keys {
		jwk, err := jws.PublicJWK(k.Public)
		if err != nil {
			return nil, err
		}
		methods = append(methods, map[string]any{"id": k.ID, "type": "JsonWebKey2020", "controller": id, "publicKeyJwk": jwk})
		assertions = append(assertions, k.ID)
	}
	return jws.Marshal(map[string]any{
		"@context":           []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"},
		"id":                 id,
		"verificationMethod": methods,
		"assertionMethod":    assertions,
		"service":            []any{map[string]any{"id": id + "#linked-domain", "type": "LinkedDomains", "serviceEndpoint": map[string]any{"origins": []string{origin}}}},
	})
}
