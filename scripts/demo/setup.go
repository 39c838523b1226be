package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tokenLabel names the demonstration's SoftHSM token.
const tokenLabel = "chancery-demo"

// softHSMModules are the places where Debian puts SoftHSM's module.
var softHSMModules = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"}

// made is what the state folder was made for; a folder made for other ports is refused.
type made struct {
	Port      int `json:"port"`
	AdminPort int `json:"adminPort"`
}

// prepare makes the state folder when there is none. It is made under another
// name and renamed when it is complete, so a set-up that was interrupted leaves
// nothing that looks finished.
func prepare(ctx context.Context, p place) error {
	data, err := os.ReadFile(p.path("made.json"))
	if err == nil {
		var m made
		if err := json.Unmarshal(data, &m); err != nil {
			return fmt.Errorf("%s: %w: run \"make clean-run\"", p.path("made.json"), err)
		}
		if m.Port != p.port || m.AdminPort != p.adminPort {
			return fmt.Errorf("the state in %s was made for ports %d and %d, and certificates name them: set CHANCERY_PORT=%d CHANCERY_ADMIN_PORT=%d, or run \"make clean-run\"",
				p.run, m.Port, m.AdminPort, m.Port, m.AdminPort)
		}
		return writeTokenConfig(p)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if entries, err := os.ReadDir(p.run); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s exists but is not a complete demonstration: run \"make clean-run\"", p.run)
	}
	fresh := p
	fresh.run = p.run + ".new"
	if err := os.RemoveAll(fresh.run); err != nil {
		return err
	}
	if err := build(ctx, fresh); err != nil {
		return err
	}
	if err := writeJSON(fresh.path("made.json"), made{p.port, p.adminPort}); err != nil {
		return err
	}
	os.Remove(p.run) // an empty folder may stand there
	if err := os.Rename(fresh.run, p.run); err != nil {
		return err
	}
	return writeTokenConfig(p)
}

// build makes token, certificates, configuration, databases and the operator's token.
func build(ctx context.Context, p place) error {
	for _, dir := range []string{"token", "tls", "spool", "out", "data", "log"} {
		if err := os.MkdirAll(p.path(dir), 0o700); err != nil {
			return err
		}
	}
	step := func(what string) { fmt.Fprintln(os.Stderr, "  ·", what) }
	fmt.Fprintln(os.Stderr, "Setting up the demonstration in", strings.TrimSuffix(p.run, ".new"))

	step("a SoftHSM token with a random PIN")
	if err := makeToken(ctx, p); err != nil {
		return err
	}
	step("TLS certificates for localhost")
	if err := makeTLS(p.path("tls")); err != nil {
		return err
	}
	step("a demonstration attester, whose word on the built-in wallet is believed")
	if _, err := p.cli(ctx, "wallet", "attester", "--out", p.path("attester")); err != nil {
		return err
	}
	step("the configuration")
	if err := writeConfiguration(p); err != nil {
		return err
	}
	step("the databases")
	if _, err := p.command(ctx, "chancery-signer", "init"); err != nil {
		return err
	}
	if _, err := p.command(ctx, "chanceryd", "init"); err != nil {
		return err
	}
	step("the ceremony: IACA, document signer, credential signer, DID and service keys in the token")
	if _, err := p.command(ctx, "chancery-signer", "ceremony", p.path("ceremony.toml")); err != nil {
		return err
	}
	step("an operator's token for the admin API")
	out, err := p.command(ctx, "chanceryd", "token", "add", "demo")
	if err != nil {
		return err
	}
	return os.WriteFile(p.path("admin-token"), []byte(strings.TrimSpace(out)+"\n"), 0o600)
}

// command runs one of the product's binaries with the demonstration's
// configuration and returns what it printed.
func (p place) command(ctx context.Context, binary string, args ...string) (string, error) {
	args = append([]string{args[0], "-config", p.path("chancery.toml")}, args[1:]...)
	if binary == "chanceryd" && args[0] == "token" {
		args = append([]string{"token", args[3], "-config", p.path("chancery.toml")}, args[4:]...)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, binary), args...)
	cmd.Env = p.environment()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", binary, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// environment is the caller's with the token's configuration.
