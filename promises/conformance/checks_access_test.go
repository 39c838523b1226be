package conformance

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// brief is an instance whose access tokens and nonces last ten seconds and whose
// metadata has no batches.
func brief(t testing.TB) *instance {
	return start(t, "brief", settings{issuer: "strictness = \"strict\"\n", prepared: withoutBatches(t), replace: map[string]string{
		`access_token_lifetime = "5m"`: `access_token_lifetime = "10s"`, `nonce_lifetime = "5m"`: `nonce_lifetime = "10s"`}})
}

// withoutBatches takes batch_size out of every configuration of an instance.
func withoutBatches(t testing.TB) func(run string) {
	return func(run string) {
		files, err := filepath.Glob(filepath.Join(run, "configurations", "*.toml"))
		if err != nil || len(files) == 0 {
			t.Fatal("no configurations:", err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, regexp.MustCompile(`(?m)^batch_size = \d+$`).ReplaceAll(data, nil), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// challenged checks a 401 with a code: it is in the challenge of the scheme, too.
func challenged(t testing.TB, a answer, scheme, code string) {
	t.Helper()
	refused(t, a, http.StatusUnauthorized, code)
	if got := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, scheme+" ") || !strings.Contains(got, `error="`+code+`"`) {
		t.Errorf("WWW-Authenticate: %q", got)
	}
}

// bare checks the answer to a request without a token: no error code (RFC 6750 §3.1).
func bare(t testing.TB, a answer) {
	t.Helper()
	got := a.header.Get("WWW-Authenticate")
	if a.status != http.StatusUnauthorized || len(a.body) != 0 || strings.Contains(got, "error") || !strings.Contains(got, "Bearer ") || !strings.Contains(got, "DPoP algs=") {
		t.Errorf("%d %q, WWW-Authenticate: %q", a.status, a.body, got)
	}
}

// garbage are access tokens that nobody gave out.
func garbage(real string) []string {
	random := make([]byte, 40)
	_, _ = rand.Read(random)
	return []string{"x", "", "..", strings.Repeat("A", len(real)), base64.RawURLEncoding.EncodeToString(random), real + "A", real[:len(real)-1], real[:11] + strings.Repeat("A", len(real)-11), strings.Repeat("a", 6000)}
}

func TestCheck144And145NoTokenGarbageToken(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		s := i.session(t, pidSDJWT)
		body := marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
		t.Run("144 "+name, func(t *testing.T) {
			bare(t, i.do(t, http.MethodPost, "/credential", body, "Content-Type", "application/json"))
			bare(t, i.do(t, http.MethodPost, "/credential", body, "Content-Type", "application/json", "Authorization", "Basic "+s.token))
			bare(t, i.do(t, http.MethodPost, "/credential", body, "Content-Type", "application/json", "Authorization", s.token))
		})
		t.Run("145 "+name, func(t *testing.T) {
			for _, scheme := range []string{"Bearer", "DPoP"} {
				for _, token := range garbage(s.token) {
					challenged(t, i.do(t, http.MethodPost, "/credential", body, "Content-Type", "application/json", "Authorization", scheme+" "+token), scheme, "invalid_token")
				}
			}
		})
		s.nothingIssued(t)
	}
}

// An expired token serves nothing, whether its credential was issued or not.
func TestCheck146ExpiredToken(t *testing.T) {
	i := brief(t)
	unused, used := i.session(t, pidSDJWT), i.session(t, pidSDJWT)
	if lifetime := unused.answer.object(t)["expires_in"]; lifetime != 10.0 {
		t.Fatalf("expires_in: %v", lifetime)
	}
	body := marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
	credentials(t, used.post(t, "/credential", body), 1)
	credentials(t, used.post(t, "/credential", body), 1) // a repetition, as long as the token lives
	time.Sleep(10 * time.Second)                         // both were made before
	fresh := marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
	challenged(t, unused.post(t, "/credential", fresh), "Bearer", "invalid_token")
	challenged(t, used.post(t, "/credential", body), "Bearer", "invalid_token")
	challenged(t, used.post(t, "/credential", fresh), "Bearer", "invalid_token")
	if _, list := i.look(t, unused.offer); len(list) != 0 {
		t.Error("a credential was signed")
	}
}

func TestCheck147TokenOfAnotherCredential(t *testing.T) {
	i := plain(t)
	for _, s := range []*session{i.session(t, mdl), i.bound(t, mdl)} {
		k := newKey(t, jose.ES256)
		a := s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil)))
		refused(t, a, http.StatusForbidden, "insufficient_scope")
		scheme := "Bearer "
		if s.key != nil {
			scheme = "DPoP "
		}
		if got := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, scheme) || !strings.Contains(got, `error="insufficient_scope"`) {
			t.Errorf("WWW-Authenticate: %q", got)
		}
		s.nothingIssued(t)
		credentials(t, s.ask(t, request(mdl, i.proof(t, k, i.nonce(t), nil))), 1)
	}
	t.Run("narrowed by scope", func(t *testing.T) {
		s := &session{instance: i, offer: i.offer(t, pidSDJWT, func(r map[string]any) { r["credentials"] = []string{pidSDJWT, unbound} })}
		s.redeem(t, []string{"scope", unbound})
		refused(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), http.StatusForbidden, "insufficient_scope")
		s.nothingIssued(t)
		credentials(t, s.ask(t, members{"credential_configuration_id": unbound}), 1)
	})
}

