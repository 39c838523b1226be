package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/appliance/audit"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"chancery": main}) }

// TestScripts runs testdata/*.txtar against the command as it is shipped. In
// each script GOLDEN holds the golden credentials and certificates, LOG a copy
// of an audit log, and CHANCERY_ADMIN_URL leads to an admin API.
func TestScripts(t *testing.T) {
	golden, err := filepath.Abs(filepath.Join("..", "..", "verifier", "testdata", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewTLSServer(adminAPI{t})
	t.Cleanup(api.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("there is no condition %q", name)
		},
		Setup: func(e *testscript.Env) error {
			if err := writeGolden(golden, e.WorkDir); err != nil {
				return err
			}
			if err := writeAuthority(e.WorkDir); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), ca, 0o600); err != nil {
				return err
			}
			vkey, err := writeLog(filepath.Join(e.WorkDir, "signer.db"))
			if err != nil {
				return err
			}
			for name, value := range map[string]string{"GOLDEN": golden, "EXAMPLES": examples, "VKEY": vkey, "CHANCERY_ADMIN_URL": api.URL,
				"CHANCERY_ADMIN_TOKEN": "operator-1", "CHANCERY_CA_FILE": filepath.Join(e.WorkDir, "ca.pem")} {
				e.Setenv(name, value)
			}
			return nil
		},
	})
}

// writeGolden writes each golden credential to a file of its own, and a
// revocation list as DER.
func writeGolden(golden, dir string) error {
	text, err := os.ReadFile(filepath.Join(golden, "crl-empty.hex"))
	if err != nil {
		return err
	}
	der, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "crl.der"), der, 0o600); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(golden, "credentials.json"))
	if err != nil {
		return err
	}
	var file struct {
		Credentials []struct{ Name, Credential string }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	for _, c := range file.Credentials {
		if err := os.WriteFile(filepath.Join(dir, c.Name+".mdoc"), []byte(c.Credential), 0o600); err != nil {
			return err
		}
		raw, err := base64.RawURLEncoding.DecodeString(c.Credential)
		if err != nil {
			return err
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(filepath.Join(dir, c.Name+".flipped"), raw, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeLog makes an audit log with a few entries and a checkpoint.
func writeLog(path string) (vkey string, err error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "test.example/log")
	if err != nil {
		return "", err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return "", err
	}
	if err := audit.Create(path, "test.example/log", time.Now()); err != nil {
		return "", err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return "", err
	}
	log, err := audit.Open(path, func(int64, []byte) error { return nil }, func() note.Verifier { return verifier })
	if err != nil {
		return "", err
	}
	for i := range 5 {
		if err := appendEntry(log, audit.Entry{Kind: "offer.created", Actor: "operator", Credential: fmt.Sprintf("credential-%d", i)}); err != nil {
			return "", err
		}
	}
	if err := appendTwice(log, "credential-twice"); err != nil {
		return "", err
	}
	if _, err := log.Checkpoint(context.Background(), signer); err != nil {
		return "", err
	}
	return vkey, log.Close()
}

func appendEntry(log *audit.Log, e audit.Entry) error {
	_, err := appendIndexed(log, e)
	return err
}

func appendIndexed(log *audit.Log, e audit.Entry) (int64, error) {
	e.Time = audit.Stamp(time.Now())
	leaf, err := e.Marshal()
	if err != nil {
		return 0, err
	}
	return log.Append(context.Background(), leaf)
}

// appendTwice records two signatures of one credential: the wallet had lost the first.
func appendTwice(log *audit.Log, credential string) error {
	for _, hash := range []string{"11", "22"} {
		e := audit.Entry{Kind: audit.KindIntent, Actor: "appliance", Key: "ds-1", Credential: credential, Hash: strings.Repeat(hash, 32)}
		intent, err := appendIndexed(log, e)
		if err != nil {
			return err
		}
		e.Kind, e.Actor, e.Intent = audit.KindMade, "signer", &intent
		if err := appendEntry(log, e); err != nil {
			return err
		}
	}
	return nil
}
