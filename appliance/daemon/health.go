package daemon

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"chancery/appliance/signer/wire"
)

// statusWithin bounds the question to the signer.
const statusWithin = 2 * time.Second

// readiness is what /readyz answers.
type readiness struct {
	Status string `json:"status"` // "ready" or "unavailable"
	// Reasons say why not, one for each thing that is missing.
	Reasons []string `json:"reasons"`
	// Foresight says what is wrong, or will be, without keeping the appliance from
	// issuing now.
	Foresight []string `json:"foresight,omitempty"`
}

// readyz tells whether a credential could be issued now: the database answers,
// the signer answers, its token works, and the last periodic signature with each
// key succeeded.
func (d *appliance) readyz(w http.ResponseWriter, r *http.Request) {
	answer := readiness{Status: "ready", Reasons: d.reasons(r.Context()), Foresight: foreseenLines(d.foreseen.Load())}
	status := http.StatusOK
	if len(answer.Reasons) > 0 {
		answer.Status, status = "unavailable", http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "2")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the peer may be gone
}

// reasons say why no credential could be issued now.
func (d *appliance) reasons(ctx context.Context) []string {
	status, err := d.status(ctx)
	reasons := d.away(ctx, status, err)
	if err != nil {
		return reasons
	}
	for _, label := range slices.Sorted(maps.Keys(status.Keys)) {
		if !status.Keys[label] {
			reasons = append(reasons, "the last signature with key "+label+" failed")
		}
	}
	if status.State == "ready" && len(d.issuer.Identities()) == 0 {
		reasons = append(reasons, "the signer's keys have not been read yet")
	}
	return reasons
}

// outages say what does not answer, apart from single keys.
func (d *appliance) outages(ctx context.Context) []string {
	status, err := d.status(ctx)
	return d.away(ctx, status, err)
}

// away says what does not answer, from the signer's answer.
func (d *appliance) away(ctx context.Context, status wire.StatusResponse, err error) []string {
	reasons := []string{}
	if _, err := d.store.Backlog(ctx); err != nil {
		reasons = append(reasons, "the database does not answer")
	}
	if !d.store.Joined() {
		reasons = append(reasons, "the audit log was not asked yet whether chancery.db is an older copy")
	}
	if err != nil {
		return append(reasons, "the signer does not answer")
	}
	if status.State != "ready" {
		reason := "the signer is " + status.State
		if status.Class != "" {
			reason += ": " + status.Class
		}
		reasons = append(reasons, reason)
	}
	return reasons
}

func (d *appliance) status(ctx context.Context) (wire.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	return d.signer.Status(ctx)
}
