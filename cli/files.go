package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"chancery/verifier"
)

// httpTimeout bounds one request.
const httpTimeout = 30 * time.Second

// readFile reads a file, or standard input for "-"; flag names it in errors.
func (s *session) readFile(path, what string) ([]byte, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(s.Stdin, 64<<20))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, plainPathError(path, err))
	}
	return data, nil
}

// plainPathError says path and cause without the system call's name.
func plainPathError(path string, err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return fmt.Errorf("%s: %w", path, e.Err)
	}
	return err
}

// blocks returns a file's DER blocks of a kind: PEM, or DER itself.
func blocks(data []byte, kind string) ([][]byte, error) {
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		return [][]byte{data}, nil
	}
	var ders [][]byte
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type == kind {
			ders = append(ders, block.Bytes)
		}
	}
	if len(ders) == 0 {
		return nil, fmt.Errorf("there is no %q in it", "BEGIN "+kind)
	}
	return ders, nil
}

// certificates reads the certificates of files, PEM or DER; flag names them in errors.
func (s *session) certificates(paths []string, flag string) ([]*x509.Certificate, error) {
	return load(s, paths, flag, "CERTIFICATE", "certificate", x509.ParseCertificate)
}

// revocationLists reads the revocation lists of files, PEM or DER; flag names them in errors.
func (s *session) revocationLists(paths []string, flag string) ([]*x509.RevocationList, error) {
	return load(s, paths, flag, "X509 CRL", "revocation list", x509.ParseRevocationList)
}

// load parses all blocks of a kind in files, PEM or DER.
func load[T any](s *session, paths []string, flag, kind, noun string, parse func([]byte) (T, error)) ([]T, error) {
	var all []T
	for _, path := range paths {
		data, err := s.readFile(path, flag)
		if err != nil {
			return nil, err
		}
		ders, err := blocks(data, kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", flag, path, err)
		}
		for _, der := range ders {
			item, err := parse(der)
			if err != nil {
				return nil, fmt.Errorf("%s: %s is no %s: %w", flag, path, noun, err)
			}
			all = append(all, item)
		}
	}
	return all, nil
}

func (s *session) publicKeys(paths []string) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for _, path := range paths {
		data, err := s.readFile(path, "--issuer-key")
		if err != nil {
			return nil, err
		}
		key, err := verifier.ParseJWK(data)
		if err != nil {
			return nil, fmt.Errorf("--issuer-key: %s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// client returns an HTTP client that trusts the CAs in the file --ca names, or
// CHANCERY_CA_FILE or TLS_CA_FILE, besides which none; without a file the
// system's.
func (s *session) client(caFile string) (*http.Client, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		caFile = s.firstEnv("CHANCERY_CA_FILE", "TLS_CA_FILE")
	}
	if caFile != "" {
		data, err := s.readFile(caFile, "--ca")
		if err != nil {
			return nil, err
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--ca: %s holds no PEM certificate", caFile)
		}
	}
	return &http.Client{Timeout: httpTimeout, Transport: &http.Transport{TLSClientConfig: settings, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}}, nil
}

func (s *session) firstEnv(names ...string) string {
	for _, name := range names {
		if value := s.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// fetcher returns what the verifier fetches CRLs and DID documents with.
func fetcher(client *http.Client) func(context.Context, string) ([]byte, error) {
	const limit = 8 << 20
	return func(ctx context.Context, url string) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answers %s", url, response.Status)
		}
		data, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
		if err == nil && len(data) > limit {
			err = fmt.Errorf("%s answers more than %d MiB", url, limit>>20)
		}
		return data, err
	}
}
