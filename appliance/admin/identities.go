package admin

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/issuance"
)

// identityBody is a key's public side.
type identityBody struct {
	Label     string           `json:"label"`
	Purpose   string           `json:"purpose"`
	Algorithm string           `json:"algorithm"`
	Ready     bool             `json:"ready"`
	Profile   issuance.Profile `json:"profile"`
	// CertificatePem is the key's own certificate, with its data beside it.
	CertificatePem         string           `json:"certificatePem,omitempty"`
	CertificateFingerprint string           `json:"certificateFingerprint,omitempty"`
	CertificateData        *certificateBody `json:"certificateData,omitempty"`
	DID                    string           `json:"did,omitempty"`
	KeyID                  string           `json:"keyId,omitempty"`
	CRL                    *crlBody         `json:"crl,omitempty"`
}

type certificateBody struct {
	Subject   string `json:"subject"`
	Issuer    string `json:"issuer"`
	Serial    string `json:"serialNumber"`
	NotBefore string `json:"notBefore"`
	NotAfter  string `json:"notAfter"`
}

type crlBody struct {
	Number     string `json:"number"`
	ThisUpdate string `json:"thisUpdate"`
	NextUpdate string `json:"nextUpdate"`
	Revoked    int    `json:"revoked"`
}

func identity(i wire.Identity) identityBody {
	b := identityBody{Label: i.Label, Purpose: string(i.Purpose), Algorithm: string(i.Algorithm), Ready: i.Ready, Profile: i.Profile, DID: i.DID, KeyID: i.KeyID}
	if len(i.Chain) > 0 {
		if c, err := x509.ParseCertificate(i.Chain[0]); err == nil {
			sum := sha256.Sum256(c.Raw)
			b.CertificateFingerprint = hex.EncodeToString(sum[:])
			b.CertificatePem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
			b.CertificateData = &certificateBody{c.Subject.String(), c.Issuer.String(), c.SerialNumber.Text(16), stamp(c.NotBefore), stamp(c.NotAfter)}
		}
	}
	if len(i.CRL) > 0 {
		if l, err := x509.ParseRevocationList(i.CRL); err == nil {
			b.CRL = &crlBody{l.Number.String(), stamp(l.ThisUpdate), stamp(l.NextUpdate), len(l.RevokedCertificateEntries)}
		}
	}
	return b
}

func (a *api) listIdentities(r *http.Request, _ store.Operator) (result, error) {
	answer, err := a.Identities(r.Context())
	if err != nil {
		return result{}, err
	}
	data := make([]identityBody, len(answer.Identities))
	for i, id := range answer.Identities {
		data[i] = identity(id)
	}
	return result{status: http.StatusOK, body: listBody{Data: data}}, nil
}

func (a *api) readIdentity(r *http.Request, _ store.Operator) (result, error) {
	answer, err := a.Identities(r.Context())
	if err != nil {
		return result{}, err
	}
	for _, id := range answer.Identities {
		if id.Label == r.PathValue("label") {
			return result{status: http.StatusOK, body: identity(id)}, nil
		}
	}
	return result{}, store.ErrNotFound
}

// eventBody is one of chanceryd's own events; the signer's log has them too.
type eventBody struct {
	Seq       int64             `json:"seq"`
	Timestamp string            `json:"timestamp"`
	Type      string            `json:"type"`
	Actor     string            `json:"actor,omitempty"`
	Subject   string            `json:"subject,omitempty"`
	Data      map[string]string `json:"data,omitempty"`
}

func (a *api) listEvents(r *http.Request, _ store.Operator) (result, error) {
	limit, cursor, err := page(r)
	if err != nil {
		return result{}, err
	}
	filter := store.EventFilter{Kind: r.URL.Query().Get("type"), Subject: r.URL.Query().Get("subject")}
	events, next, err := a.Store.Events(r.Context(), filter, limit, cursor)
	if err != nil {
		return result{}, badCursor(err, cursor)
	}
	data := make([]eventBody, len(events))
	for i, e := range events {
		data[i] = eventBody{e.Seq, e.Time.UTC().Format(time.RFC3339Nano), e.Kind, e.Actor, e.Subject, e.Detail}
	}
	return result{status: http.StatusOK, body: listBody{data, next}}, nil
}
