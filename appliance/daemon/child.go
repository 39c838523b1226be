package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"chancery/appliance/process"
	"chancery/config"
)

// Back-off of a child that ends.
const (
	firstRestart = 100 * time.Millisecond
	lastRestart  = 5 * time.Second
	// steady is how long a child must live for the back-off to begin anew.
	steady = 10 * time.Second
	// childWithin bounds the wait for a child's end.
	childWithin = 35 * time.Second
)

// child keeps chancery-signer running where there is no service manager. It is
// the same program with the same sockets; nothing of it is in this process.
type child struct {
	binary string
	args   []string
	log    *slog.Logger

	stopping chan struct{}
	once     sync.Once
	done     chan struct{} // closed when no child runs any more
}

// spawn starts the signer as a child when the configuration says so.
func spawn(cfg *config.Config, log *slog.Logger) (*child, error) {
	c := &child{log: log, stopping: make(chan struct{}), done: make(chan struct{})}
	if !cfg.Signer.Spawn {
		close(c.done)
		return c, nil
	}
	c.binary, c.args = cfg.Signer.Binary, []string{"serve", "-config", cfg.Path}
	if c.binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		c.binary = filepath.Join(filepath.Dir(self), "chancery-signer")
	}
	if _, err := os.Stat(c.binary); err != nil {
		return nil, fmt.Errorf("signer.binary: %w: put chancery-signer there or name it", err)
	}
	go c.keep()
	return c, nil
}

// keep starts the child again and again. It stays on one thread for as long as
// it lives: the kernel signals a child when the thread that started it ends
// (PR_SET_PDEATHSIG).
func (c *child) keep() {
	defer close(c.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for pause := firstRestart; ; pause = min(2*pause, lastRestart) {
		started := time.Now()
		again := c.runOnce()
		if !again {
			return
		}
		if time.Since(started) > steady {
			pause = firstRestart
		}
		select {
		case <-c.stopping:
			return
		case <-time.After(pause):
		}
	}
}

// runOnce runs the child once and tells whether to start it again.
func (c *child) runOnce() bool {
	cmd := exec.Command(c.binary, c.args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// When this process is killed, the signer ends in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		c.log.Error("the signer does not start", "error", err.Error())
		return true
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if cmd.ProcessState.ExitCode() == process.ExitPIN {
			c.log.Error("the token refused the PIN; the signer is not started again: correct signer.pin and restart")
			return false
		}
		c.log.Error("the signer ended; starting it again", "error", fmt.Sprint(err))
		return true
	case <-c.stopping:
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(childWithin):
		c.log.Error("the signer does not end; killing it")
		cmd.Process.Kill()
		<-ended
	}
	return false
}

// stop ends the child and waits for it.
func (c *child) stop() {
	c.once.Do(func() { close(c.stopping) })
	<-c.done
}
