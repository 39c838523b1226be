package verifier

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"chancery/verifier/strictjson"

	"github.com/mr-tron/base58"
)

// hostOf returns an https URL's host name, or "".
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" {
		return ""
	}
	return u.Hostname()
}

// selfContainedKey decodes a did:jwk or did:key, without fragment.
func selfContainedKey(did string) (crypto.PublicKey, error) {
	switch {
	case strings.HasPrefix(did, "did:jwk:"):
		data, err := unpad(strings.TrimPrefix(did, "did:jwk:"))
		if err != nil {
			return nil, errors.New("the did:jwk is not base64url without padding")
		}
		object, err := strictjson.Object(data)
		if err != nil {
			return nil, fmt.Errorf("the did:jwk: %w", err)
		}
		if object["use"] == "enc" {
			return nil, errors.New("the did:jwk's key is for encryption")
		}
		key, err := publicJWK(object)
		if err != nil {
			return nil, fmt.Errorf("the did:jwk's key %w", err)
		}
		return key, nil
	case strings.HasPrefix(did, "did:key:z"):
		return multikey(strings.TrimPrefix(did, "did:key:z"))
	}
	return nil, errors.New("the DID's method is none of did:web, did:jwk, did:key")
}

// multikey decodes a did:key's base58btc text: multicodec and raw key.
func multikey(text string) (crypto.PublicKey, error) {
	if len(text) > 256 {
		return nil, errors.New("the did:key is too long")
	}
	data, err := base58.Decode(text)
	if err != nil || len(data) < 2 || base58.Encode(data) != text {
		return nil, errors.New("the did:key is not base58btc")
	}
	if data[0] == 0xed && data[1] == 0x01 && len(data) == 2+ed25519.PublicKeySize {
		return ed25519.PublicKey(data[2:]), nil
	}
	curves := map[string]elliptic.Curve{"8024": elliptic.P256(), "8124": elliptic.P384(), "8224": elliptic.P521()}
	curve, found := curves[hex.EncodeToString(data[:2])]
	if !found {
		return nil, errors.New("the did:key is of no type known here (P-256, P-384, P-521, Ed25519)")
	}
	x, y := elliptic.UnmarshalCompressed(curve, data[2:])
	if x == nil {
		return nil, errors.New("the did:key is no compressed point of its curve")
	}
	width := len(data) - 3
	point := append([]byte{4}, x.FillBytes(make([]byte, width))...)
	return ecdsa.ParseUncompressedPublicKey(curve, append(point, y.FillBytes(make([]byte, width))...))
}

// webURL maps a did:web to its document's URL (did:web §3.2).
func webURL(did string) (string, error) {
	segments := strings.Split(strings.TrimPrefix(did, "did:web:"), ":")
	host, err := url.PathUnescape(segments[0])
	if err != nil || host == "" || strings.ContainsAny(host, "/?#@\\") {
		return "", errors.New("the did:web has no host")
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if net.ParseIP(name) != nil {
		return "", errors.New("the did:web names an IP address")
	}
	path := "/.well-known"
	if len(segments) > 1 {
		path = ""
		for _, s := range segments[1:] {
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/?#@\\") {
				return "", errors.New("the did:web has an empty or unusable path segment")
			}
			path += "/" + s
		}
	}
	return "https://" + host + path + "/did.json", nil
}

// webKey fetches a did:web document and returns the key that kid names among
// its assertion methods.
func (v *verification) webKey(did, kid string) (crypto.PublicKey, error) {
	if !strings.HasPrefix(kid, did+"#") {
		return nil, errors.New("kid is no DID URL of the issuer's DID")
	}
	location, err := webURL(did)
	if err != nil {
		return nil, err
	}
	if v.o.Fetch == nil {
		return nil, fmt.Errorf("%s is needed, but nothing may be fetched: pin the issuer's key with --issuer-key", location)
	}
	data, err := v.o.Fetch(v.ctx, location)
	if err != nil {
		return nil, err
	}
	key, err := documentKey(data, did, kid)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", location, err)
	}
	return key, nil
}

// documentKey finds kid in a DID document's verification methods and checks
// that it may assert (DID Core §5.2, §5.3.2).
func documentKey(data []byte, did, kid string) (crypto.PublicKey, error) {
	document, err := strictjson.Object(data)
	if err != nil {
		return nil, err
	}
	if document["id"] != did {
		return nil, errors.New("id is not the issuer's DID")
	}
	assertion, _ := document["assertionMethod"].([]any)
	if !slices.Contains(assertion, any(kid)) {
		return nil, errors.New("kid is not in assertionMethod")
	}
	methods, _ := document["verificationMethod"].([]any)
	for _, m := range methods {
		method, _ := m.(map[string]any)
		if method["id"] != kid {
			continue
		}
		jwk, _ := method["publicKeyJwk"].(map[string]any)
		key, err := publicJWK(jwk)
		if err != nil {
			return nil, fmt.Errorf("publicKeyJwk %w", err)
		}
		if method["controller"] != did {
			return nil, errors.New("controller is not the issuer's DID")
		}
		return key, nil
	}
	return nil, errors.New("kid is not in verificationMethod")
}
