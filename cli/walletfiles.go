package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"chancery/verifier"
	"chancery/wallet"
)

// extensions name the files that a wallet keeps, by format.
var extensions = map[string]string{"mso_mdoc": ".mdoc", "dc+sd-jwt": ".sd-jwt", "jwt_vc_json": ".jwt"}

// stateFile is the state's name in --out's folder.
const stateFile = "state.json"

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
	Problems      []string         `json:"problems,omitempty"`
}

// finish keeps and shows what was issued, also when the flow then failed.
func (f *walletFlags) finish(s *session, result *wallet.Result, failure error) error {
	if result == nil {
		return failure
	}
	good := failure == nil
	all := []taken{}
	for _, c := range result.Credentials {
		t := taken{Configuration: c.Configuration, Format: c.Metadata.Format, Credential: c.Text, Verified: c.Accepted,
			Report: c.Report, Missing: c.Missing, Problems: c.Problems(f.judgesTrust())}
		if f.out != "" {
			if err := t.write(f.out, c); err != nil {
				return errors.Join(failure, err)
			}
		}
		good = good && t.Verified
		all = append(all, t)
		if !f.asJSON {
			f.show(s, result, c, t)
		}
	}
	var unnotified []string
	for _, err := range result.Unnotified {
		good = false
		unnotified = append(unnotified, err.Error())
	}
	left, err := f.leave(result.State)
	if err != nil {
		return errors.Join(failure, err)
	}
	if f.asJSON {
		said := map[string]any{"issuer": result.Metadata.Issuer, "credentials": all, "pending": len(result.State.Pending)}
		if left != "" {
			said["state_file"] = left
		}
		if len(unnotified) > 0 {
			said["failed_notifications"] = unnotified
		}
		if err := printJSON(s.Stdout, said); err != nil {
			return errors.Join(failure, err)
		}
	} else {
		f.showRest(s, result.State, unnotified, left)
	}
	switch {
	case failure != nil:
		return failure
	case !good, len(result.State.Pending) > 0 && !f.noWait:
		return errFailed
	}
	return nil
}

// leave keeps the state while it is good for something, removes it afterwards
// and returns its file's name.
func (f *walletFlags) leave(state *wallet.State) (string, error) {
	if f.state == "" {
		return "", nil
	}
	if state.Unfinished() {
		return f.state, f.keep(state)
	}
	if err := os.Remove(f.state); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return "", nil
}

// keep writes the state whole or not at all.
func (f *walletFlags) keep(state *wallet.State) error {
	data, err := state.Encode()
	if err != nil {
		return err
	}
	// CreateTemp's files are for their owner only.
	file, err := os.CreateTemp(filepath.Dir(f.state), filepath.Base(f.state)+"-")
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	_, err = file.Write(append(data, '\n'))
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), f.state)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

func (f *walletFlags) judgesTrust() bool { return len(f.trust) > 0 || len(f.keys) > 0 }

func (f *walletFlags) show(s *session, result *wallet.Result, c wallet.Credential, t taken) {
	name := c.Metadata.Name
	if name == "" {
		name = c.Configuration
	}
	from := result.Metadata.Issuer
	if result.Metadata.Name != "" {
		from = result.Metadata.Name + ", " + from
	}
	fmt.Fprintf(s.Stdout, "%s\n  from %s\n\n", printable(name), printable(from))
	if t.Report != nil {
		showCredential(s.Stdout, t.Report)
		fmt.Fprintln(s.Stdout)
	}
	for _, problem := range t.Problems {
		fmt.Fprintln(s.Stdout, fill("FAILED "+printable(problem), "  ", columns))
	}
	switch {
	case !t.Verified:
		fmt.Fprintln(s.Stdout, "  NOT VERIFIED")
	case !f.judgesTrust():
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

// showRest says what is pending, what failed beside the credentials and where the state is.
func (f *walletFlags) showRest(s *session, state *wallet.State, unnotified []string, left string) {
	for _, problem := range unnotified {
		fmt.Fprintln(s.Stdout, fill("FAILED "+printable(problem), "  ", columns))
	}
	for _, p := range state.Pending {
		fmt.Fprintf(s.Stdout, "%s\n  is deferred: the issuer is to be asked again from %s on\n", printable(p.Configuration), p.Next.UTC().Format("15:04:05Z"))
	}
	switch {
	case left == "" && len(state.Pending) > 0:
		fmt.Fprintln(s.Stdout, "  It cannot be fetched later: nothing was kept (--state, --out)")
	case left == "":
	case len(state.Pending) > 0:
		fmt.Fprintf(s.Stdout, "  Fetch it with: chancery wallet resume %s\n", left)
	default:
		fmt.Fprintf(s.Stdout, "  Renew it with: chancery wallet refresh %s\n", left)
	}
}

// write keeps credential, key and report; none may exist already. Further
// credentials of one configuration are numbered.
func (t *taken) write(dir string, c wallet.Credential) error {
	base := filepath.Join(dir, safeName(c.Configuration))
	extension := extensions[t.Format]
	if extension == "" {
		extension = ".credential"
	}
	for n := 2; ; n++ {
		t.File = base + extension
		err := writeNew(t.File, []byte(c.Text))
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return err
		}
		base = filepath.Join(dir, fmt.Sprintf("%s.%d", safeName(c.Configuration), n))
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
