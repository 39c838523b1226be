package refusal

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What a wallet is sent: error and error_description and nothing else, never to be stored.
func TestWrite(t *testing.T) {
	e := New("invalid_proof", "proofs.jwt[0] typ", "typ must be \"x\"\\\nä", "OpenID4VCI 1.0 App. F.1").With(http.StatusForbidden)
	e.Header, e.Challenge, e.RetryAfter = map[string]string{"DPoP-Nonce": "n"}, `DPoP error="x"`, 7
	w := httptest.NewRecorder()
	if outcome := e.Write(w); outcome != "invalid_proof" || w.Code != http.StatusForbidden {
		t.Errorf("%s, %d", outcome, w.Code)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache",
		"DPoP-Nonce": "n", "WWW-Authenticate": `DPoP error="x"`, "Retry-After": "7"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	var body map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	if len(body) != 2 || body["error"] != "invalid_proof" || body["error_description"] != "typ must be 'x'???" {
		t.Errorf("%v", body)
	}
	if strings.Contains(w.Body.String(), "App. F.1") || strings.Contains(w.Body.String(), "jwt[0]") {
		t.Error("the operator's part was sent to the wallet")
	}
	if e.Error() == "" || !strings.HasPrefix(e.Error(), "invalid_proof: ") {
		t.Error(e.Error())
	}
}

// A bare refusal has no body (RFC 6750 §3.1).
func TestWriteBare(t *testing.T) {
	w := httptest.NewRecorder()
	if outcome := (&Refusal{Status: 401, Bare: true, Challenge: "Bearer"}).Write(w); outcome != "unauthorized" || w.Body.Len() > 0 || w.Code != 401 {
		t.Errorf("%s %d %q", outcome, w.Code, w.Body)
	}
}

// Older drafts' further members are in the body.
func TestWriteExtra(t *testing.T) {
	e := New("issuance_pending", "", "", "")
	e.Extra = map[string]any{"interval": 5}
	w := httptest.NewRecorder()
	e.Write(w)
	if got := w.Body.String(); got != `{"error":"issuance_pending","interval":5}` {
		t.Error(got)
	}
	e.Extra = map[string]any{"x": make(chan int)}
	w = httptest.NewRecorder()
	e.Write(w)
	if got := w.Body.String(); got != `{"error":"server_error"}` {
		t.Error(got)
	}
}

// TestPrintable: error_description has the characters that it may have, check 173.
func TestPrintable(t *testing.T) {
	if got := printable("a\"b\\c\nd\x00é~"); got != "a'b?c?d??~" {
		t.Errorf("%q", got)
	}
}
