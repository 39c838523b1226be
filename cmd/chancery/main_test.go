package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/appliance/audit"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"chancery": main}) }

// TestScripts runs testdata/*.txtar against the command as it is shipped. In
// each script GOLDEN holds the golden credentials and certificates, LOG a copy
// of an audit log, and CHANCERY_ADMIN_URL leads to an admin API.
func TestScripts(t *testing.T) {
	golden, err := filepath.Abs(filepath.Join("..", "..", "verifier", "testdata", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewTLSServer(adminAPI{t})
	t.Cleanup(api.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("there is no condition %q", name)
		},
		Setup: func(e *testscript.Env) error {
			if err := writeGolden(golden, e.WorkDir); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), ca, 0o600); err != nil {
				return err
			}
			vkey, err := writeLog(filepath.Join(e.WorkDir, "signer.db"))
			if err != nil {
				return err
			}
			for name, value := range map[string]string{"GOLDEN": golden, "EXAMPLES": examples, "VKEY": vkey, "CHANCERY_ADMIN_URL": api.URL,
				"CHANCERY_ADMIN_TOKEN": "operator-1", "CHANCERY_CA_FILE": filepath.Join(e.WorkDir, "ca.pem")} {
				e.Setenv(name, value)
			}
			return nil
		},
	})
}

// writeGolden writes each golden credential to a file of its own, and a
// revocation list as DER.
func writeGolden(golden, dir string) error {
	text, err := os.ReadFile(filepath.Join(golden, "crl-empty.hex"))
	if err != nil {
		return err
	}
	der, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "crl.der"), der, 0o600); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(golden, "credentials.json"))
	if err != nil {
		return err
	}
	var file struct {
		Credentials []struct{ Name, Credential string }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	for _, c := range file.Credentials {
		if err := os.WriteFile(filepath.Join(dir, c.Name+".mdoc"), []byte(c.Credential), 0o600); err != nil {
			return err
		}
		raw, err := base64.RawURLEncoding.DecodeString(c.Credential)
		if err != nil {
			return err
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(filepath.Join(dir, c.Name+".flipped"), raw, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeLog makes an audit log with a few entries and a checkpoint.
func writeLog(path string) (vkey string, err error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "test.example/log")
	if err != nil {
		return "", err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return "", err
	}
	if err := audit.Create(path, "test.example/log", time.Now()); err != nil {
		return "", err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return "", err
	}
	log, err := audit.Open(path, func(int64, []byte) error { return nil }, func() note.Verifier { return verifier })
	if err != nil {
		return "", err
	}
	for i := range 5 {
		leaf, err := audit.Entry{Time: audit.Stamp(time.Now()), Kind: "offer.created", Actor: "operator", Credential: fmt.Sprintf("credential-%d", i)}.Marshal()
		if err != nil {
			return "", err
		}
		if _, err := log.Append(context.Background(), leaf); err != nil {
			return "", err
		}
	}
	if _, err := log.Checkpoint(context.Background(), signer); err != nil {
		return "", err
	}
	return vkey, log.Close()
}

// adminAPI answers as the appliance's admin API does.
type adminAPI struct{ t *testing.T }

// ServeHTTP knows one offer, "offer-1".
func (a adminAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const offers = "/v1/openid/offers/pre-authorized"
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
		answer(http.StatusUnauthorized, `{"code":"unauthorized","message":"the token is unknown"}`)
		return
	}
	const offer = `"id":"offer-1","state":"made","credentials":["pid"],"expiresAt":"2026-11-24T12:00:00Z"`
	switch r.Method + " " + strings.TrimPrefix(r.URL.Path, offers) {
	case "POST ":
		a.create(w, r, answer)
	case "GET ":
		answer(http.StatusOK, `{"data":[{`+offer+`}],"nextCursor":"more"}`)
	case "GET /offer-1":
		answer(http.StatusOK, `{`+offer+`,"attemptsLeft":5}`)
	case "DELETE /offer-1":
		w.WriteHeader(http.StatusNoContent)
	case "GET /v1/identities":
		answer(http.StatusOK, `{"data":[{"label":"ds-1","purpose":"document-signer","algorithm":"ES256","ready":true}]}`)
	default:
		answer(http.StatusNotFound, `{"code":"not_found","message":"there is no such offer"}`)
	}
}

func (a adminAPI) create(_ http.ResponseWriter, r *http.Request, answer func(int, string)) {
	var request struct {
		Credentials []string
		Claims      map[string]any
		ExpiresIn   map[string]int
		Code        map[string]any `json:"transactionCodeConfiguration"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		a.t.Error(err)
	}
	if request.Claims["family_name"] == nil {
		answer(http.StatusBadRequest, `{"code":"invalid_claims","message":"the claims do not fit","details":[{"param":"claims.family_name","msg":"is missing","location":"body"}]}`)
		return
	}
	code := ""
	if request.Code != nil {
		code = `,"transactionCode":"493817"`
	}
	answer(http.StatusCreated, fmt.Sprintf(`{"id":"offer-1","uri":"openid-credential-offer://?credential_offer_uri=https%%3A%%2F%%2Fissuer.example%%2Foffers%%2F1","expiresAt":"in %d s"%s}`,
		request.ExpiresIn["seconds"], code))
}
