// Package config reads chancery.toml, the one file that both daemons and the
// command-line tool are configured by. The comments of its structs are the
// manual. An unknown key is an error, and so is a value out of range: the
// daemons do not start on a file they do not understand.
//
// The file is trusted: it belongs to root, holds no secret and is read once.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/BurntSushi/toml"
)

// Config is the whole file. Relative paths are relative to the file's folder.
type Config struct {
	Issuer Issuer `toml:"issuer"`
	Admin  Admin  `toml:"admin"`
	Store  Store  `toml:"store"`
	Offers Offers `toml:"offers"`
	Signer Signer `toml:"signer"`
	// Log is how chatty the daemons' JSON log is: "debug", "info" (default), "warn" or "error".
	Log string `toml:"log"`

	// Path is where the file was read from, absolute.
	Path string `toml:"-"`
}

// Issuer is the wallet-facing side.
type Issuer struct {
	// Identifier is the Credential Issuer Identifier: an https URL without query
	// or fragment, used letter for letter everywhere (OpenID4VCI 1.0 §12.2.1).
	Identifier string `toml:"identifier"`
	// Listen is the address wallets connect to, host:port. Under systemd the
	// socket unit's descriptor named "wallet" takes precedence.
	Listen string `toml:"listen"`
	// TLSCertificate and TLSKey are PEM files; they are read again when they change.
	TLSCertificate string `toml:"tls_certificate"`
	TLSKey         string `toml:"tls_key"`
	// Configurations is the folder with one TOML file per credential configuration.
	Configurations string `toml:"configurations"`
	// Display names the issuer to people, one entry per language.
	Display []Display `toml:"display"`
	// AnonymousAccess lets wallets redeem a code without a client_id
	// (pre-authorized_grant_anonymous_access_supported). Default true.
	AnonymousAccess *bool `toml:"anonymous_access"`
	// AccessTokenLifetime bounds a Bearer token's life; at most 5 minutes
	// (OpenID4VCI 1.0 §13.10). Default 5m.
	AccessTokenLifetime Duration `toml:"access_token_lifetime"`
	// NonceLifetime is how long a c_nonce is accepted. Default 5m.
	NonceLifetime Duration `toml:"nonce_lifetime"`
}

// Display is the issuer's name in one language (OpenID4VCI 1.0 §12.2.4 display).
type Display struct {
	// Name is the issuer's name as wallets show it.
	Name string `toml:"name"`
	// Locale is the language's BCP 47 tag, one entry for each.
	Locale string `toml:"locale"`
	// LogoURI is an https or data URI, LogoAlt says what the logo shows.
	LogoURI string `toml:"logo_uri"`
	LogoAlt string `toml:"logo_alt"`
}

// Admin is the operators' side, on a listener of its own.
type Admin struct {
	// Listen is the address operators connect to, host:port. Under systemd the
	// socket unit's descriptor named "admin" takes precedence.
	Listen string `toml:"listen"`
	// TLSCertificate and TLSKey are PEM files; they are read again when they change.
	TLSCertificate string `toml:"tls_certificate"`
	TLSKey         string `toml:"tls_key"`
}

// Store is chanceryd's database.
type Store struct {
	// Database is the path of chancery.db; it must exist, "chanceryd init" makes it.
	Database string `toml:"database"`
	// DataKeyLifetime is how long one epoch's data key takes new offers. Default 1h.
	DataKeyLifetime Duration `toml:"data_key_lifetime"`
	// Retention is how long a finished offer's record (without claims) stays. Default 2160h (90 days).
	Retention Duration `toml:"retention"`
}

// Offers bounds what operators may ask for.
type Offers struct {
	// DefaultExpiry applies when an offer names none. Default 10m.
	DefaultExpiry Duration `toml:"default_expiry"`
	// LongestExpiry is the policy's cap. Default 168h (7 days).
	LongestExpiry Duration `toml:"longest_expiry"`
	// TransactionCodeAttempts is how many wrong codes kill an offer, 1 to 10. Default 5.
	TransactionCodeAttempts int `toml:"transaction_code_attempts"`
	// TransactionCodeLength is the length of a generated code when an offer names none, 4 to 16. Default 6.
	TransactionCodeLength int `toml:"transaction_code_length"`
}

