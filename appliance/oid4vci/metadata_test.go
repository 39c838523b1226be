package oid4vci

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/issuance"
)

// unsigned is an issuer without a signer, as it is before the first Refresh.
func unsigned(t testing.TB, settings config.Issuer) (*Issuer, *http.Client) {
	t.Helper()
	i := newIssuer(t, settings, Options{Signer: wire.NewClient(filepath.Join(t.TempDir(), "none.sock"))})
	return i, serve(t, i.Handler())
}

// TestCheck21And58WellKnown: the path is inserted between host and path; what drafts
// up to 15 appended is there with compatibility alone, check 22.
func TestCheck21And58WellKnown(t *testing.T) {
	const credential, server, openID = "/.well-known/openid-credential-issuer", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
	for _, c := range []struct {
		identifier, compatibility string
		member                    map[string]string // path → the member that names the issuer, "" for 404
	}{
		{"https://issuer.example.com", "", map[string]string{credential: "credential_issuer", server: "issuer", openID: "issuer", credential + "/": "", credential + "/t": "", "/t" + credential: "", "/": ""}},
		{"https://issuer.example.com:8443/t", "", map[string]string{credential + "/t": "credential_issuer", server + "/t": "issuer", openID + "/t": "issuer",
			"/t" + credential: "", "/t" + openID: "issuer", credential: "", server: "", credential + "/t/": "", credential + "/T": "", "/t" + server: ""}},
		{"https://issuer.example.com:8443/t", "draft-15", map[string]string{credential + "/t": "credential_issuer", "/t" + credential: "credential_issuer", "/T" + credential: ""}},
		{"https://issuer.example.com/a/b-c.d", "draft-13", map[string]string{credential + "/a/b-c.d": "credential_issuer", server + "/a/b-c.d": "issuer", "/a/b-c.d" + credential: "credential_issuer", credential + "/a": "", "/a" + credential: ""}},
		{"https://issuer.example.com", "draft-13", map[string]string{credential: "credential_issuer"}},
	} {
		_, client := unsigned(t, config.Issuer{Identifier: c.identifier, Compatibility: c.compatibility})
		host := "https://" + strings.Split(c.identifier, "/")[2]
		for path, member := range c.member {
			t.Run(c.identifier+" "+c.compatibility+" "+path, func(t *testing.T) {
				a := do(t, client, http.MethodGet, host+path, nil)
				if member == "" {
					if a.status != http.StatusNotFound {
						t.Errorf("%d, %d bytes", a.status, len(a.body))
					}
					return
				}
				if a.status != http.StatusOK || a.object(t)[member] != c.identifier || a.header.Get("Content-Type") != "application/json" {
					t.Errorf("%d %s", a.status, a.header)
				}
			})
		}
	}
}

func want(t *testing.T, holds bool, what string, v any) {
	t.Helper()
	if !holds {
		t.Errorf("%s: %v", what, v)
	}
}

// TestChecks23To49OfTheSignersKeys holds the metadata that follows from the
// signer's real keys against the rules, and fetches what verifiers need.
func TestChecks23To49OfTheSignersKeys(t *testing.T) {
	r := newRig(t, rigOptions{})
	metadata := r.get(t, "/.well-known/openid-credential-issuer").object(t)
	sound(t, metadataFaults(r.identifier, metadata, false))
	all := metadata["credential_configurations_supported"].(map[string]any)
	for id, algorithm := range map[string]any{mdlID: float64(-7), pidID: "ES256", residenceID: "ES256"} {
		want(t, slices.Equal(all[id].(map[string]any)["credential_signing_alg_values_supported"].([]any), []any{algorithm}), "signing algorithms", all[id])
	}
	t.Run("documents", func(t *testing.T) { r.checkDocuments(t) })
}

// checkDocuments fetches what verifiers need.
func (r *rig) checkDocuments(t *testing.T) {
	anchor := r.signer.Identity(t, "iaca-1")
	der := r.get(t, "/iaca/iaca-1.cer")
	want(t, bytes.Equal(der.body, anchor.Chain[0]) && der.header.Get("Content-Type") == "application/pkix-cert", "IACA", der)
	block, rest := pem.Decode(r.get(t, "/iaca/iaca-1.pem").body)
	want(t, block != nil && bytes.Equal(block.Bytes, anchor.Chain[0]) && len(rest) == 0, "IACA as PEM", block)
	crl := r.get(t, "/crl/iaca-1.crl")
	list, err := x509.ParseRevocationList(crl.body)
	if err != nil || crl.header.Get("Content-Type") != "application/pkix-crl" {
		t.Fatalf("CRL: %v %v", err, crl.header)
	}
	issuer, err := x509.ParseCertificate(anchor.Chain[0])
	if err != nil || list.CheckSignatureFrom(issuer) != nil {
		t.Errorf("the CRL is not the IACA's: %v", err)
	}
	document := r.get(t, "/.well-known/did.json")
	key := r.signer.Identity(t, "did-1")
	want(t, document.object(t)["id"] == key.DID && document.header.Get("Content-Type") == "application/did+json", "check 320", document)
	want(t, strings.Contains(string(document.body), key.KeyID), "check 320: the key", document)
	for _, path := range []string{"/iaca/ds-1.cer", "/iaca/iaca-1", "/crl/x.crl", "/crl/ds-1.crl", "/did.json", "/x/did.json"} {
		want(t, r.get(t, path).status == http.StatusNotFound, "is served", path)
	}
}

