package promises

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/issuance"
)

func decode(t *testing.T, text string) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// signerClient is a client of sign.sock beside chanceryd's own.
func (a *appliance) signerClient() *wire.Client { return wire.NewClient(a.env["SIGN_SOCKET"]) }

// sign asks for one JWT's signature.
func sign(client *wire.Client, key, tbs string) error {
	_, err := client.Sign(context.Background(), wire.SignRequest{Offer: "stolen", Configuration: "stolen",
		Items: []wire.SignItem{{Key: key, Format: issuance.FormatJWTVC, TBS: []byte(tbs), Credential: "stolen"}}})
	return err
}

// dependencies lists the packages that a command links.
func dependencies(t *testing.T, command string, environment ...string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "./cmd/"+command)
	cmd.Dir, cmd.Stderr = "..", os.Stderr
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Fields(string(out))
}

// TestPromiseP8Walls reads from the build what each process can contain: the one
// that talks to the Internet has no way to the token, the signer has no HTTP.
func TestPromiseP8Walls(t *testing.T) {
	for command, forbidden := range map[string][]string{
		"chanceryd":       {"chancery/hsm", "chancery/appliance/signer", "chancery/appliance/audit", "chancery/appliance/ceremony", "github.com/miekg/pkcs11", "github.com/ThalesGroup/crypto11", "runtime/cgo"},
		"chancery":        {"chancery/hsm", "chancery/appliance/signer", "chancery/appliance/ceremony", "github.com/miekg/pkcs11", "github.com/ThalesGroup/crypto11", "runtime/cgo"},
		"chancery-signer": {"net/http", "chancery/appliance/oid4vci", "chancery/appliance/admin", "chancery/appliance/daemon", "chancery/appliance/store", "github.com/ThalesGroup/crypto11"},
	} {
		var environment []string
		if command != "chancery-signer" {
			environment = []string{"CGO_ENABLED=0"} // as it is built
		}
		linked := dependencies(t, command, environment...)
		for _, p := range forbidden {
			if slices.Contains(linked, p) {
				t.Errorf("%s links %s", command, p)
			}
		}
	}
	if linked := dependencies(t, "chancery-signer"); !slices.Contains(linked, "chancery/hsm") || !slices.Contains(linked, "runtime/cgo") {
		t.Error("chancery-signer does not link the token: this test would see nothing")
	}
	importers(t, "github.com/miekg/pkcs11", "chancery/hsm")
	importers(t, "github.com/ThalesGroup/crypto11")
	lower(t)
}

// importers demands that only the packages named import p, tests apart.
func importers(t *testing.T, p string, allowed ...string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "chancery/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if slices.Contains(fields[1:], p) && !slices.Contains(allowed, fields[0]) {
			t.Errorf("%s imports %s", fields[0], p)
		}
	}
}

// lower demands that what is below the daemons knows nothing of them.
func lower(t *testing.T) {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "chancery/hsm", "chancery/config", "chancery/issuance/...", "chancery/verifier/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		for _, imported := range fields[1:] {
			if strings.HasPrefix(imported, "chancery/appliance") || strings.HasPrefix(imported, "chancery/cmd") {
				t.Errorf("%s imports %s", fields[0], imported)
			}
		}
	}
}

// TestPromiseP8TheRunningProcess looks at chanceryd as it runs: no module in its
// memory map, neither signer.db nor the PIN among its files or in its
// environment; and its memory cannot be dumped.
func TestPromiseP8TheRunningProcess(t *testing.T) {
	a := start(t)
	if _, err := a.client.Whole(context.Background(), mdl, claims(t, mdl), true); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", a.pid("CHANCERYD_PID"))
	maps, err := os.ReadFile(proc + "maps")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(maps, []byte("softhsm")) || bytes.Contains(maps, []byte("libc.so")) {
		t.Error("chanceryd has a shared library in its memory")
	}
	pin, err := os.ReadFile(filepath.Join(a.run, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"environ", "cmdline"} {
		data, err := os.ReadFile(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, bytes.TrimSpace(pin)) {
			t.Errorf("the PIN is in chanceryd's %s", name)
		}
	}
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if target, err := os.Readlink(proc + "fd/" + f.Name()); err == nil && (strings.Contains(target, "signer.db") || strings.HasSuffix(target, "/pin")) {
			t.Errorf("chanceryd has %s open", target)
		}
	}
	// And what it may ask of the signer does not reach the log's past or the keys.
	for _, op := range []string{"pause", "resume", "checkpoint", "evidence"} {
		if answer := raw(t, a.env["SIGN_SOCKET"], wire.Op(op)); answer.Error == nil || answer.Error.Code != wire.CodeDenied {
			t.Errorf("%s through sign.sock: %+v: want denied", op, answer.Error)
		}
	}
}

// raw sends one operation without a body.
func raw(t *testing.T, socket string, op wire.Op) wire.Response {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := wire.WriteFrame(c, wire.Request{Op: op}); err != nil {
		t.Fatal(err)
	}
	var response wire.Response
	if err := wire.ReadFrame(bufio.NewReader(c), &response); err != nil {
		t.Fatal(err)
	}
	return response
}
