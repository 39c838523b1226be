package hsm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chancery/hsm/hsmtest"
)

func TestOpenRefusals(t *testing.T) {
	cfg := config(t)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		change func(c *Config)
		want   Class
	}{
		"relative module":   {func(c *Config) { c.Module = "libsofthsm2.so" }, ClassRefused},
		"no module":         {func(c *Config) { c.Module = "/nonexistent.so" }, ClassTokenGone},
		"a folder":          {func(c *Config) { c.Module = "/" }, ClassTokenGone},
		"not a module":      {func(c *Config) { c.Module = file("x.so", "not a module") }, ClassTokenGone},
		"another library":   {func(c *Config) { c.Module = anotherLibrary(t) }, ClassTokenGone},
		"no selector":       {func(c *Config) { c.TokenLabel = "" }, ClassRefused},
		"two selectors":     {func(c *Config) { c.TokenSerial = "1" }, ClassRefused},
		"no such label":     {func(c *Config) { c.TokenLabel = "other" }, ClassTokenGone},
		"half a label":      {func(c *Config) { c.TokenLabel = hsmtest.Label[:4] }, ClassTokenGone},
		"no such serial":    {func(c *Config) { c.TokenLabel, c.TokenSerial = "", "0" }, ClassTokenGone},
		"wrong PIN":         {func(c *Config) { c.PIN = func() ([]byte, error) { return []byte("000000"), nil } }, ClassPINRefused},
		"short PIN":         {func(c *Config) { c.PIN = func() ([]byte, error) { return []byte("0"), nil } }, ClassPINRefused},
		"empty PIN":         {func(c *Config) { c.PIN = func() ([]byte, error) { return nil, nil } }, ClassRefused},
		"PIN not available": {func(c *Config) { c.PIN = func() ([]byte, error) { return nil, os.ErrNotExist } }, ClassRefused},
		"nothing for a PIN": {func(c *Config) { c.PIN = nil }, ClassRefused},
	} {
		t.Run(name, func(t *testing.T) {
			c := cfg
			test.change(&c)
			_, err := Open(c)
			wantClass(t, err, test.want)
		})
	}
	openToken(t, cfg).Close() // none of them left the module open
	hsmtest.AddToken(t, hsmtest.Label)
	_, err := Open(cfg)
	wantClass(t, err, ClassRefused) // two tokens with the label
}

// anotherLibrary is one that loads, but is no PKCS#11 module.
func anotherLibrary(t *testing.T) string {
	found, _ := filepath.Glob("/lib/*/libm.so.6")
	if len(found) == 0 {
		t.Skip("there is no libm.so.6 to take for a module on this machine")
	}
	path, err := filepath.EvalSymlinks(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSecondOpenInAProcessIsRefused: login is per application, so a second open
// would take any PIN.
func TestSecondOpenInAProcessIsRefused(t *testing.T) {
	cfg := config(t)
	token := openToken(t, cfg)
	again := func(module string) {
		t.Helper()
		second := cfg
		second.Module = module
		second.PIN = func() ([]byte, error) { return []byte("wrong"), nil }
		_, err := Open(second)
		wantClass(t, err, ClassRefused)
		if err == nil || !strings.Contains(err.Error(), "is open in this process already") {
			t.Errorf("refused for another reason: %v", err)
		}
	}
	again(cfg.Module)
	link := filepath.Join(t.TempDir(), "module.so")
	if err := os.Symlink(cfg.Module, link); err != nil {
		t.Fatal(err)
	}
	again(link) // the same under another name
	token.life.Lock()
	token.end(token.gen) // as while a lost token is sought: the module itself would not mind
	token.become(nil, ClassTokenGone)
	token.life.Unlock()
	again(cfg.Module)
	token.Close()
	openToken(t, cfg)
	refuses(t, token, "x", ClassClosed)
}

func TestBySerial(t *testing.T) {
	cfg := config(t)
	token := openToken(t, cfg)
	evidence, err := token.Evidence()
	if err != nil {
		t.Fatal(err)
	}
	token.Close()
	hsmtest.AddToken(t, hsmtest.Label) // the label alone would not do
	cfg.TokenLabel, cfg.TokenSerial = "", evidence.Serial
	token = openToken(t, cfg)
	if again, err := token.Evidence(); err != nil || again.Serial != evidence.Serial {
		t.Errorf("serial %s, %v", again.Serial, err)
	}
}

func TestDefaults(t *testing.T) {
	var c Config
	c.setDefaults()
	if c.Sessions != 1 || c.Queue != 64 || c.CallTimeout.Seconds() != 10 || c.HungAfter.Seconds() != 30 || c.OnHung == nil || c.Notify == nil {
		t.Errorf("%+v", c)
	}
}
