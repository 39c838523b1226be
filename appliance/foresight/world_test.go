package foresight

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"math/big"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/did"
	"chancery/issuance/iaca"
	"chancery/issuance/issuancetest"
)

const (
	issuer = "https://issuer.example"
	day24  = 24 * time.Hour

	mdl       = "org.iso.18013.5.1.mDL"
	pidMdoc   = "eu.europa.ec.eudi.pid.mdoc"
	pidSDJWT  = "eu.europa.ec.eudi.pid.sdjwt"
	residence = "org.example.residence.jwt"
)

// noon is when the tests look, start the first second of that day.
var (
	start = time.Date(2027, 3, 15, 0, 0, 0, 0, time.UTC)
	noon  = start.Add(12 * time.Hour)
)

// after is the last second of the day that is so many days after the look.
func after(days int) time.Time { return start.Add(time.Duration(days+1)*day24 - time.Second) }

// world is an appliance that is sound until something in it is changed.
type world struct {
	t    testing.TB
	in   Input
	keys map[string]crypto.Signer
	root *x509.Certificate
}

// sound is the world without a fault: making it costs more than a test.
var sound *world

// newWorld returns a sound world that is the test's own.
func newWorld(t testing.TB) *world {
	t.Helper()
	if sound == nil {
		w := &world{t: t, keys: map[string]crypto.Signer{}}
		w.build()
		sound = w
	}
	w := &world{t: t, in: sound.in, keys: maps.Clone(sound.keys), root: sound.root}
	w.in.Identities, w.in.Listeners, w.in.Configurations = slices.Clone(sound.in.Identities), slices.Clone(sound.in.Listeners), nil
	for _, c := range sound.in.Configurations {
		clone := *c
		w.in.Configurations = append(w.in.Configurations, &clone)
	}
	return w
}

