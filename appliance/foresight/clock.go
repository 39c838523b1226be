package foresight

import (
	"crypto/x509"
	"fmt"
	"time"
)

// clockSkew is how far behind a witness the clock may be.
const clockSkew = 2 * time.Minute

// clock holds the clock against what must have happened already. A clock that is
// ahead cannot be seen without a network, but for certificates that have ended.
func (l *look) clock() {
	var latest time.Time
	what := ""
	witness := func(t time.Time, of string) {
		if t.After(latest) {
			latest, what = t, of
		}
	}
	witness(l.Written, "this program was written")
	witness(l.Newest, "the newest event on record happened")
	for _, id := range l.Identities {
		if len(id.CRL) == 0 {
			continue
		}
		if list, err := x509.ParseRevocationList(id.CRL); err == nil {
			witness(list.ThisUpdate, "the revocation list of "+id.Label+" was signed")
		}
	}
	if !latest.After(l.now.Add(clockSkew)) {
		return
	}
	l.add(Finding{Rule: "clock-behind", Severity: Error, Subject: "clock",
		Text:   fmt.Sprintf("The clock is behind: it says %s, and %s at %s already.", l.now.Format("2006-01-02 15:04:05 UTC"), what, latest.UTC().Format("2006-01-02 15:04:05 UTC")),
		Remedy: "Set the host's clock and look at its time service; credentials and log entries carry wrong times meanwhile."})
}
