package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// writePair writes a self-signed certificate and its key.
func writePair(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serves waits until the certificate of that name is handed out.
func (c *certificate) serves(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		if pair.Leaf.Subject.CommonName == name {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is served, not %s", pair.Leaf.Subject.CommonName, name)
		}
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := loadCertificate("wallet", certFile, keyFile); err == nil {
		t.Fatal("a certificate that is not there was loaded")
	}
	writePair(t, dir, "first")
	c, err := loadCertificate("wallet", certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	c.serves(t, "first")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.watch(ctx, slog.New(slog.DiscardHandler)) }()
	defer func() { stop(); <-done }()

	t.Run("when the files change", func(t *testing.T) {
		writePair(t, dir, "second")
		c.serves(t, "second")
	})
	t.Run("on SIGHUP", func(t *testing.T) {
		writePair(t, dir, "third")
		// The same modification time: nothing but the signal tells.
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		c.serves(t, "third")
	})
	t.Run("files that do not fit together change nothing", func(t *testing.T) {
		sound, err := os.ReadFile(keyFile)
		if err != nil {
			t.Fatal(err)
		}
		other := t.TempDir()
		writePair(t, other, "other")
		stranger, err := os.ReadFile(filepath.Join(other, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(keyFile, stranger, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.load(); err == nil {
			t.Error("a key that is not the certificate's was taken")
		}
		c.serves(t, "third")
		if err := os.WriteFile(keyFile, sound, 0o600); err != nil {
			t.Fatal(err)
		}
	})
}
