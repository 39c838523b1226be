// Package signertest runs the real signer in tests, of this and of other
// packages: a SoftHSM token, signer.db, the keys of a ceremony, and the daemon
// on its two Unix sockets, all in one folder of the test's own.
//
//	s := signertest.Start(t, signertest.Options{})
//	answer, err := s.Sign.Sign(ctx, wire.SignRequest{…})
//
// Start makes everything, holds the ceremony of examples/ceremony.toml (or of
// Options.Plan) in a step of its own, with token and log closed afterwards, and
// serves. What it gives lives until the test ends: Config is the whole
// configuration (chancery.toml lies in Dir, for real binaries), Sign and Admin
// are clients of the two sockets, Ceremony is what was made. [Signer.Stop],
// [Signer.Start] and [Signer.Restart] end and begin the daemon, on the same
// token and log; [Signer.Wait] is for a daemon that ends by itself.
// [Signer.Entries] reads the log at any time. With Options.Faults the token is
// behind the fault module, and Signer.Fault gives it orders, for instance
//
//	s.Fault.Order(t, "gone 0x32") // CKR_DEVICE_REMOVED until
//	s.Fault.Order(t)              // all is well again
//
// A process has one PKCS#11 module with one SOFTHSM2_CONF: one signer runs in it
// at a time, and its test cannot be parallel. A machine without SoftHSM skips
// the test and says so.
package signertest

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/ceremony"
	"chancery/appliance/signer"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm/hsmtest"
)

// Issuer is the Credential Issuer Identifier of the example's ceremony.
const Issuer = "https://localhost:8443"

// Origin is the log's name.
const Origin = "localhost/chancery-test"

// patience bounds the waits for a daemon that begins or ends.
const patience = time.Minute

// Options vary what is made; the zero value is the example's ceremony on a
// token without faults.
type Options struct {
	// Plan is the ceremony's plan, TOML; "" is examples/ceremony.toml. Its
	// issuer must be [Issuer].
	Plan string
	// Faults puts the fault module in front of the token.
	Faults bool
	// Configure changes the configuration before anything is made with it.
	Configure func(*config.Config)
	// Now is the ceremony's and the daemon's clock; nil is the machine's.
	Now func() time.Time
	// Logger is the daemon's; nil discards.
	Logger *slog.Logger
}

// Signer is one token, one log and, between Start and Stop, one daemon.
type Signer struct {
	// Dir is the short folder with the sockets, databases and chancery.toml.
	Dir    string
	Config *config.Config
	// Sign and Admin ask the daemon through sign.sock and admin.sock.
	Sign, Admin *wire.Client
	// Ceremony is what the ceremony made.
	Ceremony *ceremony.Result
	// Fault is the fault module's control, nil without Options.Faults.
	Fault *hsmtest.Fault

	options Options
	stop    context.CancelFunc
	ended   chan error // nil while no daemon runs
}

// running is set while a test of this process has a signer.
var running atomic.Bool

// Start makes a token, a log and keys, and runs the daemon until the test ends.
func Start(t testing.TB, o Options) *Signer {
	t.Helper()
	s := Prepare(t, o)
	s.Start(t)
	return s
}

// Prepare does what [Start] does, but runs no daemon yet.
func Prepare(t testing.TB, o Options) *Signer {
	t.Helper()
	module := hsmtest.Module(t)
	if !running.CompareAndSwap(false, true) {
		t.Fatal("signertest: this process has a signer already: one token module serves one at a time")
	}
	t.Cleanup(func() { running.Store(false) })
	dir, err := os.MkdirTemp("", "chancery-") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &Signer{Dir: dir, options: o}
	if s.options.Now == nil {
		s.options.Now = time.Now
	}
	t.Cleanup(func() { s.clean(t) })
	hsmtest.SoftHSM(t)
	if o.Faults {
		s.Fault = hsmtest.WithFaults(t, module)
		module = s.Fault.Module
	}
	s.configure(t, module)
	if err := audit.Create(s.Config.Signer.Database, s.Config.Signer.Origin, s.options.Now()); err != nil {
		t.Fatal(err)
	}
	plan := o.Plan
	if plan == "" {
		plan = Example(t, "ceremony.toml")
	}
	s.Ceremony = s.Hold(t, plan)
	s.Sign, s.Admin = wire.NewClient(s.Config.Signer.SignSocket), wire.NewClient(s.Config.Signer.AdminSocket)
	return s
}

// examples is the repository's folder of examples.
func examples() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "..", "examples")
}

