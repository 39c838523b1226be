package wallet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/mr-tron/base58"
)

// didURL names a public key as a DID URL of the method.
func didURL(method Binding, public crypto.PublicKey) (string, error) {
	switch method {
	case DIDJWK:
		data, err := (&jose.JSONWebKey{Key: public}).MarshalJSON()
		if err != nil {
			return "", err
		}
		return "did:jwk:" + base64.RawURLEncoding.EncodeToString(data) + "#0", nil
	case DIDKey:
		multibase, err := multikey(public)
		return "did:key:" + multibase + "#" + multibase, err
	}
	return "", fmt.Errorf("%q is no DID method of this wallet: use did:jwk or did:key", method)
}

// multikey encodes a public key as did:key does: multicodec, then the
// compressed point or the Ed25519 key, in base58btc.
func multikey(public crypto.PublicKey) (string, error) {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return "z" + base58.Encode(slices.Concat([]byte{0xed, 0x01}, key)), nil
	case *ecdsa.PublicKey:
		prefix := map[elliptic.Curve][]byte{elliptic.P256(): {0x80, 0x24}, elliptic.P384(): {0x81, 0x24}}[key.Curve]
		point, err := key.Bytes()
		if err != nil || prefix == nil {
			return "", errors.New("no did:key for this curve")
		}
		half := len(point) / 2
		sign := byte(2) | byte(new(big.Int).SetBytes(point[half+1:]).Bit(0))
		return "z" + base58.Encode(slices.Concat(prefix, []byte{sign}, point[1:half+1])), nil
	}
	return "", errors.New("no did:key for this kind of key")
}
