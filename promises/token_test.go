package promises

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"chancery/appliance/audit"
	"chancery/hsm/hsmtest"
	"chancery/promises/flow"
)

// withFaults starts an appliance whose signer loads the fault module around
// SoftHSM.
func withFaults(t *testing.T) (*appliance, *hsmtest.Fault) {
	t.Helper()
	fault := hsmtest.WithFaults(t, hsmtest.Module(t))
	a := setUp(t)
	a.up()
	a.down()
	a.configure(`"`+hsmtest.Module(t)+`"`, `"`+fault.Module+`"`)
	a.configure(`probe_interval = "30s"`, `probe_interval = "1s"`)
	a.up()
	return a, fault
}

// configure replaces a text of the stopped appliance's chancery.toml.
func (a *appliance) configure(old, replacement string) {
	a.t.Helper()
	path := filepath.Join(a.run, "chancery.toml")
	data, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	if strings.Count(string(data), old) != 1 {
		a.t.Fatalf("chancery.toml does not hold %s once", old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), old, replacement, 1)), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// TestPromiseP10TheTokenGoesAndComesBack takes the token away under load and
// brings it back: offers are still made, issuing answers 503 with Retry-After,
// readiness says so, nothing wrong is answered; then issuing resumes, with the
// same processes, and a wallet that was turned away succeeds with the token it has.
func TestPromiseP10TheTokenGoesAndComesBack(t *testing.T) {
	a, fault := withFaults(t)
	chanceryd, signer := a.pid("CHANCERYD_PID"), a.pid("SIGNER_PID")
	ctx, stop := context.WithCancel(context.Background())
	w := &wallets{a: a, codes: map[string]int{}}
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() { w.run(ctx, t, formats[i]) })
	}
	for _, rv := range []string{"0x32", "0xe0", "0x30"} { // CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT, CKR_DEVICE_ERROR
		waiting := a.readyWallet(residence)
		fault.Order(t, "gone "+rv)
		eventually(t, "readiness says that the token is gone", func() error {
			if status, body := a.readiness(); status != http.StatusServiceUnavailable || !strings.Contains(body, "token-gone") {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
		if offer, answer, err := a.client.CreateOffer(context.Background(), mdl, claims(t, mdl), true); err != nil || answer.Status != http.StatusCreated || offer.URI == "" {
			t.Errorf("an offer without the token: %v %d %s: want 201", err, answer.Status, answer.Body)
		}
		if answer := waiting.ask(); answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
			t.Errorf("a credential without the token: %d %s: want 503 with Retry-After", answer.Status, answer.Body)
		}
		fault.Order(t)
		a.becomesReady()
		if answer := waiting.ask(); answer.Status != http.StatusOK {
			t.Errorf("the same request with the token back: %d %s: want 200", answer.Status, answer.Body)
		}
	}
	// Sessions that die are hardly noticed.
	fault.Order(t, "killsessions")
	eventually(t, "issuing after the sessions died", func() error {
		_, err := a.client.Whole(context.Background(), mdl, claims(t, mdl), false)
		return err
	})
	stop()
	wait.Wait()
	w.check(t, 10)
	if now := a.pid("CHANCERYD_PID"); now != chanceryd {
		t.Errorf("chanceryd was restarted: %d, then %d", chanceryd, now)
	}
	if now := a.pid("SIGNER_PID"); now != signer {
		t.Errorf("the signer was restarted: %d, then %d", signer, now)
	}
	a.down()
	l := readLog(t, a)
	for _, c := range w.credentials {
		l.holds(t, c)
	}
	a.up()
}

// waitingWallet is a wallet that has its access token and asks for its credential.
type waitingWallet struct {
	a             *appliance
	configuration string
	token         string
}

func (a *appliance) readyWallet(configuration string) waitingWallet {
	a.t.Helper()
	ctx := context.Background()
	offer, answer, err := a.client.CreateOffer(ctx, configuration, claims(a.t, configuration), false)
	if err != nil || answer.Status != http.StatusCreated {
		a.t.Fatalf("offer: %v %d %s", err, answer.Status, answer.Body)
	}
	code, err := a.client.Code(ctx, offer.URI)
	if err != nil {
		a.t.Fatal(err)
	}
	token, answer, err := a.client.Token(ctx, code, "")
	if err != nil || answer.Status != http.StatusOK {
		a.t.Fatalf("token: %v %d %s", err, answer.Status, answer.Body)
	}
	return waitingWallet{a, configuration, token}
}

func (w waitingWallet) ask() flow.Answer {
	w.a.t.Helper()
	ctx := context.Background()
	nonce, _, err := w.a.client.Nonce(ctx)
	if err != nil {
		w.a.t.Fatal(err)
	}
	_, answer, err := w.a.client.Credential(ctx, w.token, w.configuration, nonce, flow.NewKey())
	if err != nil {
		w.a.t.Fatal(err)
	}
	return answer
}

// TestPromiseP2AWrongSignatureStaysInside lets the token corrupt signatures: the
// wallet gets no credential but an answer to try again, the log says what
// happened, and the next try succeeds.
func TestPromiseP2AWrongSignatureStaysInside(t *testing.T) {
	a, fault := withFaults(t)
	waiting := a.readyWallet(mdl)
	for _, order := range []string{"corrupt 1000", "short 1000", "der 1000"} {
		fault.Order(t, order)
		if answer := waiting.ask(); answer.Status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %.200s: want 503", order, answer.Status, answer.Body)
		}
	}
	fault.Order(t)
	eventually(t, "the same request with a sound token", func() error {
		if answer := waiting.ask(); answer.Status != http.StatusOK {
			return fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		return nil
	})
	a.down()
	l := readLog(t, a)
	failed := 0
	for _, e := range l.entries {
		if e.Kind == audit.KindFailed && e.Reason == "bad-signature" {
			failed++
		}
	}
	if failed < 3 {
		t.Errorf("the log has %d failed signatures, want one for each fault", failed)
	}
	a.up()
}

// TestPromiseP6NothingIsMadeAnew takes a key out of the token: the signer refuses
// to start and names the key; no other takes its place.
func TestPromiseP6NothingIsMadeAnew(t *testing.T) {
	a := start(t)
	before := a.objects()
	a.down()
	removed := 0
	// An object file of SoftHSM that holds the label in clear is one of the key's halves.
	for _, path := range before {
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), "ds-1") {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			removed++
		}
	}
	if removed == 0 {
		t.Fatal("no object of ds-1 was found in the token's folder")
	}
	size := a.logSize()
	go a.demo("up") // it waits for a readiness that does not come
	eventually(t, "the signer's log names the missing key", func() error {
		if said := a.logSince(size); !strings.Contains(said, "ds-1") || !strings.Contains(said, "key-missing") {
			return fmt.Errorf("it says %q", said)
		}
		return nil
	})
	if status, body := a.readiness(); status == http.StatusOK {
		t.Errorf("ready without the document signer: %s", body)
	}
	if err := a.demo("down"); err != nil {
		t.Error(err)
	}
	if after := a.objects(); len(after) != len(before)-removed {
		t.Errorf("the token holds %d objects, had %d, %d were removed: something was made", len(after), len(before), removed)
	}
}