func TestCheck148TokenInTheQuery(t *testing.T) {
	s := plain(t).session(t, pidSDJWT)
	body := marshal(t, request(pidSDJWT, s.proof(t, newKey(t, jose.ES256), s.nonce(t), nil)))
	for name, header := range map[string][]string{"alone": {"Content-Type", "application/json"}, "beside the header": {"Content-Type", "application/json", "Authorization", "Bearer " + s.token}} {
		t.Run(name, func(t *testing.T) {
			for _, query := range []string{"?access_token=" + s.token, "?access%5Ftoken=" + s.token, "?x=1&access_token=" + s.token} {
				refused(t, s.do(t, http.MethodPost, "/credential"+query, body, header...), http.StatusBadRequest, "invalid_request")
			}
		})
	}
	t.Run("in a form", func(t *testing.T) {
		bare(t, s.do(t, http.MethodPost, "/credential", []byte("access_token="+s.token), "Content-Type", "application/x-www-form-urlencoded"))
	})
	s.nothingIssued(t)
}

func TestCheck149SchemeInAnyCase(t *testing.T) {
	i := plain(t)
	for _, scheme := range []string{"bearer", "BEARER", "Bearer"} {
		s := i.session(t, pidSDJWT)
		credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)), "Authorization", scheme+" "+s.token), 1)
	}
	for _, scheme := range []string{"dpop", "DPOP"} {
		s := i.bound(t, pidSDJWT)
		credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)), "Authorization", scheme+" "+s.token), 1)
	}
}

// Each defect of the DPoP proof at the credential endpoint; then the right one works.
func TestCheck150To153BoundToken(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		s := i.bound(t, pidSDJWT)
		body := marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
		nonce := func() string { return i.do(t, http.MethodPost, "/nonce", nil).header.Get("DPoP-Nonce") }
		send := func(t *testing.T, header ...string) answer {
			return i.do(t, http.MethodPost, "/credential", body, append([]string{"Content-Type", "application/json"}, header...)...)
		}
		right := func(t *testing.T, c change) string { return i.dpop(t, *s.key, "/credential", s.token, nonce(), c) }
		t.Run("150 "+name, func(t *testing.T) {
			challenged(t, send(t, "Authorization", "Bearer "+s.token), "DPoP", "invalid_token")
			challenged(t, send(t, "Authorization", "Bearer "+s.token, "DPoP", right(t, nil)), "DPoP", "invalid_token")
		})
		t.Run("151 "+name, func(t *testing.T) {
			a := send(t, "Authorization", "DPoP "+s.token)
			challenged(t, a, "DPoP", "invalid_dpop_proof")
			if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, `algs="ES256 ES384 ES512 EdDSA"`) {
				t.Errorf("WWW-Authenticate: %q", got)
			}
			challenged(t, send(t, "Authorization", "DPoP "+s.token, "DPoP", ""), "DPoP", "invalid_dpop_proof")
			challenged(t, send(t, "Authorization", "DPoP "+s.token, "DPoP", right(t, nil), "DPoP", right(t, nil)), "DPoP", "invalid_dpop_proof")
		})
		t.Run("152 "+name, func(t *testing.T) {
			challenged(t, send(t, "Authorization", "DPoP "+s.token, "DPoP", i.dpop(t, newKey(t, jose.ES256), "/credential", s.token, nonce(), nil)), "DPoP", "invalid_token")
		})
		t.Run("153 "+name, func(t *testing.T) {
			for _, ath := range []any{nil, "", 1, "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo", s.token} {
				challenged(t, send(t, "Authorization", "DPoP "+s.token, "DPoP", right(t, with(nil, members{"ath": ath}))), "DPoP", "invalid_dpop_proof")
			}
		})
		s.nothingIssued(t)
		credentials(t, send(t, "Authorization", "DPoP "+s.token, "DPoP", right(t, nil)), 1)
	}
	t.Run("150 a Bearer token with the DPoP scheme", func(t *testing.T) {
		i, k := plain(t), newKey(t, jose.ES256)
		s := i.session(t, pidSDJWT)
		challenged(t, s.ask(t, request(pidSDJWT), "Authorization", "DPoP "+s.token, "DPoP", i.dpop(t, k, "/credential", s.token, "", nil)), "DPoP", "invalid_token")
	})
}

