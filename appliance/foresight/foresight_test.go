package foresight

import (
	"crypto/rand"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/issuance/iaca"
)

// short is a finding as the table names it.
func short(r Report, f Finding) string {
	line := f.Rule + " " + string(f.Severity) + " " + f.Subject + " " + r.Horizon(f)
	if !f.Begins.IsZero() {
		line += " " + day(f.Begins)
	}
	return line
}

// cases is what can be wrong, one thing at a time, with everything that follows.
var cases = map[string]struct {
	change func(*world)
	want   []string // rule, severity, subject, horizon, and when it begins if it does not yet hold
}{
	"nothing": {func(*world) {}, nil},

	"a signer with 5 days left": {func(w *world) { w.under("ds-1", iaca.DocumentSigner, iaca.Plan{NotAfter: after(5)}) },
		[]string{"certificate-expired error ds-1 week 2027-03-21", "validity-cut warning " + pidMdoc + " now", "validity-cut warning " + mdl + " now",
			"validity-too-short error " + pidMdoc + " week 2027-03-19 14:24 UTC", "validity-too-short error " + mdl + " week 2027-03-18"}},
	"a signer that ends today": {func(w *world) { w.under("cs-1", iaca.CredentialSigner, iaca.Plan{NotAfter: after(0)}) },
		[]string{"certificate-expired error cs-1 day 2027-03-16", "validity-too-short error " + pidSDJWT + " now"}},
	"a signer with 29 days left": {func(w *world) { w.under("cs-1", iaca.CredentialSigner, iaca.Plan{NotAfter: after(29)}) },
		[]string{"certificate-expired error cs-1 month 2027-04-14", "validity-cut warning " + pidSDJWT + " month 2027-04-01", "validity-too-short error " + pidSDJWT + " month 2027-04-12 14:24 UTC"}},
	"a signer that has ended": {func(w *world) { w.under("cs-1", iaca.CredentialSigner, iaca.Plan{NotAfter: after(-1)}) },
		[]string{"certificate-expired error cs-1 now"}},
	"a signer that begins in three days": {func(w *world) {
		w.under("cs-1", iaca.CredentialSigner, iaca.Plan{NotBefore: start.Add(3 * day24), NotAfter: after(400)})
	},
		[]string{"certificate-not-yet-valid error cs-1 now"}},
	"a metadata signer that ends in a week": {func(w *world) { w.under("metadata-1", iaca.MetadataSigner, iaca.Plan{NotAfter: after(7)}) },
		[]string{"certificate-expired error metadata-1 month 2027-03-23"}},
	"a retired signer that has ended": {func(w *world) {
		w.in.Identities = append(w.in.Identities, *w.id("cs-1"))
		w.in.Identities[len(w.in.Identities)-1].Label = "cs-0"
		w.keys["cs-0"] = w.keys["cs-1"]
		w.under("cs-0", iaca.CredentialSigner, iaca.Plan{NotAfter: after(-1)})
	}, nil},

	"a configuration whose key is not there": {func(w *world) { w.configuration(mdl).Signer = "ds-9" }, []string{"key-missing error " + mdl + " now"}},
	"no sealing key": {func(w *world) {
		w.in.Identities = slices.DeleteFunc(w.in.Identities, func(id wire.Identity) bool { return id.Purpose == wire.PurposeSealing })
	},
		[]string{"key-missing error sealing now"}},
	"a signer that does not sign": {func(w *world) { w.id("ds-1").Ready = false }, []string{"key-not-ready error ds-1 now"}},
	"an IACA that does not sign":  {func(w *world) { w.id("iaca-1").Ready = false }, []string{"key-not-ready warning iaca-1 now"}},
	"a token that is away": {func(w *world) {
		w.id("ds-1").Ready, w.in.Outages = false, []string{"the signer is degraded: token-gone"}
	}, []string{"outage error appliance now"}},
	"a signer that was never asked": {func(w *world) {
		w.in.Identities, w.in.Outages = nil, []string{"the signer does not answer"}
	}, []string{"outage error appliance now"}},

	"another type":             {func(w *world) { w.id("ds-1").Profile.Types = []string{"org.iso.18013.5.1.mDL"} }, []string{"profile error " + pidMdoc + " now"}},
	"another format":           {func(w *world) { w.configuration(residence).Signer = "cs-1" }, []string{"profile error " + residence + " now"}},
	"another issuer":           {func(w *world) { w.id("cs-1").Profile.Issuer = "https://other.example" }, []string{"profile error " + pidSDJWT + " now"}},
	"another DID":              {func(w *world) { w.id("did-1").Profile.Issuer = "did:web:other.example" }, []string{"profile error " + residence + " now"}},
	"a DID key for an issuer":  {func(w *world) { w.id("did-1").Profile.Issuer = issuer }, nil},
	"a longer validity":        {func(w *world) { w.id("did-1").Profile.LongestValidityHours = 2159 }, []string{"profile error " + residence + " now"}},
	"an IACA as signer":        {func(w *world) { w.configuration(mdl).Signer = "iaca-1" }, []string{"profile error " + mdl + " now"}},
	"metadata of another":      {func(w *world) { w.id("metadata-1").Profile.Issuer = "https://other.example" }, []string{"profile error metadata-1 now"}},
	"no metadata signer":       {func(w *world) { w.in.MetadataSigner = "metadata-9" }, []string{"metadata-signer-missing error metadata-9 now"}},
	"unsigned metadata":        {func(w *world) { w.in.MetadataSigner = "" }, nil},
	"a signer no certificate":  {func(w *world) { w.id("cs-1").Chain = nil }, []string{"certificate-missing error " + pidSDJWT + " now"}},
	"metadata no certificate":  {func(w *world) { w.id("metadata-1").Chain = nil }, []string{"certificate-missing error metadata-1 now"}},
	"a certificate that is no": {func(w *world) { w.id("ds-1").Chain = [][]byte{{0x30}} }, []string{"certificate-unreadable error ds-1 now"}},

	"an old certificate, a new key": {func(w *world) { w.id("ds-1").PublicKey = w.spki(w.keys["other"]) }, []string{"certificate-key error ds-1 now"}},
	"another name": {func(w *world) {
		w.outside("cs-1", func(c *x509.Certificate) { c.DNSNames, c.URIs = []string{"other.example"}, nil })
	}, []string{"certificate-name error cs-1 now"}},
	"the name as a URI": {func(w *world) {
		w.outside("metadata-1", func(c *x509.Certificate) {
			c.DNSNames, c.URIs = nil, []*url.URL{{Scheme: "https", Host: "issuer.example"}}
		})
	}, nil},
	"longer than the IACA": {func(w *world) {
		w.outside("ds-1", func(c *x509.Certificate) { c.NotAfter = after(3001) })
	}, []string{"nesting error ds-1 now"}},
	"another IACA": {func(w *world) {
		w.id("ds-1").Anchor = w.selfSigned(w.root, "other")
	}, []string{"chain error ds-1 now"}},
	"an IACA that is elsewhere": {func(w *world) {
		for _, label := range []string{"ds-1", "cs-1", "metadata-1"} {
			w.outside(label, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"https://root.example/1.crl"} })
		}
		w.in.Identities = w.in.Identities[1:]
	}, nil},
	"no anchor":              {func(w *world) { w.id("ds-1").Anchor = nil }, []string{"anchor-missing warning ds-1 now"}},
	"an anchor that is none": {func(w *world) { w.id("ds-1").Anchor = []byte{0x30} }, []string{"chain error ds-1 now"}},

	"an IACA with 100 days left": {func(w *world) { w.shorterRoot(100) },
		[]string{"iaca-ending warning iaca-1 now"}},
	"an IACA that ends in 20 days": {func(w *world) { w.shorterRoot(20) },
		[]string{"certificate-expired error cs-1 month 2027-04-05", "certificate-expired error ds-1 month 2027-04-05", "certificate-expired error iaca-1 month 2027-04-05", "certificate-expired error metadata-1 month 2027-04-05",
			"iaca-ending warning iaca-1 now", "validity-cut warning " + pidMdoc + " month 2027-03-23", "validity-cut warning " + pidSDJWT + " month 2027-03-23", "validity-cut warning " + mdl + " now",
			"validity-too-short error " + pidMdoc + " month 2027-04-03 14:24 UTC", "validity-too-short error " + pidSDJWT + " month 2027-04-03 14:24 UTC", "validity-too-short error " + mdl + " month 2027-04-02"}},

	"a list in the middle of its life": {func(w *world) { w.crl(7, start.Add(-30*day24), after(29)) }, nil},
	"a list that should be renewed":    {func(w *world) { w.crl(7, start.Add(-50*day24), after(9)) }, []string{"crl-expired error iaca-1 month 2027-03-24", "crl-late warning iaca-1 now"}},
	"a list that has ended":            {func(w *world) { w.crl(7, start.Add(-50*day24), after(-1)) }, []string{"crl-expired error iaca-1 now"}},
	"a list of another IACA": {func(w *world) {
		old := w.id("iaca-1").CRL
		w.shorterRoot(2999)
		w.id("iaca-1").CRL = flip(old)
	}, []string{"crl-wrong error iaca-1 now"}},
	"a list that is none":  {func(w *world) { w.id("iaca-1").CRL = []byte{0x30} }, []string{"crl-wrong error iaca-1 now"}},
	"a signer in the list": {func(w *world) { w.crl(2, start.Add(-day24), after(59), "cs-1") }, []string{"certificate-revoked error cs-1 now"}},
	"no list": {func(w *world) { w.id("iaca-1").CRL = nil },
		[]string{"crl-missing error cs-1 now", "crl-missing error ds-1 now", "crl-missing error metadata-1 now"}},

	"a TLS certificate of a year": {func(w *world) { w.in.Listeners[0].Chain = w.tls(start.Add(-345*day24), after(20), "issuer.example") },
		[]string{"certificate-expired error wallet listener month 2027-04-05"}},
	"a TLS certificate that has ended": {func(w *world) { w.in.Listeners[1].Chain = w.tls(start.Add(-345*day24), after(-1), "x.example") },
		[]string{"certificate-expired error admin listener now"}},
	"a TLS certificate of the future": {func(w *world) { w.in.Listeners[1].Chain = w.tls(noon.Add(time.Hour), after(90), "x.example") },
		[]string{"certificate-not-yet-valid error admin listener now"}},
	"a TLS certificate that renews itself": {func(w *world) { w.in.Listeners[0].Chain = w.tls(start.Add(-60*day24), after(29), "issuer.example") }, nil},
	"one that has not been renewed": {func(w *world) { w.in.Listeners[0].Chain = w.tls(start.Add(-80*day24), after(9), "issuer.example") },
		[]string{"certificate-expired error wallet listener month 2027-03-25"}},
	"another host's": {func(w *world) { w.in.Listeners[0].Chain = w.tls(start.Add(-30*day24), after(300), "other.example") }, []string{"tls-name error wallet listener now"}},
	"another host's, behind a proxy": {func(w *world) {
		w.in.Listeners[0] = Listener{Name: "wallet", Chain: w.tls(start.Add(-30*day24), after(300), "other.example")}
	}, nil},

	"a DID of another host":   {func(w *world) { w.did("did:web:other.example") }, []string{"did-host error did-1 now"}},
	"a DID with a path":       {func(w *world) { w.did("did:web:issuer.example:tenant") }, nil},
	"a DID that is none":      {func(w *world) { w.id("did-1").DID, w.id("did-1").Profile.Issuer = "did:web:", "did:web:" }, []string{"did-host error did-1 now"}},
	"no DID document":         {func(w *world) { w.id("did-1").DIDDocument = nil }, []string{"did-document error did-1 now"}},
	"a document that is none": {func(w *world) { w.id("did-1").DIDDocument = []byte("{") }, []string{"did-document error did-1 now"}},
	"another DID's document":  {func(w *world) { w.replaceInDocument(`"id":"did:web:issuer.example"`, `"id":"did:web:x.example"`) }, []string{"did-document error did-1 now"}},
	"another key in it":       {func(w *world) { w.id("did-1").PublicKey = w.spki(w.keys["other"]) }, []string{"did-document error did-1 now"}},
	"not in it":               {func(w *world) { w.id("did-1").KeyID += "x" }, []string{"did-document error did-1 now"}},
	"no assertion method":     {func(w *world) { w.replaceInDocument(`"assertionMethod"`, `"authentication"`) }, []string{"did-document error did-1 now"}},

	"an event of tomorrow":    {func(w *world) { w.in.Newest = noon.Add(day24) }, []string{"clock-behind error clock now"}},
	"an event of right now":   {func(w *world) { w.in.Newest = noon.Add(time.Minute) }, nil},
	"before the program":      {func(w *world) { w.in.Written = noon.Add(time.Hour) }, []string{"clock-behind error clock now"}},
	"before the list's start": {func(w *world) { w.crl(3, noon.Add(time.Hour), after(59)) }, []string{"clock-behind error clock now"}},
}

