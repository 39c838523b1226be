package promises

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/promises/flow"
)

// TestOtherPeoplesLibraries lets npm wallet libraries take offers in every
// variant that they support, from appliances in several settings, and has npm
// verifier libraries judge what they got.
func TestOtherPeoplesLibraries(t *testing.T) {
	if out, err := exec.Command("../scripts/judges/run", "--install").CombinedOutput(); err != nil {
		t.Skipf("the judges cannot be installed here: %v\n%s", err, out)
	}
	for _, s := range walletSettings {
		t.Run(s.name, func(t *testing.T) {
			j := &judges{appliance: s.start(t)}
			j.registerClient()
			j.up()
			for _, c := range s.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					j.judge(t, c)
				})
			}
		})
	}
	for _, l := range leftOut {
		t.Run("left out/"+l.library+"/"+l.variant, func(t *testing.T) { t.Skip(l.reason) })
	}
}

// TestJudgesAreListed holds the judges' table of wallets against the pinned versions.
func TestJudgesAreListed(t *testing.T) {
	data, err := os.ReadFile("../scripts/judges/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var pinned struct{ Dependencies map[string]string }
	if err := json.Unmarshal(data, &pinned); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../scripts/judges/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, version := range pinned.Dependencies {
		if alias, found := strings.CutPrefix(version, "npm:"); found {
			at := strings.LastIndexByte(alias, '@')
			name, version = alias[:at], alias[at+1:]
		}
		if listed := fmt.Sprintf("`%s` %s", name, version); !strings.Contains(string(readme), listed) {
			t.Errorf("README.md does not list %s", listed)
		}
	}
}

// judges take offers of one appliance.
type judges struct {
	*appliance
	clientKey string // file with the registered client's private JWK
}

// registeredClient authenticates by private_key_jwt.
const registeredClient = "https://wallet.example/registered"

// registerClient makes a key for the registered client, whose public half the
// appliance knows.
func (j *judges) registerClient() {
	j.t.Helper()
	write := func(name string, value any) string {
		data, err := json.Marshal(value)
		if err != nil {
			j.t.Fatal(err)
		}
		path := filepath.Join(j.run, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			j.t.Fatal(err)
		}
		return path
	}
	key := jose.JSONWebKey{Key: flow.NewKey(), KeyID: "1", Algorithm: string(jose.ES256)}
	j.clientKey = write("client.jwk", key)
	write(clientKeys, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
}

// judge makes an offer, has it taken and judged, and looks at what the operator sees.
func (j *judges) judge(t *testing.T, c walletCase) {
	t.Helper()
	offer, answer, err := j.client.CreateOffer(context.Background(), c.configuration, sampleClaims(t, c.configuration), c.txCode)
	if err != nil || offer.URI == "" {
		t.Fatalf("%v %d %s", err, answer.Status, answer.Body)
	}
	link := offer.URI
	if c.byValue {
		link = offer.URIByValue
	}
	args := []string{"--offer", link, "--ca", j.env["TLS_CA_FILE"], "--iaca", j.env["IACA_FILE"], "--format", c.format(),
		"--attester", j.env["ATTESTER_DIR"], "--client-id", registeredClient, "--client-key", j.clientKey}
	if c.txCode {
		args = append(args, "--tx-code", offer.TransactionCode)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../scripts/judges/run", append(args, strings.Fields(c.args)...)...)
	// node need not start anew to trust the CA.
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+j.env["TLS_CA_FILE"])
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if c.configuration == approved {
		j.approve(t, offer.ID)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the judges: %v", err)
		for line := range strings.Lines(out.String()) {
			if !strings.Contains(line, `"passed":true`) {
				t.Error(strings.TrimSpace(line))
			}
		}
	}
	want := "issued"
	if strings.Contains(c.args, "notification") {
		want = "accepted"
	}
	var seen struct {
		State string `json:"state"`
	}
	j.operator(t, http.MethodGet, "/v1/openid/offers/pre-authorized/"+offer.ID, &seen)
	if seen.State != want {
		t.Errorf("the offer is %q, want %q", seen.State, want)
	}
}

// approve waits for the offer's deferred request and approves it.
func (j *judges) approve(t *testing.T, offer string) {
	t.Helper()
	eventually(t, "approval", func() error {
		var list struct {
			Data []struct {
				ID    string `json:"id"`
				Offer string `json:"offerId"`
			} `json:"data"`
		}
		j.operator(t, http.MethodGet, "/v1/openid/deferred?state=pending&limit=1000", &list)
		for _, d := range list.Data {
			if d.Offer == offer {
				j.operator(t, http.MethodPost, "/v1/openid/deferred/"+d.ID+"/approve", nil)
				return nil
			}
		}
		return fmt.Errorf("no request of the offer %s is waiting", offer)
	})
}

// operator sends a request without a body to the admin API and reads a success;
// into may be nil.
func (a *appliance) operator(t testing.TB, method, path string, into any) {
	t.Helper()
	answer, err := a.client.Do(context.Background(), method, a.client.Admin+path, map[string]string{"Authorization": "Bearer " + a.client.AdminToken}, nil)
	if err != nil || answer.Status != http.StatusOK {
		t.Fatalf("%s %s: %v %d %.300s", method, path, err, answer.Status, answer.Body)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(answer.Body, into); err != nil {
		t.Fatal(err)
	}
}
