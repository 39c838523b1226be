// Command demo runs the demonstration appliance: the shipped binaries with a
// SoftHSM token, on loopback, with all state in one folder.
//
//	demo up      start in the background and return when it is ready
//	demo down    stop it; its state stays
//	demo run     stay in the foreground, issue once, and stay up until interrupted
//	demo once    issue one credential of every configuration, verify each, and stop
//
// It does what an operator does on a host: makes a token, certificates and a
// configuration, runs the ceremony, and keeps the daemons running as systemd
// would. It is no part of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
)

// place is where the demonstration runs and what it listens on.
type place struct {
	source    string // the repository
	bin       string // the built binaries
	run       string // the state folder, .run
	port      int    // wallets
	adminPort int    // operators
	tenant    string // the issuer identifier's path, "" or "/…"
}

func (p place) issuerURL() string { return fmt.Sprintf("https://localhost:%d%s", p.port, p.tenant) }
func (p place) adminURL() string  { return fmt.Sprintf("https://localhost:%d", p.adminPort) }
func (p place) path(elem ...string) string {
	return filepath.Join(append([]string{p.run}, elem...)...)
}

func main() {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func start() error {
	source := flag.String("source", ".", "the repository's folder")
	run := flag.String("run", ".run", "the folder for the demonstration's state")
	flag.Parse()
	p, err := newPlace(*source, *run)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch flag.Arg(0) {
	case "prepare":
		return prepare(ctx, p)
	case "up":
		return up(ctx, p)
	case "down":
		return down(p)
	case "supervise":
		return supervise(ctx, p)
	case "run":
		return foreground(ctx, p, false)
	case "once":
		return foreground(ctx, p, true)
	}
	return errors.New("usage: demo prepare | up | down | run | once")
}

// newPlace resolves the folders and reads the ports from the environment.
func newPlace(source, run string) (place, error) {
	source, err := filepath.Abs(source)
	if err != nil {
		return place{}, err
	}
	run, err = filepath.Abs(run)
	if err != nil {
		return place{}, err
	}
	program, err := os.Executable()
	if err != nil {
		return place{}, err
	}
	p := place{source: source, bin: filepath.Dir(program), run: run, tenant: os.Getenv("CHANCERY_PATH")}
	if p.port, err = portFromEnvironment("CHANCERY_PORT", 8443); err != nil {
		return place{}, err
	}
	if p.adminPort, err = portFromEnvironment("CHANCERY_ADMIN_PORT", 9443); err != nil {
		return place{}, err
	}
	if p.port == p.adminPort {
		return place{}, fmt.Errorf("CHANCERY_PORT and CHANCERY_ADMIN_PORT are both %d: choose two ports", p.port)
	}
	return p, nil
}

func portFromEnvironment(name string, byDefault int) (int, error) {
	text := os.Getenv(name)
	if text == "" {
		return byDefault, nil
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return 0, fmt.Errorf("%s=%q is not a port: use 1 to 65535", name, text)
	}
	return port, nil
}
