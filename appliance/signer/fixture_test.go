package signer_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"chancery/appliance/audit"
	"chancery/appliance/signer"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
	"chancery/issuance"
	"chancery/issuance/jws"
	"chancery/issuance/mdoc"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
)

// further are keys beside the example's: another curve, Ed25519, a rate cap, a
// DID key that signs both of its formats.
const further = `
[[keys]]
label = "ds-384"
purpose = "document-signer"
algorithm = "ES384"
under = "iaca-1"
common_name = "Utopia Document Signer 384"
days = 400
[keys.profile]
formats = ["mso_mdoc"]
types = ["org.iso.18013.5.1.mDL"]
longest_validity_hours = 8760

[[keys]]
label = "did-ed"
purpose = "did"
algorithm = "EdDSA"
[keys.profile]
formats = ["jwt_vc_json", "dc+sd-jwt"]
types = ["ResidencePermitCredential", "ExtraCredential", "urn:eudi:pid:1"]
longest_validity_hours = 8760

[[keys]]
label = "did-capped"
purpose = "did"
algorithm = "ES256"
[keys.profile]
formats = ["jwt_vc_json"]
types = ["ResidencePermitCredential"]
longest_validity_hours = 8760
rate_per_minute = 5
`

// fixture is a running signer with its identities and a clock that can be moved.
type fixture struct {
	*signertest.Signer
	ids    map[string]wire.Identity
	holder crypto.PublicKey
	ahead  *atomic.Int64 // how far the clock is ahead of the machine's
}

// start runs a signer with the example's keys and the further ones.
func start(t testing.TB, o signertest.Options) *fixture {
	t.Helper()
	f := prepare(t, o)
	f.Start(t)
	f.read(t)
	return f
}

// prepare does so without running it.
func prepare(t testing.TB, o signertest.Options) *fixture {
	t.Helper()
	holder, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{holder: holder.Public(), ahead: new(atomic.Int64)}
	if o.Plan == "" {
		o.Plan = signertest.Example(t, "ceremony.toml") + further
	}
	o.Now = f.now
	f.Signer = signertest.Prepare(t, o)
	return f
}

// read learns the identities of the running signer.
func (f *fixture) read(t testing.TB) {
	t.Helper()
	all, err := f.Admin.Identities(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	f.ids = map[string]wire.Identity{}
	for _, id := range all.Identities {
		f.ids[id.Label] = id
	}
}

func (f *fixture) now() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }

// advance moves the clock.
func (f *fixture) advance(d time.Duration) { f.ahead.Add(int64(d)) }

// soon is a test's patience.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until polls within a test's patience.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for ctx := soon(t); ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("not within patience: " + what)
}

var credentials atomic.Int64

// item is a prepared credential as chanceryd would hand it over.
func item(t testing.TB, key string, p *issuance.Prepared, err error) wire.SignItem {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return wire.SignItem{Key: key, Format: p.Format, TBS: p.TBS, Credential: fmt.Sprintf("credential-%d", credentials.Add(1))}
}

// today is what a credential says of its time: cut to the day, as the holder
// must not be tracked by it.
func (f *fixture) today() time.Time { return f.now().UTC().Truncate(24 * time.Hour) }

// mdoc prepares an mDL for a key; change makes the defect.
func (f *fixture) mdoc(t testing.TB, key string, change func(*mdoc.Request)) wire.SignItem {
	t.Helper()
	id := f.ids[key]
	r := mdoc.Request{DocType: "org.iso.18013.5.1.mDL", Elements: []mdoc.Element{{Namespace: "org.iso.18013.5.1", Identifier: "family_name", Value: "Ørsted"}},
		DeviceKey: f.holder, Chain: id.Chain, Algorithm: id.Algorithm, Signed: f.today(), ValidFrom: f.today(), ValidUntil: f.today().AddDate(0, 3, 0)}
	if change != nil {
		change(&r)
	}
	p, err := mdoc.Prepare(r)
	return item(t, key, p, err)
}

// sdjwt prepares a PID for a key: under its chain, or under its DID.
func (f *fixture) sdjwt(t testing.TB, key string, change func(*sdjwt.Request)) wire.SignItem {
	t.Helper()
	id := f.ids[key]
	r := sdjwt.Request{VCT: "urn:eudi:pid:1", Issuer: id.Profile.Issuer, Claims: map[string]any{"given_name": "Zoë"}, Disclose: []sdjwt.Path{{"given_name"}},
		Holder: f.holder, Chain: id.Chain, KeyID: id.KeyID, Algorithm: id.Algorithm, IssuedAt: f.today(), Expires: f.today().AddDate(0, 3, 0)}
	if change != nil {
		change(&r)
	}
	p, err := sdjwt.Prepare(r)
	return item(t, key, p, err)
}

