package signer_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chancery/appliance/audit"
	"chancery/appliance/signer"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/config"
)

// process is the daemon in a process of its own.
type process struct {
	*exec.Cmd
	errors bytes.Buffer
	ended  chan struct{} // closed when it has ended
}

// spawn runs the daemon in another process until it is ready.
func spawn(t *testing.T, f *fixture) *process {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(own), ended: make(chan struct{})}
	p.Env = append(os.Environ(), signer.ServeVariable+"="+f.Config.Path)
	p.Stderr = &p.errors
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); <-p.ended })
	line, _ := bufio.NewReader(out).ReadString('\n')
	go func() { p.Wait(); close(p.ended) }()
	if line != "ready\n" {
		<-p.ended
		t.Fatalf("the daemon is not ready: %s", p.errors.String())
	}
	return p
}

// wait waits for the process's own end and returns its status.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		t.Fatal("the daemon does not end")
		return 0
	}
}

// outcomes counts intents without outcome, and outcomes by their kind; it holds
// each outcome against its intent.
func outcomes(t *testing.T, f *fixture) (open int, kinds map[audit.Kind]int) {
	t.Helper()
	intents, kinds := map[int64]audit.Entry{}, map[audit.Kind]int{}
	for i, e := range f.Entries(t) {
		switch e.Kind {
		case audit.KindIntent:
			intents[int64(i)] = e
		case audit.KindMade, audit.KindFailed, audit.KindAbandoned:
			intent, there := intents[*e.Intent]
			if !there || intent.Hash != e.Hash || intent.Key != e.Key || intent.Credential != e.Credential {
				t.Errorf("entry %d is an outcome of another intent", i)
			}
			delete(intents, *e.Intent)
			kinds[e.Kind]++
		}
	}
	return len(intents), kinds
}

// TestKilled kills the daemon under load, again and again. Whatever was answered
// has its intent and outcome in the log; the next start closes what was left
// open, and needs no help (promise P1, promise P7).
func TestKilled(t *testing.T) {
	f := prepare(t, signertest.Options{})
	var mu sync.Mutex
	answered := map[string]wire.SignResult{} // by the hash of the bytes
	const rounds = 6
	for round := range rounds {
		p := spawn(t, f)
		if round == 0 {
			f.read(t)
		}
		if open, _ := outcomes(t, f); open != 0 {
			t.Fatalf("round %d: %d intents are open after the start", round, open)
		}
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				for {
					in := request(f.mdoc(t, "ds-1", nil), f.jwtvc(t, "did-1", nil))
					out, err := f.Sign.Sign(soon(t), in)
					if err != nil {
						return // killed
					}
					mu.Lock()
					for i, r := range out.Results {
						answered[hash(in.Items[i].TBS)] = r
					}
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(20+37*round) * time.Millisecond)
		p.Process.Kill()
		wait.Wait()
		<-p.ended
	}
	spawn(t, f)
	entries := f.Entries(t)
	for h, r := range answered {
		if entries[r.Intent].Kind != audit.KindIntent || entries[r.Intent].Hash != h || entries[r.Outcome].Kind != audit.KindMade || entries[r.Outcome].Hash != h {
			t.Errorf("%s was answered, but the log has %+v and %+v", h, entries[r.Intent], entries[r.Outcome])
		}
	}
	open, kinds := outcomes(t, f)
	if open != 0 || len(answered) == 0 || kinds[audit.KindMade] < len(answered) {
		t.Errorf("%d answered, %d open, %v", len(answered), open, kinds)
	}
	if starts := len(f.Entries(t, audit.KindSignerStarted)); starts != rounds+1 {
		t.Errorf("%d starts", starts)
	}
}

// TestKilledWhileSigning kills the daemon between intent and signature, so that
// an intent must be left, and closed by the next start.
func TestKilledWhileSigning(t *testing.T) {
	f := prepare(t, signertest.Options{Faults: true})
	p := spawn(t, f)
	f.read(t)
	f.Fault.Order(t, "latency C_Sign 20000000")
	ended := make(chan error, 1)
	in := request(f.mdoc(t, "ds-1", nil), f.mdoc(t, "ds-384", nil))
	go func() {
		_, err := f.Sign.Sign(soon(t), in)
		ended <- err
	}()
	until(t, "the intents", func() bool { return len(f.Entries(t, audit.KindIntent)) == 2 })
	p.Process.Kill()
	if err := <-ended; code(err) != wire.CodeUnavailable {
		t.Errorf("the caller: %v", err)
	}
	<-p.ended
	f.Fault.Order(t)
	if open, _ := outcomes(t, f); open != 2 {
		t.Fatalf("%d intents are open", open)
	}
	f.Start(t)
	open, kinds := outcomes(t, f)
	if open != 0 || kinds[audit.KindAbandoned] != 2 {
		t.Errorf("%d open, %v", open, kinds)
	}
	for _, e := range f.Entries(t, audit.KindAbandoned) {
		if e.Reason != "restart" || e.Actor != "signer" {
			t.Errorf("%+v", e)
		}
	}
	f.Restart(t)
	if _, kinds := outcomes(t, f); kinds[audit.KindAbandoned] != 2 {
		t.Error("they were closed twice")
	}
}

