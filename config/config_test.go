package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// example is the file in examples/, which must always be a valid configuration.
func example(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "examples", "chancery.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExampleIsValid(t *testing.T) {
	c, err := Parse("/etc/chancery/chancery.toml", []byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Signer.Database, "/etc/chancery/data/signer.db"; got != want {
		t.Errorf("signer.database = %q, want %q: relative paths start at the file's folder", got, want)
	}
	if got, want := c.Signer.PIN, "/etc/chancery/pin"; got != want {
		t.Errorf("signer.pin = %q, want %q", got, want)
	}
	if !c.Signer.Spawn || !*c.Issuer.AnonymousAccess {
		t.Error("spawn and anonymous_access must be as the file says")
	}
}

// TestExampleUncommented: what the example shows as a comment is right, too.
func TestExampleUncommented(t *testing.T) {
	var lines []string
	off := 0
	for line := range strings.SplitSeq(example(t), "\n") {
		if text, commented := strings.CutPrefix(line, "#"); commented && text != "" && text[0] != ' ' {
			line = text
			off++
		}
		lines = append(lines, line)
	}
	c, err := Parse("/etc/chancery/chancery.toml", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if off < 20 || c.Issuer.Compatibility != "draft-13" || !c.Issuer.DPoP.Required || len(c.Issuer.WalletAttestation.Providers) != 1 || !c.Issuer.Refresh.Enabled {
		t.Errorf("%d lines: %+v", off, c.Issuer)
	}
}

// TestDefaults removes every optional key from the example and expects the
// values that the structs' comments promise.
func TestDefaults(t *testing.T) {
	optional := []string{"log", "anonymous_access", "access_token_lifetime", "nonce_lifetime", "data_key_lifetime", "retention",
		"default_expiry", "longest_expiry", "transaction_code_attempts", "transaction_code_length", "sessions", "queue",
		"checkpoint_interval", "probe_interval", "crl_lifetime", "spawn", "token_directory"}
	var kept []string
	for line := range strings.SplitSeq(example(t), "\n") {
		name, _, _ := strings.Cut(line, " =")
		if !contains(optional, name) {
			kept = append(kept, line)
		}
	}
	c, err := Parse("/c.toml", []byte(strings.Join(kept, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if c.Log != "info" || !*c.Issuer.AnonymousAccess || c.Issuer.AccessTokenLifetime.Std() != 5*time.Minute ||
		c.Store.DataKeyLifetime.Std() != time.Hour || c.Offers.LongestExpiry.Std() != 7*24*time.Hour ||
		c.Offers.TransactionCodeAttempts != 5 || c.Signer.Sessions != 2 || c.Signer.Queue != 256 ||
		c.Signer.HungAfter.Std() != 30*time.Second || c.Signer.CRLLifetime.Std() != 60*24*time.Hour || c.Signer.Spawn {
		t.Errorf("defaults are not what the comments say: %+v", c)
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// TestRefusals changes one thing in the example and expects the fault to name
// the member.
func TestRefusals(t *testing.T) {
	for _, test := range []struct{ name, old, new, wants string }{
		{"unknown key", "queue = 256", "queue = 256\nqueues = 3", "signer.queues: unknown key"},
		{"unknown section", "[store]", "[stores]", "stores"},
		{"http issuer", `"https://localhost:8443"`, `"http://localhost:8443"`, "issuer.identifier"},
		{"trailing slash", `"https://localhost:8443"`, `"https://localhost:8443/"`, "trailing slash"},
		{"query", `"https://localhost:8443"`, `"https://localhost:8443/a?b"`, "issuer.identifier"},
		{"fragment", `"https://localhost:8443"`, `"https://localhost:8443/a#"`, "issuer.identifier"},
		{"upper-case host", `"https://localhost:8443"`, `"https://Localhost:8443"`, "lower case"},
		{"address", `listen = "127.0.0.1:8443"`, `listen = "8443"`, "issuer.listen"},
		{"relative module", `"/usr/lib/softhsm/libsofthsm2.so"`, `"libsofthsm2.so"`, "signer.module"},
		{"both selectors", `token_label = "chancery-demo"`, "token_label = \"a\"\ntoken_serial = \"b\"", "token_serial"},
		{"no selector", `token_label = "chancery-demo"`, "", "token_label"},
		{"origin with a space", `"localhost/chancery-demo"`, `"local host"`, "signer.origin"},
		{"level", `log = "info"`, `log = "loud"`, "log"},
		{"span in words", `nonce_lifetime = "5m"`, `nonce_lifetime = "five minutes"`, "time span"},
		{"token lifetime above 5 minutes", `access_token_lifetime = "5m"`, `access_token_lifetime = "6m"`, "issuer.access_token_lifetime"},
		{"attempts", "transaction_code_attempts = 5", "transaction_code_attempts = 50", "offers.transaction_code_attempts"},
		{"sessions", "sessions = 2", "sessions = -1", "signer.sessions"},
		{"CRL lifetime", `crl_lifetime = "1440h"`, `crl_lifetime = "2400h"`, "signer.crl_lifetime"},
		{"default above longest", `default_expiry = "10m"`, `default_expiry = "400h"`, "offers.default_expiry"},
		{"missing database", `database = "data/signer.db"`, "", "signer.database: missing"},
		{"no PIN", `pin = "./pin"`, "", "signer.pin: missing"},
		{"wrong type", "spawn = true", `spawn = "yes"`, "spawn"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := example(t)
			if !strings.Contains(text, test.old) {
				t.Fatalf("the example no longer contains %q", test.old)
			}
			_, err := Parse("/c.toml", []byte(strings.Replace(text, test.old, test.new, 1)))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), test.wants) {
				t.Errorf("the error does not name %q: %v", test.wants, err)
			}
		})
	}
}

// TestEveryFaultIsListed makes three faults and expects all of them in one answer.
func TestEveryFaultIsListed(t *testing.T) {
	text := strings.NewReplacer(`log = "info"`, `log = "x"`, "sessions = 2", "sessions = 99", "[admin]", "[admin]\ncolour = 1").Replace(example(t))
	_, err := Parse("/c.toml", []byte(text))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, member := range []string{"log", "signer.sessions", "admin.colour"} {
		if !strings.Contains(err.Error(), member) {
			t.Errorf("%s is missing from: %v", member, err)
		}
	}
}

func TestPINCredentialKeepsItsName(t *testing.T) {
	c, err := Parse("/etc/chancery/chancery.toml", []byte(strings.Replace(example(t), `pin = "./pin"`, `pin = "pin"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Signer.PIN != "pin" {
		t.Errorf("signer.pin = %q: a bare name means a systemd credential", c.Signer.PIN)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chancery.toml")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a missing file must be named: %v", err)
	}
	if err := os.WriteFile(path, []byte(example(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.Path != path {
		t.Errorf("Load: %v", err)
	}
}

// FuzzParse holds that no input panics and that what is accepted is in bounds.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example(f)))
	f.Add([]byte("log = 1"))
	f.Add([]byte("[issuer]\nidentifier = \"https://h\"\n"))
	f.Add([]byte("[[issuer.display]]\nname = 3\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("/c.toml", data)
		if err != nil {
			return
		}
		if CheckIdentifier(c.Issuer.Identifier) != nil || c.Signer.Sessions < 1 || c.Signer.Sessions > 64 {
			t.Errorf("accepted out of bounds: %+v", c)
		}
	})
}
