package signer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"chancery/config"
	"chancery/hsm"
)

// longestPIN bounds what is read from the PIN's file, in bytes.
const longestPIN = 256

// TokenConfig returns what the configuration says of the token. The PIN is read
// from its file at each login and never kept.
func TokenConfig(cfg *config.Config) (hsm.Config, error) {
	s := cfg.Signer
	path, credential := s.PIN, false
	if !strings.Contains(path, "/") {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return hsm.Config{}, fmt.Errorf("signer.pin: %q is the name of a systemd credential, but CREDENTIALS_DIRECTORY is not set: load it with LoadCredential=, or give a path with a slash", path)
		}
		path, credential = filepath.Join(dir, path), true
	}
	return hsm.Config{
		Module: s.Module, Reserved: s.ModuleReserved, TokenLabel: s.TokenLabel, TokenSerial: s.TokenSerial,
		PIN:      func() ([]byte, error) { return readPIN(path, credential) },
		Sessions: s.Sessions,
		// Requests are counted before they come here, so this queue is never the
		// one that is full: it has room for every item of every request.
		Queue:       (s.Queue+s.Sessions)*s.Sessions + reservedForOwn,
		CallTimeout: s.OperationTimeout.Std(), HungAfter: s.HungAfter.Std(),
		SyncDirectory: s.TokenDirectory,
	}, nil
}

// reservedForOwn are places in the token's queue for probes and checkpoints.
const reservedForOwn = 64

// readPIN reads the PIN. A file that others may read gives no PIN: it was
// careless, and the operator should know before an attacker does. systemd shows
// a credential's access list as the group's mode, so there only others count.
func readPIN(path string, credential bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("signer.pin: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("signer.pin: %w", err)
	}
	forbidden := os.FileMode(0o077)
	if credential {
		forbidden = 0o007
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&forbidden != 0 {
		return nil, fmt.Errorf("signer.pin: %s has mode %v: make it a regular file that nobody else may read (chmod 600)", path, info.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(f, longestPIN+2))
	if err != nil {
		return nil, fmt.Errorf("signer.pin: %w", err)
	}
	pin := bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if len(pin) == 0 || len(pin) > longestPIN {
		clear(data)
		return nil, errors.New("signer.pin: the file holds no PIN, or too much: one line is expected")
	}
	return pin, nil
}
