package verifier

import (
	"context"
	"fmt"
	"slices"
)

// The checks that every credential must pass, and that [Verify] therefore
// insists on having run.
const (
	checkEncoding    = "encoding"
	checkSignature   = "signature"
	checkTrust       = "issuer trusted"
	checkValidity    = "validity period"
	checkDigests     = "digests"
	checkDisclosures = "disclosures"
)

// verification is one run; it is used by one goroutine.
type verification struct {
	ctx    context.Context
	o      Options
	report *Report
}

func (v *verification) note(outcome Outcome, name, source, format string, args ...any) {
	v.report.Checks = append(v.report.Checks, Check{Name: name, Outcome: outcome, Source: source, Detail: fmt.Sprintf(format, args...)})
}

func (v *verification) pass(name, source, format string, args ...any) {
	v.note(Passed, name, source, format, args...)
}

func (v *verification) fail(name, source, format string, args ...any) {
	v.note(Failed, name, source, format, args...)
}

func (v *verification) warn(name, source, format string, args ...any) {
	v.note(Warning, name, source, format, args...)
}

func (v *verification) skip(name, source, format string, args ...any) {
	v.note(NotChecked, name, source, format, args...)
}

// verdict passes the check with the given words, or fails it with err.
func (v *verification) verdict(name, source string, err error, good string) bool {
	if err != nil {
		v.fail(name, source, "%v", err)
		return false
	}
	v.pass(name, source, "%s", good)
	return true
}

// faults passes the check with the given words, or fails it with all the faults.
func (v *verification) faults(name, source string, faults []string, good string) bool {
	if len(faults) == 0 {
		v.pass(name, source, "%s", good)
		return true
	}
	const shown = 8
	rest := ""
	if len(faults) > shown {
		rest = fmt.Sprintf("; and %d more", len(faults)-shown)
		faults = faults[:shown]
	}
	text := ""
	for i, f := range faults {
		if i > 0 {
			text += "; "
		}
		text += f
	}
	v.fail(name, source, "%s%s", text, rest)
	return false
}

// require decides: nothing failed, and each named check passed. A check that
// never ran, because an earlier one ended the work, counts as failed.
func (v *verification) require(names ...string) {
	for _, name := range names {
		if !slices.ContainsFunc(v.report.Checks, func(c Check) bool { return c.Name == name && (c.Outcome == Passed || c.Outcome == Failed) }) {
			v.fail(name, "", "could not be checked because of the failures above")
		}
	}
	v.report.Verified = len(v.report.Failures()) == 0
}
