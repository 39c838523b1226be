package oid4vci

import (
	"html/template"
	"net/http"

	"chancery/appliance/oid4vci/refusal"
)

// serveChallenge is the challenge endpoint of wallet attestation (ABCA -07 §8).
func (i *Issuer) serveChallenge(c *call) string {
	writeJSON(c.w, http.StatusOK, []byte(`{"attestation_challenge":"`+i.clients.Challenge()+`"}`))
	return "ok"
}

// serveAuthorize refuses every authorization request by the book (RFC 6749
// §4.1.2.1). No client has a redirection URI here, so nobody is sent anywhere:
// the person is told (§3.1.2.4).
func (i *Issuer) serveAuthorize(c *call) string {
	values := c.r.URL.Query()
	if c.r.Method == http.MethodPost {
		values, _ = readForm(c.r) // a body that is no form has no response_type
	}
	e := refusal.New("unauthorized_client", "client_id", "no client may use the authorization code grant: use the pre-authorized code of a credential offer", "RFC 6749 §4.1.2.1")
	switch values.Get("response_type") {
	case "code":
	case "":
		e.Code, e.Member, e.Description = "invalid_request", "response_type", "response_type is missing, and none is supported: use the pre-authorized code of a credential offer"
	default:
		e.Code, e.Member, e.Description = "unsupported_response_type", "response_type", "no response type is supported: use the pre-authorized code of a credential offer"
	}
	i.note(c, e)
	h := c.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	c.w.WriteHeader(http.StatusBadRequest)
	name := i.identifier
	if len(i.options.Display) > 0 {
		name = i.options.Display[0].Name
	}
	_ = authorizePage.Execute(c.w, struct{ Issuer, Code, Description string }{name, e.Code, e.Description}) // the peer may be gone
	return e.Code
}

var authorizePage = template.Must(template.New("authorize").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Issuer}}</title>
<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}code{font-size:.95em}</style>
<h1>{{.Issuer}}</h1>
<p>You cannot sign in here. This issuer gives out credentials on an offer: scan the code, or open the link, that you were given, with your wallet.</p>
<p>For whoever makes the wallet: <code>{{.Code}}</code>, {{.Description}}.</p>
</html>
`))
