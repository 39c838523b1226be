package oid4vci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"chancery/config"
	"chancery/issuance"
	"chancery/issuance/configuration"
)

// unread is a body that tells whether somebody has read it.
type unread struct{ read bool }

func (u *unread) Read([]byte) (int, error) {
	u.read = true
	return 0, errors.New("the connection broke")
}

// Whoever has no access token is told so, and his body is not read.
func TestAStrangersBodyIsNotRead(t *testing.T) {
	r := newRig(t, rigOptions{})
	o := r.offer(t, nil, pidID)
	for _, path := range []string{"/credential", "/deferred", "/notification"} {
		for token, want := range map[string]struct {
			status int
			read   bool
		}{
			"":                                 {http.StatusUnauthorized, false},
			"x":                                {http.StatusUnauthorized, false},
			strings.Repeat("A", 40):            {http.StatusUnauthorized, false},
			o.Code:                             {http.StatusUnauthorized, false}, // a code is no token
			r.token(t, r.offer(t, nil, pidID)): {http.StatusBadRequest, true},
		} {
			body := &unread{}
			request := httptest.NewRequest(http.MethodPost, r.identifier+path, body)
			request.ContentLength = 1000
			request.Header.Set("Content-Type", "application/json")
			if token != "" {
				request.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, request)
			if w.Code != want.status || body.read != want.read {
				t.Errorf("%s with a token of %d characters: %d, read %v: %s", path, len(token), w.Code, body.read, w.Body)
			}
		}
	}
}

// A body takes the memory of what has come, whatever was announced.
func TestAnAnnouncedBodyTakesNoMemory(t *testing.T) {
	const times = 64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		request := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader("{"), &unread{}))
		request.ContentLength = maxBody
		if _, err := readBody(request, maxBody, "invalid_request"); err == nil {
			t.Fatal("a body that breaks off was read")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / times; each > maxBody/8 {
		t.Errorf("%d bytes for a body of one", each)
	}
	whole := bytes.Repeat([]byte("a"), maxBody)
	for length, good := range map[int]bool{0: true, 1: true, maxBody: true, maxBody + 1: false} {
		for _, announced := range []int64{int64(length), -1} {
			request := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(append(whole, 'a')[:length]))
			request.ContentLength = announced
			data, err := readBody(request, maxBody, "invalid_request")
			if (err == nil) != good || good && len(data) != length {
				t.Errorf("%d bytes, %d announced: %d bytes, %v", length, announced, len(data), err)
			}
		}
	}
}

// writing is a connection whose reader does something before he reads.
type writing struct {
	*httptest.ResponseRecorder
	first func()
}

func (w *writing) Write(data []byte) (int, error) {
	w.first()
	return w.ResponseRecorder.Write(data)
}

// A wallet that does not read its answer does not keep the token from a request
// that is repeated on another connection.
func TestAnUnreadAnswerKeepsNoToken(t *testing.T) {
	r := newRig(t, rigOptions{})
	token := r.token(t, r.offer(t, nil, pidID))
	body, err := json.Marshal(request(pidID, r.good(t, newHolder(t, issuance.ES256), r.nonce(t))))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(w http.ResponseWriter) {
		within, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		q := httptest.NewRequestWithContext(within, http.MethodPost, r.identifier+"/credential", bytes.NewReader(body))
		q.Header.Set("Authorization", "Bearer "+token)
		q.Header.Set("Content-Type", "application/json")
		r.Handler().ServeHTTP(w, q)
	}
	again := httptest.NewRecorder()
	stuck := &writing{httptest.NewRecorder(), func() { ask(again) }}
	ask(stuck)
	if stuck.Code != http.StatusOK || again.Code != http.StatusOK {
		t.Errorf("%d, meanwhile %d", stuck.Code, again.Code)
	}
}

// An answer in the form of draft 13 has room for one credential: no more are
// signed, whatever was proven.
func TestADraftsAnswerIsAllThatIsSigned(t *testing.T) {
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) { i.Compatibility = configuration.Draft13 }})
	o := r.offer(t, nil, pidID)
	token, nonce := r.token(t, o), r.nonce(t)
	old := request(pidID, r.good(t, newHolder(t, issuance.ES256), nonce), r.good(t, newHolder(t, issuance.ES256), nonce))
	delete(old, "credential_configuration_id")
	old["format"], old["vct"] = "vc+sd-jwt", r.configurations[pidID].VCT
	for _, what := range []string{"first", "again"} {
		a := r.ask(t, token, old)
		if credential, _ := a.object(t)["credential"].(string); a.status != http.StatusOK || credential == "" {
			t.Fatalf("%s: %d %s", what, a.status, a.body)
		}
	}
	offer, err := r.store.Offer(t.Context(), o.ID)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(offer.Credentials); n != 2 || offer.Credentials[0].ID != offer.Credentials[1].ID {
		t.Errorf("%d signatures for two answers", n)
	}
}
