package conformance

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// sdJWT is an SD-JWT VC, read by this test alone: RFC 9901 and SD-JWT VC say how.
type sdJWT struct {
	text            string
	header, payload members
	chain           []*x509.Certificate // x5c
	disclosures     []disclosure
	digests         []digest // those of the payload and of every disclosure
}

type disclosure struct {
	text, salt string
	name       string // "" for an element of an array
	value      any
	digest     string
}

// digest is where a digest stands.
type digest struct {
	text    string
	element bool // {"...": text} in an array, else in an _sd
}

// readSDJWT reads a credential and checks its signature with the first
// certificate of x5c (checks 231, 239).
func readSDJWT(t testing.TB, credential string) sdJWT {
	t.Helper()
	if !strings.HasSuffix(credential, "~") {
		t.Fatalf("the credential ends with %q", credential[max(0, len(credential)-20):])
	}
	parts := strings.Split(strings.TrimSuffix(credential, "~"), "~")
	c := sdJWT{text: credential, header: members{}}
	signed, err := jose.ParseSignedCompact(parts[0], asymmetric)
	if err != nil {
		t.Fatal(err)
	}
	header, err := base64.RawURLEncoding.Strict().DecodeString(parts[0][:strings.IndexByte(parts[0], '.')])
	if err != nil || json.Unmarshal(header, &c.header) != nil {
		t.Fatalf("header %s", header)
	}
	list, _ := c.header["x5c"].([]any)
	for _, element := range list {
		der, err := base64.StdEncoding.Strict().DecodeString(fmt.Sprint(element))
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		c.chain = append(c.chain, certificate)
	}
	if len(c.chain) == 0 {
		t.Fatalf("no x5c in %s", header)
	}
	content, err := signed.Verify(c.chain[0].PublicKey)
	if err != nil {
		t.Fatalf("the signature: %v", err)
	}
	if err := json.Unmarshal(content, &c.payload); err != nil {
		t.Fatal(err)
	}
	c.collect(c.payload)
	for _, text := range parts[1:] {
		d := readDisclosure(t, text)
		c.disclosures = append(c.disclosures, d)
		c.collect(d.value)
	}
	return c
}

func readDisclosure(t testing.TB, text string) disclosure {
	t.Helper()
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var list []any
	if err := json.Unmarshal(data, &list); err != nil || len(list) != 2 && len(list) != 3 {
		t.Fatalf("disclosure of %d members: %v", len(list), err)
	}
	sum := sha256.Sum256([]byte(text))
	d := disclosure{text: text, value: list[len(list)-1], digest: base64.RawURLEncoding.EncodeToString(sum[:])}
	var isText bool
	if d.salt, isText = list[0].(string); !isText {
		t.Fatal("a salt is no text")
	}
	if len(list) == 3 {
		if d.name, _ = list[1].(string); d.name == "" {
			t.Fatal("a disclosure's name is no text, or empty")
		}
	}
	return d
}

// collect finds the digests in a value.
func (c *sdJWT) collect(value any) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			if object, _ := element.(members); object["..."] != nil {
				c.digests = append(c.digests, digest{fmt.Sprint(object["..."]), true})
			}
			c.collect(element)
		}
	case members:
		list, _ := value["_sd"].([]any)
		for _, d := range list {
			c.digests = append(c.digests, digest{fmt.Sprint(d), false})
		}
		for _, member := range value {
			c.collect(member)
		}
	}
}

// disclosed returns a value with everything disclosed in it.
func (c *sdJWT) disclosed(value any) any {
	find := func(digest any) *disclosure {
		for n := range c.disclosures {
			if c.disclosures[n].digest == digest {
				return &c.disclosures[n]
			}
		}
		return nil
	}
	switch value := value.(type) {
	case []any:
		out := []any{}
		for _, element := range value {
			object, _ := element.(members)
			if digest, hidden := object["..."]; !hidden {
				out = append(out, c.disclosed(element))
			} else if d := find(digest); d != nil {
				out = append(out, c.disclosed(d.value))
			}
		}
		return out
	case members:
		out := members{}
		for name, member := range value {
			if name != "_sd" && name != "_sd_alg" {
				out[name] = c.disclosed(member)
			}
		}
		list, _ := value["_sd"].([]any)
		for _, digest := range list {
			if d := find(digest); d != nil {
				out[d.name] = c.disclosed(d.value)
			}
		}
		return out
	}
	return value
}

