package wallet

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/url"

	"github.com/go-jose/go-jose/v4"
)

// The token types (RFC 6750, RFC 9449 §5).
const (
	bearer = "Bearer"
	dpop   = "DPoP"
)

// dpopProof makes the proof for one request (RFC 9449 §4.2): for the method and
// the URL without query and fragment, with the hash of the access token where
// one is presented and the nonce where one was given.
func (w *Wallet) dpopProof(key crypto.Signer, r *request, token, nonce string) (string, error) {
	u, err := url.Parse(r.target)
	if err != nil {
		return "", err
	}
	u.RawQuery, u.ForceQuery, u.Fragment = "", false, ""
	claims := map[string]any{"jti": rand.Text(), "htm": r.method, "htu": u.String(), "iat": w.now().Unix()}
	if token != "" {
		hash := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(hash[:])
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	return signJWT(key, "dpop+jwt", map[jose.HeaderKey]any{"jwk": publicJWK(key)}, claims)
}
