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
	// AnonymousAccess lets wallets redeem a code without authenticating
	// (pre-authorized_grant_anonymous_access_supported). Default true.
	AnonymousAccess *bool `toml:"anonymous_access"`
	// AccessTokenLifetime bounds a Bearer token's life; at most 5 minutes
	// (OpenID4VCI 1.0 §13.10). Default 5m.
	AccessTokenLifetime Duration `toml:"access_token_lifetime"`
	// DeferredLifetime is a DPoP-bound token's life when what it covers needs an
	// operator's approval; a Bearer token keeps its 5 minutes, so that a wallet
	// without DPoP must be served within them. Default 24h.
	DeferredLifetime Duration `toml:"deferred_lifetime"`
	// NonceLifetime is how long a c_nonce is accepted. Default 5m.
	NonceLifetime Duration `toml:"nonce_lifetime"`
	// Retries lets a wallet whose connection broke repeat its credential request:
	// within the token's life, at most 5 minutes after the offer's last credential,
	// with the same keys. Until then the claims are kept, sealed so that they open
	// only with that wallet's access token. Default true; false shreds them at once.
	Retries *bool `toml:"retries"`
	// MetadataSigner is the label of the key that signs the metadata (OpenID4VCI
	// 1.0 §12.2.3); "" means that there is no signed form.
	MetadataSigner string `toml:"metadata_signer"`
	// MetadataLifetime is the signed metadata's exp − iat; it is signed again
	// after half of it. Default 24h, at most 48h.
	MetadataLifetime Duration `toml:"metadata_lifetime"`
	// TransactionCodeError is what a wrong transaction code is answered with:
	// "invalid_grant" (OpenID4VCI 1.0, default) or "invalid_tx_code" (1.1).
	TransactionCodeError string `toml:"transaction_code_error"`
	// Strictness is how wallets are treated that break a rule without harm: "usual"
	// (default) tolerates an iss in the proof of a wallet that did not say who it
	// is; "strict" refuses it (OpenID4VCI 1.0 App. F.1); "lenient" tolerates, too, a
	// credential_configuration_id where credential_identifiers were given out (§8.2).
	Strictness string `toml:"strictness"`
	// AuthorizationEndpoint advertises an authorization endpoint, which refuses
	// every request by the book. Only clients that stop without one need it.
	AuthorizationEndpoint bool `toml:"authorization_endpoint"`
	// Compatibility also serves wallets of an older draft, "draft-13" or
	// "draft-15", in that draft's forms; docs/wallets.md says how. Default "":
	// 1.0 alone.
	Compatibility string `toml:"compatibility"`

	DPoP              DPoP              `toml:"dpop"`
	Clients           []Client          `toml:"clients"`
	WalletAttestation WalletAttestation `toml:"wallet_attestation"`
	KeyAttestation    KeyAttestation    `toml:"key_attestation"`
	Encryption        Encryption        `toml:"encryption"`
	Refresh           Refresh           `toml:"refresh"`
	HTTP              HTTP              `toml:"http"`
}

// DPoP is sender-constrained access (RFC 9449). Wallets may always use it.
type DPoP struct {
	// Required refuses token requests without a DPoP proof (HAIP 1.0 §4).
	Required bool `toml:"required"`
	// Nonces demands a nonce of the issuer's in every proof (RFC 9449 §8, §9).
	Nonces bool `toml:"nonces"`
}

// Client is a wallet that authenticates by private_key_jwt (RFC 7523).
type Client struct {
	// ID is its client_id.
	ID string `toml:"id"`
	// Keys is a file with its public keys, a JWK Set.
	Keys string `toml:"keys"`
}

