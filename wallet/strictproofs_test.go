package wallet

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/mr-tron/base58"
)

// sleepOf advances a clock instead of waiting.
func sleepOf(now *time.Time) func(context.Context, time.Duration) error {
	return func(_ context.Context, d time.Duration) error {
		*now = now.Add(d)
		return nil
	}
}

// open verifies a JWT of a type; key finds the key in its header.
func (i *strict) open(compact, kind string, key func(jose.Header) crypto.PublicKey) (jose.Header, map[string]any, error) {
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA})
	if err != nil {
		return jose.Header{}, nil, err
	}
	header := signed.Signatures[0].Protected
	if header.ExtraHeaders["typ"] != kind {
		return header, nil, refuse("invalid_request", "typ is %v, not %s", header.ExtraHeaders["typ"], kind)
	}
	payload, err := signed.Verify(key(header))
	if err != nil {
		return header, nil, err
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		return header, nil, err
	}
	iat, ok := claims["iat"].(float64)
	if !ok || time.Unix(int64(iat), 0).Sub(i.now).Abs() > time.Minute {
		return header, nil, refuse("invalid_request", "iat")
	}
	return header, claims, nil
}

func embedded(h jose.Header) crypto.PublicKey {
	if h.JSONWebKey == nil || !h.JSONWebKey.IsPublic() {
		return nil
	}
	return h.JSONWebKey.Key
}

// byAttester returns the key of an x5c that leads to the attester's anchor.
func (i *strict) byAttester(h jose.Header) crypto.PublicKey {
	roots := x509.NewCertPool()
	roots.AddCert(i.attester.Anchor)
	chains, err := h.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: i.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil || len(chains[0]) != 2 {
		return nil
	}
	return chains[0][0].PublicKey
}

// once takes a jti that was not there before.
func (i *strict) once(claims map[string]any) bool {
	jti, _ := claims["jti"].(string)
	fresh := len(jti) >= 16 && !i.spent[jti]
	i.spent[jti] = true
	return fresh
}

// dpop checks a DPoP proof (RFC 9449 §4.3) and returns the key's thumbprint.
func (i *strict) dpop(w http.ResponseWriter, r *http.Request, token, nonce string, status int) (string, error) {
	proofs := r.Header.Values("DPoP")
	if len(proofs) == 0 {
		return "", nil
	}
	header, claims, err := i.open(proofs[0], "dpop+jwt", embedded)
	if err != nil || len(proofs) > 1 {
		return "", &refused{status, "invalid_dpop_proof", "it does not verify"}
	}
	hash := sha256.Sum256([]byte(token))
	ath, found := claims["ath"]
	switch {
	case claims["htm"] != r.Method || claims["htu"] != i.server.URL+r.URL.Path:
		return "", &refused{status, "invalid_dpop_proof", "htm or htu"}
	case !i.once(claims):
		return "", &refused{status, "invalid_dpop_proof", "jti"}
	case (token != "") != found || token != "" && ath != base64.RawURLEncoding.EncodeToString(hash[:]):
		return "", &refused{status, "invalid_dpop_proof", "ath"}
	case i.nonces && claims["nonce"] != nonce:
		w.Header().Set("DPoP-Nonce", nonce)
		return "", &refused{status, "use_dpop_nonce", "nonce"}
	}
	thumbprint, err := header.JSONWebKey.Thumbprint(crypto.SHA256)
	return base64.RawURLEncoding.EncodeToString(thumbprint), err
}

// access checks the access token of a request.
func (i *strict) access(w http.ResponseWriter, r *http.Request) (*grant, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	g := i.grants[token]
	if g == nil {
		return nil, &refused{http.StatusUnauthorized, "invalid_token", "unknown"}
	}
	jkt, err := i.dpop(w, r, token, "rs-nonce", http.StatusUnauthorized)
	if err != nil {
		return nil, err
	}
	if want := map[bool]string{true: bearer, false: dpop}[g.jkt == ""]; scheme != want || jkt != g.jkt {
		return nil, &refused{http.StatusUnauthorized, "invalid_token", "binding"}
	}
	return g, nil
}

