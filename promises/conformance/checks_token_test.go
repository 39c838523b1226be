package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// form encodes a token request's parameters, names and values in turn; a name
// may come again.
func form(parameters ...string) []byte {
	values := url.Values{}
	for n := 0; n+1 < len(parameters); n += 2 {
		values.Add(parameters[n], parameters[n+1])
	}
	return []byte(values.Encode())
}

// sendForm sends a form to the token endpoint; query is the URL's, "" for none.
func (i *instance) sendForm(t testing.TB, query string, body []byte, header ...string) answer {
	t.Helper()
	return i.do(t, http.MethodPost, "/token"+query, body, append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

// granted checks a success of the token endpoint (checks 70, 95) and returns its body.
func granted(t testing.TB, a answer, tokenType string) map[string]any {
	t.Helper()
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d, Content-Type %q, Cache-Control %q: %.300s", a.status, a.header.Get("Content-Type"), a.header.Get("Cache-Control"), a.body)
	}
	body := a.object(t)
	if token, _ := body["access_token"].(string); len(token) < 22 || body["token_type"] != tokenType {
		t.Fatalf("token_type %v, want %s; the access token has %d characters", body["token_type"], tokenType, len(token))
	}
	if seconds, _ := body["expires_in"].(float64); seconds <= 0 || tokenType == "Bearer" && seconds > 300 {
		t.Errorf("expires_in %v", body["expires_in"])
	}
	return body
}

// both asks for an offer of two configurations that take the same claims.
func both(request map[string]any) { request["credentials"] = []string{pidSDJWT, single} }

// fetch asks for one credential of a configuration with a Bearer token.
func (i *instance) fetch(t testing.TB, token string, request members) answer {
	t.Helper()
	s := &session{instance: i, token: token}
	request["proofs"] = members{"jwt": []string{i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)}}
	return s.ask(t, request)
}

func TestCheck070(t *testing.T) {
	i := plain(t)
	a := i.tokenRequest(t, i.offer(t, pidSDJWT, nil).code, nil, nil)
	body := granted(t, a, "Bearer")
	t.Run("070 only registered members", func(t *testing.T) {
		for name := range body {
			if !slices.Contains([]string{"access_token", "token_type", "expires_in"}, name) {
				t.Errorf("member %q", name)
			}
		}
		if a.header.Get("Pragma") != "no-cache" {
			t.Error("no Pragma: no-cache (RFC 6749 §5.1)")
		}
	})
	t.Run("103 no authorization_details", func(t *testing.T) {
		if _, has := body["authorization_details"]; has {
			t.Error("authorization_details were not asked for")
		}
		credentials(t, i.fetch(t, body["access_token"].(string), members{"credential_configuration_id": pidSDJWT}), 1)
	})
}

// Check 101, that a wrong code's time tells nothing of its first characters, holds
// by how codes are compared: what is kept is a MAC of the code, and two MACs are
// compared in constant time. A clock on the other side of TLS could not show it.

func TestCheck071TransactionCode(t *testing.T) {
	i := plain(t)
	o := i.offer(t, pidSDJWT, withTxCode)
	wrong := "000000"
	if o.txCode == wrong {
		wrong = "000001"
	}
	t.Run("072 missing", func(t *testing.T) {
		refused(t, i.tokenRequest(t, o.code, nil, nil), 400, "invalid_request")
		refused(t, i.tokenRequest(t, o.code, []string{"tx_code", ""}, nil), 400, "invalid_request") // RFC 6749 §3.2: empty is omitted
	})
	t.Run("073 not expected", func(t *testing.T) {
		other := i.offer(t, pidSDJWT, nil)
		refused(t, i.tokenRequest(t, other.code, []string{"tx_code", "123456"}, nil), 400, "invalid_request")
		granted(t, i.tokenRequest(t, other.code, nil, nil), "Bearer")
	})
	t.Run("074 wrong", func(t *testing.T) {
		refused(t, i.tokenRequest(t, o.code, []string{"tx_code", wrong}, nil), 400, "invalid_grant")
	})
	t.Run("071 097 right after wrong", func(t *testing.T) {
		granted(t, i.tokenRequest(t, o.code, []string{"tx_code", o.txCode}, nil), "Bearer")
	})
}

