package conformance

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"chancery/verifier"
)

// eventually waits, at most half a minute, until what is said to happen has happened.
func eventually(t testing.TB, what string, happened func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := happened()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// verified reads a credential as a verifier does, which must find it flawless and
// bound to the key; nil means bound to none.
func (i *instance) verified(t testing.TB, credential string, k *key) *verifier.Report {
	t.Helper()
	data, err := os.ReadFile(i.env["IACA_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	anchor, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	report, err := verifier.Verify(t.Context(), []byte(credential), verifier.Options{Anchors: []*x509.Certificate{anchor}, Fresh: true,
		Fetch: func(_ context.Context, url string) ([]byte, error) {
			a := i.do(t, http.MethodGet, url, nil)
			if a.status != http.StatusOK {
				return nil, fmt.Errorf("%s answers %d", url, a.status)
			}
			return a.body, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Verified {
		t.Errorf("the credential does not verify: %v", report.Failures())
	}
	want := ""
	if k != nil {
		want = k.thumbprint(t)
	}
	if report.Holder != want {
		t.Errorf("bound to %q, want %q", report.Holder, want)
	}
	return report
}

// payload decodes the payload of a compact JWS, or of an SD-JWT's.
func payload(t testing.TB, jws string) members {
	t.Helper()
	parts := strings.Split(jws, ".")
	if len(parts) < 3 {
		t.Fatalf("no JWS: %.100q", jws)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var m members
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// issued is a credential in the operators' view of an offer.
type issued struct {
	ID            string `json:"id"`
	Configuration string `json:"configuration"`
	Intent        int    `json:"auditIntent"`
	Outcome       int    `json:"auditOutcome"`
}

// look is the operators' view of an offer: its state and what was signed for it.
func (i *instance) look(t testing.TB, o offer) (state string, credentials []issued) {
	t.Helper()
	a := i.operator(t, http.MethodGet, "/v1/openid/offers/pre-authorized/"+o.id, nil)
	var body struct {
		State  string   `json:"state"`
		Issued []issued `json:"issuedCredentials"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %v %.300s", a.status, err, a.body)
	}
	return body.State, body.Issued
}

// nothingIssued demands that an offer is redeemed and that nothing was signed.
func (s *session) nothingIssued(t testing.TB) {
	t.Helper()
	if state, list := s.look(t, s.offer); state != "redeemed" || len(list) != 0 {
		t.Errorf("the offer is %s, %d credentials were signed", state, len(list))
	}
}

// logged is an entry of the audit log.
type logged struct {
	Kind          string `json:"kind"`
	Credential    string `json:"credential"`
	Offer         string `json:"offer"`
	Configuration string `json:"configuration"`
	Subject       string `json:"subject"`
	Intent        *int   `json:"intent"`
	line          string
}

// auditLog exports the audit log of the running appliance.
func (i *instance) auditLog(t testing.TB) (entries []logged) {
	t.Helper()
	var out []byte
	eventually(t, "audit export", func() (err error) { // the file may change while it is read
		out, err = exec.Command(i.env["CHANCERY"], "audit", "export", i.env["SIGNER_DB"]).Output()
		return err
	})
	for line := range bytes.Lines(out) {
		e := logged{line: string(line)}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

// recorded waits until the audit log holds events of these kinds about an offer,
// each exactly once.
func (i *instance) recorded(t testing.TB, o offer, kinds ...string) {
	t.Helper()
	eventually(t, "the log's events", func() (missing error) {
		count := map[string]int{}
		for _, e := range i.auditLog(t) {
			if e.Subject == o.id {
				count[e.Kind]++
			}
		}
		for _, kind := range kinds {
			if count[kind] != 1 {
				missing = errors.Join(missing, fmt.Errorf("%d of %s", count[kind], kind))
			}
		}
		return missing
	})
}