func (i *strict) serveToken(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := r.ParseForm(); err != nil {
		return nil, refuse("invalid_request", "%v", err)
	}
	client, err := i.client(w, r)
	if err != nil {
		return nil, err
	}
	jkt, err := i.dpop(w, r, "", "as-nonce", http.StatusBadRequest)
	if err != nil {
		return nil, err
	}
	switch r.PostForm.Get("grant_type") {
	case grantType:
		if r.PostForm.Get("pre-authorized_code") != "code-1" {
			return nil, refuse("invalid_grant", "code")
		}
	case "refresh_token":
		if r.PostForm.Get("refresh_token") != "refresh-"+client+jkt {
			return nil, refuse("invalid_grant", "refresh token of another client or key")
		}
	default:
		return nil, refuse("unsupported_grant_type", "%s", r.PostForm.Get("grant_type"))
	}
	i.counter++
	token := "token-" + string(rune('a'+i.counter))
	g := &grant{client: client, jkt: jkt}
	i.grants[token] = g
	answer := map[string]any{"access_token": token, "token_type": bearer, "expires_in": 300}
	if jkt != "" {
		answer["token_type"], answer["expires_in"], answer["refresh_token"] = dpop, 600, "refresh-"+client+jkt
	}
	if i.tokenType != "" {
		answer["token_type"], answer["expires_in"], g.jkt = i.tokenType, 300, ""
	}
	if text := r.PostForm.Get("authorization_details"); text != "" {
		var details []map[string]any
		if err := json.Unmarshal([]byte(text), &details); err != nil || len(details) != 1 || details[0]["type"] != "openid_credential" || details[0]["credential_configuration_id"] != "pid" {
			return nil, refuse("invalid_authorization_details", "%v", err)
		}
		details[0]["credential_identifiers"] = []string{"pid-7"}
		answer["authorization_details"], g.identifiers = details, true
	}
	return answer, nil
}

// client authenticates the client and returns its id.
func (i *strict) client(w http.ResponseWriter, r *http.Request) (string, error) {
	attestation, pop, id := r.Header.Get("OAuth-Client-Attestation"), r.Header.Get("OAuth-Client-Attestation-PoP"), r.PostForm.Get("client_id")
	switch {
	case r.PostForm.Has("client_assertion"):
		_, claims, err := i.open(r.PostForm.Get("client_assertion"), "JWT", func(jose.Header) crypto.PublicKey { return i.clientKey })
		if err != nil || r.PostForm.Get("client_assertion_type") != assertionType || claims["iss"] != id || claims["sub"] != id || claims["aud"] != i.server.URL || claims["exp"] == nil || !i.once(claims) {
			return "", refuse("invalid_client", "client_assertion %v", claims)
		}
		return id, nil
	case attestation == "" && i.as["pre-authorized_grant_anonymous_access_supported"] == true:
		return id, nil
	case attestation == "":
		return "", refuse("invalid_client", "no attestation")
	}
	_, claims, err := i.open(attestation, "oauth-client-attestation+jwt", i.byAttester)
	if err != nil || claims["sub"] != id || claims["exp"] == nil || (claims["iss"] == nil) != (i.draft == Draft10) {
		return "", refuse("invalid_client", "attestation %v: %v", claims, err)
	}
	raw, err := json.Marshal(claims["cnf"].(map[string]any)["jwk"])
	if err != nil {
		return "", err
	}
	var instance jose.JSONWebKey
	if err := json.Unmarshal(raw, &instance); err != nil || !instance.IsPublic() {
		return "", refuse("invalid_client", "cnf")
	}
	if pop == "" && i.draft == Draft10 {
		proof, claims, err := i.open(r.Header.Get("DPoP"), "dpop+jwt", embedded)
		if err != nil || !samePublic(embedded(proof), instance.Key) || claims["nonce"] != "challenge-1" {
			return "", refuse("invalid_client", "DPoP by another key or without challenge")
		}
		return id, nil
	}
	_, claims, err = i.open(pop, "oauth-client-attestation-pop+jwt", func(jose.Header) crypto.PublicKey { return instance.Key })
	if err != nil || claims["aud"] != i.server.URL || !i.once(claims) || i.draft == Draft07 && claims["iss"] != id || i.draft == Draft10 && claims["iss"] != nil {
		return "", refuse("invalid_client", "proof of possession %v: %v", claims, err)
	}
	i.pops++
	if claims["challenge"] != "challenge-2" && i.as["challenge_endpoint"] == nil || claims["challenge"] != "challenge-1" && i.as["challenge_endpoint"] != nil {
		w.Header().Set("OAuth-Client-Attestation-Challenge", "challenge-2")
		return "", refuse("use_attestation_challenge", "challenge")
	}
	return id, nil
}

// checkProofs checks the proofs of a request and returns the keys that get credentials.
func (i *strict) checkProofs(proofs map[string]any, client string) ([]crypto.PublicKey, error) {
	if len(proofs) != 1 {
		return nil, refuse("invalid_credential_request", "%d members in proofs", len(proofs))
	}
	var keys []crypto.PublicKey
	for kind, value := range proofs {
		list, _ := value.([]any)
		if len(list) == 0 || len(list) > 5 || kind == "attestation" && len(list) != 1 {
			return nil, refuse("invalid_credential_request", "%d proofs", len(list))
		}
		for _, item := range list {
			more, err := i.checkProof(kind, item, client)
			if err != nil {
				return nil, err
			}
			keys = append(keys, more...)
		}
	}
	return keys, nil
}

