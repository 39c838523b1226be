package promises

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The budgets of CONTRIBUTING.md.
const (
	functionP95, functionMax = 60, 120
	fileP95, fileMax         = 450, 700
)

// tested are the folders that have at least as many lines of tests as of code,
// each with everything below it.
var tested = []string{"hsm", "issuance", "appliance/signer", "appliance/audit"}

// tree is what the project's Go files measure.
type tree struct {
	files, functions []measure
	documented       map[string]bool // by folder
	bare             []string        // exported names without a comment
	code, tests      map[string]int  // lines by folder
}

type measure struct {
	at    string
	lines int
}

// TestHowTheCodeReads holds the tree against the budgets for length, comments
// and tests.
func TestHowTheCodeReads(t *testing.T) {
	tr := readTree(t, "..")
	within(t, "files", tr.files, fileP95, fileMax)
	within(t, "functions", tr.functions, functionP95, functionMax)
	for _, name := range tr.bare {
		t.Errorf("%s is exported and has no comment", name)
	}
	for dir := range tr.code {
		if !tr.documented[dir] {
			t.Errorf("package %s has no comment", dir)
		}
	}
	for _, top := range tested {
		code, tests := 0, 0
		for dir, n := range tr.code {
			if dir == top || strings.HasPrefix(dir, top+"/") {
				code += n
			}
		}
		for dir, n := range tr.tests {
			if dir == top || strings.HasPrefix(dir, top+"/") {
				tests += n
			}
		}
		if tests < code {
			t.Errorf("%s has %d lines of tests for %d lines of code", top, tests, code)
		}
	}
}

// within holds measurements against their budget.
func within(t *testing.T, what string, all []measure, p95, longest int) {
	t.Helper()
	slices.SortFunc(all, func(a, b measure) int { return a.lines - b.lines })
	if len(all) == 0 {
		t.Fatalf("no %s were found", what)
	}
	if m := all[len(all)*95/100]; m.lines > p95 {
		t.Errorf("%s: the 95th percentile is %d lines, the budget %d (%s)", what, m.lines, p95, m.at)
	}
	for _, m := range all {
		if m.lines > longest {
			t.Errorf("%s has %d lines, the budget is %d", m.at, m.lines, longest)
		}
	}
}

func readTree(t *testing.T, root string) *tree {
	t.Helper()
	tr := &tree{documented: map[string]bool{}, code: map[string]int{}, tests: map[string]int{}}
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		tr.add(set, filepath.ToSlash(name), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// add measures one file.
func (tr *tree) add(set *token.FileSet, name string, f *ast.File) {
	lines, dir := set.File(f.Pos()).LineCount(), filepath.ToSlash(filepath.Dir(name))
	if strings.HasSuffix(name, "_test.go") {
		tr.tests[dir] += lines
		if lines > fileMax {
			tr.files = append(tr.files, measure{name, lines})
		}
		return
	}
	tr.code[dir] += lines
	tr.files = append(tr.files, measure{name, lines})
	tr.documented[dir] = tr.documented[dir] || f.Doc != nil
	for _, d := range f.Decls {
		at := func(n ast.Node, id string) string {
			return fmt.Sprintf("%s:%d %s", name, set.Position(n.Pos()).Line, id)
		}
		switch d := d.(type) {
		case *ast.FuncDecl:
			tr.functions = append(tr.functions, measure{at(d, d.Name.Name), set.Position(d.End()).Line - set.Position(d.Pos()).Line + 1})
			if d.Name.IsExported() && d.Doc == nil && onExported(d) {
				tr.bare = append(tr.bare, at(d, d.Name.Name))
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					tr.bare = append(tr.bare, at(s, s.Name.Name))
				}
			}
		}
	}
}

// onExported tells whether a function is none of an unexported type's methods.
func onExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	kind := d.Recv.List[0].Type
	if p, ok := kind.(*ast.StarExpr); ok {
		kind = p.X
	}
	if g, ok := kind.(*ast.IndexExpr); ok {
		kind = g.X
	}
	id, ok := kind.(*ast.Ident)
	return !ok || id.IsExported()
}
