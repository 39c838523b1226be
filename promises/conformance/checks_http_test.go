package conformance

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// documents are what is fetched, by name, with each its media type.
func (i *instance) documents(t testing.TB) map[string][2]string {
	t.Helper()
	origin, path := i.split()
	did := origin + "/.well-known/did.json"
	if path != "" {
		did = i.issuer + "/did.json"
	}
	return map[string][2]string{
		"issuer metadata": {i.wellKnown(issuerName), "application/json"},
		"server metadata": {i.wellKnown(serverName), "application/json"},
		"OpenID metadata": {i.wellKnown("openid-configuration"), "application/json"},
		"DID document":    {did, "application/did+json"},
		"DID linkage":     {origin + "/.well-known/did-configuration.json", "application/json"},
		"SD-JWT VC keys":  {i.wellKnown("jwt-vc-issuer"), "application/json"},
		"CRL":             {i.crl(t), "application/pkix-crl"},
		"IACA in DER":     {i.issuer + "/iaca/iaca-1.cer", "application/pkix-cert"},
		"IACA in PEM":     {i.issuer + "/iaca/iaca-1.pem", "application/pem-certificate-chain"},
	}
}

// crl is where a certificate of the issuer's says that revocations are.
func (i *instance) crl(t testing.TB) string {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(i.signedMetadata(t).x5c[0])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil || len(leaf.CRLDistributionPoints) != 1 {
		t.Fatalf("distribution points: %v", err)
	}
	return leaf.CRLDistributionPoints[0]
}

// endpoints are what is posted to, by name.
func (i *instance) endpoints(t testing.TB) map[string]string {
	t.Helper()
	m, s := i.metadata(t), i.server(t)
	out := map[string]string{"token": s.Token, "nonce": m.Nonce, "credential": m.Credential, "deferred": m.Deferred, "notification": m.Notification}
	if s.Challenge != "" {
		out["challenge"] = s.Challenge
	}
	return out
}

// mannered are two instances that have every endpoint between them.
func mannered(t testing.TB) map[string]*instance {
	t.Helper()
	return map[string]*instance{"haip": haip(t), "sealed": sealed(t)}
}

// manners checks what every answer carries (check 155 among it).
func manners(t testing.TB, a answer) {
	t.Helper()
	for name, want := range map[string]string{"Strict-Transport-Security": "max-age=31536000", "X-Content-Type-Options": "nosniff", "Access-Control-Allow-Origin": "*"} {
		if got := a.header.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	exposed := strings.Split(strings.ToLower(strings.ReplaceAll(a.header.Get("Access-Control-Expose-Headers"), " ", "")), ",")
	for _, name := range []string{"dpop-nonce", "www-authenticate", "retry-after", "oauth-client-attestation-challenge", "request-id"} {
		if !slices.Contains(exposed, name) {
			t.Errorf("pages in a browser may not read %s", name)
		}
	}
	for _, name := range []string{"Access-Control-Allow-Credentials", "Server", "X-Powered-By", "Set-Cookie"} {
		if a.header.Get(name) != "" {
			t.Errorf("%s: %q", name, a.header.Get(name))
		}
	}
}

// TestCheck155Manners is a table of method by path.
func TestCheck155Manners(t *testing.T) {
	for name, i := range mannered(t) {
		type path struct {
			url   string
			allow string
		}
		paths := map[string]path{"offer": {i.offer(t, residence, nil).reference, "GET, HEAD"}}
		for name, d := range i.documents(t) {
			paths[name] = path{d[0], "GET, HEAD"}
		}
		for name, url := range i.endpoints(t) {
			paths[name] = path{url, "POST"}
		}
		if endpoint := i.server(t).Authorization; endpoint != "" {
			paths["authorization"] = path{endpoint, "GET, HEAD, POST"}
		}
		for what, p := range paths {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
				t.Run(strings.Join([]string{name, what, method}, " "), func(t *testing.T) {
					a := i.do(t, method, p.url, nil)
					manners(t, a)
					if slices.Contains(strings.Split(p.allow, ", "), method) {
						if a.status == http.StatusMethodNotAllowed || a.status == http.StatusNotFound {
							t.Errorf("status %d", a.status)
						}
						return
					}
					if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != p.allow {
						t.Errorf("%d, Allow %q, want %q", a.status, a.header.Get("Allow"), p.allow)
					}
				})
			}
			t.Run(strings.Join([]string{name, what, "preflight"}, " "), func(t *testing.T) { preflight(t, i, p.url) })
			if strings.HasSuffix(what, "metadata") || what == "offer" {
				continue
			}
			for _, near := range []string{p.url + "/", p.url + "x", strings.ToUpper(p.url[len(i.issuer):])} {
				t.Run(strings.Join([]string{name, what, "near"}, " "), func(t *testing.T) {
					a := i.do(t, http.MethodPost, near, nil)
					if b := i.do(t, http.MethodGet, near, nil); b.status != http.StatusNotFound || a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
						t.Errorf("%s: POST %d, GET %d", near, a.status, b.status)
					}
					manners(t, a)
				})
			}
		}
	}
}

