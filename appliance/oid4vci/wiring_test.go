package oid4vci

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/config"
)

// bound posts a token request with the holder's DPoP proof; parameters are names
// and values in turn.
func (r *rig) bound(t testing.TB, h holder, parameters ...string) answer {
	t.Helper()
	target := r.identifier + "/token"
	proof := trusttest.TokenWith(t, jose.SigningKey{Algorithm: h.algorithm, Key: h.private}, map[string]any{"typ": "dpop+jwt", "jwk": h.jwk()},
		map[string]any{"jti": rand.Text(), "htm": "POST", "htu": target, "iat": r.now().Unix()})
	var body []string
	for n := 0; n < len(parameters); n += 2 {
		body = append(body, parameters[n]+"="+parameters[n+1])
	}
	return do(t, r.client, http.MethodPost, target, strings.NewReader(strings.Join(body, "&")), "Content-Type", "application/x-www-form-urlencoded", "DPoP", proof)
}

// TestRefreshLifetime: a refresh token serves until issuer.refresh.lifetime after
// the offer was redeemed, however often it was used meanwhile, and not longer.
func TestRefreshLifetime(t *testing.T) {
	const lifetime = 31*time.Hour + 13*time.Minute // as nobody sets it
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) {
		i.Refresh = config.Refresh{Enabled: true, Lifetime: config.Duration(lifetime)}
	}})
	h := newHolder(t, "ES256")
	first := r.bound(t, h, "grant_type", GrantType, "pre-authorized_code", r.offer(t, nil, pidID).Code).object(t)
	token, _ := first["refresh_token"].(string)
	if token == "" {
		t.Fatalf("no refresh token: %v", first)
	}
	refresh := func() answer { return r.bound(t, h, "grant_type", RefreshGrant, "refresh_token", token) }
	for _, after := range []time.Duration{time.Hour, lifetime - time.Minute} {
		r.ahead.Store(int64(after))
		if a := refresh(); a.status != http.StatusOK || a.object(t)["access_token"] == nil {
			t.Errorf("%s after the redemption: %d %s", after, a.status, a.body)
		}
	}
	r.ahead.Store(int64(lifetime))
	refused(t, refresh(), http.StatusBadRequest, "invalid_grant")
}

// requestKeys returns the metadata's keys for requests.
func (r *rig) requestKeys(t testing.TB) []jose.JSONWebKey {
	t.Helper()
	a := r.get(t, "/.well-known/openid-credential-issuer"+strings.TrimPrefix(r.identifier, "https://localhost:8443"))
	var metadata struct {
		Request struct {
			JWKS jose.JSONWebKeySet `json:"jwks"`
		} `json:"credential_request_encryption"`
	}
	if err := json.Unmarshal(a.body, &metadata); err != nil || len(metadata.Request.JWKS.Keys) == 0 {
		t.Fatalf("%d, no keys for requests: %v", a.status, err)
	}
	return metadata.Request.JWKS.Keys
}

// sealed asks for a credential in a request that is encrypted to the key.
func (r *rig) sealed(t testing.TB, k jose.JSONWebKey) answer {
	t.Helper()
	token := r.token(t, r.offer(t, nil, pidID))
	plain, err := json.Marshal(request(pidID, r.good(t, newHolder(t, "ES256"), r.nonce(t))))
	if err != nil {
		t.Fatal(err)
	}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.KeyAlgorithm(k.Algorithm), Key: k.Key, KeyID: k.KeyID}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jwe, err := encrypter.Encrypt(plain)
	if err != nil {
		t.Fatal(err)
	}
	body, err := jwe.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return do(t, r.client, http.MethodPost, r.identifier+"/credential", strings.NewReader(body), "Authorization", "Bearer "+token, "Content-Type", "application/jwt")
}

// TestRequestKeyRotation: the keys for requests are replaced in the metadata after
// issuer.encryption.rotation, and those before decrypt for one more hour.
func TestRequestKeyRotation(t *testing.T) {
	const rotation = 17*time.Hour + 29*time.Minute // as nobody sets it
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) { i.Encryption.Rotation = config.Duration(rotation) }})
	at := func(after time.Duration) (ids []string) {
		t.Helper()
		r.ahead.Store(int64(after))
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, k := range r.requestKeys(t) {
			ids = append(ids, k.KeyID)
		}
		return ids
	}
	served := func(when string, k jose.JSONWebKey) {
		t.Helper()
		if a := r.sealed(t, k); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", when, a.status, a.body)
		}
	}
	first, old := at(0), r.requestKeys(t)[0]
	if got := at(rotation - time.Minute); !slices.Equal(got, first) {
		t.Errorf("replaced before the rotation: %v, before %v", got, first)
	}
	served("before the rotation", old)
	second := at(rotation)
	for _, id := range second {
		if slices.Contains(first, id) {
			t.Errorf("%s is published after the rotation", id)
		}
	}
	served("the old key, just replaced", old)
	if got := at(rotation + time.Hour - time.Minute); !slices.Equal(got, second) {
		t.Errorf("replaced again: %v, before %v", got, second)
	}
	served("the old key, a minute before its end", old)
	at(rotation + time.Hour + time.Second)
	refused(t, r.sealed(t, old), http.StatusBadRequest, "invalid_encryption_parameters")
	served("the new key", r.requestKeys(t)[0])
}
