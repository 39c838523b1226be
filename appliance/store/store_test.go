package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chancery/appliance/database"
)

// clock is the tests' time; it moves when it is told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// errAway is what a wrapper answers whose token is away.
var errAway = errors.New("no token")

// wrapper stands where the signer and its token do: it wraps data keys under a
// key of its own and binds them to their context.
type wrapper struct {
	root cipher.AEAD

	mu           sync.Mutex // guards what follows
	away         bool
	made, opened int
}

func newWrapper(root []byte) *wrapper {
	block, err := aes.NewCipher(root)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return &wrapper{root: aead}
}

func (w *wrapper) setAway(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
}

func (w *wrapper) counts() (made, opened int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made, w.opened
}

func (w *wrapper) keys() DataKeys {
	return DataKeys{
		New: func(_ context.Context, binding string) (key, wrapped []byte, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.away {
				return nil, nil, errAway
			}
			w.made++
			key = make([]byte, 32)
			rand.Read(key)
			wrapped, err = encrypt(w.root, key, []byte(binding))
			return key, wrapped, err
		},
		Open: func(_ context.Context, binding string, wrapped []byte) ([]byte, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.away {
				return nil, errAway
			}
			w.opened++
			return decrypt(w.root, wrapped, []byte(binding))
		},
	}
}

// auditLog stands where the signer's log does, with the signer's rules: events
// come without gaps, and those it has are left out.
type auditLog struct {
	mu     sync.Mutex // guards what follows
	events map[string][]Event
	sends  int
	// before, when set, is called before anything is stored; after, once it is.
	before, after func() error
}

func newAuditLog() *auditLog { return &auditLog{events: map[string][]Event{}} }

func (l *auditLog) send(_ context.Context, source string, events []Event) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sends++
	if l.before != nil {
		if err := l.before(); err != nil {
			return 0, err
		}
	}
	has := l.events[source]
	for _, e := range events {
		if e.Seq <= int64(len(has)) {
			continue
		}
		if e.Seq != int64(len(has))+1 {
			return 0, fmt.Errorf("%w: event %d follows %d", ErrOutOfStep, e.Seq, len(has))
		}
		has = append(has, e)
	}
	l.events[source] = has
	if l.after != nil {
		if err := l.after(); err != nil {
			return 0, err
		}
	}
	return uint64(len(has)), nil
}

// all returns every event of every source, and how many sources there are.
func (l *auditLog) all() (events []Event, sources int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, has := range l.events {
		events = append(events, has...)
	}
	return events, len(l.events)
}

// kinds counts an offer's events, or all of them for "".
func (l *auditLog) kinds(subject string) map[string]int {
	events, _ := l.all()
	return kindsOf(events, subject)
}

func kindsOf(events []Event, subject string) map[string]int {
	kinds := map[string]int{}
	for _, e := range events {
		if subject == "" || e.Subject == subject {
			kinds[e.Kind]++
		}
	}
	return kinds
}

// fixture is a store in a file with what surrounds it.
type fixture struct {
	*Store
	t       testing.TB
	path    string
	clock   *clock
	wrapper *wrapper
	log     *auditLog
	options Options
}

const (
	testAttempts  = 3
	testRetention = 24 * time.Hour
	testLifetime  = 10 * time.Minute // of an access token
	testExpiry    = time.Hour        // of a code
)

