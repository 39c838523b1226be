package oid4vci

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/issuance/configuration"
)

// TestChecks24To27Accept: which of both forms an Accept header gets; where there
// is no signed form, JSON whatever it says.
func TestChecks24To27Accept(t *testing.T) {
	for header, signed := range map[string]bool{
		"":                                                false, // 25
		"application/json":                                false, // 24
		"application/jwt":                                 true,  // 26
		"Application/JWT":                                 true,
		"application/jwt;q=0.1":                           true,
		"application/jwt;q=0":                             false,
		"application/jwt; q=0.000":                        false,
		"application/jwt, application/json":               true,
		"application/json, application/jwt":               false,
		"application/json;q=0.9,application/jwt":          true,
		"application/json, application/jwt;q=0.9":         false,
		"application/jwt;q=0.5, application/json;q=0":     true,
		"application/json;q=0":                            false, // JSON there is always
		"*/*":                                             false,
		"application/*":                                   false,
		"application/jwt, */*":                            true,
		"application/jwt;q=0.5, */*":                      false,
		"application/jwt;q=0.5, */*;q=0.1":                true,
		"application/jwt;q=0.5, application/*;q=0.1, */*": true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": false,
		"application/jwt;charset=utf-8":                                   true,
		`application/jwt;x="a,b", text/html`:                              false, // two halves, neither of them a media range
		"application/jwt;q=x":                                             false,
		"application/jwt;q=2":                                             false,
		"application/jwt;q=NaN":                                           false,
		"application/jwt;q=-1":                                            false,
		"jwt":                                                             false,
		", ,;;,/,application/":                                            false,
		strings.Repeat("text/html,", 70) + "application/jwt":              false, // beyond the bound
	} {
		t.Run(header, func(t *testing.T) {
			want(t, prefersJWT([]string{header}) == signed, "the signed form", !signed)
		})
	}
	want(t, prefersJWT([]string{"text/html", "application/jwt"}), "two header lines", false)
	want(t, !prefersJWT(nil), "no header", true)
}

// TestCheck28Languages: a language that is wanted and there is served alone;
// everything in all other cases. No configuration and no claim gets lost.
func TestCheck28Languages(t *testing.T) {
	const target = "https://issuer.example.com/.well-known/openid-credential-issuer"
	i, client := described(t, allOn(t, "https://issuer.example.com"), everything(t), encrypted(t))
	whole := do(t, client, http.MethodGet, target, nil)
	want(t, slices.Equal(i.published.Load().tags, []string{"de", "de-at", "en", "fr"}), "languages", i.published.Load().tags)
	etags := map[string]string{}
	for header, tag := range map[string]string{
		"de": "de", "DE": "de", "en": "en", "fr": "fr", "de-AT": "de-AT", "de-at": "de-AT", "de-CH": "de", "de-Latn-CH": "de", "de-x-foo": "de",
		"fr-CA, en;q=0.5": "fr", "xx, en;q=0.5": "en", "en;q=0.5, de": "de", "en;q=0.5, de;q=0.5": "en", "de;q=0, en": "en", "de, *;q=0.5": "de",
		"*": "", "*, de;q=0.5": "", "xx": "", "xx, *": "", "de;q=0": "", "d": "", "": "", "de;q=x": "", "-": "", ";q=1": "", "en_US": "", "dex": "",
	} {
		t.Run(header, func(t *testing.T) {
			a := do(t, client, http.MethodGet, target, nil, "Accept-Language", header)
			want(t, a.status == http.StatusOK && a.header.Get("Content-Language") == tag, "Content-Language", a.header)
			want(t, a.header.Get("Vary") == "Accept, Accept-Language" && a.header.Get("Content-Type") == "application/json", "check 51", a.header)
			if tag == "" {
				want(t, string(a.body) == string(whole.body), "everything", len(a.body))
				return
			}
			want(t, string(strip(t, a)) == string(strip(t, whole)), "all but displays is the same", len(a.body))
			etags[tag] = a.header.Get("Etag")
			not := do(t, client, http.MethodGet, target, nil, "Accept-Language", header, "If-None-Match", etags[tag])
			want(t, not.status == http.StatusNotModified, "304", not.status)
		})
	}
	// What differs by its Content-Language alone may have one entity tag.
	etags[""] = whole.header.Get("Etag")
	delete(etags, "de-AT")
	other := map[string]bool{}
	for tag, etag := range etags {
		want(t, !other[etag], "an entity tag for each variant", tag)
		other[etag] = true
	}
}

// strip is metadata without displays.
func strip(t *testing.T, a answer) []byte {
	t.Helper()
	return encode(t, displays(a.object(t), func([]any) []any { return nil }))
}

