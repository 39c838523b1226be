package signer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chancery/appliance/process"
	"chancery/config"
	"chancery/hsm"
)

// TestPIN reads the PIN from files as operators leave them.
func TestPIN(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// A pipe blocks its reader until somebody writes.
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for name, c := range map[string]struct {
		path       string
		credential bool
		want, err  string
	}{
		"plain":                       {write("a", "1234", 0o600), false, "1234", ""},
		"with a newline":              {write("b", "1234\n", 0o400), false, "1234", ""},
		"from another system":         {write("c", "1234\r\n", 0o600), false, "1234", ""},
		"a space belongs to it":       {write("d", " 1 2 ", 0o600), false, " 1 2 ", ""},
		"the longest":                 {write("e", strings.Repeat("1", 256)+"\n", 0o600), false, strings.Repeat("1", 256), ""},
		"too long":                    {write("f", strings.Repeat("1", 257), 0o600), false, "", "too much"},
		"far too long":                {write("g", strings.Repeat("1", 1<<20), 0o600), false, "", "too much"},
		"empty":                       {write("h", "\n", 0o600), false, "", "no PIN"},
		"readable by the group":       {write("i", "1234", 0o640), false, "", "chmod 600"},
		"readable by all":             {write("j", "1234", 0o604), false, "", "chmod 600"},
		"a credential with its group": {write("k", "1234", 0o440), true, "1234", ""},
		"a credential for all":        {write("l", "1234", 0o444), true, "", "chmod 600"},
		"a folder":                    {dir, false, "", "regular file"},
		"a pipe":                      {fifo, false, "", "regular file"},
		"missing":                     {filepath.Join(dir, "none"), false, "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			pin, err := readPIN(c.path, c.credential)
			if string(pin) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v; want %q, %q", pin, err, c.want, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "1234") {
				t.Error("the error tells the PIN")
			}
		})
	}
}

func TestTokenConfig(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pin"), []byte("9876\n"), 0o440); err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{Signer: config.Signer{Module: "/m", TokenLabel: "l", ModuleReserved: "r", PIN: "pin", Sessions: 3, Queue: 10,
		TokenDirectory: "/d", OperationTimeout: config.Duration(time.Second), HungAfter: config.Duration(time.Minute)}}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := TokenConfig(cfg); err == nil || !strings.Contains(err.Error(), "CREDENTIALS_DIRECTORY") {
		t.Errorf("a credential without systemd: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	got, err := TokenConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got.Module != "/m" || got.TokenLabel != "l" || got.Reserved != "r" || got.Sessions != 3 || got.SyncDirectory != "/d" ||
		got.CallTimeout != time.Second || got.HungAfter != time.Minute {
		t.Errorf("%+v", got)
	}
	// Each of 13 requests may have three signatures out or waiting.
	if got.Queue < 13*3 {
		t.Errorf("a queue of %d: an admitted request could find it full", got.Queue)
	}
	if pin, err := got.PIN(); err != nil || string(pin) != "9876" {
		t.Errorf("PIN %q, %v", pin, err)
	}
	cfg.Signer.PIN = filepath.Join(dir, "pin")
	if got, err = TokenConfig(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := got.PIN(); err == nil {
		t.Error("a file that the group may read gave a PIN, although it is no credential")
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), ExitFailure}, {&hsm.Error{Class: hsm.ClassTokenGone}, ExitFailure},
		{errors.Join(errors.New("x"), &hsm.Error{Class: hsm.ClassPINRefused}), process.ExitPIN},
	} {
		if got := ExitStatus(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}
