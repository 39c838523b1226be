package promises

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"chancery/promises/flow"
)

// redemption is what the wallets racing for one code were answered.
type redemption struct {
	mu      sync.Mutex
	tokens  []string
	refused int
	other   []string
}

// TestPromiseP4OneWalletWins lets 64 wallets race for one code: one gets a
// token, 63 are told invalid_grant, and the winner gets its credential.
func TestPromiseP4OneWalletWins(t *testing.T) {
	a := start(t)
	ctx := context.Background()
	for _, withCode := range []bool{false, true} {
		offer, answer, err := a.client.CreateOffer(ctx, pidSDJWT, claims(t, pidSDJWT), withCode)
		if err != nil || answer.Status != http.StatusCreated {
			t.Fatalf("offer: %v %d %s", err, answer.Status, answer.Body)
		}
		code, err := a.client.Code(ctx, offer.URI)
		if err != nil {
			t.Fatal(err)
		}
		r := race(a, code, offer.TransactionCode, 64)
		if len(r.tokens) != 1 || r.refused != 63 || len(r.other) != 0 {
			t.Fatalf("tx_code %v: %d tokens, %d refused, others %q: want 1, 63, none", withCode, len(r.tokens), r.refused, r.other)
		}
		nonce, _, err := a.client.Nonce(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if credential, answer, err := a.client.Credential(ctx, r.tokens[0], pidSDJWT, nonce, flow.NewKey()); err != nil || credential == "" {
			t.Errorf("the winner got no credential: %v %d %s", err, answer.Status, answer.Body)
		}
	}
}

func race(a *appliance, code, txCode string, wallets int) *redemption {
	var r redemption
	var wait sync.WaitGroup
	gate := make(chan struct{})
	for range wallets {
		wait.Go(func() {
			<-gate
			token, answer, err := a.client.Token(context.Background(), code, txCode)
			r.mu.Lock()
			defer r.mu.Unlock()
			switch {
			case err != nil:
				r.other = append(r.other, err.Error())
			case answer.Status == http.StatusOK:
				r.tokens = append(r.tokens, token)
			case answer.Status == http.StatusBadRequest && answer.ErrorCode() == "invalid_grant":
				r.refused++
			default:
				r.other = append(r.other, string(answer.Body))
			}
		})
	}
	close(gate)
	wait.Wait()
	return &r
}

// TestPromiseP4WrongCodeCostsAnAttempt types the transaction code wrong up to
// the cap: before the cap the right code still works, at the cap it never does,
// not even when the wrong ones were sent at once, nor after a restart.
func TestPromiseP4WrongCodeCostsAnAttempt(t *testing.T) {
	a := start(t)
	ctx := context.Background()
	const attempts = 5 // the example configuration's transaction_code_attempts
	offerWithCode := func() (code, txCode string) {
		offer, answer, err := a.client.CreateOffer(ctx, residence, claims(t, residence), true)
		if err != nil || answer.Status != http.StatusCreated {
			t.Fatalf("offer: %v %d %s", err, answer.Status, answer.Body)
		}
		if code, err = a.client.Code(ctx, offer.URI); err != nil {
			t.Fatal(err)
		}
		return code, offer.TransactionCode
	}

	code, txCode := offerWithCode()
	for i := range attempts - 1 {
		if _, answer, err := a.client.Token(ctx, code, wrong(txCode)); err != nil || answer.ErrorCode() != "invalid_grant" {
			t.Fatalf("wrong code %d: %v %d %s", i+1, err, answer.Status, answer.Body)
		}
	}
	// Neither a missing code nor a restart costs an attempt.
	if _, answer, err := a.client.Token(ctx, code, ""); err != nil || answer.ErrorCode() != "invalid_request" {
		t.Fatalf("missing tx_code: %v %d %s", err, answer.Status, answer.Body)
	}
	a.kill("CHANCERYD_PID")
	a.becomesReady()
	if _, err := a.client.Redeem(ctx, residence, code, txCode); err != nil {
		t.Fatalf("the right code after %d wrong ones and a restart: %v", attempts-1, err)
	}

	code, txCode = offerWithCode()
	if r := race(a, code, wrong(txCode), 16); len(r.tokens) != 0 || r.refused != 16 {
		t.Fatalf("16 wrong codes at once: %d tokens, %d refused, %q", len(r.tokens), r.refused, r.other)
	}
	if _, answer, err := a.client.Token(ctx, code, txCode); err != nil || answer.ErrorCode() != "invalid_grant" {
		t.Errorf("the right code after the cap: %v %d %s: want invalid_grant", err, answer.Status, answer.Body)
	}
}

// wrong returns another code of the same shape.
func wrong(txCode string) string {
	b := []byte(txCode)
	b[len(b)-1] = '0' + (b[len(b)-1]-'0'+1)%10
	return string(b)
}
