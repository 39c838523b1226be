package signer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/config"
)

// Environment variables that make this test binary another process.
const (
	// ServeVariable names a configuration: run the daemon.
	ServeVariable = "CHANCERY_TEST_SERVE"
	// askVariable names a socket: ask for the status and print the answer.
	askVariable = "CHANCERY_TEST_ASK"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(ServeVariable) != "":
		os.Exit(serveProcess(os.Getenv(ServeVariable)))
	case os.Getenv(askVariable) != "":
		askProcess(os.Getenv(askVariable))
	default:
		os.Exit(m.Run())
	}
}

// serveProcess is the daemon in a process that a test may kill. A file that
// would grow beyond the process's limit is an error, as on a full disk.
func serveProcess(path string) int {
	signal.Ignore(syscall.SIGXFSZ)
	cfg, err := config.Load(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err = Run(ctx, cfg, Options{Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil)), Version: "test", Ready: func() { fmt.Println("ready") }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return ExitStatus(err)
}

func askProcess(socket string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	status, err := wire.NewClient(socket).Status(ctx)
	json.NewEncoder(os.Stdout).Encode(map[string]any{"status": status, "error": wire.AsError(err)})
}

// askAs asks a socket from a process of another user, who must be able to reach
// the socket's folder.
func askAs(t *testing.T, uid uint32, socket string) *wire.Error {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Where the tool chain keeps this binary, the other user cannot go.
	binary := filepath.Join(filepath.Dir(socket), "ask")
	in, err := os.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(binary, os.O_CREATE|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(out, in)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(binary)
	cmd := exec.Command(binary)
	cmd.Env, cmd.Dir = append(os.Environ(), askVariable+"="+socket), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Error *wire.Error }
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return answer.Error
}
