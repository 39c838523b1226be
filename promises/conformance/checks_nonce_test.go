package conformance

import (
	"encoding/base64"
	"math/bits"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestCheck138Nonce(t *testing.T) {
	for name, i := range dpopInstances(t) {
		right := func(t *testing.T, a answer) string {
			t.Helper()
			body := a.object(t)
			nonce, _ := body["c_nonce"].(string)
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" || nonce == "" || len(body) != 1 {
				t.Errorf("%d, %v: %.300s", a.status, a.header, a.body)
			}
			return nonce
		}
		t.Run("138 "+name, func(t *testing.T) { right(t, i.do(t, http.MethodPost, "/nonce", nil)) })
		t.Run("140 "+name, func(t *testing.T) {
			for _, header := range [][]string{{"Authorization", "Bearer nothing"}, {"Authorization", "DPoP nothing", "DPoP", "x"}, {"Authorization", "Basic eDp5"}, {"Content-Type", "application/json"}} {
				right(t, i.do(t, http.MethodPost, "/nonce", nil, header...))
			}
		})
		t.Run("141 "+name, func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut} {
				if a := i.do(t, method, "/nonce", nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != http.MethodPost {
					t.Errorf("%s: %d, Allow %q", method, a.status, a.header.Get("Allow"))
				}
			}
		})
		t.Run("139 "+name, func(t *testing.T) {
			var before []byte
			for range 64 {
				nonce, err := base64.RawURLEncoding.DecodeString(i.nonce(t))
				if err != nil || len(nonce) < 16 || before != nil && len(nonce) != len(before) {
					t.Fatalf("a nonce of %d bytes: %v", len(nonce), err)
				}
				differ := 0
				for n := range before {
					differ += bits.OnesCount8(before[n] ^ nonce[n])
				}
				// Of 128 random bits or more, half differ; fewer than 32 never by chance.
				if before != nil && differ < 32 {
					t.Errorf("two nonces in a row differ in %d bits", differ)
				}
				before = nonce
			}
		})
	}
}

func TestCheck142(t *testing.T) {
	i := haip(t)
	s := i.bound(t, pidSDJWT)
	ask := func(nonce string) answer {
		k := newKey(t, jose.ES256)
		body := request(pidSDJWT, i.proof(t, k, i.nonce(t), with(nil, members{"iss": walletID})))
		return s.ask(t, body, "DPoP", i.dpop(t, *s.key, "/credential", s.token, nonce, nil))
	}
	t.Run("142 a nonce of the token endpoint is none here", func(t *testing.T) {
		a := ask(i.tokenNonce(t))
		refused(t, a, 401, "use_dpop_nonce")
		i.oneNonce(t, a)
	})
	t.Run("142", func(t *testing.T) {
		a := i.do(t, http.MethodPost, "/nonce", nil)
		i.oneNonce(t, a)
		credentials(t, ask(a.header.Get("DPoP-Nonce")), 1)
	})
}

// tooMany checks a refusal for too many requests (RFC 6585 §4).
func tooMany(t testing.TB, a answer) {
	t.Helper()
	refused(t, a, http.StatusTooManyRequests, "too_many_requests")
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
}

func TestCheck143Flood(t *testing.T) {
	i, _ := registered(t)
	t.Run("143 an address", func(t *testing.T) {
		flood, last := i.from(t, "127.0.0.3"), answer{}
		for range 1000 { // a burst of 300 is allowed, and one a second
			if last = flood.do(t, http.MethodPost, "/nonce", nil); last.status != http.StatusOK {
				break
			}
		}
		tooMany(t, last)
		neighbour := i.from(t, "127.0.0.4")
		neighbour.nonce(t)
		neighbour.fetchOne(t)
		plain(t).nonce(t)
		if a := flood.do(t, http.MethodGet, "/iaca/none.cer", nil); a.status == http.StatusTooManyRequests {
			t.Error("documents count as requests that cost something")
		}
	})
	t.Run("143 an offer", func(t *testing.T) {
		client := i.from(t, "127.0.0.5")
		o, last, served := i.offer(t, pidSDJWT, nil), answer{}, 0
		for range 100 { // ten a minute are allowed
			if last = client.tokenRequest(t, o.code, []string{"tx_code", "123456"}, nil); last.status != http.StatusBadRequest {
				break
			}
			served++
		}
		tooMany(t, last)
		if served < 10 {
			t.Errorf("%d were served", served)
		}
		client.fetchOne(t)
	})
}

// fetchOne takes an offer and fetches its credential.
func (i *instance) fetchOne(t testing.TB) {
	t.Helper()
	s := i.session(t, pidSDJWT)
	credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), 1)
}

func TestCheck095(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "sealed": sealed(t), "draft-15": draft(t, "draft-15")} {
		for _, id := range []string{pidSDJWT, approved} { // granted checks expires_in
			t.Run("095 "+name+" "+id, func(t *testing.T) { granted(t, i.session(t, id).answer, "Bearer") })
		}
	}
}

// TestAuthorizationEndpoint: nobody may use it, nobody is redirected, and the
// person in front of it is told what to do (RFC 6749 §3.1.2.4, §4.1.2.1).
func TestAuthorizationEndpoint(t *testing.T) {
	i := sealed(t)
	const redirect = "https://client.example/back"
	query := func(response string) string {
		return string(form("response_type", response, "client_id", `"><script>alert(1)</script>`, "redirect_uri", redirect, "state", "s",
			"code_challenge", strings.Repeat("a", 43), "code_challenge_method", "S256"))
	}
	for name, c := range map[string]struct {
		answer answer
		code   string
	}{
		"code":                {i.do(t, http.MethodGet, "/authorize?"+query("code"), nil), "unauthorized_client"},
		"code in a form":      {i.do(t, http.MethodPost, "/authorize", []byte(query("code")), "Content-Type", "application/x-www-form-urlencoded"), "unauthorized_client"},
		"token":               {i.do(t, http.MethodGet, "/authorize?"+query("token"), nil), "unsupported_response_type"},
		"no response_type":    {i.do(t, http.MethodGet, "/authorize", nil), "invalid_request"},
		"a form that is none": {i.do(t, http.MethodPost, "/authorize", []byte("%zz"), "Content-Type", "application/x-www-form-urlencoded"), "invalid_request"},
		"a long body":         {i.do(t, http.MethodPost, "/authorize", make([]byte, 1<<20), "Content-Type", "multipart/form-data; boundary=b"), "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			a, page := c.answer, string(c.answer.body)
			if a.status != http.StatusBadRequest || a.header.Get("Content-Type") != "text/html; charset=utf-8" || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Location") != "" {
				t.Errorf("%d %v", a.status, a.header)
			}
			if a.header.Get("Request-Id") == "" {
				t.Error("nothing by which the operator finds the refusal")
			}
			if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
				t.Errorf("Content-Security-Policy %q", csp)
			}
			if !strings.Contains(page, "<code>"+c.code+"</code>") || !strings.Contains(page, "<h1>Utopia Citizen Services</h1>") || !strings.Contains(page, `lang="en"`) {
				t.Errorf("%s", page)
			}
			if strings.Contains(page, "script") || strings.Contains(page, redirect) {
				t.Error("the page holds what was sent")
			}
		})
	}
	t.Run("where there is none", func(t *testing.T) {
		if a := plain(t).do(t, http.MethodGet, "/authorize?"+query("code"), nil); a.status != http.StatusNotFound {
			t.Errorf("%d", a.status)
		}
	})
}