func TestCheck074And334(t *testing.T) {
	i := sealed(t)
	o := i.offer(t, pidSDJWT, withTxCode)
	wrong := "000000"
	if o.txCode == wrong {
		wrong = "000001"
	}
	t.Run("334 074 invalid_tx_code", func(t *testing.T) {
		refused(t, i.tokenRequest(t, o.code, []string{"tx_code", wrong}, nil), 400, "invalid_tx_code")
		refused(t, i.tokenRequest(t, o.code, nil, nil), 400, "invalid_request")
		refused(t, i.tokenRequest(t, "AAAA", []string{"tx_code", wrong}, nil), 400, "invalid_grant")
	})
	t.Run("334 right after wrong", func(t *testing.T) {
		granted(t, i.tokenRequest(t, o.code, []string{"tx_code", o.txCode}, nil), "Bearer")
	})
}

func TestCheck096Lock(t *testing.T) {
	for _, c := range []struct {
		name, wrong string
		i           *instance
	}{{"096", "invalid_grant", plain(t)}, {"096 334", "invalid_tx_code", sealed(t)}} {
		t.Run(c.name, func(t *testing.T) {
			o := c.i.offer(t, pidSDJWT, withTxCode)
			wrong := []string{"tx_code", strings.Repeat("9", 7)}
			for range 5 {
				refused(t, c.i.tokenRequest(t, o.code, wrong, nil), 400, c.wrong, "invalid_grant")
			}
			refused(t, c.i.tokenRequest(t, o.code, wrong, nil), 400, "invalid_grant")
			refused(t, c.i.tokenRequest(t, o.code, []string{"tx_code", o.txCode}, nil), 400, "invalid_grant")
			if state := c.i.operator(t, http.MethodGet, "/v1/openid/offers/pre-authorized/"+o.id, nil).text(t, "state"); state != "locked" {
				t.Errorf("the offer is %s", state)
			}
		})
	}
}

func TestCheck100(t *testing.T) {
	i := plain(t)
	var o offer
	for range 300 {
		// One in ten codes starts with a zero; none in 300 is no chance event.
		if o = i.offer(t, pidSDJWT, withTxCode); o.txCode[0] == '0' {
			break
		}
	}
	if o.txCode[0] != '0' || len(o.txCode) != 6 {
		t.Fatal("no code of six digits starts with a zero")
	}
	for _, near := range []string{strings.TrimLeft(o.txCode, "0"), o.txCode + " ", "0" + o.txCode, "+" + o.txCode} {
		if near == "" {
			continue // 000000
		}
		refused(t, i.tokenRequest(t, o.code, []string{"tx_code", near}, nil), 400, "invalid_grant")
	}
	granted(t, i.tokenRequest(t, o.code, []string{"tx_code", o.txCode}, nil), "Bearer")
}

func TestCheck075Unknown(t *testing.T) {
	i := plain(t)
	spent := i.session(t, pidSDJWT).offer.code
	unknown := strings.Repeat("A", len(spent))
	first := i.tokenRequest(t, unknown, nil, nil)
	t.Run("075", func(t *testing.T) {
		refused(t, first, 400, "invalid_grant")
		refused(t, i.tokenRequest(t, "no code of ours", nil, nil), 400, "invalid_grant")
	})
	t.Run("098 the same with a transaction code and for a spent code", func(t *testing.T) {
		for _, other := range []answer{i.tokenRequest(t, unknown, []string{"tx_code", "123456"}, nil), i.tokenRequest(t, spent, nil, nil), i.tokenRequest(t, spent, []string{"tx_code", "123456"}, nil)} {
			if other.status != first.status || string(other.body) != string(first.body) {
				t.Errorf("%d %s, want %d %s", other.status, other.body, first.status, first.body)
			}
		}
	})
}

