package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"chancery/wallet"
)

// The files of a demonstration attester.
const (
	anchorFile           = "anchor.pem"
	attesterFile         = "attester.pem"
	attesterKeyFile      = "attester.key.pem"
	demonstrationSubject = "Chancery demonstration attester"
)

var walletResume = command{
	name: "wallet resume", args: "STATE-FILE",
	summary: "Fetch the deferred credentials of a state that the wallet kept",
	help: `What is still not there after --wait stays in STATE-FILE. When nothing is left in
it that is good for anything, STATE-FILE is removed.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &walletFlags{draft: 7}
		f.declareFlow(flags)
		return func(s *session, args []string) error {
			return f.goOn(s, args, pending, (*wallet.Wallet).Resume)
		}
	},
}

var walletRefresh = command{
	name: "wallet refresh", args: "STATE-FILE",
	summary: "Get the credentials of a state anew with its refresh token and fresh keys",
	help:    `The issuer must have given a refresh token, which "chancery wallet accept" keeps.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &walletFlags{draft: 7}
		f.declareFlow(flags)
		f.declareKeys(flags)
		return func(s *session, args []string) error {
			return f.goOn(s, args, everything, (*wallet.Wallet).Refresh)
		}
	},
}

// everything returns the configurations that a refresh asks for.
func everything(state *wallet.State) []string { return state.Configurations }

// pending returns the configurations that a resumption fetches: --out may have
// the others already.
func pending(state *wallet.State) []string {
	var ids []string
	for _, p := range state.Pending {
		ids = append(ids, p.Configuration)
	}
	return ids
}

// goOn continues a state and keeps what is left of it in the same file. asked
// returns the configurations whose files must not exist yet.
func (f *walletFlags) goOn(s *session, args []string, asked func(*wallet.State) []string, next func(*wallet.Wallet, context.Context, *wallet.State) (*wallet.Result, error)) error {
	var err error
	if f.state, err = one(args, "the state's file"); err != nil {
		return err
	}
	data, err := s.readFile(f.state, "the state")
	if err != nil {
		return err
	}
	state, err := wallet.ParseState(data)
	if err != nil {
		return fmt.Errorf("%s: %w", f.state, err)
	}
	f.dpop = true // the state says whether its token is bound to a key
	w, err := f.wallet(s)
	if err != nil {
		return err
	}
	if w.ClientID == "" && w.ClientKey != nil {
		w.ClientID = state.ClientID
	}
	if err := f.prepareOut(asked(state)); err != nil {
		return err
	}
	result, err := next(w, s.ctx, state)
	return f.finish(s, result, err)
}

var walletAttester = command{
	name:    "wallet attester",
	summary: "Make a demonstration attester: it attests the built-in wallet and its keys",
	help: `DIR gets anchor.pem, the CA certificate that an issuer is told to trust;
attester.pem, the attester's certificate; and attester.key.pem, its private key.
The CA's own key is not kept. Give DIR to "chancery wallet accept --attester".

The attester attests whatever it is told: no issuer of real credentials should
trust it.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		out := flags.String("out", "", "write the three files to `DIR`")
		return func(s *session, args []string) error {
			if err := none(args); err != nil {
				return err
			}
			if *out == "" {
				return usage("wallet attester: --out is missing: give the folder")
			}
			return s.makeAttester(*out)
		}
	},
}

func (s *session) makeAttester(dir string) error {
	attester, err := wallet.NewAttester(demonstrationSubject, s.Now())
	if err != nil {
		return err
	}
	anchor, certificate, key, err := attester.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{attesterKeyFile, key}, {attesterFile, certificate}, {anchorFile, anchor}} {
		if err := writeNew(filepath.Join(dir, file.name), file.data); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	fmt.Fprintf(s.Stdout, "An attester until %s\n  issuers trust it by  %s\n  wallets use it with  --attester %s\n",
		attester.Certificate.NotAfter.UTC().Format("2006-01-02"), filepath.Join(dir, anchorFile), dir)
	return nil
}

func readAttester(dir string) (*wallet.Attester, error) {
	var files [2][]byte
	for i, name := range []string{attesterFile, attesterKeyFile} {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--attester: %w", plainPathError(path, err))
		}
		files[i] = data
	}
	a, err := wallet.ParseAttester(files[0], files[1])
	if err != nil {
		return nil, fmt.Errorf("--attester: %s: %w", dir, err)
	}
	return a, nil
}
