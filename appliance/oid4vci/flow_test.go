package oid4vci

import (
	"net/http"
	"testing"

	"chancery/issuance"
)

// TestFlow takes every format by every kind of key and every way to name it.
func TestFlow(t *testing.T) {
	r := newRig(t, rigOptions{})
	for _, id := range []string{mdlID, pidID, residenceID} {
		for _, algorithm := range []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.EdDSA} {
			for _, method := range []string{"jwk", "did:jwk", "did:key"} {
				t.Run(id+" "+string(algorithm)+" "+method, func(t *testing.T) {
					h := newHolder(t, algorithm)
					token := r.token(t, r.offer(t, nil, id))
					proof := h.proof(t, r.identifier, r.nonce(t), r.now(), func(header, _ map[string]any) {
						if method != "jwk" {
							delete(header, "jwk")
							header["kid"] = h.kid(t, method)
						}
					})
					a := r.ask(t, token, request(id, proof))
					if a.status != http.StatusOK {
						t.Fatalf("%d %s", a.status, a.body)
					}
				})
			}
		}
	}
}
