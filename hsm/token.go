// Package hsm is the token: it opens a PKCS#11 module, logs in, finds keys,
// signs, seals, generates, proves what keys are, and recovers from what tokens
// do. It is the only package that knows PKCS#11.
//
// A generation is one life of the module between C_Initialize and C_Finalize.
// When sessions die or the token goes away, everything out is waited for, the
// module is finalised, and a new generation is opened: one login, the keys found
// again by CKA_ID, their proofs made again. Callers see an error class and, after
// one retry, mostly nothing at all.
//
// What a call of the module does cannot be cancelled. Its caller is let go when
// its time is up; a call that stays out much longer ends the process
// (Config.OnHung), and the service manager starts it again.
package hsm

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Config says which token and how it may be used.
type Config struct {
	// Module is the PKCS#11 module's absolute path.
	Module string
	// Reserved is C_Initialize's pReserved string; NSS wants one.
	Reserved string
	// TokenLabel or TokenSerial selects the token.
	TokenLabel, TokenSerial string
	// PIN returns the user PIN; it is asked once for each login and the bytes
	// are wiped afterwards.
	PIN func() ([]byte, error)
	// Sessions is how many operations are out at once; 0 means 1.
	Sessions int
	// Queue is how many callers may wait; 0 means 64.
	Queue int
	// CallTimeout is how long an operation may take once it is its turn (0: 10 s);
	// then its caller gets ClassHung. HungAfter is how much longer one call of
	// the module may stay out until OnHung is called (0: 30 s).
	CallTimeout, HungAfter time.Duration
	// OnHung is called once for such a call, with its name; nil ends the process
	// with status 70.
	OnHung func(op string)
	// SyncDirectory is synced to disk after a key was made; "" when the token does so itself.
	SyncDirectory string
	// Notify is called when the token was lost (with the class) and when it is
	// back (with ""); it must not call the token, except for [Token.State].
	Notify func(Class)
}

// Token is an open token. It is safe for concurrent use.
type Token struct {
	cfg    Config
	module string // cfg.Module without symbolic links: its name in opened

	// life is held shared by operations and exclusively by whatever must not
	// run beside them: finding and making keys, ending a generation. It guards
	// the fields up to the next empty line.
	life    sync.RWMutex
	gen     *generation
	refs    map[string]KeyRef
	logins  int  // failed in a row
	brief   int  // generations in a row that did not last
	lives   int  // generations opened so far
	seeking bool // a goroutine looks for the lost token
	born    time.Time

	// condition is written under life and read without it: nobody who asks for
	// the state waits for the token.
	condition atomic.Pointer[condition]

	permits chan struct{} // one for each session that may be out; its queue is first in, first out
	waiting atomic.Int64  // callers in the queue or out

	calls sync.Mutex // guards out
	out   map[*call]struct{}

	pauses  pauses        // set before the token is used
	closing chan struct{} // no new attempts
	ended   chan struct{} // the module is finalised
	closed  sync.Once
}

// condition is why there is no generation, and how many there were.
type condition struct {
	class Class
	lives int
}

// call is one call of the module that is out.
type call struct {
	op       string
	since    time.Time
	reported bool
}

// opened guards against a second open of a module in one process: login is per
// application, so the second open would prove no PIN, and closing either would
// finalise both.
var opened sync.Map

// State is what a token can do now.
type State struct {
	// Ready tells that signatures can be made.
	Ready bool
	// Class says why not.
	Class Class
	// Waiting is the number of callers in the queue.
	Waiting int
	// Generation counts how often the module was opened; one more than the
	// times it was lost.
	Generation int
}

