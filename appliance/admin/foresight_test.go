package admin

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"chancery/appliance/foresight"
	"chancery/appliance/signer/signertest"
)

// TestForesight: what a look found, with what holds at each horizon.
func TestForesight(t *testing.T) {
	r := newRig(t, signertest.Options{})
	at := time.Date(2026, 11, 25, 22, 40, 0, 0, time.UTC)
	const path = "/v1/foresight"
	faulty(t, r.do(t, http.MethodGet, path, nil, "Authorization", ""), http.StatusUnauthorized, "Unauthorized")

	r.report = foresight.Report{At: at}
	var body foresightBody
	r.do(t, http.MethodGet, path, nil).into(t, &body)
	if body.Findings == nil || len(body.Findings) != 0 || body.NearestBreak != "" || len(body.Horizons) != 4 || body.LookedAt != "2026-11-25T22:40:00Z" {
		t.Errorf("nothing found: %+v", body)
	}

	r.report.Findings = []foresight.Finding{
		{Rule: "validity-cut", Severity: foresight.Warning, Subject: "mdl", Text: "Cut.", Remedy: "Renew.", Ends: at.Add(48 * time.Hour)},
		{Rule: "certificate-expired", Severity: foresight.Error, Subject: "ds-1", Text: "Ends.", Remedy: "Make.", Begins: at.Add(96 * time.Hour)},
	}
	body = foresightBody{}
	r.do(t, http.MethodGet, path, nil).into(t, &body)
	want := foresightBody{LookedAt: "2026-11-25T22:40:00Z", NearestBreak: "2026-11-29T22:40:00Z",
		Horizons: []horizonBody{{"now", "2026-11-25T22:40:00Z", 0, 1}, {"day", "2026-11-26T22:40:00Z", 0, 1}, {"week", "2026-12-02T22:40:00Z", 1, 0}, {"month", "2026-12-25T22:40:00Z", 1, 0}},
		Findings: []findingBody{{"validity-cut", "warning", "now", "mdl", "Cut.", "Renew.", "", "2026-11-27T22:40:00Z"}, {"certificate-expired", "error", "week", "ds-1", "Ends.", "Make.", "2026-11-29T22:40:00Z", ""}}}
	if !reflect.DeepEqual(body, want) {
		t.Errorf("got  %+v\nwant %+v", body, want)
	}
}
