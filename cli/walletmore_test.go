package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chancery/wallet"

	"github.com/go-jose/go-jose/v4"
)

// ownersOnly checks that nobody else reads a file.
func ownersOnly(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", path, info.Mode())
	}
}

func TestWalletBatch(t *testing.T) {
	c := newCounter(t)
	out := filepath.Join(t.TempDir(), "wallet")
	status, shown, errs := run(t, nil, "wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.ca, "--trust", c.root, "--offline", "--keys", "3", "--out", out)
	if status != 0 || strings.Count(shown, "VERIFIED:") != 3 {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	keys := map[string]bool{}
	for _, name := range []string{"pid", "pid.2", "pid.3"} {
		for _, extension := range []string{".sd-jwt", ".key.json", ".report.json"} {
			ownersOnly(t, filepath.Join(out, name+extension))
		}
		data, err := os.ReadFile(filepath.Join(out, name+".key.json"))
		if err != nil {
			t.Fatal(err)
		}
		keys[string(data)] = true
	}
	if len(keys) != 3 {
		t.Errorf("%d keys for three credentials", len(keys))
	}
	if status, _, errs := run(t, nil, "wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.ca, "--keys", "4"); status != 1 || !strings.Contains(errs, "at most 3") {
		t.Errorf("four: %d %s", status, errs)
	}
}

func TestWalletDeferred(t *testing.T) {
	c := newCounter(t)
	c.deferrals = 2
	dir := t.TempDir()
	state := filepath.Join(dir, "state.json")
	more := []string{"--ca", c.ca, "--trust", c.root, "--offline"}
	if status, _, errs := run(t, nil, append([]string{"wallet", "accept", c.link(), "--tx-code", "1234", "--no-wait"}, more...)...); status != 2 || !strings.Contains(errs, "--state") || c.redeems != 0 {
		t.Errorf("without a place for the state: %d %s", status, errs)
	}
	status, shown, errs := run(t, nil, append([]string{"wallet", "accept", c.link(), "--tx-code", "1234", "--no-wait", "--state", state}, more...)...)
	if status != 0 || !strings.Contains(shown, "is deferred") || !strings.Contains(shown, "chancery wallet resume "+state) {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	ownersOnly(t, state)
	if status, _, errs := run(t, nil, append([]string{"wallet", "accept", c.link(), "--tx-code", "1234", "--state", state}, more...)...); status != 1 || !strings.Contains(errs, "exists: go on with it") || c.redeems != 1 {
		t.Errorf("a state is overwritten: %d %s", status, errs)
	}
	out := filepath.Join(dir, "wallet")
	status, shown, errs = run(t, nil, append([]string{"wallet", "resume", state, "--out", out}, more...)...)
	if status != 0 || !strings.Contains(shown, "VERIFIED:") || !strings.Contains(shown, "chancery wallet refresh "+state) {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	ownersOnly(t, filepath.Join(out, "pid.sd-jwt"))
	ownersOnly(t, state)
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 2 {
		t.Errorf("files: %q, %v", left, err)
	}
	var result struct {
		Credentials []taken
		Pending     int
		StateFile   string `json:"state_file"`
	}
	status, shown, errs = run(t, nil, append([]string{"wallet", "refresh", state, "--keys", "2", "--json"}, more...)...)
	if err := json.Unmarshal([]byte(shown), &result); err != nil || status != 0 || len(result.Credentials) != 2 || result.StateFile != state {
		t.Fatalf("%d %v\n%s%s", status, err, shown, errs)
	}
	if err := os.WriteFile(state, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"resume", "refresh"} {
		if status, _, errs := run(t, nil, append([]string{"wallet", command, state}, more...)...); status != 1 || !strings.Contains(errs, "the wallet's state") {
			t.Errorf("%s: %d %s", command, status, errs)
		}
	}
}

// --out may have what was issued at once, and the state.
func TestWalletResumeIntoTheSameFolder(t *testing.T) {
	c := newCounter(t)
	c.deferrals = 1
	out := t.TempDir()
	more := []string{"--ca", c.ca, "--offline", "--out", out}
	if status, shown, errs := run(t, nil, append([]string{"wallet", "accept", c.link(), "--tx-code", "1234", "--no-wait"}, more...)...); status != 0 {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	path := filepath.Join(out, stateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	state, err := wallet.ParseState(data)
	if err != nil {
		t.Fatal(err)
	}
	state.Configurations = append(state.Configurations, "other")
	if err := errors.Join((&walletFlags{state: path}).keep(state), writeNew(filepath.Join(out, "other.sd-jwt"), nil)); err != nil {
		t.Fatal(err)
	}
	if status, shown, errs := run(t, nil, append([]string{"wallet", "resume", path}, more...)...); status != 0 {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	ownersOnly(t, filepath.Join(out, "pid.sd-jwt"))
	if status, _, errs := run(t, nil, append([]string{"wallet", "refresh", path}, more...)...); status != 1 || !strings.Contains(errs, "exists: choose another folder") {
		t.Errorf("refresh: %d %s", status, errs)
	}
}

// A state that is good for nothing is not left lying about.
func TestWalletStateIsRemoved(t *testing.T) {
	c := newCounter(t)
	c.deferrals = 1
	c.noRefresh = true
	state := filepath.Join(t.TempDir(), "state.json")
	if status, shown, errs := run(t, nil, "wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.ca, "--offline", "--state", state); status != 0 || strings.Contains(shown, "chancery wallet") {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the state: %v", err)
	}
}

func TestWalletAttester(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "attester")
	status, shown, errs := run(t, nil, "wallet", "attester", "--out", dir)
	if status != 0 || !strings.Contains(shown, filepath.Join(dir, anchorFile)) {
		t.Fatalf("%d\n%s%s", status, shown, errs)
	}
	for _, name := range []string{anchorFile, attesterFile, attesterKeyFile} {
		ownersOnly(t, filepath.Join(dir, name))
	}
	if status, _, errs := run(t, nil, "wallet", "attester", "--out", dir); status != 1 || !strings.Contains(errs, "exists") {
		t.Errorf("again: %d %s", status, errs)
	}
	if status, _, errs := run(t, nil, "wallet", "attester"); status != 2 || !strings.Contains(errs, "--out is missing") {
		t.Errorf("nowhere: %d %s", status, errs)
	}
	c := newCounter(t)
	accept := func(more ...string) (int, string, string) {
		return run(t, nil, append([]string{"wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.ca, "--offline"}, more...)...)
	}
	if status, shown, errs := accept("--attester", dir); status != 0 {
		t.Errorf("an issuer that takes no attestation: %d\n%s%s", status, shown, errs)
	}
	if status, _, errs := accept("--attester", t.TempDir()); status != 1 || !strings.Contains(errs, "--attester") {
		t.Errorf("an empty folder: %d %s", status, errs)
	}
	if err := os.WriteFile(filepath.Join(dir, attesterKeyFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := accept("--attester", dir); status != 1 || !strings.Contains(errs, "PKCS #8") {
		t.Errorf("a broken key: %d %s", status, errs)
	}
}

func TestWalletFlags(t *testing.T) {
	c := newCounter(t)
	key := filepath.Join(t.TempDir(), "key.json")
	data, err := json.Marshal(jose.JSONWebKey{Key: c.signer.key, KeyID: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []struct {
		flags  []string
		status int
		words  string
	}{
		{[]string{"--proof", "cwt"}, 2, "--proof"},
		{[]string{"--response-alg", "RSA-OAEP"}, 2, "--response-alg"},
		{[]string{"--response-enc", "A128CBC"}, 2, "--response-enc"},
		{[]string{"--attestation-draft", "5"}, 2, "--attestation-draft"},
		{[]string{"--keys", "1001"}, 2, "--keys"},
		{[]string{"--encrypt"}, 1, "supports no encryption"},
		{[]string{"--proof", "attestation"}, 1, "none of the proof types"},
		{[]string{"--key-attestation"}, 1, "--attester"},
		{[]string{"--authorization-details"}, 1, "openid_credential"},
		{[]string{"--client-key", key, "--client-id", "a"}, 1, "private_key_jwt"},
		{[]string{"--client-key", c.root, "--client-id", "a"}, 1, "no JWK"},
		{[]string{"--signed-metadata"}, 1, "not application/jwt"},
	} {
		args := append([]string{"wallet", "accept", c.link(), "--tx-code", "1234", "--ca", c.ca, "--offline"}, line.flags...)
		if status, _, errs := run(t, nil, args...); status != line.status || !strings.Contains(errs, line.words) {
			t.Errorf("%q: %d %s", line.flags, status, errs)
		}
	}
	if c.redeems != 0 {
		t.Errorf("%d codes were spent on what could not work", c.redeems)
	}
}