// objects lists the token's object files.
func (a *appliance) objects() []string {
	a.t.Helper()
	files, err := filepath.Glob(filepath.Join(a.run, "token", "*", "*.object"))
	if err != nil || len(files) == 0 {
		a.t.Fatalf("the token's objects: %v, %d files", err, len(files))
	}
	return files
}

// TestPromiseP3OutsideTheProfile talks to the signer as somebody would who has
// taken chanceryd over: what the key's profile does not allow is not signed, and
// the log has the refusal.
func TestPromiseP3OutsideTheProfile(t *testing.T) {
	a := start(t)
	stolen := a.signerClient()
	defer stolen.Close()
	ctx := context.Background()
	whole, err := a.client.Whole(ctx, residence, claims(t, residence), false)
	if err != nil {
		t.Fatal(err)
	}
	header, rest, _ := strings.Cut(whole, ".")
	payload, _, _ := strings.Cut(rest, ".")
	var refused int
	for name, change := range map[string]func(map[string]any){
		"another issuer": func(c map[string]any) { c["iss"] = "did:web:elsewhere.example" },
		"another type": func(c map[string]any) {
			c["vc"].(map[string]any)["type"] = []string{"VerifiableCredential", "Diplomat"}
		},
		"valid for too long": func(c map[string]any) { c["exp"] = 4102444800 },
	} {
		tbs := header + "." + changed(t, payload, change)
		if err := sign(stolen, "did-1", tbs); err == nil {
			t.Errorf("%s: signed", name)
		}
		refused++
	}
	if err := sign(stolen, "did-1", "a text that is no credential"); err == nil {
		t.Error("bytes that are no credential: signed")
	}
	if err := sign(stolen, "iaca-1", header+"."+payload); err == nil {
		t.Error("a credential by the IACA's key: signed")
	}
	if err := sign(stolen, "did-1", header+"."+payload); err != nil {
		t.Errorf("what the profile allows: %v", err)
	}
	a.down()
	found := 0
	for _, e := range readLog(t, a).entries {
		if e.Kind == audit.KindRefused {
			found++
		}
	}
	if found != refused+2 {
		t.Errorf("the log has %d refusals, want %d", found, refused+2)
	}
	a.up()
}

// changed decodes a JWT's payload, changes it and encodes it again.
func changed(t *testing.T, payload string, change func(map[string]any)) string {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(decode(t, payload), &c); err != nil {
		t.Fatal(err)
	}
	change(c)
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return encode(data)
}