// TestCheck076 waits for the shortest life that an offer can have while other
// tests run.
func TestCheck076(t *testing.T) {
	i := plain(t)
	o := i.offer(t, pidSDJWT, func(request map[string]any) { request["expiresIn"] = map[string]any{"minutes": 1} })
	ends := time.Now().Add(time.Minute)
	t.Parallel()
	time.Sleep(time.Until(ends) + 100*time.Millisecond)
	refused(t, i.tokenRequest(t, o.code, nil, nil), 400, "invalid_grant")
	refused(t, i.tokenRequest(t, o.code, []string{"tx_code", "123456"}, nil), 400, "invalid_grant")
}

func TestCheck077SecondUse(t *testing.T) {
	i := plain(t)
	s := i.session(t, pidSDJWT)
	t.Run("077", func(t *testing.T) {
		refused(t, i.tokenRequest(t, s.offer.code, nil, nil), 400, "invalid_grant")
	})
	t.Run("078 operators are told", func(t *testing.T) {
		a := i.operator(t, http.MethodGet, "/v1/events?type=offer.replayed&subject="+s.offer.id, nil)
		if events, _ := a.object(t)["data"].([]any); len(events) != 1 {
			t.Errorf("%d events: %.300s", len(events), a.body)
		}
	})
	t.Run("079 concurrent redemptions", func(t *testing.T) {
		o := i.offer(t, pidSDJWT, nil)
		answers := make([]answer, 8)
		var wait sync.WaitGroup
		for n := range answers {
			wait.Go(func() { answers[n] = i.tokenRequest(t, o.code, nil, nil) })
		}
		wait.Wait()
		won := 0
		for _, a := range answers {
			if a.status == http.StatusOK {
				won++
				continue
			}
			refused(t, a, 400, "invalid_grant")
		}
		if won != 1 {
			t.Errorf("%d redemptions succeeded", won)
		}
	})
}

// TestCheck080Forms sends requests that are wrong in form, all of them with one
// code that none of them spends.
func TestCheck080Forms(t *testing.T) {
	i := plain(t)
	code := i.offer(t, pidSDJWT, nil).code
	const media = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		name, query, media string
		body               []byte
		code               string
	}{
		{"080 no pre-authorized_code", "", media, form("grant_type", grantType), "invalid_request"},
		{"080 an empty one", "", media, form("grant_type", grantType, "pre-authorized_code", ""), "invalid_request"},
		{"081 no grant_type", "", media, form("pre-authorized_code", code), "invalid_request"},
		{"081 an empty one", "", media, form("grant_type", "", "pre-authorized_code", code), "invalid_request"},
		{"082 password", "", media, form("grant_type", "password", "pre-authorized_code", code), "unsupported_grant_type"},
		{"082 authorization_code", "", media, form("grant_type", "authorization_code", "code", code), "unsupported_grant_type"},
		{"082 refresh_token where there are none", "", media, form("grant_type", "refresh_token", "refresh_token", code), "unsupported_grant_type"},
		{"083 repeated code", "", media, form("grant_type", grantType, "pre-authorized_code", code, "pre-authorized_code", code), "invalid_request"},
		{"083 repeated grant_type", "", media, form("grant_type", grantType, "grant_type", grantType, "pre-authorized_code", code), "invalid_request"},
		{"086 JSON", "", "application/json", []byte(`{"grant_type":"` + grantType + `","pre-authorized_code":"` + code + `"}`), "invalid_request"},
		{"086 no media type", "", "", form("grant_type", grantType, "pre-authorized_code", code), "invalid_request"},
		{"086 a form that is none", "", media, []byte("grant_type=%zz"), "invalid_request"},
		{"088 all in the URL", "?" + string(form("grant_type", grantType, "pre-authorized_code", code)), media, nil, "invalid_request"},
		{"088 the code in the URL", "?" + string(form("pre-authorized_code", code)), media, form("grant_type", grantType), "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.media != "" {
				header = []string{"Content-Type", c.media}
			}
			refused(t, i.do(t, http.MethodPost, "/token"+c.query, c.body, header...), 400, c.code)
		})
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		t.Run("087 "+method, func(t *testing.T) {
			a := i.do(t, method, "/token?"+string(form("grant_type", grantType, "pre-authorized_code", code)), nil)
			if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != http.MethodPost {
				t.Errorf("%d, Allow %q", a.status, a.header.Get("Allow"))
			}
		})
	}
	t.Run("084 unknown parameters", func(t *testing.T) {
		granted(t, i.tokenRequest(t, code, []string{"favourite_colour", "blue", "resource", i.issuer}, nil), "Bearer")
	})
}

