// Command load takes a running appliance through full flows (offer, token,
// nonce, credential; four requests) with a number of clients at once, and
// reports flows a second, latency, the daemons' CPU time for one flow and their
// resident memory. It reads the appliance's addresses from the environment as
// .run/env holds them.
//
//	load -clients 8,32,64 -flows 2000 -configuration ID -claims FILE
//
// With -dpop and -attested it shows what these cost a flow, with -endpoints how
// many requests a second each endpoint answers.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chancery/promises/flow"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	clients := flag.String("clients", "8,32,64", "numbers of clients, one run for each")
	flows := flag.Int("flows", 3000, "flows in a run")
	configuration := flag.String("configuration", "org.iso.18013.5.1.mDL", "the credential configuration")
	claimsFile := flag.String("claims", "", "the claims' file (default: examples/claims/<configuration>.json)")
	byReference := flag.Bool("by-reference", false, "resolve the offer's URI too: five requests a flow")
	dpop := flag.Bool("dpop", false, "bind the access token to a key (RFC 9449)")
	attested := flag.Bool("attested", false, "attest the wallet, with the attester in ATTESTER_DIR")
	endpoints := flag.Bool("endpoints", false, "measure the token, nonce and credential endpoints one after the other")
	flag.Parse()
	if *claimsFile == "" {
		*claimsFile = filepath.Join("examples", "claims", *configuration+".json")
	}
	claims, err := os.ReadFile(*claimsFile)
	if err != nil {
		return err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, claims); err != nil {
		return fmt.Errorf("%s: %w", *claimsFile, err)
	}
	request, err := flow.OfferRequest(*configuration, compact.Bytes(), false)
	if err != nil {
		return err
	}
	for field := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("-clients: %q is not a number of clients", field)
		}
		r := round{configuration: *configuration, request: request, clients: n, flows: *flows, byReference: *byReference, dpop: *dpop}
		if *attested {
			if r.attester, err = loadAttester(os.Getenv("ATTESTER_DIR")); err != nil {
				return err
			}
		}
		run := r.run
		if *endpoints {
			run = r.endpoints
		}
		if err := run(); err != nil {
			return err
		}
	}
	return nil
}

// round is one measurement.
type round struct {
	configuration string
	request       []byte // the offer's
	clients       int
	flows         int
	byReference   bool
	dpop          bool
	attester      *attester // nil for an anonymous wallet
}

