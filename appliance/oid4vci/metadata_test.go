package oid4vci

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"path/filepath"
	"regexp"
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

// TestWellKnown: the path is inserted between host and path, check 21, 58; what
// drafts up to 15 appended is served too, check 22.
func TestWellKnown(t *testing.T) {
	const credential, server, openID = "/.well-known/openid-credential-issuer", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
	for _, c := range []struct {
		identifier string
		member     map[string]string // path → the member that names the issuer, "" for 404
	}{
		{"https://issuer.example.com", map[string]string{credential: "credential_issuer", server: "issuer", openID: "issuer", credential + "/": "", credential + "/t": "", "/t" + credential: "", "/": ""}},
		{"https://issuer.example.com:8443/t", map[string]string{credential + "/t": "credential_issuer", server + "/t": "issuer", openID + "/t": "issuer",
			"/t" + credential: "credential_issuer", "/t" + openID: "issuer", credential: "", server: "", credential + "/t/": "", credential + "/T": "", "/t" + server: ""}},
		{"https://issuer.example.com/a/b-c.d", map[string]string{credential + "/a/b-c.d": "credential_issuer", server + "/a/b-c.d": "issuer", "/a/b-c.d" + credential: "credential_issuer", credential + "/a": "", "/a" + credential: ""}},
	} {
		_, client := unsigned(t, config.Issuer{Identifier: c.identifier})
		host := "https://" + strings.Split(c.identifier, "/")[2]
		for path, member := range c.member {
			t.Run(c.identifier+" "+path, func(t *testing.T) {
				a := do(t, client, http.MethodGet, host+path, nil)
				if member == "" {
					if a.status != http.StatusNotFound {
						t.Errorf("%d %s", a.status, a.body)
					}
					return
				}
				if a.status != http.StatusOK || a.object(t)[member] != c.identifier || a.header.Get("Content-Type") != "application/json" {
					t.Errorf("%d %s %s", a.status, a.header, a.body)
				}
			})
		}
	}
}

// metadataRules are what the digest's §3.2 says of each top-level member; a
// member that is not here must not be there.
var metadataRules = map[string]func(t *testing.T, id string, v any){
	"credential_issuer":            func(t *testing.T, id string, v any) { want(t, v == id, "check 23", v) },
	"credential_endpoint":          func(t *testing.T, id string, v any) { want(t, v == id+"/credential", "check 29", v) },
	"nonce_endpoint":               func(t *testing.T, id string, v any) { want(t, v == id+"/nonce", "check 29, 47", v) },
	"deferred_credential_endpoint": func(t *testing.T, id string, v any) { want(t, v == id+"/deferred", "check 29", v) },
	"notification_endpoint":        func(t *testing.T, id string, v any) { want(t, v == id+"/notification", "check 29", v) },
	"display":                      func(t *testing.T, _ string, v any) { checkDisplay(t, v, false) },
	"batch_credential_issuance": func(t *testing.T, _ string, v any) {
		size, _ := v.(map[string]any)["batch_size"].(float64)
		want(t, size >= 2 && size == float64(int(size)), "check 43", v)
	},
	"credential_configurations_supported": func(t *testing.T, _ string, v any) {
		all, _ := v.(map[string]any)
		want(t, len(all) > 0, "check 31", v)
		for id, c := range all {
			t.Run(id, func(t *testing.T) { checkConfiguration(t, c.(map[string]any)) })
		}
	},
}

func want(t *testing.T, holds bool, what string, v any) {
	t.Helper()
	if !holds {
		t.Errorf("%s: %v", what, v)
	}
}

// checkDisplay: non-empty, one object for each language, check 40; colours, check 42.
func checkDisplay(t *testing.T, v any, named bool) {
	t.Helper()
	list, _ := v.([]any)
	want(t, len(list) > 0, "check 40: display without elements", v)
	seen := map[any]bool{}
	for _, e := range list {
		d := e.(map[string]any)
		want(t, !seen[d["locale"]], "check 40: a language twice", v)
		seen[d["locale"]] = true
		want(t, !named || d["name"] != nil, "check 40: no name", d)
		if logo, has := d["logo"].(map[string]any); has {
			want(t, logo["uri"] != nil, "check 40: a logo without uri", d)
		}
		for _, name := range []string{"background_color", "text_color"} {
			if color, has := d[name].(string); has {
				want(t, regexp.MustCompile(`^#[0-9a-fA-F]{6}$`).MatchString(color), "check 42", d)
			}
		}
		for name := range d {
			want(t, slices.Contains([]string{"name", "locale", "logo", "description", "background_color", "text_color"}, name), "an unknown member", name)
		}
	}
}

