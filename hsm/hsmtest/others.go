package hsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NSS is Mozilla's software token: it gives keys away that it calls not extractable.
type NSS struct {
	// Module is softokn's path, Reserved what C_Initialize must be given.
	Module, Reserved string
}

// NewNSS makes an NSS database labelled [Label], with [PIN].
func NewNSS(t testing.TB) NSS {
	t.Helper()
	module := need(t, "libnss3", libraries+"/libsoftokn3.so", libraries+"/nss/libsoftokn3.so")
	certutil := need(t, "libnss3-tools", "certutil")
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, certutil, "-N", "-d", "sql:"+dir, "-f", password)
	return NSS{module, fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags= dbTokenDescription='%s'", dir, Label)}
}

// Remote is a SoftHSM token that another process holds; p11-kit's client module
// reaches it over a socket.
type Remote struct {
	// Module is the client module's path.
	Module string
	socket string
	served string
	server *exec.Cmd
}

// NewRemote makes a SoftHSM token and a process that serves it.
func NewRemote(t testing.TB) *Remote {
	t.Helper()
	r := &Remote{Module: need(t, "p11-kit-modules", libraries+"/pkcs11/p11-kit-client.so"), served: Module(t)}
	need(t, "p11-kit", "p11-kit")
	need(t, "p11-kit", "/usr/libexec/p11-kit/p11-kit-server", "/usr/lib/p11-kit/p11-kit-server")
	SoftHSM(t)
	r.socket = filepath.Join(t.TempDir(), "p11.sock")
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+r.socket)
	r.Start(t)
	t.Cleanup(r.Kill)
	return r
}

// Start starts the process that serves the token.
func (r *Remote) Start(t testing.TB) {
	t.Helper()
	r.server = exec.Command("p11-kit", "server", "-f", "--name", r.socket, "--provider", r.served, "pkcs11:token="+Label)
	start(t, r.server)
	await(t, "p11-kit server", func() bool { _, err := os.Stat(r.socket); return err == nil })
}

// Kill ends that process and its children at once, as a crash does.
func (r *Remote) Kill() {
	pid := r.server.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	r.server.Process.Kill()
	for child := range strings.FieldsSeq(string(children)) {
		exec.Command("kill", "-9", child).Run()
	}
	r.server.Wait()
	os.Remove(r.socket)
}
