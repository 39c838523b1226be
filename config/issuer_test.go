package config

import (
	"strings"
	"testing"
	"time"
)

// TestIssuerFaults adds one thing to the example's [issuer] and expects a fault
// that names it.
func TestIssuerFaults(t *testing.T) {
	provider := "[[issuer.key_attestation.providers]]\n"
	for _, c := range []struct{ members, sections, wants string }{
		{`transaction_code_error = "wrong"`, "", `issuer.transaction_code_error: "wrong" is not one of "invalid_grant", "invalid_tx_code"`},
		{`strictness = "none"`, "", `issuer.strictness: "none" is not one of "usual", "strict", "lenient"`},
		{`compatibility = "draft-11"`, "", `issuer.compatibility: "draft-11" is not one of`},
		{`deferred_lifetime = "1s"`, "", "issuer.deferred_lifetime: 1s is out of range"},
		{`metadata_lifetime = "72h"`, "", "issuer.metadata_lifetime: 72h0m0s is out of range"},
		{"", "[issuer.encryption]\nrequest = \"off\"", "issuer.encryption.request: with encrypted responses"},
		{"", "[issuer.encryption]\nresponse = \"yes\"", `issuer.encryption.response: "yes" is not one of`},
		{"", "[issuer.encryption]\nrotation = \"1m\"", "issuer.encryption.rotation: 1m0s is out of range"},
		{"", "[issuer.refresh]\nlifetime = \"9000h\"", "issuer.refresh.lifetime: 9000h0m0s is out of range"},
		{"", "[issuer.wallet_attestation]\nstatus = \"maybe\"", "issuer.wallet_attestation.status"},
		{"", "[issuer.wallet_attestation]\nmax_age = \"-1s\"", "issuer.wallet_attestation.max_age"},
		{"", "[[issuer.clients]]\nkeys = \"k.json\"", "issuer.clients[0].id: missing"},
		{"", "[[issuer.clients]]\nid = \"a\"", "issuer.clients[0].keys: missing"},
		{"", "[[issuer.clients]]\nid = \"a\"\nkeys = \"k\"\n[[issuer.clients]]\nid = \"a\"\nkeys = \"k\"", "issuer.clients[1].id: missing, or there twice"},
		{"", provider + "anchors = \"a.pem\"", "issuer.key_attestation.providers[0].name: missing"},
		{"", provider + "name = \"A\"", "issuer.key_attestation.providers[0]: neither anchors nor keys"},
		{`compatibility = "draft-15"`, "[issuer.encryption]\nrequest = \"required\"", "issuer.compatibility: wallets of older drafts cannot encrypt"},
		{"", "[[issuer.display]]\nlocale = \"fr\"", "issuer.display[2].name: missing"},
		{"", "[[issuer.display]]\nname = \"X\"\nlocale = \"de\"", `issuer.display[2].locale: "de" is there twice`},
		{"", "[[issuer.display]]\nname = \"X\"\nlocale = \"German\"", `issuer.display[2].locale: "German" is not a language tag`},
		{"", "[[issuer.display]]\nname = \"X\"\nlogo_uri = \"http://x\"", "issuer.display[2].logo_uri: it must be"},
		{"", "[[issuer.display]]\nname = \"X\"\nlogo_alt = \"x\"", "issuer.display[2].logo_alt: there is no logo_uri"},
		{"", "[issuer.http]\ntrusted_proxies = [\"0.0.0.0/0\"]", `issuer.http.trusted_proxies[0]: "0.0.0.0/0" is everybody`},
		{"", "[issuer.http]\ntrusted_proxies = [\"10.0.0.1/8\"]", `issuer.http.trusted_proxies[0]: "10.0.0.1/8" has bits set after the prefix: write "10.0.0.0/8"`},
		{"", "[issuer.http]\ntrusted_proxies = [\"fe80::1%eth0\"]", `issuer.http.trusted_proxies[0]: "fe80::1%eth0" is no address`},
		{"", "[issuer.http]\ntrusted_proxies = [\"::ffff:10.0.0.0/104\"]", `write it as IPv4`},
		{"", "[issuer.http]\ntrusted_proxies = [\"proxy\"]", `issuer.http.trusted_proxies[0]: "proxy" is no address`},
		{"", "[issuer.http]\nproxy_protocol = true", "issuer.http.trusted_proxies: missing"},
		{"", "[issuer.http]\nforwarded_header = \"via\"", `issuer.http.forwarded_header: "via" is not one of`},
		{"", "[issuer.http]\ntrusted_proxies = [\"::1\"]\nproxy_protocol = true\nforwarded_header = \"forwarded\"", "issuer.http.forwarded_header: proxy_protocol tells"},
		{"", "[issuer.http]\nrequests_per_second = -1", "issuer.http.requests_per_second: -1 is out of range"},
		{"", "[issuer.http]\nmax_connections = 1", "issuer.http.max_connections: 1 is out of range"},
	} {
		text := strings.Replace(example(t), "[issuer]\n", "[issuer]\n"+c.members+"\n", 1) + "\n" + c.sections + "\n"
		if _, err := Parse("/c.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%s%s: %v", c.members, c.sections, err)
		}
	}
	anonymous := strings.Replace(example(t), "anonymous_access = true", "anonymous_access = false", 1)
	if _, err := Parse("/c.toml", []byte(anonymous)); err == nil || !strings.Contains(err.Error(), "issuer.anonymous_access: without it") {
		t.Error(err)
	}
}

// TestIssuerDefaults: what a file leaves out.
func TestIssuerDefaults(t *testing.T) {
	text := strings.Replace(example(t), "[admin]\n", "[[issuer.clients]]\nid = \"a\"\nkeys = \"k.json\"\n[[issuer.wallet_attestation.providers]]\nname = \"P\"\nanchors = \"a.pem\"\n[issuer.http]\nrequests_per_second = 50\n[admin]\n", 1)
	c, err := Parse("/etc/chancery/chancery.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	i := c.Issuer
	if !*i.Retries || i.TransactionCodeError != "invalid_grant" || i.Encryption.Request != "optional" || i.Encryption.Response != "optional" || !*i.Encryption.Compression ||
		i.Refresh.Enabled || i.Refresh.Lifetime.Std() != 720*time.Hour || !*i.KeyAttestation.RequireChain || i.KeyAttestation.Status != "open" || i.Compatibility != "" ||
		i.HTTP.Burst != 100 || i.HTTP.MaxConnections != 10_000 || i.DPoP.Required {
		t.Errorf("%+v", i)
	}
	if i.Clients[0].Keys != "/etc/chancery/k.json" || i.WalletAttestation.Providers[0].Anchors != "/etc/chancery/a.pem" || i.WalletAttestation.Providers[0].Keys != "" {
		t.Errorf("paths are not relative to the file: %+v", i)
	}
}
