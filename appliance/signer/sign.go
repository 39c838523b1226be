package signer

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
)

// sign makes the signatures of one request, all or none: judged, intended,
// signed, verified, recorded, answered, in this order (promises P1, P2, P3).
func (s *Server) sign(ctx context.Context, c *core, in wire.SignRequest) (wire.SignResponse, error) {
	if !s.admit() {
		return wire.SignResponse{}, &wire.Error{Code: wire.CodeBusy, RetryAfter: 1,
			Message: fmt.Sprintf("%d requests wait for the token already", s.cfg.Signer.Queue)}
	}
	defer s.admitted.Add(-1)
	// Without a token there is no use in writing intents.
	token, err := c.ready()
	if err != nil {
		return wire.SignResponse{}, err
	}
	orders, index, refused := c.judge(in)
	if refused != nil {
		if err := c.record(in, index, refused); err != nil {
			return wire.SignResponse{}, err
		}
		return wire.SignResponse{}, &wire.Error{Code: refused.code, RetryAfter: seconds(refused.retry),
			Message: fmt.Sprintf("item %d: %s", index, refused.message)}
	}
	out, err := c.carryOut(ctx, token, in, orders)
	if err == nil {
		s.signatures.Add(uint64(len(orders)))
	}
	return out, err
}

// admit counts a request, unless the queue is full.
func (s *Server) admit() bool {
	if s.admitted.Add(1) <= int64(s.cfg.Signer.Queue+s.cfg.Signer.Sessions) {
		return true
	}
	s.admitted.Add(-1)
	return false
}

// seconds rounds a wait up.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// carryOut writes the intents, signs, and writes the outcomes. What it returns
// is durable in the log.
func (c *core) carryOut(ctx context.Context, token *hsm.Token, in wire.SignRequest, orders []order) (wire.SignResponse, error) {
	var none wire.SignResponse
	intents := make([]audit.Entry, len(orders))
	for i, o := range orders {
		intents[i] = audit.Entry{Kind: audit.KindIntent, Actor: "appliance", Key: o.key.Label, Credential: o.item.Credential,
			Offer: in.Offer, Configuration: in.Configuration, Format: o.item.Format, Types: o.statement.Types,
			ValidUntil: o.statement.ValidUntil.UTC().Format(time.RFC3339), Hash: o.hash}
	}
	intent, err := c.appendFrom(intents)
	if err != nil {
		return none, err
	}
	signatures, failures, cause := c.signAll(ctx, token, orders)
	outcomes := make([]audit.Entry, len(orders))
	for i, o := range orders {
		at := intent + int64(i)
		outcomes[i] = audit.Entry{Kind: audit.KindMade, Actor: "signer", Key: o.key.Label, Credential: o.item.Credential, Hash: o.hash, Intent: &at}
		if cause == nil {
			continue
		}
		// The others of the batch are not answered either.
		outcomes[i].Kind, outcomes[i].Reason = audit.KindFailed, "withheld"
		if failures[i] != nil {
			outcomes[i].Reason = reasonOf(failures[i])
		}
	}
	outcome, err := c.appendFrom(outcomes)
	if err != nil {
		return none, err
	}
	if cause != nil {
		return none, cause
	}
	results := make([]wire.SignResult, len(orders))
	for i := range orders {
		results[i] = wire.SignResult{Signature: signatures[i], Intent: intent + int64(i), Outcome: outcome + int64(i)}
	}
	return wire.SignResponse{Results: results}, nil
}

// signAll signs as many at once as the token can; after a failure no further one
// is begun. cause is the first failure.
func (c *core) signAll(ctx context.Context, token *hsm.Token, orders []order) (signatures [][]byte, failures []error, cause error) {
	signatures, failures = make([][]byte, len(orders)), make([]error, len(orders))
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Signer.OperationTimeout.Std())
	defer cancel()
	if len(orders) == 1 {
		signatures[0], failures[0] = token.Sign(ctx, orders[0].key.Label, orders[0].item.TBS)
		return signatures, failures, failures[0]
	}
	var group errgroup.Group
	group.SetLimit(c.cfg.Signer.Sessions)
	var failed atomic.Bool
	for i, o := range orders {
		group.Go(func() error {
			if failed.Load() {
				return nil
			}
			if signatures[i], failures[i] = token.Sign(ctx, o.key.Label, o.item.TBS); failures[i] != nil {
				failed.Store(true)
			}
			return failures[i]
		})
	}
	cause = group.Wait()
	return signatures, failures, cause
}

// reasonOf is a failure's code for the log.
func reasonOf(err error) string {
	if class := hsm.ClassOf(err); class != "" {
		return string(class)
	}
	return "internal"
}
