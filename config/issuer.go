package config

import (
	"fmt"
	"net/netip"
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

func checkAttesters(name string, list []Attester, fault func(string, ...any)) {
	for n, a := range list {
		if a.Name == "" {
			fault("%s[%d].name: missing: operators see it", name, n)
		}
		if a.Anchors == "" && a.Keys == "" {
			fault("%s[%d]: neither anchors nor keys: name a PEM file with CA certificates or a JWK Set file", name, n)
		}
	}
}

func (h *HTTP) check() (faults []error) {
	for n, text := range h.TrustedProxies {
		_, prefix := netip.ParsePrefix(text)
		_, address := netip.ParseAddr(text)
		if prefix != nil && address != nil {
			faults = append(faults, fmt.Errorf("issuer.http.trusted_proxies[%d]: %q is no address and no CIDR prefix: write for instance \"10.0.0.0/8\"", n, text))
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
