// Command load takes a running appliance through full flows (offer, token,
// nonce, credential; four requests) with a number of clients at once, and
// reports flows a second, latency, the daemons' CPU time for one flow and their
// resident memory. It reads the appliance's addresses from the environment as
// .run/env holds them.
//
//	load -clients 8,32,64 -flows 2000 -configuration ID -claims FILE
package main

import (
	"bytes"
	"context"
	"encoding/json"
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
		r := round{configuration: *configuration, request: request, clients: n, flows: *flows, byReference: *byReference}
		if err := r.run(); err != nil {
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
	token, answer, err := client.Token(ctx, code, "")
	if err := unexpected("token", answer, err, http.StatusOK); err != nil {
		return err
	}
	nonce, answer, err := client.Nonce(ctx)
	if err := unexpected("nonce", answer, err, http.StatusOK); err != nil {
		return err
	}
	answer, err = client.Ask(ctx, token, r.configuration, nonce, flow.NewKey())
	if err := unexpected("credential", answer, err, http.StatusOK); err != nil {
		return err
	}
	if !bytes.HasPrefix(answer.Body, []byte(`{"credentials":[{"credential":"`)) {
		return fmt.Errorf("credential: the answer holds none: %.60s", answer.Body)
	}
	return nil
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
