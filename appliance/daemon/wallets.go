package daemon

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"

	"chancery/appliance/limit"
	"chancery/config"
)

// walletFront is the wallet listener.
func (d *appliance) walletFront() (front, error) {
	o := d.cfg.Issuer.HTTP
	clients, err := limit.NewAddresses(limit.Proxies{Trusted: o.TrustedProxies, Header: o.ForwardedHeader, Protocol: o.ProxyProtocol})
	if err != nil {
		return front{}, fmt.Errorf("issuer.http: %w", err)
	}
	welcome, err := newWelcome(d.cfg.Issuer, d.issuer.Handler())
	if err != nil {
		return front{}, err
	}
	limiter := limit.New(limit.Options{PerAddress: limit.Rate{Requests: o.RequestsPerSecond, Burst: o.Burst}, Addresses: clients, Refused: d.metrics.refuse})
	return front{name: "wallet", address: d.cfg.Issuer.Listen, certificate: d.cfg.Issuer.TLSCertificate, key: d.cfg.Issuer.TLSKey,
		handler: limiter.Handler(welcome), clients: clients, connections: o.MaxConnections, patience: usual}, nil
}

// welcomePage is what a person sees who opens the issuer's address.
var welcomePage = template.Must(template.New("welcome").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.}}</title>
<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}</style></head>
<body>
<h1>{{.}}</h1>
<p>This address issues digital credentials to wallet applications. There is no page here.</p>
<p>To receive a credential, open the link or scan the code that you were given, with your wallet.</p>
</body>
</html>
`))

// newWelcome answers a GET of the issuer's own address, and of the host's root,
// with a page for people, and hands everything else on. The status stays 404:
// for programs there is nothing here.
func newWelcome(issuer config.Issuer, next http.Handler) (http.Handler, error) {
	u, err := url.Parse(issuer.Identifier)
	if err != nil {
		return nil, err
	}
	name := u.Host
	if len(issuer.Display) > 0 {
		name = issuer.Display[0].Name
	}
	var page bytes.Buffer
	if err := welcomePage.Execute(&page, name); err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		here := r.URL.Path == "/" || r.URL.Path == u.Path || r.URL.Path == u.Path+"/"
		if !here || r.Method != http.MethodGet && r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(page.Len()))
		h.Set("Cache-Control", "public, max-age=60")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		w.WriteHeader(http.StatusNotFound)
		if r.Method == http.MethodGet {
			_, _ = w.Write(page.Bytes()) // the peer may be gone
		}
	}), nil
}
