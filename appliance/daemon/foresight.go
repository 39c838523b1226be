package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chancery/appliance/foresight"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
)

const (
	// foreseeEvery is the time between two looks ahead when nothing changes.
	foreseeEvery = time.Hour
	// foresightKind is the event that tells what was seen.
	foresightKind = "appliance.foresight"
	// witnesses is how many of the latest events are asked for the time.
	witnesses = 256
	// listed bounds the findings in /readyz and in a line of the log.
	listed = 10
)

// written is a time before which this program did not exist: the first of the
// month in which this line was last looked at.
var written = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// Descriptions of what the latest look ahead found.
var (
	foresightFindings = prometheus.NewDesc("chancery_foresight_findings", "What is wrong at the horizon (now, day, week, month), by severity (error, warning).", []string{"severity", "horizon"}, nil)
	foresightNearest  = prometheus.NewDesc("chancery_foresight_nearest_seconds", "When the next thing breaks that works now, Unix time; absent when nothing does within 30 days.", nil, nil)
	foresightLooked   = prometheus.NewDesc("chancery_foresight_looked_seconds", "When the latest look ahead was, Unix time.", nil, nil)
)

// outlook is what the latest look ahead was made of. It belongs to the goroutine
// that refreshes.
type outlook struct {
	at           time.Time // at first, the start
	identities   []wire.Identity
	certificates []*tls.Certificate
	// state and day are what the latest event told; empty before the first look.
	state, day string
}

// due tells whether it is time for another look, and remembers what it is made
// of: an hour has passed, the clock was set back, or keys or TLS certificates
// have changed. The first waits for the keys, for an hour at most.
func (o *outlook) due(now time.Time, identities []wire.Identity, certificates []*tls.Certificate) bool {
	passed := now.Sub(o.at)
	same := len(identities) == 0 || slices.Equal(o.certificates, certificates) && reflect.DeepEqual(o.identities, identities)
	if passed >= 0 && passed < foreseeEvery && same {
		return false
	}
	o.at, o.identities, o.certificates = now, identities, certificates
	return true
}

// foresee looks ahead when it is due, for metrics, readiness, log and events.
func (d *appliance) foresee(ctx context.Context, o *outlook) {
	now := time.Now()
	if !o.due(now, d.issuer.Identities(), d.metrics.present()) {
		return
	}
	report := foresight.Look(d.facts(ctx), now)
	d.foreseen.Store(&report)
	if err := d.tellForesight(ctx, o, report); err != nil && ctx.Err() == nil {
		d.log.Error("what was foreseen could not be recorded", "error", err.Error())
	}
}

// lookAhead is a look for an operator who asks: it says, too, what does not
// answer at the moment.
func (d *appliance) lookAhead(ctx context.Context) foresight.Report {
	facts := d.facts(ctx)
	facts.Outages = d.outages(ctx)
	return foresight.Look(facts, time.Now())
}

// facts gathers what is known.
func (d *appliance) facts(ctx context.Context) foresight.Input {
	o := d.cfg.Issuer
	in := foresight.Input{Identifier: o.Identifier, MetadataSigner: o.MetadataSigner, MetadataLifetime: o.MetadataLifetime.Std(),
		Configurations: d.issuer.Configurations(), Identities: d.issuer.Identities(), Written: written}
	d.metrics.mu.Lock()
	for _, c := range d.metrics.certificates {
		// Before a proxy that has the TLS connection, the name is the proxy's matter.
		listener := foresight.Listener{Name: c.name, Host: c.name == "wallet" && o.HTTP.ForwardedHeader == ""}
		for _, der := range c.present.Load().Certificate {
			if parsed, err := x509.ParseCertificate(der); err == nil {
				listener.Chain = append(listener.Chain, parsed)
			}
		}
		in.Listeners = append(in.Listeners, listener)
	}
	d.metrics.mu.Unlock()
	events, _, err := d.store.Events(ctx, store.EventFilter{}, witnesses, "")
	if err != nil {
		return in // readiness says that the database does not answer
	}
	for _, e := range events {
		if e.Time.After(in.Newest) {
			in.Newest = e.Time
		}
	}
	return in
}

// tellForesight records a look once a day and when it differs from the one
// before, also from the one before a restart.
func (d *appliance) tellForesight(ctx context.Context, o *outlook, r foresight.Report) error {
	if o.day == "" {
		latest, _, err := d.store.Events(ctx, store.EventFilter{Kind: foresightKind}, 1, "")
		if err != nil {
			return err
		}
		for _, e := range latest {
			o.state, o.day = e.Detail["state"], e.Time.UTC().Format(time.DateOnly)
		}
	}
	state, day := r.State(), r.At.Format(time.DateOnly)
	if o.state == state && o.day == day {
		return nil
	}
	detail := map[string]string{"state": state, "warnings": strconv.Itoa(r.Count(foresight.Horizons[0], foresight.Warning))}
	for _, h := range foresight.Horizons {
		detail["errors_"+h.Name] = strconv.Itoa(r.Count(h, foresight.Error))
	}
	nearest, breaks := r.Nearest()
	if breaks {
		detail["nearest"] = nearest.Format(time.RFC3339)
	}
	if err := d.store.Append(ctx, store.Event{Kind: foresightKind, Actor: "appliance", Detail: detail}); err != nil {
		return err
	}
	o.state, o.day = state, day
	if lines := foreseenLines(&r); len(lines) > 0 {
		d.log.Warn("foreseen", "findings", lines)
	} else {
		d.log.Info("nothing ends within 30 days that issuing needs")
	}
	return nil
}

// foreseenLines are a report's findings in a line each, without what readiness
// says anyway.
func foreseenLines(r *foresight.Report) []string {
	if r == nil {
		return nil
	}
	var lines []string
	for _, f := range r.Findings {
		if f.Rule == foresight.RuleOutage || f.Rule == foresight.RuleKeyNotReady {
			continue
		}
		when := "now"
		if h := r.Horizon(f); h != when {
			when = "within a " + h
		}
		lines = append(lines, fmt.Sprintf("%s (%s): %s", when, f.Severity, f.Text))
	}
	if more := len(lines) - listed; more > 0 {
		lines = append(lines[:listed], fmt.Sprintf("and %d more: chancery doctor lists them", more))
	}
	return lines
}

// collectForesight tells what the latest look found.
func (m *metrics) collectForesight(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	r := m.d.foreseen.Load()
	if r == nil {
		return
	}
	for _, h := range foresight.Horizons {
		for _, s := range []foresight.Severity{foresight.Error, foresight.Warning} {
			gauge(foresightFindings, float64(r.Count(h, s)), string(s), h.Name)
		}
	}
	if nearest, breaks := r.Nearest(); breaks {
		gauge(foresightNearest, float64(nearest.Unix()))
	}
	gauge(foresightLooked, float64(r.At.Unix()))
}

// present are the listeners' certificates as they are served now.
func (m *metrics) present() []*tls.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*tls.Certificate
	for _, c := range m.certificates {
		all = append(all, c.present.Load())
	}
	return all
}
