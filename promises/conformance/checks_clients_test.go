package conformance

import (
	"crypto/rand"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	registeredID  = "registered-wallet"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// registration is the registered client's key; one for each run.
var registration struct {
	sync.Mutex
	key key
}

// registered is an instance with a client that authenticates by private_key_jwt,
// refresh tokens, and bounds on requests; the client's key is the second result.
func registered(t testing.TB) (*instance, key) {
	t.Helper()
	registration.Lock()
	defer registration.Unlock()
	if registration.key.private == nil {
		registration.key = newKey(t, jose.ES256)
	}
	k := registration.key
	i := start(t, "registered", settings{
		sections: "[issuer.refresh]\nenabled = true\n\n[issuer.http]\nrequests_per_second = 1\nburst = 300\noffer_requests_per_minute = 10\n\n[[issuer.clients]]\nid = \"" + registeredID + "\"\nkeys = \"client.json\"\n",
		prepared: func(run string) {
			set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.private.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}}
			if err := os.WriteFile(filepath.Join(run, "client.json"), marshal(t, set), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	})
	return i, k
}

// from returns the instance as a client with another address of this host sees it.
func (i *instance) from(t testing.TB, address string) *instance {
	t.Helper()
	transport := i.client.Transport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
	t.Cleanup(transport.CloseIdleConnections)
	other, client := *i, *i.client
	client.Transport = transport
	other.client = &client
	return &other
}

// assertion is what the registered client authenticates with (RFC 7523 §3).
func (i *instance) assertion(t testing.TB, k key, c change) []string {
	t.Helper()
	header := members{"typ": "JWT", "kid": "1"}
	claims := members{"iss": registeredID, "sub": registeredID, "aud": i.issuer, "jti": rand.Text(), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	if c != nil {
		c(header, claims)
	}
	return []string{"client_assertion_type", assertionType, "client_assertion", k.sign(t, header, claims)}
}

func TestPrivateKeyJWT(t *testing.T) {
	i, k := registered(t)
	code := i.offer(t, pidSDJWT, nil).code
	for name, c := range map[string]change{
		"unknown client":                  with(nil, members{"iss": "nobody", "sub": "nobody"}),
		"iss is not sub":                  with(nil, members{"iss": "nobody"}),
		"no sub":                          with(nil, members{"sub": nil}),
		"aud of another server":           with(nil, members{"aud": "https://other.example"}),
		"aud the token endpoint":          with(nil, members{"aud": i.issuer + "/token"}),
		"aud a list":                      with(nil, members{"aud": []string{i.issuer}}),
		"no aud":                          with(nil, members{"aud": nil}),
		"expired":                         with(nil, members{"exp": time.Now().Add(-2 * time.Minute).Unix()}),
		"no exp":                          with(nil, members{"exp": nil}),
		"exp in a year":                   with(nil, members{"exp": time.Now().AddDate(1, 0, 0).Unix()}),
		"not yet valid":                   with(nil, members{"nbf": time.Now().Add(30 * time.Minute).Unix()}),
		"no jti":                          with(nil, members{"jti": nil}),
		"a kid of no key of the client's": with(members{"kid": "2"}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, i.tokenRequest(t, code, i.assertion(t, k, c), nil), 400, "invalid_client")
		})
	}
	spoilt := func(n int, value string) []string {
		p := i.assertion(t, k, nil)
		p[n] = value
		return p
	}
	for name, parameters := range map[string][]string{
		"another key":              i.assertion(t, newKey(t, jose.ES256), nil),
		"another client_id beside": append(i.assertion(t, k, nil), "client_id", "nobody"),
		"no type":                  spoilt(1, ""),
		"another type":             spoilt(1, "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"),
		"no assertion":             spoilt(3, ""),
		"no JWT":                   spoilt(3, "x"),
		"its client_id alone":      {"client_id", registeredID},
		"none": {"client_assertion_type", assertionType, "client_assertion",
			forge(t, members{"alg": "none"}, members{"iss": registeredID, "sub": registeredID, "aud": i.issuer, "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix()}, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, i.tokenRequest(t, code, parameters, nil), 400, "invalid_client")
		})
	}
	t.Run("two ways at once", func(t *testing.T) { // RFC 6749 §2.3
		instance := newKey(t, jose.ES256)
		refused(t, i.tokenRequest(t, code, i.assertion(t, k, nil), []string{attestationHeader, i.attester.attestation(t, instance, nil), popHeader, i.pop(t, instance, "", nil)}), 400, "invalid_request")
	})
	t.Run("once", func(t *testing.T) {
		parameters := append(i.assertion(t, k, nil), "client_id", registeredID)
		granted(t, i.tokenRequest(t, code, parameters, nil), "Bearer")
		refused(t, i.tokenRequest(t, i.offer(t, pidSDJWT, nil).code, parameters, nil), 400, "invalid_client")
	})
}

// clientOffer makes an offer with requirements on who redeems it.
func (i *instance) clientOffer(t testing.TB, id string, authenticated bool) string {
	t.Helper()
	return i.offer(t, pidSDJWT, func(request map[string]any) {
		if id != "" {
			request["clientId"] = id
		}
		request["clientAuthenticationRequired"] = authenticated
	}).code
}

func TestOfferForAClient(t *testing.T) {
	i, k := registered(t)
	wallet := func(sub string) []string {
		instance := newKey(t, jose.ES256)
		return []string{attestationHeader, i.attester.attestation(t, instance, with(nil, members{"sub": sub})), popHeader, i.pop(t, instance, "", with(nil, members{"iss": sub}))}
	}
	other := "https://wallet.example/other"
	for _, c := range []struct {
		name          string
		id            string
		authenticated bool
		wrong         []members // "parameters" and "header" of requests that are refused
		right         members
	}{
		{"a client_id", walletID, false, []members{{}, {"parameters": []string{"client_id", other}}, {"header": wallet(other)}, {"parameters": i.assertion(t, k, nil)}}, members{"parameters": []string{"client_id", walletID}}},
		{"a client_id, attested", walletID, false, nil, members{"header": wallet(walletID)}},
		{"any authenticated client", "", true, []members{{}, {"parameters": []string{"client_id", walletID}}}, members{"header": wallet(other)}},
		{"one authenticated client", walletID, true, []members{{}, {"parameters": []string{"client_id", walletID}}, {"header": wallet(other)}, {"parameters": i.assertion(t, k, nil)}}, members{"header": wallet(walletID)}},
		{"the registered client", registeredID, true, []members{{}, {"header": wallet(walletID)}}, members{"parameters": i.assertion(t, k, nil)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code := i.clientOffer(t, c.id, c.authenticated)
			send := func(m members) answer {
				parameters, _ := m["parameters"].([]string)
				header, _ := m["header"].([]string)
				return i.tokenRequest(t, code, parameters, header)
			}
			for _, m := range c.wrong {
				refused(t, send(m), 400, "invalid_grant", "invalid_client")
			}
			granted(t, send(c.right), "Bearer") // none of those spent it
		})
	}
	t.Run("the offer says nothing of it", func(t *testing.T) {
		o := i.offer(t, pidSDJWT, func(request map[string]any) { request["clientId"] = walletID })
		if body := i.do(t, http.MethodGet, o.reference, nil).body; strings.Contains(string(body), walletID) {
			t.Errorf("%s", body)
		}
	})
}

// refresh sends a refresh token with parameters and header lines.
func (i *instance) refresh(t testing.TB, token string, parameters, header []string) answer {
	t.Helper()
	return i.sendForm(t, "", form(append([]string{"grant_type", "refresh_token", "refresh_token", token}, parameters...)...), header...)
}

func TestCheck102Refresh(t *testing.T) {
	for _, name := range []string{"draft-13", "draft-15"} {
		i := draft(t, name)
		t.Run("102 DPoP "+name, func(t *testing.T) {
			s := i.bound(t, pidSDJWT)
			token := s.answer.text(t, "refresh_token")
			with := func(k key) []string { return []string{"DPoP", i.dpop(t, k, "/token", "", "", nil)} }
			i.refreshes(t, s, token, func() answer { return i.refresh(t, token, nil, with(*s.key)) }, map[string]func() answer{
				"without a proof": func() answer { return i.refresh(t, token, nil, nil) },
				"another key":     func() answer { return i.refresh(t, token, nil, with(newKey(t, jose.ES256))) },
				"an attested key": func() answer { return i.refresh(t, token, nil, i.attested(t, *s.key)) },
			})
		})
		t.Run("102 attested "+name, func(t *testing.T) {
			k := newKey(t, jose.ES256)
			s := &session{instance: i, offer: i.offer(t, pidSDJWT, nil), client: &k}
			s.redeem(t, nil)
			token := s.answer.text(t, "refresh_token")
			i.refreshes(t, s, token, func() answer { return i.refresh(t, token, nil, i.attested(t, k)) }, map[string]func() answer{
				"without attestation":    func() answer { return i.refresh(t, token, nil, nil) },
				"a client_id alone":      func() answer { return i.refresh(t, token, []string{"client_id", walletID}, nil) },
				"another instance's key": func() answer { return i.refresh(t, token, nil, i.attested(t, newKey(t, jose.ES256))) },
				"DPoP with the same key": func() answer { return i.refresh(t, token, nil, []string{"DPoP", i.dpop(t, k, "/token", "", "", nil)}) },
			})
		})
	}
	t.Run("102 none for a wallet that is bound to no key", func(t *testing.T) {
		if token := draft(t, "draft-15").session(t, pidSDJWT).answer.text(t, "refresh_token"); token != "" {
			t.Error("there is one")
		}
	})
	i, k := registered(t)
	t.Run("102 private_key_jwt", func(t *testing.T) {
		s := (&session{instance: i, offer: i.offer(t, pidSDJWT, nil)}).redeem(t, i.assertion(t, k, nil))
		token := s.answer.text(t, "refresh_token")
		i.refreshes(t, s, token, func() answer { return i.refresh(t, token, i.assertion(t, k, nil), nil) }, map[string]func() answer{
			"without assertion": func() answer { return i.refresh(t, token, nil, nil) },
			"another client":    func() answer { return i.refresh(t, token, nil, i.attested(t, newKey(t, jose.ES256))) },
		})
	})
}

// attested are the header lines of an attested wallet.
func (i *instance) attested(t testing.TB, k key) []string {
	t.Helper()
	return []string{attestationHeader, i.attester.attestation(t, k, nil), popHeader, i.pop(t, k, "", nil)}
}

// refreshes uses a session's refresh token in wrong ways and in the right one.
func (i *instance) refreshes(t *testing.T, s *session, token string, right func() answer, wrong map[string]func() answer) {
	t.Helper()
	if token == "" {
		t.Fatalf("no refresh token: %.300s", s.answer.body)
	}
	claims := members{} // iss is the client_id of a client that has one
	switch {
	case s.client != nil:
		claims["iss"] = walletID
	case s.key == nil:
		claims["iss"] = registeredID
	}
	ask := func() answer {
		return s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), with(nil, claims))))
	}
	credentials(t, ask(), 1)
	for name, send := range wrong {
		t.Run(name, func(t *testing.T) { refused(t, send(), 400, "invalid_grant", "invalid_client") })
	}
	t.Run("an unknown token", func(t *testing.T) {
		refused(t, i.refresh(t, strings.Repeat("A", len(token)), nil, nil), 400, "invalid_grant")
		refused(t, i.refresh(t, "", nil, nil), 400, "invalid_request")
	})
	old := s.token
	body := granted(t, right(), map[bool]string{true: "DPoP", false: "Bearer"}[s.key != nil])
	if s.token, _ = body["access_token"].(string); s.token == old {
		t.Error("the access token is the same")
	}
	credentials(t, ask(), 1)
	fresh := s.token
	s.token = old
	refused(t, ask(), 401, "invalid_token")
	s.token = fresh
}
