package promises

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

func readMod(t *testing.T, path string) *modfile.File {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := modfile.Parse(path, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEveryDependencyIsExplained demands a line in docs/dependencies.md for each
// direct dependency, and no line without one.
func TestEveryDependencyIsExplained(t *testing.T) {
	text, err := os.ReadFile("../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, r := range readMod(t, "../go.mod").Require {
		if r.Indirect {
			continue
		}
		direct[r.Mod.Path] = true
		if !strings.Contains(string(text), "`"+r.Mod.Path+"`") {
			t.Errorf("docs/dependencies.md says nothing of %s", r.Mod.Path)
		}
	}
	for line := range strings.Lines(string(text)) {
		name, row := strings.CutPrefix(line, "| `")
		if name, _, _ = strings.Cut(name, "`"); row && !direct[name] {
			t.Errorf("docs/dependencies.md explains %s, which is no direct dependency", name)
		}
	}
}

// TestEveryPromiseIsExplained demands that docs/promises.md names each test of a
// promise, and no test that there is not.
func TestEveryPromiseIsExplained(t *testing.T) {
	text, err := os.ReadFile("../docs/promises.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", "..", "grep", "-ohE", "^func TestPromise[A-Za-z0-9]+", "--", "*_test.go").Output()
	if err != nil {
		t.Skipf("the tree is no git repository here: %v", err)
	}
	there := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		name := strings.TrimPrefix(strings.TrimSpace(line), "func ")
		there[name] = true
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/promises.md says nothing of %s", name)
		}
	}
	for _, name := range regexp.MustCompile("`(TestPromise[^`]+)`").FindAllStringSubmatch(string(text), -1) {
		if !there[name[1]] {
			t.Errorf("docs/promises.md names %s, which is no test", name[1])
		}
	}
}

// TestSQLiteHasItsOwnLibc demands the version of modernc.org/libc that
// modernc.org/sqlite was translated with: others may corrupt what it reads.
func TestSQLiteHasItsOwnLibc(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "modernc.org/sqlite").Output()
	if err != nil {
		t.Fatal(err)
	}
	version := func(path string) string {
		for _, r := range readMod(t, path).Require {
			if r.Mod.Path == "modernc.org/libc" {
				return r.Mod.Version
			}
		}
		t.Fatalf("%s does not require modernc.org/libc", path)
		return ""
	}
	if ours, theirs := version("../go.mod"), version(filepath.Join(strings.TrimSpace(string(out)), "go.mod")); ours != theirs {
		t.Errorf("modernc.org/libc is %s, modernc.org/sqlite was made with %s", ours, theirs)
	}
}
