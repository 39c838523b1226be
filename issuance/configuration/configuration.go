// Package configuration is the Credential Configuration: what a credential of
// one kind is, which claims it takes and how they become data elements, which
// key signs it, how wallets show it. A configuration is a strict TOML file; the
// comments of [File] are its manual.
//
// Claims are checked when the offer is made ([Configuration.CheckClaims]); when
// the wallet comes, [Configuration.Prepare] builds the credential from them.
package configuration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"chancery/issuance"
	"chancery/issuance/sdjwt"
)

// File is a configuration's file.
type File struct {
	// ID is the configuration's id in offers and metadata; 1 to 128 printable ASCII characters without spaces.
	ID string `toml:"id"`
	// Format is mso_mdoc, dc+sd-jwt or jwt_vc_json.
	Format issuance.Format `toml:"format"`
	// Scope is the OAuth scope that stands for this configuration; HAIP wants one.
	Scope string `toml:"scope"`
	// Signer is the label of the key that signs.
	Signer string `toml:"signer"`
	// DocType is the mdoc's document type.
	DocType string `toml:"doctype"`
	// VCT is the SD-JWT VC's type.
	VCT string `toml:"vct"`
	// Types are the W3C VC's types without VerifiableCredential, Contexts its contexts after the base context.
	Types    []string `toml:"types"`
	Contexts []string `toml:"contexts"`
	// Validity is the technical validity from the day of issuing, for instance "336h".
	Validity string `toml:"validity"`
	// Pad pads the number of digests (mdoc, per namespace) or of hidden claims
	// (SD-JWT VC, per level) to a multiple, so that it does not tell which optional claims exist; 0 means no padding.
	Pad int `toml:"pad"`
	// Display names the credential to people, one entry per language.
	Display []Display `toml:"display"`
	// Claims are in the order in which wallets show them.
	Claims []Claim `toml:"claims"`
}

// Display is how a wallet shows the credential in one language.
type Display struct {
	Name            string `toml:"name"`
	Locale          string `toml:"locale"`
	Description     string `toml:"description"`
	BackgroundColor string `toml:"background_color"`
	TextColor       string `toml:"text_color"`
	LogoURI         string `toml:"logo_uri"`
	LogoAlt         string `toml:"logo_alt"`
}

// Claim is one claim or data element.
type Claim struct {
	// Path is where it stands: [namespace, element] in an mdoc, member names
	// from the top of an SD-JWT VC, member names within credentialSubject of a W3C VC.
	Path []string `toml:"path"`
	// Type says what the value is and how it is encoded; see the list in types.go.
	Type Type `toml:"type"`
	// MapFrom is the dotted path in the offer's claims; default: the path's last name.
	MapFrom string `toml:"map_from"`
	// Required claims must be in the offer.
	Required bool `toml:"required"`
	// Default is taken when the offer has none, Value always.
	Default any `toml:"default"`
	Value   any `toml:"value"`
	// Members are an object's, with their types: text, country or date.
	Members map[string]Type `toml:"members"`
	// Min and Max bound an integer, or the number of a list's entries.
	Min *int64 `toml:"min"`
	Max *int64 `toml:"max"`
	// Age is an age_over claim's NN; From is the dotted path of the birth date it is derived from.
	Age  int    `toml:"age"`
	From string `toml:"from"`
	// Disclose makes an SD-JWT VC's claim selectively disclosable: "always"
	// (default), "never", or "elements" for each entry of a list by itself.
	Disclose string `toml:"disclose"`
	// Display is the claim's name by language tag.
	Display map[string]string `toml:"display"`
}

// Configuration is a checked file. It does not change.
type Configuration struct {
	File
	// Version is the SHA-256 of the file, hex.
	Version string
	// ValidFor is Validity.
	ValidFor time.Duration
	disclose []sdjwt.Path
	sources  *source // what the offer's claims may contain
}

// BatchSize is how many keys a request may name; more than one comes later.
func (c *Configuration) BatchSize() int { return 1 }

// Parse checks a file and lists every fault, each naming its member. name says
// where it came from.
func Parse(name string, data []byte) (*Configuration, error) {
	sum := sha256.Sum256(data)
	c := &Configuration{Version: hex.EncodeToString(sum[:])}
	meta, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&c.File)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f := &faults{}
	for _, key := range meta.Undecoded() {
		f.add("%s: unknown key: remove it or correct its spelling", key)
	}
	c.check(f)
	if len(f.list) > 0 {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(f.list...))
	}
	return c, nil
}

