package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// check returns the faults of what wallets and those who vouch for them may do.
func (i *Issuer) check() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, choice := range []struct {
		name, value string
		allowed     []string
	}{
		{"issuer.transaction_code_error", i.TransactionCodeError, []string{"invalid_grant", "invalid_tx_code"}},
		{"issuer.strictness", i.Strictness, []string{"usual", "strict", "lenient"}},
		{"issuer.compatibility", i.Compatibility, []string{"", "draft-13", "draft-15"}},
		{"issuer.encryption.request", i.Encryption.Request, []string{"off", "optional", "required"}},
		{"issuer.encryption.response", i.Encryption.Response, []string{"off", "optional", "required"}},
		{"issuer.wallet_attestation.status", i.WalletAttestation.Status, []string{"off", "open", "closed"}},
		{"issuer.key_attestation.status", i.KeyAttestation.Status, []string{"off", "open", "closed"}},
		{"issuer.http.forwarded_header", i.HTTP.ForwardedHeader, []string{"", "forwarded", "x-forwarded-for"}},
	} {
		if !slices.Contains(choice.allowed, choice.value) {
			fault("%s: %q is not one of \"%s\"", choice.name, choice.value, strings.Join(choice.allowed, `", "`))
		}
	}
	if i.Encryption.Response != "off" && i.Encryption.Request == "off" {
		fault("issuer.encryption.request: with encrypted responses wallets must encrypt their requests too (OpenID4VCI 1.0 §8.2): make it \"optional\" or \"required\", or turn response off")
	}
	if i.Compatibility != "" && i.Encryption.Request == "required" {
		fault("issuer.compatibility: wallets of older drafts cannot encrypt requests: make issuer.encryption.request \"optional\", or leave compatibility out")
	}
	i.checkDisplay(fault)
	seen := map[string]bool{}
	for n, c := range i.Clients {
		if c.ID == "" || seen[c.ID] {
			fault("issuer.clients[%d].id: missing, or there twice: each client needs one of its own", n)
		}
		seen[c.ID] = true
		if c.Keys == "" {
			fault("issuer.clients[%d].keys: missing: name the file with the client's JWK Set", n)
		}
	}
	checkAttesters("issuer.wallet_attestation.providers", i.WalletAttestation.Providers, fault)
	checkAttesters("issuer.key_attestation.providers", i.KeyAttestation.Providers, fault)
	if !*i.AnonymousAccess && len(i.Clients) == 0 && len(i.WalletAttestation.Providers) == 0 {
		fault("issuer.anonymous_access: without it, wallets must authenticate: add issuer.clients or issuer.wallet_attestation.providers")
	}
	return append(faults, i.HTTP.check()...)
}

var localePattern = regexp.MustCompile(`^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$`)

// checkDisplay holds the issuer's names against OpenID4VCI 1.0 §12.2.4: one for
// each language.
func (i *Issuer) checkDisplay(fault func(string, ...any)) {
	locales := map[string]bool{}
	for n, d := range i.Display {
		if d.Name == "" {
			fault("issuer.display[%d].name: missing", n)
		}
		if d.Locale != "" && !localePattern.MatchString(d.Locale) {
			fault("issuer.display[%d].locale: %q is not a language tag like \"en\" or \"de-AT\"", n, d.Locale)
		}
		if locales[d.Locale] {
			fault("issuer.display[%d].locale: %q is there twice", n, d.Locale)
		}
		locales[d.Locale] = true
		if d.LogoURI != "" && !strings.HasPrefix(d.LogoURI, "https://") && !strings.HasPrefix(d.LogoURI, "data:image/") {
			fault("issuer.display[%d].logo_uri: it must be an https or a data URI", n)
		}
		if d.LogoURI == "" && d.LogoAlt != "" {
			fault("issuer.display[%d].logo_alt: there is no logo_uri: add it or remove this", n)
		}
	}
}

func checkAttesters(name string, list []Attester, fault func(string, ...any)) {
	for n, a := range list {
		if a.Name == "" {
			fault("%s[%d].name: missing: messages call the provider by it", name, n)
		}
		if a.Anchors == "" && a.Keys == "" {
			fault("%s[%d]: neither anchors nor keys: name a PEM file with CA certificates or a JWK Set file", name, n)
		}
	}
}

func (h *HTTP) check() (faults []error) {
	for n, text := range h.TrustedProxies {
		if _, err := ParseProxy(text); err != nil {
			faults = append(faults, fmt.Errorf("issuer.http.trusted_proxies[%d]: %w", n, err))
		}
	}
	if len(h.TrustedProxies) == 0 && (h.ProxyProtocol || h.ForwardedHeader != "") {
		faults = append(faults, fmt.Errorf("issuer.http.trusted_proxies: missing: proxy_protocol and forwarded_header are believed from these alone"))
	}
	if h.ProxyProtocol && h.ForwardedHeader != "" {
		faults = append(faults, fmt.Errorf("issuer.http.forwarded_header: proxy_protocol tells the client's address already: choose one"))
	}
	return faults
}

// ParseProxy reads an entry of trusted_proxies: a single address or a CIDR prefix.
// An IPv4 address in IPv6's form is taken as IPv4.
func ParseProxy(s string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(s); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is no address: write one like \"192.0.2.10\" or a prefix like \"192.0.2.0/24\"", s)
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 prefix in IPv6's form: write it as IPv4", s)
	case prefix.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("%q is everybody, and every client could choose its address: name the proxies", s)
	case prefix.Masked() != prefix:
		return netip.Prefix{}, fmt.Errorf("%q has bits set after the prefix: write %q or a single address", s, prefix.Masked())
	}
	return prefix, nil
}
