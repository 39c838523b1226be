package hsm

import (
	"context"
	"time"

	"github.com/miekg/pkcs11"
)

// visit is one piece of work with a session of a generation.
type visit struct {
	t       *Token
	gen     *generation
	session pkcs11.SessionHandle
	spoiled bool // the session saw an error or holds throw-away objects: it is closed, not used again
}

// call runs one call of the module under the watchdog and classifies its error.
func (v *visit) call(op string, fn func() error) error {
	err := v.t.timed(op, fn)
	if err != nil {
		v.spoiled = true
		return classify(op, "", err)
	}
	return nil
}

// fresh replaces a spoiled session. The old one is closed first: some devices
// have no session to spare.
func (v *visit) fresh() (err error) {
	if !v.spoiled {
		return nil
	}
	v.t.timed("C_CloseSession", func() error { return v.gen.ctx.CloseSession(v.session) })
	if v.session, err = v.t.openSession(v.gen); err != nil {
		return classify("C_OpenSession", "", err)
	}
	v.spoiled = false
	return nil
}

// visit runs fn with a session; life is held, shared or exclusively.
func (t *Token) visit(gen *generation, op, label string, fn func(v *visit) error) error {
	session, err := t.session(gen)
	if err != nil {
		return classify("C_OpenSession", label, err)
	}
	v := &visit{t: t, gen: gen, session: session}
	err = fn(v)
	t.release(gen, v.session, v.spoiled)
	if err != nil {
		return classify(op, label, err)
	}
	return nil
}

// do runs fn when it is its turn and returns what it returned. A failure that
// opening the token anew may heal is tried once more after doing so. A caller
// whose time is up is let go, while the call, which cannot be cancelled, keeps
// its place until it returns.
func do[T any](ctx context.Context, t *Token, op, label string, fn func(v *visit) (T, error)) (T, error) {
	var none T
	if err := t.turn(ctx, op, label); err != nil {
		return none, err
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer t.leave()
		var r result
		r.err = t.twice(op, label, func(v *visit) (err error) {
			r.value, err = fn(v)
			return err
		})
		done <- r
	}()
	patience := time.NewTimer(t.cfg.CallTimeout)
	defer patience.Stop()
	select {
	case r := <-done:
		if r.err != nil {
			return none, r.err
		}
		return r.value, nil
	case <-ctx.Done():
		return none, failure(ClassHung, op, label, "the token did not answer in the caller's time: %w", ctx.Err())
	case <-patience.C:
		return none, failure(ClassHung, op, label, "the token did not answer within %v", t.cfg.CallTimeout)
	}
}

// turn waits until it is the caller's turn, first come first served; leave must
// follow. It fails at once when the queue is full.
func (t *Token) turn(ctx context.Context, op, label string) error {
	if t.waiting.Add(1) > int64(t.cfg.Queue+t.cfg.Sessions) {
		t.waiting.Add(-1)
		return failure(ClassBusy, op, label, "%d operations wait already", t.cfg.Queue)
	}
	select {
	case <-t.permits:
		if ctx.Err() == nil {
			return nil
		}
		t.permits <- struct{}{} // nothing is begun for a caller who has gone
	case <-ctx.Done():
	}
	t.waiting.Add(-1)
	return failure(ClassBusy, op, label, "waited too long for the token: %w", ctx.Err())
}

// leave ends a turn. A call that outlives its caller's patience keeps its place
// until here.
func (t *Token) leave() {
	t.waiting.Add(-1)
	t.permits <- struct{}{}
}

// twice runs fn, and once more in a new generation if that may heal it.
func (t *Token) twice(op, label string, fn func(v *visit) error) error {
	gen, err := t.try(op, label, fn)
	if err == nil || !ClassOf(err).heals() || gen == nil || t.renew(gen) != nil {
		return err
	}
	_, err = t.try(op, label, fn)
	return err
}

// try runs fn once and tells in which generation.
func (t *Token) try(op, label string, fn func(v *visit) error) (*generation, error) {
	if t.class() != "" {
		return nil, t.unavailable(op, label) // without waiting for the search
	}
	t.life.RLock()
	defer t.life.RUnlock()
	if t.gen == nil {
		return nil, t.unavailable(op, label)
	}
	return t.gen, t.visit(t.gen, op, label, fn)
}

// alone runs fn while nothing else is out: finding and making objects beside
// other calls breaks some tokens. again allows a second try in a new generation.
func (t *Token) alone(op, label string, again bool, fn func(v *visit) error) error {
	once := func() (*generation, error) {
		t.life.Lock()
		defer t.life.Unlock()
		if t.gen == nil {
			return nil, t.unavailable(op, label)
		}
		return t.gen, t.visit(t.gen, op, label, fn)
	}
	gen, err := once()
	if err == nil || !ClassOf(err).heals() || gen == nil || t.renew(gen) != nil || !again {
		return err
	}
	_, err = once()
	return err
}

// pauses are the waits of the search for a lost token.
type pauses struct {
	first, last time.Duration // between attempts; doubled each time
	login       time.Duration // after a failed login, doubled for each further one
	brief       time.Duration // a generation that lives shorter did not last
}

var usualPauses = pauses{first: 100 * time.Millisecond, last: 5 * time.Second, login: 30 * time.Second, brief: 10 * time.Second}

// unsteady is how many generations in a row may be brief until the next one is
// opened by the search, with its pauses, and not at once: a token that loses
// every session soon would be logged in to without end.
const unsteady = 8

// renew replaces a generation that failed. It waits for everything out. When
// the token cannot be opened it is sought in the background.
func (t *Token) renew(failed *generation) error {
	t.life.Lock()
	defer t.life.Unlock()
	if t.gen == nil {
		return t.unavailable("open", "")
	}
	if t.gen != failed {
		return nil // somebody else renewed it already
	}
	t.brief++
	if time.Since(t.born) > t.pauses.brief {
		t.brief = 0
	}
	t.end(failed)
	if t.brief >= unsteady {
		t.become(nil, ClassSessionLost)
		t.lost()
		return failure(ClassSessionLost, "open", "", "%d generations in a row did not last %v", t.brief, t.pauses.brief)
	}
	err := t.begin()
	if err != nil && t.class().heals() && t.logins == 0 {
		err = t.begin() // what killed the sessions may have killed the new ones
	}
	if err != nil {
		t.lost()
	}
	return err
}

// lost tells the owner and starts the search; life is held exclusively.
func (t *Token) lost() {
	class := t.class()
	t.cfg.Notify(class)
	if !class.final() && !t.seeking {
		t.seeking = true
		go t.seek()
	}
}

// seek tries to open the token until it is back or there is no use in trying.
func (t *Token) seek() {
	pause := t.pauses.first
	for {
		select {
		case <-t.closing:
			return
		case <-time.After(pause):
		}
		next, done := t.seekOnce(pause)
		if done {
			return
		}
		pause = next
	}
}

// seekOnce makes one attempt and returns the pause until the next one.
func (t *Token) seekOnce(pause time.Duration) (next time.Duration, done bool) {
	t.life.Lock()
	defer t.life.Unlock()
	if t.class() == ClassClosed {
		return 0, true
	}
	before := t.class()
	t.begin()
	class := t.class()
	if class == "" || class.final() || class != before {
		t.cfg.Notify(class)
	}
	if class == "" || class.final() {
		t.seeking = false // under life: a loss after this starts another search
		return 0, true
	}
	if t.logins > 0 {
		return t.pauses.login << (t.logins - 1), false
	}
	return min(2*pause, t.pauses.last), false
}
