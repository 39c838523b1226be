package encryption

import (
	"bufio"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// judge is the npm library jose in a process of its own.
type judge struct {
	in  io.Writer
	out *bufio.Reader
}

// newJudge starts it, from the packages that scripts/judges installs.
func newJudge(t *testing.T) *judge {
	t.Helper()
	if out, err := exec.Command("../../../scripts/judges/run", "--install").CombinedOutput(); err != nil {
		t.Skipf("the judges cannot be installed here: %v\n%s", err, out)
	}
	script, err := os.ReadFile("testdata/judge.mjs")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", string(script))
	command.Dir = filepath.Join(cmp.Or(os.Getenv("XDG_CACHE_HOME"), filepath.Join(home, ".cache")), "chancery", "judges")
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends then
		_ = command.Wait()
	})
	return &judge{in, bufio.NewReader(out)}
}

// verdict is a judge's answer.
type verdict struct {
	Compact   string         `json:"compact"`
	Plaintext string         `json:"plaintext"`
	Header    map[string]any `json:"header"`
	Error     string         `json:"error"`
}

func (j *judge) ask(t *testing.T, name string, task map[string]any) verdict {
	t.Helper()
	data, err := json.Marshal(map[string]any{name: task})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.in.Write(append(data, '\n')); err != nil {
		t.Fatal(err)
	}
	line, err := j.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var v verdict
	if err := json.Unmarshal(line, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRow261JudgeEncrypts: another library encrypts to each published key with
// each content encryption, plain and compressed, and the request is read.
func TestRow261JudgeEncrypts(t *testing.T) {
	j := newJudge(t)
	e := opened(t, all(), &memory{})
	text := `{"credential_configuration_id":"` + strings.Repeat("x", 5000) + `"}`
	for _, jwk := range published(t, e) {
		for _, enc := range contentAlgorithms {
			for _, zips := range []bool{false, true} {
				header := map[string]any{"alg": jwk["alg"], "enc": enc, "kid": jwk["kid"]}
				if zips {
					header["zip"] = "DEF"
				}
				v := j.ask(t, "encrypt", map[string]any{"jwk": jwk, "header": header, "plaintext": text})
				got, err := e.Decrypt([]byte(v.Compact))
				if v.Error != "" || err != nil || string(got) != text {
					t.Errorf("%v: %s: %d bytes, %v", header, v.Error, len(got), err)
				}
			}
		}
	}
}

// TestRow265JudgeDecrypts: another library reads every kind of answer.
func TestRow265JudgeDecrypts(t *testing.T) {
	j := newJudge(t)
	e := opened(t, all(), &memory{})
	text := `{"credentials":[{"credential":"` + strings.Repeat("y", 5000) + `"}]}`
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		for _, alg := range keyAlgorithms {
			for n, enc := range contentAlgorithms {
				private, err := ecdsa.GenerateKey(curve, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				jwk := jose.JSONWebKey{Key: private, KeyID: "wallet", Algorithm: string(alg)}
				asked := map[string]any{"jwk": jwk.Public(), "enc": enc}
				if n%2 == 1 {
					asked["zip"] = "DEF"
				}
				r, err := e.ParseResponse(asObject(t, asked))
				if err != nil {
					t.Fatal(err)
				}
				compact, err := r.Encrypt([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				v := j.ask(t, "decrypt", map[string]any{"jwk": jwk, "compact": compact})
				if v.Error != "" || v.Plaintext != text || v.Header["kid"] != "wallet" || v.Header["alg"] != string(alg) || v.Header["enc"] != string(enc) {
					t.Errorf("%s %s %s: %s %v", curve.Params().Name, alg, enc, v.Error, v.Header)
				}
			}
		}
	}
}