func TestCheck085(t *testing.T) {
	i := haip(t)
	o := i.offer(t, pidSDJWT, nil)
	k := newKey(t, jose.ES256)
	for _, parameters := range [][]string{nil, {"client_id", walletID}} {
		a := i.tokenRequest(t, o.code, parameters, []string{"DPoP", i.dpop(t, k, "/token", "", i.tokenNonce(t), nil)})
		if a.status != http.StatusUnauthorized {
			refused(t, a, 400, "invalid_client")
			continue
		}
		refused(t, a, 401, "invalid_client")
		if a.header.Get("WWW-Authenticate") == "" {
			t.Error("401 without a challenge (RFC 9110 §15.5.2)")
		}
	}
}

// TestCheck099 looks at errors of every kind for what RFC 6749 §5.2 registers;
// [refused] holds each of the other tests' answers against the rest.
func TestCheck099(t *testing.T) {
	i := plain(t)
	for name, a := range map[string]answer{
		"no body":          i.do(t, http.MethodPost, "/token", nil),
		"another grant":    i.sendForm(t, "", form("grant_type", "password")),
		"an unknown code":  i.tokenRequest(t, "AAAA", nil, nil),
		"a client secret":  i.tokenRequest(t, "AAAA", []string{"client_id", "x", "client_secret", "y"}, nil),
		"a long body":      i.sendForm(t, "", form("grant_type", strings.Repeat("x", 1<<17))),
		"a bad DPoP proof": i.tokenRequest(t, "AAAA", nil, []string{"DPoP", "x"}),
		"a Basic header":   i.tokenRequest(t, "AAAA", nil, []string{"Authorization", "Basic eDp5"}),
	} {
		t.Run("099 "+name, func(t *testing.T) {
			status := http.StatusBadRequest
			switch name {
			case "a long body":
				status = http.StatusRequestEntityTooLarge
			case "a Basic header":
				status = http.StatusUnauthorized // RFC 6749 §5.2
			}
			refused(t, a, status, "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_dpop_proof")
			if a.header.Get("Pragma") != "no-cache" {
				t.Error("no Pragma: no-cache")
			}
			if challenge := a.header.Get("WWW-Authenticate"); (status == http.StatusUnauthorized) != strings.HasPrefix(challenge, "Basic ") {
				t.Errorf("WWW-Authenticate %q", challenge)
			}
		})
	}
}

// details encodes authorization_details with one object for each change.
func details(t testing.TB, changes ...members) string {
	t.Helper()
	var list []members
	for _, c := range changes {
		m := members{"type": "openid_credential", "credential_configuration_id": pidSDJWT}
		for name, value := range c {
			if m[name] = value; value == nil {
				delete(m, name)
			}
		}
		list = append(list, m)
	}
	return string(marshal(t, list))
}

// selected reads the authorization_details of a token response.
func selected(t testing.TB, a answer) (out []struct {
	Type          string   `json:"type"`
	Configuration string   `json:"credential_configuration_id"`
	Identifiers   []string `json:"credential_identifiers"`
}) {
	t.Helper()
	var body map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body["authorization_details"], &out); err != nil {
		t.Fatalf("authorization_details: %v: %s", err, body["authorization_details"])
	}
	return out
}

