package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"chanceryd": main}) }

// TestScripts runs testdata/*.txtar against the daemon as it is shipped, each
// with the example's configuration.
func TestScripts(t *testing.T) {
	examples := filepath.Join("..", "..", "examples")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			if err := os.Mkdir(filepath.Join(e.WorkDir, "data"), 0o700); err != nil {
				return err
			}
			data, err := os.ReadFile(filepath.Join(examples, "chancery.toml"))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(e.WorkDir, "chancery.toml"), data, 0o600); err != nil {
				return err
			}
			return os.CopyFS(filepath.Join(e.WorkDir, "configurations"), os.DirFS(filepath.Join(examples, "configurations")))
		},
	})
}
