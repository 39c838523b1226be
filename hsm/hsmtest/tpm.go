package hsmtest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// UnderBus runs the calling test, which must be a top-level one, once more in a
// process of its own with a message bus of its own: the TPM's resource manager is
// found over the bus, and a bus that ends takes its users with it. It returns
// true in that process; in the first one it reports the outcome and returns false.
func UnderBus(t *testing.T) bool {
	t.Helper()
	needTPM(t)
	here, out, err := Child(t)
	if here {
		startBus(t)
		return true
	}
	if err != nil {
		t.Fatalf("the process under the bus: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// startBus starts a message bus that ends after this process, never before.
func startBus(t *testing.T) {
	t.Helper()
	bus := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1")
	out, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, bus)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon: %v", err)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", strings.TrimSpace(address))
}

func needTPM(t testing.TB) (module string) {
	t.Helper()
	need(t, "dbus", "dbus-daemon")
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
