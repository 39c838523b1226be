package wallet

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// issuer is a Credential Issuer that does everything right until a test spoils
// a part of it. It checks what the wallet sends.
type issuer struct {
	t        *testing.T
	server   *httptest.Server
	path     string // of the Credential Issuer Identifier
	offer    map[string]any
	metadata map[string]any
	as       map[string]any
	token    map[string]any
	nonce    map[string]any
	response map[string]any
	// statuses and headers override what a path answers with.
	statuses map[string]int
	headers  map[string]map[string]string
	bodies   map[string]string
	// staleNonces is how many credential requests are refused with invalid_nonce.
	staleNonces int
	requests    []string
	proofs      []*jose.JSONWebSignature
	form        url.Values
	requested   map[string]any
}

func newIssuer(t *testing.T, path string) *issuer {
	i := &issuer{t: t, path: path, statuses: map[string]int{}, headers: map[string]map[string]string{}, bodies: map[string]string{}}
	i.server = httptest.NewTLSServer(i)
	t.Cleanup(i.server.Close)
	id := i.id()
	i.offer = map[string]any{"credential_issuer": id, "credential_configuration_ids": []any{"pid"},
		"grants": map[string]any{grantType: map[string]any{"pre-authorized_code": "code-1", "tx_code": map[string]any{"length": 6, "description": "By letter"}}}}
	i.metadata = map[string]any{"credential_issuer": id, "credential_endpoint": id + "/credential", "nonce_endpoint": id + "/nonce",
		"display": []any{map[string]any{"name": "Utopia", "locale": "en"}},
		"credential_configurations_supported": map[string]any{"pid": map[string]any{"format": "dc+sd-jwt", "vct": "urn:eudi:pid:1", "scope": "pid",
			"credential_signing_alg_values_supported": []any{"ES256"}, "cryptographic_binding_methods_supported": []any{"jwk", "did:jwk", "did:key"},
			"proof_types_supported": map[string]any{"jwt": map[string]any{"proof_signing_alg_values_supported": []any{"ES256", "ES384", "EdDSA"}}},
			"credential_metadata": map[string]any{"display": []any{map[string]any{"name": "PID", "locale": "en"}},
				"claims": []any{map[string]any{"path": []any{"family_name"}, "mandatory": true}, map[string]any{"path": []any{"nationalities", nil}}}}}}}
	i.as = map[string]any{"issuer": id, "token_endpoint": id + "/token", "grant_types_supported": []any{grantType}, "pre-authorized_grant_anonymous_access_supported": true}
	i.token = map[string]any{"access_token": "token-1", "token_type": "Bearer", "expires_in": 300}
	i.nonce = map[string]any{"c_nonce": "nonce-1"}
	i.response = map[string]any{"credentials": []any{map[string]any{"credential": "a.b.c~"}}}
	return i
}

func (i *issuer) id() string { return i.server.URL + i.path }

// ServeHTTP answers the flow's six requests.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, i.path)
	answers := map[string]map[string]any{
		"/.well-known/openid-credential-issuer" + i.path:   i.metadata,
		"/.well-known/oauth-authorization-server" + i.path: i.as,
		"/offer/1": i.offer, "/token": i.token, "/nonce": i.nonce, "/credential": i.response,
	}
	answer, found := answers[r.URL.Path]
	if !found {
		answer, found = answers[name]
	} else {
		name = r.URL.Path
	}
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		name = strings.TrimSuffix(r.URL.Path, i.path)
	}
	if !found {
		http.NotFound(w, r)
		return
	}
	i.requests = append(i.requests, r.Method+" "+name)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	for k, v := range i.headers[name] {
		w.Header().Set(k, v)
	}
	status := http.StatusOK
	switch name {
	case "/token":
		if err := r.ParseForm(); err != nil {
			i.t.Error(err)
		}
		i.form = r.PostForm
	case "/credential":
		if !i.credentialRequest(r) {
			status, answer = http.StatusBadRequest, map[string]any{"error": "invalid_nonce"}
		}
	}
	if i.statuses[name] != 0 {
		status = i.statuses[name]
	}
	w.WriteHeader(status)
	if body, found := i.bodies[name]; found {
		fmt.Fprint(w, body)
		return
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		i.t.Error(err)
	}
}