// build makes everything that is sound.
func (w *world) build() {
	w.t.Helper()
	for _, label := range []string{"iaca-1", "ds-1", "cs-1", "did-1", "metadata-1", "other", "tls"} {
		w.keys[label] = issuancetest.Key(w.t, issuance.ES256)
	}
	all, err := configuration.LoadDir(filepath.Join("..", "..", "examples", "configurations"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.in = Input{Identifier: issuer, MetadataSigner: "metadata-1", MetadataLifetime: day24, Newest: noon.Add(-time.Minute), Written: start.Add(-90 * day24), Configurations: all}
	w.in.Identities = []wire.Identity{{Label: "iaca-1", Purpose: wire.PurposeIACA},
		{Label: "ds-1", Purpose: wire.PurposeDocumentSigner, Profile: issuance.Profile{Formats: []issuance.Format{issuance.FormatMdoc}, Types: []string{"org.iso.18013.5.1.mDL", "eu.europa.ec.eudi.pid.1"}, LongestValidityHours: 8760}},
		{Label: "cs-1", Purpose: wire.PurposeCredentialSigner, Profile: issuance.Profile{Formats: []issuance.Format{issuance.FormatSDJWT}, Types: []string{"urn:eudi:pid:1"}, Issuer: issuer, LongestValidityHours: 8760}},
		{Label: "did-1", Purpose: wire.PurposeDID},
		{Label: "metadata-1", Purpose: wire.PurposeMetadata, Profile: issuance.Profile{Formats: []issuance.Format{issuance.FormatMetadata}, Issuer: issuer}},
		{Label: "checkpoint-1", Purpose: wire.PurposeCheckpoint}, {Label: "sealing-1", Purpose: wire.PurposeSealing}}
	for i := range w.in.Identities {
		id := &w.in.Identities[i]
		id.Ready, id.Algorithm = true, issuance.ES256
		if key := w.keys[id.Label]; key != nil {
			id.PublicKey = w.spki(key)
		}
	}
	w.anchor(iaca.Plan{NotAfter: after(3000)})
	w.under("ds-1", iaca.DocumentSigner, iaca.Plan{NotAfter: after(400)})
	w.under("cs-1", iaca.CredentialSigner, iaca.Plan{NotAfter: after(400)})
	w.under("metadata-1", iaca.MetadataSigner, iaca.Plan{NotAfter: after(400)})
	w.crl(1, start.Add(-10*day24), after(50))
	w.did("did:web:issuer.example")
	w.in.Listeners = []Listener{{Name: "wallet", Host: true, Chain: w.tls(start.Add(-30*day24), after(335), "issuer.example")},
		{Name: "admin", Chain: w.tls(start.Add(-30*day24), after(335), "admin.internal")}}
}

func (w *world) spki(key crypto.Signer) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

func (w *world) id(label string) *wire.Identity {
	for i := range w.in.Identities {
		if w.in.Identities[i].Label == label {
			return &w.in.Identities[i]
		}
	}
	w.t.Fatalf("no identity %s", label)
	return nil
}

func (w *world) configuration(id string) *configuration.Configuration {
	for _, c := range w.in.Configurations {
		if c.ID == id {
			return c
		}
	}
	w.t.Fatalf("no configuration %s", id)
	return nil
}

// certificate makes one that the linter accepts.
func (w *world) certificate(p iaca.Plan, parent *x509.Certificate, label string) []byte {
	w.t.Helper()
	p.Subject = iaca.Name{Country: "UT", Organization: "Utopia", CommonName: "Utopia " + label}
	p.ContactURL, p.CRL, p.IssuerURL = "https://utopia.example", issuer+"/crl/iaca-1.crl", issuer
	if p.NotBefore.IsZero() {
		p.NotBefore = start.Add(-30 * day24)
	}
	der, err := iaca.Create(p, parent, w.keys[label].Public(), w.keys["iaca-1"])
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// anchor makes the root.
func (w *world) anchor(p iaca.Plan) {
	w.t.Helper()
	p.Profile = iaca.Root
	id := w.id("iaca-1")
	id.Chain = [][]byte{w.certificate(p, nil, "iaca-1")}
	w.root = w.parse(id.Chain[0])
}

// under makes a certificate under the root.
func (w *world) under(label string, profile iaca.Profile, p iaca.Plan) {
	w.t.Helper()
	p.Profile = profile
	w.id(label).Chain, w.id(label).Anchor = [][]byte{w.certificate(p, w.root, label)}, w.root.Raw
}

// outside makes a certificate under the root that the linter would not accept.
func (w *world) outside(label string, change func(*x509.Certificate)) {
	w.t.Helper()
	template := *w.parse(w.id(label).Chain[0])
	change(&template)
	der, err := x509.CreateCertificate(rand.Reader, &template, w.root, w.keys[label].Public(), w.keys["iaca-1"])
	if err != nil {
		w.t.Fatal(err)
	}
	w.id(label).Chain = [][]byte{der}
}

func (w *world) parse(der []byte) *x509.Certificate {
	w.t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// crl makes the root's revocation list, with the certificates of labels in it.
func (w *world) crl(number int64, from, next time.Time, revoked ...string) {
	w.t.Helper()
	var entries []iaca.Revoked
	for _, label := range revoked {
		entries = append(entries, iaca.Revoked{Serial: w.parse(w.id(label).Chain[0]).SerialNumber, Time: from})
	}
	der, err := iaca.CreateCRL(w.root, w.keys["iaca-1"], number, entries, from, next)
	if err != nil {
		w.t.Fatal(err)
	}
	w.id("iaca-1").CRL = der
}

// did gives did-1 a DID with a document.
func (w *world) did(id string) {
	w.t.Helper()
	key := w.id("did-1")
	keyID, err := did.WebKeyID(id, w.keys["did-1"].Public())
	if err == nil {
		key.DIDDocument, err = did.WebDocument(id, []did.WebKey{{ID: keyID, Public: w.keys["did-1"].Public()}})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	key.DID, key.KeyID = id, keyID
	key.Profile = issuance.Profile{Formats: []issuance.Format{issuance.FormatJWTVC}, Types: []string{"ResidencePermitCredential"}, Issuer: id, LongestValidityHours: 8760}
}

// tls makes a listener's certificate.
func (w *world) tls(notBefore, notAfter time.Time, name string) []*x509.Certificate {
	w.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: notBefore, NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, w.keys["tls"].Public(), w.keys["tls"])
	if err != nil {
		w.t.Fatal(err)
	}
	return []*x509.Certificate{w.parse(der)}
}
