package trust

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// A JWK Set or one JWK; private keys, other kinds and other files are refused
// with the file's name and what belongs there.
func TestLoadKeys(t *testing.T) {
	one, two := issuancetest.Key(t, issuance.ES256), issuancetest.Key(t, issuance.EdDSA)
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	jwk := trusttest.With(trusttest.JWK(t, one.Public()), "kid", "1")
	keys, err := LoadKeys(write(t, encode(map[string]any{"keys": []any{jwk, trusttest.JWK(t, two.Public())}})))
	if err != nil || len(keys) != 2 || keys[0].KeyID != "1" || keys[1].KeyID != "" {
		t.Fatalf("%+v, %v", keys, err)
	}
	if single, err := LoadKeys(write(t, encode(jwk))); err != nil || len(single) != 1 || !(&Provider{Keys: single}).has(one.Public()) || (&Provider{Keys: single}).has(two.Public()) {
		t.Errorf("%+v, %v", single, err)
	}
	for want, content := range map[string][]byte{
		"must be a JWK Set":             []byte("-----BEGIN"),
		"keys is not an array with at ": encode(map[string]any{"keys": []any{}}),
		"keys is not an array":          encode(map[string]any{"keys": "x"}),
		"key 0: ":                       encode(map[string]any{"keys": []any{trusttest.With(jwk, "d", "AAAA")}}),
		"without their private members": encode(trusttest.With(jwk, "d", "AAAA")),
		"key 1: ":                       encode(map[string]any{"keys": []any{jwk, map[string]any{"kty": "oct", "k": "AAAA"}}}),
		"more than 1048576 bytes":       bytes.Repeat([]byte(" "), maxFile+1),
	} {
		path := write(t, content)
		if _, err := LoadKeys(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := LoadKeys(filepath.Join(t.TempDir(), "absent")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestLoadAnchors(t *testing.T) {
	one, two := trusttest.Root(t, "One"), trusttest.Root(t, "Two")
	both := slices.Concat(block("CERTIFICATE", one.Raw), block("CERTIFICATE", two.Raw))
	anchors, err := LoadAnchors(write(t, slices.Concat([]byte("a remark\n"), both)))
	if err != nil || len(anchors) != 2 || !anchors[0].Equal(one.Certificate) || !anchors[1].Equal(two.Certificate) {
		t.Fatalf("%d, %v", len(anchors), err)
	}
	for want, content := range map[string][]byte{
		"no PEM certificate":                  []byte("{}"),
		"or something else after it":          slices.Concat(both, []byte("rest")),
		`a PEM block is a "PRIVATE KEY"`:      slices.Concat(both, block("PRIVATE KEY", []byte{1})),
		"certificate 0: x509":                 block("CERTIFICATE", []byte{1}),
		"it is no file of keys or certificat": bytes.Repeat([]byte(" "), maxFile+1),
	} {
		path := write(t, content)
		if _, err := LoadAnchors(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := LoadAnchors(filepath.Join(t.TempDir(), "absent")); !os.IsNotExist(err) {
		t.Error(err)
	}
}