func (p place) environment() []string {
	return append(os.Environ(), "SOFTHSM2_CONF="+p.path("softhsm2.conf"))
}

// writeTokenConfig writes softhsm2.conf, which knows absolute paths only.
func writeTokenConfig(p place) error {
	return os.WriteFile(p.path("softhsm2.conf"), []byte("directories.tokendir = "+p.path("token")+
		"\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"), 0o600)
}

func makeToken(ctx context.Context, p place) error {
	if err := writeTokenConfig(p); err != nil {
		return err
	}
	pin, err := randomDigits(12)
	if err != nil {
		return err
	}
	soPIN, err := randomDigits(12)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "softhsm2-util", "--init-token", "--free", "--label", tokenLabel, "--pin", pin, "--so-pin", soPIN)
	cmd.Env = p.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("softhsm2-util: %w: %s", err, out)
	}
	return os.WriteFile(p.path("pin"), []byte(pin), 0o600)
}

func randomDigits(n int) (string, error) {
	digits := make([]byte, n)
	for i := range digits {
		d, err := rand.Int(rand.Reader, big.NewInt(10))
		if err != nil {
			return "", err
		}
		digits[i] = byte('0' + d.Int64())
	}
	return string(digits), nil
}

// writeConfiguration writes chancery.toml, the ceremony's plan and a copy of
// the example credential configurations.
func writeConfiguration(p place) error {
	module := ""
	for _, m := range softHSMModules {
		if _, err := os.Stat(m); err == nil {
			module = m
			break
		}
	}
	if module == "" {
		return errors.New("SoftHSM's module was not found: run \"apt-get install softhsm2\"")
	}
	example, err := os.ReadFile(filepath.Join(p.source, "examples", "chancery.toml"))
	if err != nil {
		return err
	}
	text, err := replaceAll(string(example), map[string]string{
		`"https://localhost:8443"`:          fmt.Sprintf("%q", p.issuerURL()),
		`"127.0.0.1:8443"`:                  fmt.Sprintf("\"127.0.0.1:%d\"", p.port),
		`"127.0.0.1:9443"`:                  fmt.Sprintf("\"127.0.0.1:%d\"", p.adminPort),
		`"/usr/lib/softhsm/libsofthsm2.so"`: fmt.Sprintf("%q", module),
	})
	if err != nil {
		return err
	}
	text += attesterSections
	if err := os.WriteFile(p.path("chancery.toml"), []byte(text), 0o600); err != nil {
		return err
	}
	plan, err := os.ReadFile(filepath.Join(p.source, "examples", "ceremony.toml"))
	if err != nil {
		return err
	}
	planText, err := replaceAll(string(plan), map[string]string{`"https://localhost:8443"`: fmt.Sprintf("%q", p.issuerURL())})
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.path("ceremony.toml"), []byte(planText), 0o600); err != nil {
		return err
	}
	return os.CopyFS(p.path("configurations"), os.DirFS(filepath.Join(p.source, "examples", "configurations")))
}

// attesterSections believe the demonstration's attester. No issuer of real
// credentials should: it attests whatever it is told.
const attesterSections = `
[[issuer.wallet_attestation.providers]]
name = "Demonstration attester"
anchors = "attester/anchor.pem"

[[issuer.key_attestation.providers]]
name = "Demonstration attester"
anchors = "attester/anchor.pem"
`

// replaceAll replaces each key by its value and insists that each occurs, so
// that an example that was changed cannot silently lose its adaptation.
func replaceAll(text string, values map[string]string) (string, error) {
	for old, replacement := range values {
		if !strings.Contains(text, old) {
			return "", fmt.Errorf("the example file no longer contains %s", old)
		}
		text = strings.ReplaceAll(text, old, replacement)
	}
	return text, nil
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600)
}
