package oid4vci

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"chancery/appliance/oid4vci/refusal"
	"chancery/issuance"
	"chancery/issuance/jws"
)

// exampleProof is the key proof of OpenID4VCI 1.0 App. F.1.
const exampleProof = "eyJ0eXAiOiJvcGVuaWQ0dmNpLXByb29mK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwiY3J2IjoiUC0yNTYiLCJ4IjoiblVXQW9BdjNYWml0aDhFN2kxOU9kYXhPTFlGT3dNLVoyRXVNMDJUaXJUNCIsInkiOiJIc2tIVThCalVpMVU5WHFpN1N3bWo4Z3dBS18weGtjRGpFV183MVNvc0VZIn19." +
	"eyJhdWQiOiJodHRwczovL2NyZWRlbnRpYWwtaXNzdWVyLmV4YW1wbGUuY29tIiwiaWF0IjoxNzAxOTYwNDQ0LCJub25jZSI6IkxhclJHU2JtVVBZdFJZTzZCUTR5bjgifQ." +
	"-a3EDsxClUB4O3LeDD5DVGEnNMT01FCQW4P6-2-BNBqc_Zxf0Qw4CWayLEpqkAomlkLb9zioZoipdP-jvh1WlA"

// TestProofExample: the specification's own proof holds, at its time and for its
// issuer, and with nothing else.
func TestProofExample(t *testing.T) {
	rules := proofRules{audience: "https://credential-issuer.example.com", methods: []string{"jwk"}, past: time.Minute, now: time.Unix(1701960444, 0)}
	p, err := checkProof(exampleProof, rules)
	if err != nil || p.nonce != "LarRGSbmUPYtRYO6BQ4yn8" || p.did != "" {
		t.Fatalf("%+v %v", p, err)
	}
	key, err := jws.PublicJWK(p.key)
	if err != nil || !strings.Contains(string(key), "nUWAoAv3XZith8E7i19OdaxOLYFOwM-Z2EuM02TirT4") {
		t.Errorf("%s %v", key, err)
	}
	for name, change := range map[string]func(*proofRules){
		"another issuer":             func(r *proofRules) { r.audience += "/" },
		"jwk is no binding method":   func(r *proofRules) { r.methods = []string{"did:jwk"} },
		"no binding method at all":   func(r *proofRules) { r.methods = nil },
		"six minutes later":          func(r *proofRules) { r.now = r.now.Add(6 * time.Minute) },
		"more than a minute earlier": func(r *proofRules) { r.now = r.now.Add(-61 * time.Second) },
	} {
		r := rules
		change(&r)
		var e *refusal.Refusal
		if _, err := checkProof(exampleProof, r); !errors.As(err, &e) || e.Code != "invalid_proof" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*proofRules){
		"cose_key stands for a jwk": func(r *proofRules) { r.methods = []string{"cose_key"} },
		"five minutes later":        func(r *proofRules) { r.now = r.now.Add(5 * time.Minute) },
		"a longer nonce lifetime":   func(r *proofRules) { r.past, r.now = time.Hour, r.now.Add(time.Hour) },
		"a minute earlier":          func(r *proofRules) { r.now = r.now.Add(-time.Minute) },
		"a client, and no iss":      func(r *proofRules) { r.client = "wallet" },
	} {
		r := rules
		change(&r)
		if _, err := checkProof(exampleProof, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryBit: no bit of a signature may change.
func TestEveryBit(t *testing.T) {
	for _, algorithm := range []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.EdDSA} {
		h := newHolder(t, algorithm)
		compact := h.proof(t, "a", "n", time.Now(), nil)
		dot := strings.LastIndex(compact, ".")
		message := []byte(compact[:dot])
		signature, err := base64.RawURLEncoding.DecodeString(compact[dot+1:])
		if err != nil {
			t.Fatal(err)
		}
		if !verify(h.private.Public(), message, signature) {
			t.Fatalf("%s: the signature does not verify", algorithm)
		}
		for at := 0; at < len(signature)*8; at += 7 {
			changed := append([]byte{}, signature...)
			changed[at/8] ^= 1 << (at % 8)
			if verify(h.private.Public(), message, changed) {
				t.Errorf("%s: bit %d does not matter", algorithm, at)
			}
		}
		for _, wrong := range [][]byte{nil, signature[1:], append(signature, 0)} {
			if verify(h.private.Public(), message, wrong) {
				t.Errorf("%s: a signature of %d bytes verifies", algorithm, len(wrong))
			}
		}
	}
	if verify("no key", nil, nil) {
		t.Error("no key verifies")
	}
}

// TestNumericDate: RFC 7519 §2, with a fraction or not.
func TestNumericDate(t *testing.T) {
	for text, want := range map[string]int64{"1": 1000, "1701960444": 1701960444000, "1701960444.5": 1701960444500, "1.7e9": 1700000000000} {
		if got, ok := numericDate(json.Number(text)); !ok || got.UnixMilli() != want {
			t.Errorf("%s: %v %t", text, got, ok)
		}
	}
	for _, value := range []any{nil, "1701960444", 1701960444.0, json.Number("0"), json.Number("-1"), json.Number("-0.5"), json.Number("1e999"), json.Number("1099511627776"), json.Number("99999999999999999999"), true} {
		if got, ok := numericDate(value); ok {
			t.Errorf("%v: %v", value, got)
		}
	}
}
