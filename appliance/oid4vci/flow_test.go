package oid4vci

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance"
	"chancery/verifier"
)

// credential reads the one credential of an answer, checks 157, 178, 179.
func credential(t testing.TB, a answer) string {
	t.Helper()
	var body struct {
		Credentials []map[string]string `json:"credentials"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil || a.status != http.StatusOK || len(body.Credentials) != 1 || len(body.Credentials[0]) != 1 || len(a.object(t)) != 2 || a.object(t)["notification_id"] == "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.header)
	}
	return body.Credentials[0]["credential"]
}

// judge verifies a credential with the code that shares nothing with the issuer.
func (r *rig) judge(t testing.TB, text string, h holder) *verifier.Report {
	t.Helper()
	anchor, err := x509.ParseCertificate(r.signer.Identity(t, "iaca-1").Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	report, err := verifier.Verify(t.Context(), []byte(text), verifier.Options{Anchors: []*x509.Certificate{anchor}, Holder: h.private.Public(), Fresh: true,
		Fetch: func(_ context.Context, target string) ([]byte, error) {
			u, err := url.Parse(target)
			if err != nil {
				return nil, err
			}
			return r.get(t, u.Path).body, nil
		}})
	if err != nil || !report.Verified || len(report.Failures()) > 0 {
		t.Fatalf("the credential does not verify: %v %+v", err, report)
	}
	return report
}

// TestFlow takes every format by every kind of key and every way to name it,
// from the offer's URI to a credential that verifies and is bound to the key.
func TestFlow(t *testing.T) {
	r := newRig(t, rigOptions{})
	for id, format := range map[string]verifier.Format{mdlID: verifier.Mdoc, pidID: verifier.SDJWT, residenceID: verifier.JWTVC} {
		for _, algorithm := range []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.EdDSA} {
			for _, method := range []string{"jwk", "did:jwk", "did:key"} {
				t.Run(fmt.Sprint(id, algorithm, method), func(t *testing.T) {
					h := newHolder(t, algorithm)
					o := r.offer(t, nil, id)
					proof := h.proof(t, r.identifier, r.nonce(t), r.now(), func(header, _ map[string]any) {
						if method != "jwk" {
							delete(header, "jwk")
							header["kid"] = h.kid(t, method)
						}
					})
					text := credential(t, r.ask(t, r.token(t, o), request(id, proof)))
					if report := r.judge(t, text, h); report.Format != format {
						t.Errorf("format %s", report.Format)
					}
					r.checkRecord(t, o.ID)
				})
			}
		}
	}
}

// checkRecord: what was issued has an intent and an outcome that name it.
func (r *rig) checkRecord(t *testing.T, id string) {
	t.Helper()
	o, err := r.store.Offer(t.Context(), id)
	if err != nil || o.State != store.Issued || len(o.Credentials) != 1 {
		t.Fatalf("%+v %v", o, err)
	}
	entries := r.signer.Entries(t)
	c := o.Credentials[0]
	intent, outcome := entries[c.Intent], entries[c.Outcome]
	if intent.Kind != audit.KindIntent || outcome.Kind != audit.KindMade || intent.Credential != c.ID || outcome.Credential != c.ID || intent.Offer != id || c.Key != intent.Key {
		t.Errorf("%+v %+v %+v", c, intent, outcome)
	}
}

// TestOffer follows an offer's links, checks 1, 3, 4, 7 to 20.
func TestOffer(t *testing.T) {
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) { i.Identifier += "/tenant" }})
	o := r.offer(t, nil, pidID, mdlID)
	coded := r.offer(t, &store.TxCode{InputMode: "numeric", Length: 6, Description: "Code from the letter + 50 %"}, pidID)
	uri := OfferURI(r.identifier, coded.URISecret)
	var object []byte
	t.Run("3 10 12 14 by reference", func(t *testing.T) {
		for range 2 {
			a := do(t, r.client, http.MethodGet, uri, nil, "Accept", "application/json")
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v", a.status, a.header)
			}
			object = a.body
		}
		want := fmt.Sprintf(`{"credential_issuer":%q,"credential_configuration_ids":[%q],"grants":{%q:{"pre-authorized_code":%q,"tx_code":{"input_mode":"numeric","length":6,"description":"Code from the letter + 50 %%"}}}}`,
			r.identifier, pidID, GrantType, coded.Code)
		if string(object) != want {
			t.Errorf("check 1, 7, 19: %s, want %s", object, want)
		}
	})
	t.Run("4 without transaction code", func(t *testing.T) {
		a := do(t, r.client, http.MethodGet, OfferURI(r.identifier, o.URISecret), nil)
		if strings.Contains(string(a.body), "tx_code") || !strings.Contains(string(a.body), `["`+pidID+`","`+mdlID+`"]`) {
			t.Errorf("%s", a.body)
		}
	})
	t.Run("8 9 16 17 links", func(t *testing.T) {
		for scheme, link := range map[string]string{SchemeOpenID: LinkByReference(SchemeOpenID, uri), SchemeHAIP: LinkByReference(SchemeHAIP, uri)} {
			query, found := strings.CutPrefix(link, scheme+"://?credential_offer_uri=")
			decoded, err := url.PathUnescape(query) // leaves "+" alone, as many wallets do
			if !found || err != nil || decoded != uri || !strings.HasPrefix(uri, "https://") || strings.Contains(query, "&") {
				t.Errorf("%s", link)
			}
		}
		query, _ := strings.CutPrefix(LinkByValue(SchemeOpenID, object), SchemeOpenID+"://?credential_offer=")
		if decoded, err := url.PathUnescape(query); err != nil || decoded != string(object) || strings.ContainsAny(query, "+& ") {
			t.Errorf("%s", query)
		}
	})
	t.Run("11 two offers", func(t *testing.T) {
		other := r.offer(t, nil, pidID)
		if other.Code == o.Code || other.URISecret == o.URISecret || other.Code == other.URISecret || len(other.URISecret) < 40 {
			t.Errorf("%s %s", other.Code, other.URISecret)
		}
	})
	t.Run("13 15 gone and unknown", func(t *testing.T) {
		r.token(t, o)
		for secret, status := range map[string]int{o.URISecret: 410, strings.Repeat("A", 40): 404, "x": 404, o.Code: 404} {
			a := do(t, r.client, http.MethodGet, OfferURI(r.identifier, secret), nil)
			if a.status != status || strings.Contains(string(a.body), o.Code) || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%d %v %s", a.status, a.header, a.body)
			}
		}
		r.ahead.Store(int64(11 * time.Minute))
		if a := do(t, r.client, http.MethodGet, uri, nil); a.status != http.StatusGone {
			t.Errorf("expired: %d", a.status)
		}
	})
}

// TestIdentifierWithPath: every endpoint is below the path, and a proof is for
// the identifier with it. The residence permit's issuer is the DID.
func TestIdentifierWithPath(t *testing.T) {
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) { i.Identifier += "/tenant" }})
	h := newHolder(t, issuance.ES256)
	token := r.token(t, r.offer(t, nil, residenceID))
	refused(t, r.ask(t, token, request(residenceID, h.proof(t, strings.TrimSuffix(r.identifier, "/tenant"), r.nonce(t), r.now(), nil))), 400, "invalid_proof")
	r.judge(t, credential(t, r.ask(t, token, request(residenceID, r.good(t, h, r.nonce(t))))), h)
}

// TestSeveralConfigurations: one token, two credentials, each once; the second
// may come by its identifier, check 158.
func TestSeveralConfigurations(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	for _, identified := range []bool{false, true} {
		o := r.offer(t, nil, pidID, residenceID)
		var more []string
		ask := func(id string) map[string]any { return request(id, r.good(t, h, r.nonce(t))) }
		if identified {
			more = []string{"authorization_details", `[{"type":"openid_credential","credential_configuration_id":"` + pidID + `"},{"type":"openid_credential","credential_configuration_id":"` + residenceID + `"}]`}
			ask = func(id string) map[string]any {
				q := request(id, r.good(t, h, r.nonce(t)))
				delete(q, "credential_configuration_id")
				q["credential_identifier"] = identifierOf(id)
				return q
			}
		}
		token := r.token(t, o, more...)
		r.judge(t, credential(t, r.ask(t, token, ask(residenceID))), h)
		r.judge(t, credential(t, r.ask(t, token, ask(residenceID))), h) // check 177: a repetition
		r.judge(t, credential(t, r.ask(t, token, ask(pidID))), h)
		mine := h
		h = newHolder(t, issuance.ES256) // other keys get nothing, before and after the last credential
		refused(t, r.ask(t, token, ask(residenceID)), 400, "credential_request_denied")
		refused(t, r.ask(t, token, ask(pidID)), 400, "credential_request_denied")
		h = mine
		r.judge(t, credential(t, r.ask(t, token, ask(pidID))), h)
		if got, err := r.store.Offer(t.Context(), o.ID); err != nil || got.State != store.Issued || len(got.Credentials) != 4 {
			t.Errorf("check 177: %+v %v", got, err)
		}
	}
}
