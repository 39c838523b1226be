package daemon

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"chancery/appliance/foresight"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
)

// TestForesightIsDue: at the start as soon as the keys are known, every hour,
// when keys or TLS certificates change, and when the clock was set back.
func TestForesightIsDue(t *testing.T) {
	began := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	keys := []wire.Identity{{Label: "ds-1", Ready: true}}
	away := []wire.Identity{{Label: "ds-1"}}
	one, other := []*tls.Certificate{{}}, []*tls.Certificate{{}}
	o := &outlook{at: began}
	for i, step := range []struct {
		after        time.Duration
		identities   []wire.Identity
		certificates []*tls.Certificate
		want         bool
	}{
		{time.Second, nil, one, false}, {2 * time.Second, keys, one, true}, {4 * time.Second, keys, one, false},
		{6 * time.Second, away, one, true}, {8 * time.Second, away, other, true}, {10 * time.Second, away, other, false},
		{time.Hour, away, other, false}, {time.Hour + 8*time.Second, away, other, true}, {30 * time.Minute, away, other, true}, {31 * time.Minute, away, other, false},
	} {
		if got := o.due(began.Add(step.after), step.identities, step.certificates); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	unknown := &outlook{at: began}
	if !unknown.due(began.Add(time.Hour), nil, one) || unknown.due(began.Add(time.Hour+time.Second), nil, one) {
		t.Error("without keys it is due after an hour")
	}
}

// TestForesightIsTold: once a day and on a change, also across a restart; in the
// log as a warning.
func TestForesightIsTold(t *testing.T) {
	_, d := walletListener(t, func(*config.Issuer) {})
	var log bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	now := time.Now().UTC()
	sound := foresight.Report{At: now}
	ending := foresight.Report{At: now, Findings: []foresight.Finding{{Rule: "certificate-expired", Severity: foresight.Error, Subject: "ds-1", Text: "The certificate of ds-1 ends.", Remedy: "Renew it.", Begins: now.Add(49 * time.Hour)}}}
	key := foresight.Report{At: now, Findings: append([]foresight.Finding{{Rule: foresight.RuleKeyNotReady, Severity: foresight.Error, Subject: "ds-1", Text: "It failed.", Remedy: "Look."}}, ending.Findings...)}
	tomorrow := ending
	tomorrow.At = now.Add(24 * time.Hour)
	count := 0
	tell := func(what string, o *outlook, r foresight.Report, more int) store.Event {
		t.Helper()
		if err := d.tellForesight(t.Context(), o, r); err != nil {
			t.Fatal(err)
		}
		events, _, err := d.store.Events(t.Context(), store.EventFilter{Kind: foresightKind}, 100, "")
		if err != nil {
			t.Fatal(err)
		}
		if count += more; len(events) != count {
			t.Fatalf("%s: %d events, want %d", what, len(events), count)
		}
		e := events[0]
		if err := (wire.Event{Time: e.Time.UnixMilli(), Kind: e.Kind, Actor: e.Actor, Subject: e.Subject, Detail: e.Detail}).Check(); err != nil {
			t.Errorf("%s: the log does not take it: %v", what, err)
		}
		return e
	}
	o := &outlook{}
	tell("the first", o, sound, 1)
	tell("the same", o, sound, 0)
	if !strings.Contains(log.String(), "level=INFO") || strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: %s", &log)
	}
	e := tell("a change", o, ending, 1)
	want := map[string]string{"state": ending.State(), "warnings": "0", "errors_now": "0", "errors_day": "0", "errors_week": "1", "errors_month": "1", "nearest": now.Add(49 * time.Hour).Format(time.RFC3339)}
	if !reflect.DeepEqual(e.Detail, want) || e.Actor != "appliance" {
		t.Errorf("got  %v\nwant %v", e.Detail, want)
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "within a week (error): The certificate of ds-1 ends.") {
		t.Errorf("log: %s", &log)
	}
	tell("a key that is away for a moment", o, key, 0)
	tell("a restart", &outlook{}, ending, 0)
	tell("a restart after a change", &outlook{}, sound, 1)
	tell("the change back", o, ending, 0) // another process told that; this one has told the same before
	tell("the next day", o, tomorrow, 1)
}

// TestForesightIsShown: what is to come is in readiness and metrics, in bounds,
// and does not make the appliance unready by itself.
func TestForesightIsShown(t *testing.T) {
	_, d := walletListener(t, func(*config.Issuer) {})
	show := func() (ready, metrics string) {
		w := httptest.NewRecorder()
		d.readyz(w, httptest.NewRequest("GET", "/readyz", nil))
		m := httptest.NewRecorder()
		d.metrics.handler().ServeHTTP(m, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String(), m.Body.String()
	}
	if ready, metrics := show(); strings.Contains(ready, "foresight") || strings.Contains(metrics, "chancery_foresight") {
		t.Error("something is shown before the first look")
	}
	now := time.Now()
	r := &foresight.Report{At: now}
	for n := range 14 {
		r.Findings = append(r.Findings, foresight.Finding{Rule: "r", Severity: foresight.Error, Subject: "s", Text: "Number " + strconv.Itoa(n) + ".", Begins: now.Add(25 * time.Hour)})
	}
	r.Findings[0].Rule = foresight.RuleOutage
	d.foreseen.Store(r)
	ready, metrics := show()
	for _, want := range []string{`"within a week (error): Number 1."`, `Number 10."`, `"and 3 more: chancery doctor lists them"`} {
		if !strings.Contains(ready, want) {
			t.Errorf("%s is not in %s", want, ready)
		}
	}
	if strings.Contains(ready, "Number 0") || strings.Contains(ready, "Number 11") || strings.Contains(ready, "keys have not") {
		t.Errorf("readiness: %s", ready)
	}
	for _, want := range []string{`chancery_foresight_findings{horizon="day",severity="error"} 0`, `chancery_foresight_findings{horizon="week",severity="error"} 14`, "chancery_foresight_nearest_seconds", "chancery_foresight_looked_seconds"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	// Without keys a look of an operator's says what does not answer, and looks at
	// the rest: this listener's certificate lives for an hour.
	asked := d.lookAhead(t.Context())
	var rules []string
	for _, f := range asked.Findings {
		rules = append(rules, f.Rule)
	}
	if got := strings.Join(rules, " "); !strings.Contains(got, "outage outage") || strings.Contains(got, "key-missing") {
		t.Errorf("asked: %s", got)
	}
}
