// Package ceremony makes keys, certificates and what belongs to them, from one
// plan, in one act with one transcript. Nothing else in the appliance makes a
// key (promise P6).
//
// Everything that can be checked is checked before anything is made. What was
// made is recorded in the audit log in one durable append; until then a failure
// destroys the new keys again.
package ceremony

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/domainlinkage"
	"chancery/issuance/iaca"
)

// Plan is a ceremony's file. An unknown key is an error.
type Plan struct {
	// Issuer is the Credential Issuer Identifier; certificates, CRL URLs and the did:web carry it.
	Issuer string `toml:"issuer"`
	// Country is ISO 3166-1 alpha-2, State ISO 3166-2 (or left out); every certificate has them.
	Country string `toml:"country"`
	State   string `toml:"state"`
	// Organization is the issuing authority's name.
	Organization string `toml:"organization"`
	// ContactEmail and ContactURL are the issuing authority's, for every certificate; one is needed.
	ContactEmail string `toml:"contact_email"`
	ContactURL   string `toml:"contact_url"`
	// Output is the folder for certificates, CRL, DID document and checkpoint key; nothing in it is overwritten.
	Output string `toml:"output"`
	// CRLDays is the first CRL's nextUpdate, 1 to 90 days.
	CRLDays int `toml:"crl_days"`
	// Keys are made in this order; an IACA before what is under it.
	Keys []PlannedKey `toml:"keys"`
}

// PlannedKey is one key of the plan.
type PlannedKey struct {
	// Label is new in the token and in the log: 1 to 32 lower-case letters, digits and hyphens.
	Label string `toml:"label"`
	// Purpose is iaca, document-signer, credential-signer, did, status-signer, metadata-signer, checkpoint or sealing.
	Purpose wire.Purpose `toml:"purpose"`
	// Algorithm is ES256, ES384, ES512 or EdDSA; A256GCM for the sealing key.
	Algorithm issuance.Algorithm `toml:"algorithm"`
	// Under is the label of the IACA that certifies the key, of this plan or an earlier ceremony's.
	Under string `toml:"under"`
	// CommonName is the certificate's.
	CommonName string `toml:"common_name"`
	// Days is the certificate's validity in days from 00:00 UTC of the ceremony's day.
	Days int `toml:"days"`
	// Profile bounds what the key may sign.
	Profile issuance.Profile `toml:"profile"`
}

var labelPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// ParsePlan checks a plan by itself and lists every fault.
func ParsePlan(data []byte) (*Plan, error) {
	p := &Plan{}
	meta, err := toml.NewDecoder(bytes.NewReader(data)).Decode(p)
	if err != nil {
		return nil, err
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, key := range meta.Undecoded() {
		fault("%s: unknown key: remove it or correct its spelling", key)
	}
	if err := config.CheckIdentifier(p.Issuer); err != nil {
		fault("issuer: %w", err)
	}
	if p.ContactEmail == "" && p.ContactURL == "" {
		fault("contact_email, contact_url: one is needed: verifiers demand a contact in the certificates")
	}
	if p.Output == "" {
		fault("output: missing: name the folder for certificates and keys' public halves")
	}
	if p.CRLDays == 0 {
		p.CRLDays = 60
	}
	if p.CRLDays < 1 || p.CRLDays > 90 {
		fault("crl_days: %d is out of range: 1 to 90", p.CRLDays)
	}
	if len(p.Keys) == 0 || len(p.Keys) > 64 {
		fault("keys: there must be 1 to 64")
	}
	seen := map[string]bool{}
	for i, k := range p.Keys {
		if slices.ContainsFunc(p.Keys[:i], func(other PlannedKey) bool { return sole(k.Purpose) && other.Purpose == k.Purpose }) {
			fault("keys[%d].purpose: a second %s key, and there is only one", i, k.Purpose)
		}
		if seen[k.Label] {
			fault("keys[%d].label: %q is there twice", i, k.Label)
		}
		seen[k.Label] = true
		for _, err := range k.check() {
			fault("keys[%d].%w", i, err)
		}
		if err := p.checkIssuer(k); err != nil {
			fault("keys[%d].profile.issuer: %w", i, err)
		}
	}
	return p, errors.Join(faults...)
}

// sole tells whether there is one key of a purpose, for ever.
func sole(p wire.Purpose) bool { return p == wire.PurposeCheckpoint || p == wire.PurposeSealing }

// checkIssuer refuses a profile in another's name: what it allowed, nobody could
// verify.
func (p *Plan) checkIssuer(k PlannedKey) error {
	if k.Profile.Issuer == "" {
		return nil
	}
	switch k.Purpose {
	case wire.PurposeDocumentSigner:
		return errors.New("an mdoc names no issuer: remove it")
	case wire.PurposeDID:
		if id, err := did.Web(p.Issuer); err == nil && k.Profile.Issuer == id {
			return nil
		}
	}
	if k.Profile.Issuer != p.Issuer {
		return fmt.Errorf("%q is not the plan's issuer (nor, for a DID key, its did:web)", k.Profile.Issuer)
	}
	return nil
}

// certified says which purposes have a certificate, and of which profile.
var certified = map[wire.Purpose]iaca.Profile{
	wire.PurposeIACA: iaca.Root, wire.PurposeDocumentSigner: iaca.DocumentSigner, wire.PurposeCredentialSigner: iaca.CredentialSigner,
	wire.PurposeStatus: iaca.StatusSigner, wire.PurposeMetadata: iaca.MetadataSigner,
}

// formats says what a purpose may sign at most.
var formats = map[wire.Purpose][]issuance.Format{
	wire.PurposeDocumentSigner:   {issuance.FormatMdoc},
	wire.PurposeCredentialSigner: {issuance.FormatSDJWT},
	wire.PurposeDID:              {issuance.FormatJWTVC, issuance.FormatSDJWT, issuance.FormatDomain},
	wire.PurposeStatus:           {issuance.FormatStatus},
	wire.PurposeMetadata:         {issuance.FormatMetadata},
}

func (k PlannedKey) check() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !labelPattern.MatchString(k.Label) {
		fault("label: %q must be 1 to 32 lower-case letters, digits and hyphens", k.Label)
	}
	switch k.Algorithm {
	case issuance.ES256, issuance.ES384, issuance.ES512:
	case issuance.EdDSA:
		if _, has := certified[k.Purpose]; has {
			fault("algorithm: a certified key is ES256, ES384 or ES512")
		}
	case hsm.Sealing:
	default:
		fault("algorithm: %q is not known", k.Algorithm)
	}
	if (k.Purpose == wire.PurposeSealing) != (k.Algorithm == hsm.Sealing) {
		fault("algorithm: the sealing key, and it alone, is %s", hsm.Sealing)
	}
	profile, has := certified[k.Purpose]
	switch k.Purpose {
	case wire.PurposeDID, wire.PurposeCheckpoint, wire.PurposeSealing:
		if k.Under != "" || k.CommonName != "" || k.Days != 0 {
			fault("under, common_name, days: a %s key has no certificate: remove them", k.Purpose)
		}
	default:
		if !has {
			fault("purpose: %q is not known", k.Purpose)
			break
		}
		if (k.Under == "") != (profile == iaca.Root) {
			fault("under: name the IACA that certifies the key; an IACA itself has none")
		}
		if k.CommonName == "" || k.Days < 1 || k.Days > 7300 {
			fault("common_name, days: a certificate needs a name and 1 to 7300 days")
		}
	}
	return append(faults, k.checkProfile()...)
}

// Bounds of a profile: 20 years, and more than any token signs in a minute.
const (
	longestValidityHours = 20 * 8766
	highestRate          = 1_000_000
)

