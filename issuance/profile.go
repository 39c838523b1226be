package issuance

import (
	"fmt"
	"slices"
	"time"
)

// OutsideProfile is a refusal of [Profile.Check]: which member of the profile
// does not allow the statement, and why. It wraps [ErrOutsideProfile].
type OutsideProfile struct {
	// Member is the profile's member by its name in the ceremony's plan.
	Member string
	reason string
}

// Error names the member and the reason.
func (e *OutsideProfile) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrOutsideProfile, e.Member, e.reason)
}

// Unwrap returns [ErrOutsideProfile].
func (e *OutsideProfile) Unwrap() error { return ErrOutsideProfile }

// Check refuses a statement that the profile does not allow. What the profile
// leaves out it does not allow: a profile without types signs no credential, nor
// does one without a longest validity, and one without an issuer nothing that
// names one. Issuer metadata and domain linkage credentials have no types: there
// is one kind of each, and the format names it. The rate cap is not its matter: it
// needs a clock.
func (p Profile) Check(s Statement) error {
	outside := func(member, format string, args ...any) error {
		return &OutsideProfile{member, fmt.Sprintf(format, args...)}
	}
	if !slices.Contains(p.Formats, s.Format) {
		return outside("formats", "the key does not sign %s", s.Format)
	}
	if len(s.Types) == 0 && s.Format != FormatMetadata && s.Format != FormatDomain {
		return outside("types", "the statement names no type")
	}
	for _, t := range s.Types {
		if !slices.Contains(p.Types, t) {
			return outside("types", "the key does not sign %q", t)
		}
	}
	if s.Issuer == "" && (s.Format == FormatJWTVC || s.Format == FormatMetadata || s.Format == FormatDomain) {
		return outside("issuer", "the statement names no issuer")
	}
	if s.Issuer != "" && s.Issuer != p.Issuer {
		return outside("issuer", "the statement's issuer is not the profile's")
	}
	if s.ValidFrom.IsZero() || s.ValidUntil.IsZero() || !s.ValidUntil.After(s.ValidFrom) {
		return outside("longest_validity_hours", "the statement has no end of validity after its start")
	}
	longest := p.LongestValidity()
	if valid := s.ValidUntil.Sub(s.ValidFrom); valid > longest {
		return outside("longest_validity_hours", "valid for %s, at most %s", valid, longest)
	}
	return nil
}

// metadataValidityHours is the longest validity under a profile for issuer
// metadata that names none. A token may be away for a day without the signed
// form running out, when that is made anew at half of its life; and no wallet
// believes what the issuer has changed since for more than two days.
const metadataValidityHours = 48

// LongestValidity returns LongestValidityHours as a time span. Ceremonies demand
// that member for credentials alone, and a profile is fixed with its key, so one
// for metadata and nothing else that lacks it gets 48 hours; any other gets 0.
func (p Profile) LongestValidity() time.Duration {
	hours := p.LongestValidityHours
	if hours == 0 && slices.Equal(p.Formats, []Format{FormatMetadata}) {
		hours = metadataValidityHours
	}
	return time.Duration(hours) * time.Hour
}
