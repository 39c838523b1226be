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
	"strconv"
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

// manual renders the structs as Markdown.
func manual(t *testing.T) string {
	t.Helper()
	m := readManual(t, "config.go")
	m.WriteString("# chancery.toml\n\nOne file configures both daemons and the command-line tool. An unknown key is an error, and so is a\nvalue out of range. Relative paths start at the file's folder. A complete file stands in\n`examples/chancery.toml`. What a credential is, is said in files of its own: see [Credential configurations](#credential-configurations).\nThis page is made from the comments in `config/config.go` and `issuance/configuration`.\n")
	section := func(title, name string) { m.section("## "+title, name) }
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
	m.WriteString("\n## Outside a section\n\n* `log`: " + m.comment("Config", "Log") + "\n")
	return m.String() + credentials(t)
}

// credentials renders what a credential configuration's file holds.
func credentials(t *testing.T) string {
	t.Helper()
	m := readManual(t, filepath.Join("..", "issuance", "configuration", "configuration.go"))
	m.WriteString("\n# Credential configurations\n\nOne TOML file for each kind of credential, in the folder that `issuer.configurations` names; `examples/configurations` has some to\nbegin with. An unknown key is an error. chanceryd reads them at its start; `chanceryd check` says what is wrong with them.\n")
	m.section("## The file", "File")
	m.section("## [[display]]", "Display")
	m.section("## [key_attestation]", "KeyAttestation")
	m.section("## [[claims]]", "Claim")
	types := readManual(t, filepath.Join("..", "issuance", "configuration", "types.go"))
	m.WriteString("\n## Types of claims\n\n" + types.docs["Type"] + "\n")
	for _, c := range types.constants {
		_, what, _ := strings.Cut(c[1], " is ") // after the constant's name
		fmt.Fprintf(&m, "* `%s`: %s\n", c[0], what)
	}
	return m.String()
}

// page is a Go file's comments, and what is made of them.
type page struct {
	strings.Builder
	structs map[string]*ast.StructType
	// docs are the types' comments, constants the string constants' values with theirs.
	docs      map[string]string
	constants [][2]string
}

func readManual(t *testing.T, path string) (m page) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	m.structs, m.docs = map[string]*ast.StructType{}, map[string]string{}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				m.docs[s.Name.Name] = oneLine(gen.Doc.Text())
				if st, ok := s.Type.(*ast.StructType); ok {
					m.structs[s.Name.Name] = st
				}
			case *ast.ValueSpec:
				if value, ok := constant(s); ok {
					m.constants = append(m.constants, [2]string{value, oneLine(s.Doc.Text())})
				}
			}
		}
	}
	return m
}

// constant returns the value of a string constant that has a comment.
func constant(s *ast.ValueSpec) (string, bool) {
	if s.Doc == nil || len(s.Values) != 1 {
		return "", false
	}
	literal, ok := s.Values[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	value, err := strconv.Unquote(literal.Value)
	return value, err == nil
}

// section renders a struct: its comment, and each key with the comment that is
// above it or above the keys before it.
func (m *page) section(title, name string) {
	fmt.Fprintf(m, "\n%s\n\n%s\n", title, m.docs[name])
	comment := ""
	for _, field := range m.structs[name].Fields.List {
		if field.Tag == nil {
			break // what follows is not the file's
		}
		tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("toml")
		if tag == "-" {
			continue
		}
		if name := typeName(field.Type); m.structs[name] != nil && m.docs[name] != "" && field.Doc.Text() == "" {
			continue // a section of its own
		}
		if field.Doc.Text() != "" {
			comment = oneLine(field.Doc.Text())
		}
		fmt.Fprintf(m, "* `%s`: %s\n", tag, comment)
	}
}

// comment returns the comment of a struct's field.
func (m *page) comment(name, field string) string {
	for _, f := range m.structs[name].Fields.List {
		if f.Names[0].Name == field {
			return oneLine(f.Doc.Text())
		}
	}
	return ""
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
