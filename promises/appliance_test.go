// Package promises tests the appliance's promises (docs/promises.md) on the
// shipped binaries, with a real token, a real database and real TLS.
package promises

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"chancery/promises/flow"
)

const (
	mdl       = "org.iso.18013.5.1.mDL"
	pidMdoc   = "eu.europa.ec.eudi.pid.mdoc"
	pidSDJWT  = "eu.europa.ec.eudi.pid.sdjwt"
	residence = "org.example.residence.jwt"
)

var formats = []string{mdl, pidMdoc, pidSDJWT, residence}

// TestMain builds the binaries, so that what is tested is the tree's.
func TestMain(m *testing.M) {
	build := exec.Command("make", "-s", "build")
	build.Dir, build.Stderr = "..", os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the binaries do not build:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// appliance is a demonstration appliance of its own, in a folder of its own.
type appliance struct {
	t           testing.TB
	run         string
	environment []string
	env         map[string]string
	client      *flow.Client
}

// start sets up an appliance on free ports and waits until it is ready. extra
// are environment variables for the daemons, NAME=value.
func start(t testing.TB, extra ...string) *appliance {
	t.Helper()
	a := setUp(t, extra...)
	a.up()
	return a
}

// setUp makes the state folder without leaving the daemons running, so that a
// test can change the configuration first.
func setUp(t testing.TB, extra ...string) *appliance {
	t.Helper()
	// A Unix socket's path is short, so the folder is not t.TempDir's.
	dir, err := os.MkdirTemp("", "chancery-")
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	a := &appliance{t: t, run: filepath.Join(dir, "run")}
	a.environment = append(os.Environ(), append(extra,
		"CHANCERY_PORT="+strconv.Itoa(ports[0]), "CHANCERY_ADMIN_PORT="+strconv.Itoa(ports[1]))...)
	t.Cleanup(func() {
		a.demo("down")
		if t.Failed() {
			a.showLogs()
		}
		os.RemoveAll(dir)
	})
	return a
}

func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// demo runs a command of the demonstration.
func (a *appliance) demo(args ...string) error {
	cmd := exec.Command("../bin/demo", append([]string{"-source", "..", "-run", a.run}, args...)...)
	cmd.Env = a.environment
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("demo %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// up starts the appliance (again) and reads its settings.
func (a *appliance) up() {
	a.t.Helper()
	if err := a.demo("up"); err != nil {
		a.t.Fatal(err)
	}
	a.readEnv()
	client, err := flow.New(a.env["ISSUER_URL"], a.env["ADMIN_URL"], a.env["ADMIN_TOKEN"], a.env["TLS_CA_FILE"], 64)
	if err != nil {
		a.t.Fatal(err)
	}
	a.client = client
}

func (a *appliance) down() {
	a.t.Helper()
	if err := a.demo("down"); err != nil {
		a.t.Fatal(err)
	}
}

// readEnv reads .run/env, which changes when a daemon was restarted.
func (a *appliance) readEnv() {
	a.t.Helper()
	f, err := os.Open(filepath.Join(a.run, "env"))
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	a.env = map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), "=")
		a.env[name] = strings.Trim(value, "'")
	}
}

// pid returns a daemon's process id: "CHANCERYD_PID" or "SIGNER_PID".
func (a *appliance) pid(name string) int {
	a.readEnv()
	pid, err := strconv.Atoi(a.env[name])
	if err != nil {
		a.t.Fatalf("%s in the settings: %v", name, err)
	}
	return pid
}

// kill ends a daemon as a power cut would.
func (a *appliance) kill(name string) {
	syscall.Kill(a.pid(name), syscall.SIGKILL)
}

// chancery runs the command-line tool and returns its output and exit code.
func (a *appliance) chancery(args ...string) (string, int) {
	a.t.Helper()
	cmd := exec.Command("../bin/chancery", args...)
	cmd.Env = append(os.Environ(), "CHANCERY_ADMIN_URL="+a.env["ADMIN_URL"],
		"CHANCERY_ADMIN_TOKEN_FILE="+a.env["ADMIN_TOKEN_FILE"], "CHANCERY_CA_FILE="+a.env["TLS_CA_FILE"])
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		a.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// claims returns a configuration's sample claims.
func claims(t testing.TB, configuration string) json.RawMessage {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "examples", "claims", configuration+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// eventually polls until check succeeds; the bound is a test's patience, not a promise.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// readiness answers what /readyz says.
func (a *appliance) readiness() (int, string) {
	answer, err := a.client.Do(context.Background(), http.MethodGet, a.client.Admin+"/readyz", nil, nil)
	if err != nil {
		return 0, err.Error()
	}
	return answer.Status, string(answer.Body)
}

// showLogs prints the end of the daemons' logs of a failed test.
func (a *appliance) showLogs() {
	files, _ := filepath.Glob(filepath.Join(a.run, "log", "*"))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if len(data) > 6000 {
			data = data[len(data)-6000:]
		}
		a.t.Logf("end of %s:\n%s", filepath.Base(f), data)
	}
}

// copyState copies the databases as an auditor would receive them, after a
// clean stop, and starts the appliance again.
func (a *appliance) copyState() string {
	a.t.Helper()
	a.down()
	dir := a.t.TempDir()
	for _, name := range []string{"signer.db", "chancery.db"} {
		data, err := os.ReadFile(filepath.Join(a.run, "data", name))
		if err != nil {
			a.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	a.up()
	return dir
}