// eachObject calls f with every object within a value.
func eachObject(value any, f func(members)) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			eachObject(element, f)
		}
	case members:
		f(value)
		for _, member := range value {
			eachObject(member, f)
		}
	}
}

// one gets a credential for a key.
func (i *instance) one(t testing.TB, id string, k key) string {
	t.Helper()
	s := i.session(t, id)
	return credentials(t, s.ask(t, request(id, i.proof(t, k, i.nonce(t), nil))), 1)[0]
}

// neverHidden are what must not be selectively disclosable (SD-JWT VC §2.2.2.3).
var neverHidden = []string{"iss", "nbf", "exp", "cnf", "vct", "vct#integrity", "status"}

func TestCheck231To241SDJWT(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		k := newKey(t, jose.ES256)
		c := readSDJWT(t, i.one(t, pidSDJWT, k))
		check := func(what string, f func(t *testing.T)) { t.Run(what+" "+name, f) }
		check("231 form", func(t *testing.T) {
			if c.header["typ"] != "dc+sd-jwt" || strings.Contains(c.text, "~~") {
				t.Errorf("typ %v", c.header["typ"])
			}
		})
		check("232 vct", func(t *testing.T) {
			if want := i.metadata(t).Configurations[pidSDJWT].VCT; c.payload["vct"] != want || want == "" {
				t.Errorf("vct %v, want %q", c.payload["vct"], want)
			}
		})
		check("233 cnf", func(t *testing.T) {
			cnf, _ := c.payload["cnf"].(members)
			var jwk jose.JSONWebKey
			if err := json.Unmarshal(marshal(t, cnf["jwk"]), &jwk); err != nil {
				t.Fatal(err)
			}
			sum, err := jwk.Thumbprint(crypto.SHA256)
			if err != nil || !jwk.IsPublic() || base64.RawURLEncoding.EncodeToString(sum) != k.thumbprint(t) || len(cnf) != 1 {
				t.Errorf("cnf %v: %v", cnf, err)
			}
			if names := slices.Sorted(maps.Keys(cnf["jwk"].(members))); !slices.Equal(names, []string{"crv", "kty", "x", "y"}) {
				t.Errorf("members of cnf.jwk: %v", names)
			}
		})
		check("234 registered claims", func(t *testing.T) {
			for _, d := range c.disclosures {
				if slices.Contains(neverHidden, d.name) {
					t.Errorf("%s is in a disclosure", d.name)
				}
			}
			for _, claim := range []string{"nbf", "exp", "cnf", "vct"} {
				if c.payload[claim] == nil {
					t.Errorf("no %s in the payload", claim)
				}
			}
		})
		check("235 digests", func(t *testing.T) { digestRules(t, c) })
		check("237 salts", func(t *testing.T) { saltRules(t, c) })
		check("239 x5c", func(t *testing.T) { i.chainRules(t, c.chain) })
		check("240 elements", func(t *testing.T) { elementRules(t, c) })
		check("241 _sd_alg", func(t *testing.T) {
			if c.payload["_sd_alg"] != "sha-256" {
				t.Errorf("_sd_alg %v", c.payload["_sd_alg"])
			}
			n := 0
			count := func(object members) {
				if _, has := object["_sd_alg"]; has {
					n++
				}
			}
			eachObject(c.payload, count)
			for _, d := range c.disclosures {
				eachObject(d.value, count)
			}
			if n != 1 {
				t.Errorf("_sd_alg stands in %d places", n)
			}
		})
	}
}

// digestRules: no digest twice, each disclosure's digest at a place of its kind,
// and no disclosure by a name that has another meaning.
func digestRules(t testing.TB, c sdJWT) {
	t.Helper()
	places := map[string]digest{}
	for _, d := range c.digests {
		if _, twice := places[d.text]; twice {
			t.Errorf("digest %s is there twice", d.text)
		}
		if raw, err := base64.RawURLEncoding.Strict().DecodeString(d.text); err != nil || len(raw) != sha256.Size {
			t.Errorf("digest %q: %v", d.text, err)
		}
		places[d.text] = d
	}
	for _, d := range c.disclosures {
		at, found := places[d.digest]
		if !found || at.element != (d.name == "") {
			t.Errorf("disclosure %q: found %t, in an array %t", d.name, found, at.element)
		}
		if d.name == "_sd" || d.name == "..." {
			t.Errorf("a disclosure of the name %s", d.name)
		}
		delete(places, d.digest) // a second disclosure of it would not be found
	}
	if len(c.disclosures) < 20 {
		t.Errorf("%d disclosures", len(c.disclosures))
	}
}

