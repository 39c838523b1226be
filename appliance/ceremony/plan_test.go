package ceremony

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/wire"
	"chancery/issuance"
)

func example(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "examples", "ceremony.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExampleIsValid(t *testing.T) {
	p, err := ParsePlan([]byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Keys) != 8 || p.Keys[1].Profile.Formats[0] != issuance.FormatMdoc || p.CRLDays != 60 {
		t.Errorf("%+v", p)
	}
	if err := p.against(registry.New(), nil); err != nil {
		t.Error(err)
	}
	without, err := ParsePlan([]byte(strings.Replace(example(t), "crl_days = 60\n", "", 1)))
	if err != nil || without.CRLDays != 60 {
		t.Errorf("crl_days left out: %d, %v", without.CRLDays, err)
	}
}

// TestPlanFaults makes one fault in the example and wants it named with its place.
func TestPlanFaults(t *testing.T) {
	text := example(t)
	key := func(body string) string { return text + "\n[[keys]]\n" + body }
	const (
		ds   = "label = \"ds-2\"\npurpose = \"document-signer\"\nalgorithm = \"ES256\"\nunder = \"iaca-1\"\ncommon_name = \"DS\"\ndays = 30\n"
		mdoc = "[keys.profile]\nformats = [\"mso_mdoc\"]\ntypes = [\"t\"]\nlongest_validity_hours = 24\n"
		did  = "label = \"did-2\"\npurpose = \"did\"\nalgorithm = \"ES256\"\n"
	)
	if _, err := ParsePlan([]byte(key(ds + mdoc))); err != nil {
		t.Fatalf("the further key without a fault: %v", err)
	}
	replace := func(old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("the example has no %q", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	var many strings.Builder
	for i := range 57 {
		fmt.Fprintf(&many, "\n[[keys]]\n%s%s", strings.Replace(ds, "ds-2", fmt.Sprintf("x-%d", i), 1), mdoc)
	}
	for name, c := range map[string]struct{ plan, want string }{
		"not TOML":                       {"issuer =", "expected value"},
		"a number for a name":            {replace(`country = "UT"`, "country = 1"), "incompatible types"},
		"unknown key":                    {replace("country", "land"), "land: unknown key"},
		"unknown key of a key":           {key(ds + "serial = 1\n" + mdoc), "keys.serial: unknown key"},
		"unknown key of a profile":       {key(ds + mdoc + "rate = 1\n"), "keys.profile.rate: unknown key"},
		"no issuer":                      {replace(`issuer = "https://localhost:8443"`, ""), "issuer:"},
		"issuer with a slash":            {replace(`issuer = "https://localhost:8443"`, `issuer = "https://localhost:8443/"`), "trailing slash"},
		"no contact":                     {replace("contact_email = \"credentials@utopia.example\"\ncontact_url = \"https://utopia.example/credentials\"", ""), "contact_email, contact_url"},
		"no output":                      {replace(`output = "out"`, ""), "output: missing"},
		"CRL of 91 days":                 {replace("crl_days = 60", "crl_days = 91"), "crl_days: 91"},
		"CRL of -1 days":                 {replace("crl_days = 60", "crl_days = -1"), "crl_days: -1"},
		"no keys":                        {text[:strings.Index(text, "[[keys]]")], "keys: there must be"},
		"65 keys":                        {text + many.String(), "keys: there must be"},
		"a label twice":                  {replace(`label = "ds-1"`, `label = "cs-1"`), `keys[2].label: "cs-1" is there twice`},
		"a label in capitals":            {replace(`label = "ds-1"`, `label = "DS-1"`), "keys[1].label"},
		"a label with a path":            {replace(`label = "ds-1"`, `label = "../ds"`), "keys[1].label"},
		"a label of 33 letters":          {replace(`label = "ds-1"`, `label = "`+strings.Repeat("x", 33)+`"`), "keys[1].label"},
		"no label":                       {replace(`label = "ds-1"`, ""), "keys[1].label"},
		"unknown purpose":                {replace(`purpose = "document-signer"`, `purpose = "tls"`), `keys[1].purpose: "tls"`},
		"unknown algorithm":              {replace(`algorithm = "ES256"`, `algorithm = "RS256"`), `keys[0].algorithm: "RS256"`},
		"a certified Ed25519 key":        {replace(`algorithm = "ES256"`, `algorithm = "EdDSA"`), "keys[0].algorithm"},
		"a sealing key that signs":       {replace(`algorithm = "A256GCM"`, `algorithm = "ES256"`), "keys[7].algorithm"},
		"a signing key that seals":       {replace(`algorithm = "EdDSA"`, `algorithm = "A256GCM"`), "keys[6].algorithm"},
		"an IACA under another":          {replace("days = 3285", "days = 3285\nunder = \"iaca-0\""), "keys[0].under"},
		"a document signer under nobody": {replace("under = \"iaca-1\"", ""), "keys[1].under"},
		"no common name":                 {replace(`common_name = "Utopia IACA 1"`, ""), "keys[0].common_name"},
		"no days":                        {replace("days = 3285", ""), "keys[0].common_name, days"},
		"21 years":                       {replace("days = 3285", "days = 7301"), "keys[0].common_name, days"},
		"a DID key with a certificate":   {key(did + "days = 30\n[keys.profile]\nformats = [\"jwt_vc_json\"]\ntypes = [\"T\"]\nlongest_validity_hours = 24\n"), "keys[8].under, common_name, days"},
		"a second checkpoint key":        {key("label = \"cp-2\"\npurpose = \"checkpoint\"\nalgorithm = \"ES256\"\n"), "keys[8].purpose: a second checkpoint key"},
		"a second sealing key":           {key("label = \"se-2\"\npurpose = \"sealing\"\nalgorithm = \"A256GCM\"\n"), "keys[8].purpose: a second sealing key"},
		"an IACA with a profile":         {replace("days = 3285", "days = 3285\n[keys.profile]\nformats = [\"mso_mdoc\"]"), "keys[0].profile"},
		"no profile":                     {key(ds), "keys[8].profile.formats: missing"},
		"another purpose's format":       {key(ds + strings.Replace(mdoc, "mso_mdoc", "dc+sd-jwt", 1)), "may not sign dc+sd-jwt"},
		"half a format's name":           {key(ds + strings.Replace(mdoc, "mso_mdoc", "mdoc", 1)), "may not sign mdoc"},
		"no types":                       {key(ds + strings.Replace(mdoc, "types = [\"t\"]\n", "", 1)), "keys[8].profile.types"},
		"no longest validity":            {key(ds + strings.Replace(mdoc, "longest_validity_hours = 24\n", "", 1)), "profile.longest_validity_hours"},
		"a longest validity of -1":       {key(ds + strings.Replace(mdoc, "= 24", "= -1", 1)), "profile.longest_validity_hours"},
		"a longest validity of 21 years": {key(ds + strings.Replace(mdoc, "= 24", "= 184086", 1)), "longest_validity_hours: 184086"},
		"a cap below 0":                  {key(ds + mdoc + "rate_per_minute = -1\n"), "rate_per_minute: -1"},
		"a cap that is none":             {key(ds + mdoc + "rate_per_minute = 1000001\n"), "rate_per_minute: 1000001"},
		"an mdoc's issuer":               {key(ds + mdoc + "issuer = \"https://localhost:8443\"\n"), "keys[8].profile.issuer: an mdoc"},
		"another issuer":                 {replace("types = [\"urn:eudi:pid:1\"]\nissuer = \"https://localhost:8443\"", "types = [\"urn:eudi:pid:1\"]\nissuer = \"https://localhost\""), "keys[2].profile.issuer"},
		"metadata of no issuer":          {replace("formats = [\"metadata+jwt\"]\nissuer = \"https://localhost:8443\"", "formats = [\"metadata+jwt\"]"), "keys[5].profile.issuer, profile.types"},
		"metadata of another issuer":     {replace("formats = [\"metadata+jwt\"]\nissuer = \"https://localhost:8443\"", "formats = [\"metadata+jwt\"]\nissuer = \"https://localhost\""), "keys[5].profile.issuer"},
		"metadata with types":            {replace("formats = [\"metadata+jwt\"]", "formats = [\"metadata+jwt\"]\ntypes = [\"t\"]"), "keys[5].profile.issuer, profile.types"},
		"domain linkage without an end":  {replace("types = [\"ResidencePermitCredential\"]\nlongest_validity_hours = 8760", "types = [\"ResidencePermitCredential\"]"), "keys[3].profile.longest_validity_hours, profile.issuer"},
		"domain linkage of no DID":       {key(did + "[keys.profile]\nformats = [\"dc+sd-jwt\", \"domainlinkage\"]\ntypes = [\"T\"]\nlongest_validity_hours = 24\nissuer = \"https://localhost:8443\"\n"), "keys[8].profile.longest_validity_hours, profile.issuer"},
		"domain linkage by another":      {key(ds + strings.Replace(mdoc, "mso_mdoc", "domainlinkage", 1)), "may not sign domainlinkage"},
		"domain linkage as a VC":         {replace(`types = ["ResidencePermitCredential"]`, `types = ["ResidencePermitCredential", "DomainLinkageCredential"]`), "keys[3].profile.types: remove DomainLinkageCredential"},
		"another DID":                    {key(did + "[keys.profile]\nformats = [\"jwt_vc_json\"]\ntypes = [\"T\"]\nlongest_validity_hours = 24\nissuer = \"did:web:localhost\"\n"), "keys[8].profile.issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePlan([]byte(c.plan))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := ParsePlan([]byte(key(did + "[keys.profile]\nformats = [\"domainlinkage\"]\nlongest_validity_hours = 720\nissuer = \"did:web:localhost%3A8443\"\n"))); err != nil {
		t.Errorf("a DID key for nothing but domain linkage: %v", err)
	}
	for name, issuer := range map[string]string{"its did:web": "did:web:localhost%3A8443", "the issuer": "https://localhost:8443"} {
		if _, err := ParsePlan([]byte(key(did + "[keys.profile]\nformats = [\"jwt_vc_json\"]\ntypes = [\"T\"]\nlongest_validity_hours = 24\nissuer = \"" + issuer + "\"\n"))); err != nil {
			t.Errorf("a DID key in the name of %s: %v", name, err)
		}
	}
}

// TestAgainst holds a good plan against what exists.
func TestAgainst(t *testing.T) {
	plan := func(change func(p *Plan)) *Plan {
		p, err := ParsePlan([]byte(example(t)))
		if err != nil {
			t.Fatal(err)
		}
		change(p)
		return p
	}
	same := func(*Plan) {}
	r := registry.New()
	for _, k := range []registry.Key{
		{Label: "iaca-0", Purpose: wire.PurposeIACA}, {Label: "ds-0", Purpose: wire.PurposeDocumentSigner},
		{Label: "seal-0", Purpose: wire.PurposeSealing}, {Label: "check-0", Purpose: wire.PurposeCheckpoint},
	} {
		r.Keys[k.Label] = k
	}
	free := func(p *Plan) { p.Keys = p.Keys[:4] } // without the keys of which there is one
	for name, c := range map[string]struct {
		change   func(p *Plan)
		registry *registry.Registry
		labels   []string
		want     []string // nil: good
	}{
		"nothing there":              {same, registry.New(), nil, nil},
		"other objects":              {same, registry.New(), []string{"", "tls", "IACA-1"}, nil},
		"a label in the token":       {same, registry.New(), []string{"ds-1"}, []string{`keys[1].label: "ds-1" is in the token already`}},
		"a label in the log":         {func(p *Plan) { free(p); p.Keys[1].Label = "ds-0" }, r, nil, []string{`keys[1].label: "ds-0" is in the audit log already`}},
		"all faults are listed":      {free, registry.New(), []string{"ds-1", "cs-1"}, []string{"keys[1]", "keys[2]"}},
		"the one sealing key":        {same, r, nil, []string{"keys[6].purpose: there is a checkpoint key already", "keys[7].purpose: there is a sealing key already"}},
		"an earlier ceremony's IACA": {func(p *Plan) { free(p); p.Keys[1].Under = "iaca-0" }, r, nil, nil},
		"under an unknown key":       {func(p *Plan) { free(p); p.Keys[1].Under = "iaca-9" }, r, nil, []string{`keys[1].under: "iaca-9"`}},
		"under a document signer":    {func(p *Plan) { free(p); p.Keys[2].Under = "ds-1" }, r, nil, []string{`keys[2].under: "ds-1"`}},
		"under an earlier one":       {func(p *Plan) { free(p); p.Keys[1].Under = "ds-0" }, r, nil, []string{`keys[1].under: "ds-0"`}},
		"under one that comes later": {func(p *Plan) { free(p); p.Keys[0], p.Keys[1] = p.Keys[1], p.Keys[0] }, r, nil, []string{`keys[0].under: "iaca-1"`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := plan(c.change).against(c.registry, c.labels)
			if (err == nil) != (c.want == nil) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			}
		})
	}
}

// TestPeriod begins with the day, so that a credential whose time is cut to the
// day is within it, and ends with a day.
func TestPeriod(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	from, until := PlannedKey{Days: 2}.period(time.Date(2026, 3, 1, 1, 30, 0, 0, zone)) // in UTC the day before
	if want := time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC); !from.Equal(want) || !until.Equal(want.AddDate(0, 0, 2).Add(-time.Second)) {
		t.Errorf("%v to %v", from, until)
	}
}

