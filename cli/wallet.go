package cli

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"chancery/wallet"

	"golang.org/x/term"
)

type walletFlags struct {
	trustFlags
	txCode, out, state                      string
	algorithm, binding, proof               string
	clientID, clientKey, attester           string
	requestAlg, responseAlg, responseEnc    string
	configurations, storage, authentication list
	keyCount, draft                         int
	wait                                    time.Duration
	noWait, notify, dpop, encrypt           bool
	details, signed, attestKeys, asJSON     bool
}

var walletAccept = command{
	name: "wallet accept", args: "OFFER-LINK",
	summary: "Take an offer as a wallet would, with fresh keys, and show the credentials",
	help: `OFFER-LINK is what the QR code says: openid-credential-offer://… or haip-vci://….
Put it in quotes. Every answer is checked strictly; the first fault ends the flow
and is named with its step. Without --trust the issuer's certificate is shown but
not judged. What the issuer advertises is used: DPoP, attestations (with
--attester), encryption where it is required, notifications.

With --out each credential is written to DIR as it was answered (NAME.mdoc,
NAME.sd-jwt or NAME.jwt), its private key as NAME.key.json and what was found as
NAME.report.json; further ones of a batch as NAME.2.sd-jwt and so on. Nothing is
overwritten.

A deferred credential is waited for; what is not there by then, and a refresh
token, are kept in the state file for "chancery wallet resume" and "chancery
wallet refresh". The state holds tokens and keys: it is a secret.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &walletFlags{}
		f.declareFlow(flags)
		f.declareKeys(flags)
		flags.StringVar(&f.txCode, "tx-code", "", "the transaction `CODE`; it is asked for on a terminal when the offer wants one")
		flags.StringVar(&f.state, "state", "", "keep what is needed to go on in `FILE`; default: state.json in --out's folder")
		flags.BoolVar(&f.dpop, "dpop", true, "bind the access token to a key by DPoP where the server supports it")
		flags.BoolVar(&f.details, "authorization-details", false, "ask for the credentials with authorization_details, and by credential_identifier then")
		flags.Var(&f.configurations, "configuration", "take only this offered credential configuration `ID`; may be repeated")
		return func(s *session, args []string) error {
			link, err := one(args, "the offer's link")
			if err != nil {
				return err
			}
			return f.accept(s, link)
		}
	},
}

// declareFlow declares what all commands of the wallet share that talk to an issuer.
func (f *walletFlags) declareFlow(flags *flag.FlagSet) {
	f.declare(flags)
	flags.StringVar(&f.out, "out", "", "write credentials, keys and reports to `DIR`")
	flags.StringVar(&f.clientID, "client-id", "", "present this client `ID` instead of staying anonymous")
	flags.StringVar(&f.clientKey, "client-key", "", "`FILE` with the client's private key (JWK) for private_key_jwt")
	flags.StringVar(&f.attester, "attester", "", "`DIR` of a demonstration attester that attests wallet and keys; \"chancery wallet attester\" makes one")
	flags.IntVar(&f.draft, "attestation-draft", 7, "form of the wallet attestation by `DRAFT`: 7, which OpenID4VCI 1.0 pins, or 10")
	flags.DurationVar(&f.wait, "wait", 5*time.Minute, "poll for a deferred credential for this `DURATION`")
	flags.BoolVar(&f.noWait, "no-wait", false, "do not wait for a deferred credential: keep the state and end")
	flags.BoolVar(&f.notify, "notify", true, "notify the issuer that credentials were accepted or failed")
	flags.BoolVar(&f.encrypt, "encrypt", false, "encrypt requests and responses also where that is not required")
	flags.StringVar(&f.requestAlg, "request-alg", "", "encrypt requests with this `ALG` (ECDH-ES, ECDH-ES+A128KW, ECDH-ES+A256KW); default: the issuer's first key")
	flags.StringVar(&f.responseAlg, "response-alg", "", "want encrypted responses with this `ALG` (ECDH-ES, ECDH-ES+A128KW, ECDH-ES+A256KW); default: the issuer's first")
	flags.StringVar(&f.responseEnc, "response-enc", "", "want encrypted responses with this `ENC` (A128GCM, A256GCM); default: the issuer's first")
	flags.BoolVar(&f.signed, "signed-metadata", false, "ask for signed metadata too, verify it under --trust and compare it with the plain form")
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
}

// declareKeys declares what the commands share that make keys and prove them.
func (f *walletFlags) declareKeys(flags *flag.FlagSet) {
	flags.StringVar(&f.algorithm, "key", "ES256", "the fresh keys' `ALGORITHM`: ES256, ES384 or EdDSA")
	flags.StringVar(&f.binding, "binding", "", "name the key in proofs by `METHOD`: jwk, did:jwk or did:key; default: what the issuer supports")
	flags.StringVar(&f.proof, "proof", "", "prove keys by `TYPE`: jwt, attestation or di_vp; default: what the issuer supports")
	flags.IntVar(&f.keyCount, "keys", 1, "ask for a batch of `N` credentials, each with a key of its own")
	flags.BoolVar(&f.attestKeys, "key-attestation", false, "add a key attestation to jwt proofs also where none is required")
	flags.Var(&f.storage, "key-storage", "let the key attestation say `LEVEL` about the keys' storage, like iso_18045_basic; may be repeated")
	flags.Var(&f.authentication, "user-authentication", "let the key attestation say `LEVEL` about the user's authentication; may be repeated")
}

// wallet makes the wallet that the flags describe.
func (f *walletFlags) wallet(s *session) (*wallet.Wallet, error) {
	client, err := s.client(f.ca)
	if err != nil {
		return nil, err
	}
	for _, choice := range []struct {
		flag, value, what string
		allowed           []string
	}{
		{"--key", f.algorithm, "algorithm", []string{"", "ES256", "ES384", "EdDSA"}},
		{"--binding", f.binding, "method", []string{"", "jwk", "did:jwk", "did:key"}},
		{"--proof", f.proof, "proof type", []string{"", "jwt", "attestation", "di_vp"}},
		{"--request-alg", f.requestAlg, "algorithm", []string{"", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"}},
		{"--response-alg", f.responseAlg, "algorithm", []string{"", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"}},
		{"--response-enc", f.responseEnc, "encryption", []string{"", "A128GCM", "A256GCM"}},
		{"--attestation-draft", strconv.Itoa(f.draft), "draft", []string{"7", "10"}},
	} {
		if !slices.Contains(choice.allowed, choice.value) {
			return nil, usage("%s: %q is no %s of this wallet: use one of %s", choice.flag, choice.value, choice.what, strings.TrimPrefix(strings.Join(choice.allowed, ", "), ", "))
		}
	}
	if f.keyCount < 0 || f.keyCount > 1000 {
		return nil, usage("--keys: %d is no number from 1 to 1000", f.keyCount)
	}
	options, err := f.options(s)
	if err != nil {
		return nil, err
	}
	w := &wallet.Wallet{HTTP: client, Algorithm: f.algorithm, Binding: wallet.Binding(f.binding), Proof: wallet.ProofType(f.proof), Keys: f.keyCount,
		ClientID: f.clientID, KeyAttestation: f.attestKeys, KeyStorage: f.storage, UserAuthentication: f.authentication, NoDPoP: !f.dpop,
		AuthorizationDetails: f.details, Encrypt: f.encrypt || f.requestAlg != "" || f.responseAlg != "" || f.responseEnc != "",
		RequestAlgorithm: f.requestAlg, ResponseAlgorithm: f.responseAlg, ResponseEncryption: f.responseEnc,
		SignedMetadata: f.signed, MetadataAnchors: options.Anchors, Configurations: f.configurations, TransactionCode: s.askTransactionCode,
		Verify: &options, NoNotify: !f.notify, Wait: f.wait, Now: s.Now}
	if f.draft == 10 {
		w.AttestationDraft = wallet.Draft10
	}
	if f.noWait {
		w.Wait = 0
	}
	if f.state != "" {
		w.Keep = f.keep
	}
	if f.clientKey != "" {
		data, err := s.readFile(f.clientKey, "--client-key")
		if err != nil {
			return nil, err
		}
		if w.ClientKey, w.ClientKeyID, err = wallet.ParsePrivateJWK(data); err != nil {
			return nil, fmt.Errorf("--client-key: %s: %w", f.clientKey, err)
		}
	}
	if f.attester != "" {
		w.Attester, err = readAttester(f.attester)
	}
	return w, err
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
	if f.state == "" && f.out != "" {
		f.state = filepath.Join(f.out, stateFile)
	}
	if f.noWait && f.state == "" {
		return usage("--no-wait: give --state or --out, so that the credential can be fetched later")
	}
	w, err := f.wallet(s)
	if err != nil {
		return err
	}
	offer, err := w.Resolve(s.ctx, link)
	if err != nil {
		return err
	}
	if err := f.prepare(offer.Configurations); err != nil {
		return err
	}
	result, err := w.Take(s.ctx, offer, f.txCode)
	return f.finish(s, result, err)
}

// prepare makes the folder and refuses to overwrite before a code is spent.
func (f *walletFlags) prepare(configurations []string) error {
	if err := f.prepareOut(configurations); err != nil {
		return err
	}
	if f.state != "" {
		if _, err := os.Stat(f.state); err == nil {
			return fmt.Errorf("--state: %s exists: go on with it, or choose another file", f.state)
		}
	}
	return nil
}

func (f *walletFlags) prepareOut(configurations []string) error {
	if f.out == "" {
		return nil
	}
	if err := os.MkdirAll(f.out, 0o700); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, id := range configurations {
		found, err := filepath.Glob(filepath.Join(f.out, safeName(id)+".*"))
		if err == nil && len(found) > 0 {
			return fmt.Errorf("--out: %s exists: choose another folder", found[0])
		}
	}
	return nil
}
