package signer

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"chancery/appliance/audit"
	"chancery/hsm"
)

// probePrefix begins what probes sign. No format's parser takes it: it is
// neither CBOR's array, nor base64url, nor DER, nor a checkpoint's text.
const probePrefix = "chancery probe\x00"

// crlCheck is the time between two looks at the CRLs' age.
const crlCheck = time.Minute

// Back-off of the search for a token that was away at the start.
const (
	firstSearch = 200 * time.Millisecond
	lastSearch  = 5 * time.Second
)

// housekeep runs what happens without a request, in one goroutine.
func (c *core) housekeep(ctx context.Context) {
	probes := time.NewTicker(c.cfg.Signer.ProbeInterval.Std())
	defer probes.Stop()
	checkpoints := time.NewTicker(c.cfg.Signer.CheckpointInterval.Std())
	defer checkpoints.Stop()
	lists := time.NewTicker(crlCheck)
	defer lists.Stop()
	c.renewCRLs()
	for {
		select {
		case <-ctx.Done():
			return
		case class := <-c.notices:
			c.notice(ctx, class)
		case <-probes.C:
			c.probe(ctx)
		case <-checkpoints.C:
			c.checkpoint(ctx)
		case <-lists.C:
			c.renewCRLs()
		}
	}
}

// seek opens a token that was away at the start. A key may take a moment longer
// than its token; whatever else is wrong ends the process, as it would have at
// the start.
func (c *core) seek(ctx context.Context) {
	for pause := firstSearch; ; pause = min(2*pause, lastSearch) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := c.openToken(ctx)
		if err == nil {
			c.tell("")
			return
		}
		if class := hsm.ClassOf(err); class != hsm.ClassTokenGone && class != hsm.ClassSessionLost && class != hsm.ClassKeyMissing {
			c.fail(err)
			return
		}
	}
}

// tell queues a notice of the token's state.
func (c *core) tell(class hsm.Class) {
	select {
	case c.notices <- class:
	default: // the probes will tell
	}
}

// notice records that the token was lost or is back. A loss after which the token
// is not sought any more ends the process: somebody must look.
func (c *core) notice(ctx context.Context, class hsm.Class) {
	e := audit.Entry{Kind: audit.KindTokenRecovered, Actor: "signer"}
	if class != "" {
		e.Kind, e.Reason = audit.KindTokenDegraded, string(class)
	}
	c.logger.Warn("token", "state", string(e.Kind), "class", string(class))
	if err := c.append(e); err != nil {
		return
	}
	if class == hsm.ClassPINRefused || class == hsm.ClassKeyUnsafe {
		c.fail(&hsm.Error{Class: class, Op: "reopen", Err: errors.New("the token came back otherwise than it was: look at it before starting again")})
		return
	}
	c.probe(ctx)
}

// probe signs, or seals and opens, with each key, for readiness. What it signs
// begins with probePrefix and never leaves the process.
func (c *core) probe(ctx context.Context) {
	changed := false
	for label, k := range c.keys {
		err := c.try(ctx, label)
		if ctx.Err() != nil {
			return
		}
		if k.ready.Swap(err == nil) != (err == nil) {
			changed = true
			if err != nil {
				c.logger.Warn("probe failed", "key", label, "error", err.Error())
			}
		}
	}
	if changed {
		c.bump()
	}
}

// try uses a key once. It waits for its turn as long as that takes: a token with
// much to do is not broken. The token bounds the call itself.
func (c *core) try(ctx context.Context, label string) error {
	token, err := c.ready()
	if err != nil {
		return err
	}
	message := append([]byte(probePrefix), make([]byte, 32)...)
	rand.Read(message[len(probePrefix):])
	if c.keys[label].Algorithm != hsm.Sealing {
		_, err := token.Sign(ctx, label, message)
		return err
	}
	sealed, err := token.Seal(ctx, label, message, []byte(probePrefix))
	if err != nil {
		return err
	}
	opened, err := token.Unseal(ctx, label, sealed, []byte(probePrefix))
	if err == nil && !bytes.Equal(opened, message) {
		err = errors.New("what was sealed opens to something else")
	}
	return err
}

// checkpoint signs the tree when entries came since the last time.
func (c *core) checkpoint(ctx context.Context) {
	if _, covered := c.log.LatestCheckpoint(); covered == c.log.Size() {
		return
	}
	if _, err := c.ready(); err != nil {
		return
	}
	if _, err := c.log.Checkpoint(ctx, c.notary); err != nil && ctx.Err() == nil {
		c.logger.Warn("no checkpoint", "error", err.Error())
		if c.log.Failed() != nil {
			c.fail(fmt.Errorf("checkpoint: %w", err))
		}
	}
}
