package signer

import (
	"crypto/x509"
	"fmt"
	"time"

	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/wire"
	"chancery/issuance/iaca"
)

// renewCRLs issues each IACA's CRL anew when half of its life is over, so that
// a token that is away for weeks leaves no verifier without one.
func (c *core) renewCRLs() {
	for _, k := range c.keys {
		if k.Purpose != wire.PurposeIACA {
			continue
		}
		renewed, err := c.renewCRL(k)
		if err != nil {
			c.logger.Warn("the CRL was not renewed", "key", k.Label, "error", err.Error())
		}
		if renewed {
			c.logger.Info("CRL issued", "key", k.Label)
			c.bump()
		}
	}
}

// renewCRL issues one IACA's next CRL, with the same revocations, when the
// present one is past the middle of its life.
func (c *core) renewCRL(k *key) (bool, error) {
	c.mu.Lock()
	present, has := c.registry.CRLs[k.Label]
	c.mu.Unlock()
	if !has {
		return false, nil // the ceremony made none: the IACA's CRLs are issued elsewhere
	}
	list, err := x509.ParseRevocationList(present.DER)
	if err != nil {
		return false, fmt.Errorf("the recorded CRL: %w", err)
	}
	now := c.now()
	if now.Before(list.ThisUpdate.Add(list.NextUpdate.Sub(list.ThisUpdate) / 2)) {
		return false, nil
	}
	token, err := c.ready()
	if err != nil {
		return false, err
	}
	signer, err := token.MessageSigner(k.Label)
	if err != nil {
		return false, err
	}
	var revoked []iaca.Revoked
	for _, e := range list.RevokedCertificateEntries {
		revoked = append(revoked, iaca.Revoked{Serial: e.SerialNumber, Time: e.RevocationTime})
	}
	until := now.Add(c.cfg.Signer.CRLLifetime.Std())
	if until.After(k.leaf.NotAfter) {
		until = k.leaf.NotAfter
	}
	next := registry.CRL{Issuer: k.Label, Number: present.Number + 1, URL: present.URL}
	if next.DER, err = iaca.CreateCRL(k.leaf, signer, next.Number, revoked, now, until); err != nil {
		return false, err
	}
	return true, c.recordCRL(next, now)
}

// recordCRL makes a CRL durable in the log before anybody can fetch it.
func (c *core) recordCRL(crl registry.CRL, now time.Time) error {
	leaf, err := registry.CRLEntry(crl, now)
	if err != nil {
		return err
	}
	if _, err := c.appendLeaves([][]byte{leaf}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.registry.CRLs[crl.Issuer] = crl
	return nil
}
