package store

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// FuzzOpaque holds that an opaque string is read in one form only, and that what
// is read is what was written.
func FuzzOpaque(f *testing.F) {
	var all secret
	for i := range all {
		all[i] = 0xff
	}
	f.Add(opaque(0, secret{}))
	f.Add(opaque(1, all))
	f.Add(opaque(1<<48-1, secret{1, 2, 3}))
	f.Add("")
	f.Add(strings.Repeat("A", opaqueLength-1))
	f.Add(strings.Repeat("A", opaqueLength+1))
	f.Add(strings.Repeat("A", opaqueLength-4) + "AA==")
	f.Add(strings.Repeat("A", opaqueLength-2) + "\r\n")
	f.Add(strings.Repeat("+", opaqueLength))
	f.Add(strings.Repeat("ä", opaqueLength/2))
	f.Fuzz(func(t *testing.T, text string) {
		id, s, ok := parseOpaque(text)
		if !ok {
			if id != 0 || s != (secret{}) {
				t.Errorf("%q was refused and gave %d", text, id)
			}
			return
		}
		if id < 0 || id >= 1<<48 {
			t.Errorf("the id is %d", id)
		}
		if again := opaque(id, s); again != text {
			t.Errorf("%q is also %q", text, again)
		}
	})
}

// FuzzCursor holds the same for the lists' cursors.
func FuzzCursor(f *testing.F) {
	f.Add(formatCursor(0))
	f.Add(formatCursor(1<<48 - 1))
	f.Add("")
	f.Add("AAAAAAA")
	f.Add("AAAAAAA=")
	f.Add("AAAAAA\nAA")
	f.Add("////////")
	f.Fuzz(func(t *testing.T, cursor string) {
		id, err := parseCursor(cursor)
		switch {
		case err != nil && id != 0 || id < 0:
			t.Errorf("%q gave %d and %v", cursor, id, err)
		case err == nil && cursor != "" && formatCursor(id) != cursor:
			t.Errorf("%q is also %q", cursor, formatCursor(id))
		}
	})
}

// FuzzUUID holds the same for offers' identifiers.
func FuzzUUID(f *testing.F) {
	u, err := newUUID(4711)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(formatUUID(u[:]))
	f.Add(strings.ToUpper(formatUUID(u[:])))
	f.Add("00000000-0000-0000-0000-000000000000")
	f.Add("00000000-0000-0000-0000-00000000000g")
	f.Add("0000000000000000000000000000000000--")
	f.Add("{00000000-0000-0000-0000-0000000000}")
	f.Fuzz(func(t *testing.T, text string) {
		u, ok := parseUUID(text)
		if ok && formatUUID(u[:]) != text {
			t.Errorf("%q is also %q", text, formatUUID(u[:]))
		}
	})
}

// TestIdentifiers looks at the bits that their documents prescribe.
func TestIdentifiers(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []int64{0, 1, 4711, 1<<48 - 1} {
		for range 200 {
			u, err := newUUID(id)
			if err != nil {
				t.Fatal(err)
			}
			text := formatUUID(u[:])
			if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(text) || getID(u[:idSize]) != id || seen[text] {
				t.Fatalf("offer %d is %s", id, text)
			}
			seen[text] = true
			c, err := NewCredentialID()
			if err != nil || !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(c) || seen[c] {
				t.Fatalf("credential %s: %v", c, err)
			}
			seen[c] = true
		}
	}
	if formatUUID([]byte("short")) != "" {
		t.Error("what is no UUID was formatted")
	}
}

// TestSecretsDiffer holds that the code does not give the URI's secret away, and
// that no two secrets are alike.
func TestSecretsDiffer(t *testing.T) {
	f := open(t)
	seen := map[secret]bool{}
	for range 100 {
		c := f.create(0)
		id, uri, _ := parseOpaque(c.URISecret)
		sameID, code, _ := parseOpaque(c.Code)
		_, access, _ := parseOpaque(f.redeem(c))
		if id != sameID || codeOf(uri) != code || codeOf(code) == uri {
			t.Error("the code is not the URI's")
		}
		for _, s := range []secret{uri, code, access} {
			if seen[s] {
				t.Fatal("a secret came twice")
			}
			seen[s] = true
		}
	}
}

