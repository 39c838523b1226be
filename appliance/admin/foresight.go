package admin

import (
	"net/http"

	"chancery/appliance/foresight"
	"chancery/appliance/store"
)

// foresightBody is what is wrong now, and what will be within 30 days.
type foresightBody struct {
	LookedAt string `json:"lookedAt"`
	// NearestBreak is when the next thing breaks that works now.
	NearestBreak string        `json:"nearestBreak,omitempty"`
	Horizons     []horizonBody `json:"horizons"`
	Findings     []findingBody `json:"findings"`
}

// horizonBody counts what holds at one time of the future.
type horizonBody struct {
	// Horizon is "now", "day", "week" or "month".
	Horizon  string `json:"horizon"`
	At       string `json:"at"`
	Errors   int    `json:"errors"`
	Warnings int    `json:"warnings"`
}

// findingBody is one finding.
type findingBody struct {
	Rule     string `json:"rule"`
	Severity string `json:"severity"`
	// Horizon is the nearest by which it has begun.
	Horizon string `json:"horizon"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Remedy  string `json:"remedy"`
	// Begins is left out when it holds already, Ends when it does not end by itself.
	Begins string `json:"begins,omitempty"`
	Ends   string `json:"ends,omitempty"`
}

func (a *api) readForesight(r *http.Request, _ store.Operator) (result, error) {
	return result{status: http.StatusOK, body: describeForesight(a.Foresight(r.Context()))}, nil
}

func describeForesight(r foresight.Report) foresightBody {
	nearest, _ := r.Nearest()
	body := foresightBody{LookedAt: stamp(r.At), NearestBreak: stamp(nearest), Findings: []findingBody{}}
	for _, h := range foresight.Horizons {
		body.Horizons = append(body.Horizons, horizonBody{h.Name, stamp(r.At.Add(h.After)), r.Count(h, foresight.Error), r.Count(h, foresight.Warning)})
	}
	for _, f := range r.Findings {
		body.Findings = append(body.Findings, findingBody{f.Rule, string(f.Severity), r.Horizon(f), f.Subject, f.Text, f.Remedy, stamp(f.Begins), stamp(f.Ends)})
	}
	return body
}
