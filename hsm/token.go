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
// What a call of the module does cannot be cancelled. One that stays out past
// its time ends the process (Config.OnHung); the service manager starts it again.
package hsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
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
	// CallTimeout is how long one call of the module may take (0: 10 s), and
	// HungAfter how much longer until OnHung is called (0: 30 s).
	CallTimeout, HungAfter time.Duration
	// OnHung is called with the operation's name; nil ends the process with status 70.
	OnHung func(op string)
	// SyncDirectory is synced to disk after a key was made; "" when the token does so itself.
	SyncDirectory string
	// Notify is called when the token was lost (with the class) and when it is
	// back (with ""); it must not call the token.
	Notify func(Class)
}

// Token is an open token. It is safe for concurrent use.
type Token struct {
	cfg Config

	// life is held shared by operations and exclusively by whatever must not
	// run beside them: finding and making keys, ending a generation. It guards
	// gen, refs and class.
	life   sync.RWMutex
	gen    *generation
	refs   map[string]KeyRef
	class  Class // why gen is nil
	logins int   // failed in a row

	permits chan struct{} // one for each session that may be out
	waiting atomic.Int64

	calls   sync.Mutex // guards out
	out     map[*call]struct{}
	closing chan struct{}
	closed  sync.Once
	seeking atomic.Bool
}

// generation is one life of the module.
type generation struct {
	ctx     *pkcs11.Ctx
	fn      functions
	slot    uint
	keeper  pkcs11.SessionHandle // stays open: login ends with the last session
	idle    chan pkcs11.SessionHandle
	keys    map[string]*key
	mechs   map[uint]bool
	info    pkcs11.TokenInfo
	library pkcs11.Info
}

// call is one call of the module that is out.
type call struct {
	op    string
	since time.Time
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
}

// Open opens the token and logs in. A wrong PIN is tried once.
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
	if _, taken := opened.LoadOrStore(cfg.Module, true); taken {
		return nil, failure(ClassRefused, "open", "", "%s is open in this process already", cfg.Module)
	}
	cfg.setDefaults()
	t := &Token{cfg: cfg, refs: map[string]KeyRef{}, permits: make(chan struct{}, cfg.Sessions),
		out: map[*call]struct{}{}, closing: make(chan struct{})}
	for range cfg.Sessions {
		t.permits <- struct{}{}
	}
	go t.watch()
	t.life.Lock()
	err := t.begin()
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

// begin opens a generation; life is held exclusively. On failure gen is nil and
// class says why.
func (t *Token) begin() error {
	gen, err := t.openGeneration()
	if err == nil {
		err = t.findAll(gen)
		if err != nil {
			t.end(gen)
		}
	}
	if err != nil {
		t.gen, t.class = nil, ClassOf(err)
		return err
	}
	t.gen, t.class = gen, ""
	return nil
}

// openGeneration initialises the module, selects the token and logs in once.
func (t *Token) openGeneration() (*generation, error) {
	ctx := pkcs11.New(t.cfg.Module)
	if ctx == nil {
		return nil, failure(ClassTokenGone, "open", "", "%s cannot be loaded: is it a PKCS#11 module for this machine?", t.cfg.Module)
	}
	gen := &generation{ctx: ctx, idle: make(chan pkcs11.SessionHandle, t.cfg.Sessions), keys: map[string]*key{}, mechs: map[uint]bool{}}
	var options []pkcs11.InitializeOption
	if t.cfg.Reserved != "" {
		reserved := append([]byte(t.cfg.Reserved), 0)
		options = append(options, pkcs11.InitializeWithReserved(unsafe.Pointer(&reserved[0])))
	}
	if err := t.timed("C_Initialize", func() error { return ctx.Initialize(options...) }); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		ctx.Destroy()
		e := classify("C_Initialize", "", err)
		e.Class = ClassTokenGone
		return nil, e
	}
	err := t.enter(gen)
	if err != nil {
		t.end(gen)
		return nil, err
	}
	return gen, nil
}