// Example returns the content of a file in examples/.
func Example(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(examples(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// configure writes chancery.toml and the PIN's file. The token's folder is not
// named: syncing it would wait for all that other tests write.
func (s *Signer) configure(t testing.TB, module string) {
	t.Helper()
	text := fmt.Sprintf(`log = "debug"
[issuer]
identifier = %q
listen = "127.0.0.1:0"
tls_certificate = "tls/server.pem"
tls_key = "tls/server.key"
configurations = %q
[admin]
listen = "127.0.0.1:0"
tls_certificate = "tls/server.pem"
tls_key = "tls/server.key"
[store]
database = "chancery.db"
[signer]
module = %q
token_label = %q
pin = "./pin"
database = "signer.db"
origin = %q
sign_socket = "sign.sock"
admin_socket = "admin.sock"
spool = "spool"
`, Issuer, filepath.Join(examples(), "configurations"), module, hsmtest.Label, Origin)
	path := filepath.Join(s.Dir, "chancery.toml")
	for name, content := range map[string]string{path: text, filepath.Join(s.Dir, "pin"): hsmtest.PIN + "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.Config, err = config.Load(path); err != nil {
		t.Fatal(err)
	}
	if s.options.Configure != nil {
		s.options.Configure(s.Config)
	}
}

// Hold holds a further ceremony; no daemon may have token and log.
func (s *Signer) Hold(t testing.TB, plan string) *ceremony.Result {
	t.Helper()
	f, err := os.CreateTemp(s.Dir, "plan-*.toml")
	if err == nil {
		_, err = f.WriteString(plan)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	result, err := ceremony.Perform(context.Background(), s.Config, f.Name(), s.options.Now())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// Start runs the daemon; it must not run already.
func (s *Signer) Start(t testing.TB) {
	t.Helper()
	if err := s.TryStart(t); err != nil {
		t.Fatalf("the signer does not start: %v", err)
	}
}

// TryStart is Start for a daemon that may refuse; it returns why.
func (s *Signer) TryStart(t testing.TB) error {
	t.Helper()
	if s.ended != nil {
		t.Fatal("signertest: the daemon runs already")
	}
	stop, ended, err := s.run(t)
	if err == nil {
		s.stop, s.ended = stop, ended
	}
	return err
}

// TryAnother starts a second daemon beside the running one; it returns why that
// does not work.
func (s *Signer) TryAnother(t testing.TB) error {
	t.Helper()
	stop, ended, err := s.run(t)
	if err == nil {
		stop()
		<-ended
	}
	return err
}

// run starts a daemon and waits until it is ready or has ended.
func (s *Signer) run(t testing.TB) (stop context.CancelFunc, ended chan error, err error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended = make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		ended <- signer.Run(ctx, s.Config, signer.Options{
			Logger: s.options.Logger, Now: s.options.Now, Version: "test", Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
		return stop, ended, nil
	case err := <-ended:
		stop()
		return nil, nil, err
	case <-time.After(patience):
		stop()
		t.Fatalf("signertest: the daemon is not ready after %v", patience)
		return nil, nil, nil
	}
}

// Stop ends the daemon in order and returns Run's error.
func (s *Signer) Stop(t testing.TB) error {
	t.Helper()
	if s.ended == nil {
		t.Fatal("signertest: no daemon runs")
	}
	s.stop()
	return s.Wait(t)
}

// Wait waits until the daemon has ended and returns Run's error.
func (s *Signer) Wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-s.ended:
		s.stop()
		s.ended = nil
		return err
	case <-time.After(patience):
		t.Fatalf("signertest: the daemon has not ended after %v", patience)
		return nil
	}
}

// Restart ends the daemon and begins it anew.
func (s *Signer) Restart(t testing.TB) {
	t.Helper()
	if err := s.Stop(t); err != nil {
		t.Fatalf("the signer did not end well: %v", err)
	}
	s.Start(t)
}

// clean ends the daemon and removes the folder.
func (s *Signer) clean(t testing.TB) {
	if s.Sign != nil {
		s.Sign.Close()
		s.Admin.Close()
	}
	if s.ended != nil {
		if err := s.Stop(t); err != nil {
			t.Errorf("the signer did not end well: %v", err)
		}
	}
	os.RemoveAll(s.Dir)
}

// Identity returns a key's public side.
func (s *Signer) Identity(t testing.TB, label string) wire.Identity {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := s.Admin.Identities(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range all.Identities {
		if id.Label == label {
			return id
		}
	}
	t.Fatalf("no key %q", label)
	return wire.Identity{}
}

// Entries returns the log's entries that are durable now, in order; with kinds,
// those of these kinds alone. The daemon may run.
func (s *Signer) Entries(t testing.TB, kinds ...audit.Kind) []audit.Entry {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: s.Config.Signer.Database}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT leaf FROM entries ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var entries []audit.Entry
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			t.Fatal(err)
		}
		e, err := audit.ParseEntry(leaf)
		if err != nil {
			t.Fatalf("entry %d: %v", len(entries), err)
		}
		if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
			entries = append(entries, e)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return entries
}
