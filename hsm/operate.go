package hsm

import (
	"context"
	"time"

	"github.com/miekg/pkcs11"
)

// work is one operation: it runs with a session of a generation.
type work func(gen *generation, session pkcs11.SessionHandle) error

// do runs fn when it is its turn and returns what it returned. A failure that
// opening the token anew may heal is tried once more after doing so. A caller
// whose time is up is let go, while the call, which cannot be cancelled, keeps
// its place until it returns.
func do[T any](ctx context.Context, t *Token, op, label string, fn func(gen *generation, session pkcs11.SessionHandle) (T, error)) (T, error) {
	var none T
	if t.waiting.Add(1) > int64(t.cfg.Queue+t.cfg.Sessions) {
		t.waiting.Add(-1)
		return none, failure(ClassBusy, op, label, "%d operations wait already", t.cfg.Queue)
	}
	defer t.waiting.Add(-1)
	select {
	case <-t.permits:
	case <-ctx.Done():
		return none, failure(ClassBusy, op, label, "waited too long for the token: %w", ctx.Err())
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { t.permits <- struct{}{} }()
		var r result
		r.err = t.twice(op, label, func(gen *generation, session pkcs11.SessionHandle) (err error) {
			r.value, err = fn(gen, session)
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

// twice runs fn, and once more in a new generation if that may heal it.
func (t *Token) twice(op, label string, fn work) error {
	gen, err := t.try(op, label, fn)
	if err == nil || !ClassOf(err).heals() || gen == nil || t.renew(gen) != nil {
		return err
	}
	_, err = t.try(op, label, fn)
	return err
}

// try runs fn once and tells in which generation.
func (t *Token) try(op, label string, fn work) (*generation, error) {
	if t.class() != "" {
		return nil, t.unavailable(op, label) // without waiting for the search
	}
	t.life.RLock()
	defer t.life.RUnlock()
	gen := t.gen
	if gen == nil {
		return nil, t.unavailable(op, label)
	}
	session, err := t.session(gen)
	if err != nil {
		return gen, classify("C_OpenSession", label, err)
	}
	err = t.timed(op, func() error { return fn(gen, session) })
	t.release(gen, session, err != nil)
	if err != nil {
		return gen, classify(op, label, err)
	}
	return gen, nil
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
		return t.gen, t.visit(t.gen, label, fn)
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
