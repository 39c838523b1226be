package iaca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Revoked is an entry of a CRL; there is no reason code in it (Annex B.10).
type Revoked struct {
	Serial *big.Int
	Time   time.Time
}

// CreateCRL makes a full CRL of a root, linted before it is signed. number must
// grow from list to list.
func CreateCRL(root *x509.Certificate, signer crypto.Signer, number int64, revoked []Revoked, thisUpdate, nextUpdate time.Time) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: thisUpdate.UTC().Truncate(time.Second), NextUpdate: nextUpdate.UTC().Truncate(time.Second)}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.Time.UTC().Truncate(time.Second)})
	}
	algorithm, err := signatureAlgorithm(root.PublicKey)
	if err != nil {
		return nil, err
	}
	list.SignatureAlgorithm = algorithm
	throwAway, stand, err := standIn(root)
	if err != nil {
		return nil, err
	}
	trial, err := x509.CreateRevocationList(rand.Reader, list, stand, throwAway)
	if err != nil {
		return nil, err
	}
	if err := refuse(Linter{Issuer: stand}.CRL(trial)); err != nil {
		return nil, fmt.Errorf("the CRL would not be right: %w", err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, root, signer)
	if err != nil {
		return nil, fmt.Errorf("sign CRL: %w", err)
	}
	a, errA := x509.ParseRevocationList(trial)
	b, errB := x509.ParseRevocationList(der)
	if errA != nil || errB != nil || !bytes.Equal(a.RawTBSRevocationList, b.RawTBSRevocationList) {
		return nil, errors.New("what was signed is not what was linted")
	}
	if err := refuse(Linter{Issuer: root}.CRL(der)); err != nil {
		return nil, fmt.Errorf("the signed CRL is not right: %w", err)
	}
	return der, nil
}
