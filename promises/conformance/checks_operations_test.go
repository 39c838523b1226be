package conformance

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chancery/hsm/hsmtest"
)

// TestCheck327TLS: versions, suites and certificate, on both listeners.
func TestCheck327TLS(t *testing.T) {
	i := plain(t)
	origin, _ := i.split()
	for _, base := range []string{origin, i.admin} {
		host := strings.TrimPrefix(base, "https://")
		dial := func(change func(c *tls.Config)) (tls.ConnectionState, error) {
			c := i.client.Transport.(*http.Transport).TLSClientConfig.Clone()
			change(c)
			conn, err := tls.Dial("tcp", host, c)
			if err != nil {
				return tls.ConnectionState{}, err
			}
			defer conn.Close()
			return conn.ConnectionState(), nil
		}
		for version, spoken := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			state, err := dial(func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
			if (err == nil) != spoken || spoken && state.Version != version {
				t.Errorf("%s %s: %v", host, tls.VersionName(version), err)
			}
		}
		spoken := 0
		for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
			if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) || slices.Contains(suite.SupportedVersions, tls.VersionTLS13) {
				continue
			}
			_, err := dial(func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite.ID} })
			recommended := strings.HasPrefix(suite.Name, "TLS_ECDHE_") && (strings.Contains(suite.Name, "_GCM_") || strings.Contains(suite.Name, "CHACHA20_POLY1305")) // RFC 9325 §4.2, RFC 7905
			if err == nil {
				spoken++
			}
			if err == nil && !recommended {
				t.Errorf("%s speaks %s", host, suite.Name)
			}
		}
		if spoken == 0 {
			t.Errorf("%s speaks no suite of TLS 1.2", host)
		}
		// The client of every test here checks the certificate; another name's is none.
		var wrong *tls.CertificateVerificationError
		if _, err := dial(func(c *tls.Config) { c.ServerName = "issuer.example" }); !errors.As(err, &wrong) {
			t.Errorf("%s as issuer.example: %v", host, err)
		}
	}
}

// TestCheck328PlainHTTP: without TLS nothing is accepted and nothing told.
func TestCheck328PlainHTTP(t *testing.T) {
	i := plain(t)
	o := i.offer(t, residence, nil)
	origin, _ := i.split()
	host := strings.TrimPrefix(origin, "https://")
	form := url.Values{"grant_type": {grantType}, "pre-authorized_code": {o.code}}.Encode()
	for _, request := range []string{
		"GET " + strings.TrimPrefix(o.reference, origin) + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		fmt.Sprintf("POST /token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", host, len(form), form),
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%.20q: %d", request, response.StatusCode)
		}
		conn.Close()
	}
	if a := i.tokenRequest(t, o.code, nil, nil); a.status != http.StatusOK {
		t.Errorf("the code over TLS: %d %s", a.status, a.body)
	}
}

// inside are words that only the inside of the appliance knows.
func (i *instance) inside(t testing.TB) *regexp.Regexp {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	words := []string{"goroutine ", `\.go:\d`, "panic", "runtime error", "(?i)pkcs ?#?11", "CKR_", "(?i)softhsm", `(?i)\bslot`, "(?i)sql", "(?i)sqlite", "0x[0-9a-f]{6}",
		`(?i)/(tmp|home|usr|var|etc|proc)/`, `127\.0\.0\.1`, `\.sock`, `\bchancery`, `\bds-1\b`, `\bcs-1\b`, `\bdid-1\b`, `\bsealing-1\b`, regexp.QuoteMeta(i.env["STATE_DIR"])}
	if name != "localhost" { // which is in the identifier
		words = append(words, `\b`+regexp.QuoteMeta(name)+`\b`)
	}
	return regexp.MustCompile(strings.Join(words, "|"))
}

// randomText may hold any word by chance.
var randomText = regexp.MustCompile(`[A-Za-z0-9_-]{40,}`)

// discreet checks that an answer tells nothing of the inside (check 330).
func (i *instance) discreet(t testing.TB, what string, a answer) {
	t.Helper()
	text := string(a.body) + "\n"
	for name, values := range a.header {
		text += name + ": " + strings.Join(values, ", ") + "\n"
	}
	text = randomText.ReplaceAllString(text, "…")
	if found := i.inside(t).FindString(text); found != "" {
		t.Errorf("%s tells %q: %d %s", what, found, a.status, text)
	}
}

