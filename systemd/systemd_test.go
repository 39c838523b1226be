// Package systemd_test holds the units, users and folders of the service against
// what systemd, the daemons and docs/operations.md make of them. Whether they do
// what they say when systemd runs them is for scripts/boot/run.
package systemd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"chancery/appliance/process"
	"chancery/config"
)

// tool finds one of systemd's tools.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not here, so nothing can be said of the units: install the package systemd", name)
	}
	return path
}

// units copies the units to a folder in which what they execute exists.
func units(t *testing.T) (dir string, names []string) {
	t.Helper()
	dir = t.TempDir()
	for _, pattern := range []string{"*.service", "*.socket", "*.target"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d units, %v", pattern, len(found), err)
		}
		names = append(names, found...)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.ReplaceAll(data, []byte("/usr/bin/"), []byte(dir+"/"))
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, daemon := range []string{"chanceryd", "chancery-signer"} {
		if err := os.WriteFile(filepath.Join(dir, daemon), []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir, names
}

// TestUnitsAreUnderstood lets systemd read every unit. It only warns of a key
// that it does not know, so every word of it counts.
func TestUnitsAreUnderstood(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	dir, names := units(t)
	verify := func() string {
		cmd := exec.Command(analyze, append([]string{"verify"}, names...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(out)
	}
	if said := verify(); said != "" {
		t.Errorf("systemd-analyze verify: %s", said)
	}
	unit := filepath.Join(dir, "chanceryd.socket")
	data, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, append(data, "Frobnicate=yes\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := verify(); !strings.Contains(said, "Frobnicate") {
		t.Errorf("a key that does not exist is not noticed: %q", said)
	}
}

// TestExposure holds the daemons to the exposure that docs/operations.md states,
// on systemd's scale from 0 to 10.
func TestExposure(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	dir, _ := units(t)
	for name, limit := range map[string]float64{"chanceryd.service": 1.5, "chancery-signer.service": 1.0} {
		cmd := exec.Command(analyze, "security", "--no-pager", "--offline=true", fmt.Sprintf("--threshold=%.0f", 10*limit), filepath.Join(dir, name))
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("Overall exposure level")) {
			t.Errorf("%s is to have an exposure of at most %.1f: %v\n%s", name, limit, err, out)
		}
	}
}

// TestUsersAndFolders makes the users and folders under an empty root.
func TestUsersAndFolders(t *testing.T) {
	sysusers, tmpfiles := tool(t, "systemd-sysusers"), tool(t, "systemd-tmpfiles")
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, append([]string{"--root=" + root}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out)
		}
		return nil
	}
	if err := run(sysusers, absolute(t, "sysusers.conf")); err != nil {
		t.Fatal(err)
	}
	ids := map[string]uint32{"root": 0}
	for _, entry := range lines(t, filepath.Join(root, "etc", "passwd")) {
		fields := strings.Split(entry, ":")
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || id == 0 || !strings.HasSuffix(fields[6], "/nologin") {
			t.Errorf("user %s: %v", entry, err)
		}
		ids[fields[0]] = uint32(id)
	}
	if ids["chancery"] == 0 || ids["chancery-signer"] == 0 || ids["chancery"] == ids["chancery-signer"] {
		t.Errorf("the daemons' users: %v", ids)
	}
	if !slices.ContainsFunc(lines(t, filepath.Join(root, "etc", "group")), func(l string) bool { return strings.HasPrefix(l, "chancery-operators:") }) {
		t.Error("there is no group chancery-operators")
	}
	if os.Geteuid() != 0 {
		t.Skip("folders are not made here: only root can give them to the daemons' users")
	}
	if err := run(tmpfiles, "--create", absolute(t, "tmpfiles.conf")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		mode  fs.FileMode
		owner string
	}{
		"run/chancery": {0o755, "root"}, "etc/chancery": {0o755, "root"}, "etc/chancery/configurations": {0o755, "root"},
		"etc/chancery/tls": {0o750, "root"}, "var/lib/chancery": {0o700, "chancery"},
		"var/lib/chancery-signer": {0o700, "chancery-signer"}, "var/lib/chancery-signer/spool": {0o700, "chancery-signer"},
	} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
			continue
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != want.mode || owner != ids[want.owner] {
			t.Errorf("%s has mode %o and owner %d, want %o and %s", path, info.Mode().Perm(), owner, want.mode, want.owner)
		}
	}
}

