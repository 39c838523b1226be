package oid4vci

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
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
