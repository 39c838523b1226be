package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// setDefaults fills what the file left out.
func (c *Config) setDefaults() {
	c.Issuer.SetDefaults()
	defaultDuration(&c.Store.DataKeyLifetime, time.Hour)
	defaultDuration(&c.Store.Retention, 90*24*time.Hour)
	defaultDuration(&c.Offers.DefaultExpiry, 10*time.Minute)
	defaultDuration(&c.Offers.LongestExpiry, 7*24*time.Hour)
	defaultInt(&c.Offers.TransactionCodeAttempts, 5)
	defaultInt(&c.Offers.TransactionCodeLength, 6)
	defaultInt(&c.Signer.Sessions, 2)
	defaultInt(&c.Signer.Queue, 256)
	defaultDuration(&c.Signer.OperationTimeout, 10*time.Second)
	defaultDuration(&c.Signer.HungAfter, 30*time.Second)
	defaultDuration(&c.Signer.CheckpointInterval, time.Second)
	defaultDuration(&c.Signer.ProbeInterval, 30*time.Second)
	defaultDuration(&c.Signer.CRLLifetime, 60*24*time.Hour)
	if c.Log == "" {
		c.Log = "info"
	}
}

// SetDefaults fills what the file left out.
func (i *Issuer) SetDefaults() {
	yes := true
	for _, b := range []**bool{&i.AnonymousAccess, &i.Retries, &i.WalletAttestation.RequireChain, &i.KeyAttestation.RequireChain, &i.Encryption.Compression} {
		if *b == nil {
			*b = &yes
		}
	}
	for s, v := range map[*string]string{
		&i.TransactionCodeError: "invalid_grant", &i.Strictness: "usual", &i.Encryption.Request: "optional", &i.Encryption.Response: "optional",
		&i.WalletAttestation.Status: "open", &i.KeyAttestation.Status: "open",
	} {
		if *s == "" {
			*s = v
		}
	}
	defaultDuration(&i.AccessTokenLifetime, 5*time.Minute)
	defaultDuration(&i.DeferredLifetime, 24*time.Hour)
	defaultDuration(&i.MetadataLifetime, 24*time.Hour)
	defaultDuration(&i.Encryption.Rotation, 7*24*time.Hour)
	defaultDuration(&i.Refresh.Lifetime, 30*24*time.Hour)
	defaultInt(&i.HTTP.OfferRequestsPerMinute, 120)
	defaultInt(&i.HTTP.MaxConnections, 10_000)
	defaultInt(&i.HTTP.Burst, 2*i.HTTP.RequestsPerSecond)
	defaultDuration(&i.NonceLifetime, 5*time.Minute)
}

func defaultDuration(d *Duration, v time.Duration) {
	if *d == 0 {
		*d = Duration(v)
	}
}

func defaultInt(i *int, v int) {
	if *i == 0 {
		*i = v
	}
}

// resolvePaths makes the file's relative paths absolute. The PIN keeps a bare
// name, which means a systemd credential.
func (c *Config) resolvePaths(dir string) {
	paths := []*string{
		&c.Issuer.TLSCertificate, &c.Issuer.TLSKey, &c.Issuer.Configurations,
		&c.Admin.TLSCertificate, &c.Admin.TLSKey, &c.Store.Database,
		&c.Signer.TokenDirectory, &c.Signer.Database, &c.Signer.SignSocket,
		&c.Signer.AdminSocket, &c.Signer.Binary, &c.Signer.Spool,
	}
	for i := range c.Issuer.Clients {
		paths = append(paths, &c.Issuer.Clients[i].Keys)
	}
	for _, list := range [][]Attester{c.Issuer.WalletAttestation.Providers, c.Issuer.KeyAttestation.Providers} {
		for i := range list {
			paths = append(paths, &list[i].Anchors, &list[i].Keys)
		}
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if strings.Contains(c.Signer.PIN, "/") && !filepath.IsAbs(c.Signer.PIN) {
		c.Signer.PIN = filepath.Join(dir, c.Signer.PIN)
	}
}

// check returns every fault of the file, each naming its member and the remedy.
func (c *Config) check() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err := CheckIdentifier(c.Issuer.Identifier); err != nil {
		fault("issuer.identifier: %w", err)
	}
	for name, address := range map[string]string{"issuer.listen": c.Issuer.Listen, "admin.listen": c.Admin.Listen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			fault("%s: %q is not host:port: write for instance \"127.0.0.1:8443\"", name, address)
		}
	}
	for _, required := range []struct{ name, value string }{
		{"issuer.tls_certificate", c.Issuer.TLSCertificate}, {"issuer.tls_key", c.Issuer.TLSKey},
		{"issuer.configurations", c.Issuer.Configurations},
		{"admin.tls_certificate", c.Admin.TLSCertificate}, {"admin.tls_key", c.Admin.TLSKey},
		{"store.database", c.Store.Database}, {"signer.database", c.Signer.Database},
		{"signer.sign_socket", c.Signer.SignSocket}, {"signer.admin_socket", c.Signer.AdminSocket},
		{"signer.origin", c.Signer.Origin}, {"signer.pin", c.Signer.PIN}, {"signer.spool", c.Signer.Spool},
	} {
		if required.value == "" {
			fault("%s: missing: set it", required.name)
		}
	}
	if !filepath.IsAbs(c.Signer.Module) {
		fault("signer.module: %q is not an absolute path: give the PKCS#11 module's full path", c.Signer.Module)
	}
	if (c.Signer.TokenLabel == "") == (c.Signer.TokenSerial == "") {
		fault("signer.token_label, signer.token_serial: exactly one of them selects the token")
	}
	if strings.ContainsAny(c.Signer.Origin, " +\n") {
		fault("signer.origin: must hold neither spaces nor plus signs (C2SP signed-note)")
	}
	switch c.Log {
	case "debug", "info", "warn", "error":
	default:
		fault("log: %q is not a level: use debug, info, warn or error", c.Log)
	}
	faults = append(faults, c.Issuer.check()...)
	return append(faults, c.checkRanges()...)
}