// Open opens the token and logs in. A wrong PIN is tried once. A module that is
// open in this process already is refused.
func Open(cfg Config) (*Token, error) {
	if !filepath.IsAbs(cfg.Module) {
		return nil, failure(ClassRefused, "open", "", "the module's path %q is not absolute: give the full path", cfg.Module)
	}
	if info, err := os.Stat(cfg.Module); err != nil || !info.Mode().IsRegular() {
		return nil, failure(ClassTokenGone, "open", "", "no module at %s: install it or correct the path", cfg.Module)
	}
	if (cfg.TokenLabel == "") == (cfg.TokenSerial == "") {
		return nil, failure(ClassRefused, "open", "", "give the token's label or its serial number, one of them")
	}
	if cfg.PIN == nil {
		return nil, failure(ClassRefused, "open", "", "nothing gives the PIN: set Config.PIN")
	}
	module, err := filepath.EvalSymlinks(cfg.Module)
	if err != nil {
		return nil, failure(ClassTokenGone, "open", "", "%w", err)
	}
	if _, taken := opened.LoadOrStore(module, true); taken {
		return nil, failure(ClassRefused, "open", "", "%s is open in this process already", cfg.Module)
	}
	cfg.setDefaults()
	t := &Token{cfg: cfg, module: module, refs: map[string]KeyRef{}, permits: make(chan struct{}, cfg.Sessions), pauses: usualPauses,
		out: map[*call]struct{}{}, closing: make(chan struct{}), ended: make(chan struct{})}
	t.condition.Store(&condition{class: ClassTokenGone})
	for range cfg.Sessions {
		t.permits <- struct{}{}
	}
	go t.watch()
	t.life.Lock()
	err = t.begin()
	t.life.Unlock()
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (c *Config) setDefaults() {
	if c.Sessions <= 0 {
		c.Sessions = 1
	}
	if c.Queue <= 0 {
		c.Queue = 64
	}
	if c.CallTimeout <= 0 {
		c.CallTimeout = 10 * time.Second
	}
	if c.HungAfter <= 0 {
		c.HungAfter = 30 * time.Second
	}
	if c.OnHung == nil {
		c.OnHung = func(op string) {
			fmt.Fprintf(os.Stderr, "token: %s does not return; ending the process\n", op)
			os.Exit(70)
		}
	}
	if c.Notify == nil {
		c.Notify = func(Class) {}
	}
}

// State tells what the token can do now. It never waits for the token.
func (t *Token) State() State {
	now := *t.condition.Load()
	if _, late := t.overdue(t.cfg.CallTimeout); late && now.class == "" {
		now.class = ClassHung
	}
	return State{Ready: now.class == "", Class: now.class, Generation: now.lives,
		Waiting: int(max(0, t.waiting.Load()-int64(t.cfg.Sessions)))}
}

// class is why there is no generation; "" when there is one.
func (t *Token) class() Class { return t.condition.Load().class }

// unavailable is the failure of an operation that finds no generation.
func (t *Token) unavailable(op, label string) *Error {
	return failure(t.class(), op, label, "the token is not available")
}

// Close waits for what is out and finalises the module.
func (t *Token) Close() {
	t.closed.Do(func() {
		close(t.closing)
		t.life.Lock()
		defer t.life.Unlock()
		if t.gen != nil {
			t.end(t.gen)
		}
		t.become(nil, ClassClosed)
		close(t.ended)
		opened.Delete(t.module)
	})
}

// timed runs a call of the module under the watchdog.
func (t *Token) timed(op string, fn func() error) error {
	c := &call{op: op, since: time.Now()}
	t.calls.Lock()
	t.out[c] = struct{}{}
	t.calls.Unlock()
	err := fn()
	t.calls.Lock()
	delete(t.out, c)
	t.calls.Unlock()
	return err
}

// overdue finds a call that is out longer than limit.
func (t *Token) overdue(limit time.Duration) (*call, bool) {
	t.calls.Lock()
	defer t.calls.Unlock()
	for c := range t.out {
		if time.Since(c.since) > limit {
			return c, true
		}
	}
	return nil, false
}

// watch reports a call that stays out past its time, until the module is
// finalised: closing hangs behind a hung call as well.
func (t *Token) watch() {
	tick := time.NewTicker(min(time.Second, t.cfg.HungAfter/2))
	defer tick.Stop()
	for {
		select {
		case <-t.ended:
			return
		case <-tick.C:
			if c, late := t.overdue(t.cfg.CallTimeout + t.cfg.HungAfter); late && !c.reported {
				c.reported = true
				t.cfg.OnHung(c.op)
			}
		}
	}
}