// full lets no file of a process grow beyond what the log's write-ahead file has
// now: the disk is full.
func full(t *testing.T, f *fixture, p *process) {
	t.Helper()
	limit := uint64(4096)
	if info, err := os.Stat(f.Config.Signer.Database + "-wal"); err == nil {
		limit = max(limit, uint64(info.Size()))
	}
	if err := unix.Prlimit(p.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk has the audit log fail (promise P1): before the signature none is
// made, after it none is answered; the daemon ends, and the next start, with room
// again, needs no help.
func TestFullDisk(t *testing.T) {
	for name, c := range map[string]struct {
		order   string // for the token
		intents int    // those that are durable
	}{
		"no intent":  {"", 0},
		"no outcome": {"latency C_Sign 1500000", 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := prepare(t, signertest.Options{Faults: true, Configure: func(cfg *config.Config) { rewrite(t, cfg) }})
			p := spawn(t, f)
			f.read(t)
			calls := signCalls(t, f)
			f.Fault.Order(t)
			before := len(f.Entries(t))
			in := request(f.mdoc(t, "ds-1", nil))
			result := make(chan error, 1)
			ask := func() {
				out, err := f.Sign.Sign(soon(t), in)
				if len(out.Results) != 0 {
					err = fmt.Errorf("a signature left: %+v", out)
				}
				result <- err
			}
			if c.intents == 0 {
				full(t, f, p)
				go ask()
			} else {
				f.Fault.Order(t, c.order)
				go ask()
				until(t, "the intent", func() bool { return len(f.Entries(t)) > before })
				full(t, f, p)
			}
			if err := <-result; code(err) != wire.CodeUnavailable {
				t.Errorf("%v, want unavailable", err)
			}
			if status := p.wait(t); status != signer.ExitFailure || !strings.Contains(p.errors.String(), "audit append failed") {
				t.Errorf("status %d: %s", status, p.errors.String())
			}
			if got := len(f.Entries(t)) - before; got != c.intents {
				t.Errorf("%d entries were written", got)
			}
			// Each intent is followed by its signature, and without one none is made.
			if got := f.Fault.Calls(t)["C_Sign"] - calls - 1; got != c.intents {
				t.Errorf("the token was asked for %d signatures", got)
			}
			f.Fault.Order(t)
			f.Start(t)
			if open, kinds := outcomes(t, f); open != 0 || kinds[audit.KindAbandoned] != c.intents || kinds[audit.KindMade] != 1 {
				t.Errorf("%d open, %v", open, kinds)
			}
			if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
				t.Errorf("with room again: %v", err)
			}
		})
	}
}

// rewrite puts a long checkpoint interval into the file that the other process
// reads, so that only the request writes to the log.
func rewrite(t *testing.T, cfg *config.Config) {
	t.Helper()
	text, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Path, append(text, []byte("checkpoint_interval = \"1h\"\nprobe_interval = \"1h\"\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReadOnlyLog does not start on a log that it cannot write.
func TestReadOnlyLog(t *testing.T) {
	if os.Getuid() == 0 {
		// Root writes whatever the mode says; the folder is mounted over, read-only.
		f := prepare(t, signertest.Options{})
		if err := syscall.Mount(f.Dir, f.Dir, "", syscall.MS_BIND, ""); err != nil {
			t.Skipf("this process may not mount: %v", err)
		}
		defer syscall.Unmount(f.Dir, syscall.MNT_DETACH)
		if err := syscall.Mount("", f.Dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Skipf("this process may not mount: %v", err)
		}
		if err := f.TryStart(t); err == nil {
			t.Error("started on a read-only log")
		}
		return
	}
	f := prepare(t, signertest.Options{})
	if err := os.Chmod(f.Config.Signer.Database, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := f.TryStart(t); err == nil {
		t.Error("started on a read-only log")
	}
}

// TestTermination ends the daemon as the service manager does, with a request
// under way.
func TestTermination(t *testing.T) {
	f := prepare(t, signertest.Options{Faults: true})
	p := spawn(t, f)
	f.read(t)
	f.Fault.Order(t, "latency C_Sign 500000")
	result := make(chan error, 1)
	in := request(f.mdoc(t, "ds-1", nil))
	go func() {
		_, err := f.Sign.Sign(soon(t), in)
		result <- err
	}()
	until(t, "the intent", func() bool { return len(f.Entries(t, audit.KindIntent)) == 1 })
	p.Process.Signal(syscall.SIGTERM)
	if err := <-result; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if status := p.wait(t); status != 0 {
		t.Errorf("status %d: %s", status, p.errors.String())
	}
	if open, kinds := outcomes(t, f); open != 0 || kinds[audit.KindMade] != 1 {
		t.Errorf("%d open, %v", open, kinds)
	}
	if _, err := f.Sign.Sign(soon(t), in); code(err) != wire.CodeUnavailable {
		t.Errorf("after the end: %v", err)
	}
}