func TestFingerprint(t *testing.T) {
	if got := fingerprint([]byte("abc")); got != "ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad" {
		t.Errorf("%s", got)
	}
}

// FuzzPlan parses plans as anybody may write them: what is taken names each key
// once, within the bounds that the rest relies on.
func FuzzPlan(f *testing.F) {
	text := example(f)
	f.Add(text)
	for i := range strings.Count(text, "[[keys]]") {
		parts := strings.Split(text, "[[keys]]")
		f.Add(parts[0] + "[[keys]]" + parts[i+1])
	}
	f.Add("issuer = \"https://a\"\noutput = \"o\"\ncontact_url = \"https://a\"\nkeys = [{label = \"a\", purpose = \"sealing\", algorithm = \"A256GCM\"}]")
	f.Add("keys = [1]")
	f.Add("crl_days = 9223372036854775807")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePlan([]byte(text))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, k := range p.Keys {
			_, certified := certified[k.Purpose]
			if seen[k.Label] || !labelPattern.MatchString(k.Label) || certified && (curves[k.Algorithm] == nil || k.Days < 1) {
				t.Fatalf("%+v was taken", k)
			}
			seen[k.Label] = true
			from, until := k.period(time.Unix(1_800_000_000, 0))
			if certified && !until.After(from) {
				t.Fatalf("%d days end before they begin", k.Days)
			}
		}
		if p.CRLDays < 1 || p.CRLDays > 90 || len(p.Keys) == 0 || p.Output == "" {
			t.Fatalf("%+v was taken", p)
		}
		(&act{plan: p}).outputs()
	})
}

