package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/issuance"
	"chancery/issuance/iaca"
	"chancery/issuance/sdjwt"

	"github.com/go-jose/go-jose/v4"
)

// counter is a small issuer of SD-JWT VCs over HTTPS for the wallet command.
type counter struct {
	t       *testing.T
	server  *httptest.Server
	signer  crossSigner
	claims  map[string]any
	root    string // file with the trusted root
	ca      string // file with the server's CA
	redeems int
	// deferrals is how often a credential is not ready yet.
	deferrals int
	waiting   []*ecdsa.PublicKey
	noRefresh bool // no refresh token is given
}

func newCounter(t *testing.T) *counter {
	root, signers := crossPKI(t, elliptic.P256(), time.Now())
	c := &counter{t: t, signer: signers[iaca.CredentialSigner], claims: map[string]any{"family_name": "Müstermann", "picture": pixel, "nationalities": []any{"UT"}}}
	c.server = httptest.NewTLSServer(c)
	t.Cleanup(c.server.Close)
	dir := t.TempDir()
	c.root, c.ca = filepath.Join(dir, "root.pem"), filepath.Join(dir, "ca.pem")
	for file, der := range map[string][]byte{c.root: root.Raw, c.ca: c.server.Certificate().Raw} {
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// pixel is a picture as a data URL.
const pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

func (c *counter) link() string {
	offer, err := json.Marshal(map[string]any{"credential_issuer": c.server.URL, "credential_configuration_ids": []string{"pid"},
		"grants": map[string]any{"urn:ietf:params:oauth:grant-type:pre-authorized_code": map[string]any{"pre-authorized_code": "c", "tx_code": map[string]any{}}}})
	if err != nil {
		c.t.Fatal(err)
	}
	return "openid-credential-offer://?credential_offer=" + url.QueryEscape(string(offer))
}

// ServeHTTP answers metadata, token, nonce and credential requests.
func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	answers := map[string]any{
		"/.well-known/openid-credential-issuer": map[string]any{"credential_issuer": c.server.URL, "credential_endpoint": c.server.URL + "/credential", "nonce_endpoint": c.server.URL + "/nonce",
			"deferred_credential_endpoint": c.server.URL + "/deferred", "batch_credential_issuance": map[string]any{"batch_size": 3},
			"display": []any{map[string]any{"name": "Utopia\x1b[31m"}}, "credential_configurations_supported": map[string]any{"pid": map[string]any{"format": "dc+sd-jwt", "vct": "urn:test",
				"cryptographic_binding_methods_supported": []string{"jwk"}, "proof_types_supported": map[string]any{"jwt": map[string]any{"proof_signing_alg_values_supported": []string{"ES256"}}},
				"credential_metadata": map[string]any{"claims": []any{map[string]any{"path": []any{"family_name"}, "mandatory": true}}}}}},
		"/.well-known/oauth-authorization-server": map[string]any{"issuer": c.server.URL, "token_endpoint": c.server.URL + "/token", "pre-authorized_grant_anonymous_access_supported": true,
			"grant_types_supported": []string{"urn:ietf:params:oauth:grant-type:pre-authorized_code", "refresh_token"}},
		"/token": map[string]any{"access_token": "t", "token_type": "bearer", "expires_in": 60, "refresh_token": "r"},
		"/nonce": map[string]any{"c_nonce": "n"},
	}
	answer := answers[r.URL.Path]
	switch {
	case r.URL.Path == "/credential" || r.URL.Path == "/deferred":
		if r.URL.Path == "/credential" {
			c.waiting = c.holders(r)
		}
		answer = c.answer(w)
	case r.URL.Path == "/token" && r.FormValue("tx_code") != "1234" && r.FormValue("refresh_token") != "r":
		w.WriteHeader(http.StatusBadRequest)
		answer = map[string]any{"error": "invalid_grant", "error_description": "the transaction code is wrong"}
	case r.URL.Path == "/token":
		c.redeems++
		if c.noRefresh {
			delete(answer.(map[string]any), "refresh_token")
		}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		c.t.Error(err)
	}
}

// holders returns the keys in the request's proofs.
func (c *counter) holders(r *http.Request) []*ecdsa.PublicKey {
	var request struct{ Proofs struct{ JWT []string } }
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		c.t.Fatal(err)
	}
	var keys []*ecdsa.PublicKey
	for _, text := range request.Proofs.JWT {
		proof, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			c.t.Fatal(err)
		}
		keys = append(keys, proof.Signatures[0].Protected.JSONWebKey.Key.(*ecdsa.PublicKey))
	}
	return keys
}