// chiSquare sums how far counts are from even.
func chiSquare(counts map[byte]int, values int) (sum float64) {
	total := 0
	for _, n := range counts {
		total += n
	}
	expected := float64(total) / float64(values)
	for _, n := range counts {
		sum += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	return sum + expected*float64(values-len(counts))
}

// TestTransactionCodesAreUnbiased draws a million characters of each alphabet.
// The bound is passed by chance once in ten thousand million runs, and the
// remainder of a byte by 10, the usual mistake, passes it by far.
func TestTransactionCodesAreUnbiased(t *testing.T) {
	const draws = 1_000_000
	for alphabet, bound := range map[string]float64{numericAlphabet: 68, textAlphabet: 115} {
		counts := map[byte]int{}
		for range draws / 50 {
			code, err := newTransactionCode(alphabet, 50)
			if err != nil || len(code) != 50 {
				t.Fatalf("%d characters, %v", len(code), err)
			}
			for i := range len(code) {
				counts[code[i]]++
			}
		}
		for c := range counts {
			if !strings.ContainsRune(alphabet, rune(c)) {
				t.Errorf("%q is not of the alphabet", c)
			}
		}
		if x := chiSquare(counts, len(alphabet)); x > bound {
			t.Errorf("chi-square of %d characters is %.1f, more than %.0f", len(alphabet), x, bound)
		}
	}
	raw := make([]byte, draws)
	rand.Read(raw)
	counts := map[byte]int{}
	for _, b := range raw {
		counts[numericAlphabet[b%10]]++
	}
	if x := chiSquare(counts, 10); x < 68 {
		t.Errorf("a biased draw has %.1f: the test is blind", x)
	}
}

// TestTransactionCodeShapes makes codes as offers ask for them.
func TestTransactionCodeShapes(t *testing.T) {
	f := open(t)
	for _, shape := range []TxCode{{"numeric", 4, ""}, {"numeric", 64, "Sent by letter"}, {"text", 8, ""}, {"text", 1, ""}} {
		c, err := f.CreateOffer(t.Context(), NewOffer{Configurations: []string{"pid"}, Claims: []byte("{}"), TxCode: &shape, ExpiresAt: f.clock.Now().Add(testExpiry), CreatedBy: "registrar"})
		if err != nil {
			t.Fatal(err)
		}
		class := map[string]string{"numeric": "[0-9]", "text": "[2-9A-HJ-NP-Z]"}[shape.InputMode]
		if len(c.TransactionCode) != shape.Length || !regexp.MustCompile("^"+class+"+$").MatchString(c.TransactionCode) {
			t.Errorf("%+v gives a code of another shape", shape)
		}
		if o := f.offer(c.ID); *o.TxCode != shape || o.AttemptsLeft != testAttempts || c.AttemptsLeft != testAttempts {
			t.Errorf("stored as %+v", o)
		}
		f.redeem(c)
	}
}

func TestSame(t *testing.T) {
	a := secret{1}.hash()
	for name, test := range map[string]struct {
		a, b []byte
		want bool
	}{
		"equal": {a, bytes.Clone(a), true}, "another": {a, secret{2}.hash(), false}, "nothing": {nil, a, false}, "a part": {a, a[:31], false},
		"last bit": {a, append(bytes.Clone(a[:31]), a[31]^1), false},
	} {
		if same(test.a, test.b) != test.want {
			t.Errorf("%s: %t", name, !test.want)
		}
	}
}

// TestConstantTime reads the package's code: nothing that is named like a secret
// or its hash is compared in any way but same.
func TestConstantTime(t *testing.T) {
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) < 10 {
		t.Fatal(names, err)
	}
	secretive := regexp.MustCompile(`(?i)(hash|mac|secret|token|code)$`)
	harmless := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.BasicLit:
			return true
		case *ast.Ident:
			return e.Name == "nil"
		}
		return false
	}
	name := func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			return e.Sel.Name
		case *ast.StarExpr:
			if s, ok := e.X.(*ast.SelectorExpr); ok {
				return s.Sel.Name
			}
		}
		return ""
	}
	calls := 0
	for _, path := range names {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if (n.Op == token.EQL || n.Op == token.NEQ) && !harmless(n.X) && !harmless(n.Y) && (secretive.MatchString(name(n.X)) || secretive.MatchString(name(n.Y))) {
					t.Errorf("%s: compared with %s", files.Position(n.Pos()), n.Op)
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "same" {
					calls++
				}
			case *ast.ImportSpec:
				if n.Path.Value == `"bytes"` || n.Path.Value == `"reflect"` {
					t.Errorf("%s: imported, and may compare", files.Position(n.Pos()))
				}
			}
			return true
		})
	}
	// Code at the URI and at the token endpoint, transaction code, access token before and after the body, operator; refresh token and the two keys
	// that it is bound to; notification_id; transaction_id at the deferred endpoint, and it and the keys when it is asked for again.
	if calls != 13 {
		t.Errorf("%d comparisons of secrets, want 13", calls)
	}
}

// TestNothingIsPadded holds what the sizes promise: no padding, no remainder.
func TestNothingIsPadded(t *testing.T) {
	if text := opaque(1<<48-1, secret{}); len(text) != opaqueLength || base64.RawURLEncoding.DecodedLen(len(text)) != opaqueSize || opaqueSize%3 != 0 {
		t.Errorf("%d characters for %d bytes", len(text), opaqueSize)
	}
	if keysInBlock*wrappedSize != 64*60 || (keysInBlock-1)*wrappedSize != 3780 || len(noKey) != 60 {
		t.Error("the sizes in the SQL are not those of the code")
	}
}
