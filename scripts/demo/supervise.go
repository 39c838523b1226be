package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chancery/appliance/signer/wire"
)

// readyWithin bounds how long the appliance may take to become ready.
const readyWithin = 60 * time.Second

// A daemon that ended sooner than steady is started again after restartPause.
const (
	steady       = time.Second
	restartPause = 250 * time.Millisecond
)

// supervise keeps chanceryd running until ctx ends, as systemd's Restart=always
// would, and keeps .run/env true: process ids change when a daemon is restarted.
func supervise(ctx context.Context, p place) error {
	if err := os.WriteFile(p.path("supervisor.pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	defer os.Remove(p.path("supervisor.pid"))
	defer os.Remove(p.path("env")) // nothing in it is true any more
	for ctx.Err() == nil {
		started := time.Now()
		err := runDaemon(ctx, p)
		if ctx.Err() != nil {
			return nil
		}
		fmt.Fprintf(os.Stderr, "demo: chanceryd ended (%v); starting it again\n", err)
		pause := time.Duration(0)
		if time.Since(started) < steady {
			pause = restartPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// runDaemon runs chanceryd once and returns when it ended.
func runDaemon(ctx context.Context, p place) error {
	logFile, err := os.OpenFile(p.path("log", "chanceryd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(filepath.Join(p.bin, "chanceryd"), "serve", "-config", p.path("chancery.toml"))
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environment(), logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	watch, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	go keepEnv(watch, p, cmd.Process.Pid)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case <-time.After(40 * time.Second):
		cmd.Process.Kill()
		return <-ended
	}
}

// keepEnv writes .run/env once both daemons answer, and again whenever the
// signer's process id changed.
func keepEnv(ctx context.Context, p place, daemon int) {
	client := wire.NewClient(p.path("data", "sign.sock"))
	defer client.Close()
	known := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if status, err := client.Status(ctx); err == nil && status.PID != known {
			if err := writeEnv(p, daemon, status.PID); err != nil {
				fmt.Fprintln(os.Stderr, "demo:", err)
			} else {
				known = status.PID
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// writeEnv writes .run/env as shell assignments with absolute paths. It is
// replaced whole, so a reader never sees half of it.
func writeEnv(p place, daemon, signer int) error {
	token, err := os.ReadFile(p.path("admin-token"))
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, v := range []struct{ name, value string }{
		{"ISSUER_URL", p.issuerURL()},
		{"ADMIN_URL", p.adminURL()},
		{"ADMIN_TOKEN", strings.TrimSpace(string(token))},
		{"ADMIN_TOKEN_FILE", p.path("admin-token")},
		{"TLS_CA_FILE", p.path("tls", "ca.pem")},
		{"IACA_FILE", p.path("out", "iaca-1.pem")},
		{"ATTESTER_DIR", p.path("attester")},
		{"STATE_DIR", p.run},
		{"CONFIG_FILE", p.path("chancery.toml")},
		{"SIGNER_DB", p.path("data", "signer.db")},
		{"CHANCERY_DB", p.path("data", "chancery.db")},
		{"CHECKPOINT_VKEY_FILE", p.path("out", "checkpoint.vkey")},
		{"LOG_DIR", p.path("log")},
		{"SIGN_SOCKET", p.path("data", "sign.sock")},
		{"ADMIN_SOCKET", p.path("data", "admin.sock")},
		{"SOFTHSM2_CONF", p.path("softhsm2.conf")},
		{"CHANCERY", filepath.Join(p.bin, "chancery")},
		{"SIGNER_PID", strconv.Itoa(signer)},
		{"CHANCERYD_PID", strconv.Itoa(daemon)},
	} {
		fmt.Fprintf(&b, "%s=%s\n", v.name, shellQuote(v.value))
	}
	temporary := p.path("env.new")
	if err := os.WriteFile(temporary, []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, p.path("env"))
}

// shellQuote quotes a value when the shell would read more than a word in it.
func shellQuote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-+=", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// up starts the supervisor in the background and waits until the appliance is
// ready. When it runs already, up only waits.
func up(ctx context.Context, p place) error {
	if err := prepare(ctx, p); err != nil {
		return err
	}
	if _, running := supervisor(p); !running {
		if err := portsFree(p); err != nil {
			return err
		}
		os.Remove(p.path("env"))
		logFile, err := os.OpenFile(p.path("log", "demo.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer logFile.Close()
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command(self, "-source", p.source, "-run", p.run, "supervise")
		cmd.Dir, cmd.Stdout, cmd.Stderr = "/", logFile, logFile
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		cmd.Process.Release()
	}
	if err := waitReady(ctx, p); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "Chancery is ready.\n  wallets    %s\n  operators  %s\n  settings   %s\n  stop it    make down\n", p.issuerURL(), p.adminURL(), p.path("env"))
	return nil
}

// down stops the supervisor, which stops the daemons, and waits for its end.
func down(p place) error {
	pid, running := supervisor(p)
	if !running {
		fmt.Fprintln(os.Stderr, "The demonstration is not running.")
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if _, running := supervisor(p); !running {
			os.Remove(p.path("env"))
			fmt.Fprintln(os.Stderr, "Stopped. The state stays in", p.run)
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the supervisor, process %d, has not ended within a minute; see %s", pid, p.path("log"))
}

// supervisor returns the running supervisor's process id. A stale file, left
// by a machine that lost power, does not count.
func supervisor(p place) (int, bool) {
	data, err := os.ReadFile(p.path("supervisor.pid"))
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil {
		return 0, false
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid, err == nil && strings.Contains(string(line), p.run)
}

// portsFree refuses to start beside another program on the same ports.
func portsFree(p place) error {
	for name, port := range map[string]int{"CHANCERY_PORT": p.port, "CHANCERY_ADMIN_PORT": p.adminPort} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("port %d is taken by another program: choose another with %s", port, name)
		}
		l.Close()
	}
	return nil
}

// waitReady polls readiness until the appliance can issue.
func waitReady(ctx context.Context, p place) error {
	client, err := httpClient(p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var last error
	for {
		if last = ready(ctx, client, p); last == nil {
			if _, err := os.Stat(p.path("env")); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %v; see %s", readyWithin, last, p.path("log"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func ready(ctx context.Context, client *http.Client, p place) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.adminURL()+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readiness answers %s", response.Status)
	}
	return nil
}

// httpClient trusts the demonstration's TLS CA alone.
func httpClient(p place) (*http.Client, error) {
	pem, err := os.ReadFile(p.path("tls", "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}, nil
}
