package cli

import (
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"chancery/issuance/iaca"
)

type lintFlags struct {
	profile, issuer, successor, csr, previous, audience string
	asJSON, strict                                      bool
	// request is the one in csr, DER; nil without.
	request []byte
}

func (f *lintFlags) declare(flags *flag.FlagSet) {
	flags.StringVar(&f.audience, "for", string(iaca.Everyone), "hold it against the rules of `AUDIENCE`: everyone, iso, aamva or eudi")
	flags.BoolVar(&f.asJSON, "json", false, "print the findings as JSON")
	flags.BoolVar(&f.strict, "strict", false, "let warnings fail, too")
}

func (f *lintFlags) declareIssuer(flags *flag.FlagSet) {
	flags.StringVar(&f.issuer, "issuer", "", "`FILE` with the issuing IACA's certificate, to hold names, identifiers, validity and signature against it")
}

func (f *lintFlags) declareProfile(flags *flag.FlagSet, guessed string) {
	flags.StringVar(&f.profile, "profile", "", "the `PROFILE`; default: "+guessed)
}

// linted is one file's certificate, list or request with its findings, as --json
// shows them.
type linted struct {
	File     string         `json:"file"`
	Profile  iaca.Profile   `json:"profile,omitempty"`
	Findings []iaca.Finding `json:"findings"`
}

// lintAudiences explains --for and the exit status.
const lintAudiences = `
FILE is PEM or DER, or - for standard input. Every broken rule is named with where it comes from
and what to do; "chancery lint rules" lists all of them.

--for says whose rules count:
  everyone  the specifications, and every verifier in the field that is stricter
  iso       the specifications alone
  aamva     everyone, and a stateOrProvinceName in every certificate
  eudi      everyone, and what ETSI TS 119 412-6 adds; ISO/IEC 23220-4's purpose is allowed

Exit status: 0 when nothing or only warnings were found, 1 when there was an error, with --strict
also for a warning, or a file could not be read, 2 when the command line was wrong.`

var lintCert = command{
	name: "lint cert", args: "FILE...",
	summary: "Hold certificates against the profiles of ISO/IEC 18013-5 Annex B",
	help: lintAudiences + `

Profiles: iaca, link, document-signer, credential-signer, status-signer, metadata-signer.
A link is held against the old root with --issuer and the new one with --successor. With --csr the
certificate must also be what the request asked for: key, subject, extensions, not yet ended.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &lintFlags{}
		f.declare(flags)
		f.declareIssuer(flags)
		f.declareProfile(flags, "iaca for a self-issued certificate, link for another authority, document-signer for one with that key usage")
		flags.StringVar(&f.successor, "successor", "", "`FILE` with the new root that a link leads to")
		flags.StringVar(&f.csr, "csr", "", "`FILE` with the PKCS#10 request that the certificate answers")
		return func(s *session, files []string) error { return f.lint(s, files, "CERTIFICATE", f.certificate) }
	},
}

var lintCRL = command{
	name: "lint crl", args: "FILE...",
	summary: "Hold revocation lists against the profile of ISO/IEC 18013-5 Annex B",
	help:    lintAudiences,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &lintFlags{}
		f.declare(flags)
		f.declareIssuer(flags)
		flags.StringVar(&f.previous, "previous", "", "`FILE` with the list before, to see that numbers and dates go on")
		return func(s *session, files []string) error {
			return f.lint(s, files, "X509 CRL", func(_ *session, der []byte, l iaca.Linter) (linted, error) {
				return linted{Findings: l.CRL(der)}, nil
			})
		}
	},
}

var lintCSR = command{
	name: "lint csr", args: "FILE...",
	summary: "Hold PKCS#10 requests for an external IACA against the profiles",
	help: lintAudiences + `

Profiles: document-signer, credential-signer, status-signer, metadata-signer.
What an IACA can add by itself (issuerAltName, cRLDistributionPoints, key identifiers) need not be
asked for.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &lintFlags{}
		f.declare(flags)
		f.declareProfile(flags, "document-signer for a request with that key usage")
		return func(s *session, files []string) error {
			return f.lint(s, files, "CERTIFICATE REQUEST", func(_ *session, der []byte, l iaca.Linter) (linted, error) {
				var err error
				if l.Profile, err = f.guess(der, "PKCS#10 request"); err != nil {
					return linted{}, err
				}
				return linted{Profile: l.Profile, Findings: l.CSR(der)}, nil
			})
		}
	},
}

