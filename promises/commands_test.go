package promises

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommandsOnARunningAppliance runs testdata/*.txtar: what an operator, a
// holder and an auditor type, as the README shows it, with the shipped tool
// against a running appliance.
func TestCommandsOnARunningAppliance(t *testing.T) {
	a := start(t)
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs("../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for name, value := range a.env {
				e.Setenv(name, value)
			}
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("EXAMPLES", examples)
			return nil
		},
	})
}