// WalletAttestation is client authentication by an attestation of the wallet's
// provider (OpenID4VCI 1.0 App. E); without providers there is none.
type WalletAttestation struct {
	// Providers are those whose attestations are believed.
	Providers []Attester `toml:"providers"`
	// RequireChain demands an x5c header (HAIP 1.0 §4.4.1). Default true; with
	// providers that have keys alone it must be false.
	RequireChain *bool `toml:"require_chain"`
	// Challenges demands a challenge of the issuer's in every proof of possession.
	Challenges bool `toml:"challenges"`
	// MaxAge refuses attestations issued longer ago; "0s", the default, looks at
	// their exp alone.
	MaxAge Duration `toml:"max_age"`
	// Status is what becomes of an attestation with a status: "off" does not
	// look, "open" (default) takes one whose list cannot be fetched, "closed"
	// refuses it.
	Status string `toml:"status"`
}

// KeyAttestation is whose word on wallets' keys is believed (OpenID4VCI 1.0
// App. D). Which configurations demand one is said in their own files.
type KeyAttestation struct {
	// Providers are those whose attestations are believed.
	Providers []Attester `toml:"providers"`
	// RequireChain demands an x5c header (HAIP 1.0 §4.5.1). Default true.
	RequireChain *bool `toml:"require_chain"`
	// Nonce demands the c_nonce also in an attestation within a jwt proof (OpenID4VCI
	// 1.0 App. F.1). Default false: EU wallets make it ahead of the request.
	Nonce bool `toml:"nonce"`
	// Status is as in issuer.wallet_attestation.
	Status string `toml:"status"`
}

// Attester is somebody who attests wallets or their keys.
type Attester struct {
	// Name is what messages call the provider; each has its own.
	Name string `toml:"name"`
	// Anchors is a PEM file with CA certificates, Keys a JWK Set file; at least one of them.
	Anchors string `toml:"anchors"`
	Keys    string `toml:"keys"`
	// ClientIDs limits a wallet provider to these client_ids; empty means any.
	ClientIDs []string `toml:"client_ids"`
}

// Encryption is of credential requests and responses (OpenID4VCI 1.0 §10).
type Encryption struct {
	// Request and Response are "off", "optional" (default) or "required".
	Request  string `toml:"request"`
	Response string `toml:"response"`
	// Compression offers zip DEF. Default true.
	Compression *bool `toml:"compression"`
	// Rotation is the life of a request key; the one before stays good for an
	// hour longer. Default 168h.
	Rotation Duration `toml:"rotation"`
}

// Refresh is of refresh tokens, by which a wallet that uses DPoP or authenticates
// gets its credentials again without a new offer.
type Refresh struct {
	// Enabled gives them out. The claims then stay, sealed by the token, for Lifetime. Default false.
	Enabled bool `toml:"enabled"`
	// Lifetime counts from the redemption of the offer; at most a year (HAIP 1.0 §4.4). Default 720h (30 days).
	Lifetime Duration `toml:"lifetime"`
}

// HTTP bounds what one client may take, and says who the client is.
type HTTP struct {
	// TrustedProxies are addresses or CIDR prefixes of load balancers before the
	// wallet listener, whose word on a client's address is taken.
	TrustedProxies []string `toml:"trusted_proxies"`
	// ProxyProtocol expects the PROXY protocol (version 1 or 2) from them.
	ProxyProtocol bool `toml:"proxy_protocol"`
	// ForwardedHeader reads the client's address from their requests' header: ""
	// (default), "forwarded" (RFC 7239) or "x-forwarded-for".
	ForwardedHeader string `toml:"forwarded_header"`
	// RequestsPerSecond and Burst bound one client address (an IPv6 /64 counts as
	// one); 0 requests, the default, means no limit.
	RequestsPerSecond int `toml:"requests_per_second"`
	Burst             int `toml:"burst"`
	// OfferRequestsPerMinute bounds token and credential requests on one offer. Default 120.
	OfferRequestsPerMinute int `toml:"offer_requests_per_minute"`
	// MaxConnections bounds the wallet listener's open connections; one address
	// holds at most a quarter of them, proxies apart. Default 10000.
	MaxConnections int `toml:"max_connections"`
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
