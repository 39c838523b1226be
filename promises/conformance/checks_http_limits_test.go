package conformance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// peak returns the most memory that the daemon has had so far, in KiB.
func (i *instance) peak(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + i.env["CHANCERYD_PID"] + "/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("%s", status)
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// forgetPeak begins [instance.peak] anew (proc(5), clear_refs).
func (i *instance) forgetPeak(t testing.TB) {
	t.Helper()
	if err := os.WriteFile("/proc/"+i.env["CHANCERYD_PID"]+"/clear_refs", []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestCheckHTTPLargeHeader: 20 KiB of attestation pass, 10 MB are refused, many at
// once, and cost next to nothing.
func TestCheckHTTPLargeHeader(t *testing.T) {
	i := plain(t)
	for _, major := range []int{1, 2} {
		a := i.over(t, major).do(t, http.MethodPost, "/nonce", nil, "OAuth-Client-Attestation", strings.Repeat("a", 20<<10))
		if a.status != http.StatusOK {
			t.Errorf("HTTP/%d: 20 KiB: %d", major, a.status)
		}
	}
	origin, _ := i.split()
	i.forgetPeak(t)
	before := i.peak(t)
	var wait sync.WaitGroup
	for n := range 10 {
		target := []string{"/token", "/credential"}[n%2]
		wait.Go(func() {
			status, err := i.flood(strings.TrimPrefix(origin, "https://"), target)
			if err != nil || status != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s: %d %v", target, status, err)
			}
		})
	}
	wait.Wait()
	if grown := i.peak(t) - before; grown > 16<<10 {
		t.Errorf("ten headers of 10 MB cost %d KiB", grown)
	}
	// An HTTP/2 client learns the limit with its first answer, and keeps it.
	second := i.over(t, 2)
	second.nonce(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.issuer+"/nonce", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X", strings.Repeat("a", 10<<20))
	if response, err := second.client.Do(request); err == nil {
		response.Body.Close()
		t.Errorf("%s: the client knows no limit: %d", response.Proto, response.StatusCode)
	} else if !strings.Contains(err.Error(), "larger than peer's advertised limit") {
		t.Error(err)
	}
	i.nonce(t)
}

// flood sends a header of 10 MB over HTTP/1.1 and returns the answer's status.
func (i *instance) flood(host, target string) (int, error) {
	configuration := i.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	configuration.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", host, configuration)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	go func() {
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nX: ", target, host); err != nil {
			return
		}
		chunk := bytes.Repeat([]byte("a"), 16<<10)
		for range 10 << 20 / len(chunk) {
			if _, err := conn.Write(chunk); err != nil {
				return // the other end has had enough
			}
		}
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

// TestCheckHTTPLargeBody: each endpoint has its limit, whether a body tells its
// length or not; what was tried with is good afterwards.
func TestCheckHTTPLargeBody(t *testing.T) {
	i := plain(t)
	s := i.session(t, unbound)
	bearer := "Bearer " + s.token
	filled := func(size int, start, end string) string {
		return start + strings.Repeat("a", size-len(start)-len(end)) + end
	}
	const form, document = "application/x-www-form-urlencoded", "application/json"
	code := i.offer(t, unbound, nil).code
	grant := url.Values{"grant_type": {grantType}, "pre-authorized_code": {code}}.Encode()
	ask := `{"credential_configuration_id":"` + unbound + `","x":"`
	for _, major := range []int{1, 2} {
		for name, c := range map[string]struct {
			path, mediaType, body, code string
			status                      int
		}{
			"token":                 {"/token", form, filled(64<<10+1, grant+"&x=", ""), "invalid_request", 413},
			"credential":            {"/credential", document, filled(256<<10+1, ask, `"}`), "invalid_credential_request", 413},
			"credential, encrypted": {"/credential", "application/jwt", filled(256<<10+1, "", ""), "invalid_credential_request", 413},
			"deferred":              {"/deferred", document, filled(256<<10+1, `{"transaction_id":"`, `"}`), "invalid_credential_request", 413},
			"notification":          {"/notification", document, filled(16<<10+1, `{"notification_id":"x","event":"credential_accepted","event_description":"`, `"}`), "invalid_notification_request", 413},
			"deferred, at limit":    {"/deferred", document, filled(256<<10, `{"transaction_id":"`, `"}`), "invalid_transaction_id", 400},
			"notification at limit": {"/notification", document, filled(16<<10, `{"notification_id":"x","event":"credential_accepted","event_description":"`, `"}`), "invalid_notification_id", 400},
			"nonce":                 {"/nonce", document, filled(10<<20, "{", "}"), "", 200},
		} {
			for _, known := range []bool{true, false} {
				t.Run(fmt.Sprintf("HTTP/%d %s, length known: %v", major, name, known), func(t *testing.T) {
					header := []string{"Content-Type", c.mediaType}
					if c.mediaType != form {
						header = append(header, "Authorization", bearer)
					}
					a := i.over(t, major).stream(t, c.path, c.body, known, header...)
					manners(t, a)
					if c.code != "" {
						refused(t, a, c.status, c.code)
					} else if a.status != c.status {
						t.Errorf("%d %s", a.status, a.body)
					}
				})
			}
		}
	}
	if a := i.tokenRequest(t, code, nil, nil); a.status != http.StatusOK {
		t.Errorf("the code afterwards: %d %s", a.status, a.body)
	}
	if a := i.tokenRequest(t, i.offer(t, unbound, nil).code, []string{"x", strings.Repeat("a", 60<<10)}, nil); a.status != http.StatusOK {
		t.Errorf("60 KiB of a form: %d %s", a.status, a.body)
	}
	credentials(t, s.post(t, "/credential", []byte(filled(256<<10, ask, `"}`))), 1)
}

// stream posts a body that tells its length, or does not.
func (i *instance) stream(t testing.TB, path, body string, known bool, header ...string) answer {
	t.Helper()
	var reader io.Reader = strings.NewReader(body)
	if !known {
		reader = io.MultiReader(reader)
	}
	return i.send(t, http.MethodPost, path, reader, header...)
}

// TestCheckHTTPRequestID: each refusal has an id of its own, under which operators
// read what was wrong, and wallets nothing.
func TestCheckHTTPRequestID(t *testing.T) {
	seen := map[string]bool{}
	for name, i := range mannered(t) {
		for what, url := range i.endpoints(t) {
			if what == "nonce" || what == "challenge" {
				continue // refuse nothing
			}
			a := i.do(t, http.MethodPost, url, []byte("{}"), "Content-Type", "application/json")
			id := a.header.Get("Request-Id")
			if a.status < 400 || id == "" || seen[id] {
				t.Fatalf("%s %s: %d, Request-Id %q", name, what, a.status, id)
			}
			seen[id] = true
			b := i.operator(t, http.MethodGet, "/v1/openid/failures/"+id, nil)
			if b.status != http.StatusOK || b.text(t, "endpoint") != what || b.object(t)["status"] != float64(a.status) {
				t.Errorf("%s %s: %d %s", name, what, b.status, b.body)
			}
			if c := i.do(t, http.MethodGet, "/v1/openid/failures/"+id, nil, "Authorization", "Bearer "+i.env["ADMIN_TOKEN"]); c.status != http.StatusNotFound {
				t.Errorf("on the wallets' listener: %d", c.status)
			}
		}
		for what, d := range i.documents(t) {
			if id := i.do(t, http.MethodGet, d[0], nil).header.Get("Request-Id"); id != "" {
				t.Errorf("%s %s: a success has Request-Id %q", name, what, id)
			}
		}
	}
}

// TestCheckHTTPTooMany: who asks for one code again and again is told when to come back.
func TestCheckHTTPTooMany(t *testing.T) {
	i := plain(t)
	var last answer
	for range 400 {
		if last = i.tokenRequest(t, "never-given-out", nil, nil); last.status != http.StatusBadRequest {
			break
		}
	}
	refused(t, last, http.StatusTooManyRequests, "too_many_requests")
	manners(t, last)
	if seconds, err := strconv.Atoi(last.header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60 {
		t.Errorf("Retry-After: %q", last.header.Get("Retry-After"))
	}
	i.session(t, residence) // others are not concerned
}

// TestCheckHTTPRedirects: a path that is not clean leads to the clean one of this
// host, with the method kept, and to no other host.
func TestCheckHTTPRedirects(t *testing.T) {
	for name, i := range mannered(t) {
		origin, path := i.split()
		for _, unclean := range []string{"//evil.example/token", "//evil.example//", "///evil.example", "/x/..//evil.example/a", "/\\evil.example", "/%5Cevil.example", "/%2f%2fevil.example", "/x/../..//evil.example", path + "//token", path + "/./token"} {
			a := i.do(t, http.MethodPost, origin+unclean, nil)
			manners(t, a)
			to := a.header.Get("Location")
			switch a.status {
			case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
				if u, err := url.Parse(to); err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.Contains(to, "\\") {
					t.Errorf("%s %s leads to %q", name, unclean, to)
				}
			case http.StatusNotFound:
			default:
				t.Errorf("%s %s: %d %q", name, unclean, a.status, to)
			}
		}
	}
}