// TestUnitsFitTheDaemons holds the units against the configuration that
// docs/operations.md gives, and against what the daemons look for.
func TestUnitsFitTheDaemons(t *testing.T) {
	cfg := documented(t)
	sign, admin := unit(t, "chancery-signer.socket"), unit(t, "chancery-signer-admin.socket")
	wallet, operators := unit(t, "chanceryd.socket"), unit(t, "chanceryd-admin.socket")
	daemon, keys := unit(t, "chanceryd.service"), unit(t, "chancery-signer.service")
	_, port, _ := strings.Cut(cfg.Issuer.Listen, "]:")
	credential, _, _ := strings.Cut(keys["LoadCredential"], ":")
	for what, pair := range map[string][2]string{
		"signer.sign_socket":        {sign["ListenStream"], cfg.Signer.SignSocket},
		"its descriptor":            {sign["FileDescriptorName"], "sign"},
		"signer.admin_socket":       {admin["ListenStream"], cfg.Signer.AdminSocket},
		"the signer's admin":        {admin["FileDescriptorName"], "admin"},
		"issuer.listen":             {wallet["ListenStream"], port},
		"the wallets' descriptor":   {wallet["FileDescriptorName"], "wallet"},
		"admin.listen":              {operators["ListenStream"], cfg.Admin.Listen},
		"the operators' descriptor": {operators["FileDescriptorName"], "admin"},
		"signer.sign_users":         {daemon["User"], strings.Join(cfg.Signer.SignUsers, " ")},
		"who may open sign.sock":    {sign["SocketGroup"], daemon["Group"]},
		"store.database":            {"/var/lib/" + daemon["StateDirectory"], filepath.Dir(cfg.Store.Database)},
		"signer.database":           {"/var/lib/" + keys["StateDirectory"], filepath.Dir(cfg.Signer.Database)},
		"signer.spool":              {"/var/lib/" + keys["StateDirectory"], filepath.Dir(cfg.Signer.Spool)},
		"signer.pin":                {credential, cfg.Signer.PIN},
		"a refused PIN":             {keys["RestartPreventExitStatus"], strconv.Itoa(process.ExitPIN)},
		"what follows it":           {keys["OnFailure"], "chancery-signer-halted.target"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: the unit has %q, not %q", what, pair[0], pair[1])
		}
	}
	for _, name := range []string{"chancery-signer.socket", "chancery-signer-admin.socket"} {
		if halted := unit(t, "chancery-signer-halted.target"); !slices.Contains(strings.Fields(halted["Conflicts"]), name) {
			t.Errorf("%s stays open when the PIN was refused: the next connection would try it again", name)
		}
		if wants := daemon["Wants"] + daemon["Requires"] + daemon["BindsTo"]; strings.Contains(wants, "chancery-signer") {
			t.Errorf("chanceryd.service opens the signer's sockets when it starts: %s", wants)
		}
	}
}

// documented loads the chancery.toml of docs/operations.md.
func documented(t *testing.T) *config.Config {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "cat > /etc/chancery/chancery.toml <<'END'\n")
	text, _, ended := strings.Cut(text, "\nEND\n")
	if !found || !ended {
		t.Fatal("docs/operations.md has no chancery.toml")
	}
	path := filepath.Join(t.TempDir(), "chancery.toml")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatalf("the chancery.toml of docs/operations.md: %v", err)
	}
	return cfg
}

// unit reads a unit's settings, the last of each name.
func unit(t *testing.T, name string) map[string]string {
	t.Helper()
	settings := map[string]string{}
	for _, line := range lines(t, name) {
		if key, value, found := strings.Cut(line, "="); found && !strings.HasPrefix(line, "#") {
			settings[key] = value
		}
	}
	return settings
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s was not made", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
