package foresight

import (
	"crypto/x509"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/issuancetest"
	"chancery/issuance/mdoc"
)

// drawn is a world with dates at random, near the time of the look.
func drawn(t *testing.T, r *rapid.T) *world {
	w := newWorld(t)
	instant := func(label string, from, to int) time.Time {
		return start.Add(time.Duration(rapid.IntRange(from*1440, to*1440).Draw(r, label)) * time.Minute)
	}
	for _, label := range []string{"ds-1", "cs-1", "metadata-1"} {
		notBefore, notAfter := instant(label+" from", -40, 20), instant(label+" to", 21, 90).Add(-time.Second)
		w.outside(label, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = notBefore, notAfter })
	}
	for i := range w.in.Listeners {
		w.in.Listeners[i].Chain = w.tls(instant("TLS from", -400, -200), instant("TLS to", -20, 90), "issuer.example")
	}
	w.crl(1, instant("CRL from", -40, -20), instant("CRL to", 0, 45))
	for _, c := range w.in.Configurations {
		c.ValidFor = time.Duration(rapid.IntRange(2, 24*60).Draw(r, "hours")) * time.Hour
	}
	w.in.Newest = instant("newest", -100, -50)
	return w
}

// TestForeseen: a finding at one horizon is there at every later one, unless it
// says that it ends before; and what was foreseen for a time is what is found when
// it has come.
func TestForeseen(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := drawn(t, r)
		now := noon.Add(time.Duration(rapid.IntRange(-20*1440, 20*1440).Draw(r, "minutes")) * time.Minute)
		report := Look(w.in, now)
		for i, h := range Horizons {
			for _, f := range report.Findings {
				if !f.At(now.Add(h.After)) {
					continue
				}
				for _, later := range Horizons[i+1:] {
					if then := now.Add(later.After); !f.At(then) && (f.Ends.IsZero() || f.Ends.After(then)) {
						r.Errorf("%s is gone at %s: %+v", short(report, f), later.Name, f)
					}
				}
			}
			then := now.Add(h.After)
			if foreseen, found := lasting(report, then), lasting(Look(w.in, then), then); !slices.Equal(foreseen, found) {
				r.Errorf("in a %s, at %v: foreseen %q, found %q", h.Name, then, foreseen, found)
			}
		}
	})
}

// lasting names what holds at t, but for revocation lists, which are expected to be renewed.
func lasting(r Report, t time.Time) []string {
	var names []string
	for _, f := range r.Findings {
		if f.At(t) && f.Rule != "crl-late" && f.Rule != "crl-expired" {
			names = append(names, f.Rule+" "+string(f.Severity)+" "+f.Subject)
		}
	}
	slices.Sort(names)
	return names
}

// document is a configuration of one claim.
const document = `id = "x"
format = "mso_mdoc"
signer = "ds-1"
doctype = "org.iso.18013.5.1.mDL"
validity = "48h"
[[display]]
name = "X"
[[claims]]
path = ["org.iso.18013.5.1", "family_name"]
type = "text"
required = true
`

// TestValidityIsCut: from the time foreseen on, credentials are what was foreseen,
// as the code that makes them has it, and not before.
func TestValidityIsCut(t *testing.T) {
	c, err := configuration.Parse("x.toml", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	holder := issuancetest.Key(t, issuance.ES256)
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t)
		c.ValidFor = time.Duration(rapid.IntRange(2, 24*60).Draw(r, "hours")) * time.Hour
		w.in.Configurations = []*configuration.Configuration{c}
		notAfter := start.Add(time.Duration(rapid.IntRange(1, 60*1440).Draw(r, "minutes")) * time.Minute)
		if rapid.Bool().Draw(r, "at a day's end") {
			notAfter = notAfter.Truncate(day24).Add(day24 - time.Second)
		}
		w.outside("ds-1", func(c *x509.Certificate) { c.NotAfter = notAfter })
		now := start.Add(time.Duration(rapid.IntRange(0, 60*1440).Draw(r, "now")) * time.Minute)
		leaf := w.parse(w.id("ds-1").Chain[0])
		prepared, err := c.Prepare(json.RawMessage(`{"family_name":"Zauber"}`), configuration.Material{Holder: holder.Public(), Chain: w.id("ds-1").Chain,
			Algorithm: issuance.ES256, Now: now, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter})
		cut := false
		if err == nil {
			s, parseErr := mdoc.ParseTBS(prepared.TBS)
			if parseErr != nil {
				t.Fatal(parseErr)
			}
			whole := until(c, now.Truncate(grain(c)))
			cut = s.ValidUntil.Before(whole)
		} else if now.Before(notAfter.Truncate(time.Second)) {
			r.Fatal(err)
		}
		found, ended := false, false
		for _, f := range Look(w.in, now).Findings {
			if f.At(now) {
				found = found || f.Rule == "validity-cut" || f.Rule == "validity-too-short"
				ended = ended || f.Rule == "certificate-expired"
			}
		}
		// Too short begins a tenth before the end, which for a validity of hours that
		// are counted whole may be before it is cut.
		if cut && !found && !ended || found && !cut && now.Before(notAfter.Add(-max(c.ValidFor/10, grain(c)))) {
			r.Errorf("valid %s, certificate to %v, now %v: cut %v, found %v, ended %v", c.ValidFor, notAfter, now, cut, found, ended)
		}
	})
}
