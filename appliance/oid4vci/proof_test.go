package oid4vci

import (
	"net/http"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/issuance"
)

// TestProof: what the proof package makes of a proof (it has a test of every
// check) reaches the wallet. A token that was refused a credential is still good:
// the same one is used until it succeeds.
func TestProof(t *testing.T) {
	r := newRig(t, rigOptions{})
	h, edwards := newHolder(t, issuance.ES256), newHolder(t, issuance.EdDSA)
	old := r.nonces.source.Make(time.Now().Add(-r.nonces.lifetime - time.Second))
	claim := func(name string, value any) func(header, claims map[string]any) {
		return func(_, claims map[string]any) { claims[name] = value }
	}
	byKid := func(h holder, method string) func(header, claims map[string]any) {
		return func(header, _ map[string]any) {
			delete(header, "jwk")
			header["kid"] = h.kid(t, method)
		}
	}
	token := ""
	for _, c := range []struct {
		name   string
		holder holder
		change func(header, claims map[string]any)
		code   string // "" for a proof that holds
	}{
		{"182 typ JWT", h, func(header, _ map[string]any) { header["typ"] = "JWT" }, "invalid_proof"},
		{"193 aud of the token endpoint", h, claim("aud", signertest.Issuer+"/token"), "invalid_proof"},
		{"196 iat one hour ago", h, claim("iat", r.now().Add(-time.Hour).Unix()), "invalid_proof"},
		{"191 another's did:key", h, byKid(edwards, "did:key"), "invalid_proof"},
		{"199 nonce nobody made", h, claim("nonce", "wKI4LT17ac15ES9bw8ac4"), "invalid_nonce"},
		{"200 nonce expired", h, claim("nonce", old), "invalid_nonce"},
		{"181 jwk", h, nil, ""},
		{"181 jwk Ed25519", edwards, nil, ""},
		{"204 did:jwk", h, byKid(h, "did:jwk"), ""},
		{"204 did:key", edwards, byKid(edwards, "did:key"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if token == "" {
				token = r.token(t, r.offer(t, nil, pidID))
			}
			a := r.ask(t, token, request(pidID, c.holder.proof(t, r.identifier, r.nonce(t), r.now(), c.change)))
			if c.code != "" {
				refused(t, a, http.StatusBadRequest, c.code)
				return
			}
			if a.status != http.StatusOK {
				t.Errorf("%d %s", a.status, a.body)
			}
			token = ""
		})
	}
}