func (k PlannedKey) checkProfile() []error {
	var faults []error
	allowed, signs := formats[k.Purpose]
	if !signs {
		if len(k.Profile.Formats) > 0 || len(k.Profile.Types) > 0 {
			faults = append(faults, fmt.Errorf("profile: a %s key signs nothing for others: remove it", k.Purpose))
		}
		return faults
	}
	if len(k.Profile.Formats) == 0 {
		return append(faults, errors.New("profile.formats: missing: say what the key may sign"))
	}
	for _, f := range k.Profile.Formats {
		if !slices.Contains(allowed, f) {
			faults = append(faults, fmt.Errorf("profile.formats: a %s key may not sign %s", k.Purpose, f))
		}
		credential := f == issuance.FormatMdoc || f == issuance.FormatSDJWT || f == issuance.FormatJWTVC
		if credential && (len(k.Profile.Types) == 0 || k.Profile.LongestValidityHours <= 0) {
			faults = append(faults, errors.New("profile.types, profile.longest_validity_hours: a key that signs credentials needs them"))
		}
		// Metadata names its issuer, so a key without one could never sign any.
		if f == issuance.FormatDomain && (k.Profile.LongestValidityHours <= 0 || strings.HasPrefix(k.Profile.Issuer, "https:")) {
			faults = append(faults, errors.New("profile.longest_validity_hours, profile.issuer: a key that links the DID to its domain needs the one, and signs in the DID's name: leave issuer out"))
		}
		if f == issuance.FormatMetadata && (k.Profile.Issuer == "" || len(k.Profile.Types) > 0) {
			faults = append(faults, errors.New("profile.issuer, profile.types: a key that signs metadata needs the plan's issuer, and has no types"))
		}
	}
	// A credential of this type that names another host would link the DID to it.
	if slices.Contains(k.Profile.Types, domainlinkage.Type) {
		faults = append(faults, fmt.Errorf("profile.types: remove %s, which is signed as format %s alone", domainlinkage.Type, issuance.FormatDomain))
	}
	if h := k.Profile.LongestValidityHours; h < 0 || h > longestValidityHours {
		faults = append(faults, fmt.Errorf("profile.longest_validity_hours: %d is out of range: at most %d", h, longestValidityHours))
	}
	if n := k.Profile.RatePerMinute; n < 0 || n > highestRate {
		faults = append(faults, fmt.Errorf("profile.rate_per_minute: %d is out of range: 0 (no cap) to %d", n, highestRate))
	}
	return faults
}

// against checks the plan against what exists.
func (p *Plan) against(r *registry.Registry, tokenLabels []string) error {
	var faults []error
	taken := map[string]string{}
	for _, label := range tokenLabels {
		taken[label] = "the token"
	}
	for label := range r.Keys {
		taken[label] = "the audit log"
	}
	planned := map[string]wire.Purpose{}
	for i, k := range p.Keys {
		if where := taken[k.Label]; where != "" {
			faults = append(faults, fmt.Errorf("keys[%d].label: %q is in %s already: choose another", i, k.Label, where))
		}
		if k.Under != "" && planned[k.Under] != wire.PurposeIACA && r.Keys[k.Under].Purpose != wire.PurposeIACA {
			faults = append(faults, fmt.Errorf("keys[%d].under: %q is no IACA made before this key", i, k.Under))
		}
		if _, err := r.Sole(k.Purpose); sole(k.Purpose) && err == nil {
			faults = append(faults, fmt.Errorf("keys[%d].purpose: there is a %s key already, and there is only one", i, k.Purpose))
		}
		planned[k.Label] = k.Purpose
	}
	return errors.Join(faults...)
}

// period returns a certificate's validity: from the day's first second, so that
// what is signed today with a time cut to the day is within it.
func (k PlannedKey) period(now time.Time) (from, until time.Time) {
	from = now.UTC().Truncate(24 * time.Hour)
	return from, from.AddDate(0, 0, k.Days).Add(-time.Second)
}