// enter selects the slot, opens the keeper session and logs in.
func (t *Token) enter(gen *generation) error {
	var err error
	if gen.fn, err = loadFunctions(t.cfg.Module); err != nil {
		return failure(ClassTokenGone, "open", "", "%w", err)
	}
	if err := t.selectSlot(gen); err != nil {
		return err
	}
	if err := t.timed("C_OpenSession", func() (err error) {
		gen.keeper, err = gen.ctx.OpenSession(gen.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		return err
	}); err != nil {
		return classify("C_OpenSession", "", err)
	}
	list, err := gen.ctx.GetMechanismList(gen.slot)
	if err != nil {
		return classify("C_GetMechanismList", "", err)
	}
	for _, m := range list {
		gen.mechs[m.Mechanism] = true
	}
	return t.login(gen)
}

// selectSlot finds the one token with the label or serial number.
func (t *Token) selectSlot(gen *generation) error {
	var slots []uint
	if err := t.timed("C_GetSlotList", func() (err error) { slots, err = gen.ctx.GetSlotList(true); return err }); err != nil {
		return classify("C_GetSlotList", "", err)
	}
	found := 0
	for _, slot := range slots {
		info, err := gen.ctx.GetTokenInfo(slot)
		if err != nil {
			continue // an empty or broken slot beside ours
		}
		if t.matches(info) {
			gen.slot, gen.info = slot, info
			found++
		}
	}
	want := "label " + t.cfg.TokenLabel
	if t.cfg.TokenSerial != "" {
		want = "serial " + t.cfg.TokenSerial
	}
	switch {
	case found == 0:
		return failure(ClassTokenGone, "find token", "", "no token with %s", want)
	case found > 1:
		return failure(ClassRefused, "find token", "", "%d tokens with %s: select by serial number", found, want)
	}
	gen.library, _ = gen.ctx.GetInfo()
	return nil
}

func (t *Token) matches(info pkcs11.TokenInfo) bool {
	trim := func(s string) string { return strings.TrimRight(s, " \x00") }
	if t.cfg.TokenSerial != "" {
		return trim(info.SerialNumber) == t.cfg.TokenSerial
	}
	return trim(info.Label) == t.cfg.TokenLabel
}

// loginLimit is how many logins in a row may fail for reasons other than the
// PIN before no more is tried: some tokens count them against the PIN.
const loginLimit = 3

// login logs in once. It does not spend the last try a token gives.
func (t *Token) login(gen *generation) error {
	if gen.info.Flags&(pkcs11.CKF_USER_PIN_LOCKED|pkcs11.CKF_USER_PIN_FINAL_TRY) != 0 {
		return failure(ClassPINRefused, "C_Login", "", "the token has locked the PIN or leaves one try: log in once with the vendor's tool to reset the counter")
	}
	if t.logins >= loginLimit {
		return failure(ClassPINRefused, "C_Login", "", "%d logins in a row failed: look at the token before trying again", t.logins)
	}
	pin, err := t.cfg.PIN()
	if err != nil {
		return failure(ClassRefused, "read the PIN", "", "%w", err)
	}
	defer clear(pin)
	err = t.timed("C_Login", func() error { return gen.ctx.Login(gen.keeper, pkcs11.CKU_USER, string(pin)) })
	if err == nil {
		t.logins = 0
		return nil
	}
	t.logins++
	return classify("C_Login", "", err)
}

// end closes a generation; life is held exclusively, so nothing is out.
func (t *Token) end(gen *generation) {
	t.timed("C_CloseAllSessions", func() error { return gen.ctx.CloseAllSessions(gen.slot) })
	t.timed("C_Finalize", gen.ctx.Finalize)
	gen.ctx.Destroy()
}

// timed runs a call of the module under the watchdog.
func (t *Token) timed(op string, fn func() error) error {
	c := &call{op, time.Now()}
	t.calls.Lock()
	t.out[c] = struct{}{}
	t.calls.Unlock()
	err := fn()
	t.calls.Lock()
	delete(t.out, c)
	t.calls.Unlock()
	return err
}

// watch reports a call that stays out past its time.
func (t *Token) watch() {
	tick := time.NewTicker(min(time.Second, t.cfg.HungAfter/2))
	defer tick.Stop()
	for {
		select {
		case <-t.closing:
			return
		case now := <-tick.C:
			hung := ""
			t.calls.Lock()
			for c := range t.out {
				if now.Sub(c.since) > t.cfg.CallTimeout+t.cfg.HungAfter {
					hung = c.op
				}
			}
			t.calls.Unlock()
			if hung != "" {
				t.cfg.OnHung(hung)
			}
		}
	}
}

// do runs fn with a session of the present generation. A failure that opening
// the token anew may heal is tried once more after doing so.
func (t *Token) do(ctx context.Context, op, label string, fn func(gen *generation, session pkcs11.SessionHandle) error) error {
	if t.waiting.Add(1) > int64(t.cfg.Queue+t.cfg.Sessions) {
		t.waiting.Add(-1)
		return failure(ClassBusy, op, label, "%d operations wait already", t.cfg.Queue)
	}
	defer t.waiting.Add(-1)
	select {
	case <-t.permits:
	case <-ctx.Done():
		return failure(ClassBusy, op, label, "waited too long for the token: %w", ctx.Err())
	}
	defer func() { t.permits <- struct{}{} }()
	gen, err := t.try(op, label, fn)
	if err == nil || !ClassOf(err).heals() {
		return err
	}
	if t.renew(gen) != nil {
		return err
	}
	_, err = t.try(op, label, fn)
	return err
}

// try runs fn once and tells in which generation.
func (t *Token) try(op, label string, fn func(gen *generation, session pkcs11.SessionHandle) error) (*generation, error) {
	t.life.RLock()
	defer t.life.RUnlock()
	gen := t.gen
	if gen == nil {
		return nil, failure(t.class, op, label, "the token is not available")
	}
	session, err := t.session(gen)
	if err != nil {
		return gen, classify("C_OpenSession", label, err)
	}
	if err := t.timed(op, func() error { return fn(gen, session) }); err != nil {
		// A session that saw any error is never used again: an operation may
		// have stayed active in it.
		t.timed("C_CloseSession", func() error { return gen.ctx.CloseSession(session) })
		return gen, classify(op, label, err)
	}
	gen.idle <- session
	return gen, nil
}

// session takes an idle session or opens one.
func (t *Token) session(gen *generation) (pkcs11.SessionHandle, error) {
	select {
	case s := <-gen.idle:
		return s, nil
	default:
	}
	var s pkcs11.SessionHandle
	err := t.timed("C_OpenSession", func() (err error) {
		s, err = gen.ctx.OpenSession(gen.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		return err
	})
	return s, err
}

// renew replaces a generation that failed. It waits for everything out. When
// the token cannot be opened it is sought in the background.
func (t *Token) renew(failed *generation) error {
	t.life.Lock()
	defer t.life.Unlock()
	if t.gen != failed || failed == nil {
		if t.gen == nil {
			return failure(t.class, "open", "", "the token is not available")
		}
		return nil // somebody else renewed it already
	}
	t.end(failed)
	err := t.begin()
	if err != nil && t.class.heals() {
		err = t.begin() // what killed the sessions may have killed the new ones
	}
	if err == nil {
		return nil
	}
	t.cfg.Notify(t.class)
	if t.class.heals() && t.seeking.CompareAndSwap(false, true) {
		go t.seek()
	}
	return err
}

// Back-off of the search for a lost token.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// seek tries to open the token until it is back, closed, or refuses the PIN.
func (t *Token) seek() {
	defer t.seeking.Store(false)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		select {
		case <-t.closing:
			return
		case <-time.After(pause):
		}
		t.life.Lock()
		if t.gen == nil && t.class != ClassClosed {
			t.begin()
		}
		class := t.class
		t.life.Unlock()
		if class == "" {
			t.cfg.Notify("")
			return
		}
		if !class.heals() {
			t.cfg.Notify(class)
			return
		}
	}
}

// State tells what the token can do now.
func (t *Token) State() State {
	t.life.RLock()
	defer t.life.RUnlock()
	return State{Ready: t.gen != nil, Class: t.class, Waiting: int(max(0, t.waiting.Load()-int64(t.cfg.Sessions)))}
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
		t.gen, t.class = nil, ClassClosed
		opened.Delete(t.cfg.Module)
	})
}