// credentialRequest checks the request's proof and says whether its nonce is taken.
func (i *issuer) credentialRequest(r *http.Request) bool {
	i.requested = nil
	if err := json.NewDecoder(r.Body).Decode(&i.requested); err != nil {
		i.t.Error(err)
	}
	if r.Header.Get("Authorization") != "Bearer token-1" {
		i.t.Errorf("Authorization is %q", r.Header.Get("Authorization"))
	}
	proofs, _ := i.requested["proofs"].(map[string]any)
	list, _ := proofs["jwt"].([]any)
	if len(list) == 1 {
		proof, err := jose.ParseSignedCompact(list[0].(string), []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA})
		if err != nil {
			i.t.Error(err)
			return true
		}
		i.proofs = append(i.proofs, proof)
	}
	i.staleNonces--
	return i.staleNonces < 0
}

func (i *issuer) link() string {
	return "openid-credential-offer://?credential_offer_uri=" + url.QueryEscape(i.id()+"/offer/1")
}

func (i *issuer) wallet() *Wallet { return &Wallet{HTTP: i.server.Client()} }

func TestAccept(t *testing.T) {
	for _, path := range []string{"", "/tenant", "/a/b"} {
		for _, algorithm := range []string{"ES256", "ES384", "EdDSA"} {
			for _, binding := range []Binding{Automatic, JWK, DIDJWK, DIDKey} {
				t.Run(path+algorithm+string(binding), func(t *testing.T) {
					i := newIssuer(t, path)
					w := i.wallet()
					w.Algorithm, w.Binding = algorithm, binding
					result, err := w.Accept(t.Context(), i.link(), "123456")
					if err != nil {
						t.Fatal(err)
					}
					c := result.Credentials[0]
					if len(result.Credentials) != 1 || c.Text != "a.b.c~" || c.Configuration != "pid" || c.Metadata.Type != "urn:eudi:pid:1" || result.Metadata.Name != "Utopia" {
						t.Errorf("result: %+v", result)
					}
					i.checkProof(t, c, binding)
					if i.form.Get("tx_code") != "123456" || i.form.Get("pre-authorized_code") != "code-1" || i.form.Has("client_id") {
						t.Errorf("token request: %v", i.form)
					}
					want := []string{"GET /offer/1", "GET /.well-known/openid-credential-issuer", "GET /.well-known/oauth-authorization-server", "POST /token", "POST /nonce", "POST /credential"}
					if !slices.Equal(i.requests, want) {
						t.Errorf("requests: %q", i.requests)
					}
				})
			}
		}
	}
}