// shorterRoot makes everything anew under a root that ends.
func (w *world) shorterRoot(days int) {
	w.anchor(iaca.Plan{NotAfter: after(days)})
	end := after(min(days, 400))
	w.under("ds-1", iaca.DocumentSigner, iaca.Plan{NotAfter: end})
	w.under("cs-1", iaca.CredentialSigner, iaca.Plan{NotAfter: end})
	w.under("metadata-1", iaca.MetadataSigner, iaca.Plan{NotAfter: end})
	w.crl(1, start.Add(-10*day24), after(min(days, 50)))
}

// selfSigned makes a root of another key that has the same name and dates.
func (w *world) selfSigned(root *x509.Certificate, label string) []byte {
	w.t.Helper()
	template := *root
	template.PublicKey = w.keys[label].Public()
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, w.keys[label].Public(), w.keys[label])
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

func (w *world) replaceInDocument(old, replacement string) {
	id := w.id("did-1")
	text := string(id.DIDDocument)
	if !strings.Contains(text, old) {
		w.t.Fatalf("%s does not hold %s", text, old)
	}
	id.DIDDocument = []byte(strings.Replace(text, old, replacement, 1))
}

// flip changes the last bit: the signature's.
func flip(der []byte) []byte {
	der = slices.Clone(der)
	der[len(der)-1] ^= 1
	return der
}

