package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/store"
)

// everyPath has a request for each endpoint.
var everyPath = map[string]string{
	offersPath: "GET, POST", offersPath + "/x": "GET, DELETE", "/v1/openid/offers/qr": "POST",
	"/v1/openid/deferred": "GET", "/v1/openid/deferred/x": "GET", "/v1/openid/deferred/x/approve": "POST", "/v1/openid/deferred/x/refuse": "POST",
	"/v1/openid/failures": "GET", "/v1/openid/failures/x": "GET",
	"/v1/openid/configurations": "GET", "/v1/openid/configurations/x": "GET",
	"/v1/identities": "GET", "/v1/identities/x": "GET", "/v1/foresight": "GET", "/v1/events": "GET",
}

// TestAuthentication: nothing is served without an operator's token.
func TestAuthentication(t *testing.T) {
	r := newRig(t, signertest.Options{})
	revoked, err := r.store.CreateOperatorToken(t.Context(), "gone", "test")
	if err == nil {
		err = r.store.RevokeOperator(t.Context(), "gone", "test")
	}
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for name, authorization := range map[string]string{
		"none": "", "another scheme": "Basic " + r.token, "no token": "Bearer", "garbage": "Bearer garbage", "revoked": "Bearer " + revoked,
		"without its prefix": "Bearer " + strings.TrimPrefix(r.token, "chancery_op_"), "changed": "Bearer " + r.token[:20] + string(r.token[20]^1) + r.token[21:], "cut": "Bearer " + r.token[:len(r.token)-1],
	} {
		t.Run(name, func(t *testing.T) {
			a := r.do(t, http.MethodGet, "/v1/events", nil, "Authorization", authorization)
			faulty(t, a, http.StatusUnauthorized, "Unauthorized")
			if a.header.Get("WWW-Authenticate") != `Bearer realm="chancery"` {
				t.Errorf("%v", a.header)
			}
			refused++
		})
	}
	if p := list[eventBody](t, r, "/v1/events?type=operator.refused"); len(p.Data) != refused {
		t.Errorf("%d refusals are recorded, want %d", len(p.Data), refused)
	}
	for _, authorization := range []string{"bearer " + r.token, "BEARER  " + r.token} {
		if a := r.do(t, http.MethodGet, "/v1/events", nil, "Authorization", authorization); a.status != http.StatusOK {
			t.Errorf("%q: %d", authorization[:7], a.status)
		}
	}
	t.Run("two headers", func(t *testing.T) {
		request := httptest.NewRequest(http.MethodGet, "/v1/events", nil)
		request.Header["Authorization"] = []string{"Bearer " + r.token, "Bearer " + r.token}
		w := httptest.NewRecorder()
		if New(r.config(t)).ServeHTTP(w, request); w.Code != http.StatusUnauthorized {
			t.Errorf("%d", w.Code)
		}
	})
	t.Run("in the query", func(t *testing.T) {
		faulty(t, r.do(t, http.MethodGet, "/v1/events?access_token="+r.token, nil, "Authorization", ""), http.StatusUnauthorized, "Unauthorized")
	})
}

// TestGuessing: who has no token is slowed down; who has one is not.
func TestGuessing(t *testing.T) {
	r := newRig(t, signertest.Options{})
	var slowed atomic.Int32
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			a := r.do(t, http.MethodGet, "/v1/events", nil, "Authorization", "Bearer chancery_op_x")
			if a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") != "" && bytes.Contains(a.body, []byte(`"TooManyRequests"`)) {
				slowed.Add(1)
			}
		})
	}
	wait.Wait()
	if slowed.Load() == 0 {
		t.Error("64 guesses were answered")
	}
	if a := r.do(t, http.MethodGet, "/v1/events", nil); a.status != http.StatusOK {
		t.Errorf("an operator is slowed down: %d", a.status)
	}
}

// TestMethods: 404 and 405 have the API's form, and come before the token: what
// there is, is no secret.
func TestMethods(t *testing.T) {
	r := newRig(t, signertest.Options{})
	for path, allowed := range everyPath {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
			if strings.Contains(allowed, method) {
				continue
			}
			a := r.do(t, method, path, nil, "Authorization", "")
			faulty(t, a, http.StatusMethodNotAllowed, "MethodNotAllowed")
			for _, want := range strings.Split(allowed, ", ") {
				if got := strings.Split(a.header.Get("Allow"), ", "); !slices.Contains(got, want) || slices.Contains(got, "HEAD") != strings.Contains(allowed, "GET") {
					t.Errorf("%s %s: Allow %q", method, path, a.header.Get("Allow"))
				}
			}
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/openid/offers", offersPath + "/", offersPath + "/a/b", "/v1/identities/", "/V1/events"} {
		faulty(t, r.do(t, http.MethodGet, path, nil), http.StatusNotFound, "NotFound")
	}
	head := r.do(t, http.MethodHead, "/v1/events", nil)
	if head.status != http.StatusOK || len(head.body) > 0 || head.header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
}