// checkRanges holds every number and span against its bounds.
func (c *Config) checkRanges() []error {
	var faults []error
	for _, d := range []struct {
		name     string
		value    Duration
		min, max time.Duration
	}{
		{"issuer.access_token_lifetime", c.Issuer.AccessTokenLifetime, 10 * time.Second, 5 * time.Minute},
		{"issuer.deferred_lifetime", c.Issuer.DeferredLifetime, time.Minute, 90 * 24 * time.Hour},
		{"issuer.metadata_lifetime", c.Issuer.MetadataLifetime, time.Hour, 48 * time.Hour},
		{"issuer.encryption.rotation", c.Issuer.Encryption.Rotation, time.Hour, 365 * 24 * time.Hour},
		{"issuer.refresh.lifetime", c.Issuer.Refresh.Lifetime, time.Hour, 365 * 24 * time.Hour},
		{"issuer.wallet_attestation.max_age", c.Issuer.WalletAttestation.MaxAge, 0, 365 * 24 * time.Hour},
		{"issuer.nonce_lifetime", c.Issuer.NonceLifetime, 10 * time.Second, time.Hour},
		{"store.data_key_lifetime", c.Store.DataKeyLifetime, time.Minute, 24 * time.Hour},
		{"store.retention", c.Store.Retention, time.Hour, 10 * 365 * 24 * time.Hour},
		{"offers.default_expiry", c.Offers.DefaultExpiry, time.Minute, c.Offers.LongestExpiry.Std()},
		{"offers.longest_expiry", c.Offers.LongestExpiry, time.Minute, 90 * 24 * time.Hour},
		{"signer.operation_timeout", c.Signer.OperationTimeout, 100 * time.Millisecond, 5 * time.Minute},
		{"signer.hung_after", c.Signer.HungAfter, time.Second, 10 * time.Minute},
		{"signer.checkpoint_interval", c.Signer.CheckpointInterval, 100 * time.Millisecond, time.Hour},
		{"signer.probe_interval", c.Signer.ProbeInterval, time.Second, time.Hour},
		{"signer.crl_lifetime", c.Signer.CRLLifetime, 24 * time.Hour, 90 * 24 * time.Hour},
	} {
		if d.value.Std() < d.min || d.value.Std() > d.max {
			faults = append(faults, fmt.Errorf("%s: %s is out of range: %s to %s", d.name, d.value.Std(), d.min, d.max))
		}
	}
	for _, n := range []struct {
		name            string
		value, min, max int
	}{
		{"issuer.http.requests_per_second", c.Issuer.HTTP.RequestsPerSecond, 0, 100_000},
		{"issuer.http.burst", c.Issuer.HTTP.Burst, 0, 1_000_000},
		{"issuer.http.offer_requests_per_minute", c.Issuer.HTTP.OfferRequestsPerMinute, 10, 100_000},
		{"issuer.http.max_connections", c.Issuer.HTTP.MaxConnections, 16, 1_000_000},
		{"offers.transaction_code_attempts", c.Offers.TransactionCodeAttempts, 1, 10},
		{"offers.transaction_code_length", c.Offers.TransactionCodeLength, 4, 16},
		{"signer.sessions", c.Signer.Sessions, 1, 64},
		{"signer.queue", c.Signer.Queue, 1, 100_000},
	} {
		if n.value < n.min || n.value > n.max {
			faults = append(faults, fmt.Errorf("%s: %d is out of range: %d to %d", n.name, n.value, n.min, n.max))
		}
	}
	return faults
}

// CheckIdentifier refuses what cannot be a Credential Issuer Identifier
// (OpenID4VCI 1.0 §12.2.1). A trailing slash is refused too: the identifier is
// compared letter for letter, and wallets disagree on what to do with one.
func CheckIdentifier(identifier string) error {
	u, err := url.Parse(identifier)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is not an https URL: write for instance \"https://issuer.example.com\"", identifier)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(identifier, "#"):
		return errors.New("user information, a query and a fragment are not allowed: remove them")
	case strings.HasSuffix(identifier, "/"):
		return errors.New("a trailing slash is not allowed: remove it, and use the identifier without it everywhere")
	case u.Host != strings.ToLower(u.Host) || u.EscapedPath() != u.Path:
		return errors.New("the host must be in lower case and the path without escapes")
	}
	return nil
}
