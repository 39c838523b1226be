package cli

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

var doctor = command{
	name: "doctor", summary: "Say whether issuing works now, tomorrow, in a week, in a month",
	help: `Looks at keys, certificates, revocation lists, TLS certificates, DID documents and the
clock, and says what is wrong, what will be and when, and what helps.
Exit status 0 when nothing is wrong, 1 when something is broken or breaks within a week.
Warnings, and what breaks later, are shown and leave the status at 0.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &adminFlags{}
		f.declare(flags)
		return func(s *session, args []string) error {
			if err := none(args); err != nil {
				return err
			}
			return f.doctor(s)
		}
	},
}

// doctorPart is what is said under one head.
type doctorPart struct {
	horizon, head, verdict string
	urgent                 bool // whether an error here makes the exit status 1
}

// doctorParts are all of them, in the order of time.
var doctorParts = []doctorPart{
	{"now", "Now", "BROKEN: something does not work as it should.", true},
	{"day", "Within a day", "BREAKS WITHIN A DAY if nothing is done.", true},
	{"week", "Within a week", "BREAKS WITHIN A WEEK if nothing is done.", true},
	{"month", "Within a month", "Nothing breaks within a week; something does within a month.", false},
}

func (f *adminFlags) doctor(s *session) error {
	a, err := f.connect(s, true)
	if err != nil {
		return err
	}
	answer, err := a.object(http.MethodGet, "/v1/foresight", nil)
	if err != nil {
		return err
	}
	findings := objects(answer["findings"])
	first := slices.IndexFunc(doctorParts, func(p doctorPart) bool { return slices.ContainsFunc(findings, p.fails) })
	if f.asJSON {
		err = printJSON(s.Stdout, answer)
	} else {
		showForesight(s.Stdout, findings, first)
	}
	if err == nil && first >= 0 && doctorParts[first].urgent {
		return errFailed
	}
	return err
}

// fails tells whether a finding is an error that belongs under the part's head.
func (p doctorPart) fails(finding map[string]any) bool {
	return finding["horizon"] == p.horizon && finding["severity"] == "error"
}

// showForesight prints the verdict, from the first part with an error (-1 for
// none), and the findings by when they begin.
func showForesight(w io.Writer, findings []map[string]any, first int) {
	switch {
	case first >= 0:
		fmt.Fprintln(w, doctorParts[first].verdict)
	case len(findings) > 0:
		fmt.Fprintln(w, "Nothing breaks within 30 days, but look at this.")
	default:
		fmt.Fprintln(w, "All is well: nothing is wrong, and nothing that issuing needs ends within 30 days.")
	}
	for _, p := range doctorParts {
		var part []map[string]any
		for _, finding := range findings {
			if finding["horizon"] == p.horizon {
				part = append(part, finding)
			}
		}
		if len(part) > 0 {
			fmt.Fprintf(w, "\n%s\n", p.head)
		}
		for i, finding := range part {
			last := i+1 == len(part) || part[i+1]["remedy"] != finding["remedy"]
			showFinding(w, finding, last)
		}
	}
}

// showFinding prints one finding; what helps comes after the last of those that
// the same helps.
func showFinding(w io.Writer, finding map[string]any, last bool) {
	row := cells(finding, "severity", "subject", "begins", "text", "remedy")
	line := fmt.Sprintf("  %-7s  %s", row[0], row[1])
	if day, _, found := strings.Cut(row[2], "T"); found {
		line += ", from " + day
	}
	const indent = "           "
	fmt.Fprintln(w, line)
	fmt.Fprintln(w, fill(row[3], indent, columns))
	if last {
		fmt.Fprintln(w, fill("What helps: "+row[4], indent, columns))
	}
}
