package oid4vci

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/did"
	"chancery/issuance/issuancetest"
)

// proofType is the typ of a jwt proof.
const proofType = "openid4vci-proof+jwt"

// The example's configurations.
const (
	mdlID       = "org.iso.18013.5.1.mDL"
	pidID       = "eu.europa.ec.eudi.pid.sdjwt"
	residenceID = "org.example.residence.jwt"
)

// rig is an issuer on a real store and a real signer, served over TLS.
type rig struct {
	*Issuer
	signer *signertest.Signer
	store  *store.Store
	client *http.Client
	// ahead is how far the issuer's and the store's clock runs ahead.
	ahead atomic.Int64
	// outcomes counts what Observe was told, by "endpoint outcome".
	outcomes chan string
}

// rigOptions vary a rig.
type rigOptions struct {
	signer signertest.Options
	// issuer changes the configuration's issuer part.
	issuer func(*config.Issuer)
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	r := &rig{signer: signertest.Start(t, o.signer), outcomes: make(chan string, 1<<20)}
	path := filepath.Join(r.signer.Dir, "chancery.db")
	if err := store.Create(path); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.store, err = store.Open(path, store.Options{DataKeys: dataKeys(r.signer), DataKeyLifetime: time.Hour, Retention: time.Hour, RetryWindow: 5 * time.Minute, Attempts: 3, Now: r.now}); err != nil {
		t.Fatal(err)
	}
	// As the daemon does: the audit log is asked first, then has the events.
	if err := r.store.Drain(t.Context(), r.send); err != nil {
		t.Fatal(err)
	}
	background, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { r.store.Run(background, r.send) })
	t.Cleanup(func() { stop(); wait.Wait(); r.store.Close() })
	settings := r.signer.Config.Issuer
	if o.issuer != nil {
		o.issuer(&settings)
	}
	r.Issuer = newIssuer(t, settings, Options{Store: r.store, Signer: r.signer.Sign, Now: r.now,
		Observe: func(endpoint, outcome string, _ time.Duration) { r.outcomes <- endpoint + " " + outcome }})
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.client = serve(t, r.Handler())
	return r
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

// send hands the store's events to the audit log.
func (r *rig) send(ctx context.Context, source string, events []store.Event) (uint64, error) {
	request := wire.AppendRequest{Source: source, Events: make([]wire.Event, len(events))}
	for i, e := range events {
		request.Events[i] = wire.Event{Seq: uint64(e.Seq), Time: e.Time.UnixMilli(), Kind: e.Kind, Actor: e.Actor, Subject: e.Subject, Detail: e.Detail}
	}
	answer, err := r.signer.Sign.Append(ctx, request)
	return answer.LastSeq, err
}

func dataKeys(s *signertest.Signer) store.DataKeys {
	return store.DataKeys{
		New: func(ctx context.Context, bound string) ([]byte, []byte, error) {
			k, err := s.Sign.NewDataKey(ctx, bound)
			return k.Key, k.Wrapped, err
		},
		Open: func(ctx context.Context, bound string, wrapped []byte) ([]byte, error) {
			k, err := s.Sign.OpenDataKey(ctx, bound, wrapped)
			return k.Key, err
		},
	}
}