// answer issues for the keys that wait, or defers.
func (c *counter) answer(w http.ResponseWriter) any {
	if c.deferrals > 0 {
		c.deferrals--
		w.WriteHeader(http.StatusAccepted)
		return map[string]any{"transaction_id": "transaction", "interval": 0.001}
	}
	var list []any
	for _, key := range c.waiting {
		list = append(list, map[string]any{"credential": c.issue(key)})
	}
	return map[string]any{"credentials": list}
}

// issue makes a credential for a key.
func (c *counter) issue(holder *ecdsa.PublicKey) string {
	now := time.Now().Truncate(time.Hour)
	p, err := sdjwt.Prepare(sdjwt.Request{VCT: "urn:test", Issuer: crossIssuer, Claims: c.claims, Disclose: []sdjwt.Path{{"family_name"}}, Algorithm: issuance.ES256,
		Holder: holder, Chain: [][]byte{c.signer.leaf}, IssuedAt: now, NotBefore: now, Expires: now.Add(24 * time.Hour)})
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := c.signer.sign(p)
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

func TestWalletAccept(t *testing.T) {
	c := newCounter(t)
	out := filepath.Join(t.TempDir(), "wallet")
	status, shown, errs := run(t, nil, "wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.ca, "--trust", c.root, "--offline", "--out", out)
	if status != 0 {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	for _, words := range []string{"from Utopia\uFFFD[31m, " + c.server.URL, "family_name *", "Müstermann", "picture", "PNG image, 1 × 1, 70 bytes", "VERIFIED:", "Trusted CA", "Kept in " + filepath.Join(out, "pid.sd-jwt")} {
		if !strings.Contains(shown, words) {
			t.Errorf("%q is not shown:\n%s", words, shown)
		}
	}
	files, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil || !slices.Equal(files, []string{filepath.Join(out, "pid.key.json"), filepath.Join(out, "pid.report.json"), filepath.Join(out, "pid.sd-jwt"), filepath.Join(out, "state.json")}) {
		t.Errorf("%v, %v", files, err)
	}
	if status, shown, _ := run(t, nil, "verify", "--trust", c.root, "--offline", files[2]); status != 0 || !strings.Contains(shown, "VERIFIED") {
		t.Errorf("verify: %d\n%s", status, shown)
	}

	// What is there is not overwritten, and the code is not spent for it.
	status, _, errs = run(t, nil, "wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.ca, "--out", out)
	if status != 1 || !strings.Contains(errs, "exists: choose another folder") || c.redeems != 1 {
		t.Errorf("%d redeemed %d times: %s", status, c.redeems, errs)
	}
}

func TestWalletAcceptJudges(t *testing.T) {
	c := newCounter(t)
	accept := func(more ...string) (int, string, string) {
		t.Helper()
		return run(t, map[string]string{"CHANCERY_CA_FILE": c.ca}, append([]string{"wallet", "accept", c.link(), "--tx-code", "1234", "--offline"}, more...)...)
	}
	if status, shown, errs := accept(); status != 0 || !strings.Contains(shown, "whether the issuer is to be trusted was not asked") {
		t.Errorf("without --trust: %d\n%s%s", status, shown, errs)
	}
	other := newCounter(t)
	if status, shown, _ := accept("--trust", other.root); status != 1 || !strings.Contains(shown, "FAILED issuer trusted") || !strings.Contains(shown, "NOT VERIFIED") {
		t.Errorf("with another root: %d\n%s", status, shown)
	}
	var result struct {
		Issuer      string
		Credentials []taken
	}
	status, shown, _ := accept("--trust", c.root, "--json")
	if err := json.Unmarshal([]byte(shown), &result); err != nil || status != 0 || len(result.Credentials) != 1 || !result.Credentials[0].Verified {
		t.Errorf("--json: %d %v\n%s", status, err, shown)
	}
	delete(c.claims, "family_name")
	c.claims["family"] = "M"
	if status, shown, _ := accept("--trust", c.root); status != 1 || !strings.Contains(shown, "mandatory claims are missing: family_name") {
		t.Errorf("incomplete: %d\n%s", status, shown)
	}
	if status, _, errs := run(t, nil, "wallet", "accept", c.link(), "--tx-code", "1235", "--ca", c.ca); status != 1 || !strings.Contains(errs, "token: HTTP 400 invalid_grant (the transaction code is wrong)") {
		t.Errorf("wrong code: %d %s", status, errs)
	}
	if status, _, errs := run(t, nil, "wallet", "accept", c.link(), "--ca", c.ca); status != 1 || !strings.Contains(errs, "give it with --tx-code") {
		t.Errorf("no code: %d %s", status, errs)
	}
	if status, _, errs := run(t, nil, "wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.root); status != 1 || !strings.Contains(errs, "certificate") {
		t.Errorf("server that is not trusted: %d %s", status, errs)
	}
}