// checkConfiguration holds one configuration against the digest's §3.3.
func checkConfiguration(t *testing.T, c map[string]any) {
	_, hasMethods := c["cryptographic_binding_methods_supported"]
	types, hasTypes := c["proof_types_supported"].(map[string]any)
	want(t, hasMethods && hasTypes, "check 32, 33", c)
	for name, v := range types {
		members := v.(map[string]any)
		list, _ := members["proof_signing_alg_values_supported"].([]any)
		want(t, name == "jwt" && slices.Equal(list, []any{"ES256", "ES384", "EdDSA"}), "check 34", v)
		_, attested := members["key_attestations_required"]
		want(t, !attested, "check 35", v)
	}
	if algorithms, has := c["credential_signing_alg_values_supported"].([]any); has {
		want(t, len(algorithms) > 0, "signing algorithms without elements", c)
		for _, a := range algorithms {
			_, number := a.(float64)
			want(t, number == (c["format"] == "mso_mdoc"), "check 37, 38", a)
		}
	}
	methods, _ := c["cryptographic_binding_methods_supported"].([]any)
	members := map[string]bool{"format": true, "scope": true, "cryptographic_binding_methods_supported": true, "proof_types_supported": true,
		"credential_signing_alg_values_supported": true, "credential_metadata": true}
	switch c["format"] {
	case "mso_mdoc":
		want(t, c["doctype"] != nil && slices.Contains(methods, any("cose_key")), "check 37", c)
		members["doctype"] = true
	case "dc+sd-jwt":
		want(t, c["vct"] != nil, "check 38", c)
		members["vct"] = true
	case "jwt_vc_json":
		list, _ := c["credential_definition"].(map[string]any)["type"].([]any)
		want(t, len(list) > 1, "check 39", c)
		members["credential_definition"] = true
	default:
		t.Errorf("check 31: format %v", c["format"])
	}
	want(t, c["scope"] != "" && c["scope"] != nil, "check 48", c)
	for name := range c {
		want(t, members[name], "a member that wallets do not know", name)
	}
	metadata, _ := c["credential_metadata"].(map[string]any)
	checkDisplay(t, metadata["display"], true)
	checkPaths(t, metadata["claims"], c["format"] == "mso_mdoc")
}

// checkPaths: non-empty, two components in an mdoc, none twice, check 41.
func checkPaths(t *testing.T, v any, mdoc bool) {
	t.Helper()
	seen := map[string]bool{}
	list, _ := v.([]any)
	want(t, len(list) > 0, "claims without elements", v)
	for _, e := range list {
		claim := e.(map[string]any)
		path, _ := claim["path"].([]any)
		text, err := json.Marshal(path)
		want(t, err == nil && len(path) > 0 && (!mdoc || len(path) >= 2) && !seen[string(text)], "check 41", claim)
		seen[string(text)] = true
		if display, has := claim["display"]; has {
			checkDisplay(t, display, false)
		}
	}
}

// TestMetadata holds every member against the digest, on the signer's real keys.
func TestMetadata(t *testing.T) {
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) {
		i.Display = []config.Display{{Name: "Utopia", Locale: "en", LogoURI: "https://issuer.example.com/logo.svg", LogoAlt: "Arms"}, {Name: "Utopien", Locale: "de"}}
	}})
	a := r.get(t, "/.well-known/openid-credential-issuer")
	metadata := a.object(t)
	for _, name := range []string{"credential_issuer", "credential_endpoint", "nonce_endpoint", "display", "credential_configurations_supported"} {
		want(t, metadata[name] != nil, "missing", name)
	}
	want(t, metadata["signed_metadata"] == nil, "check 49", metadata)
	for name, v := range metadata {
		rule := metadataRules[name]
		if rule == nil {
			t.Errorf("member %q has no rule", name)
			continue
		}
		t.Run(name, func(t *testing.T) { rule(t, r.identifier, v) })
	}
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

// TestBeforeRefresh: without the signer's keys there are no signing algorithms,
// rather than empty ones, check 69.
func TestBeforeRefresh(t *testing.T) {
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

// TestASMetadata: the authorization server's metadata.
func TestASMetadata(t *testing.T) {
	for _, anonymous := range []bool{true, false} {
		_, client := unsigned(t, config.Issuer{Identifier: "https://issuer.example.com/t", AnonymousAccess: &anonymous})
		got := do(t, client, http.MethodGet, "https://issuer.example.com/.well-known/oauth-authorization-server/t", nil).object(t)
		for name, value := range map[string]any{
			"issuer":                                          "https://issuer.example.com/t",       // check 59
			"token_endpoint":                                  "https://issuer.example.com/t/token", // check 60
			"grant_types_supported":                           []any{GrantType},                     // check 61
			"token_endpoint_auth_methods_supported":           []any{"none"},
			"authorization_details_types_supported":           []any{"openid_credential"},                                     // check 65
			"pre-authorized_grant_anonymous_access_supported": anonymous,                                                      // checks 62, 63
			"scopes_supported":                                []any{"eu.europa.ec.eudi.pid.mdoc", pidID, residenceID, mdlID}, // in file order
		} {
			have, err := json.Marshal(got[name])
			if err != nil {
				t.Fatal(err)
			}
			expected, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			want(t, bytes.Equal(have, expected), name, string(have))
			delete(got, name)
		}
		want(t, len(got) == 0, "check 64, 69: further members", got)
	}
}

// TestConditionalRequests: HEAD, entity tags, methods and media types of what is
// built once, checks 24, 25, 27, 28, 50, 51.
func TestConditionalRequests(t *testing.T) {
	_, client := unsigned(t, config.Issuer{Identifier: "https://issuer.example.com"})
	const target = "https://issuer.example.com/.well-known/openid-credential-issuer"
	whole := do(t, client, http.MethodGet, target, nil)
	etag := whole.header.Get("Etag")
	for _, header := range [][]string{{}, {"Accept", "application/json"}, {"Accept", "application/jwt"}, {"Accept", "text/html"}, {"Accept-Language", "de"}} {
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
	for path, allow := range map[string]string{"/t/token": "POST", "/t/nonce": "POST", "/t/credential": "POST", "/t/offers/x": "GET, HEAD", "/t/crl/x": "GET, HEAD", "/t/iaca/x": "GET, HEAD", "/t/did.json": "GET, HEAD"} {
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