// newIssuer makes an issuer of the example's configurations.
func newIssuer(t testing.TB, settings config.Issuer, o Options) *Issuer {
	t.Helper()
	settings.SetDefaults()
	o.Issuer = settings
	if o.Configurations == nil {
		o.Configurations = examples(t)
	}
	i, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func examples(t testing.TB) []*configuration.Configuration {
	t.Helper()
	all, err := configuration.LoadDir(filepath.Join("..", "..", "examples", "configurations"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// serve serves a handler over TLS and returns a client whose every connection,
// whatever the host's name, leads there.
func serve(t testing.TB, handler http.Handler) *http.Client {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "example.com"}, // the test server's name
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// answer is an HTTP answer, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// object reads the body as a JSON object.
func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(a.body, &object); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	return object
}

// do sends a request; header holds names and values in turn.
func do(t testing.TB, client *http.Client, method, target string, body io.Reader, header ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		request.Header.Add(header[n], header[n+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, data}
}

// get fetches a path below the host.
func (r *rig) get(t testing.TB, path string, header ...string) answer {
	t.Helper()
	return do(t, r.client, http.MethodGet, "https://localhost:8443"+path, nil, header...)
}

// offer makes an offer of the example's claims.
func (r *rig) offer(t testing.TB, txCode *store.TxCode, ids ...string) store.Created {
	t.Helper()
	claims := map[string]any{}
	for _, id := range ids {
		var one map[string]any
		if err := json.Unmarshal([]byte(signertest.Example(t, "claims/"+id+".json")), &one); err != nil {
			t.Fatal(err)
		}
		for name, value := range one {
			claims[name] = value
		}
	}
	data, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	created, err := r.store.CreateOffer(t.Context(), store.NewOffer{Configurations: ids, Claims: data, TxCode: txCode,
		ExpiresAt: r.now().Add(10 * time.Minute), CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// form posts a token request; parameters are names and values in turn.
func (r *rig) form(t testing.TB, parameters ...string) answer {
	t.Helper()
	var pairs []string
	for n := 0; n < len(parameters); n += 2 {
		pairs = append(pairs, url.QueryEscape(parameters[n])+"="+url.QueryEscape(parameters[n+1]))
	}
	return do(t, r.client, http.MethodPost, r.identifier+"/token", strings.NewReader(strings.Join(pairs, "&")), "Content-Type", "application/x-www-form-urlencoded")
}

// token redeems an offer's code.
func (r *rig) token(t testing.TB, o store.Created, parameters ...string) string {
	t.Helper()
	a := r.form(t, append([]string{"grant_type", GrantType, "pre-authorized_code", o.Code}, parameters...)...)
	token, _ := a.object(t)["access_token"].(string)
	if a.status != http.StatusOK || token == "" {
		t.Fatalf("token: %d %s", a.status, a.body)
	}
	return token
}

// nonce asks the nonce endpoint.
func (r *rig) nonce(t testing.TB) string {
	t.Helper()
	a := do(t, r.client, http.MethodPost, r.identifier+"/nonce", nil)
	nonce, _ := a.object(t)["c_nonce"].(string)
	if a.status != http.StatusOK || nonce == "" {
		t.Fatalf("nonce: %d %s", a.status, a.body)
	}
	return nonce
}

// ask posts a credential request.
func (r *rig) ask(t testing.TB, token string, request any) answer {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, r.client, http.MethodPost, r.identifier+"/credential", bytes.NewReader(body), "Authorization", "Bearer "+token, "Content-Type", "application/json")
}

// request is a right credential request with the given proofs.
func request(id string, proofs ...string) map[string]any {
	return map[string]any{"credential_configuration_id": id, "proofs": map[string]any{"jwt": proofs}}
}

// holder is a wallet's key, with go-jose for its signatures.
type holder struct {
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func newHolder(t testing.TB, algorithm issuance.Algorithm) holder {
	return holder{algorithm: jose.SignatureAlgorithm(algorithm), private: issuancetest.Key(t, algorithm)}
}

// jwk is the public key as a wallet writes it into a header.
func (h holder) jwk() jose.JSONWebKey { return jose.JSONWebKey{Key: h.private.Public()} }

// kid is the key's DID URL.
func (h holder) kid(t testing.TB, method string) string {
	t.Helper()
	make := did.JWK
	if method == "did:key" {
		make = did.Key
	}
	_, kid, err := make(h.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

// proof signs a proof. change, when it is not nil, spoils header or claims.
func (h holder) proof(t testing.TB, audience, nonce string, now time.Time, change func(header, claims map[string]any)) string {
	t.Helper()
	header := map[string]any{"typ": proofType, "jwk": h.jwk()}
	claims := map[string]any{"aud": audience, "iat": now.Unix(), "nonce": nonce}
	if change != nil {
		change(header, claims)
	}
	return trusttest.TokenWith(t, jose.SigningKey{Algorithm: h.algorithm, Key: h.private}, header, claims)
}

// good is a right proof for the rig's issuer.
func (r *rig) good(t testing.TB, h holder, nonce string) string {
	t.Helper()
	return h.proof(t, r.identifier, nonce, r.now(), nil)
}

// refused checks an error answer of the protocol: status, code, the headers that
// every error has, and that nothing stands in the body but what may.
func refused(t testing.TB, a answer, status int, code string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
	object := a.object(t)
	if object["error"] != code {
		t.Errorf("error %v, want %s", object["error"], code)
	}
	for name, value := range object {
		text, _ := value.(string)
		if name != "error" && name != "error_description" || text == "" {
			t.Errorf("member %q is %v", name, value)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }) {
			t.Errorf("%s has characters that it may not have: %q", name, text)
		}
	}
}