// TestCheck28Displays: what a language's variant shows, array by array.
func TestCheck28Displays(t *testing.T) {
	i, _ := described(t, allOn(t, "https://issuer.example.com"), everything(t), encryptionMetadata{})
	for tag, expected := range map[string]struct{ issuer, attested, unnamed, claim string }{
		"en":    {"en", "en", "", "en"},
		"de":    {"de", "de-AT", "", "en fr"}, // the Austrian name for want of a German one; no German claim: both
		"de-at": {"de", "de-AT", "", "en fr"},
		"fr":    {"en de", "en de-AT", "", "fr"},
	} {
		metadata := answer{body: i.published.Load().languages[tag].body}.object(t)
		all := metadata["credential_configurations_supported"].(map[string]any)
		inner := func(id string) map[string]any {
			return all[id].(map[string]any)["credential_metadata"].(map[string]any)
		}
		claim := inner("attested")["claims"].([]any)[0].(map[string]any)
		for at, c := range map[string]struct {
			display any
			locales string
		}{"issuer": {metadata["display"], expected.issuer}, "attested": {inner("attested")["display"], expected.attested},
			"unnamed": {inner("attested-by-anybody")["display"], expected.unnamed}, "claim": {claim["display"], expected.claim}} {
			var got []string
			for _, entry := range c.display.([]any) {
				got = append(got, locale(entry))
			}
			want(t, strings.Join(got, " ") == c.locales, tag+" "+at, got)
		}
	}
}

// TestLookUpLanguage follows RFC 4647 §3.4's example of progressive truncation.
func TestLookUpLanguage(t *testing.T) {
	for _, c := range []struct {
		wanted, tags, best string
	}{
		{"zh-hant-cn-x-private1-private2", "zh-hant-cn-x-private1 zh zh-hant", "zh-hant-cn-x-private1"},
		{"zh-hant-cn-x-private1-private2", "zh zh-hant-cn-x zh-hant-cn", "zh-hant-cn"}, // no single letter at the end
		{"zh-hant-cn", "zh-hant zh", "zh-hant"}, {"zh-hant-cn", "zh", "zh"}, {"zh-hant-cn", "en", ""},
		{"zh", "zh-hant zh-hans", "zh-hant"}, {"zh", "zhx zh-hans", "zh-hans"}, {"", "en", ""}, {"-", "en", ""}, {"en", "", ""}, {"en-us", "en-gb", ""},
	} {
		if best := lookUpLanguage(c.wanted, strings.Fields(c.tags)); best != c.best {
			t.Errorf("%q of %q: %q, want %q", c.wanted, c.tags, best, c.best)
		}
	}
}

// TestMetadataIsBuiltOnce: the same keys build nothing, others do.
func TestMetadataIsBuiltOnce(t *testing.T) {
	e := encrypted(t)
	i, _ := described(t, allOn(t, "https://issuer.example.com"), nil, e)
	steps := []struct {
		name   string
		change func(*wire.IdentitiesResponse, *encryptionMetadata)
		built  bool
	}{
		{"nothing", func(*wire.IdentitiesResponse, *encryptionMetadata) {}, false},
		{"other encryption keys", func(_ *wire.IdentitiesResponse, e *encryptionMetadata) { *e = encrypted(t) }, true},
		{"no encryption", func(_ *wire.IdentitiesResponse, e *encryptionMetadata) { *e = encryptionMetadata{} }, true},
		{"another generation", func(r *wire.IdentitiesResponse, e *encryptionMetadata) { r.Generation++; *e = encryptionMetadata{} }, true},
	}
	for _, s := range steps {
		r, changed := signingKeys(), e
		s.change(&r, &changed)
		before := i.published.Load()
		if err := i.update(t.Context(), r, changed); err != nil {
			t.Fatal(err)
		}
		want(t, (i.published.Load() != before) == s.built, s.name, s.built)
	}
	before := i.published.Load()
	bad := signingKeys()
	bad.Generation, bad.Identities[0].PublicKey = 7, []byte{1}
	want(t, i.update(t.Context(), bad, e) != nil && i.published.Load() == before, "keys that cannot be read change nothing", nil)
}

// FuzzPreferences: no header makes them fail, and their order is by quality.
func FuzzPreferences(f *testing.F) {
	for _, seed := range []string{"application/jwt, */*;q=0.1", "de-AT, *;q=0", `a/b;x="`, ";", "q=1;q=2", "de;q=1e-9"} {
		f.Add(seed)
	}
	settings := config.Issuer{Identifier: "https://issuer.example.com"}
	all, err := configuration.LoadDir(filepath.Join("..", "..", "examples", "configurations"))
	if err != nil {
		f.Fatal(err)
	}
	i := newIssuer(f, settings, Options{Configurations: all, Signer: wire.NewClient("none.sock"), Now: time.Now})
	f.Fuzz(func(t *testing.T, header string) {
		list := preferences([]string{header})
		if len(list) > maxPreferences || !slices.IsSortedFunc(list, func(a, b preference) int {
			if a.quality > b.quality {
				return -1
			} else if a.quality < b.quality {
				return 1
			}
			return 0
		}) {
			t.Errorf("%v", list)
		}
		prefersJWT([]string{header})
		if tag := i.published.Load().chooseLanguage([]string{header}); tag != "" && !slices.Contains([]string{"de", "en"}, tag) {
			t.Errorf("language %q", tag)
		}
	})
}
