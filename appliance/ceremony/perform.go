package ceremony

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/database"
	"chancery/appliance/signer"
	"chancery/appliance/signer/registry"
	"chancery/config"
	"chancery/hsm"
)

// Perform opens token and audit log as the configuration says, carries out the
// plan in planPath, and closes both again. It is for a process that lives for
// this one act: the signer must have let both go, or the log refuses.
// See [Run] for what a result with an error says.
func Perform(ctx context.Context, cfg *config.Config, planPath string, now time.Time) (result *Result, err error) {
	r := registry.New()
	log, err := audit.Open(cfg.Signer.Database, r.Replay, r.NoteVerifier)
	if errors.Is(err, database.ErrMissing) {
		return nil, fmt.Errorf("%w: make it with \"chancery-signer init\"", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if log.Origin() != cfg.Signer.Origin {
		return nil, fmt.Errorf("signer.origin is %q, but the log was made for %q: correct the configuration", cfg.Signer.Origin, log.Origin())
	}
	tokenConfig, err := signer.TokenConfig(cfg)
	if err != nil {
		return nil, err
	}
	token, err := hsm.Open(tokenConfig)
	if err != nil {
		return nil, err
	}
	defer token.Close()
	refs, err := r.Refs()
	if err != nil {
		return nil, err
	}
	if err := token.Load(ctx, refs); err != nil {
		return nil, err
	}
	return Run(ctx, planPath, Deps{Token: token, Log: log, Registry: r, Now: now, Spool: cfg.Signer.Spool, Issuer: cfg.Issuer.Identifier})
}
