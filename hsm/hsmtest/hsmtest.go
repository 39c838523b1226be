// Package hsmtest gives tests real tokens: SoftHSM in a folder of its own, a TPM
// (tpm2-pkcs11 on swtpm), NSS softokn, SoftHSM behind another process (p11-kit),
// and the fault module around any of them. It is for tests of this and other
// packages. A token that is not installed skips the test and names the package
// of Debian's that has it.
package hsmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// PIN is the user PIN of the tokens made here.
const PIN = "123456"

// Label is the token's label.
const Label = "chancery-test"

// libraries is where Debian puts this machine's libraries.
var libraries = map[string]string{"amd64": "/usr/lib/x86_64-linux-gnu", "arm64": "/usr/lib/aarch64-linux-gnu"}[runtime.GOARCH]

// need returns the first of the files that exists, or skips and names the package.
func need(t testing.TB, debian string, files ...string) string {
	t.Helper()
	for _, file := range files {
		if filepath.IsAbs(file) {
			if _, err := os.Stat(file); err == nil {
				return file
			}
		} else if path, err := exec.LookPath(file); err == nil {
			return path
		}
	}
	t.Skipf("%s is not on this machine: apt-get install %s", files[0], debian)
	return ""
}

// run runs a program that must succeed.
func run(t testing.TB, name string, arguments ...string) {
	t.Helper()
	if out, err := exec.Command(name, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// Module returns the path of SoftHSM's module, or skips with the reason.
func Module(t testing.TB) string {
	t.Helper()
	return need(t, "softhsm2", "/usr/lib/softhsm/libsofthsm2.so", libraries+"/softhsm/libsofthsm2.so")
}

// SoftHSM makes a token in a folder of its own, sets SOFTHSM2_CONF for this
// process and its children, and returns the token's folder.
func SoftHSM(t testing.TB) (directory string) {
	t.Helper()
	Module(t)
	dir := t.TempDir()
	directory = filepath.Join(dir, "tokens")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+directory+"\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	AddToken(t, Label)
	return directory
}

// AddToken makes a further token beside the one of [SoftHSM].
func AddToken(t testing.TB, label string) {
	t.Helper()
	run(t, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "87654321")
}
