package cli

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"flag"
	"fmt"
	"slices"
	"strings"

	"chancery/issuance/iaca"
)

// profiles are the certificate profiles that --profile knows.
var profiles = []iaca.Profile{iaca.Root, iaca.DocumentSigner, iaca.CredentialSigner, iaca.StatusSigner, iaca.MetadataSigner}

// oidDocumentSigner is the extended key usage that tells a document signer.
var oidDocumentSigner = asn1.ObjectIdentifier{1, 0, 18013, 5, 1, 2}

type lintFlags struct {
	profile, issuer string
	asJSON, strict  bool
}

func (f *lintFlags) declare(flags *flag.FlagSet) {
	flags.StringVar(&f.issuer, "issuer", "", "`FILE` with the issuing IACA's certificate, to hold names, identifiers and validity against it")
	flags.BoolVar(&f.asJSON, "json", false, "print the findings as JSON")
	flags.BoolVar(&f.strict, "strict", false, "let warnings fail, too")
}

// linted is one certificate's or list's findings, as --json shows them.
type linted struct {
	File     string         `json:"file"`
	Profile  iaca.Profile   `json:"profile,omitempty"`
	Findings []iaca.Finding `json:"findings"`
}

var lintCert = command{
	name: "lint cert", args: "FILE...",
	summary: "Hold certificates against the profiles of ISO/IEC 18013-5 Annex B",
	help: `FILE is PEM or DER. Errors are what the profile or a verifier in the field refuses;
warnings are what one of them recommends otherwise. Exit status 1 when there is an error.

Profiles: iaca, document-signer, credential-signer, status-signer, metadata-signer.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &lintFlags{}
		f.declare(flags)
		flags.StringVar(&f.profile, "profile", "", "the `PROFILE`; default: iaca for a self-issued certificate, document-signer for one with that key usage")
		return func(s *session, files []string) error {
			if f.profile != "" && !slices.Contains(profiles, iaca.Profile(f.profile)) {
				return usage("--profile: there is no profile %q; there are %v", f.profile, profiles)
			}
			return f.lint(s, files, "CERTIFICATE", f.certificate)
		}
	},
}

var lintCRL = command{
	name: "lint crl", args: "FILE...",
	summary: "Hold revocation lists against the profile of ISO/IEC 18013-5 Annex B",
	help:    `FILE is PEM or DER. Exit status 1 when there is an error.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &lintFlags{}
		f.declare(flags)
		return func(s *session, files []string) error {
			return f.lint(s, files, "X509 CRL", func(der []byte, issuer *x509.Certificate) (linted, error) {
				return linted{Findings: iaca.LintCRL(der, issuer)}, nil
			})
		}
	},
}

func (f *lintFlags) certificate(der []byte, issuer *x509.Certificate) (linted, error) {
	profile := iaca.Profile(f.profile)
	if profile == "" {
		var err error
		if profile, err = guessProfile(der); err != nil {
			return linted{}, err
		}
	}
	if profile == iaca.Root {
		issuer = nil
	}
	return linted{Profile: profile, Findings: iaca.LintCertificate(der, profile, issuer)}, nil
}

// guessProfile tells a root and a document signer; the others look alike.
func guessProfile(der []byte) (iaca.Profile, error) {
	c, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return "", fmt.Errorf("not a certificate: %w", err)
	case bytes.Equal(c.RawIssuer, c.RawSubject):
		return iaca.Root, nil
	case slices.ContainsFunc(c.UnknownExtKeyUsage, oidDocumentSigner.Equal):
		return iaca.DocumentSigner, nil
	}
	return "", usage("which profile it is meant to have is not to be seen: give --profile, one of %v", profiles)
}

func (f *lintFlags) lint(s *session, files []string, kind string, each func([]byte, *x509.Certificate) (linted, error)) error {
	if len(files) == 0 {
		return usage("the file to lint is missing")
	}
	var issuer *x509.Certificate
	if f.issuer != "" {
		found, err := s.certificates([]string{f.issuer}, "--issuer")
		if err != nil {
			return err
		}
		issuer = found[0]
	}
	var all []linted
	bad := false
	for _, file := range files {
		data, err := s.readFile(file, "lint")
		if err != nil {
			return err
		}
		ders, err := blocks(data, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, der := range ders {
			l, err := each(der, issuer)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			l.File = file
			bad = bad || slices.ContainsFunc(l.Findings, func(x iaca.Finding) bool { return f.strict || x.Severity == iaca.Fault })
			all = append(all, l)
			if !f.asJSON {
				showFindings(s, l)
			}
		}
	}
	if f.asJSON {
		if err := printJSON(s.Stdout, all); err != nil {
			return err
		}
	}
	if bad {
		return errFailed
	}
	return nil
}

func showFindings(s *session, l linted) {
	head := l.File
	if l.Profile != "" {
		head += ", as " + string(l.Profile)
	}
	if len(l.Findings) == 0 {
		fmt.Fprintf(s.Stdout, "%s: nothing found\n", head)
		return
	}
	fmt.Fprintf(s.Stdout, "%s: %d found\n", head, len(l.Findings))
	for _, x := range l.Findings {
		text := fmt.Sprintf("%s %s: %s (%s)", strings.ToUpper(string(x.Severity)), x.Rule, printable(x.Message), x.Source)
		fmt.Fprintln(s.Stdout, fill(text, "  ", columns))
		if x.Remedy != "" {
			fmt.Fprintln(s.Stdout, fill("Remedy: "+x.Remedy, "    ", columns))
		}
	}
}
