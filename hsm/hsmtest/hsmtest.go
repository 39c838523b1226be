// Package hsmtest gives tests real tokens: SoftHSM in a folder of its own, and
// the fault module around it. It is for tests of this and other packages.
package hsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// PIN is the user PIN of the tokens made here.
const PIN = "123456"

// Label is the token's label.
const Label = "chancery-test"

// modulePaths are the places where Debian puts SoftHSM's module.
var modulePaths = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"}

// Module returns the path of SoftHSM's module, or skips with the reason.
func Module(t testing.TB) string {
	t.Helper()
	for _, path := range modulePaths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("SoftHSM is not installed: apt-get install softhsm2")
	return ""
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
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "87654321").CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v: %s", err, out)
	}
}

var faultModule = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "chancery-faultmodule-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "faultmodule.so")
	out, err := exec.Command("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o", path,
		filepath.Join(filepath.Dir(here), "..", "faultmodule", "faultmodule.c"), "-ldl", "-lpthread").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("the fault module does not build: %w: %s", err, out)
	}
	return path, nil
})

// Fault is the fault module around another module.
type Fault struct {
	// Module is the path to open instead of the wrapped module's.
	Module         string
	control, stats string
}

// WithFaults builds the fault module around module and sets its environment for
// this process and its children.
func WithFaults(t testing.TB, module string) *Fault {
	t.Helper()
	path, err := faultModule()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The module is loaded once for each path, and its state is the process's;
	// a copy for each test keeps them apart.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &Fault{Module: filepath.Join(dir, "faultmodule.so"), control: filepath.Join(dir, "control"), stats: filepath.Join(dir, "stats")}
	if err := os.WriteFile(f.Module, data, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAULT_MODULE", module)
	t.Setenv("FAULT_CONTROL", f.control)
	t.Setenv("FAULT_STATS", f.stats)
	f.Order(t)
	return f
}

// Order replaces the fault module's orders; none means that all is well.
func (f *Fault) Order(t testing.TB, orders ...string) {
	t.Helper()
	next := f.control + ".new"
	if err := os.WriteFile(next, []byte(strings.Join(orders, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, f.control); err != nil {
		t.Fatal(err)
	}
}

// Calls returns how often each function was called, as written at C_Finalize.
func (f *Fault) Calls(t testing.TB) map[string]int {
	t.Helper()
	data, err := os.ReadFile(f.stats)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for line := range strings.Lines(string(data)) {
		var name string
		var n int
		if _, err := fmt.Sscan(line, &name, &n); err == nil {
			calls[name] = n
		}
	}
	return calls
}