// TestFindings: each fault gives just its own findings.
func TestFindings(t *testing.T) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			r := Look(w.in, noon)
			var got []string
			for _, f := range r.Findings {
				got = append(got, short(r, f))
				for _, text := range []string{f.Text, f.Remedy} {
					if !strings.HasSuffix(text, ".") || strings.Contains(text, "%!") || strings.Contains(text, "..") {
						t.Errorf("no sentence: %q", text)
					}
				}
				t.Log(f.Text)
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}

// TestEveryRule: each rule of the code is in the table, and in the operators' page.
func TestEveryRule(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	var tested []string
	for _, c := range cases {
		for _, line := range c.want {
			tested = append(tested, strings.Fields(line)[0])
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, match := range regexp.MustCompile(`(?:Rule: |wrong\(|Rule\w+ += )"([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
			rules++
			if !slices.Contains(tested, match[1]) {
				t.Errorf("no case has the rule %s", match[1])
			}
			if !strings.Contains(string(page), "`"+match[1]+"`") {
				t.Errorf("rule %s is not in docs/operations.md", match[1])
			}
		}
	}
	if rules < 20 {
		t.Errorf("only %d rules were found in the code", rules)
	}
}

// TestReport: counts, the nearest break and the state of a report.
func TestReport(t *testing.T) {
	flawless := Look(newWorld(t).in, noon)
	if _, breaks := flawless.Nearest(); breaks || flawless.Count(Horizons[3], Error) != 0 {
		t.Errorf("a sound world: %+v", flawless)
	}
	w := newWorld(t)
	w.under("ds-1", iaca.DocumentSigner, iaca.Plan{NotAfter: after(5)})
	r := Look(w.in, noon)
	for i, want := range [][2]int{{0, 2}, {0, 2}, {1, 0}, {1, 0}} {
		if got := [2]int{r.Count(Horizons[i], Error), r.Count(Horizons[i], Warning)}; got != want {
			t.Errorf("%s: %v errors and warnings, want %v", Horizons[i].Name, got, want)
		}
	}
	// The mDL's thirty days fall below a tenth first.
	if nearest, breaks := r.Nearest(); !breaks || !nearest.Equal(after(5).Add(time.Second-3*day24)) {
		t.Errorf("nearest %v", nearest)
	}
	if r.State() == flawless.State() || r.State() != Look(w.in, noon.Add(time.Hour)).State() || r.State() == Look(w.in, noon.Add(2*day24)).State() {
		t.Error("the state must change with what is found, and with nothing else")
	}
	w.id("cs-1").Ready, w.in.Outages = false, nil
	if Look(w.in, noon).State() != r.State() {
		t.Error("a key that does not sign for a while changes the state")
	}
}
