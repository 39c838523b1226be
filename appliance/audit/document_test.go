package audit

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const document = "../../docs/audit-log.md"

// TestTheDocumentNamesEveryKind looks for each kind that the code writes, the
// signer's own and those of chanceryd's events, in the documentation.
func TestTheDocumentNamesEveryKind(t *testing.T) {
	text := string(read(t, document))
	literal := regexp.MustCompile(`"((?:log|signer|signature|key|crl|ceremony|token|appliance|offer|credential|configuration|operator|database|metadata|status|wallet|notification|deferred|encryption_key)\.[a-z_]+)"`)
	found := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, line := range strings.Split(string(data), "\n") {
			if !strings.Contains(line, "Kind") && !strings.Contains(line, "kind") {
				continue
			}
			for _, match := range literal.FindAllStringSubmatch(line, -1) {
				found[match[1]] = path
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 25 {
		t.Errorf("only %d kinds were found in the code", len(found))
	}
	for kind, path := range found {
		if !strings.Contains(text, "`"+kind+"`") {
			t.Errorf("%s writes %s, of which %s says nothing", path, kind, document)
		}
	}
}

// TestTheDocumentsEntriesAreEntries reads the examples.
func TestTheDocumentsEntriesAreEntries(t *testing.T) {
	examples := 0
	for line := range strings.Lines(string(read(t, document))) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, `{"`) {
			continue
		}
		examples++
		if _, err := ParseEntry([]byte(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if examples == 0 {
		t.Error("there are no examples")
	}
}
