package oid4vci

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance"
)

// tokenCase is a token request. The name begins with the number of the check.
type tokenCase struct {
	name string
	// change spoils a right request's parameters, or replaces the body.
	change func(form url.Values)
	body   func(right string) string
	header []string
	status int
	code   string // "" for 200
}

const formType = "application/x-www-form-urlencoded"

// tokenCases are sent for an offer that has no transaction code.
var tokenCases = []tokenCase{
	{name: "73 tx_code nobody asked for", change: func(f url.Values) { f.Set("tx_code", "123456") }, status: 400, code: "invalid_request"},
	{name: "75 a code nobody made", change: func(f url.Values) { f.Set("pre-authorized_code", strings.Repeat("A", 40)) }, status: 400, code: "invalid_grant"},
	{name: "75 a code of another form", change: func(f url.Values) { f.Set("pre-authorized_code", "x y") }, status: 400, code: "invalid_grant"},
	{name: "75 a code changed", change: func(f url.Values) {
		code := f.Get("pre-authorized_code")
		f.Set("pre-authorized_code", code[:8]+string(code[8]^1)+code[9:])
	}, status: 400, code: "invalid_grant"},
	{name: "80 no code", change: func(f url.Values) { f.Del("pre-authorized_code") }, status: 400, code: "invalid_request"},
	{name: "80 an empty code", change: func(f url.Values) { f.Set("pre-authorized_code", "") }, status: 400, code: "invalid_request"},
	{name: "81 no grant_type", change: func(f url.Values) { f.Del("grant_type") }, status: 400, code: "invalid_request"},
	{name: "81 empty body", body: func(string) string { return "" }, status: 400, code: "invalid_request"},
	{name: "82 grant_type password", change: func(f url.Values) { f.Set("grant_type", "password") }, status: 400, code: "unsupported_grant_type"},
	{name: "82 grant_type in capitals", change: func(f url.Values) { f.Set("grant_type", strings.ToUpper(GrantType)) }, status: 400, code: "unsupported_grant_type"},
	{name: "83 the code twice", body: func(right string) string { return right + "&pre-authorized_code=x" }, status: 400, code: "invalid_request"},
	{name: "83 grant_type twice", body: func(right string) string { return right + "&grant_type=" + url.QueryEscape(GrantType) }, status: 400, code: "invalid_request"},
	{name: "83 an unknown parameter twice", body: func(right string) string { return right + "&x=1&x=2" }, status: 400, code: "invalid_request"},
	{name: "86 JSON", body: func(string) string { return `{"grant_type":"` + GrantType + `"}` }, header: []string{"Content-Type", "application/json"}, status: 400, code: "invalid_request"},
	{name: "86 no content type", header: []string{}, status: 400, code: "invalid_request"},
	{name: "86 multipart", header: []string{"Content-Type", "multipart/form-data; boundary=x"}, status: 400, code: "invalid_request"},
	{name: "86 not form-encoded", body: func(right string) string { return right + "&x=%zz" }, status: 400, code: "invalid_request"},
	{name: "86 a semicolon", body: func(right string) string { return right + ";x=y" }, status: 400, code: "invalid_request"},
	{name: "180 a body too long", body: func(right string) string { return right + "&x=" + strings.Repeat("x", maxForm) }, status: 413, code: "invalid_request"},
	{name: "85 authentication by header", header: []string{"Content-Type", formType, "Authorization", "Basic eDp5"}, status: 401, code: "invalid_client"},
	{name: "85 client_secret", change: func(f url.Values) { f.Set("client_id", "w"); f.Set("client_secret", "s") }, status: 400, code: "invalid_client"},
	{name: "85 client_assertion", change: func(f url.Values) { f.Set("client_assertion", "a.b.c") }, status: 400, code: "invalid_client"},
	{name: "85 client_id with a line break", change: func(f url.Values) { f.Set("client_id", "a\nb") }, status: 400, code: "invalid_request"},
	{name: "85 client_id beyond ASCII", change: func(f url.Values) { f.Set("client_id", "Wället") }, status: 400, code: "invalid_request"},
	{name: "85 client_id too long", change: func(f url.Values) { f.Set("client_id", strings.Repeat("w", 1025)) }, status: 400, code: "invalid_request"},
	{name: "90 a configuration that was not offered", change: details(`[{"type":"openid_credential","credential_configuration_id":"` + mdlID + `"}]`), status: 400, code: "invalid_authorization_details"},
	{name: "90 a configuration nobody knows", change: details(`[{"type":"openid_credential","credential_configuration_id":"x"}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 malformed JSON", change: details(`[{`), status: 400, code: "invalid_authorization_details"},
	{name: "91 no array", change: details(`{"type":"openid_credential","credential_configuration_id":"` + pidID + `"}`), status: 400, code: "invalid_authorization_details"},
	{name: "91 an empty array", change: details(`[]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 null", change: details(`null`), status: 400, code: "invalid_authorization_details"},
	{name: "91 an element that is no object", change: details(`["openid_credential"]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 another type", change: details(`[{"type":"payment","credential_configuration_id":"` + pidID + `"}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 no type", change: details(`[{"credential_configuration_id":"` + pidID + `"}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 no configuration", change: details(`[{"type":"openid_credential"}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 a configuration of a number", change: details(`[{"type":"openid_credential","credential_configuration_id":1}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 a configuration twice", change: details(`[{"type":"openid_credential","credential_configuration_id":"` + pidID + `"},{"type":"openid_credential","credential_configuration_id":"` + pidID + `"}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 a member twice", change: details(`[{"type":"openid_credential","type":"openid_credential","credential_configuration_id":"` + pidID + `"}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 something after the array", change: details(`[{"type":"openid_credential","credential_configuration_id":"` + pidID + `"}],"x":1`), status: 400, code: "invalid_authorization_details"},
	{name: "91 claims that are no array", change: details(`[{"type":"openid_credential","credential_configuration_id":"` + pidID + `","claims":{}}]`), status: 400, code: "invalid_authorization_details"},
	{name: "91 locations without elements", change: details(`[{"type":"openid_credential","credential_configuration_id":"` + pidID + `","locations":[]}]`), status: 400, code: "invalid_authorization_details"},
	{name: "93 a scope that was not offered", change: func(f url.Values) { f.Set("scope", mdlID) }, status: 400, code: "invalid_scope"},
	{name: "93 a scope offered and one not", change: func(f url.Values) { f.Set("scope", pidID+" "+mdlID) }, status: 400, code: "invalid_scope"},
	{name: "98 an unknown code with a tx_code", change: func(f url.Values) { f.Set("pre-authorized_code", strings.Repeat("A", 40)); f.Set("tx_code", "1") }, status: 400, code: "invalid_grant"},
	{name: "98 an unknown code with details that are malformed", change: func(f url.Values) {
		f.Set("pre-authorized_code", strings.Repeat("A", 40))
		f.Set("authorization_details", "[")
	}, status: 400, code: "invalid_grant"},
	{name: "the grant before the client", change: func(f url.Values) { f.Set("grant_type", "password"); f.Set("client_secret", "s") }, status: 400, code: "unsupported_grant_type"},
	{name: "the client before the code", change: func(f url.Values) { f.Del("pre-authorized_code"); f.Set("client_secret", "s") }, status: 400, code: "invalid_client"},
	{name: "70 all is well", status: 200},
	{name: "77 a second use", status: 400, code: "invalid_grant"},
}

func details(text string) func(url.Values) {
	return func(f url.Values) { f.Set("authorization_details", text) }
}

// TestTokenErrors sends one defect at a time for one and the same code: none of
// them spends it.
func TestTokenErrors(t *testing.T) {
	r := newRig(t, rigOptions{})
	o := r.offer(t, nil, pidID)
	for _, c := range tokenCases {
		t.Run(c.name, func(t *testing.T) {
			form := url.Values{"grant_type": {GrantType}, "pre-authorized_code": {o.Code}}
			if c.change != nil {
				c.change(form)
			}
			body := form.Encode()
			if c.body != nil {
				body = c.body(body)
			}
			if c.header == nil {
				c.header = []string{"Content-Type", formType}
			}
			a := do(t, r.client, http.MethodPost, r.identifier+"/token", strings.NewReader(body), c.header...)
			if c.code == "" {
				checkToken(t, a)
				return
			}
			refused(t, a, c.status, c.code) // check 99
			if a.header.Get("Pragma") != "no-cache" {
				t.Errorf("Pragma is %q", a.header.Get("Pragma"))
			}
			if has := a.header.Get("WWW-Authenticate") != ""; has != (c.status == 401) {
				t.Errorf("WWW-Authenticate is %q", a.header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Run("88 parameters in the URL", func(t *testing.T) {
		o := r.offer(t, nil, pidID)
		form := url.Values{"grant_type": {GrantType}, "pre-authorized_code": {o.Code}}
		refused(t, do(t, r.client, http.MethodPost, r.identifier+"/token?"+form.Encode(), nil, "Content-Type", formType), 400, "invalid_request")
	})
	t.Run("78 an alarm", func(t *testing.T) {
		events, _, err := r.store.Events(t.Context(), store.EventFilter{Kind: "offer.replayed", Subject: o.ID}, 10, "")
		if err != nil || len(events) != 1 {
			t.Errorf("%v, %v", events, err)
		}
	})
}

// checkToken: checks 70, 95, 103.
func checkToken(t *testing.T, a answer) {
	t.Helper()
	token := a.object(t)
	seconds, _ := token["expires_in"].(float64)
	if a.status != http.StatusOK || token["access_token"] == "" || token["token_type"] != "Bearer" || seconds != 300 || len(token) != 3 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", a.header)
	}
}

// TestTokenTolerates: what a request may have besides, checks 84, 92, 93.
func TestTokenTolerates(t *testing.T) {
	r := newRig(t, rigOptions{})
	for name, c := range map[string][]string{
		"84 an unknown parameter":         {"x", "y"},
		"84 an empty tx_code":             {"tx_code", ""},
		"84 resource twice":               {"resource", r.identifier, "resource", "https://other.example.com"},
		"84 empty authorization_details":  {"authorization_details", ""},
		"85 client_id, though not needed": {"client_id", "https://wallet.example/app"},
		"93 an empty scope":               {"scope", ""},
	} {
		t.Run(name, func(t *testing.T) {
			checkToken(t, r.form(t, append([]string{"grant_type", GrantType, "pre-authorized_code", r.offer(t, nil, pidID).Code}, c...)...))
		})
	}
	for _, contentType := range []string{formType + "; charset=UTF-8", formType + ";charset", "APPLICATION/X-WWW-FORM-URLENCODED"} {
		body := url.Values{"grant_type": {GrantType}, "pre-authorized_code": {r.offer(t, nil, pidID).Code}}.Encode()
		checkToken(t, do(t, r.client, http.MethodPost, r.identifier+"/token", strings.NewReader(body), "Content-Type", contentType))
	}
	t.Run("chunked", func(t *testing.T) {
		body := url.Values{"grant_type": {GrantType}, "pre-authorized_code": {r.offer(t, nil, pidID).Code}}.Encode()
		checkToken(t, do(t, r.client, http.MethodPost, r.identifier+"/token", onlyReader{strings.NewReader(body)}, "Content-Type", formType))
	})
	t.Run("180 chunked, too long", func(t *testing.T) {
		refused(t, do(t, r.client, http.MethodPost, r.identifier+"/token", onlyReader{strings.NewReader(strings.Repeat("x", maxForm+1))}, "Content-Type", formType), 413, "invalid_request")
	})
}

// onlyReader hides a body's length.
type onlyReader struct{ io.Reader }

// TestTokenSelects: authorization_details and scope pick from an offer of two
// configurations, checks 89, 92, 93.
func TestTokenSelects(t *testing.T) {
	r := newRig(t, rigOptions{})
	detailOf := func(id, more string) string {
		return `{"type":"openid_credential","credential_configuration_id":"` + id + `"` + more + `}`
	}
	for _, c := range []struct {
		name, details, scope string
		want                 string // authorization_details in the answer, "" for none
		wantScope            string
	}{
		{"103 neither", "", "", "", ""},
		{"89 one of two", "[" + detailOf(pidID, "") + "]", "", pidID, ""},
		{"89 both", "[" + detailOf(pidID, "") + "," + detailOf(residenceID, "") + "]", "", pidID + " " + residenceID, ""},
		{"92 an unknown member", "[" + detailOf(pidID, `,"x":{"y":[1]}`) + "]", "", pidID, ""},
		{"89 claims and locations", "[" + detailOf(pidID, `,"claims":[{"path":["family_name"]}],"locations":["`+r.identifier+`"]`) + "]", "", pidID, ""},
		{"93 one scope", "", pidID, "", ""},
		{"93 two scopes", "", pidID + " " + residenceID, "", ""},
		{"93 a scope and an unknown one", "", pidID + " openid", "", pidID},
		{"93 unknown scopes alone", "", "openid offline_access", "", pidID + " " + residenceID},
		{"93 details win over the same scope", "[" + detailOf(pidID, "") + "]", pidID, pidID, ""},
		{"93 a scope beside details of another", "[" + detailOf(pidID, "") + "]", residenceID, pidID + " " + residenceID, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := r.offer(t, nil, pidID, residenceID)
			a := r.form(t, "grant_type", GrantType, "pre-authorized_code", o.Code, "authorization_details", c.details, "scope", c.scope)
			var got struct {
				Scope   string `json:"scope"`
				Details []struct {
					Type, Claims json.RawMessage
					Locations    []string
					ID           string   `json:"credential_configuration_id"`
					Identifiers  []string `json:"credential_identifiers"`
				} `json:"authorization_details"`
			}
			if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK {
				t.Fatalf("%d %s", a.status, a.body)
			}
			var ids []string
			for _, d := range got.Details {
				ids = append(ids, d.ID)
				if string(d.Type) != `"openid_credential"` || len(d.Identifiers) == 0 {
					t.Errorf("%s", a.body)
				}
				if d.ID == pidID && strings.Contains(c.details, "claims") && (string(d.Claims) != `[{"path":["family_name"]}]` || !slices.Equal(d.Locations, []string{r.identifier})) {
					t.Errorf("what was asked for is not repeated: %s", a.body)
				}
			}
			if strings.Join(ids, " ") != c.want || got.Scope != c.wantScope || bytes.Contains(a.body, []byte("authorization_details")) != (c.want != "") {
				t.Errorf("%s", a.body)
			}
		})
	}
}

// TestTransactionCode: checks 71, 72, 74, 96, 97, 100.
func TestTransactionCode(t *testing.T) {
	r := newRig(t, rigOptions{})
	shape := &store.TxCode{InputMode: "numeric", Length: 6}
	send := func(t *testing.T, o store.Created, more ...string) answer {
		t.Helper()
		return r.form(t, append([]string{"grant_type", GrantType, "pre-authorized_code", o.Code}, more...)...)
	}
	wrong := func(code string) string { return string('0'+(code[0]-'0'+1)%10) + code[1:] }
	t.Run("71 72 74 97 100 one wrong, then right", func(t *testing.T) {
		o := r.offer(t, shape, pidID)
		for range 5 { // no code is no attempt
			refused(t, send(t, o), 400, "invalid_request")
			refused(t, send(t, o, "tx_code", ""), 400, "invalid_request")
		}
		refused(t, send(t, o, "tx_code", o.TransactionCode+" "), 400, "invalid_grant")
		refused(t, send(t, o, "tx_code", o.TransactionCode[1:]), 400, "invalid_grant")
		checkToken(t, send(t, o, "tx_code", o.TransactionCode))
	})
	t.Run("96 the cap", func(t *testing.T) {
		o := r.offer(t, shape, pidID)
		for range 3 { // the rig's cap
			refused(t, send(t, o, "tx_code", wrong(o.TransactionCode)), 400, "invalid_grant")
		}
		refused(t, send(t, o, "tx_code", o.TransactionCode), 400, "invalid_grant")
		if got, err := r.store.Offer(t.Context(), o.ID); err != nil || got.State != store.Locked {
			t.Errorf("%v %v", got.State, err)
		}
	})
	t.Run("details are no attempt and spend nothing", func(t *testing.T) {
		o := r.offer(t, shape, pidID)
		for range 5 {
			refused(t, send(t, o, "tx_code", o.TransactionCode, "authorization_details", "[]"), 400, "invalid_authorization_details")
			refused(t, send(t, o, "tx_code", o.TransactionCode, "scope", mdlID), 400, "invalid_scope")
		}
		refused(t, send(t, o, "tx_code", wrong(o.TransactionCode), "authorization_details", "[]"), 400, "invalid_grant")
		checkToken(t, send(t, o, "tx_code", o.TransactionCode))
	})
	t.Run("text", func(t *testing.T) {
		o := r.offer(t, &store.TxCode{InputMode: "text", Length: 8}, pidID)
		refused(t, send(t, o, "tx_code", strings.ToLower(o.TransactionCode)+"x"), 400, "invalid_grant")
		checkToken(t, send(t, o, "tx_code", o.TransactionCode))
	})
}

// TestTokenEnds: codes of offers that have ended, checks 76, 77, 98: one answer
// for all of them.
func TestTokenEnds(t *testing.T) {
	r := newRig(t, rigOptions{})
	expired, cancelled, used := r.offer(t, nil, pidID), r.offer(t, nil, pidID), r.offer(t, nil, pidID)
	r.token(t, used)
	if err := r.store.CancelOffer(t.Context(), cancelled.ID, "test"); err != nil {
		t.Fatal(err)
	}
	var bodies [][]byte
	for name, o := range map[string]store.Created{"cancelled": cancelled, "used": used, "76 expired": expired} {
		if name == "76 expired" {
			r.ahead.Store(int64(11 * time.Minute))
		}
		a := r.form(t, "grant_type", GrantType, "pre-authorized_code", o.Code)
		refused(t, a, 400, "invalid_grant")
		bodies = append(bodies, a.body)
	}
	if !bytes.Equal(bodies[0], bodies[1]) || !bytes.Equal(bodies[1], bodies[2]) {
		t.Errorf("the answers tell them apart: %q", bodies)
	}
}

// TestTokenRace: of 64 wallets with one code, one wins, check 79.
func TestTokenRace(t *testing.T) {
	r := newRig(t, rigOptions{})
	for _, shape := range []*store.TxCode{nil, {InputMode: "numeric", Length: 6}} {
		o := r.offer(t, shape, pidID)
		var won atomic.Int32
		var wait sync.WaitGroup
		for range 64 {
			wait.Go(func() {
				a := r.form(t, "grant_type", GrantType, "pre-authorized_code", o.Code, "tx_code", o.TransactionCode)
				if a.status == http.StatusOK {
					won.Add(1)
				} else if a.object(t)["error"] != "invalid_grant" {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wait.Wait()
		if won.Load() != 1 {
			t.Errorf("%d wallets won", won.Load())
		}
	}
}

// TestClientRequired: anonymous access is off, so that a client must say who it
// is and prove it, check 85.
func TestClientRequired(t *testing.T) {
	no, w := false, newWalletKeys(t)
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) {
		i.AnonymousAccess = &no
		i.Clients = []config.Client{{ID: "wallet", Keys: w.jwks}}
	}})
	o := r.offer(t, nil, pidID)
	refused(t, r.form(t, "grant_type", GrantType, "pre-authorized_code", o.Code), 400, "invalid_client")
	refused(t, r.form(t, "grant_type", GrantType), 400, "invalid_client")
	refused(t, r.form(t, "grant_type", GrantType, "pre-authorized_code", o.Code, "client_id", "wallet"), 400, "invalid_client")
	checkToken(t, r.form(t, "grant_type", GrantType, "pre-authorized_code", o.Code,
		"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_assertion", w.assertion(t, r.identifier, r.now())))
}

// walletKeys is the client key of a registered wallet.
type walletKeys struct {
	holder
	jwks string // file
}

func newWalletKeys(t testing.TB) walletKeys {
	t.Helper()
	w := walletKeys{holder: newHolder(t, issuance.ES256), jwks: filepath.Join(t.TempDir(), "wallet.json")}
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{w.jwk()}})
	if err == nil {
		err = os.WriteFile(w.jwks, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// assertion is a client assertion (RFC 7523 §3).
func (w walletKeys) assertion(t testing.TB, audience string, now time.Time) string {
	t.Helper()
	return w.proof(t, audience, "", now, func(header, claims map[string]any) {
		header["typ"] = "JWT"
		delete(header, "jwk")
		delete(claims, "nonce")
		claims["iss"], claims["sub"], claims["jti"], claims["exp"] = "wallet", "wallet", rand.Text(), now.Add(time.Minute).Unix()
	})
}
