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

// faultModule compiles the fault module once a process.
var faultModule = sync.OnceValues(func() ([]byte, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "chancery-faultmodule-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "faultmodule.so")
	out, err := exec.Command("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o", path,
		filepath.Join(filepath.Dir(here), "..", "faultmodule", "faultmodule.c"), "-ldl", "-lpthread").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("the fault module does not build: %w: %s", err, out)
	}
	return os.ReadFile(path)
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
	need(t, "gcc", "gcc")
	data, err := faultModule()
	if err != nil {
		t.Fatal(err)
	}
	// The module is loaded once for each path, and its state is the process's;
	// a copy for each test keeps them apart.
	dir := t.TempDir()
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

// Calls returns how often each function was called, as last written: at
// C_Finalize and at the order "stats". "overlaps" are calls that ran beside one
// that must be alone.
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
