package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/appliance/process"
	"chancery/config"
)

// fakeSigner writes a shell script in the signer's place: what is tested is how
// a child is kept, not what it does.
func fakeSigner(t *testing.T, script string) (*config.Config, string) {
	t.Helper()
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	binary := filepath.Join(dir, "chancery-signer")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho start >> "+trace+"\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return &config.Config{Signer: config.Signer{Spawn: true, Binary: binary}}, trace
}

// starts waits until the child was started at least n times.
func starts(t *testing.T, trace string, n int) int {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		data, err := os.ReadFile(trace)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if got := strings.Count(string(data), "start"); got >= n {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child was not started %d times", n)
		}
	}
}

func TestChildIsKept(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	t.Run("one that ends is started again", func(t *testing.T) {
		cfg, trace := fakeSigner(t, "exit 1\n")
		c, err := spawn(cfg, quiet)
		if err != nil {
			t.Fatal(err)
		}
		starts(t, trace, 3)
		c.stop()
	})
	t.Run("a refused PIN is not tried again", func(t *testing.T) {
		cfg, trace := fakeSigner(t, fmt.Sprintf("exit %d\n", process.ExitPIN))
		c, err := spawn(cfg, quiet)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.done:
		case <-time.After(30 * time.Second):
			t.Fatal("the child is still kept")
		}
		if n := starts(t, trace, 1); n != 1 {
			t.Errorf("started %d times", n)
		}
		c.stop()
	})
	t.Run("it ends in order", func(t *testing.T) {
		cfg, trace := fakeSigner(t, "trap 'echo drained >> \"$0.drained\"; exit 0' TERM\necho ready >> \"$0.ready\"\nwhile :; do sleep 0.05; done\n")
		c, err := spawn(cfg, quiet)
		if err != nil {
			t.Fatal(err)
		}
		starts(t, trace, 1)
		for {
			if _, err := os.Stat(cfg.Signer.Binary + ".ready"); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		c.stop()
		if _, err := os.Stat(cfg.Signer.Binary + ".drained"); err != nil {
			t.Errorf("the child was not asked to end: %v", err)
		}
	})
	t.Run("none without spawn", func(t *testing.T) {
		c, err := spawn(&config.Config{}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		c.stop()
	})
	t.Run("a binary that is not there", func(t *testing.T) {
		_, err := spawn(&config.Config{Signer: config.Signer{Spawn: true, Binary: filepath.Join(t.TempDir(), "nothing")}}, quiet)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	})
}
