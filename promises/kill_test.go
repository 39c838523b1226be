package promises

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"chancery/promises/flow"
)

// killRounds is how often a daemon is killed.
const killRounds = 200

// TestPromiseP1P4P5P7KilledAtAnyInstant kills one daemon or both, 200 times, at
// random instants while wallets take credentials. Then: no code gave two access
// tokens, every credential that a wallet holds has an intent and an outcome in
// the log that name it, the log verifies with every intent closed, and issuing
// goes on without anybody's help.
func TestPromiseP1P4P5P7KilledAtAnyInstant(t *testing.T) {
	rounds := killRounds
	if testing.Short() {
		rounds = 10
	}
	a := start(t)
	w := &wallets{a: a, codes: map[string]int{}}
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() { w.run(ctx, t, formats[i%len(formats)]) })
	}
	for round := range rounds {
		time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond)
		switch round % 5 {
		case 0, 1:
			a.kill("CHANCERYD_PID")
		case 2, 3:
			a.kill("SIGNER_PID")
		case 4:
			a.kill("SIGNER_PID")
			a.kill("CHANCERYD_PID")
		}
		a.becomesReady()
	}
	stop()
	wait.Wait()
	for _, id := range formats {
		credential, err := a.client.Whole(context.Background(), id, claims(t, id), true)
		if err != nil {
			t.Fatalf("%s after %d kills: %v", id, rounds, err)
		}
		w.took(id, credential)
	}
	w.check(t, rounds/2)
	a.down()
	l := readLog(t, a)
	if l.report.Open != 0 {
		t.Errorf("%d intents have no outcome after a clean stop", l.report.Open)
	}
	for _, c := range w.credentials {
		l.holds(t, c)
	}
	l.redeemedOnce(t)
	a.up()
}

// becomesReady waits until the appliance issues again.
func (a *appliance) becomesReady() {
	a.t.Helper()
	eventually(a.t, "ready again", func() error {
		if status, body := a.readiness(); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// taken is a credential that a wallet holds.
type taken struct{ configuration, credential string }

// wallets take credentials and write down what they were answered.
type wallets struct {
	a *appliance

	mu          sync.Mutex // guards what follows
	codes       map[string]int
	credentials []taken
	finished    int
	wrong       []string
}

func (w *wallets) took(configuration, credential string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.credentials = append(w.credentials, taken{configuration, credential})
}

// run takes one credential after the other until ctx ends.
func (w *wallets) run(ctx context.Context, t testing.TB, configuration string) {
	document := claims(t, configuration)
	for ctx.Err() == nil {
		w.one(ctx, configuration, document)
	}
}

// one goes through a flow as a stubborn wallet does: a step whose answer was
// lost is tried again. Requests under way are never broken off by the test.
func (w *wallets) one(ctx context.Context, configuration string, document json.RawMessage) {
	client, background := w.a.client, context.Background()
	offer, answer, err := client.CreateOffer(background, configuration, document, true)
	if err != nil || answer.Status != http.StatusCreated {
		time.Sleep(5 * time.Millisecond)
		return
	}
	var code, token string
	persist(ctx, func() bool { code, err = client.Code(background, offer.URI); return err == nil })
	persist(ctx, func() bool {
		got, answer, err := client.Token(background, code, offer.TransactionCode)
		if err == nil && answer.Status == http.StatusOK {
			token = got
			w.mu.Lock()
			w.codes[code]++
			w.mu.Unlock()
		}
		// Spent by a request whose answer was lost: the credential is not to be had.
		return err == nil && answer.Status < http.StatusInternalServerError
	})
	if token == "" {
		return
	}
	// A second wallet with the same code is refused, whatever happens meanwhile.
	persist(ctx, func() bool {
		_, answer, err := client.Token(background, code, offer.TransactionCode)
		if err == nil && answer.Status == http.StatusOK {
			w.mu.Lock()
			w.codes[code]++
			w.mu.Unlock()
		}
		return err == nil && answer.Status < http.StatusInternalServerError
	})
	key := flow.NewKey()
	persist(ctx, func() bool {
		nonce, answer, err := client.Nonce(background)
		if err != nil || answer.Status != http.StatusOK {
			return false
		}
		credential, answer, err := client.Credential(background, token, configuration, nonce, key)
		switch {
		case err != nil || answer.Status >= http.StatusInternalServerError:
			return false
		case answer.Status == http.StatusOK:
			w.took(configuration, credential)
		case answer.ErrorCode() == "invalid_nonce":
			return false // chanceryd was started again meanwhile
		case answer.Status != http.StatusUnauthorized:
			w.mu.Lock()
			w.wrong = append(w.wrong, fmt.Sprintf("credential: %d %s", answer.Status, answer.Body))
			w.mu.Unlock()
		}
		return true
	})
	w.mu.Lock()
	w.finished++
	w.mu.Unlock()
}

// persist tries until try is content or ctx ends.
func persist(ctx context.Context, try func() bool) {
	for !try() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
}

// check holds what the wallets saw against the promise. With fewer credentials
// than least there was no load, and the test has shown nothing.
func (w *wallets) check(t *testing.T, least int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.codes {
		if n > 1 {
			t.Errorf("a code gave %d access tokens", n)
		}
	}
	for _, s := range w.wrong {
		t.Error(s)
	}
	if len(w.credentials) < least {
		t.Errorf("only %d credentials, want at least %d: the test had no load", len(w.credentials), least)
	}
	t.Logf("%d flows to their end, %d codes redeemed, %d credentials", w.finished, len(w.codes), len(w.credentials))
}
