package cli

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"chancery/issuance/iaca"
)

// The request on standard input is for every certificate of a file.
func TestLintRequestFromStandardInput(t *testing.T) {
	_, signers := crossPKI(t, elliptic.P256(), time.Now())
	signer := signers[iaca.CredentialSigner]
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signer.leaf})
	file := filepath.Join(t.TempDir(), "two.pem")
	if err := os.WriteFile(file, bytes.Repeat(block, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	Run(context.Background(), []string{"lint", "cert", "--json", "--profile", string(iaca.CredentialSigner), "--csr", "-", file},
		Environment{Stdin: bytes.NewReader(request), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Version: "test"})
	var all []linted
	if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 2 {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	if !reflect.DeepEqual(all[0], all[1]) {
		t.Errorf("one certificate twice: %+v, then %+v", all[0].Findings, all[1].Findings)
	}
}

// An error names the flag that the file was given with.
func TestLintNamesTheFlag(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]string{{"crl", "--previous"}, {"crl", "--issuer"}, {"cert", "--successor"}} {
		if status, _, errs := run(t, nil, "lint", line[0], file, line[1], file); status != 1 || !strings.Contains(errs, line[1]+": "+file+" is no ") {
			t.Errorf("%q: %d %s", line, status, errs)
		}
	}
	if status, _, errs := run(t, nil, "lint", "cert", file, "--csr", file+"-"); status != 1 || !strings.Contains(errs, "--csr: "+file+"-") {
		t.Errorf("--csr: %d %s", status, errs)
	}
}
