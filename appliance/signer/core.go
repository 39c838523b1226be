package signer

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"chancery/appliance/audit"
	"chancery/appliance/database"
	"chancery/appliance/process"
	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
	"chancery/issuance/jws"
)

// core is one generation: the log, the token, and the keys that the log names.
type core struct {
	cfg    *config.Config
	logger *slog.Logger
	now    func() time.Time
	fail   func(error) // ends the process
	bump   func()      // the list of identities has changed

	log     *audit.Log
	token   atomic.Pointer[hsm.Token] // nil until the token was opened first
	keys    map[string]*key           // fixed for the generation
	sealing string                    // the sealing key's label
	notary  note.Signer               // the checkpoint key

	events sync.Mutex // held while events are appended; guards registry.LastSeq
	rates  sync.Mutex // held while a request is counted against its keys' caps
	mu     sync.Mutex // guards registry.CRLs
	// registry is what the log told at the start; but for what a lock guards, it
	// does not change.
	registry *registry.Registry

	refusals limiter
	notices  chan hsm.Class // what the token told: lost (a class) or back ("")
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// key is a key's record with what changes while it is used.
type key struct {
	registry.Key
	leaf  *x509.Certificate // nil without a certificate
	rate  *window           // nil without a cap; guarded by core.rates
	ready atomic.Bool       // the last probe succeeded
}

// entriesPerMinute are far fewer entries than a slow machine replays in a minute.
const entriesPerMinute = 1 << 16

// begin opens the log and the token. A token that is away does not keep the
// signer from starting: it is sought, and what needs it answers so meanwhile.
func (s *Server) begin(ctx context.Context) (*core, error) {
	c := &core{cfg: s.cfg, logger: s.logger, now: s.now, fail: s.fail, bump: func() { s.generation.Add(1) },
		registry: registry.New(), keys: map[string]*key{}, notices: make(chan hsm.Class, 64), refusals: newLimiter(refusalBurst, refusalPause)}
	recent := map[string][]time.Time{}
	c.registry.Each = func(index int64, e audit.Entry) {
		remember(recent, e, c.now())
		if index%entriesPerMinute == 0 {
			process.Tell(process.StillStarting) // a long log takes its time
		}
	}
	log, err := audit.Open(c.cfg.Signer.Database, c.registry.Replay, c.registry.NoteVerifier)
	if errors.Is(err, database.ErrMissing) {
		return nil, fmt.Errorf("%w: make it with \"chancery-signer init\"", err)
	}
	if err != nil {
		return nil, err
	}
	c.log = log
	if err := c.start(ctx, s.version, recent); err != nil {
		if token := c.token.Load(); token != nil {
			token.Close()
		}
		return nil, errors.Join(err, log.Close())
	}
	background, stop := context.WithCancel(context.Background())
	c.stop = stop
	if c.token.Load() == nil {
		c.done.Go(func() { c.seek(background) })
	}
	c.probe(background)
	c.done.Go(func() { c.housekeep(background) })
	c.bump()
	return c, nil
}

// start holds the log's keys against the token and closes what an earlier
// process left open.
func (c *core) start(ctx context.Context, version string, recent map[string][]time.Time) error {
	if len(c.registry.Keys) == 0 {
		return fmt.Errorf("%s names no keys: run \"chancery ceremony PLAN.toml\" first", c.cfg.Signer.Database)
	}
	if c.log.Origin() != c.cfg.Signer.Origin {
		return fmt.Errorf("signer.origin is %q, but the log was made for %q: correct the configuration", c.cfg.Signer.Origin, c.log.Origin())
	}
	for _, record := range c.registry.Sorted() {
		k, err := newKey(record, recent[record.Label])
		if err != nil {
			return err
		}
		c.keys[record.Label] = k
	}
	sealing, err := c.registry.Sole(wire.PurposeSealing)
	if err != nil {
		return err
	}
	c.sealing = sealing.Label
	if c.notary, err = c.registry.NoteSigner(c.signCheckpoint); err != nil {
		return err
	}
	away := c.openToken(ctx)
	if class := hsm.ClassOf(away); away != nil && class != hsm.ClassTokenGone && class != hsm.ClassSessionLost {
		return away
	}
	detail, err := json.Marshal(map[string]string{"version": version})
	if err != nil {
		return err
	}
	entries := []audit.Entry{{Kind: audit.KindSignerStarted, Actor: "signer", Detail: detail}}
	if away != nil {
		c.logger.Error("the token is not there; seeking it", "error", away.Error())
		entries = append(entries, audit.Entry{Kind: audit.KindTokenDegraded, Actor: "signer", Reason: string(hsm.ClassOf(away))})
	}
	if err := c.append(entries...); err != nil {
		return err
	}
	return c.abandon()
}

func newKey(record registry.Key, recent []time.Time) (*key, error) {
	leaf, err := record.Leaf()
	if err != nil {
		return nil, err
	}
	k := &key{Key: record, leaf: leaf}
	if k.Purpose == wire.PurposeCredentialSigner {
		// Verifiers that have no anchor find the key by it in the issuer's key set
		// (SD-JWT VC §3.5, "JWT VC Issuer Metadata").
		public, err := record.Public()
		if err != nil {
			return nil, err
		}
		if k.KeyID, err = jws.Thumbprint(public); err != nil {
			return nil, fmt.Errorf("key %q: %w", record.Label, err)
		}
	}
	if record.Profile.RatePerMinute > 0 {
		k.rate = newWindow(record.Profile.RatePerMinute, time.Minute)
		k.rate.fill(recent)
	}
	return k, nil
}

// remember keeps the intents of the last minute, so that a restart does not
// open a key's rate cap anew. One that lies in the future, because a clock was
// set back, counts as made now: it does not block the key for longer.
func remember(recent map[string][]time.Time, e audit.Entry, now time.Time) {
	if e.Kind != audit.KindIntent {
		return
	}
	at, err := time.Parse(time.RFC3339, e.Time)
	if err != nil || now.Sub(at) >= time.Minute {
		return
	}
	if at.After(now) {
		at = now
	}
	recent[e.Key] = append(recent[e.Key], at)
}

// openToken opens the token and proves every key of the log.
func (c *core) openToken(ctx context.Context) error {
	cfg, err := TokenConfig(c.cfg)
	if err != nil {
		return err
	}
	cfg.Notify = func(class hsm.Class) {
		select {
		case c.notices <- class:
		default: // the probes will tell
		}
	}
	token, err := hsm.Open(cfg)
	if err != nil {
		return err
	}
	refs, err := c.registry.Refs()
	if err == nil {
		err = token.Load(ctx, refs)
	}
	if err != nil {
		token.Close()
		return err
	}
	c.token.Store(token)
	return nil
}

// abandoned bounds the entries of one append.
const abandonedAtOnce = 256

// abandon closes the intents that an earlier process left without an outcome.
func (c *core) abandon() error {
	var open []int64
	for index := range c.registry.Open {
		open = append(open, index)
	}
	slices.Sort(open)
	for chunk := range slices.Chunk(open, abandonedAtOnce) {
		entries := make([]audit.Entry, len(chunk))
		for i, index := range chunk {
			e := c.registry.Open[index]
			entries[i] = audit.Entry{Kind: audit.KindAbandoned, Actor: "signer", Key: e.Key, Credential: e.Credential,
				Hash: e.Hash, Intent: &index, Reason: "restart"}
		}
		if err := c.append(entries...); err != nil {
			return err
		}
	}
	if len(open) > 0 {
		c.logger.Warn("closed intents without outcome", "count", len(open))
	}
	clear(c.registry.Open)
	return nil
}

// append writes entries durably. An error means that what they record must not
// be done; when the log itself has failed the process ends.
func (c *core) append(entries ...audit.Entry) error {
	_, err := c.appendFrom(entries)
	return err
}

func (c *core) appendFrom(entries []audit.Entry) (first int64, err error) {
	leaves := make([][]byte, len(entries))
	for i, e := range entries {
		if e.Time == "" {
			e.Time = audit.Stamp(c.now())
		}
		if leaves[i], err = e.Marshal(); err != nil {
			return 0, err
		}
	}
	return c.appendLeaves(leaves)
}

func (c *core) appendLeaves(leaves [][]byte) (int64, error) {
	// The caller's deadline does not count: an entry that was queued will be
	// written, and who left early would not know.
	first, err := c.log.Append(context.Background(), leaves...)
	if err != nil && c.log.Failed() != nil {
		c.fail(fmt.Errorf("audit append failed, so nothing more can be signed: %w", err))
	}
	return first, err
}

// end writes a last checkpoint and closes everything; no request is under way.
func (c *core) end() error {
	c.stop()
	c.done.Wait()
	token := c.token.Load()
	if token != nil && token.State().Ready && c.log.Failed() == nil {
		if _, err := c.log.Checkpoint(context.Background(), c.notary); err != nil {
			c.logger.Warn("no last checkpoint", "error", err.Error())
		}
	}
	if token != nil {
		token.Close()
	}
	return c.log.Close()
}

// ready returns the token when it can work now.
func (c *core) ready() (*hsm.Token, error) {
	token := c.token.Load()
	if token == nil {
		return nil, &hsm.Error{Class: hsm.ClassTokenGone, Op: "open", Err: errors.New("the token was not there yet")}
	}
	if state := token.State(); !state.Ready {
		return nil, &hsm.Error{Class: state.Class, Op: "sign", Err: errors.New("the token is not available")}
	}
	return token, nil
}

// describe fills the status of an open generation.
func (c *core) describe(r *wire.StatusResponse) {
	r.State = "ready"
	if _, err := c.ready(); err != nil {
		r.State, r.Class = "degraded", string(hsm.ClassOf(err))
	}
	if c.log.Failed() != nil {
		r.State, r.Class = "stopped", "audit-log"
	}
	for label, k := range c.keys {
		r.Keys[label] = k.ready.Load()
	}
	r.LogSize = c.log.Size()
	_, r.CheckpointSize = c.log.LatestCheckpoint()
}

// signCheckpoint has the token sign a checkpoint's text.
func (c *core) signCheckpoint(label string, text []byte) ([]byte, error) {
	token, err := c.ready()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Signer.OperationTimeout.Std())
	defer cancel()
	return token.Sign(ctx, label, text)
}