// LoadDir reads every .toml file of a folder. Ids must be unique.
func LoadDir(dir string) ([]*Configuration, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	var all []*Configuration
	var problems []error
	seen := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		c, err := Parse(file, data)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if other, twice := seen[c.ID]; twice {
			problems = append(problems, fmt.Errorf("%s: id: %q is in %s already", file, c.ID, other))
		}
		seen[c.ID] = file
		all = append(all, c)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no credential configuration: put at least one .toml file there", dir)
	}
	return all, nil
}

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
	if c.ValidFor, err = time.ParseDuration(c.Validity); err != nil || c.ValidFor < time.Hour || c.ValidFor > 20*365*24*time.Hour {
		f.add("validity: %q is not a time span from \"1h\" to 20 years, for instance \"336h\"", c.Validity)
	}
	if c.Pad < 0 || c.Pad > 64 {
		f.add("pad: %d is out of range: 0 to 64", c.Pad)
	}
	c.checkFormat(f)
	c.checkDisplay(f)
	if len(c.Claims) == 0 || len(c.Claims) > 256 {
		f.add("claims: there must be 1 to 256")
	}
	paths := map[string]bool{}
	for i := range c.Claims {
		claim := &c.Claims[i]
		claim.check(c.Format, fmt.Sprintf("claims[%d]", i), f)
		key := strings.Join(claim.Path, "\x00")
		if paths[key] {
			f.add("claims[%d].path: %s is there twice", i, strings.Join(claim.Path, "/"))
		}
		paths[key] = true
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
	if len(c.Contexts) > 0 && c.Format != issuance.FormatJWTVC {
		f.add("contexts: only format jwt_vc_json has it")
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
	}
}

// derive computes what Prepare and CheckClaims need.
func (c *Configuration) derive(f *faults) {
	c.sources = &source{}
	for i := range c.Claims {
		claim := &c.Claims[i]
		if claim.Value == nil && claim.Type != TypeAgeOver {
			if !c.sources.add(strings.Split(claim.source(), "."), claim) {
				f.add("claims[%d].map_from: %q is within another claim's, or another claim's is within it", i, claim.source())
			}
		}
		if c.Format == issuance.FormatSDJWT && claim.Disclose != "never" {
			path := make(sdjwt.Path, 0, len(claim.Path)+1)
			for _, step := range claim.Path {
				path = append(path, step)
			}
			if claim.Disclose == "elements" {
				path = append(path, nil)
			}
			c.disclose = append(c.disclose, path)
		}
	}
	for i, claim := range c.Claims {
		if claim.Type != TypeAgeOver {
			continue
		}
		if from := c.sources.at(strings.Split(claim.From, ".")); from == nil || from.claim == nil || (from.claim.Type != TypeFullDate && from.claim.Type != TypeDate) {
			f.add("claims[%d].from: %q is not the source of a date claim of this configuration", i, claim.From)
		}
	}
}

// source returns the dotted path in the offer's claims.
func (c *Claim) source() string {
	if c.MapFrom != "" {
		return c.MapFrom
	}
	if len(c.Path) == 0 {
		return ""
	}
	return c.Path[len(c.Path)-1]
}

// reservedClaims are an SD-JWT VC's own.
var reservedClaims = map[string]bool{"iss": true, "nbf": true, "exp": true, "iat": true, "cnf": true, "vct": true, "vct#integrity": true, "status": true, "_sd": true, "_sd_alg": true, "...": true, "aka_vcts": true}

func (c *Claim) check(format issuance.Format, at string, f *faults) {
	if len(c.Path) == 0 || (format == issuance.FormatMdoc && len(c.Path) != 2) || len(c.Path) > 8 {
		f.add("%s.path: an mdoc's has namespace and element, others have 1 to 8 names", at)
	}
	for _, step := range c.Path {
		if step == "" || len(step) > 128 {
			f.add("%s.path: a name is empty or longer than 128", at)
		}
	}
	if len(c.Path) > 0 && format == issuance.FormatSDJWT && reservedClaims[c.Path[0]] || len(c.Path) == 1 && format == issuance.FormatJWTVC && c.Path[0] == "id" {
		f.add("%s.path: %q is the issuer's own", at, c.Path[0])
	}
	if !c.Type.known() {
		f.add("%s.type: %q is not known", at, c.Type)
	}
	if c.Value != nil && (c.Default != nil || c.Required || c.MapFrom != "") {
		f.add("%s.value: a fixed value has no default, map_from or required", at)
	}
	if (c.Type == TypeAgeOver) != (c.From != "") || c.Type == TypeAgeOver && (c.Age < 0 || c.Age > 99 || c.Value != nil || c.Default != nil || c.Required || c.MapFrom != "") {
		f.add("%s: type age-over needs age (0 to 99) and from, and nothing else gives its value", at)
	}
	if (c.Type == TypeObject) != (len(c.Members) > 0) {
		f.add("%s.members: type object needs them, others have none", at)
	}
	for name, t := range c.Members {
		if t != TypeText && t != TypeCountry && t != TypeDate {
			f.add("%s.members.%s: %q is not text, country or date", at, name, t)
		}
	}
	switch c.Disclose {
	case "", "always", "never", "elements":
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
	for name, fixed := range map[string]any{"value": c.Value, "default": c.Default} {
		if fixed == nil || !c.Type.known() {
			continue
		}
		if _, problem := c.convert(fromTOML(fixed), format); problem != "" {
			f.add("%s.%s: %s", at, name, problem)
		}
	}
}

// source is the tree of names that the offer's claims may have.
type source struct {
	claim *Claim
	below map[string]*source
}

// add enters a claim's source; several claims may read the same one.
func (s *source) add(path []string, claim *Claim) bool {
	if len(path) == 0 {
		if s.below != nil {
			return false
		}
		s.claim = claim
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
