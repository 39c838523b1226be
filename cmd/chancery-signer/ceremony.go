package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/ceremony"
	"chancery/appliance/signer"
	"chancery/appliance/signer/registry"
	"chancery/config"
	"chancery/hsm"
)

// runCeremony is the one-shot process in which keys are made. It holds token
// and log alone: a signer that runs has to be paused ("chancery ceremony" does
// that), else the log's lock refuses this process.
func runCeremony(ctx context.Context, cfg *config.Config, args []string) error {
	result, err := ceremony.Perform(ctx, cfg, args[0], time.Now())
	if result != nil {
		fmt.Print(result.Text)
		fmt.Fprintln(os.Stderr, "\nWritten:")
		for _, path := range result.Outputs {
			fmt.Fprintln(os.Stderr, " ", path)
		}
	}
	return err
}

// openLog opens the audit log and reads the keys from it.
func openLog(cfg *config.Config) (*registry.Registry, *audit.Log, error) {
	r := registry.New()
	log, err := audit.Open(cfg.Signer.Database, r.Replay, r.NoteVerifier)
	return r, log, err
}

// openToken opens the token with the log's keys proven.
func openToken(ctx context.Context, cfg *config.Config, r *registry.Registry) (*hsm.Token, error) {
	tokenConfig, err := signer.TokenConfig(cfg)
	if err != nil {
		return nil, err
	}
	refs, err := r.Refs()
	if err != nil {
		return nil, err
	}
	token, err := hsm.Open(tokenConfig)
	if err != nil {
		return nil, err
	}
	if err := token.Load(ctx, refs); err != nil {
		token.Close()
		return nil, err
	}
	return token, nil
}

// keys prints what the log says of every key. It needs no token, but the log
// for itself.
func keys(_ context.Context, cfg *config.Config, _ []string) (err error) {
	r, log, err := openLog(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r.Sorted())
}
