// Command chanceryd is the daemon that wallets and operators talk to. It is
// pure Go, holds no issuing key and no PIN, and asks chancery-signer for every
// signature. "chanceryd help" lists its commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"chancery/appliance/daemon"
	"chancery/appliance/database"
	"chancery/appliance/oid4vci"
	"chancery/appliance/process"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance/configuration"
)

// version is set by the build.
var version = "unknown"

func main() {
	process.Program{
		Name: "chanceryd", Version: version, About: "credentials for wallets, offers for operators",
		Commands: []process.Command{
			{Name: "serve", Summary: "serve wallets and operators", Serves: true, Run: serve},
			{Name: "init", Summary: "make chancery.db, which must not exist", Run: create},
			{Name: "check", Summary: "check the configuration and every credential configuration", Run: check},
			{Name: "token add", Args: "NAME", Count: 1, Summary: "add an operator; the token is printed once", Run: withStore(addToken)},
			{Name: "token list", Summary: "list the operators", Run: withStore(listTokens)},
			{Name: "token revoke", Args: "NAME", Count: 1, Summary: "make an operator's token invalid", Run: withStore(revokeToken)},
		},
	}.Main()
}

func serve(ctx context.Context, cfg *config.Config, _ []string) error {
	return remedy(daemon.Run(ctx, cfg, daemon.Options{Logger: process.Logger(cfg, "chanceryd"), Version: version}))
}

// remedy says what to do about a database that is not there.
func remedy(err error) error {
	if errors.Is(err, database.ErrMissing) {
		return fmt.Errorf("%w: make it with \"chanceryd init\"", err)
	}
	return err
}

// create makes chancery.db. Nothing else does (promise P7).
func create(_ context.Context, cfg *config.Config, _ []string) error {
	if err := store.Create(cfg.Store.Database); err != nil {
		return fmt.Errorf("store.database: %w", err)
	}
	fmt.Println("made", cfg.Store.Database)
	return nil
}

func check(_ context.Context, cfg *config.Config, _ []string) error {
	all, err := configuration.LoadDir(cfg.Issuer.Configurations)
	if err != nil {
		return err
	}
	// Reads the keys and anchors that the file names, too.
	if _, err := oid4vci.New(oid4vci.Options{Issuer: cfg.Issuer, Configurations: all}); err != nil {
		return err
	}
	fmt.Printf("%s is sound.\n", cfg.Path)
	for _, c := range all {
		fmt.Printf("  %-12s %s, signed by %s\n", c.Format, c.ID, c.Signer)
	}
	return nil
}

// withStore opens the database, beside a daemon that may be running.
func withStore(fn func(ctx context.Context, s *store.Store, args []string) error) func(context.Context, *config.Config, []string) error {
	return func(ctx context.Context, cfg *config.Config, args []string) error {
		s, err := store.Open(cfg.Store.Database, store.Options{})
		if err != nil {
			return remedy(err)
		}
		defer s.Close()
		return fn(ctx, s, args)
	}
}

// actor is who uses this host's command line, for the audit log.
func actor() string { return fmt.Sprintf("host uid %d", os.Getuid()) }

func addToken(ctx context.Context, s *store.Store, args []string) error {
	token, err := s.CreateOperatorToken(ctx, args[0], actor())
	if err != nil {
		return err
	}
	fmt.Println(token)
	return nil
}

func listTokens(ctx context.Context, s *store.Store, _ []string) error {
	list, err := s.Operators(ctx)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(out, "NAME\tADDED\tLAST USED\tREVOKED")
	for _, o := range list {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", o.Name, day(o.CreatedAt), day(o.LastUsedAt), day(o.RevokedAt))
	}
	return out.Flush()
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func revokeToken(ctx context.Context, s *store.Store, args []string) error {
	return s.RevokeOperator(ctx, args[0], actor())
}