var lintRules = command{
	name: "lint rules", args: "[RULE...]",
	summary: "List the linter's rules: what each demands, where it comes from, what to do",
	help: `Without arguments every rule, otherwise those that begin with one of the arguments.

A rule is for everybody (iso), for the strict readers in the field (everyone), or wanted by one
audience alone (aamva, eudi); --for AUDIENCE shows the rules that count for it.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		asJSON := flags.Bool("json", false, "print the rules as JSON")
		audience := flags.String("for", "", "only the rules that count for `AUDIENCE`: everyone, iso, aamva or eudi")
		return func(s *session, names []string) error {
			if *audience != "" && !slices.Contains(iaca.Audiences, iaca.Audience(*audience)) {
				return usage("--for: there is no audience %q; there are %v", *audience, iaca.Audiences)
			}
			rules := slices.DeleteFunc(iaca.Rules(), func(r iaca.Rule) bool {
				named := len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(r.ID, n) })
				return !named || *audience != "" && !r.CountsFor(iaca.Audience(*audience))
			})
			if len(rules) == 0 {
				return fmt.Errorf("no rule begins with %s", strings.Join(names, " or "))
			}
			if *asJSON {
				return printJSON(s.Stdout, rules)
			}
			for _, r := range rules {
				showRule(s.Stdout, r)
			}
			return nil
		}
	},
}

func showRule(w io.Writer, r iaca.Rule) {
	fmt.Fprintf(w, "%s  (%s, %s, %s)\n", r.ID, r.Kind, r.Severity, r.Audience)
	table(w, "    ", [][2]string{{"demands", r.Demand}, {"source", r.Source}, {"remedy", r.Remedy}})
}

// certificate lints a certificate, and with --csr as a request's answer.
func (f *lintFlags) certificate(s *session, der []byte, l iaca.Linter) (linted, error) {
	var err error
	if l.Profile, err = f.guess(der, "certificate"); err != nil {
		return linted{}, err
	}
	if f.csr == "" {
		return linted{Profile: l.Profile, Findings: l.Certificate(der)}, nil
	}
	return linted{Profile: l.Profile, Findings: l.CheckCertificateFor(f.request, der, s.Now())}, nil
}

// readRequest reads --csr once for all certificates: standard input is there only once.
func (f *lintFlags) readRequest(s *session) error {
	if f.csr == "" {
		return nil
	}
	data, err := s.readFile(f.csr, "--csr")
	if err != nil {
		return err
	}
	requests, err := blocks(data, "CERTIFICATE REQUEST")
	if err != nil {
		return fmt.Errorf("--csr: %s: %w", f.csr, err)
	}
	f.request = requests[0]
	return nil
}

// guess returns --profile, or what a certificate or request shows.
func (f *lintFlags) guess(der []byte, kind string) (iaca.Profile, error) {
	if f.profile != "" {
		return iaca.Profile(f.profile), nil
	}
	profile, err := iaca.GuessProfile(der)
	if err != nil {
		return "", fmt.Errorf("not a %s: %w", kind, err)
	}
	if profile == "" {
		return "", usage("which profile it is meant to have is not to be seen: give --profile, one of %v", iaca.Profiles)
	}
	return profile, nil
}

// linter reads what is compared with.
func (f *lintFlags) linter(s *session) (iaca.Linter, error) {
	l := iaca.Linter{Audience: iaca.Audience(f.audience)}
	if !slices.Contains(iaca.Audiences, l.Audience) {
		return l, usage("--for: there is no audience %q; there are %v", f.audience, iaca.Audiences)
	}
	if f.profile != "" && !slices.Contains(iaca.Profiles, iaca.Profile(f.profile)) {
		return l, usage("--profile: there is no profile %q; there are %v", f.profile, iaca.Profiles)
	}
	for name, given := range map[string]struct {
		file string
		into **x509.Certificate
	}{"--issuer": {f.issuer, &l.Issuer}, "--successor": {f.successor, &l.Successor}} {
		if given.file == "" {
			continue
		}
		found, err := s.certificates([]string{given.file}, name)
		if err != nil {
			return l, err
		}
		*given.into = found[0]
	}
	if f.previous != "" {
		lists, err := s.revocationLists([]string{f.previous}, "--previous")
		if err != nil {
			return l, err
		}
		l.Previous = lists[0]
	}
	return l, f.readRequest(s)
}

func (f *lintFlags) lint(s *session, files []string, kind string, each func(*session, []byte, iaca.Linter) (linted, error)) error {
	if len(files) == 0 {
		return usage("the file to lint is missing")
	}
	l, err := f.linter(s)
	if err != nil {
		return err
	}
	all := []linted{}
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
			l.PEM = len(der) != len(data)
			found, err := each(s, der, l)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			found.File = file
			bad = bad || slices.ContainsFunc(found.Findings, func(x iaca.Finding) bool { return f.strict || x.Severity == iaca.Fault })
			if !f.asJSON {
				showFindings(s.Stdout, found)
			}
			found.Findings = append([]iaca.Finding{}, found.Findings...) // [] in JSON, never null
			all = append(all, found)
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

// showFindings prints the errors before the warnings.
func showFindings(w io.Writer, l linted) {
	head := l.File
	if l.Profile != "" {
		head += ", as " + string(l.Profile)
	}
	if len(l.Findings) == 0 {
		fmt.Fprintf(w, "%s: nothing found\n", head)
		return
	}
	faults, warnings := 0, 0
	for _, x := range l.Findings {
		if x.Severity == iaca.Fault {
			faults++
		} else {
			warnings++
		}
	}
	fmt.Fprintf(w, "%s: %s, %s\n", head, count(faults, "error"), count(warnings, "warning"))
	for _, severity := range []iaca.Severity{iaca.Fault, iaca.Warning} {
		for _, x := range l.Findings {
			if x.Severity != severity {
				continue
			}
			fmt.Fprintf(w, "\n  %s %s\n", strings.ToUpper(string(x.Severity)), x.Rule)
			table(w, "    ", [][2]string{{"found", printable(x.Message)}, {"source", x.Source}, {"remedy", x.Remedy}})
		}
	}
	fmt.Fprintln(w)
}

// count says how many there are of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
