package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"chancery/issuance/iaca"
)

// writeAuthority writes what an IACA, its successor and a customer of theirs make:
// old.pem, new.pem, link.pem, request.pem, answer.pem, and the lists first.crl and
// second.crl.
func writeAuthority(dir string) error {
	from := time.Now().UTC().Truncate(24 * time.Hour)
	plan := iaca.Plan{
		Profile: iaca.Root, Subject: iaca.Name{Country: "UT", Organization: "Utopia", CommonName: "Utopia IACA"}, NotBefore: from, NotAfter: from.AddDate(9, 0, 0),
		ContactEmail: "pki@utopia.example", CRL: "https://issuer.example/crl", IssuerURL: "https://issuer.example",
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	var roots []*x509.Certificate
	var keys []*ecdsa.PrivateKey
	for _, name := range []string{"old.pem", "new.pem", ""} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		keys = append(keys, key)
		if name == "" {
			continue
		}
		der, err := iaca.Create(plan, nil, key.Public(), key)
		if err != nil {
			return err
		}
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		roots = append(roots, root)
		if err := write(name, "CERTIFICATE", der); err != nil {
			return err
		}
	}
	link, err := iaca.CreateLink(roots[0], roots[1], from, keys[0])
	if err != nil {
		return err
	}
	plan.Profile, plan.Subject.CommonName, plan.NotAfter = iaca.DocumentSigner, "Utopia DS", from.AddDate(0, 0, 90)
	request, err := iaca.CreateCSR(plan, keys[2])
	if err != nil {
		return err
	}
	answer, err := iaca.Create(plan, roots[0], keys[2].Public(), keys[0])
	if err != nil {
		return err
	}
	for i, name := range []string{"first.crl", "second.crl"} {
		list, err := iaca.CreateCRL(roots[0], keys[0], int64(i+1), []iaca.Revoked{{Serial: big.NewInt(7), Time: from}}, from, from.AddDate(0, 0, 60))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), list, 0o600); err != nil {
			return err
		}
	}
	for name, der := range map[string][]byte{"link.pem": link, "answer.pem": answer} {
		if err := write(name, "CERTIFICATE", der); err != nil {
			return err
		}
	}
	return write("request.pem", "CERTIFICATE REQUEST", request)
}
