package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
	"rsc.io/qr"
)

// run runs a command line and returns status, standard output and standard error.
func run(t *testing.T, env map[string]string, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	status := Run(context.Background(), args, Environment{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(name string) string { return env[name] }, Version: "test"})
	return status, out.String(), errs.String()
}

// Every command has a help text that fits a terminal, and its name leads to it.
func TestEveryCommandExplainsItself(t *testing.T) {
	for _, c := range commands() {
		status, out, errs := run(t, nil, append([]string{"help"}, strings.Fields(c.name)...)...)
		if status != 0 || errs != "" || !strings.HasPrefix(out, "Usage: chancery "+c.name) {
			t.Errorf("help %s: %d %s%s", c.name, status, out, errs)
		}
		for line := range strings.Lines(out) {
			if utf8.RuneCountInString(line) > 101 {
				t.Errorf("%s: a line of %d columns: %s", c.name, utf8.RuneCountInString(line), line)
			}
		}
		if strings.HasSuffix(c.summary, ".") || c.summary == "" {
			t.Errorf("%s: summary %q", c.name, c.summary)
		}
	}
}

func TestFlagsAnywhere(t *testing.T) {
	for _, args := range [][]string{
		{"verify", "--offline", "--brief", "nowhere"}, {"verify", "nowhere", "--offline", "--brief"}, {"verify", "--offline", "--", "nowhere"},
	} {
		status, _, errs := run(t, nil, args...)
		if status != 1 || !strings.Contains(errs, "nowhere: no such file") {
			t.Errorf("%q: %d %s", args, status, errs)
		}
	}
	if status, _, errs := run(t, nil, "verify", "--", "--offline"); status != 1 || !strings.Contains(errs, "--offline: no such file") {
		t.Errorf("after --: %d %s", status, errs)
	}
}

// No line of filled text is longer than asked, and no letter is lost.
func TestFill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-zäß ]{0,200}`).Draw(t, "text")
		indent := strings.Repeat(" ", rapid.IntRange(0, 30).Draw(t, "indent"))
		filled := fill(text, indent, 60)
		for line := range strings.SplitSeq(filled, "\n") {
			if utf8.RuneCountInString(line) > 60 || !strings.HasPrefix(line, indent) {
				t.Fatalf("line %q", line)
			}
		}
		if strings.Join(strings.Fields(filled), "") != strings.Join(strings.Fields(text), "") {
			t.Fatalf("%q became %q", text, filled)
		}
	})
}

// The drawn code, read back block by block, is the code that was encoded, with
// a quiet zone around.
func TestDrawQR(t *testing.T) {
	const text = "openid-credential-offer://?credential_offer_uri=https%3A%2F%2Fissuer.example%2Foffers%2F0123456789abcdef"
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	for _, invert := range []bool{false, true} {
		drawn, err := drawQR(text, invert)
		if err != nil {
			t.Fatal(err)
		}
		picture := read(drawn)
		for y := -4; y < code.Size+4; y++ {
			for x := -4; x < code.Size+4; x++ {
				if light := picture.GrayAt(x+4, y+4).Y > 0; light == (code.Black(x, y) != invert) {
					t.Fatalf("module %d,%d is wrong (invert %v)", x, y, invert)
				}
			}
		}
		for line := range strings.Lines(drawn) {
			if utf8.RuneCountInString(line) > 100 {
				t.Errorf("%d columns", utf8.RuneCountInString(line))
			}
		}
	}
	if _, err := drawQR(strings.Repeat("x", 5000), false); err == nil {
		t.Error("5000 characters fit into a QR code")
	}
}

// read turns half blocks back into pixels.
func read(drawn string) *image.Gray {
	lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
	picture := image.NewGray(image.Rect(0, 0, utf8.RuneCountInString(lines[0]), 2*len(lines)))
	for y, line := range lines {
		for x, r := range []rune(line) {
			if r == '█' || r == '▀' {
				picture.SetGray(x, 2*y, color.Gray{Y: 255})
			}
			if r == '█' || r == '▄' {
				picture.SetGray(x, 2*y+1, color.Gray{Y: 255})
			}
		}
	}
	return picture
}

func TestSafeName(t *testing.T) {
	for id, want := range map[string]string{
		"org.iso.18013.5.1.mDL": "org.iso.18013.5.1.mDL", "../../etc/passwd": "_.._etc_passwd", "": "credential", "...": "credential",
		"a b/ä": "a_b__", strings.Repeat("x", 200): "credential",
	} {
		if got := safeName(id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

func TestWriteNewNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := writeNew(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(path, []byte("two")); err == nil {
		t.Error("overwritten")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "one" {
		t.Errorf("%s, %v", data, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestAPIError(t *testing.T) {
	err := apiError(400, []byte(`{"code":"invalid","message":"bad\u001b[2J","details":[{"param":"claims.x","msg":"is missing"}]}`))
	if got := err.Error(); got != "the admin API refuses (400 invalid): bad\uFFFD[2J\n  claims.x: is missing" {
		t.Errorf("%q", got)
	}
	if got := apiError(502, []byte("<html>")).Error(); got != "the admin API answers 502 Bad Gateway" {
		t.Errorf("%q", got)
	}
}

func TestValueText(t *testing.T) {
	for want, value := range map[string]any{
		"a, 2": []any{"a", json.Number("2")}, "x 1, y yes": map[string]any{"y": true, "x": json.Number("1")}, "no": false, "\uFFFD": "\a",
	} {
		if got := valueText(value); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := title("expiresAt"); got != "Expires at" {
		t.Errorf("%q", got)
	}
}

func TestBlocks(t *testing.T) {
	for name, data := range map[string]string{"other PEM": "-----BEGIN X-----\nAA==\n-----END X-----\n", "cut PEM": "-----BEGIN CERTIFICATE-----\nAA"} {
		if _, err := blocks([]byte(data), "CERTIFICATE"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if ders, err := blocks([]byte{0x30, 0x00}, "CERTIFICATE"); err != nil || len(ders) != 1 {
		t.Errorf("DER: %v %v", ders, err)
	}
}
