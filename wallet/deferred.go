package wallet

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// collect polls for what is pending until it is there or the wait is over; what
// is left stays in the state (OpenID4VCI 1.0 §9). What is due when it begins is
// asked for even without a wait.
func (f *flow) collect(ctx context.Context) error {
	end := f.w.now().Add(f.w.Wait)
	for len(f.s.Pending) > 0 {
		next := slices.MinFunc(f.s.Pending, func(a, b Pending) int { return a.Next.Compare(b.Next) })
		if next.Next.After(end) {
			return nil
		}
		if pause := next.Next.Sub(f.w.now()); pause > 0 {
			if err := f.w.sleep(ctx, pause); err != nil {
				return failed(StepDeferred, err)
			}
		}
		i := slices.IndexFunc(f.s.Pending, func(p Pending) bool { return p.Transaction == next.Transaction })
		if err := f.fetch(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// fetch makes one deferred credential request (OpenID4VCI 1.0 §9.1) with a
// token that has not ended, when there is a refresh token.
func (f *flow) fetch(ctx context.Context, i int) error {
	if f.m.DeferredEndpoint == "" {
		return wrong(StepMetadata, "there is no deferred_credential_endpoint any more")
	}
	if f.s.RefreshToken != "" && !f.w.now().Before(f.s.Expires) {
		if err := f.refresh(ctx); err != nil {
			return err
		}
	}
	p := &f.s.Pending[i]
	r := request{step: StepDeferred, method: http.MethodPost, target: f.m.DeferredEndpoint}
	e, err := f.seal(&r, map[string]any{"transaction_id": p.Transaction})
	if err != nil {
		return failed(StepDeferred, err)
	}
	a, err := f.send(ctx, r)
	if err != nil {
		return err
	}
	if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
		seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
		if err != nil || seconds < 1 {
			return a.failure()
		}
		p.Next = f.w.now().Add(time.Duration(min(seconds, 1e9)) * time.Second)
		return nil
	}
	object, err := e.open(a)
	var failure *Error
	if errors.As(err, &failure) && (failure.Code == "credential_request_denied" || failure.Code == "invalid_transaction_id") {
		return errors.Join(err, f.drop(i))
	}
	if err != nil {
		return err
	}
	if a.status == http.StatusAccepted {
		if err := p.update(object, f.w.now()); err != nil {
			return a.wrong("%v", err)
		}
		return nil
	}
	var keys []crypto.Signer
	for _, jwk := range p.Keys {
		key, err := privateKey(&jwk)
		if err != nil {
			return failed(StepDeferred, err)
		}
		keys = append(keys, key)
	}
	if err := f.receive(ctx, a, object, p.Configuration, keys); err != nil {
		return err
	}
	return f.drop(i)
}

// drop takes a transaction that has ended out of the state.
func (f *flow) drop(i int) error {
	f.s.Pending = slices.Delete(f.s.Pending, i, i+1)
	return f.keep()
}