// checkProof verifies the proof with the key that the wallet kept.
func (i *issuer) checkProof(t *testing.T, c Credential, binding Binding) {
	t.Helper()
	proof := i.proofs[len(i.proofs)-1]
	payload, err := proof.Verify(c.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims["aud"] != i.id() || claims["nonce"] != "nonce-1" || claims["iat"] == nil || claims["iss"] != nil {
		t.Errorf("claims: %v", claims)
	}
	header := proof.Signatures[0].Protected
	if header.ExtraHeaders["typ"] != proofType {
		t.Errorf("typ is %v", header.ExtraHeaders["typ"])
	}
	if byKey := binding == Automatic || binding == JWK; byKey != (header.JSONWebKey != nil) || byKey == (header.KeyID != "") {
		t.Errorf("binding %q: jwk %v, kid %q", binding, header.JSONWebKey, header.KeyID)
	}
	if binding == DIDJWK || binding == DIDKey {
		if !strings.HasPrefix(header.KeyID, string(binding)+":") || !strings.Contains(header.KeyID, "#") {
			t.Errorf("kid is %q", header.KeyID)
		}
	}
}

func TestOfferByValue(t *testing.T) {
	i := newIssuer(t, "")
	data, err := json.Marshal(i.offer)
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"openid-credential-offer://", "haip-vci://", "https://wallet.example/take"} {
		if _, err := i.wallet().Accept(t.Context(), scheme+"?credential_offer="+url.QueryEscape(string(data)), "123456"); err != nil {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// set changes a member deep in an object; the last argument is the value.
func set(object map[string]any, path ...any) {
	for _, name := range path[:len(path)-2] {
		object = object[name.(string)].(map[string]any)
	}
	name, value := path[len(path)-2].(string), path[len(path)-1]
	if value == nil {
		delete(object, name)
		return
	}
	object[name] = value
}

func TestOneFaultOfTheIssuer(t *testing.T) {
	const configurations = "credential_configurations_supported"
	header := func(path, name, value string) func(*issuer) {
		return func(i *issuer) { i.headers[path] = map[string]string{name: value} }
	}
	for _, c := range []struct {
		name  string
		step  Step
		words string
		spoil func(*issuer)
	}{
		{"offer gone", StepOffer, "404", func(i *issuer) { i.statuses["/offer/1"] = 404 }},
		{"offer as JWT", StepOffer, "application/json", header("/offer/1", "Content-Type", "application/jwt")},
		{"offer redirects", StepOffer, "redirect", func(i *issuer) {
			i.statuses["/offer/1"] = 302
			i.headers["/offer/1"] = map[string]string{"Location": "/elsewhere"}
		}},
		{"offer with a name twice", StepOffer, "twice", func(i *issuer) { i.bodies["/offer/1"] = `{"credential_issuer":"a","credential_issuer":"b"}` }},
		{"offer of nothing", StepOffer, "credential_configuration_ids", func(i *issuer) { set(i.offer, "credential_configuration_ids", []any{}) }},
		{"offer twice the same", StepOffer, "credential_configuration_ids", func(i *issuer) { set(i.offer, "credential_configuration_ids", []any{"pid", "pid"}) }},
		{"offer without grant", StepOffer, "grants", func(i *issuer) { set(i.offer, "grants", nil) }},
		{"offer without code", StepOffer, "pre-authorized_code", func(i *issuer) { set(i.offer, "grants", grantType, "pre-authorized_code", nil) }},
		{"tx_code null", StepOffer, "tx_code", func(i *issuer) { i.offer["grants"].(map[string]any)[grantType].(map[string]any)["tx_code"] = nil }},
		{"tx_code mode", StepOffer, "input_mode", func(i *issuer) { set(i.offer, "grants", grantType, "tx_code", "input_mode", "alphanumeric") }},
		{"tx_code length", StepOffer, "length", func(i *issuer) { set(i.offer, "grants", grantType, "tx_code", "length", "6") }},
		{"tx_code description", StepOffer, "description", func(i *issuer) { set(i.offer, "grants", grantType, "tx_code", "description", strings.Repeat("x", 301)) }},
		{"authorization server in the offer", StepOffer, "authorization_server", func(i *issuer) { set(i.offer, "grants", grantType, "authorization_server", i.id()) }},
		{"issuer over http", StepOffer, "credential_issuer", func(i *issuer) { set(i.offer, "credential_issuer", "http://x.example") }},
		{"metadata of another", StepMetadata, "credential_issuer", func(i *issuer) { set(i.metadata, "credential_issuer", i.id()+"/") }},
		{"metadata as text", StepMetadata, "application/json", header("/.well-known/openid-credential-issuer", "Content-Type", "text/plain")},
		{"metadata lacks the configuration", StepMetadata, "not in", func(i *issuer) { set(i.offer, "credential_configuration_ids", []any{"mdl"}) }},
		{"no credential endpoint", StepMetadata, "credential_endpoint", func(i *issuer) { set(i.metadata, "credential_endpoint", nil) }},
		{"endpoint over http", StepMetadata, "nonce_endpoint", func(i *issuer) { set(i.metadata, "nonce_endpoint", "http://x.example/nonce") }},
		{"no nonce endpoint", StepMetadata, "nonce_endpoint", func(i *issuer) { set(i.metadata, "nonce_endpoint", nil) }},
		{"signed_metadata", StepMetadata, "signed_metadata", func(i *issuer) { set(i.metadata, "signed_metadata", "x") }},
		{"empty display", StepMetadata, "display", func(i *issuer) { set(i.metadata, "display", []any{}) }},
		{"display twice", StepMetadata, "locale", func(i *issuer) {
			set(i.metadata, "display", []any{map[string]any{"locale": "en"}, map[string]any{"locale": "en"}})
		}},
		{"logo without uri", StepMetadata, "logo", func(i *issuer) { set(i.metadata, "display", []any{map[string]any{"logo": map[string]any{}}}) }},
		{"batch of one", StepMetadata, "batch_size", func(i *issuer) { set(i.metadata, "batch_credential_issuance", map[string]any{"batch_size": 1}) }},
		{"no format", StepMetadata, "format", func(i *issuer) { set(i.metadata, configurations, "pid", "format", nil) }},
		{"no vct", StepMetadata, "vct", func(i *issuer) { set(i.metadata, configurations, "pid", "vct", nil) }},
		{"no doctype", StepMetadata, "doctype", func(i *issuer) { set(i.metadata, configurations, "pid", "format", "mso_mdoc") }},
		{"no credential_definition", StepMetadata, "credential_definition", func(i *issuer) { set(i.metadata, configurations, "pid", "format", "jwt_vc_json") }},
		{"COSE numbers for JOSE", StepMetadata, "credential_signing_alg", func(i *issuer) {
			set(i.metadata, configurations, "pid", "credential_signing_alg_values_supported", []any{-7})
		}},
		{"no signing algorithms", StepMetadata, "credential_signing_alg", func(i *issuer) {
			set(i.metadata, configurations, "pid", "credential_signing_alg_values_supported", []any{})
		}},
		{"bindings without proofs", StepMetadata, "together", func(i *issuer) { set(i.metadata, configurations, "pid", "proof_types_supported", nil) }},
		{"no proof algorithms", StepMetadata, "proof_signing_alg", func(i *issuer) {
			set(i.metadata, configurations, "pid", "proof_types_supported", "jwt", "proof_signing_alg_values_supported", []any{})
		}},
		{"attestation flag", StepMetadata, "key_attestations_required", func(i *issuer) {
			set(i.metadata, configurations, "pid", "proof_types_supported", "jwt", "key_attestations_required", false)
		}},
		{"nameless credential", StepMetadata, "name", func(i *issuer) {
			set(i.metadata, configurations, "pid", "credential_metadata", "display", []any{map[string]any{"locale": "en"}})
		}},
		{"claim without path", StepMetadata, "path", func(i *issuer) {
			set(i.metadata, configurations, "pid", "credential_metadata", "claims", []any{map[string]any{}})
		}},
		{"negative index", StepMetadata, "index", func(i *issuer) {
			set(i.metadata, configurations, "pid", "credential_metadata", "claims", []any{map[string]any{"path": []any{"a", -1}}})
		}},
		{"server of another", StepServer, "issuer", func(i *issuer) { set(i.as, "issuer", "https://x.example") }},
		{"empty array", StepServer, "empty array", func(i *issuer) { set(i.as, "scopes_supported", []any{}) }},
		{"no grant types", StepServer, "grant_types_supported", func(i *issuer) { set(i.as, "grant_types_supported", nil) }},
		{"other grant types", StepServer, "grant_types_supported", func(i *issuer) { set(i.as, "grant_types_supported", []any{"authorization_code"}) }},
		{"not anonymous", StepServer, "anonymous", func(i *issuer) { set(i.as, "pre-authorized_grant_anonymous_access_supported", false) }},
		{"no token endpoint", StepServer, "token_endpoint", func(i *issuer) { set(i.as, "token_endpoint", nil) }},
		{"token is kept", StepToken, "no-store", header("/token", "Cache-Control", "private")},
		{"no access token", StepToken, "access_token", func(i *issuer) { set(i.token, "access_token", nil) }},
		{"DPoP token that was not asked for", StepToken, "no DPoP proof", func(i *issuer) { set(i.token, "token_type", "DPoP") }},
		{"long token", StepToken, "expires_in", func(i *issuer) { set(i.token, "expires_in", 301) }},
		{"lifetime as text", StepToken, "expires_in", func(i *issuer) { set(i.token, "expires_in", "300") }},
		{"empty details", StepToken, "authorization_details", func(i *issuer) { set(i.token, "authorization_details", []any{}) }},
		{"nonce is kept", StepNonce, "no-store", header("/nonce", "Cache-Control", "max-age=9")},
		{"no nonce", StepNonce, "c_nonce", func(i *issuer) { set(i.nonce, "c_nonce", nil) }},
		{"nonce by 204", StepNonce, "204", func(i *issuer) { i.statuses["/nonce"] = 204; i.bodies["/nonce"] = "" }},
		{"credential is kept", StepCredential, "no-store", header("/credential", "Cache-Control", "private")},
		{"deferred, without an endpoint for it", StepCredential, "defers", func(i *issuer) { i.statuses["/credential"] = 202 }},
		{"two for one key", StepCredential, "one credential", func(i *issuer) { set(i.response, "credentials", []any{1, 2}) }},
		{"none", StepCredential, "one credential", func(i *issuer) { set(i.response, "credentials", []any{}) }},
		{"credential no string", StepCredential, "credential", func(i *issuer) { set(i.response, "credentials", []any{map[string]any{"credential": 1}}) }},
		{"transaction_id", StepCredential, "transaction_id", func(i *issuer) { set(i.response, "transaction_id", "x") }},
		{"draft's credential", StepCredential, "drafts", func(i *issuer) { set(i.response, "credential", "x") }},
		{"nonce stale for ever", StepCredential, "invalid_nonce", func(i *issuer) { i.staleNonces = 9 }},
		{"not JSON", StepCredential, "JSON", func(i *issuer) { i.bodies["/credential"] = "<html>" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIssuer(t, "/t")
			c.spoil(i)
			_, err := i.wallet().Accept(t.Context(), i.link(), "123456")
			var failure *Error
			if !errors.As(err, &failure) {
				t.Fatalf("error: %v", err)
			}
			if failure.Step != c.step || !strings.Contains(err.Error(), c.words) {
				t.Errorf("step %q: %v; want step %q and %q", failure.Step, err, c.step, c.words)
			}
			for _, secret := range []string{"code-1", "token-1", "123456", "offer/1"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error tells %q: %v", secret, err)
				}
			}
		})
	}
}

// The server's own words reach the person.
func TestServerErrors(t *testing.T) {
	for _, c := range []struct {
		path, body string
		status     int
		header     map[string]string
		want       string
	}{
		{"/token", `{"error":"invalid_grant","error_description":"wrong transaction code"}`, 400, nil, "token: HTTP 400 invalid_grant (wrong transaction code)"},
		{"/credential", `{"error":"credential_request_denied"}`, 400, nil, "credential: HTTP 400 credential_request_denied"},
		{"/token", `{"error":"invalid_grant","error_description":"\u0007"}`, 400, nil, "token: HTTP 400 invalid_grant error_description holds characters that are not allowed"},
		{"/token", `{"error":"invalid_\u001b[31m"}`, 400, nil, "token: HTTP 400 error holds characters that are not allowed"},
		{"/token", `{"problem":1}`, 400, nil, "token: HTTP 400 the error object has no error member"},
		{"/credential", `{"error":"temporarily_unavailable"}`, 503, map[string]string{"Retry-After": "5"}, "credential: HTTP 503 temporarily_unavailable try again after 5 s"},
		{"/token", `{"error":"invalid_grant"}`, 400, map[string]string{"Cache-Control": "private"}, "token: HTTP 400 invalid_grant Cache-Control lacks no-store"},
	} {
		i := newIssuer(t, "")
		i.bodies[c.path], i.statuses[c.path], i.headers[c.path] = c.body, c.status, c.header
		_, err := i.wallet().Accept(t.Context(), i.link(), "123456")
		if err == nil || err.Error() != c.want {
			t.Errorf("%v; want %s", err, c.want)
		}
	}
}

func TestStaleNonceIsReplacedOnce(t *testing.T) {
	i := newIssuer(t, "")
	i.staleNonces = 1
	if _, err := i.wallet().Accept(t.Context(), i.link(), "123456"); err != nil {
		t.Fatal(err)
	}
	if n := len(i.proofs); n != 2 {
		t.Errorf("%d proofs", n)
	}
}

func TestCredentialIdentifierIsUsed(t *testing.T) {
	i := newIssuer(t, "")
	set(i.token, "authorization_details", []any{map[string]any{"type": "openid_credential", "credential_configuration_id": "pid", "credential_identifiers": []any{"pid-7"}}})
	if _, err := i.wallet().Accept(t.Context(), i.link(), "123456"); err != nil {
		t.Fatal(err)
	}
	if i.requested["credential_identifier"] != "pid-7" || i.requested["credential_configuration_id"] != nil {
		t.Errorf("request: %v", i.requested)
	}
}

func TestUnboundCredential(t *testing.T) {
	i := newIssuer(t, "")
	pid := i.metadata["credential_configurations_supported"].(map[string]any)["pid"].(map[string]any)
	delete(pid, "cryptographic_binding_methods_supported")
	delete(pid, "proof_types_supported")
	result, err := i.wallet().Accept(t.Context(), i.link(), "123456")
	if err != nil {
		t.Fatal(err)
	}
	if result.Credentials[0].Key != nil || i.requested["proofs"] != nil {
		t.Errorf("a proof was sent: %v", i.requested)
	}
}

func TestTransactionCode(t *testing.T) {
	i := newIssuer(t, "")
	w := i.wallet()
	if _, err := w.Accept(t.Context(), i.link(), ""); err == nil || !strings.Contains(err.Error(), "--tx-code") {
		t.Errorf("without a code: %v", err)
	}
	w.TransactionCode = func(c TxCode) (string, error) {
		if c.InputMode != "numeric" || c.Length != 6 || c.Description != "By letter" {
			t.Errorf("asked for %+v", c)
		}
		return "000111", nil
	}
	if _, err := w.Accept(t.Context(), i.link(), ""); err != nil || i.form.Get("tx_code") != "000111" {
		t.Errorf("%v, sent %q", err, i.form.Get("tx_code"))
	}
	set(i.offer, "grants", grantType, "tx_code", nil)
	if _, err := w.Accept(t.Context(), i.link(), "123456"); err == nil {
		t.Error("a code was sent that nobody asked for")
	}
	if _, err := w.Accept(t.Context(), i.link(), ""); err != nil || i.form.Has("tx_code") {
		t.Errorf("%v, form %v", err, i.form)
	}
}

func TestWalletLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Wallet, *issuer)
		words  string
	}{
		{"algorithm the issuer does not take", func(w *Wallet, i *issuer) {
			set(i.metadata, "credential_configurations_supported", "pid", "proof_types_supported", "jwt", "proof_signing_alg_values_supported", []any{"ES512"})
		}, "ES512"},
		{"algorithm the wallet lacks", func(w *Wallet, i *issuer) {
			w.Algorithm = "ES512"
			set(i.metadata, "credential_configurations_supported", "pid", "proof_types_supported", "jwt", "proof_signing_alg_values_supported", []any{"ES512"})
		}, "cannot sign"},
		{"binding the issuer does not take", func(w *Wallet, i *issuer) {
			w.Binding = DIDKey
			set(i.metadata, "credential_configurations_supported", "pid", "cryptographic_binding_methods_supported", []any{"jwk"})
		}, "binds to none"},
		{"configuration that is not offered", func(w *Wallet, _ *issuer) { w.Configurations = []string{"mdl"} }, "does not offer"},
		{"server that is not trusted", func(w *Wallet, _ *issuer) {
			w.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{}}}
		}, "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIssuer(t, "")
			w := i.wallet()
			c.change(w, i)
			if _, err := w.Accept(t.Context(), i.link(), "123456"); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("error: %v; want %q", err, c.words)
			}
		})
	}
}

func TestMissingClaims(t *testing.T) {
	c := Configuration{Format: "dc+sd-jwt", Mandatory: [][]string{{"family_name"}, {"address", "country"}}}
	if got := c.Missing([][]string{{"family_name"}, {"address", "country", "x"}}); len(got) != 0 {
		t.Errorf("missing: %v", got)
	}
	if got := c.Missing([][]string{{"family"}, {"address"}}); !slices.Equal(got, []string{"family_name", "address.country"}) {
		t.Errorf("missing: %v", got)
	}
	c = Configuration{Format: "jwt_vc_json", Mandatory: [][]string{{"credentialSubject", "name"}, {"issuer"}}}
	if got := c.Missing([][]string{{"name"}}); len(got) != 0 {
		t.Errorf("missing: %v", got)
	}
}