// preflight asks for leave to send what wallets send (Fetch standard).
func preflight(t *testing.T, i *instance, url string) {
	t.Helper()
	a := i.do(t, http.MethodOptions, url, nil, "Origin", "https://wallet.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization,content-type,dpop,if-none-match,oauth-client-attestation,oauth-client-attestation-pop")
	if a.status/100 != 2 || len(a.body) > 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	manners(t, a)
	split := func(name string) []string {
		return strings.Split(strings.ToLower(strings.ReplaceAll(a.header.Get(name), " ", "")), ",")
	}
	for _, header := range []string{"authorization", "content-type", "dpop", "if-none-match", "oauth-client-attestation", "oauth-client-attestation-pop"} { // "*" would not stand for Authorization
		if !slices.Contains(split("Access-Control-Allow-Headers"), header) {
			t.Errorf("%s may not be sent", header)
		}
	}
	for _, method := range []string{"get", "post"} {
		if !slices.Contains(split("Access-Control-Allow-Methods"), method) {
			t.Errorf("%s is not allowed", method)
		}
	}
}

// TestCheckHTTPNotStored: what is for one wallet is not stored; the rest may be,
// and is known again by its tag.
func TestCheckHTTPNotStored(t *testing.T) {
	for name, i := range mannered(t) {
		for what, url := range i.endpoints(t) {
			for _, body := range []string{"", "{}", "a=b"} {
				if a := i.do(t, http.MethodPost, url, []byte(body), "Content-Type", "application/json"); a.header.Get("Cache-Control") != "no-store" || a.header.Get("Etag") != "" {
					t.Errorf("%s %s: %d, Cache-Control %q", name, what, a.status, a.header.Get("Cache-Control"))
				}
			}
		}
		for what, d := range i.documents(t) {
			t.Run(name+" "+what, func(t *testing.T) { cached(t, i, d[0], d[1]) })
		}
	}
	t.Run("each form has its tag", func(t *testing.T) {
		i := plain(t)
		i.signedMetadata(t)
		seen := map[string]bool{}
		for _, header := range [][]string{nil, {"Accept", "application/jwt"}, {"Accept-Language", "de"}, {"Accept-Language", "en"}} {
			a := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, header...)
			seen[a.header.Get("Etag")] = true
			b := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, append([]string{"If-None-Match", a.header.Get("Etag")}, header...)...)
			if b.status != http.StatusNotModified {
				t.Errorf("%v: %d", header, b.status)
			}
			varies(t, b)
		}
		if len(seen) != 4 {
			t.Errorf("%v", seen)
		}
	})
}