// folder makes a folder in memory where there is one: what the tests ask of the
// disk does not need its slowness. Benchmarks get a real one.
func folder(t testing.TB) string {
	t.Helper()
	if _, measured := t.(*testing.B); measured {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "chancery-store-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// open makes a store that has met its audit log.
func open(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(folder(t), "chancery.db"), clock: newClock(), wrapper: newWrapper(make([]byte, 32)), log: newAuditLog()}
	f.options = Options{DataKeys: f.wrapper.keys(), DataKeyLifetime: time.Hour, Retention: testRetention, Attempts: testAttempts, Now: f.clock.Now}
	if err := Create(f.path); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.drain()
	t.Cleanup(func() { f.Store.Close() })
	return f
}

// start opens the file.
func (f *fixture) start() {
	f.t.Helper()
	s, err := Open(f.path, f.options)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Store = s
}

// restart closes and opens, as a restart of the daemon does.
func (f *fixture) restart() {
	f.t.Helper()
	if err := f.Store.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.start()
	f.drain()
}

func (f *fixture) drain() {
	f.t.Helper()
	if err := f.Drain(context.Background(), f.log.send); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) sweep() {
	f.t.Helper()
	if err := f.Sweep(context.Background()); err != nil {
		f.t.Fatal(err)
	}
}

// claimsText is what the tests' claims hold; the search for leaks looks for it.
const claimsText = `{"family_name":"Dvořáková","given_name":"Žofie"}`

// create makes an offer; txCode is its length, or 0 for none.
func (f *fixture) create(txCode int, configurations ...string) Created {
	f.t.Helper()
	if len(configurations) == 0 {
		configurations = []string{"pid"}
	}
	n := NewOffer{Configurations: configurations, Claims: []byte(claimsText), ExpiresAt: f.clock.Now().Add(testExpiry), CreatedBy: "registrar"}
	if txCode > 0 {
		n.TxCode = &TxCode{InputMode: "numeric", Length: txCode}
	}
	c, err := f.CreateOffer(context.Background(), n)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// lasting is a lifetime whatever is granted.
func lasting(d time.Duration) func([]string) time.Duration {
	return func([]string) time.Duration { return d }
}

// redemption asks for a token with everything right.
func redemption(c Created) Redemption {
	r := Redemption{Code: c.Code, Lifetime: lasting(testLifetime)}
	if c.TransactionCode != "" {
		r.TransactionCode = &c.TransactionCode
	}
	return r
}

func (f *fixture) redeem(c Created) string {
	f.t.Helper()
	token, err := f.Redeem(context.Background(), redemption(c))
	if err != nil {
		f.t.Fatal(err)
	}
	return token.Token
}

// wrong returns a transaction code of the same shape that is not the offer's.
func wrong(code string) *string {
	if code == "" {
		code = "000000" // where none belongs
	}
	other := "1" + code[1:]
	if code[0] == '1' {
		other = "2" + code[1:]
	}
	return &other
}

func (f *fixture) grant(token string) *Grant {
	f.t.Helper()
	g, err := f.Grant(context.Background(), token)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(g.Release)
	return g
}

func credential(configuration string) Credential {
	id, err := NewCredentialID()
	if err != nil {
		panic(err)
	}
	return Credential{ID: id, Configuration: configuration, Version: "1", Key: "pid-signer", Intent: 7, Outcome: 8}
}

// issued is Issue where nothing but the credentials matters.
func (g *Grant) issued(ctx context.Context, configuration string, credentials []Credential) error {
	_, err := g.Issue(ctx, configuration, IssueRecord{Credentials: credentials, KeysHash: hashOf("keys of " + configuration), ProofsHash: hashOf("proofs of " + configuration)})
	return err
}

func hashOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }

// issue records one credential of each configuration.
func (f *fixture) issue(token string, configurations ...string) {
	f.t.Helper()
	g := f.grant(token)
	defer g.Release()
	for _, id := range configurations {
		if err := g.issued(context.Background(), id, []Credential{credential(id)}); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) offer(id string) Offer {
	f.t.Helper()
	o, err := f.Offer(context.Background(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return o
}

func (f *fixture) wantState(id string, want State) {
	f.t.Helper()
	if got := f.offer(id).State; got != want {
		f.t.Errorf("the offer is %s, want %s", got, want)
	}
}

// ask returns one number of the database.
func (f *fixture) ask(query string, args ...any) (n int64) {
	f.t.Helper()
	if err := f.db.Read(context.Background(), func(r *database.Reader) error {
		_, err := r.Row(query, args, []any{&n})
		return err
	}); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// tamper changes the database as somebody with the file in hand would.
func (f *fixture) tamper(query string, args ...any) {
	f.t.Helper()
	if err := f.db.Write(context.Background(), func(tx *database.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	}); err != nil {
		f.t.Fatal(err)
	}
}

// TestOpenRefuses holds that a database that is not understood stops the program
// (promise P7).
func TestOpenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.db")
	if _, err := Open(path, Options{}); !errors.Is(err, database.ErrMissing) {
		t.Errorf("a missing file: %v", err)
	}
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); !errors.Is(err, database.ErrExists) {
		t.Errorf("a second creation: %v", err)
	}
	for want, statement := range map[string]string{
		"no identity":        "DELETE FROM meta",
		"but holds only":     "UPDATE meta SET sent = 5",
		"before the outbox ": "UPDATE meta SET source_base = 5",
	} {
		f := open(t)
		f.tamper(statement)
		f.Store.Close()
		if s, err := Open(f.path, f.options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", statement, err, want)
			if err == nil {
				s.Close()
			}
		}
	}
}
