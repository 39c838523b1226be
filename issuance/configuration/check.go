package configuration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"chancery/issuance"
	"chancery/issuance/mdoc"
	"chancery/issuance/sdjwt"
)

type faults struct{ list []error }

func (f *faults) add(format string, args ...any) {
	f.list = append(f.list, fmt.Errorf(format, args...))
}

var (
	idPattern     = regexp.MustCompile(`^[\x21-\x7e]{1,128}$`)
	scopePattern  = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]{1,128}$`) // RFC 6749 §3.3
	colorPattern  = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	localePattern = regexp.MustCompile(`^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$`)
)

// Bounds of a file. With validity cut to hours, less than two would leave next
// to nothing at the end of an hour.
const (
	shortestValidity = 2 * time.Hour
	longestValidity  = 20 * 365 * 24 * time.Hour
	maxFileClaims    = 256
	maxBatch         = 64
	maxNamespaces    = 16
)

func (c *Configuration) check(f *faults) {
	if !idPattern.MatchString(c.ID) {
		f.add("id: it must be 1 to 128 printable ASCII characters without spaces")
	}
	if c.Scope != "" && !scopePattern.MatchString(c.Scope) {
		f.add("scope: it must be one OAuth scope token")
	}
	if c.Signer == "" {
		f.add("signer: missing: name the signing key's label")
	}
	var err error
	if c.ValidFor, err = time.ParseDuration(c.Validity); err != nil || c.ValidFor < shortestValidity || c.ValidFor > longestValidity {
		f.add("validity: %q is not a time span from \"2h\" to 20 years, for instance \"336h\"", c.Validity)
	}
	if c.Pad < 0 || c.Pad > 64 {
		f.add("pad: %d is out of range: 0 to 64", c.Pad)
	}
	c.checkFormat(f)
	c.checkBinding(f)
	c.checkDisplay(f)
	if len(c.Claims) == 0 || len(c.Claims) > maxFileClaims {
		f.add("claims: there must be 1 to %d", maxFileClaims)
	}
	paths := &source{}
	for i := range c.Claims {
		claim := &c.Claims[i]
		claim.check(c.Format, fmt.Sprintf("claims[%d]", i), f)
		if at := paths.at(claim.Path); at != nil && at.claim != nil {
			f.add("claims[%d].path: %s is there twice", i, strings.Join(claim.Path, "/"))
		} else if !paths.add(claim.Path, claim) {
			f.add("claims[%d].path: %s is within another claim, or another claim is within it", i, strings.Join(claim.Path, "/"))
		}
	}
	if c.Format == issuance.FormatMdoc && len(paths.below) > maxNamespaces {
		f.add("claims: an mdoc has at most %d namespaces", maxNamespaces)
	}
	c.derive(f)
}

// checkFormat demands the members of the format and refuses those of others.
func (c *Configuration) checkFormat(f *faults) {
	type member struct {
		name  string
		given bool
	}
	members := map[issuance.Format]member{
		issuance.FormatMdoc:  {"doctype", c.DocType != ""},
		issuance.FormatSDJWT: {"vct", c.VCT != ""},
		issuance.FormatJWTVC: {"types", len(c.Types) > 0},
	}
	if _, known := members[c.Format]; !known {
		f.add("format: %q is not known: use mso_mdoc, dc+sd-jwt or jwt_vc_json", c.Format)
		return
	}
	for format, m := range members {
		if m.given != (format == c.Format) {
			f.add("%s: format %s must have it, others must not", m.name, format)
		}
	}
	if c.DocType != "" && mdoc.CheckName(c.DocType) != nil {
		f.add("doctype: it must be 1 to 128 printable ASCII characters")
	}
	if len(c.Contexts) > 0 && c.Format != issuance.FormatJWTVC {
		f.add("contexts: only format jwt_vc_json has it")
	}
	for _, t := range c.Types {
		if t == "" || t == "VerifiableCredential" {
			f.add("types: each is a type of its own; VerifiableCredential comes by itself")
		}
	}
	for _, context := range c.Contexts {
		if !strings.Contains(context, ":") || context == "https://www.w3.org/2018/credentials/v1" {
			f.add("contexts: each is a URI; the base context comes by itself")
		}
	}
}

// checkBinding holds what binds a credential to its holder, and how many are
// issued at once, and sets the defaults.
func (c *Configuration) checkBinding(f *faults) {
	if c.BatchSize == 0 {
		c.BatchSize = 1
	}
	if c.BatchSize < 1 || c.BatchSize > maxBatch {
		f.add("batch_size: %d is out of range: 1 to %d", c.BatchSize, maxBatch)
	}
	if c.PollInterval == "" {
		c.PollInterval = "10s"
	}
	var err error
	if c.Poll, err = time.ParseDuration(c.PollInterval); err != nil || c.Poll < time.Second || c.Poll > 24*time.Hour {
		f.add("poll_interval: %q is not a time span from \"1s\" to \"24h\"", c.PollInterval)
	}
	if !c.Bound() {
		if c.Format == issuance.FormatMdoc {
			f.add("key_binding: an mdoc is always bound to a key: leave it out")
		}
		if len(c.ProofTypes) > 0 || c.KeyAttestation != nil || c.BatchSize > 1 {
			f.add("key_binding: without it there are no proof_types, no key_attestation and no batch: remove them")
		}
		return
	}
	if len(c.ProofTypes) == 0 {
		c.ProofTypes = []string{ProofJWT}
	}
	seen := map[string]bool{}
	for i, name := range c.ProofTypes {
		if name != ProofJWT && name != ProofAttestation && name != ProofDIVP || seen[name] {
			f.add("proof_types[%d]: %q is not jwt, attestation or di_vp, or is there twice", i, name)
		}
		seen[name] = true
	}
	if c.KeyAttestation == nil {
		return
	}
	if seen[ProofDIVP] {
		f.add("proof_types: a di_vp proof carries no key attestation, which key_attestation demands: remove one of them")
	}
	for name, values := range map[string][]string{"key_storage": c.KeyAttestation.KeyStorage, "user_authentication": c.KeyAttestation.UserAuthentication} {
		for _, value := range values {
			if value == "" {
				f.add("key_attestation.%s: a value is empty: write for instance \"iso_18045_high\"", name)
			}
		}
	}
}

func (c *Configuration) checkDisplay(f *faults) {
	if len(c.Display) == 0 {
		f.add("display: missing: name the credential in at least one language")
	}
	locales := map[string]bool{}
	for i, d := range c.Display {
		if d.Name == "" {
			f.add("display[%d].name: missing", i)
		}
		if d.Locale != "" && !localePattern.MatchString(d.Locale) {
			f.add("display[%d].locale: %q is not a language tag like \"en\" or \"de-AT\"", i, d.Locale)
		}
		if locales[d.Locale] {
			f.add("display[%d].locale: %q is there twice", i, d.Locale)
		}
		locales[d.Locale] = true
		for name, color := range map[string]string{"background_color": d.BackgroundColor, "text_color": d.TextColor} {
			if color != "" && !colorPattern.MatchString(color) {
				f.add("display[%d].%s: %q is not a colour like \"#12107c\"", i, name, color)
			}
		}
		if d.LogoURI != "" && !strings.HasPrefix(d.LogoURI, "https://") && !strings.HasPrefix(d.LogoURI, "data:image/") {
			f.add("display[%d].logo_uri: it must be an https or a data URI", i)
		}
		if d.LogoURI == "" && d.LogoAlt != "" {
			f.add("display[%d].logo_alt: there is no logo_uri: add it or remove this", i)
		}
	}
}

// check holds a claim against the format and its type, and converts its fixed values.
func (c *Claim) check(format issuance.Format, at string, f *faults) {
	c.checkPath(format, at, f)
	if !c.Type.known() {
		f.add("%s.type: %q is not known", at, c.Type)
		return
	}
	c.checkValues(at, f)
	for name, t := range c.Members {
		if t != TypeText && t != TypeCountry && t != TypeDate {
			f.add("%s.members.%s: %q is not text, country or date", at, name, t)
		}
		if format == issuance.FormatSDJWT && sdjwt.CheckName(name, false) != nil {
			f.add("%s.members.%s: the name has a meaning in SD-JWT", at, name)
		}
	}
	switch c.Disclose {
	case "", "always", "never":
	case "elements":
		if !c.Type.list() {
			f.add("%s.disclose: only a list has elements", at)
		}
	default:
		f.add("%s.disclose: %q is not always, never or elements", at, c.Disclose)
	}
	if c.Disclose != "" && format != issuance.FormatSDJWT {
		f.add("%s.disclose: only format dc+sd-jwt has it", at)
	}
	for locale, name := range c.Display {
		if !localePattern.MatchString(locale) || name == "" {
			f.add("%s.display: %q is not a language tag with a name", at, locale)
		}
	}
	if c.Type.listed() {
		var oneOf []any
		for i, value := range c.OneOf {
			oneOf = append(oneOf, c.convertFixed(fmt.Sprintf("one_of[%d]", i), value, format, at, f))
		}
		c.oneOf = oneOf
	}
	c.fixed = c.convertFixed("value", c.Value, format, at, f)
	c.fallback = c.convertFixed("default", c.Default, format, at, f)
}

func (c *Claim) checkPath(format issuance.Format, at string, f *faults) {
	if len(c.Path) == 0 || (format == issuance.FormatMdoc && len(c.Path) != 2) || len(c.Path) > 8 {
		f.add("%s.path: an mdoc's has namespace and element, others have 1 to 8 names", at)
	}
	for i, step := range c.Path {
		var err error
		switch {
		case format == issuance.FormatMdoc:
			err = mdoc.CheckName(step)
		case step == "" || len(step) > 128 || !utf8.ValidString(step):
			err = fmt.Errorf("a name must have 1 to 128 bytes")
		case format == issuance.FormatSDJWT:
			err = sdjwt.CheckName(step, i == 0)
		case i == 0 && step == "id":
			err = fmt.Errorf("\"id\" is the holder's identifier")
		}
		if err != nil {
			f.add("%s.path: %w", at, err)
		}
	}
}

// checkValues holds the members that give or bound a value against each other.
func (c *Claim) checkValues(at string, f *faults) {
	if c.Value != nil && (c.Default != nil || c.Required || c.MapFrom != "") {
		f.add("%s.value: a fixed value has no default, map_from or required", at)
	}
	if c.Required && c.Default != nil {
		f.add("%s.default: a required claim has none", at)
	}
	derived := c.Type == TypeAgeOver
	if derived != (c.From != "") || derived && (c.Age < 0 || c.Age > 99 || c.Value != nil || c.Default != nil || c.Required || c.MapFrom != "") {
		f.add("%s: type age-over needs age (0 to 99) and from, and nothing else gives its value", at)
	}
	if !derived && c.Age != 0 {
		f.add("%s.age: only type age-over has it", at)
	}
	if (c.Type == TypeObject) != (len(c.Members) > 0) {
		f.add("%s.members: type object needs them, others have none", at)
	}
	if (c.Min != nil || c.Max != nil) && c.Type != TypeInteger && c.Type != TypeCountries && c.Type != TypeTexts {
		f.add("%s: only integers and lists of texts or countries have min and max", at)
	}
	if len(c.OneOf) > 0 && !c.Type.listed() {
		f.add("%s.one_of: only texts and integers have it", at)
	}
	if c.Min != nil && c.Max != nil && *c.Min > *c.Max {
		f.add("%s.min: it is greater than max", at)
	}
}

// convertFixed converts a value of the file once for all credentials; nil when
// there is none.
func (c *Claim) convertFixed(name string, value any, format issuance.Format, at string, f *faults) any {
	if value == nil {
		return nil
	}
	converted, problem := c.convert(fromTOML(value), format)
	if problem == "" && c.Type == TypeImage {
		problem = checkImage(converted)
	}
	if problem != "" {
		f.add("%s.%s: it %s", at, name, problem)
	}
	return converted
}

// derive computes what Prepare and CheckClaims need.
func (c *Configuration) derive(f *faults) {
	c.sources = &source{}
	for i := range c.Claims {
		claim := &c.Claims[i]
		from := claim.MapFrom
		if from == "" && len(claim.Path) > 0 {
			from = claim.Path[len(claim.Path)-1]
		}
		claim.source, claim.birth = strings.Split(from, "."), strings.Split(claim.From, ".")
		if claim.Value == nil && claim.Type != TypeAgeOver && !c.sources.add(claim.source, claim) {
			f.add("claims[%d].map_from: %q is within another claim's, or another claim's is within it", i, from)
		}
		if c.Format != issuance.FormatSDJWT || claim.Disclose == "never" {
			continue
		}
		for _, step := range claim.Path {
			claim.hide = append(claim.hide, step)
		}
		if claim.Disclose == "elements" {
			claim.hide = append(claim.hide, nil)
		}
	}
	for i, claim := range c.Claims {
		if claim.Type != TypeAgeOver {
			continue
		}
		if from := c.sources.at(claim.birth); from == nil || !from.date {
			f.add("claims[%d].from: %q is not the source of a date claim of this configuration", i, claim.From)
		}
	}
}

// source is a tree of names that claims stand at: the paths of a file's claims,
// or the members that an offer's claims may have.
type source struct {
	claim *Claim // the last one that was added here
	date  bool   // one of those here is a date
	below map[string]*source
}

// add enters a claim; several claims may stand at the same place, but none
// within another.
func (s *source) add(path []string, claim *Claim) bool {
	if len(path) == 0 {
		if s.below != nil {
			return false
		}
		s.claim = claim
		s.date = s.date || claim.Type == TypeFullDate || claim.Type == TypeDate
		return true
	}
	if s.claim != nil || path[0] == "" {
		return false
	}
	if s.below == nil {
		s.below = map[string]*source{}
	}
	if s.below[path[0]] == nil {
		s.below[path[0]] = &source{}
	}
	return s.below[path[0]].add(path[1:], claim)
}

func (s *source) at(path []string) *source {
	for _, step := range path {
		if s = s.below[step]; s == nil {
			return nil
		}
	}
	return s
}

// listed tells whether the file can list all values that there are.
func (t Type) listed() bool {
	return slices.Contains([]Type{TypeText, TypeLatin1, TypeInteger}, t)
}

// list tells whether the value is a list, whose elements can be hidden one by one.
func (t Type) list() bool {
	return slices.Contains([]Type{TypeCountries, TypeTexts, TypeDrivingPrivileges}, t)
}
