package hsm

import (
	"errors"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// generation is one life of the module.
type generation struct {
	ctx    *pkcs11.Ctx
	fn     functions
	slot   uint
	keeper pkcs11.SessionHandle // stays open and does nothing else: login ends with the last session
	pool   pool
	// keys, mechs, info and library change only under Token.life.
	keys    map[string]*key
	mechs   map[uint]bool
	info    pkcs11.TokenInfo
	library pkcs11.Info
}

// openFlags: signing with a token key needs no write access, but a session kind
// that some tokens keep apart by would double what they must hold.
const openFlags = pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION

// become makes gen the present generation, or none for the reason given; life
// is held exclusively.
func (t *Token) become(gen *generation, class Class) {
	if gen != nil {
		t.lives++
		t.born = time.Now()
	}
	t.gen = gen
	t.condition.Store(&condition{class, t.lives})
}

// begin opens a generation; life is held exclusively. On failure gen is nil and
// the condition says why.
func (t *Token) begin() error {
	gen, err := t.openGeneration()
	if err == nil {
		if err = t.findAll(gen); err != nil {
			t.end(gen)
		}
	}
	if err != nil {
		t.become(nil, ClassOf(err))
		return err
	}
	t.become(gen, "")
	return nil
}

// openGeneration initialises the module, selects the token and logs in once.
func (t *Token) openGeneration() (*generation, error) {
	var ctx *pkcs11.Ctx
	t.timed("load the module", func() error { ctx = pkcs11.New(t.cfg.Module); return nil })
	if ctx == nil {
		return nil, failure(ClassTokenGone, "open", "", "%s cannot be loaded: is it a PKCS#11 module for this machine?", t.cfg.Module)
	}
	fn, err := loadFunctions(t.cfg.Module, ctx)
	if err != nil {
		ctx.Destroy()
		return nil, failure(ClassTokenGone, "open", "", "%s: %w", t.cfg.Module, err)
	}
	gen := &generation{ctx: ctx, fn: fn, pool: pool{change: sync.NewCond(&sync.Mutex{})}, keys: map[string]*key{}, mechs: map[uint]bool{}}
	if err := t.initialize(ctx); err != nil {
		ctx.Destroy()
		return nil, err
	}
	if err := t.enter(gen); err != nil {
		t.end(gen)
		return nil, err
	}
	return gen, nil
}

// initialize is C_Initialize. When the module says that it is initialised, then
// either somebody else in this process uses it, whose login would be taken for
// ours: refused; or an earlier C_Finalize of ours failed: it is made up for.
func (t *Token) initialize(ctx *pkcs11.Ctx) error {
	var options []pkcs11.InitializeOption
	if t.cfg.Reserved != "" {
		reserved := append([]byte(t.cfg.Reserved), 0)
		options = append(options, pkcs11.InitializeWithReserved(unsafe.Pointer(&reserved[0])))
	}
	initialize := func() error { return ctx.Initialize(options...) }
	err := t.timed("C_Initialize", initialize)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		if t.lives == 0 {
			return failure(ClassRefused, "C_Initialize", "", "something else in this process uses the module: its login would be taken for this one's")
		}
		t.timed("C_Finalize", ctx.Finalize)
		err = t.timed("C_Initialize", initialize)
	}
	if err != nil {
		e := classify("C_Initialize", "", err)
		e.Class = ClassTokenGone
		return e
	}
	return nil
}

// enter selects the slot, opens the keeper session and logs in.
func (t *Token) enter(gen *generation) error {
	if err := t.selectSlot(gen); err != nil {
		return err
	}
	var err error
	if gen.keeper, err = t.openSession(gen); err != nil {
		return classify("C_OpenSession", "", err)
	}
	var list []*pkcs11.Mechanism
	if err := t.timed("C_GetMechanismList", func() (err error) { list, err = gen.ctx.GetMechanismList(gen.slot); return err }); err != nil {
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
		var info pkcs11.TokenInfo
		if err := t.timed("C_GetTokenInfo", func() (err error) { info, err = gen.ctx.GetTokenInfo(slot); return err }); err != nil {
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
	return t.timed("C_GetInfo", func() error { gen.library, _ = gen.ctx.GetInfo(); return nil })
}

func trim(s string) string { return strings.TrimRight(s, " \x00") }

func (t *Token) matches(info pkcs11.TokenInfo) bool {
	if t.cfg.TokenSerial != "" {
		return trim(info.SerialNumber) == t.cfg.TokenSerial
	}
	return trim(info.Label) == t.cfg.TokenLabel
}

// loginLimit is how many logins in a row may fail for reasons other than the
// PIN before no more is tried: some tokens count them against the PIN.
const loginLimit = 8

// login logs in once. It does not spend the last try a token gives, and tries no
// more when a login that failed for another reason was counted against the PIN.
func (t *Token) login(gen *generation) error {
	stop := uint(pkcs11.CKF_USER_PIN_LOCKED | pkcs11.CKF_USER_PIN_FINAL_TRY)
	if t.logins > 0 {
		stop |= pkcs11.CKF_USER_PIN_COUNT_LOW
	}
	if gen.info.Flags&stop != 0 {
		return failure(ClassPINRefused, "C_Login", "", "the token has locked the PIN or is about to: log in once with the vendor's tool to reset the counter")
	}
	if t.logins >= loginLimit {
		return failure(ClassPINRefused, "C_Login", "", "%d logins in a row failed: look at the token before trying again", t.logins)
	}
	pin, err := t.cfg.PIN()
	if err != nil {
		return failure(ClassRefused, "read the PIN", "", "%w", err)
	}
	defer clear(pin)
	err = t.timed("C_Login", func() error { return gen.fn.login(gen.keeper, pin) })
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

func (t *Token) openSession(gen *generation) (s pkcs11.SessionHandle, err error) {
	err = t.timed("C_OpenSession", func() error { s, err = gen.ctx.OpenSession(gen.slot, openFlags); return err })
	return s, err
}

// pool holds a generation's sessions for reuse. change.L guards the other fields.
type pool struct {
	change *sync.Cond
	idle   []pkcs11.SessionHandle
	out    int // sessions in use or about to be opened
	given  int // sessions given back or closed so far
}

// session takes an idle session or opens one. When the token has no more of
// them, it waits for one that is in use.
func (t *Token) session(gen *generation) (pkcs11.SessionHandle, error) {
	p := &gen.pool
	p.change.L.Lock()
	defer p.change.L.Unlock()
	for {
		if n := len(p.idle); n > 0 {
			s := p.idle[n-1]
			p.idle = p.idle[:n-1]
			p.out++
			return s, nil
		}
		p.out++
		given := p.given
		p.change.L.Unlock()
		s, err := t.openSession(gen)
		p.change.L.Lock()
		if err == nil {
			return s, nil
		}
		p.out--
		p.change.Broadcast()
		switch {
		case !errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)):
			return 0, classify("C_OpenSession", "", err)
		case p.given != given: // there may be one by now
		case p.out == 0:
			return 0, classify("C_OpenSession", "", err) // others than ours have them all
		default:
			p.change.Wait()
		}
	}
}

// release gives a session back. One that saw any error is closed instead: an
// operation may have stayed active in it.
func (t *Token) release(gen *generation, s pkcs11.SessionHandle, spoiled bool) {
	if spoiled {
		t.timed("C_CloseSession", func() error { return gen.ctx.CloseSession(s) })
	}
	p := &gen.pool
	p.change.L.Lock()
	defer p.change.L.Unlock()
	p.out--
	p.given++
	if !spoiled {
		p.idle = append(p.idle, s)
	}
	p.change.Broadcast()
}