func (i *strict) checkProof(kind string, proof any, client string) ([]crypto.PublicKey, error) {
	switch kind {
	case "attestation":
		return i.keyAttestation(proof.(string))
	case "di_vp":
		return i.integrityProof(proof.(map[string]any))
	}
	var key crypto.PublicKey
	header, claims, err := i.open(proof.(string), "openid4vci-proof+jwt", func(h jose.Header) crypto.PublicKey {
		if key = embedded(h); h.KeyID != "" && key == nil {
			key = didKey(h.KeyID)
		}
		return key
	})
	if err != nil {
		return nil, refuse("invalid_proof", "%v", err)
	}
	if claims["aud"] != i.server.URL || (claims["iss"] == nil) != (client == "") || client != "" && claims["iss"] != client {
		return nil, refuse("invalid_proof", "aud or iss: %v", claims)
	}
	if nonce, _ := claims["nonce"].(string); !i.known(nonce) {
		return nil, refuse("invalid_nonce", "nonce")
	}
	attestation, found := header.ExtraHeaders["key_attestation"].(string)
	if !found {
		return []crypto.PublicKey{key}, nil
	}
	keys, err := i.keyAttestation(attestation)
	if err == nil && !samePublic(key, keys[0]) {
		err = refuse("invalid_proof", "the proof's key is not the first attested one")
	}
	return keys, err
}

func (i *strict) known(nonce string) bool {
	_, found := i.cnonces[nonce]
	return found
}

func (i *strict) keyAttestation(text string) ([]crypto.PublicKey, error) {
	_, claims, err := i.open(text, "key-attestation+jwt", i.byAttester)
	if err != nil {
		return nil, refuse("invalid_proof", "key attestation: %v", err)
	}
	nonce, _ := claims["nonce"].(string)
	storage, _ := claims["key_storage"].([]any)
	if !i.known(nonce) || claims["exp"] == nil || len(storage) != 1 || storage[0] != "iso_18045_basic" {
		return nil, refuse("invalid_proof", "key attestation: %v", claims)
	}
	raw, err := json.Marshal(claims["attested_keys"])
	if err != nil {
		return nil, err
	}
	var jwks []jose.JSONWebKey
	if err := json.Unmarshal(raw, &jwks); err != nil {
		return nil, err
	}
	var keys []crypto.PublicKey
	for _, jwk := range jwks {
		if !jwk.IsPublic() {
			return nil, refuse("invalid_proof", "a private key is attested")
		}
		keys = append(keys, jwk.Key)
	}
	return keys, nil
}

// didKey returns the key of a did:jwk URL, or of a did:key one with Ed25519 or P-256.
func didKey(id string) crypto.PublicKey {
	did, fragment, _ := strings.Cut(id, "#")
	if text, found := strings.CutPrefix(did, "did:jwk:"); found {
		var jwk jose.JSONWebKey
		data, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || json.Unmarshal(data, &jwk) != nil || fragment != "0" {
			return nil
		}
		return jwk.Key
	}
	data, err := base58.Decode(strings.TrimPrefix(did, "did:key:z"))
	if err != nil || fragment != strings.TrimPrefix(did, "did:key:") {
		return nil
	}
	if data[0] == 0xed {
		return ed25519.PublicKey(data[2:])
	}
	return nil
}

// integrityProof verifies a di_vp proof with rules of its own for the bytes:
// sorted names, no spaces, as the members' values need no more of RFC 8785.
func (i *strict) integrityProof(vp map[string]any) ([]crypto.PublicKey, error) {
	proof, _ := vp["proof"].(map[string]any)
	value, _ := proof["proofValue"].(string)
	id, _ := proof["verificationMethod"].(string)
	key := didKey(id)
	if holder, _, _ := strings.Cut(id, "#"); vp["holder"] != holder || proof["domain"] != i.server.URL || proof["proofPurpose"] != "authentication" || proof["type"] != "DataIntegrityProof" {
		return nil, refuse("invalid_proof", "di_vp: %v", vp)
	}
	if nonce, _ := proof["challenge"].(string); !i.known(nonce) {
		return nil, refuse("invalid_nonce", "challenge")
	}
	delete(proof, "proofValue")
	delete(vp, "proof")
	var data []byte
	for _, object := range []map[string]any{proof, vp} {
		text, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		data = append(data, sum[:]...)
	}
	signature, err := base58.Decode(strings.TrimPrefix(value, "z"))
	if err != nil || len(signature) != 64 {
		return nil, refuse("invalid_proof", "proofValue")
	}
	good := false
	switch key := key.(type) {
	case ed25519.PublicKey:
		good = proof["cryptosuite"] == "eddsa-jcs-2022" && ed25519.Verify(key, data, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(data)
		good = proof["cryptosuite"] == "ecdsa-jcs-2019" && ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	if !good {
		return nil, refuse("invalid_proof", "di_vp: signature")
	}
	return []crypto.PublicKey{key}, nil
}
