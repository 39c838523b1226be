package promises

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"chancery/promises/flow"
)

// secrets are strings that must be found nowhere, with what they are.
type secrets map[string]string

// TestPromiseP9NothingPersonalIsKept runs every configuration to its end, and
// offers that were cancelled and locked, with open offers beside them, and then
// searches every file, the logs and the metrics for each claim's value, code,
// transaction code and token.
func TestPromiseP9NothingPersonalIsKept(t *testing.T) {
	a := start(t)
	found := secrets{}
	ctx := context.Background()
	for _, id := range formats {
		collect(found, "claim of "+id, claims(t, id))
		for range 3 {
			take(t, a, id, found)
		}
		leaveOpen(t, a, id, found)
	}
	found[a.env["ADMIN_TOKEN"]] = "the operator's token"
	metrics, err := a.client.Do(ctx, http.MethodGet, a.client.Admin+"/metrics", nil, nil)
	if err != nil || metrics.Status != http.StatusOK {
		t.Fatalf("metrics: %v %d", err, metrics.Status)
	}
	search(t, "the metrics", metrics.Body, found)
	searchFiles(t, a, found) // while it runs, with its write-ahead logs
	a.down()
	searchFiles(t, a, found)
	a.up()
}

// take runs one whole flow and notes its secrets.
func take(t *testing.T, a *appliance, id string, found secrets) {
	t.Helper()
	ctx := context.Background()
	offer, answer, err := a.client.CreateOffer(ctx, id, claims(t, id), true)
	if err != nil || answer.Status != http.StatusCreated {
		t.Fatalf("offer: %v %d %s", err, answer.Status, answer.Body)
	}
	code, err := a.client.Code(ctx, offer.URI)
	if err != nil {
		t.Fatal(err)
	}
	found[code] = "a pre-authorized code"
	token, answer, err := a.client.Token(ctx, code, offer.TransactionCode)
	if err != nil || answer.Status != http.StatusOK {
		t.Fatalf("token: %v %d %s", err, answer.Status, answer.Body)
	}
	found[token] = "an access token"
	nonce, _, err := a.client.Nonce(ctx)
	if err != nil {
		t.Fatal(err)
	}
	credential, answer, err := a.client.Credential(ctx, token, id, nonce, flow.NewKey())
	if err != nil || answer.Status != http.StatusOK {
		t.Fatalf("credential: %v %d %s", err, answer.Status, answer.Body)
	}
	found[credential[len(credential)-60:]] = "the end of a credential"
}

// leaveOpen makes three offers more: one stays open, one is cancelled, one is locked.
func leaveOpen(t *testing.T, a *appliance, id string, found secrets) {
	t.Helper()
	ctx := context.Background()
	for _, end := range []string{"open", "cancelled", "locked"} {
		offer, answer, err := a.client.CreateOffer(ctx, id, claims(t, id), true)
		if err != nil || answer.Status != http.StatusCreated {
			t.Fatalf("offer: %v %d %s", err, answer.Status, answer.Body)
		}
		code, err := a.client.Code(ctx, offer.URI)
		if err != nil {
			t.Fatal(err)
		}
		found[code] = "the code of an offer that is " + end
		switch end {
		case "cancelled":
			answer, err := a.client.Do(ctx, http.MethodDelete, a.client.Admin+"/v1/openid/offers/pre-authorized/"+offer.ID,
				map[string]string{"Authorization": "Bearer " + a.client.AdminToken}, nil)
			if err != nil || answer.Status != http.StatusNoContent {
				t.Fatalf("cancel: %v %d %s", err, answer.Status, answer.Body)
			}
		case "locked":
			for range 5 {
				if _, _, err := a.client.Token(ctx, code, wrong(offer.TransactionCode)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// collect notes every string value of at least six bytes in the claims that is
// not a word of the configuration itself.
func collect(found secrets, what string, value json.RawMessage) {
	var decoded any
	if json.Unmarshal(value, &decoded) != nil {
		return
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) >= 6 {
				found[v] = what
			}
			if image, err := base64.StdEncoding.DecodeString(v); err == nil && len(image) > 200 {
				found[string(image[100:140])] = what + ", decoded"
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(decoded)
}

// searchFiles searches everything below the state folder but what holds the
// operator's own copies: the settings, the token file and the examples.
func searchFiles(t *testing.T, a *appliance, found secrets) {
	t.Helper()
	own := map[string]bool{"env": true, "admin-token": true}
	searched := 0
	err := filepath.WalkDir(a.run, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(a.run, path)
		if own[name] || filepath.Dir(name) == "configurations" || !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		searched++
		search(t, name, data, found)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if searched < 5 {
		t.Fatalf("only %d files were searched", searched)
	}
}

// search looks for each secret as it is, in base64url, in hex and with its
// characters escaped as JSON may.
func search(t *testing.T, where string, data []byte, found secrets) {
	t.Helper()
	for secret, what := range found {
		escaped, _ := json.Marshal(secret)
		for _, form := range [][]byte{
			[]byte(secret), bytes.Trim(escaped, `"`), []byte(hex.EncodeToString([]byte(secret))),
			[]byte(base64.RawURLEncoding.EncodeToString([]byte(secret))),
		} {
			if bytes.Contains(data, form) {
				t.Errorf("%s holds %s", where, what)
				break
			}
		}
	}
}
