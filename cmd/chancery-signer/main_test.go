package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"chancery/hsm/hsmtest"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"chancery-signer": main}) }

// TestScripts runs testdata/*.txtar against the daemon as it is shipped. Each
// script has a SoftHSM token of its own, its PIN in the file pin, and the
// example's configuration and plan.
func TestScripts(t *testing.T) {
	module := hsmtest.Module(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			conf := filepath.Join(e.WorkDir, "softhsm2.conf")
			e.Setenv("SOFTHSM2_CONF", conf)
			for _, dir := range []string{"token", "data", "spool"} {
				if err := os.Mkdir(filepath.Join(e.WorkDir, dir), 0o700); err != nil {
					return err
				}
			}
			text := "directories.tokendir = " + filepath.Join(e.WorkDir, "token") + "\nobjectstore.backend = file\nlog.level = ERROR\n"
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				return err
			}
			cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "chancery-demo", "--pin", hsmtest.PIN, "--so-pin", "87654321")
			cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("softhsm2-util: %w: %s", err, out)
			}
			if err := os.WriteFile(filepath.Join(e.WorkDir, "pin"), []byte(hsmtest.PIN), 0o600); err != nil {
				return err
			}
			return copyExamples(e.WorkDir, module)
		},
	})
}

// copyExamples puts the example files into a script's folder.
func copyExamples(dir, module string) error {
	for _, name := range []string{"chancery.toml", "ceremony.toml"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "examples", name))
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(data), "/usr/lib/softhsm/libsofthsm2.so", module)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