func (r round) run() error {
	client, err := flow.New(os.Getenv("ISSUER_URL"), os.Getenv("ADMIN_URL"), os.Getenv("ADMIN_TOKEN"), os.Getenv("TLS_CA_FILE"), r.clients)
	if err != nil {
		return err
	}
	before := usage()
	var (
		left      atomic.Int64
		failures  atomic.Int64
		firstFail atomic.Pointer[string]
		wait      sync.WaitGroup
		times     = make([][]time.Duration, r.clients)
	)
	left.Store(int64(r.flows))
	start := time.Now()
	for i := range r.clients {
		wait.Go(func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				if err := r.one(client); err != nil {
					failures.Add(1)
					text := err.Error()
					firstFail.CompareAndSwap(nil, &text)
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	wait.Wait()
	elapsed := time.Since(start)
	after := usage()
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	cpu := after.cpu - before.cpu
	fmt.Printf("%3d clients: %6.0f flows/s  p50 %6.1f ms  p99 %6.1f ms  server CPU %.2f ms/flow (chanceryd %.2f, signer %.2f)  resident %d + %d MiB  failures %d\n",
		r.clients, float64(r.flows)/elapsed.Seconds(), ms(all[len(all)/2]), ms(all[len(all)*99/100]),
		ms(cpu)/float64(r.flows), ms(after.daemon-before.daemon)/float64(r.flows), ms(after.signer-before.signer)/float64(r.flows),
		after.daemonRSS>>20, after.signerRSS>>20, failures.Load())
	if text := firstFail.Load(); text != nil {
		return fmt.Errorf("%d of %d flows failed, the first: %s", failures.Load(), r.flows, *text)
	}
	return nil
}

// one takes a credential. What the answers hold is read as far as the next
// request needs it: the generator works on the appliance's cores.
func (r round) one(client *flow.Client) error {
	ctx := context.Background()
	offer, answer, err := client.PostOffer(ctx, r.request)
	if err := unexpected("offer", answer, err, http.StatusCreated); err != nil {
		return err
	}
	link := offer.URIByValue
	if r.byReference {
		link = offer.URI
	}
	code, err := client.Code(ctx, link)
	if err != nil {
		return err
	}
	w := wallet{round: r, client: client, key: flow.NewKey(), code: code}
	for _, step := range []func(context.Context) error{w.redeem, w.fetchNonce, w.ask} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wallet goes through one flow.
type wallet struct {
	round
	client             *flow.Client
	key                *ecdsa.PrivateKey
	code, token, nonce string
}

func (w *wallet) redeem(ctx context.Context) error {
	header := map[string]string{}
	var err error
	if w.dpop {
		if header["DPoP"], err = w.client.DPoP(w.key, "/token", ""); err != nil {
			return err
		}
	}
	if a := w.attester; a != nil {
		const client = "https://wallet.example/load"
		if header["OAuth-Client-Attestation"], err = flow.Attestation(a.key, a.x5c, client, w.key); err != nil {
			return err
		}
		if header["OAuth-Client-Attestation-PoP"], err = w.client.PoP(w.key, client); err != nil {
			return err
		}
	}
	token, answer, err := w.client.TokenWith(ctx, w.code, "", header)
	w.token = token
	return unexpected("token", answer, err, http.StatusOK)
}

func (w *wallet) fetchNonce(ctx context.Context) error {
	nonce, answer, err := w.client.Nonce(ctx)
	w.nonce = nonce
	return unexpected("nonce", answer, err, http.StatusOK)
}

func (w *wallet) ask(ctx context.Context) error {
	header := map[string]string{"Authorization": "Bearer " + w.token}
	if w.dpop {
		proof, err := w.client.DPoP(w.key, "/credential", w.token)
		if err != nil {
			return err
		}
		header["Authorization"], header["DPoP"] = "DPoP "+w.token, proof
	}
	answer, err := w.client.AskWith(ctx, w.configuration, w.nonce, w.key, header)
	if err := unexpected("credential", answer, err, http.StatusOK); err != nil {
		return err
	}
	if !bytes.HasPrefix(answer.Body, []byte(`{"credentials":[{"credential":"`)) {
		return fmt.Errorf("credential: the answer holds none: %.60s", answer.Body)
	}
	return nil
}

// endpoints takes as many wallets as there are flows through one step after the
// other, and reports how many requests a second each endpoint answers.
func (r round) endpoints() error {
	client, err := flow.New(os.Getenv("ISSUER_URL"), os.Getenv("ADMIN_URL"), os.Getenv("ADMIN_TOKEN"), os.Getenv("TLS_CA_FILE"), r.clients)
	if err != nil {
		return err
	}
	wallets := make([]wallet, r.flows)
	offer := func(ctx context.Context, w *wallet) error {
		*w = wallet{round: r, client: client, key: flow.NewKey()}
		offer, answer, err := client.PostOffer(ctx, r.request)
		if err := unexpected("offer", answer, err, http.StatusCreated); err != nil {
			return err
		}
		w.code, err = client.Code(ctx, offer.URIByValue)
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context, *wallet) error
	}{
		{"offer", offer},
		{"token", func(ctx context.Context, w *wallet) error { return w.redeem(ctx) }},
		{"nonce", func(ctx context.Context, w *wallet) error { return w.fetchNonce(ctx) }},
		{"credential", func(ctx context.Context, w *wallet) error { return w.ask(ctx) }},
	} {
		var next atomic.Int64
		var failed atomic.Pointer[error]
		var wait sync.WaitGroup
		before, start := usage(), time.Now()
		for range r.clients {
			wait.Go(func() {
				for n := next.Add(1) - 1; n < int64(len(wallets)); n = next.Add(1) - 1 {
					if err := step.do(context.Background(), &wallets[n]); err != nil {
						failed.CompareAndSwap(nil, &err)
					}
				}
			})
		}
		wait.Wait()
		elapsed, cpu := time.Since(start), usage().cpu-before.cpu
		if err := failed.Load(); err != nil {
			return *err
		}
		fmt.Printf("%3d clients: %-10s %6.0f requests/s  server CPU %.2f ms/request\n", r.clients, step.name, float64(r.flows)/elapsed.Seconds(), ms(cpu)/float64(r.flows))
	}
	return nil
}

// attester vouches for wallets.
type attester struct {
	key *ecdsa.PrivateKey
	x5c string
}

func loadAttester(dir string) (*attester, error) {
	block := func(name string) ([]byte, error) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		b, _ := pem.Decode(data)
		if b == nil {
			return nil, fmt.Errorf("%s holds no PEM", name)
		}
		return b.Bytes, nil
	}
	der, err := block("attester.key.pem")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	certificate, err := block("attester.pem")
	if err != nil {
		return nil, err
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the attester's key is a %T, not an EC key", key)
	}
	return &attester{private, base64.StdEncoding.EncodeToString(certificate)}, nil
}

func unexpected(step string, answer flow.Answer, err error, want int) error {
	if err == nil && answer.Status != want {
		err = fmt.Errorf("%d %s", answer.Status, answer.Body)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// used is the daemons' CPU time and memory so far.
type used struct {
	cpu, daemon, signer  time.Duration
	daemonRSS, signerRSS int64
}

func usage() used {
	var u used
	u.daemon, u.daemonRSS = process(os.Getenv("CHANCERYD_PID"))
	u.signer, u.signerRSS = process(os.Getenv("SIGNER_PID"))
	u.cpu = u.daemon + u.signer
	return u
}

// process reads user and system time and the resident set from /proc; zero
// when the process is not there.
func process(pid string) (time.Duration, int64) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0
	}
	// The command's name may hold spaces; the fields after it do not.
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return 0, 0
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i], 10, 64); return n }
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return time.Duration(number(11)+number(12)) * tick, number(21) * int64(os.Getpagesize())
}