// Signer is chancery-signer and the way to it.
type Signer struct {
	// Module is the PKCS#11 module's absolute path.
	Module string `toml:"module"`
	// ModuleReserved is handed to C_Initialize; only NSS needs it.
	ModuleReserved string `toml:"module_reserved"`
	// TokenLabel or TokenSerial selects the token; exactly one of them.
	TokenLabel  string `toml:"token_label"`
	TokenSerial string `toml:"token_serial"`
	// PIN is the file with the user PIN. A name without a slash is looked up in
	// $CREDENTIALS_DIRECTORY, as systemd's LoadCredential= provides it.
	PIN string `toml:"pin"`
	// TokenDirectory, for a software token, is synced to disk after a key was generated.
	TokenDirectory string `toml:"token_directory"`
	// Sessions is the token's true parallelism, 1 to 64; measure it with
	// "chancery-signer bench". Default 2.
	Sessions int `toml:"sessions"`
	// Queue is how many requests may wait for the token before "busy" is
	// answered at once. Default 256.
	Queue int `toml:"queue"`
	// OperationTimeout bounds the wait for one signature. Default 10s.
	OperationTimeout Duration `toml:"operation_timeout"`
	// HungAfter is how long past its deadline a call into the module may stay
	// out before the process ends itself. Default 30s.
	HungAfter Duration `toml:"hung_after"`
	// Database is the path of signer.db; it must exist, "chancery-signer init" makes it.
	Database string `toml:"database"`
	// Origin names the log in its checkpoints (C2SP tlog-checkpoint), for
	// instance "issuer.example.com/chancery".
	Origin string `toml:"origin"`
	// SignSocket and AdminSocket are Unix sockets. Under systemd the socket
	// unit's descriptors named "sign" and "admin" take precedence.
	SignSocket  string `toml:"sign_socket"`
	AdminSocket string `toml:"admin_socket"`
	// SignUsers may use sign.sock, AdminUsers admin.sock: user names or numeric
	// ids. Empty means the signer's own user alone.
	SignUsers  []string `toml:"sign_users"`
	AdminUsers []string `toml:"admin_users"`
	// Spawn makes chanceryd start chancery-signer as its child, for hosts
	// without systemd. Binary is its path; default: beside chanceryd.
	Spawn  bool   `toml:"spawn"`
	Binary string `toml:"binary"`
	// Spool is a folder only the signer writes, for ceremony transcripts and exports.
	Spool string `toml:"spool"`
	// CheckpointInterval is the longest time an entry stays without a checkpoint. Default 1s.
	CheckpointInterval Duration `toml:"checkpoint_interval"`
	// ProbeInterval is the time between two real signatures with each key, for readiness. Default 30s.
	ProbeInterval Duration `toml:"probe_interval"`
	// CRLLifetime is nextUpdate − thisUpdate, at most 90 days. Default 1440h (60 days).
	CRLLifetime Duration `toml:"crl_lifetime"`
}

// Duration is a time span written as Go writes it: "90s", "10m", "24h".
type Duration time.Duration

// UnmarshalText parses the span.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time span: write it like \"90s\", \"10m\" or \"24h\"", text)
	}
	*d = Duration(v)
	return nil
}

// Std returns the span as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Load reads and checks the file. The error lists every fault found.
func Load(path string) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(abs)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(abs, data)
}

// Parse checks the file's content; path is where it came from and what
// relative paths are resolved against.
func Parse(path string, data []byte) (*Config, error) {
	c := &Config{Path: path}
	meta, err := toml.NewDecoder(bytes.NewReader(data)).Decode(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var faults []error
	for _, key := range meta.Undecoded() {
		faults = append(faults, fmt.Errorf("%s: unknown key: remove it or correct its spelling", key))
	}
	c.setDefaults()
	c.resolvePaths(filepath.Dir(path))
	faults = append(faults, c.check()...)
	if len(faults) > 0 {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(faults...))
	}
	return c, nil
}
