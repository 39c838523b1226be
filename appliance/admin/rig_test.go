package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chancery/appliance/foresight"
	"chancery/appliance/oid4vci"
	"chancery/appliance/oid4vci/doctor"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/issuance/configuration"
)

// The example's configurations.
const (
	mdlID       = "org.iso.18013.5.1.mDL"
	pidID       = "eu.europa.ec.eudi.pid.sdjwt"
	residenceID = "org.example.residence.jwt"
)

const offersPath = "/v1/openid/offers/pre-authorized"

// rig is the API on a real store and a real signer, served over TLS.
type rig struct {
	signer *signertest.Signer
	store  *store.Store
	// doctor has the refused requests that a test puts in.
	doctor *doctor.Ring
	server *httptest.Server
	// token is an operator's, named "clerk".
	token string
	// report is what a look ahead finds.
	report foresight.Report
	// log is what the API logged.
	log bytes.Buffer
}

func newRig(t testing.TB, o signertest.Options) *rig {
	t.Helper()
	r := &rig{signer: signertest.Start(t, o), doctor: doctor.New(8)}
	path := filepath.Join(r.signer.Dir, "chancery.db")
	if err := store.Create(path); err != nil {
		t.Fatal(err)
	}
	var err error
	r.store, err = store.Open(path, store.Options{DataKeyLifetime: time.Hour, Retention: time.Hour, RetryWindow: time.Minute, Attempts: 5, DataKeys: store.DataKeys{
		New: func(ctx context.Context, bound string) ([]byte, []byte, error) {
			k, err := r.signer.Sign.NewDataKey(ctx, bound)
			return k.Key, k.Wrapped, err
		},
		Open: func(ctx context.Context, bound string, wrapped []byte) ([]byte, error) {
			k, err := r.signer.Sign.OpenDataKey(ctx, bound, wrapped)
			return k.Key, err
		},
	}})
	if err != nil {
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
	if r.token, err = r.store.CreateOperatorToken(t.Context(), "clerk", "test"); err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewUnstartedServer(New(r.config(t)))
	r.server.EnableHTTP2 = true
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	return r
}

// send hands the store's events to the audit log.
func (r *rig) send(ctx context.Context, source string, events []store.Event) (uint64, error) {
	request := wire.AppendRequest{Source: source, Events: make([]wire.Event, len(events))}
	for i, e := range events {
		request.Events[i] = wire.Event{Seq: uint64(e.Seq), Time: e.Time.UnixMilli(), Kind: e.Kind, Actor: e.Actor, Subject: e.Subject, Detail: e.Detail}
	}
	answer, err := r.signer.Sign.Append(ctx, request)
	return answer.LastSeq, err
}

// config is the API's, with the links that the daemon makes.
func (r *rig) config(t testing.TB) Config {
	t.Helper()
	return Config{
		Store: r.store, Doctor: r.doctor, ClientAuthentication: true, Configurations: examples(t), Identities: r.signer.Sign.Identities,
		DefaultExpiry: 10 * time.Minute, LongestExpiry: 24 * time.Hour, CodeLength: 6, Now: time.Now, Foresight: func(context.Context) foresight.Report { return r.report }, Log: slog.New(slog.NewJSONHandler(&r.log, nil)),
		Links: func(c store.Created) (Links, error) {
			object, err := oid4vci.OfferObject(signertest.Issuer, c.Offer, c.Code)
			uri := oid4vci.OfferURI(signertest.Issuer, c.URISecret)
			return Links{URI: oid4vci.LinkByReference(oid4vci.SchemeOpenID, uri), HAIP: oid4vci.LinkByReference(oid4vci.SchemeHAIP, uri), ByValue: oid4vci.LinkByValue(oid4vci.SchemeOpenID, object)}, err
		},
	}
}

// examples are the example's configurations by id.
func examples(t testing.TB) map[string]*configuration.Configuration {
	t.Helper()
	all, err := configuration.LoadDir(filepath.Join("..", "..", "examples", "configurations"))
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]*configuration.Configuration{}
	for _, c := range all {
		byID[c.ID] = c
	}
	return byID
}

// claims are the example's for a configuration.
func claims(t testing.TB, id string) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(signertest.Example(t, "claims/"+id+".json")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// answer is an HTTP answer, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// into reads the body.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
}

// do sends a request as the operator; header holds names and values in turn and
// may replace Authorization, or take it away with "".
func (r *rig) do(t testing.TB, method, path string, body io.Reader, header ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.token)
	for n := 0; n < len(header); n += 2 {
		if request.Header.Set(header[n], header[n+1]); header[n+1] == "" {
			request.Header.Del(header[n])
		}
	}
	response, err := r.server.Client().Do(request)
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

// post sends a JSON body, as it is when it is a string.
func (r *rig) post(t testing.TB, path string, body any) answer {
	t.Helper()
	text, ok := body.(string)
	if !ok {
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	return r.do(t, http.MethodPost, path, strings.NewReader(text), "Content-Type", "application/json")
}

// create makes an offer that must be made.
func (r *rig) create(t testing.TB, body map[string]any) createdBody {
	t.Helper()
	a := r.post(t, offersPath, body)
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var created createdBody
	a.into(t, &created)
	return created
}

// faulty checks an error's form: code, and the headers that every answer has.
func faulty(t testing.TB, a answer, status int, code string) Error {
	t.Helper()
	var e struct {
		Code, Message *string
		Details       *[]Detail
	}
	a.into(t, &e)
	if a.status != status || e.Code == nil || *e.Code != code || e.Message == nil || *e.Message == "" || e.Details == nil {
		t.Fatalf("%d %s, want %d %s", a.status, a.body, status, code)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=31536000", "Access-Control-Allow-Origin": ""} {
		if got := a.header.Get(name); got != value {
			t.Errorf("%s is %q", name, got)
		}
	}
	return Error{Status: a.status, Code: *e.Code, Message: *e.Message, Details: *e.Details}
}

// params are the members that an error names.
func (e Error) params() string {
	var all []string
	for _, d := range e.Details {
		all = append(all, d.Param)
	}
	return strings.Join(all, " ")
}
