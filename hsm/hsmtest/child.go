package hsmtest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// inChild is set in a process that [Child] has started.
const inChild = "CHANCERY_TEST_CHILD"

// Child runs the calling test, which must be a top-level one, once more in a
// process of its own: for what ends a process, or must not share one. In that
// process it returns true and nothing else; in the first one what the process
// wrote and how it ended. The words of wrap stand before the command, for
// instance strace and its options.
func Child(t *testing.T, wrap ...string) (here bool, output string, err error) {
	t.Helper()
	if os.Getenv(inChild) != "" {
		return true, "", nil
	}
	words := append(wrap, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	command := exec.Command(words[0], words[1:]...)
	command.Env = append(os.Environ(), inChild+"=1")
	command.SysProcAttr = endsWithUs()
	command.WaitDelay = time.Second // what the process leaves behind may hold its output open
	out, err := command.CombinedOutput()
	return false, string(out), err
}

// endsWithUs lets a process end when this one does, however that ends: a test
// that runs out of time leaves no daemon behind.
func endsWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// start starts a program that runs beside the test.
func start(t testing.TB, c *exec.Cmd) {
	t.Helper()
	c.SysProcAttr = endsWithUs()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
}

// await polls until a program that was started answers.
func await(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for range 500 {
		if ready() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s did not start", what)
}
