package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// foreground runs the appliance (or uses the one that runs), issues one
// credential of every configuration and verifies it. With once it stops then,
// otherwise it stays until ctx ends.
func foreground(ctx context.Context, p place, once bool) error {
	if err := prepare(ctx, p); err != nil {
		return err
	}
	if _, running := supervisor(p); !running {
		if err := portsFree(p); err != nil {
			return err
		}
		os.Remove(p.path("env"))
		inner, stop := context.WithCancel(context.WithoutCancel(ctx))
		ended := make(chan error, 1)
		go func() { ended <- supervise(inner, p) }()
		defer func() { stop(); <-ended }()
	}
	if err := waitReady(ctx, p); err != nil {
		return err
	}
	ids, err := configurations(p)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := issue(ctx, p, id); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	fmt.Printf("\nIssued and verified: %s\n", strings.Join(ids, ", "))
	if once {
		return nil
	}
	return stay(ctx, p, ids[0])
}

// configurations lists the ids that have sample claims.
func configurations(p place) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(p.source, "examples", "claims", "*.json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no sample claims in %s", filepath.Join(p.source, "examples", "claims"))
	}
	ids := make([]string, len(files))
	for i, f := range files {
		ids[i] = strings.TrimSuffix(filepath.Base(f), ".json")
	}
	sort.Strings(ids)
	return ids, nil
}

// issue makes an offer, lets the built-in wallet take it, and verifies what it got.
func issue(ctx context.Context, p place, id string) error {
	fmt.Printf("\n=== %s\n", id)
	out, err := p.cli(ctx, "offer", "create", "--claims", p.claims(id), "--tx-code", "--json", id)
	if err != nil {
		return err
	}
	var offer struct {
		URI             string `json:"uri"`
		TransactionCode string `json:"transactionCode"`
	}
	if err := json.Unmarshal([]byte(out), &offer); err != nil {
		return fmt.Errorf("the offer's answer: %w", err)
	}
	dir, err := os.MkdirTemp("", "chancery-wallet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shown, err := p.cli(ctx, "wallet", "accept", "--tx-code", offer.TransactionCode, "--ca", p.path("tls", "ca.pem"), "--trust", p.path("out", "iaca-1.pem"), "--out", dir, offer.URI)
	if err != nil {
		return err
	}
	fmt.Print(shown)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	verified := 0
	for _, file := range files {
		if strings.HasSuffix(file, ".key.json") || strings.HasSuffix(file, ".report.json") {
			continue
		}
		report, err := p.cli(ctx, "verify", "--trust", p.path("out", "iaca-1.pem"), "--ca", p.path("tls", "ca.pem"), file)
		if err != nil {
			return err
		}
		fmt.Print(report)
		verified++
	}
	if verified == 0 {
		return fmt.Errorf("the wallet wrote no credential to %s", dir)
	}
	return nil
}

func (p place) claims(id string) string {
	return filepath.Join(p.source, "examples", "claims", id+".json")
}

// cli runs the chancery command as an operator or a wallet would and returns
// its standard output.
func (p place) cli(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "chancery"), args...)
	cmd.Env = append(os.Environ(),
		"CHANCERY_ADMIN_URL="+p.adminURL(),
		"CHANCERY_ADMIN_TOKEN_FILE="+p.path("admin-token"),
		"CHANCERY_CA_FILE="+p.path("tls", "ca.pem"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("chancery %s %s: %w\n%s%s", args[0], args[1], err, out, stderr.String())
	}
	return string(out), nil
}

// stay shows an open offer as a QR code and waits for the interrupt.
func stay(ctx context.Context, p place, id string) error {
	shown, err := p.cli(ctx, "offer", "create", "--claims", p.claims(id), "--expires", "24h", "--qr", id)
	if err != nil {
		return err
	}
	fmt.Printf("\n=== An open offer of %s\n%s", id, shown)
	fmt.Printf(`
The appliance stays up until you press Ctrl-C.

  wallets    %s
  operators  %s   (token in %s)
  settings   %s

Take the offer from another terminal:

  . %s; bin/chancery wallet accept --ca "$TLS_CA_FILE" --trust "$IACA_FILE" '<the link above>'
`, p.issuerURL(), p.adminURL(), p.path("admin-token"), p.path("env"), p.path("env"))
	<-ctx.Done()
	fmt.Println("\nStopping.")
	return nil
}
