// Package foresight answers whether issuing works now, tomorrow, in a week and
// in a month, and when each thing breaks: certificates and revocation lists that
// end, certificates that do not fit their issuer, keys that are missing or may
// not sign what a configuration says, a clock that is behind.
//
// It is pure: what there is and the time come from the caller. Each finding has
// an interval in which it holds, computed once from the dates in certificates,
// lists and configurations; a horizon is no more than an instant to hold it
// against. What renews itself (revocation lists, TLS certificates of short life)
// is a finding only when the renewal is late.
package foresight

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/issuance/configuration"
)

// Severity says what a finding means.
type Severity string

// The severities.
const (
	// Error: something that the appliance was set up for does not work, or
	// verifiers refuse what it issues.
	Error Severity = "error"
	// Warning: it works, but not as configured, or not for much longer.
	Warning Severity = "warning"
)

// Horizon is an instant of the future that a look asks about.
type Horizon struct {
	Name  string
	After time.Duration
}

// Horizons are all of them, the nearest first.
var Horizons = []Horizon{{"now", 0}, {"day", 24 * time.Hour}, {"week", 7 * 24 * time.Hour}, {"month", 30 * 24 * time.Hour}}

// Rules that other packages ask for by name.
const (
	// RuleOutage is something that does not answer at the moment.
	RuleOutage = "outage"
	// RuleKeyNotReady is a key whose last signature failed.
	RuleKeyNotReady = "key-not-ready"
)

// Finding is one thing that is wrong, or will be.
type Finding struct {
	// Rule names what was looked at, in lower case with hyphens.
	Rule     string
	Severity Severity
	// Subject is a key's label, a configuration's id, a listener's name or "clock".
	Subject string
	// Text and Remedy are plain sentences.
	Text, Remedy string
	// Begins is when it begins to hold; zero means that it does already. Ends is
	// when it holds no longer without anybody's doing; zero means never.
	Begins, Ends time.Time
}

// At tells whether the finding holds at t.
func (f Finding) At(t time.Time) bool {
	return !f.Begins.After(t) && (f.Ends.IsZero() || t.Before(f.Ends))
}

// Input is what there is to be looked at.
type Input struct {
	// Identifier is the Credential Issuer Identifier.
	Identifier string
	// MetadataSigner is the label of the key that signs the metadata; "" for none.
	MetadataSigner string
	// MetadataLifetime is the signed metadata's validity.
	MetadataLifetime time.Duration
	Configurations   []*configuration.Configuration
	// Identities are the signer's keys; none means that they are not known yet.
	Identities []wire.Identity
	Listeners  []Listener
	// Outages are things that do not answer now, each a sentence without its stop.
	Outages []string
	// Newest is the time of the newest event on record, zero for none. Written is
	// a time before which the program did not exist.
	Newest, Written time.Time
}

// Report is the result of a look.
type Report struct {
	// At is when it was made.
	At time.Time
	// Findings hold at some time within the farthest horizon, the first to begin
	// first.
	Findings []Finding
}

// look is a look under way.
type look struct {
	Input
	now    time.Time
	byKey  map[string]*wire.Identity
	found  []Finding
	signed map[string][]string // what each key in use signs, by label
}

// Look lists what is wrong at now, and what will be within 30 days.
func Look(in Input, now time.Time) Report {
	l := &look{Input: in, now: now.UTC(), byKey: map[string]*wire.Identity{}, signed: map[string][]string{}}
	for i := range in.Identities {
		l.byKey[in.Identities[i].Label] = &in.Identities[i]
	}
	for _, outage := range in.Outages {
		l.add(Finding{Rule: RuleOutage, Severity: Error, Subject: "appliance", Text: sentence(outage), Remedy: "See \"What to do when\" in docs/operations.md."})
	}
	l.clock()
	for _, listener := range in.Listeners {
		l.listener(listener)
	}
	if len(in.Identities) > 0 {
		l.configurations()
		l.metadataSigner()
		l.keys()
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(a.Begins.Compare(b.Begins), cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Subject, b.Subject))
	})
	return Report{l.now, l.found}
}

// add keeps a finding that holds within the farthest horizon. What has begun
// already loses the date of its beginning: it is in the text.
func (l *look) add(f Finding) {
	last := l.now.Add(Horizons[len(Horizons)-1].After)
	if f.Begins.After(last) || !f.Ends.IsZero() && (!f.Ends.After(l.now) || !f.Ends.After(f.Begins)) {
		return
	}
	if !f.Begins.After(l.now) {
		f.Begins = time.Time{}
	}
	f.Begins, f.Ends = f.Begins.UTC(), f.Ends.UTC()
	l.found = append(l.found, f)
}

// Horizon is the nearest one by which a finding of the report has begun.
func (r Report) Horizon(f Finding) string {
	last := len(Horizons) - 1
	for _, h := range Horizons[:last] {
		if !f.Begins.After(r.At.Add(h.After)) {
			return h.Name
		}
	}
	return Horizons[last].Name
}

// Count returns how many findings of a severity hold at a horizon.
func (r Report) Count(h Horizon, s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s && f.At(r.At.Add(h.After)) {
			n++
		}
	}
	return n
}

// Nearest is when the next thing breaks that does not yet; false when nothing does.
func (r Report) Nearest() (time.Time, bool) {
	for _, f := range r.Findings {
		if f.Severity == Error && !f.Begins.IsZero() {
			return f.Begins, true
		}
	}
	return time.Time{}, false
}

// State stands for what was found, to see a change by: which rules, of what, by
// which horizon. What comes and goes with an outage is not in it.
func (r Report) State() string {
	var lines []string
	for _, f := range r.Findings {
		if f.Rule != RuleOutage && f.Rule != RuleKeyNotReady {
			lines = append(lines, strings.Join([]string{f.Rule, string(f.Severity), f.Subject, r.Horizon(f)}, "\n"))
		}
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n\n")))
	return hex.EncodeToString(sum[:8])
}

// sentence gives a text a capital and a full stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// day shows a date, with the time of day when it is not the first or last second.
func day(t time.Time) string {
	t = t.UTC()
	if s := t.Truncate(24 * time.Hour); t.Equal(s) || t.Equal(s.Add(24*time.Hour-time.Second)) {
		return t.Format(time.DateOnly)
	}
	return t.Format("2006-01-02 15:04 UTC")
}

// ends says "ended on" or "ends on" a day.
func (l *look) ends(t time.Time) string {
	if t.Before(l.now) {
		return "ended on " + day(t)
	}
	return "ends on " + day(t)
}

// span shows a length of time to people.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return d.Round(time.Second).String()
}