func saltRules(t testing.TB, all ...sdJWT) {
	t.Helper()
	salts := map[string]bool{}
	for _, c := range all {
		for _, d := range c.disclosures {
			if raw, err := base64.RawURLEncoding.Strict().DecodeString(d.salt); err != nil || len(raw) < 16 || salts[d.salt] {
				t.Errorf("a salt of %d bytes, used before: %t: %v", len(raw), salts[d.salt], err)
			}
			salts[d.salt] = true
		}
	}
	if len(salts) == 0 {
		t.Error("no salts")
	}
}

// chainRules: the leaf is not self-signed, the anchor is not there, and the chain
// leads to it (HAIP 1.0 §6.1.1).
func (i *instance) chainRules(t testing.TB, chain []*x509.Certificate) {
	t.Helper()
	anchor := i.iaca(t)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(anchor)
	for n, c := range chain {
		if bytes.Equal(c.RawSubjectPublicKeyInfo, anchor.RawSubjectPublicKeyInfo) || bytes.Equal(c.RawSubject, anchor.RawSubject) {
			t.Errorf("certificate %d is the anchor", n)
		}
		if bytes.Equal(c.RawSubject, c.RawIssuer) || c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			t.Errorf("certificate %d is self-signed", n)
		}
		if n > 0 {
			intermediates.AddCert(c)
		}
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
}

// elementRules: each nationality is hidden by itself, in its place.
func elementRules(t testing.TB, c sdJWT) {
	t.Helper()
	list, _ := c.payload["nationalities"].([]any)
	var values []string
	for n, element := range list {
		object, _ := element.(members)
		text, isText := object["..."].(string)
		if len(object) != 1 || !isText {
			t.Errorf("element %d: %v", n, element)
		}
		for _, d := range c.disclosures {
			if d.digest == text {
				values = append(values, fmt.Sprint(d.value))
			}
		}
	}
	if !slices.Equal(values, []string{"UT", "SE"}) {
		t.Errorf("nationalities %v of %d elements", values, len(list))
	}
}

// The order of the digests tells nothing of the claims: it is another one in each
// credential. No salt and no digest of one is in the other.
func TestCheck236And237TwoCredentials(t *testing.T) {
	i := plain(t)
	a, b := readSDJWT(t, i.one(t, pidSDJWT, newKey(t, jose.ES256))), readSDJWT(t, i.one(t, pidSDJWT, newKey(t, jose.ES256)))
	order := func(c sdJWT) (names []string) {
		list, _ := c.payload["_sd"].([]any)
		for _, digest := range list {
			for _, d := range c.disclosures {
				if d.digest == digest {
					names = append(names, d.name)
				}
			}
		}
		return names
	}
	var described []string
	for _, claim := range i.metadata(t).Configurations[pidSDJWT].Metadata.Claims {
		described = append(described, fmt.Sprint(claim.Path[0]))
	}
	first, second := order(a), order(b)
	sorted := slices.Sorted(slices.Values(first))
	if !slices.Equal(sorted, slices.Sorted(slices.Values(second))) || len(first) < 10 {
		t.Fatalf("claims %v and %v", first, second)
	}
	described = slices.DeleteFunc(described, func(name string) bool { return !slices.Contains(first, name) })
	for what, other := range map[string][]string{"the other credential's": second, "the alphabet's": sorted, "the metadata's": described} {
		if slices.Equal(first, other) {
			t.Errorf("the order of the digests is %s: %v", what, first)
		}
	}
	saltRules(t, a, b)
	for _, d := range a.digests {
		if slices.Contains(b.digests, d) {
			t.Errorf("digest %s is in both", d.text)
		}
	}
}

// Without selectively disclosable claims nothing of SD-JWT is in the payload.
func TestCheck238NothingHidden(t *testing.T) {
	i := closed(t)
	c := readSDJWT(t, i.one(t, open, newKey(t, jose.ES256)))
	if strings.Count(c.text, "~") != 1 || c.header["typ"] != "dc+sd-jwt" {
		t.Errorf("%d tildes, typ %v", strings.Count(c.text, "~"), c.header["typ"])
	}
	eachObject(c.payload, func(object members) {
		for _, name := range []string{"_sd", "_sd_alg", "..."} {
			if _, has := object[name]; has {
				t.Errorf("%s is there", name)
			}
		}
	})
	if !slices.Equal(c.payload["nationalities"].([]any), []any{"UT", "SE"}) || c.payload["family_name"] == nil {
		t.Error("claims are missing")
	}
}