func TestCheck089Selection(t *testing.T) {
	i := plain(t)
	a := i.tokenRequest(t, i.offer(t, pidSDJWT, both).code, []string{"authorization_details", details(t, nil)}, nil)
	token, _ := granted(t, a, "Bearer")["access_token"].(string)
	list := selected(t, a)
	if len(list) != 1 || list[0].Type != "openid_credential" || list[0].Configuration != pidSDJWT || len(list[0].Identifiers) == 0 {
		t.Fatalf("authorization_details %+v", list)
	}
	t.Run("094 the other configuration", func(t *testing.T) {
		// The token names its credentials, so another's identifier is unknown to it.
		refused(t, i.fetch(t, token, members{"credential_identifier": single + "#1"}), 400, "unknown_credential_identifier")
	})
	t.Run("089 the identifier is good", func(t *testing.T) {
		credentials(t, i.fetch(t, token, members{"credential_identifier": list[0].Identifiers[0]}), 1)
	})
	t.Run("094 another offer's token", func(t *testing.T) {
		a := i.fetch(t, i.session(t, pidSDJWT).token, members{"credential_configuration_id": single})
		refused(t, a, http.StatusForbidden, "insufficient_scope")
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `Bearer error="insufficient_scope"`) {
			t.Errorf("WWW-Authenticate %q (RFC 6750 §3)", a.header.Get("WWW-Authenticate"))
		}
	})
	t.Run("094 a token narrowed by scope", func(t *testing.T) {
		o := i.offer(t, pidSDJWT, func(request map[string]any) {
			var claims map[string]any
			for _, id := range []string{pidMdoc, pidSDJWT} { // what both ask for, together
				if err := json.Unmarshal(sample(t, id), &claims); err != nil {
					t.Fatal(err)
				}
			}
			request["credentials"], request["claims"] = []string{pidSDJWT, pidMdoc}, claims
		})
		a := i.tokenRequest(t, o.code, []string{"scope", pidSDJWT}, nil)
		token, _ := granted(t, a, "Bearer")["access_token"].(string)
		refused(t, i.fetch(t, token, members{"credential_configuration_id": pidMdoc}), http.StatusForbidden, "insufficient_scope")
		credentials(t, i.fetch(t, token, members{"credential_configuration_id": pidSDJWT}), 1)
	})
}

func TestCheck090Details(t *testing.T) {
	i := plain(t)
	code := i.offer(t, pidSDJWT, nil).code
	for name, text := range map[string]string{
		"090 not offered":         details(t, members{"credential_configuration_id": residence}),
		"090 one of two":          details(t, nil, members{"credential_configuration_id": single}),
		"090 no configuration":    details(t, members{"credential_configuration_id": nil}),
		"090 unknown":             details(t, members{"credential_configuration_id": "no.such"}),
		"091 no JSON":             `[{`,
		"091 an object":           strings.Trim(details(t, nil), "[]"),
		"091 an empty array":      `[]`,
		"091 null":                `null`,
		"091 an array of texts":   `["openid_credential"]`,
		"091 another type":        details(t, members{"type": "payment_initiation"}),
		"091 no type":             details(t, members{"type": nil}),
		"091 a type of its case":  details(t, members{"type": "OpenID_Credential"}),
		"091 a member twice":      `[{"type":"openid_credential","type":"openid_credential","credential_configuration_id":"` + pidSDJWT + `"}]`,
		"091 text behind":         details(t, nil) + "x",
		"091 named twice":         details(t, nil, nil),
		"091 claims of no list":   details(t, members{"claims": members{}}),
		"091 a number for the id": details(t, members{"credential_configuration_id": 1}),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, i.tokenRequest(t, code, []string{"authorization_details", text}, nil), 400, "invalid_authorization_details")
		})
	}
	t.Run("092 unknown member", func(t *testing.T) {
		a := i.tokenRequest(t, code, []string{"authorization_details", details(t, members{"x_colour": members{"a": 1}, "claims": []members{{"path": []string{"given_name"}}}})}, nil)
		granted(t, a, "Bearer")
		if list := selected(t, a); len(list) != 1 || len(list[0].Identifiers) == 0 {
			t.Errorf("%+v", list)
		}
	})
}

func TestCheck093(t *testing.T) {
	i := plain(t)
	for _, c := range []struct{ name, sent, effective string }{
		{"093 unknown alone", "no.such", pidSDJWT}, {"093 unknown beside a known one", "no.such " + pidSDJWT, pidSDJWT},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := granted(t, i.tokenRequest(t, i.offer(t, pidSDJWT, nil).code, []string{"scope", c.sent}, nil), "Bearer")
			if body["scope"] != c.effective { // RFC 6749 §5.1: told where it differs
				t.Errorf("scope %v, want %s", body["scope"], c.effective)
			}
			credentials(t, i.fetch(t, body["access_token"].(string), members{"credential_configuration_id": pidSDJWT}), 1)
		})
	}
}
