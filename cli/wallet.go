package cli

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chancery/verifier"
	"chancery/wallet"

	"golang.org/x/term"
)

// extensions name the files that a wallet keeps, by format.
var extensions = map[string]string{"mso_mdoc": ".mdoc", "dc+sd-jwt": ".sd-jwt", "jwt_vc_json": ".jwt"}

type walletFlags struct {
	trustFlags
	txCode, out, algorithm, binding, clientID string
	configurations                            list
	asJSON                                    bool
}

var walletAccept = command{
	name: "wallet accept", args: "OFFER-LINK",
	summary: "Take an offer as a wallet would, with a fresh key, and show the credential",
	help: `OFFER-LINK is what the QR code says: openid-credential-offer://… or haip-vci://….
Put it in quotes. Every answer is checked strictly; the first fault ends the flow
and is named with its step. Without --trust the issuer's certificate is shown but
not judged.

With --out each credential is written to DIR as it was answered (NAME.mdoc,
NAME.sd-jwt or NAME.jwt), its private key as NAME.key.json and what was found as
NAME.report.json. Nothing is overwritten.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &walletFlags{}
		f.declare(flags)
		flags.StringVar(&f.txCode, "tx-code", "", "the transaction `CODE`; it is asked for on a terminal when the offer wants one")
		flags.StringVar(&f.out, "out", "", "write credential, key and report to `DIR`")
		flags.StringVar(&f.algorithm, "key", "ES256", "the fresh key's `ALGORITHM`: ES256, ES384 or EdDSA")
		flags.StringVar(&f.binding, "binding", "", "name the key in proofs by `METHOD`: jwk, did:jwk or did:key; default: what the issuer supports")
		flags.StringVar(&f.clientID, "client-id", "", "present this client `ID` instead of staying anonymous")
		flags.Var(&f.configurations, "configuration", "take only this offered credential configuration `ID`; may be repeated")
		flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
		return func(s *session, args []string) error {
			link, err := one(args, "the offer's link")
			if err != nil {
				return err
			}
			return f.accept(s, link)
		}
	},
}

// taken is one credential as --json shows it.
type taken struct {
	Configuration string           `json:"configuration"`
	Format        string           `json:"format"`
	Credential    string           `json:"credential"`
	Verified      bool             `json:"verified"`
	File          string           `json:"file,omitempty"`
	KeyFile       string           `json:"key_file,omitempty"`
	Report        *verifier.Report `json:"report"`
	Missing       []string         `json:"missing_mandatory_claims,omitempty"`
}

func (f *walletFlags) wallet(s *session) (*wallet.Wallet, error) {
	client, err := s.client(f.ca)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"ES256", "ES384", "EdDSA"}, f.algorithm) {
		return nil, usage("--key: %q is no algorithm of this wallet: use ES256, ES384 or EdDSA", f.algorithm)
	}
	if !slices.Contains([]string{"", "jwk", "did:jwk", "did:key"}, f.binding) {
		return nil, usage("--binding: %q is no method of this wallet: use jwk, did:jwk or did:key", f.binding)
	}
	return &wallet.Wallet{HTTP: client, Algorithm: f.algorithm, Binding: wallet.Binding(f.binding), ClientID: f.clientID,
		Configurations: f.configurations, TransactionCode: s.askTransactionCode, Now: s.Now}, nil
}

// askTransactionCode asks on a terminal; elsewhere the flag is the way.
func (s *session) askTransactionCode(c wallet.TxCode) (string, error) {
	in, ok := s.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", fmt.Errorf("(%s): give it with --tx-code", c)
	}
	fmt.Fprintf(s.Stderr, "Transaction code (%s): ", c)
	line, err := bufio.NewReader(in).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (f *walletFlags) accept(s *session, link string) error {
	w, err := f.wallet(s)
	if err != nil {
		return err
	}
	o, err := f.options(s)
	if err != nil {
		return err
	}
	offer, err := w.Resolve(s.ctx, link)
	if err != nil {
		return err
	}
	if f.out != "" {
		if err := f.prepareOut(offer); err != nil {
			return err
		}
	}
	result, err := w.Take(s.ctx, offer, f.txCode)
	if err != nil {
		return err
	}
	return f.finish(s, result, o)
}

// finish judges, keeps and shows what was issued.
func (f *walletFlags) finish(s *session, result *wallet.Result, o verifier.Options) error {
	good := true
	var all []taken
	for _, c := range result.Credentials {
		t, err := f.judge(s, c, o)
		if err != nil {
			return err
		}
		if f.out != "" {
			if err := t.write(f.out, c); err != nil {
				return err
			}
		}
		good = good && t.Verified
		all = append(all, *t)
		if !f.asJSON {
			f.show(s, result, c, t)
		}
	}
	if f.asJSON {
		if err := printJSON(s.Stdout, map[string]any{"issuer": result.Metadata.Issuer, "credentials": all}); err != nil {
			return err
		}
	}
	if !good {
		return errFailed
	}
	return nil
}

// prepareOut makes the folder and refuses to overwrite before the code is spent.
func (f *walletFlags) prepareOut(offer *wallet.Offer) error {
	if err := os.MkdirAll(f.out, 0o700); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, id := range offer.Configurations {
		found, err := filepath.Glob(filepath.Join(f.out, safeName(id)+".*"))
		if err == nil && len(found) > 0 {
			return fmt.Errorf("--out: %s exists: choose another folder", found[0])
		}
	}
	return nil
}

// judge verifies a credential that was just issued. Without --trust the check
// of the issuer is left out of the verdict.
func (f *walletFlags) judge(s *session, c wallet.Credential, o verifier.Options) (*taken, error) {
	o.Fresh, o.Type, o.Now = true, c.Metadata.Type, s.Now()
	if c.Key != nil {
		o.Holder = c.Key.Public()
	}
	report, err := verifier.Verify(s.ctx, []byte(c.Text), o)
	if err != nil {
		return nil, fmt.Errorf("credential %s: %w", c.Configuration, err)
	}
	t := &taken{Configuration: c.Configuration, Format: c.Metadata.Format, Credential: c.Text, Report: report, Verified: report.Verified}
	if string(report.Format) != c.Metadata.Format {
		return nil, fmt.Errorf("credential %s: it is %s, the metadata says %s", c.Configuration, report.Format, c.Metadata.Format)
	}
	if len(f.trust) == 0 && len(f.keys) == 0 {
		t.Verified = true
		for _, failure := range report.Failures() {
			if failure.Name != "issuer trusted" {
				t.Verified = false
			}
		}
	}
	var paths [][]string
	for _, claim := range report.Claims {
		paths = append(paths, claim.Path)
	}
	if t.Missing = c.Metadata.Missing(paths); len(t.Missing) > 0 {
		t.Verified = false
	}
	return t, nil
}

func (f *walletFlags) show(s *session, result *wallet.Result, c wallet.Credential, t *taken) {
	name := c.Metadata.Name
	if name == "" {
		name = c.Configuration
	}
	from := result.Metadata.Issuer
	if result.Metadata.Name != "" {
		from = result.Metadata.Name + ", " + from
	}
	fmt.Fprintf(s.Stdout, "%s\n  from %s\n\n", printable(name), printable(from))
	showCredential(s.Stdout, t.Report)
	fmt.Fprintln(s.Stdout)
	for _, failure := range t.Report.Failures() {
		if failure.Name == "issuer trusted" && len(f.trust) == 0 && len(f.keys) == 0 {
			continue
		}
		fmt.Fprintln(s.Stdout, fill("FAILED "+failure.Name+": "+failure.Detail, "  ", columns))
	}
	if len(t.Missing) > 0 {
		fmt.Fprintln(s.Stdout, fill("FAILED mandatory claims are missing: "+strings.Join(t.Missing, ", "), "  ", columns))
	}
	switch {
	case !t.Verified:
		fmt.Fprintln(s.Stdout, "  NOT VERIFIED")
	case len(f.trust) == 0 && len(f.keys) == 0:
		fmt.Fprintln(s.Stdout, "  Everything fits; whether the issuer is to be trusted was not asked (--trust)")
	default:
		passed := 0
		for _, check := range t.Report.Checks {
			if check.Outcome == verifier.Passed {
				passed++
			}
		}
		fmt.Fprintf(s.Stdout, "  VERIFIED: %d checks passed\n", passed)
	}
	if t.File != "" {
		fmt.Fprintf(s.Stdout, "  Kept in %s\n", t.File)
	}
}

// write keeps credential, key and report; none may exist already.
func (t *taken) write(dir string, c wallet.Credential) error {
	base := filepath.Join(dir, safeName(c.Configuration))
	t.File = base + extensions[t.Format]
	if extensions[t.Format] == "" {
		t.File = base + ".credential"
	}
	if err := writeNew(t.File, []byte(c.Text)); err != nil {
		return err
	}
	if c.Key != nil {
		jwk, err := wallet.PrivateJWK(c.Key)
		if err != nil {
			return err
		}
		t.KeyFile = base + ".key.json"
		if err := writeNew(t.KeyFile, append(jwk, '\n')); err != nil {
			return err
		}
	}
	var text strings.Builder
	if err := printJSON(&text, t.Report); err != nil {
		return err
	}
	return writeNew(base+".report.json", []byte(text.String()))
}

// writeNew creates a file that only its owner reads; it must not exist.
func writeNew(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// safeName makes a file name of a stranger's identifier.
func safeName(id string) string {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r) {
			return r
		}
		return '_'
	}, id)
	name = strings.TrimLeft(name, ".")
	if name == "" || len(name) > 128 {
		return "credential"
	}
	return name
}
