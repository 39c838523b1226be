package promises

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestOtherPeoplesLibraries lets npm wallet and verifier libraries take an
// offer of every configuration from a running appliance and judge what they got.
func TestOtherPeoplesLibraries(t *testing.T) {
	if out, err := exec.Command("../scripts/judges/run", "--install").CombinedOutput(); err != nil {
		t.Skipf("the judges cannot be installed here: %v\n%s", err, out)
	}
	a := start(t)
	for id, format := range map[string]string{mdl: "mso_mdoc", pidMdoc: "mso_mdoc", pidSDJWT: "dc+sd-jwt", residence: "jwt_vc_json"} {
		for _, withCode := range []bool{true, false} {
			offer, answer, err := a.client.CreateOffer(context.Background(), id, claims(t, id), withCode)
			if err != nil || offer.URI == "" {
				t.Fatalf("%s: %v %d %s", id, err, answer.Status, answer.Body)
			}
			args := []string{"--offer", offer.URI, "--ca", a.env["TLS_CA_FILE"], "--iaca", a.env["IACA_FILE"], "--format", format}
			if withCode {
				args = append(args, "--tx-code", offer.TransactionCode)
			}
			judge(t, id, args)
		}
	}
}

// judge runs the judges once; each failed check is one line.
func judge(t *testing.T, id string, args []string) {
	t.Helper()
	out, err := exec.Command("../scripts/judges/run", args...).CombinedOutput()
	var exit *exec.ExitError
	if err == nil {
		return
	}
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, `"passed":true`) {
			t.Errorf("%s: %s", id, strings.TrimSpace(line))
		}
	}
}
