package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
)

// plainJWK reads the commonest form of public key, an EC or OKP key without
// anything that needs judging, straight from the decoded header. It returns nil
// for everything else and for every fault; the general reader says what it is.
func plainJWK(members map[string]any) crypto.PublicKey {
	for name := range members {
		switch name {
		case "kty", "crv", "x", "y", "alg", "use", "kid", "key_ops":
		default:
			return nil
		}
	}
	crv, _ := members["crv"].(string)
	switch members["kty"] {
	case "OKP":
		if x := coordinate(members["x"], ed25519.PublicKeySize); crv == "Ed25519" && x != nil && members["y"] == nil {
			return ed25519.PublicKey(x)
		}
	case "EC":
		curve, size := elliptic.P256(), 32
		switch crv {
		case "P-256":
		case "P-384":
			curve, size = elliptic.P384(), 48
		default:
			return nil
		}
		x, y := coordinate(members["x"], size), coordinate(members["y"], size)
		if x == nil || y == nil {
			return nil
		}
		point := append(append(make([]byte, 0, 1+2*size), 4), x...)
		key, err := ecdsa.ParseUncompressedPublicKey(curve, append(point, y...)) // on the curve
		if err != nil {
			return nil
		}
		return key
	}
	return nil
}

func coordinate(value any, size int) []byte {
	text, _ := value.(string)
	if len(text) != base64.RawURLEncoding.EncodedLen(size) {
		return nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil
	}
	return b
}
