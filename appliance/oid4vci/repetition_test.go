package oid4vci

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"chancery/issuance"
)

// A request that comes too late is not told that its keys are others: the wallet
// has notified that it deleted the credential, and then nobody gets it again.
func TestRefusedRepetitionSaysWhy(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	token := r.token(t, r.offer(t, nil, pidID))
	ask := func(h holder) answer { return r.ask(t, token, request(pidID, r.good(t, h, r.nonce(t)))) }
	says := func(a answer, want string) {
		t.Helper()
		refused(t, a, http.StatusBadRequest, "credential_request_denied")
		if got, _ := a.object(t)["error_description"].(string); !strings.Contains(got, want) {
			t.Errorf("error_description %q, want %q", got, want)
		}
	}
	first := ask(h)
	credential(t, first)
	says(ask(newHolder(t, issuance.ES256)), "for other keys")
	body, err := json.Marshal(map[string]any{"notification_id": first.object(t)["notification_id"], "event": "credential_deleted"})
	if err != nil {
		t.Fatal(err)
	}
	a := do(t, r.client, http.MethodPost, r.identifier+"/notification", bytes.NewReader(body), "Authorization", "Bearer "+token, "Content-Type", "application/json")
	if a.status != http.StatusNoContent {
		t.Fatalf("notification: status %d: %s", a.status, a.body)
	}
	says(ask(h), "cannot be had again")
	says(ask(newHolder(t, issuance.ES256)), "cannot be had again")
}
