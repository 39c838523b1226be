// Command chancery-signer is the signer daemon: the one process with the
// token's PIN, the PKCS#11 module and the audit log. "chancery-signer help"
// lists its commands.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/process"
	"chancery/appliance/signer"
	"chancery/config"
)

// version is set by the build.
var version = "unknown"

func main() {
	var (
		seconds  int
		sessions string
	)
	process.Program{
		Name: "chancery-signer", Version: version, About: "keys in the PKCS#11 token, and the audit log",
		Status: signer.ExitStatus,
		Commands: []process.Command{
			{Name: "serve", Summary: "serve sign.sock and admin.sock", Serves: true, Run: serve},
			{Name: "init", Summary: "make signer.db, which must not exist", Run: create},
			{Name: "ceremony", Args: "PLAN.toml", Count: 1, Summary: "make the keys that a plan names; the signer must be stopped or paused", Run: runCeremony},
			{Name: "keys", Summary: "print the log's keys, certificates and profiles as JSON, without the token", Run: keys},
			{Name: "bench", Summary: "measure the token and suggest [signer] sessions", Flags: func(f *flag.FlagSet) {
				f.IntVar(&seconds, "seconds", 2, "time for each number of sessions")
				f.StringVar(&sessions, "sessions", "1,2,3,4,8", "the numbers of sessions to try")
			}, Run: func(ctx context.Context, cfg *config.Config, _ []string) error {
				return bench(ctx, cfg, sessions, time.Duration(seconds)*time.Second)
			}},
		},
	}.Main()
}

func serve(ctx context.Context, cfg *config.Config, _ []string) error {
	return signer.Run(ctx, cfg, signer.Options{Logger: process.Logger(cfg, "chancery-signer"), Version: version})
}

// create makes signer.db. Nothing else does (promise P6, P7).
func create(_ context.Context, cfg *config.Config, _ []string) error {
	if err := audit.Create(cfg.Signer.Database, cfg.Signer.Origin, time.Now()); err != nil {
		return fmt.Errorf("signer.database: %w", err)
	}
	if err := os.MkdirAll(cfg.Signer.Spool, 0o700); err != nil {
		return errors.Join(fmt.Errorf("signer.spool: %w", err), os.Remove(cfg.Signer.Database))
	}
	fmt.Println("made", cfg.Signer.Database)
	return nil
}