// cached checks conditional requests for a document (RFC 9110 §13.1.2, §15.4.5).
func cached(t *testing.T, i *instance, url, mediaType string) {
	t.Helper()
	a := i.do(t, http.MethodGet, url, nil)
	etag := a.header.Get("Etag")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != mediaType || len(etag) < 10 || !strings.Contains(a.header.Get("Cache-Control"), "max-age=") {
		t.Fatalf("%d %v", a.status, a.header)
	}
	for _, match := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			b := i.do(t, method, url, nil, "If-None-Match", match)
			if b.status != http.StatusNotModified || len(b.body) > 0 || b.header.Get("Etag") != etag || b.header.Get("Cache-Control") != a.header.Get("Cache-Control") {
				t.Errorf("%s %s: %d %v", method, match, b.status, b.header)
			}
			manners(t, b)
		}
	}
	for _, match := range []string{`"x"`, strings.Trim(etag, `"`), ""} {
		if b := i.do(t, http.MethodGet, url, nil, "If-None-Match", match); b.status != http.StatusOK || !bytes.Equal(a.body, b.body) {
			t.Errorf("%q: %d", match, b.status)
		}
	}
	if b := i.do(t, http.MethodHead, url, nil); b.status != http.StatusOK || b.header.Get("Content-Length") != fmt.Sprint(len(a.body)) || b.header.Get("Etag") != etag || len(b.body) > 0 {
		t.Errorf("HEAD: %d %v", b.status, b.header)
	}
}

// over is the instance by way of that protocol alone.
func (i *instance) over(t testing.TB, major int) *instance {
	t.Helper()
	transport := i.client.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.NextProtos = nil // what was negotiated for the other client
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(major == 1)
	transport.Protocols.SetHTTP2(major == 2)
	client := *i.client
	client.Transport = transport
	t.Cleanup(transport.CloseIdleConnections)
	other := *i
	other.client = &client
	return &other
}

// TestCheckHTTPVersions: a credential by either protocol, and the same documents.
func TestCheckHTTPVersions(t *testing.T) {
	documents := map[int]string{}
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", major), func(t *testing.T) {
			i := plain(t).over(t, major)
			response, err := i.client.Get(i.wellKnown(issuerName))
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.ProtoMajor != major {
				t.Errorf("%s", response.Proto)
			}
			documents[major] = string(i.do(t, http.MethodGet, i.wellKnown(issuerName), nil).body)
			s := i.bound(t, residence)
			credentials(t, s.ask(t, request(residence, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), 1)
		})
	}
	if documents[1] != documents[2] || documents[1] == "" {
		t.Error("the documents differ")
	}
	// Who knows neither gets neither.
	configuration := plain(t).client.Transport.(*http.Transport).TLSClientConfig.Clone()
	configuration.NextProtos = []string{"h3", "spdy/3"}
	origin, _ := plain(t).split()
	if conn, err := tls.Dial("tcp", strings.TrimPrefix(origin, "https://"), configuration); err == nil {
		conn.Close()
		t.Errorf("%q was agreed on", conn.ConnectionState().NegotiatedProtocol)
	}
}

// TestCheckHTTPMediaTypes: what a body may be called.
func TestCheckHTTPMediaTypes(t *testing.T) {
	i := plain(t)
	s := i.session(t, unbound)
	body := marshal(t, members{"credential_configuration_id": unbound})
	for _, wrong := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application", ";", "application/json, application/json"} {
		refused(t, s.post(t, "/credential", body, "Content-Type", wrong), http.StatusBadRequest, "invalid_credential_request")
		refused(t, s.post(t, "/deferred", []byte(`{"transaction_id":"x"}`), "Content-Type", wrong), http.StatusBadRequest, "invalid_credential_request")
		refused(t, s.post(t, "/notification", []byte(`{"notification_id":"x","event":"credential_accepted"}`), "Content-Type", wrong), http.StatusBadRequest, "invalid_notification_request")
	}
	for _, right := range []string{"application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8"} {
		credentials(t, i.session(t, unbound).post(t, "/credential", body, "Content-Type", right), 1)
	}
}
