package cli

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"chancery/verifier"
)

// trustFlags are what "verify" and "wallet accept" share.
type trustFlags struct {
	trust, crls, keys list
	ca                string
	offline           bool
}

func (f *trustFlags) declare(flags *flag.FlagSet) {
	flags.Var(&f.trust, "trust", "`FILE` with trusted CA certificates (IACA), PEM or DER; may be repeated")
	flags.Var(&f.keys, "issuer-key", "`FILE` with an issuer's public key (JWK) that is trusted without a certificate; may be repeated")
	flags.Var(&f.crls, "crl", "`FILE` with a revocation list, used instead of fetching it; may be repeated")
	flags.StringVar(&f.ca, "ca", "", "`FILE` with the CA certificates that TLS servers are trusted by (PEM); default: CHANCERY_CA_FILE, else the system's")
	flags.BoolVar(&f.offline, "offline", false, "fetch nothing, neither revocation lists nor did:web documents")
}

// options reads the files.
func (f *trustFlags) options(s *session) (verifier.Options, error) {
	var o verifier.Options
	var err error
	if o.Anchors, err = s.certificates(f.trust, "--trust"); err != nil {
		return o, err
	}
	if o.CRLs, err = s.revocationLists(f.crls, "--crl"); err != nil {
		return o, err
	}
	if o.IssuerKeys, err = s.publicKeys(f.keys); err != nil {
		return o, err
	}
	if f.offline {
		return o, nil
	}
	client, err := s.client(f.ca)
	if err != nil {
		return o, err
	}
	o.Fetch = fetcher(client)
	return o, nil
}

var verifyCommand = command{
	name: "verify", args: "FILE...",
	summary: "Verify credentials: signature, chain, revocation, digests, validity",
	help: `FILE holds one credential as it was issued: an mdoc's IssuerSigned (base64url,
hexadecimal or CBOR), an SD-JWT VC or a JWT VC. "-" is standard input.

Exit status 0 when every credential is verified, 1 when one is not.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		var trust trustFlags
		trust.declare(flags)
		asJSON := flags.Bool("json", false, "print the reports as JSON, one array")
		at := flags.String("at", "", "verify as of this `TIME`, like 2026-11-25T00:00:00Z, instead of now")
		kind := flags.String("type", "", "expect this docType, vct or credential `TYPE`")
		fresh := flags.Bool("fresh", false, "the credential comes straight from the issuer: demand completeness")
		brief := flags.Bool("brief", false, "leave out the claims")
		return func(s *session, files []string) error {
			if len(files) == 0 {
				return usage("verify: the file with the credential is missing")
			}
			o, err := trust.options(s)
			if err != nil {
				return err
			}
			o.Type, o.Fresh, o.Now = *kind, *fresh, s.Now()
			if *at != "" {
				if o.Now, err = time.Parse(time.RFC3339, *at); err != nil {
					return usage("--at: %q is no time: write it like 2026-11-25T00:00:00Z", *at)
				}
			}
			return s.verifyAll(files, o, *asJSON, *brief)
		}
	},
}

func (s *session) verifyAll(files []string, o verifier.Options, asJSON, brief bool) error {
	var reports []*verifier.Report
	good := true
	for _, file := range files {
		data, err := s.readFile(file, "the credential")
		if err != nil {
			return err
		}
		report, err := verifier.Verify(s.ctx, data, o)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		good = good && report.Verified
		reports = append(reports, report)
		if !asJSON {
			if brief {
				report.Claims = nil
			}
			fmt.Fprintf(s.Stdout, "%s\n", file)
			showReport(s.Stdout, report)
		}
	}
	if asJSON {
		if err := printJSON(s.Stdout, reports); err != nil {
			return err
		}
	}
	if !good {
		return errFailed
	}
	return nil
}

// showReport prints what the credential says and what was found about it.
func showReport(w io.Writer, r *verifier.Report) {
	showCredential(w, r)
	fmt.Fprintln(w, "\n  Checks")
	var rows [][2]string
	for _, c := range r.Checks {
		mark := map[verifier.Outcome]string{verifier.Passed: "ok", verifier.Failed: "FAILED", verifier.Warning: "warning", verifier.NotChecked: "not checked"}[c.Outcome]
		text := mark
		if c.Detail != "" {
			text += ": " + c.Detail
		}
		rows = append(rows, [2]string{c.Name, text})
	}
	table(w, "    ", rows)
	verdict := "VERIFIED"
	if !r.Verified {
		verdict = "NOT VERIFIED: see the failed checks above"
	}
	fmt.Fprintf(w, "\n  %s\n", verdict)
}

// shownAbove are the claims of an SD-JWT VC that stand in the heading already.
var shownAbove = []string{"iss", "iat", "nbf", "exp", "vct"}

// showCredential prints type, issuer, validity, chain and claims.
func showCredential(w io.Writer, r *verifier.Report) {
	rows := [][2]string{{"Type", r.Type}, {"Format", string(r.Format)}, {"Issuer", r.Issuer}, {"Signature", r.Algorithm}}
	if validity := validityText(r); validity != "" {
		rows = append(rows, [2]string{"Valid", validity})
	}
	if r.Holder != "" {
		rows = append(rows, [2]string{"Bound to key", r.Holder})
	}
	for i, c := range r.Chain {
		name := "Certificate " + fmt.Sprint(i+1)
		if c.Anchor {
			name = "Trusted CA"
		}
		rows = append(rows, [2]string{name, fmt.Sprintf("%s, %s to %s, serial %s", c.Subject, c.NotBefore.UTC().Format(time.DateOnly), c.NotAfter.UTC().Format(time.DateOnly), c.Serial)})
	}
	table(w, "  ", rows)
	if len(r.Claims) == 0 {
		return
	}
	head, claims := "", [][2]string{}
	flush := func() {
		if len(claims) > 0 {
			fmt.Fprintf(w, "\n  %s\n", head)
			table(w, "    ", claims)
			claims = nil
		}
	}
	for _, c := range r.Claims {
		if r.Format == verifier.SDJWT && len(c.Path) == 1 && slices.Contains(shownAbove, c.Path[0]) {
			continue
		}
		title, name := "Claims", strings.Join(c.Path, ".")
		if r.Format == verifier.Mdoc {
			title, name = c.Path[0], strings.Join(c.Path[1:], ".")
		}
		if title != head {
			flush()
			head = title
		}
		if c.Selective && r.Format == verifier.SDJWT {
			name += " *"
		}
		claims = append(claims, [2]string{name, c.Text})
	}
	flush()
	if r.Format == verifier.SDJWT {
		fmt.Fprintln(w, "    (* the holder may withhold it)")
	}
}

func validityText(r *verifier.Report) string {
	day := func(t *time.Time) string { return t.UTC().Format("2006-01-02 15:04Z") }
	switch {
	case r.ValidFrom != nil && r.ValidUntil != nil:
		return day(r.ValidFrom) + " to " + day(r.ValidUntil)
	case r.ValidUntil != nil:
		return "until " + day(r.ValidUntil)
	case r.ValidFrom != nil:
		return "from " + day(r.ValidFrom)
	}
	return ""
}
