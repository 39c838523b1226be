package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"testing"
)

// adminAPI answers as the appliance's admin API does.
type adminAPI struct{ t *testing.T }

// The offer that it knows, its deferred credential, and two of its wallet's requests.
const (
	offerID    = "00000000-0001-880e-9faf-4b913adba6a6"
	deferredID = "00000000-0003-8a61-b2f4-90c1d7e6f3a8"
	offer      = `"id":"` + offerID + `","state":"made","credentials":["pid"],"expiresAt":"2026-11-24T12:00:00Z"`
	deferred   = `"id":"` + deferredID + `","offerId":"` + offerID + `","configuration":"pid","requestedAt":"2026-11-24T11:58:00Z"`
	proofFault = `{"id":"5f1c0a9be2d47a36","timestamp":"2026-11-24T11:57:30.5Z","endpoint":"credential","offerId":"` + offerID + `","status":400,"error":"invalid_proof",
		"description":"typ must be openid4vci-proof+jwt","member":"proofs.jwt[0] header typ","section":"OpenID4VCI 1.0 App. F.1","advice":"The wallet did not prove its key."}`
	tokenFault = `{"id":"00aa0a9be2d47a36","timestamp":"2026-11-24T11:57:00Z","endpoint":"credential","status":401,"error":"unauthorized","advice":"The request came without an access token."}`
)

// ServeHTTP knows one offer, and what belongs to it.
func (a adminAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	answer := func(status int, body string) {
		w.WriteHeader(status)
		fmt.Fprintln(w, body)
	}
	if r.URL.Path == "/readyz" {
		answer(http.StatusOK, `{"state":"ready"}`)
		return
	}
	if r.Header.Get("Authorization") != "Bearer operator-1" {
		answer(http.StatusUnauthorized, `{"code":"Unauthorized","message":"the token is unknown"}`)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/v1/foresight") {
		answer(http.StatusOK, foresight(strings.TrimSuffix(r.URL.Path, "/v1/foresight")))
		return
	}
	resource := strings.NewReplacer("/v1/openid/offers/pre-authorized", "offers", "/v1/openid/", "", "/v1/", "", offerID, "OFFER", deferredID, "DEFERRED").Replace(r.URL.Path)
	switch r.Method + " " + resource {
	case "POST offers":
		a.create(r, answer)
	case "GET offers":
		answer(http.StatusOK, fmt.Sprintf(`{"data":[{%s,"asked":%q}],"nextCursor":"more"}`, offer, r.URL.RawQuery))
	case "GET offers/OFFER":
		answer(http.StatusOK, `{`+offer+`,"attemptsLeft":5,"requirements":{"clientId":"wallet-1","clientAuthenticationRequired":true},
			"issuedCredentials":[{"id":"c-1","configuration":"pid","issuedAt":"2026-11-24T11:59:00Z","auditIntent":41,"auditOutcome":42},
				{"id":"c-1","configuration":"pid","issuedAt":"2026-11-24T11:59:09Z","repeat":1,"auditIntent":44,"auditOutcome":45}],
			"notifications":[{"configuration":"pid","event":"credential_accepted","notifiedAt":"2026-11-24T11:59:30Z"}]}`)
	case "DELETE offers/OFFER":
		w.WriteHeader(http.StatusNoContent)
	case "GET identities":
		answer(http.StatusOK, `{"data":[{"label":"ds-1","purpose":"document-signer","algorithm":"ES256","ready":true}]}`)
	case "GET events":
		answer(http.StatusOK, `{"data":[{"seq":3,"timestamp":"2026-11-24T11:58:00.25Z","type":"offer.failed","actor":"wallet","subject":"`+offerID+`","data":{"reason":"wallet reported a failure"}},
			{"seq":2,"timestamp":"2026-11-24T11:57:00Z","type":"appliance.started","actor":"appliance"}]}`)
	default:
		a.support(r, resource, answer)
	}
}

