package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md from the structs' comments")

// TestManual holds docs/configuration.md to the structs' comments: the comments
// are the manual, the page shows them.
func TestManual(t *testing.T) {
	want := manual(t)
	path := filepath.Join("..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the comments say: run go test ./config -update", path)
	}
}

// manual renders the structs of config.go as Markdown.
func manual(t *testing.T) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]*ast.StructType{}
	docs := map[string]string{}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			if ts, ok := spec.(*ast.TypeSpec); ok {
				if st, ok := ts.Type.(*ast.StructType); ok {
					structs[ts.Name.Name], docs[ts.Name.Name] = st, gen.Doc.Text()
				}
			}
		}
	}
	var b strings.Builder
	b.WriteString("# chancery.toml\n\nOne file configures both daemons and the command-line tool. An unknown key is an error, and so is a\nvalue out of range. Relative paths start at the file's folder. A complete file stands in\n`examples/chancery.toml`. This page is made from the comments in `config/config.go`.\n")
	section := func(title, name string) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", title, oneLine(docs[name]))
		comment := ""
		for _, field := range structs[name].Fields.List {
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("toml")
			if tag == "-" {
				continue
			}
			if name := typeName(field.Type); structs[name] != nil && docs[name] != "" && field.Doc.Text() == "" {
				continue // a section of its own
			}
			if field.Doc.Text() != "" {
				comment = oneLine(field.Doc.Text())
			}
			fmt.Fprintf(&b, "* `%s`: %s\n", tag, comment)
		}
	}
	section("[issuer]", "Issuer")
	section("[[issuer.display]]", "Display")
	section("[issuer.dpop]", "DPoP")
	section("[[issuer.clients]]", "Client")
	section("[issuer.wallet_attestation]", "WalletAttestation")
	section("[issuer.key_attestation]", "KeyAttestation")
	section("[[issuer.wallet_attestation.providers]], [[issuer.key_attestation.providers]]", "Attester")
	section("[issuer.encryption]", "Encryption")
	section("[issuer.refresh]", "Refresh")
	section("[issuer.http]", "HTTP")
	section("[admin]", "Admin")
	section("[store]", "Store")
	section("[offers]", "Offers")
	section("[signer]", "Signer")
	b.WriteString("\n## Outside a section\n\n* `log` " + oneLine("\"debug\", \"info\" (default), \"warn\" or \"error\": how chatty the daemons' JSON log is.") + "\n")
	return b.String()
}

// typeName returns the name of a struct type, or of a slice's elements.
func typeName(e ast.Expr) string {
	if list, ok := e.(*ast.ArrayType); ok {
		e = list.Elt
	}
	if name, ok := e.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