func TestCheck154NonceAtTheCredentialEndpoint(t *testing.T) {
	i := haip(t)
	s := i.bound(t, pidSDJWT)
	body := marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
	ofToken := i.do(t, http.MethodPost, "/token", nil).header.Get("DPoP-Nonce")
	for _, nonce := range []string{"", "guessed", ofToken} {
		a := s.post(t, "/credential", body, "DPoP", i.dpop(t, *s.key, "/credential", s.token, nonce, nil))
		challenged(t, a, "DPoP", "use_dpop_nonce")
		given := a.header.Get("DPoP-Nonce")
		if given == "" || nonce != ofToken {
			if given == "" {
				t.Error("no DPoP-Nonce")
			}
			continue
		}
		s.nothingIssued(t)
		a = s.post(t, "/credential", body, "DPoP", i.dpop(t, *s.key, "/credential", s.token, given, nil))
		credentials(t, a, 1)
		if a.header.Get("DPoP-Nonce") == "" {
			t.Error("a success brings no nonce for the next request (RFC 9449 §8.2)")
		}
	}
}

func TestCheck155ExposedHeaders(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/token", "/nonce", "/credential", "/deferred", "/notification"} {
				a := i.do(t, http.MethodPost, path, nil, "Origin", "https://wallet.example")
				exposed := "," + strings.ReplaceAll(a.header.Get("Access-Control-Expose-Headers"), " ", "") + ","
				if a.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(exposed, ",DPoP-Nonce,") || !strings.Contains(exposed, ",WWW-Authenticate,") {
					t.Errorf("%s: %v", path, a.header)
				}
				a = i.do(t, http.MethodOptions, path, nil, "Origin", "https://wallet.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,dpop")
				allowed := strings.ToLower("," + strings.ReplaceAll(a.header.Get("Access-Control-Allow-Headers"), " ", "") + ",")
				if a.status != http.StatusNoContent || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "POST") || !strings.Contains(allowed, ",authorization,content-type,dpop,") {
					t.Errorf("%s: %d %v", path, a.status, a.header)
				}
			}
		})
	}
}

func TestCheck156CancelledOffer(t *testing.T) {
	i := plain(t)
	for name, s := range map[string]*session{"Bearer": i.session(t, pidSDJWT), "DPoP": i.bound(t, pidSDJWT)} {
		t.Run(name, func(t *testing.T) {
			if a := i.operator(t, http.MethodDelete, "/v1/openid/offers/pre-authorized/"+s.offer.id, nil); a.status != http.StatusNoContent {
				t.Fatalf("%d %s", a.status, a.body)
			}
			challenged(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), name, "invalid_token")
			if state, list := i.look(t, s.offer); state != "cancelled" || len(list) != 0 {
				t.Errorf("%s, %d credentials", state, len(list))
			}
		})
	}
}
