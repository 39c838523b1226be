package hsmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// onBus is set in a test process that [UnderBus] has started.
const onBus = "CHANCERY_TEST_ON_BUS"

// UnderBus runs the calling test, which must be a top-level one, once more in a
// process of its own under a D-Bus session: the TPM's resource manager is found
// over the bus, and a bus that ends takes its users with it. It returns true in
// that process; in the first one it reports the outcome and returns false.
func UnderBus(t *testing.T) bool {
	t.Helper()
	if os.Getenv(onBus) != "" {
		return true
	}
	needTPM(t)
	command := exec.Command("dbus-run-session", "--", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	command.Env = append(os.Environ(), onBus+"=1")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("under dbus-run-session: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

func needTPM(t testing.TB) (module string) {
	t.Helper()
	need(t, "dbus", "dbus-run-session")
	need(t, "swtpm", "swtpm")
	need(t, "tpm2-abrmd libtss2-tcti-swtpm0", "tpm2-abrmd", "/usr/sbin/tpm2-abrmd")
	need(t, "libtss2-tcti-tabrmd0", libraries+"/libtss2-tcti-tabrmd.so.0")
	need(t, "tpm2-tools", "tpm2_dictionarylockout")
	need(t, "libtpm2-pkcs11-tools", "tpm2_ptool")
	return need(t, "libtpm2-pkcs11-1", libraries+"/libtpm2_pkcs11.so.1")
}

// TPM is a software TPM with its resource manager and a PKCS#11 token in it.
type TPM struct {
	// Module is tpm2-pkcs11's path.
	Module string
	dir    string
	swtpm  *exec.Cmd
	broker *exec.Cmd
}

// NewTPM starts a TPM and makes a token in it, labelled [Label], with [PIN]. It
// works only where [UnderBus] is true.
func NewTPM(t *testing.T) *TPM {
	t.Helper()
	p := &TPM{Module: needTPM(t), dir: t.TempDir()}
	store := filepath.Join(p.dir, "store")
	for _, dir := range []string{store, filepath.Join(p.dir, "state")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"TPM2TOOLS_TCTI", "TPM2_PKCS11_TCTI"} {
		t.Setenv(name, "tabrmd:bus_type=session")
	}
	t.Setenv("TPM2_PKCS11_STORE", store)
	t.Setenv("TPM2_PKCS11_LOG_LEVEL", "0")
	p.Start(t)
	t.Cleanup(p.Kill)
	p.ResetLockout(t, 10_000)
	run(t, "tpm2_ptool", "init", "--path", store)
	run(t, "tpm2_ptool", "addtoken", "--pid", "1", "--sopin", "87654321", "--userpin", PIN, "--label", Label, "--path", store)
	return p
}

// Start starts the TPM with the state it had, and waits until it answers.
func (p *TPM) Start(t testing.TB) {
	t.Helper()
	socket := filepath.Join(p.dir, "tpm.sock")
	p.swtpm = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(p.dir, "state"),
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init,startup-clear")
	start(t, p.swtpm)
	await(t, "swtpm", func() bool { _, err := os.Stat(socket); return err == nil })
	p.broker = exec.Command(need(t, "tpm2-abrmd", "tpm2-abrmd", "/usr/sbin/tpm2-abrmd"), "--allow-root", "--session", "--tcti=swtpm:path="+socket)
	start(t, p.broker)
	await(t, "tpm2-abrmd", func() bool { return exec.Command("tpm2_getrandom", "--hex", "1").Run() == nil })
}

// Kill ends the TPM as a power failure does.
func (p *TPM) Kill() {
	for _, c := range []*exec.Cmd{p.broker, p.swtpm} {
		c.Process.Kill()
		c.Wait()
	}
	os.Remove(filepath.Join(p.dir, "tpm.sock"))
	os.Remove(filepath.Join(p.dir, "tpm.sock.ctrl"))
}

// ResetLockout clears the count of wrong PINs and sets how many lock the TPM.
func (p *TPM) ResetLockout(t testing.TB, tries int) {
	t.Helper()
	run(t, "tpm2_dictionarylockout", "--clear-lockout")
	run(t, "tpm2_dictionarylockout", "--setup-parameters", "--max-tries", strconv.Itoa(tries), "--recovery-time", "1000", "--lockout-recovery-time", "1")
}

// start starts a program that runs beside the test.
func start(t testing.TB, c *exec.Cmd) {
	t.Helper()
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