// TestCheck69BeforeRefresh: without the signer's keys there are no signing
// algorithms, rather than empty ones.
func TestCheck69BeforeRefresh(t *testing.T) {
	i, client := unsigned(t, config.Issuer{Identifier: "https://issuer.example.com"})
	if i.Identities() != nil || len(i.Configurations()) != 4 {
		t.Errorf("%d keys, %d configurations", len(i.Identities()), len(i.Configurations()))
	}
	a := do(t, client, http.MethodGet, "https://issuer.example.com/.well-known/openid-credential-issuer", nil)
	if strings.Contains(string(a.body), "credential_signing_alg_values_supported") || strings.Contains(string(a.body), "[]") || strings.Contains(string(a.body), `"display":null`) {
		t.Errorf("%s", a.body)
	}
	if err := i.Refresh(t.Context()); err == nil {
		t.Error("a refresh without a signer")
	}
}

// TestChecks24To27And50ConditionalRequests: HEAD, entity tags, methods and media
// types of what is built once, without a signed form; check 51: Vary.
func TestChecks24To27And50ConditionalRequests(t *testing.T) {
	_, client := unsigned(t, config.Issuer{Identifier: "https://issuer.example.com"})
	const target = "https://issuer.example.com/.well-known/openid-credential-issuer"
	whole := do(t, client, http.MethodGet, target, nil)
	etag := whole.header.Get("Etag")
	for _, header := range [][]string{{}, {"Accept", "application/json"}, {"Accept", "application/jwt"}, {"Accept", "text/html"}, {"Accept-Language", "xx"}} {
		a := do(t, client, http.MethodGet, target, nil, header...)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || !bytes.Equal(a.body, whole.body) ||
			a.header.Get("Vary") != "Accept, Accept-Language" || !strings.Contains(a.header.Get("Cache-Control"), "max-age") {
			t.Errorf("%v: %d %v", header, a.status, a.header)
		}
	}
	head := do(t, client, http.MethodHead, target, nil)
	for name := range whole.header {
		if name != "Date" && head.header.Get(name) != whole.header.Get(name) {
			t.Errorf("check 50: HEAD has %s %q, GET %q", name, head.header.Get(name), whole.header.Get(name))
		}
	}
	for value, status := range map[string]int{etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200, "": 200, strings.Trim(etag, `"`): 200} {
		a := do(t, client, http.MethodGet, target, nil, "If-None-Match", value)
		if a.status != status || status == 304 && (len(a.body) > 0 || a.header.Get("Etag") != etag) {
			t.Errorf("If-None-Match %q: %d", value, a.status)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		a := do(t, client, method, target, nil)
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("check 50: %s: %d, Allow %q", method, a.status, a.header.Get("Allow"))
		}
	}
}

// TestMethods: 405 with Allow at every endpoint, checks 87, 141.
func TestMethods(t *testing.T) {
	i, _ := unsigned(t, config.Issuer{Identifier: "https://localhost:8443/t"})
	p, err := i.publish(wire.IdentitiesResponse{Identities: []wire.Identity{{Label: "d", DID: "did:web:localhost%3A8443:t", DIDDocument: []byte(`{"id":"did:web:localhost%3A8443:t"}`), Algorithm: issuance.ES256}}})
	if err != nil {
		t.Fatal(err)
	}
	i.published.Store(p)
	client := serve(t, i.Handler())
	for path, allow := range map[string]string{"/t/token": "POST", "/t/nonce": "POST", "/t/credential": "POST", "/t/offers/x": "GET, HEAD", "/t/crl/x": "GET, HEAD", "/t/iaca/x": "GET, HEAD", "/t/did.json": "GET, HEAD",
		linkagePath: "GET, HEAD", vcIssuerPath + "/t": "GET, HEAD"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			a := do(t, client, method, "https://localhost:8443"+path, nil)
			if allowed := strings.Contains(allow, method); !allowed && (a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != allow) {
				t.Errorf("%s %s: %d, Allow %q", method, path, a.status, a.header.Get("Allow"))
			}
		}
	}
}

// TestWebWallets: a page of any origin may use every endpoint, check 155.
func TestWebWallets(t *testing.T) {
	_, client := unsigned(t, config.Issuer{Identifier: "https://issuer.example.com"})
	for _, path := range []string{"/.well-known/openid-credential-issuer", "/nonce", "/token", "/credential", "/offers/x", "/nowhere"} {
		a := do(t, client, http.MethodOptions, "https://issuer.example.com"+path, nil, "Origin", "https://wallet.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization, content-type")
		if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Authorization") || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "POST") {
			t.Errorf("preflight %s: %d %v", path, a.status, a.header)
		}
	}
	a := do(t, client, http.MethodPost, "https://issuer.example.com/credential", nil, "Origin", "https://wallet.example")
	if a.status != http.StatusUnauthorized || a.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "WWW-Authenticate") || a.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a.header.Get("Strict-Transport-Security") == "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", a.header)
	}
}

// TestPublishRefuses: what the signer tells must be readable.
func TestPublishRefuses(t *testing.T) {
	i, _ := unsigned(t, config.Issuer{Identifier: "https://localhost:8443"})
	for name, id := range map[string]wire.Identity{
		"public key":  {Label: "k", PublicKey: []byte{1}},
		"certificate": {Label: "k", Chain: [][]byte{{1}}},
		"DID":         {Label: "k", DID: "did:web:", DIDDocument: []byte("{}")},
		"DID's host":  {Label: "k", DID: "did:web:%zz", DIDDocument: []byte("{}")},
	} {
		if _, err := i.publish(wire.IdentitiesResponse{Identities: []wire.Identity{id}}); err == nil || !strings.Contains(err.Error(), "key k") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
