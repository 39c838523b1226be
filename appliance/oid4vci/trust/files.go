package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"chancery/appliance/oid4vci/jwt"
	"chancery/issuance/jws"
)

// maxFile bounds a file of keys or certificates, in bytes.
const maxFile = 1 << 20

// LoadKeys reads a JWK Set of public keys, or one JWK (RFC 7517 §5).
func LoadKeys(path string) ([]Key, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	object, err := jws.Object(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: it must be a JWK Set", path, err)
	}
	list := []any{object}
	if set, has := object["keys"]; has {
		list, _ = set.([]any)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: keys is not an array with at least one JWK", path)
	}
	keys := make([]Key, len(list))
	for n, value := range list {
		public, err := jwt.PublicKey(value)
		if err != nil {
			return nil, fmt.Errorf("%s: key %d: %w: put EC (P-256, P-384, P-521) or Ed25519 keys for signatures there, without their private members", path, n, err)
		}
		members, _ := value.(map[string]any)
		kid, _ := members["kid"].(string)
		keys[n] = Key{kid, public}
	}
	return keys, nil
}

// LoadAnchors reads CA certificates in PEM, one or more. What [New] wants of
// them is not checked yet.
func LoadAnchors(path string) ([]*x509.Certificate, error) {
	rest, err := read(path)
	if err != nil {
		return nil, err
	}
	var anchors []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: a PEM block is a %q: only CERTIFICATE blocks belong there", path, block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(anchors), err)
		}
		anchors = append(anchors, certificate)
	}
	if len(anchors) == 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: no PEM certificate, or something else after it: only CERTIFICATE blocks belong there", path)
	}
	return anchors, nil
}

func read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes: it is no file of keys or certificates", path, maxFile)
	}
	return data, nil
}