// TestIdentities: the keys' public side, as the ceremony made them.
func TestIdentities(t *testing.T) {
	r := newRig(t, signertest.Options{})
	all := map[string]identityBody{}
	for _, i := range list[identityBody](t, r, "/v1/identities").Data {
		all[i.Label] = i
		var one identityBody
		r.do(t, http.MethodGet, "/v1/identities/"+i.Label, nil).into(t, &one)
		a, errA := json.Marshal(i)
		b, errB := json.Marshal(one)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is %s in the list and %s by itself", i.Label, a, b)
		}
	}
	if len(all) != len(r.signer.Ceremony.Keys) {
		t.Errorf("%d keys, the ceremony made %v", len(all), r.signer.Ceremony.Keys)
	}
	for label, purpose := range map[string]string{"iaca-1": "iaca", "ds-1": "document-signer", "cs-1": "credential-signer"} {
		i := all[label]
		block, _ := pem.Decode([]byte(i.CertificatePem))
		if i.Purpose != purpose || i.Algorithm != "ES256" || block == nil || i.CertificateData == nil {
			t.Fatalf("%+v", i)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(block.Bytes)
		if i.CertificateFingerprint != hex.EncodeToString(sum[:]) || *i.CertificateData != (certificateBody{c.Subject.String(), c.Issuer.String(), c.SerialNumber.Text(16), stamp(c.NotBefore), stamp(c.NotAfter)}) {
			t.Errorf("%+v", i)
		}
	}
	if crl := all["iaca-1"].CRL; crl == nil || crl.Number == "" || crl.Revoked != 0 || crl.NextUpdate <= crl.ThisUpdate {
		t.Errorf("CRL %+v", crl)
	}
	if i := all["did-1"]; !strings.HasPrefix(i.DID, "did:web:") || !strings.HasPrefix(i.KeyID, i.DID+"#") || i.CertificatePem != "" || len(i.Profile.Types) != 1 {
		t.Errorf("%+v", i)
	}
	faulty(t, r.do(t, http.MethodGet, "/v1/identities/none", nil), http.StatusNotFound, "NotFound")
}

// TestConfigurations: what operators need to make an offer.
func TestConfigurations(t *testing.T) {
	r := newRig(t, signertest.Options{})
	p := list[configurationBody](t, r, "/v1/openid/configurations")
	var ids []string
	for _, c := range p.Data {
		ids = append(ids, c.ID)
		if c.Metadata != nil || len(c.Claims) == 0 || len(c.Version) != 64 || c.Validity == "" {
			t.Errorf("%+v", c)
		}
	}
	if !slices.Equal(ids, []string{"eu.europa.ec.eudi.pid.mdoc", pidID, residenceID, mdlID}) {
		t.Errorf("%v", ids)
	}
	var mdl configurationBody
	r.do(t, http.MethodGet, "/v1/openid/configurations/"+mdlID, nil).into(t, &mdl)
	if mdl.Format != "mso_mdoc" || mdl.Signer != "ds-1" || mdl.Scope != mdlID || mdl.Metadata["doctype"] != mdlID || mdl.Metadata["credential_signing_alg_values_supported"] != nil {
		t.Errorf("%+v", mdl)
	}
	given := map[string]claimBody{}
	for _, c := range mdl.Claims {
		given[c.Path[1]] = c
	}
	if c := given["family_name"]; c.MapFrom != "family_name" || c.Type != "latin1" || !c.Required {
		t.Errorf("%+v", c)
	}
	// A derived and a fixed claim take nothing from the offer.
	if given["age_over_18"].MapFrom != "" || given["issuing_country"].MapFrom != "" {
		t.Errorf("%+v %+v", given["age_over_18"], given["issuing_country"])
	}
	faulty(t, r.do(t, http.MethodGet, "/v1/openid/configurations/none", nil), http.StatusNotFound, "NotFound")
}

// TestFail: what fails within is logged, and told without its details.
func TestFail(t *testing.T) {
	r := newRig(t, signertest.Options{})
	config := r.config(t)
	config.Links = func(store.Created) (Links, error) { return Links{}, errors.New("disk /dev/x is full") }
	api := New(config)
	body, err := json.Marshal(map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)})
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest(http.MethodPost, offersPath, bytes.NewReader(body))
	request.Header.Set("Authorization", "Bearer "+r.token)
	request.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	api.ServeHTTP(w, request)
	faulty(t, answer{w.Code, w.Result().Header, w.Body.Bytes()}, http.StatusInternalServerError, "Internal")
	if strings.Contains(w.Body.String(), "/dev/x") || !strings.Contains(r.log.String(), "/dev/x") {
		t.Errorf("%s; %s", w.Body, r.log.String())
	}
}

// brokenOff is a body whose sender is gone.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestBrokenOff: a body that does not arrive is the caller's fault.
func TestBrokenOff(t *testing.T) {
	r := newRig(t, signertest.Options{})
	request := httptest.NewRequest(http.MethodPost, offersPath, brokenOff{})
	request.Header.Set("Authorization", "Bearer "+r.token)
	request.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	New(r.config(t)).ServeHTTP(w, request)
	faulty(t, answer{w.Code, w.Result().Header, w.Body.Bytes()}, http.StatusBadRequest, "BadRequest")
}

// TestPlainly: spans as operators read them.
func TestPlainly(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Minute: "1m", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 61 * time.Second: "1m1s", 10 * time.Second: "10s", time.Hour + time.Second: "1h0m1s", 10 * time.Minute: "10m", 100 * time.Hour: "100h"} {
		if got := plainly(d); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