// TestManual wants docs/ceremony.md to explain every key of a plan, every purpose
// and the errors that an operator has to act on.
func TestManual(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "ceremony.md"))
	if err != nil {
		t.Fatal(err)
	}
	manual := string(data)
	var names []string
	for _, of := range []reflect.Type{reflect.TypeFor[Plan](), reflect.TypeFor[PlannedKey](), reflect.TypeFor[issuance.Profile]()} {
		for i := range of.NumField() {
			names = append(names, of.Field(i).Tag.Get("toml"))
		}
	}
	for purpose := range certified {
		names = append(names, string(purpose))
	}
	names = append(names, string(wire.PurposeDID), string(wire.PurposeCheckpoint), string(wire.PurposeSealing))
	for _, name := range names {
		if name == "keys" {
			name = "[[keys]]"
		} else if name == "profile" {
			name = "[keys.profile]"
		}
		if !strings.Contains(manual, "`"+name+"`") {
			t.Errorf("the manual does not explain `%s`", name)
		}
	}
	source, err := os.ReadFile("run.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"could not be destroyed", "whether the new keys are recorded is not known", "the keys are made and recorded, but"} {
		if !strings.Contains(manual, message) || !strings.Contains(string(source), message) {
			t.Errorf("%q is not in both the manual and the code", message)
		}
	}
}
