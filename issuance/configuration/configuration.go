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
	"sort"
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
	// Validity is the technical validity, for instance "336h": from "2h" to 20
	// years. It counts from the first second of the day of issuing (UTC), below
	// "48h" of the hour of issuing.
	Validity string `toml:"validity"`
	// Pad pads the number of digests (mdoc, per namespace) or of hidden claims
	// (SD-JWT VC, per level and per list of hidden entries) to a multiple, so that
	// it does not tell which optional claims exist; 0 means no padding.
	Pad int `toml:"pad"`
	// KeyBinding says whether the credential is bound to a key of the holder's; default true. An mdoc always is.
	KeyBinding *bool `toml:"key_binding"`
	// ProofTypes are how a wallet may prove its key: jwt (default), attestation, di_vp (OpenID4VCI 1.0 App. F).
	ProofTypes []string `toml:"proof_types"`
	// KeyAttestation demands that somebody whom the issuer trusts attests the
	// holder's keys (OpenID4VCI 1.0 App. D); without the section none is demanded.
	KeyAttestation *KeyAttestation `toml:"key_attestation"`
	// BatchSize is how many keys one request may bring, each for a credential of
	// its own: 1 (default) to 64. The largest of all configurations is in the
	// metadata; a request that brings more keys than this configuration's own
	// gets credentials for the first of them.
	BatchSize int `toml:"batch_size"`
	// Approval has an operator approve each credential before it is issued: the
	// wallet is told to come again (OpenID4VCI 1.0 §9).
	Approval bool `toml:"approval"`
	// PollInterval is how long such a wallet is told to wait: "1s" to "24h". Default "10s".
	PollInterval string `toml:"poll_interval"`
	// Display names the credential to people, one entry per language.
	Display []Display `toml:"display"`
	// Claims are in the order in which wallets show them.
	Claims []Claim `toml:"claims"`
}

// Display is how a wallet shows the credential in one language (OpenID4VCI 1.0
// §12.2.4 display).
type Display struct {
	// Name is the credential's name. Required.
	Name string `toml:"name"`
	// Locale is the language's BCP 47 tag, one entry for each.
	Locale string `toml:"locale"`
	// Description is a sentence about the credential.
	Description string `toml:"description"`
	// BackgroundColor and TextColor are written like "#12107c".
	BackgroundColor string `toml:"background_color"`
	TextColor       string `toml:"text_color"`
	// LogoURI is an https or data URI, LogoAlt says what the logo shows.
	LogoURI string `toml:"logo_uri"`
	LogoAlt string `toml:"logo_alt"`
}

// KeyAttestation is what a key attestation must say (OpenID4VCI 1.0 §12.2.4,
// App. D.2). Levels are not ordered: list every acceptable one.
type KeyAttestation struct {
	// KeyStorage and UserAuthentication list acceptable values, for instance
	// "iso_18045_high"; without one that dimension is not looked at.
	KeyStorage         []string `toml:"key_storage"`
	UserAuthentication []string `toml:"user_authentication"`
}

// Claim is one claim or data element.
type Claim struct {
	// Path is where it stands: [namespace, element] in an mdoc, member names
	// from the top of an SD-JWT VC, member names within credentialSubject of a W3C VC.
	Path []string `toml:"path"`
	// Type says what the value is and how it is encoded: see the types.
	Type Type `toml:"type"`
	// MapFrom is the dotted path in the offer's claims; default: the path's last
	// name. Several claims may read the same one.
	MapFrom string `toml:"map_from"`
	// Required claims must be in the offer.
	Required bool `toml:"required"`
	// Default is taken when the offer has none, Value always; an offer cannot give it.
	Default any `toml:"default"`
	Value   any `toml:"value"`
	// Members are an object's, with their types: text, country or date.
	Members map[string]Type `toml:"members"`
	// Min and Max bound an integer, or the number of a list's entries.
	Min *int64 `toml:"min"`
	Max *int64 `toml:"max"`
	// OneOf lists all values that a text or an integer may have.
	OneOf []any `toml:"one_of"`
	// Age is an age_over claim's NN; From is the dotted path of the birth date it is derived from.
	Age  int    `toml:"age"`
	From string `toml:"from"`
	// Disclose makes an SD-JWT VC's claim selectively disclosable: "always"
	// (default), "never", or "elements" for each entry of a list by itself; the
	// list itself is visible then.
	Disclose string `toml:"disclose"`
	// Display is the claim's name by language tag.
	Display map[string]string `toml:"display"`

	source, birth   []string   // MapFrom and From, split
	fixed, fallback any        // Value and Default, converted
	oneOf           []any      // OneOf, converted
	hide            sdjwt.Path // what of an SD-JWT VC's claim is disclosable; nil for none
}

// Configuration is a checked file. It does not change.
type Configuration struct {
	File
	// Version is the SHA-256 of the file, hex.
	Version string
	// ValidFor is Validity.
	ValidFor time.Duration
	// Poll is PollInterval.
	Poll    time.Duration
	sources *source // what the offer's claims may contain
}

// Bound tells whether the credential is bound to a key of the holder's.
func (c *Configuration) Bound() bool { return c.KeyBinding == nil || *c.KeyBinding }

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
