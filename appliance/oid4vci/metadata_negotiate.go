package oid4vci

import (
	"cmp"
	"mime"
	"slices"
	"strconv"
	"strings"

	"chancery/issuance/domainlinkage"
)

// serveMetadata answers with the form of the Credential Issuer Metadata that the
// request wants (OpenID4VCI 1.0 §12.2.2). Whoever wants what there is not gets
// JSON in every language, never an error. The signed form holds every language.
func (i *Issuer) serveMetadata(c *call) string {
	p := i.published.Load()
	c.w.Header().Set("Vary", "Accept, Accept-Language")
	if p.signed.serves(p.toSign, i.now()) && prefersJWT(c.r.Header.Values("Accept")) {
		return serveDocument(c.w, c.r, p.signed.document)
	}
	if v, ok := p.languages[p.chooseLanguage(c.r.Header.Values("Accept-Language"))]; ok {
		c.w.Header().Set("Content-Language", v.tag)
		return serveDocument(c.w, c.r, v.document)
	}
	return serveDocument(c.w, c.r, p.metadata)
}

// serveDraftMetadata answers with the metadata in an older draft's form.
func (i *Issuer) serveDraftMetadata(c *call) string {
	return serveDocument(c.w, c.r, i.published.Load().draft)
}

func (i *Issuer) serveASMetadata(c *call) string { return serveDocument(c.w, c.r, i.asMetadata) }

// route is a resource: a pattern of the mux, the name it is observed under, its handler.
type route struct {
	pattern, name string
	serve         endpoint
}

// metadataRoutes are the well-known paths. 1.0 inserts them between host and path
// (§12.2.2), as RFC 8414 §3 and SD-JWT VC §3.5 do; drafts up to 15 appended the
// issuer's, OpenID Connect Discovery the authorization server's. The DID
// configuration is the origin's, not the path's.
func (i *Issuer) metadataRoutes() []route {
	routes := []route{
		{"GET /.well-known/openid-credential-issuer" + i.path, "metadata", i.serveMetadata},
		{"GET /.well-known/oauth-authorization-server" + i.path, "as_metadata", i.serveASMetadata},
		{"GET /.well-known/openid-configuration" + i.path, "as_metadata", i.serveASMetadata},
		{"GET " + domainlinkage.Path, "did_configuration", i.serveLinkage},
		{"GET /.well-known/jwt-vc-issuer" + i.path, "jwt_vc_issuer", i.serveVCIssuer}, // SD-JWT VC §3.5
	}
	if i.path == "" {
		return routes
	}
	routes = append(routes, route{"GET " + i.path + "/.well-known/openid-configuration", "as_metadata", i.serveASMetadata})
	if i.options.Compatibility != "" {
		routes = append(routes, route{"GET " + i.path + "/.well-known/openid-credential-issuer", "metadata", i.serveDraftMetadata})
	}
	return routes
}

// chooseLanguage returns the key of the variant that an Accept-Language header
// wants most, "" for every language: without the header, for one that comes to
// "*" first, and when none of the languages it names is there.
func (p *published) chooseLanguage(header []string) string {
	for _, wanted := range preferences(header) {
		if wanted.value == "*" || wanted.quality == 0 {
			return ""
		}
		if tag := lookUpLanguage(wanted.value, p.tags); tag != "" {
			return tag
		}
	}
	return ""
}

// prefersJWT tells whether an Accept header names application/jwt and wants it as
// much as JSON at least; of two that are wanted alike the first one named counts.
// A wildcard is no wish for the signed form, which not every wallet can read.
func prefersJWT(header []string) bool {
	if len(header) == 0 {
		return false
	}
	list := preferences(header)
	index := func(mediaRange string) int {
		return slices.IndexFunc(list, func(p preference) bool { return p.value == mediaRange })
	}
	jwt := index("application/jwt")
	if jwt < 0 || list[jwt].quality == 0 {
		return false
	}
	if json := index("application/json"); json >= 0 {
		return jwt < json
	}
	for _, mediaRange := range []string{"application/*", "*/*"} { // the more specific one counts (RFC 9110 §12.5.1)
		if json := index(mediaRange); json >= 0 {
			return list[jwt].quality >= list[json].quality
		}
	}
	return true
}

// preference is an element of a header by which a client says what it takes.
type preference struct {
	value   string // in lower case, without parameters
	quality float64
}

// maxPreferences bounds the elements that are looked at.
const maxPreferences = 64

// preferences reads such a header (RFC 9110 §12.4.2), what is wanted most first.
// An element that cannot be read is as good as not there.
func preferences(header []string) (out []preference) {
	for element := range strings.SplitSeq(strings.Join(header, ","), ",") {
		if len(out) == maxPreferences {
			break
		}
		value, parameters, err := mime.ParseMediaType(element)
		if err != nil {
			continue
		}
		p := preference{value, 1}
		if text, weighed := parameters["q"]; weighed {
			if p.quality, err = strconv.ParseFloat(text, 64); err != nil || !(p.quality >= 0 && p.quality <= 1) {
				continue
			}
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b preference) int { return cmp.Compare(b.quality, a.quality) })
	return out
}