// jwtvc prepares a residence permit for a DID key.
func (f *fixture) jwtvc(t testing.TB, key string, change func(*w3cvc.Request)) wire.SignItem {
	t.Helper()
	id := f.ids[key]
	r := w3cvc.Request{ID: "urn:uuid:" + rand.Text(), Issuer: id.DID, KeyID: id.KeyID, Types: []string{"ResidencePermitCredential"},
		Subject: map[string]any{"familyName": "Łukasz"}, SubjectID: "did:example:holder", Algorithm: id.Algorithm,
		ValidFrom: f.today(), ValidUntil: f.today().AddDate(0, 3, 0)}
	if change != nil {
		change(&r)
	}
	p, err := w3cvc.Prepare(r)
	return item(t, key, p, err)
}

// payload prepares a JWT with any payload and header, for what no format package
// would prepare.
func payload(t testing.TB, key string, format issuance.Format, header jws.Header, claims map[string]any) wire.SignItem {
	t.Helper()
	tbs, err := jws.Input(header, claims)
	return item(t, key, &issuance.Prepared{Format: format, TBS: tbs}, err)
}

// changed is a good signing input with its header or payload changed, which the
// format package would not prepare.
func changed(t testing.TB, p *issuance.Prepared, change func(h *jws.Header, payload map[string]any)) *issuance.Prepared {
	t.Helper()
	header, payload, err := jws.Parse(p.TBS)
	if err != nil {
		t.Fatal(err)
	}
	change(&header, payload)
	tbs, err := jws.Input(header, payload)
	if err != nil {
		t.Fatal(err)
	}
	return &issuance.Prepared{Format: p.Format, TBS: tbs}
}

// request asks for items under one offer.
func request(items ...wire.SignItem) wire.SignRequest {
	return wire.SignRequest{Offer: "offer-1", Configuration: "configuration-1", Items: items}
}

// code is an error answer's code, "" for none.
func code(err error) wire.Code {
	if e := wire.AsError(err); e != nil {
		return e.Code
	}
	return ""
}

// verifies holds a raw signature against the identity's public key.
func (f *fixture) verifies(t testing.TB, i wire.SignItem, signature []byte) bool {
	t.Helper()
	id := f.ids[i.Key]
	public, err := x509.ParsePKIXPublicKey(id.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(signature) != id.Algorithm.SignatureSize() {
		return false
	}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		h := id.Algorithm.Hash().New()
		h.Write(i.TBS)
		n := len(signature) / 2
		return ecdsa.Verify(key, h.Sum(nil), new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
	case ed25519.PublicKey:
		return ed25519.Verify(key, i.TBS, signature)
	}
	return false
}

// hash is what the log calls the bytes by.
func hash(tbs []byte) string {
	sum := sha256.Sum256(tbs)
	return hex.EncodeToString(sum[:])
}

// claimed are the people's data in what the fixture prepares: nothing of them may
// be in the log.
func claimed(data []byte) string {
	for _, claim := range []string{"Ørsted", "Zoë", "Łukasz", "family_name", "given_name", "familyName"} {
		if bytes.Contains(data, []byte(claim)) || strings.Contains(string(data), claim) {
			return claim
		}
	}
	return ""
}

// signCalls counts the C_Sign calls of the module so far, and makes one more; the
// fault module has no other orders meanwhile.
func signCalls(t testing.TB, f *fixture) int {
	t.Helper()
	f.Fault.Order(t, "stats")
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
		t.Fatal(err)
	}
	return f.Fault.Calls(t)["C_Sign"]
}

// rarely keeps checkpoints and probes, which sign too, out of a test.
func rarely(c *config.Config) {
	c.Signer.CheckpointInterval, c.Signer.ProbeInterval = config.Duration(time.Hour), config.Duration(time.Hour)
}

// keyRef is what the token must hold of a key, as the signer's evidence has it.
func keyRef(t testing.TB, evidence []byte, label string) hsm.KeyRef {
	t.Helper()
	var e signer.Evidence
	if err := json.Unmarshal(evidence, &e); err != nil {
		t.Fatal(err)
	}
	for _, k := range e.Keys {
		if k.Label != label {
			continue
		}
		ref, err := k.Ref()
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	t.Fatalf("no key %q in the evidence", label)
	return hsm.KeyRef{}
}

// checkpointVerifier is the verifier key as the ceremony wrote it.
func checkpointVerifier(t testing.TB, f *fixture) note.Verifier {
	t.Helper()
	vkey, err := os.ReadFile(filepath.Join(f.Dir, "out", "checkpoint.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := audit.NewVerifier(string(vkey))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// withToken opens the token while no daemon has it.
func withToken(t testing.TB, f *fixture, fn func(token *hsm.Token)) {
	t.Helper()
	cfg, err := signer.TokenConfig(f.Config)
	if err != nil {
		t.Fatal(err)
	}
	token, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	fn(token)
}
