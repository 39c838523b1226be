// Command chancery is the tool of operators, auditors and testers: offers,
// ceremonies, the audit log, certificate linting, a demonstration wallet and an
// independent verifier. "chancery help" lists its commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"chancery/cli"
)

// version is set by the build.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, os.Args[1:], cli.Environment{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
	}))
}