// support has what operators decide and explain.
func (a adminAPI) support(r *http.Request, resource string, answer func(int, string)) {
	switch r.Method + " " + resource {
	case "GET deferred":
		switch r.URL.Query().Get("state") {
		case "pending":
			answer(http.StatusOK, `{"data":[{`+deferred+`,"state":"pending"}],"nextCursor":"more"}`)
		case "":
			answer(http.StatusOK, `{"data":[{`+deferred+`,"state":"pending"},{"id":"d-2","offerId":"o-2","configuration":"mdl","requestedAt":"2026-11-24T11:00:00Z","state":"refused",
				"decidedAt":"2026-11-24T11:10:00Z","decidedBy":"clerk","reason":"not in the register\u001b[2J"}]}`)
		default:
			answer(http.StatusOK, `{"data":[]}`)
		}
	case "POST deferred/DEFERRED/approve":
		answer(http.StatusOK, `{`+deferred+`,"state":"approved","decidedBy":"clerk"}`)
	case "POST deferred/DEFERRED/refuse":
		var body struct{ Reason string }
		if r.ContentLength != 0 {
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				a.t.Error(err)
			}
		}
		answer(http.StatusOK, fmt.Sprintf(`{%s,"state":"refused","decidedBy":"clerk","reason":%q}`, deferred, body.Reason))
	case "POST deferred/decided/approve":
		answer(http.StatusConflict, `{"code":"Conflict","message":"This was decided already, or its offer has ended: read it to see which."}`)
	case "GET failures":
		if r.URL.Query().Get("limit") == "1" {
			answer(http.StatusOK, `{"data":[]}`)
			return
		}
		if r.URL.Query().Get("offerId") == "" {
			answer(http.StatusOK, `{"data":[`+tokenFault+`]}`)
			return
		}
		answer(http.StatusOK, `{"data":[`+proofFault+`,`+tokenFault+`]}`)
	case "GET failures/5f1c0a9be2d47a36":
		answer(http.StatusOK, proofFault)
	default:
		answer(http.StatusNotFound, `{"code":"NotFound","message":"There is no such resource."}`)
	}
}

// foresight is what is foreseen, by the last part of the API's base path.
func foresight(base string) string {
	finding := func(severity, horizon, subject, text, more string) string {
		return fmt.Sprintf(`{"rule":"r","severity":%q,"horizon":%q,"subject":%q,"text":%q,"remedy":"Make a new key in a ceremony."%s}`, severity, horizon, subject, text, more)
	}
	var findings []string
	switch path.Base(base) {
	case "week":
		findings = []string{
			finding("warning", "now", "org.iso.18013.5.1.mDL", "Credentials of org.iso.18013.5.1.mDL get less than their 30 days: they end with the certificate of ds-1, on 2026-11-29.", ""),
			finding("error", "week", "ds-1", "The certificate of ds-1 ends on 2026-11-29.", `,"begins":"2026-11-30T00:00:00Z"`)}
	case "month":
		findings = []string{finding("error", "month", "wallet listener", "The TLS certificate of the wallet listener ends on 2026-12-20.", `,"begins":"2026-12-21T00:00:00Z"`)}
	case "warning":
		findings = []string{finding("warning", "now", "iaca-1", "The IACA certificate iaca-1 ends on 2027-04-04.", "")}
	case "now":
		findings = []string{`{"severity":"error","horizon":"now","subject":"x\u001b[2J","text":"Broken.","remedy":"Mend it."}`}
	}
	return `{"lookedAt":"2026-11-25T22:40:00Z","horizons":[],"findings":[` + strings.Join(findings, ",") + `]}`
}

func (a adminAPI) create(r *http.Request, answer func(int, string)) {
	var request struct {
		Credentials    []string
		Claims         map[string]any
		ExpiresIn      map[string]int
		Code           map[string]any `json:"transactionCodeConfiguration"`
		ClientID       *string
		Authentication *bool `json:"clientAuthenticationRequired"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		a.t.Error(err)
	}
	if request.Claims["family_name"] == nil {
		answer(http.StatusBadRequest, `{"code":"BadRequest","message":"the claims do not fit","details":[{"param":"claims.family_name","msg":"is missing","location":"body"}]}`)
		return
	}
	more := ""
	if request.Code != nil {
		more = `,"transactionCode":"493817"`
	}
	if request.ClientID != nil || request.Authentication != nil {
		asked, err := json.Marshal(map[string]any{"client": request.ClientID, "authentication": request.Authentication})
		if err != nil {
			a.t.Error(err)
		}
		more += `,"asked":` + string(asked)
	}
	answer(http.StatusCreated, fmt.Sprintf(`{"id":"%s","uri":"openid-credential-offer://?credential_offer_uri=https%%3A%%2F%%2Fissuer.example%%2Foffers%%2F1","expiresAt":"in %d s"%s}`,
		offerID, request.ExpiresIn["seconds"], more))
}