// TestCheck330Errors provokes errors of all kinds.
func TestCheck330Errors(t *testing.T) {
	for name, i := range mannered(t) {
		s := i.session(t, byProof)
		kinds := map[string]bool{}
		look := func(what string, a answer) {
			i.discreet(t, name+" "+what, a)
			if a.status >= 400 {
				kinds[fmt.Sprint(a.status, string(a.body))] = true
			}
		}
		for _, path := range []string{"", "/", "/nothing", "/offers/x", "/crl/x", "/iaca/x", "/%00", "/..%2f..%2fetc/passwd", "/authorize", "/authorize?response_type=code"} {
			look(path, i.do(t, http.MethodGet, path, nil))
			look(path, i.do(t, http.MethodDelete, path, nil))
		}
		bodies := []string{"", "{", "[]", "null", "{}", `{"a":1,"a":2}`, `{"credential_configuration_id":1}`, `{"credential_configuration_id":"x"}`, "\xff\xfe", strings.Repeat("[", 10000),
			`{"credential_configuration_id":"` + byProof + `","proofs":{"jwt":["x"]}}`, `{"credential_configuration_id":"` + byProof + `","proofs":{"jwt":["e30.e30.e30"]}}`,
			`{"credential_configuration_id":"` + byProof + `","proofs":{"attestation":["a.b.c"]}}`, `{"credential_configuration_id":"` + byProof + `","proofs":{"di_vp":[{}]}}`,
			`{"transaction_id":"x"}`, `{"notification_id":"x","event":"credential_accepted"}`, `{"notification_id":"x","event":"y"}`, "a.b.c.d.e", "eyJhbGciOiJFQ0RILUVTIn0..AA.AA.AA"}
		for what, endpoint := range i.endpoints(t) {
			path := strings.TrimPrefix(endpoint, i.issuer)
			for _, body := range bodies {
				for _, mediaType := range []string{"application/json", "application/jwt", "application/x-www-form-urlencoded"} {
					look(what, i.do(t, http.MethodPost, endpoint, []byte(body), "Content-Type", mediaType, "Authorization", "Bearer x", "DPoP", body))
				}
			}
			for _, mediaType := range []string{"application/json", "application/jwt"} {
				for _, body := range bodies[:8] {
					look(what, s.post(t, path, []byte(body), "Content-Type", mediaType))
				}
			}
		}
		for _, form := range []string{"grant_type=password", "grant_type=" + grantType, "grant_type=" + grantType + "&pre-authorized_code=x", "a=%zz", "client_assertion=x&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&grant_type=" + grantType} {
			look("token", i.do(t, http.MethodPost, "/token", []byte(form), "Content-Type", "application/x-www-form-urlencoded", "OAuth-Client-Attestation", "x", "OAuth-Client-Attestation-PoP", "y"))
			look("token", i.do(t, http.MethodPost, "/token", []byte(form), "Content-Type", "application/x-www-form-urlencoded"))
		}
		if len(kinds) < 15 {
			t.Errorf("%s: %d kinds of errors only", name, len(kinds))
		}
	}
}

// TestPromiseP10Check331333Outages takes the token away and restarts the appliance; a wallet
// that waits comes through with what it has.
func TestPromiseP10Check331333Outages(t *testing.T) {
	fault := hsmtest.WithFaults(t, hsmtest.Module(t))
	i := start(t, "outages", settings{replace: map[string]string{`"` + hsmtest.Module(t) + `"`: `"` + fault.Module + `"`, `probe_interval = "30s"`: `probe_interval = "1s"`}})
	defer func() { // the fault module is gone after the test
		instances.Lock()
		delete(instances.byName, "outages")
		instances.Unlock()
		i.stop()
	}()
	t.Run("331 token away", func(t *testing.T) {
		i.signedMetadata(t)
		for _, gone := range []string{"gone 0x32", "gone 0xe0", "gone 0x30"} { // CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT, CKR_DEVICE_ERROR
			t.Run(gone, func(t *testing.T) { tokenAway(t, i, fault, gone) })
		}
	})
	t.Run("333 restart", func(t *testing.T) {
		before := i.offer(t, residence, nil)
		bearer, bound := i.session(t, residence), i.bound(t, pidSDJWT)
		old := i.nonce(t)
		i.demo(t, "down")
		i.demo(t, "up")
		i.connect(t)
		k := newKey(t, jose.ES256)
		refused(t, bearer.restarted(i).ask(t, request(residence, i.proof(t, k, old, nil))), http.StatusBadRequest, "invalid_nonce")
		credentials(t, bearer.ask(t, request(residence, i.proof(t, k, i.nonce(t), nil))), 1)
		credentials(t, bound.restarted(i).ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))), 1)
		if a := i.tokenRequest(t, before.code, nil, nil); a.status != http.StatusOK {
			t.Errorf("a code from before: %d %s", a.status, a.body)
		}
		// What is spent stays so.
		refused(t, i.tokenRequest(t, bearer.offer.code, nil, nil), http.StatusBadRequest, "invalid_grant")
	})
}

// restarted makes the session go on with the instance's new connections.
func (s *session) restarted(i *instance) *session {
	s.instance = i
	return s
}

// tokenAway: 503 with Retry-After, and everything stays good.
func tokenAway(t *testing.T, i *instance, fault *hsmtest.Fault, gone string) {
	s, code := i.session(t, pidSDJWT), i.offer(t, residence, nil).code
	body := request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))
	fault.Order(t, gone)
	for range 3 {
		a := s.ask(t, body)
		refused(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
		manners(t, a)
		i.discreet(t, gone, a)
		if !regexp.MustCompile(`^[1-9][0-9]?$`).MatchString(a.header.Get("Retry-After")) {
			t.Errorf("Retry-After: %q", a.header.Get("Retry-After"))
		}
	}
	// The rest is served as long as a data key is open.
	for what, d := range i.documents(t) {
		if a := i.do(t, http.MethodGet, d[0], nil); a.status != http.StatusOK {
			t.Errorf("%s: %d", what, a.status)
		}
	}
	first := i.tokenRequest(t, code, nil, nil)
	if first.status != http.StatusOK && (first.status != http.StatusServiceUnavailable || first.header.Get("Retry-After") == "") {
		t.Errorf("a code: %d %s", first.status, first.body)
	}
	fault.Order(t)
	eventually(t, "readiness", func() error {
		if a := i.do(t, http.MethodGet, i.admin+"/readyz", nil); a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	credentials(t, s.ask(t, body), 1) // the same token, the same nonce
	if first.status != http.StatusOK {
		if a := i.tokenRequest(t, code, nil, nil); a.status != http.StatusOK {
			t.Errorf("the code afterwards: %d %s", a.status, a.body)
		}
	}
}
