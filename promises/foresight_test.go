package promises

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestForesight: a sound appliance foresees nothing. One whose document signer
// has five days left issues and is ready, and says what will break: to the
// operator, to monitoring, in the log.
func TestForesight(t *testing.T) {
	a := start(t)
	if out, status := a.chancery("doctor"); status != 0 || !strings.HasPrefix(out, "All is well") {
		t.Errorf("a sound appliance: status %d\n%s", status, out)
	}
	if _, ready := a.readiness(); strings.Contains(ready, "foresight") {
		t.Errorf("a sound appliance: %s", ready)
	}
	a.down()
	a.holdCeremony(`
[[keys]]
label = "ds-2"
purpose = "document-signer"
algorithm = "ES256"
under = "iaca-1"
common_name = "Utopia Document Signer 2"
days = 5
[keys.profile]
formats = ["mso_mdoc"]
types = ["org.iso.18013.5.1.mDL", "eu.europa.ec.eudi.pid.1"]
longest_validity_hours = 8760
`)
	for _, id := range []string{mdl, pidMdoc} {
		a.replace(filepath.Join("configurations", id+".toml"), `signer = "ds-1"`, `signer = "ds-2"`)
	}
	a.up()

	if _, err := a.client.Whole(context.Background(), mdl, claims(t, mdl), true); err != nil {
		t.Errorf("issuing: %v", err)
	}
	out, status := a.chancery("doctor")
	for _, want := range []string{"BREAKS WITHIN A WEEK if nothing is done.\n", "\nNow\n  warning  " + pidMdoc, "\nWithin a week\n", "  error    ds-2, from ", "The certificate of ds-2, which signs ", "What helps: Make a new key in a ceremony"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if status != 1 || strings.Contains(out, "Within a month") || strings.Contains(out, "iaca-1") {
		t.Errorf("status %d\n%s", status, out)
	}
	t.Log(out)
	if out, status := a.chancery("doctor", "--json"); status != 1 || !strings.Contains(out, `"rule": "certificate-expired"`) {
		t.Errorf("as JSON: status %d\n%s", status, out)
	}
	eventually(t, "monitoring and log", func() error {
		metrics, err := a.client.Do(context.Background(), http.MethodGet, a.client.Admin+"/metrics", nil, nil)
		if err != nil {
			return err
		}
		events, _ := a.chancery("events", "list", "--type", "appliance.foresight")
		status, _ := a.chancery("status")
		code, ready := a.readiness()
		return errors.Join(
			holds("metrics", string(metrics.Body), `chancery_foresight_findings{horizon="now",severity="error"} 0`+"\n", `chancery_foresight_findings{horizon="now",severity="warning"} 2`+"\n",
				`chancery_foresight_findings{horizon="week",severity="error"} 1`+"\n", "\nchancery_foresight_nearest_seconds 1", "\nchancery_foresight_looked_seconds 1"),
			holds("status", status, "Ready: the appliance issues\n  Something is wrong or will be: \"chancery doctor\" says what.\n"),
			holds("events", events, "errors_now 0, errors_week 1", "errors_week 0", "nearest 20", "warnings 2"),
			holds("readiness", fmt.Sprint(code, " ", ready), "200 ", `"status":"ready"`, `"foresight":[`, "within a week (error): The certificate of ds-2"),
		)
	})
	log, err := os.ReadFile(filepath.Join(a.run, "log", "chanceryd.log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := holds("the log", string(log), `"level":"WARN","msg":"foreseen","process":"chanceryd","findings":["now (warning): Credentials of `); err != nil {
		t.Error(err)
	}
}

// holds demands that a text holds each of others.
func holds(what, text string, wanted ...string) error {
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			return fmt.Errorf("%s: %q is missing in\n%s", what, want, text)
		}
	}
	return nil
}

// holdCeremony holds another ceremony on the appliance, which is down, with the
// demonstration's names and further keys.
func (a *appliance) holdCeremony(keys string) {
	a.t.Helper()
	first, err := os.ReadFile(filepath.Join(a.run, "ceremony.toml"))
	if err != nil {
		a.t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(first), "[[keys]]")
	plan := filepath.Join(a.run, "ceremony-2.toml")
	if err := os.WriteFile(plan, []byte(head+keys), 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.replace("ceremony-2.toml", `output = "out"`, `output = "out-2"`)
	cmd := exec.Command("../bin/chancery-signer", "ceremony", "-config", filepath.Join(a.run, "chancery.toml"), plan)
	cmd.Env = append(a.environment, "SOFTHSM2_CONF="+filepath.Join(a.run, "softhsm2.conf"))
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("the ceremony: %v\n%s", err, out)
	}
}

// replace changes a text in a file of the state folder, where it must stand.
func (a *appliance) replace(name, old, replacement string) {
	a.t.Helper()
	path := filepath.Join(a.run, name)
	data, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		a.t.Fatalf("%s does not hold %q:\n%s", name, old, data)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, replacement)), 0o600); err != nil {
		a.t.Fatal(err)
	}
}
