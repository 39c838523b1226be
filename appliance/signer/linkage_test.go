package signer_test

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/audit"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/domainlinkage"
	"chancery/issuance/jws"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
)

// dids are further keys of the example's DID: one on another curve, one whose
// profile lacks domain linkage.
const dids = `
[[keys]]
label = "did-384"
purpose = "did"
algorithm = "ES384"
[keys.profile]
formats = ["domainlinkage"]
longest_validity_hours = 720

[[keys]]
label = "did-plain"
purpose = "did"
algorithm = "ES256"
[keys.profile]
formats = ["jwt_vc_json"]
types = ["ResidencePermitCredential"]
longest_validity_hours = 8760
`

// linkage prepares a domain linkage credential for a key; change makes the defect.
func (f *fixture) linkage(t testing.TB, key string, change func(*domainlinkage.Material)) *issuance.Prepared {
	t.Helper()
	id := f.ids[key]
	m := domainlinkage.Material{KeyID: id.KeyID, Algorithm: id.Algorithm, ValidFrom: f.now(), ValidUntil: f.now().Add(720 * time.Hour)}
	if change != nil {
		change(&m)
	}
	p, err := domainlinkage.Prepare(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// linkageRequest asks for a signature that no offer is the cause of.
func linkageRequest(key string, p *issuance.Prepared) wire.SignRequest {
	return wire.SignRequest{Items: []wire.SignItem{{Key: key, Format: p.Format, TBS: p.TBS, Credential: "domain-linkage-" + hash(p.TBS)}}}
}

// TestCheck324Signs has both keys link their DID to the host through the socket,
// lets go-jose judge it, and finds in the log what was answered.
func TestCheck324Signs(t *testing.T) {
	f := start(t, signertest.Options{Plan: signertest.Example(t, "ceremony.toml") + dids})
	for _, key := range []string{"did-1", "did-384"} {
		id := f.ids[key]
		p := f.linkage(t, key, nil)
		before := len(f.Entries(t))
		out, err := f.Sign.Sign(soon(t), linkageRequest(key, p))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if !f.verifies(t, wire.SignItem{Key: key, TBS: p.TBS}, out.Results[0].Signature) {
			t.Errorf("%s: the signature is not the key's", key)
		}
		compact, err := p.Assemble(out.Results[0].Signature)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(id.Algorithm)})
		if err != nil {
			t.Fatal(err)
		}
		if h := signed.Signatures[0].Protected; h.KeyID != id.KeyID || h.Algorithm != string(id.Algorithm) || len(h.ExtraHeaders) > 0 {
			t.Errorf("%s: header %+v", key, h)
		}
		entries := f.Entries(t)[before:]
		if len(entries) != 2 {
			t.Fatalf("%s: %d entries", key, len(entries))
		}
		intent, made := entries[0], entries[1]
		if intent.Kind != audit.KindIntent || intent.Key != key || intent.Format != issuance.FormatDomain || intent.Hash != hash(p.TBS) || intent.Types != nil || intent.Offer != "" {
			t.Errorf("%s: intent %+v", key, intent)
		}
		if made.Kind != audit.KindMade || made.Hash != intent.Hash || made.Intent == nil || *made.Intent != int64(before) {
			t.Errorf("%s: outcome %+v", key, made)
		}
	}
}

// linkageRefusals have one defect each.
func linkageRefusals() (cases []refusalCase) {
	material := func(name, key, reason string, change func(f *fixture, m *domainlinkage.Material)) {
		cases = append(cases, refusalCase{name, func(t *testing.T, f *fixture) wire.SignRequest {
			return linkageRequest(key, f.linkage(t, "did-1", func(m *domainlinkage.Material) { change(f, m) }))
		}, wire.CodeRefused, reason, ""})
	}
	as := func(*fixture, *domainlinkage.Material) {}
	material("another DID, linked to its own host", "did-1", "profile.issuer", func(_ *fixture, m *domainlinkage.Material) { m.KeyID = "did:web:evil.example#key" })
	material("the host's DID below a path", "did-1", "profile.issuer", func(f *fixture, m *domainlinkage.Material) {
		m.KeyID = strings.Replace(f.ids["did-1"].KeyID, "#", ":tenant#", 1)
	})
	material("another key's kid", "did-1", "kid", func(f *fixture, m *domainlinkage.Material) { m.KeyID = f.ids["did-plain"].KeyID })
	material("a kid that no key has", "did-1", "kid", func(f *fixture, m *domainlinkage.Material) { m.KeyID = f.ids["did-1"].DID + "#1" })
	material("by another key of the DID", "did-384", "algorithm", as)
	material("by a key whose profile lacks it", "did-plain", "profile.formats", as)
	for _, key := range []string{"cs-1", "ds-1", "metadata-1", "status-1", "iaca-1", "checkpoint-1", "sealing-1"} {
		material("by "+key, key, "purpose", as)
	}
	material("another algorithm", "did-1", "algorithm", func(_ *fixture, m *domainlinkage.Material) { m.Algorithm = issuance.ES384 })
	material("expired", "did-1", "expired", func(_ *fixture, m *domainlinkage.Material) {
		m.ValidFrom, m.ValidUntil = m.ValidFrom.Add(-2*time.Hour), m.ValidFrom.Add(-time.Hour)
	})
	material("of the future", "did-1", "signed-in-future", func(_ *fixture, m *domainlinkage.Material) { m.ValidFrom = m.ValidFrom.Add(5 * time.Minute) })
	material("too old", "did-1", "signed-too-old", func(_ *fixture, m *domainlinkage.Material) { m.ValidFrom = m.ValidFrom.Add(-49 * time.Hour) })
	material("for longer than the profile allows", "did-1", "profile.longest_validity_hours", func(_ *fixture, m *domainlinkage.Material) {
		m.ValidUntil = m.ValidFrom.Add(8760*time.Hour + time.Second)
	})

	unparsable := func(name, text string, change func(h *jws.Header, payload, vc map[string]any)) {
		cases = append(cases, refusalCase{name, func(t *testing.T, f *fixture) wire.SignRequest {
			return linkageRequest("did-1", changed(t, f.linkage(t, "did-1", nil), func(h *jws.Header, payload map[string]any) {
				change(h, payload, payload["vc"].(map[string]any))
			}))
		}, wire.CodeRefused, "unparsable", text})
	}
	origin := func(value string) func(*jws.Header, map[string]any, map[string]any) {
		return func(_ *jws.Header, _, vc map[string]any) { vc["credentialSubject"].(map[string]any)["origin"] = value }
	}
	unparsable("another origin", "credentialSubject", origin("https://evil.example"))
	unparsable("the host's other port", "credentialSubject", origin("https://localhost"))
	unparsable("an origin without TLS", "credentialSubject", origin("http://localhost:8443"))
	unparsable("another subject", "sub", func(_ *jws.Header, payload, _ map[string]any) { payload["sub"] = "did:web:evil.example" })
	unparsable("an identifier", "vc", func(_ *jws.Header, _, vc map[string]any) { vc["id"] = "urn:uuid:1" })
	unparsable("a jti", "alone", func(_ *jws.Header, payload, _ map[string]any) { payload["jti"] = "urn:uuid:1" })
	unparsable("a typ", "header", func(h *jws.Header, _, _ map[string]any) { h.Type = "JWT" })
	unparsable("no kid", "kid", func(h *jws.Header, _, _ map[string]any) { h.KeyID = "" })
	unparsable("a further type", "vc.type", func(_ *jws.Header, _, vc map[string]any) {
		vc["type"] = append(vc["type"].([]any), "ResidencePermitCredential")
	})
	return append(cases, linkageCrossed()...)
}

// linkageCrossed ask for one format as another.
func linkageCrossed() (cases []refusalCase) {
	add := func(name, reason string, in func(t *testing.T, f *fixture) wire.SignRequest) {
		cases = append(cases, refusalCase{name, in, wire.CodeRefused, reason, ""})
	}
	add("a linkage credential as a JWT VC", "unparsable", func(t *testing.T, f *fixture) wire.SignRequest {
		in := linkageRequest("did-1", f.linkage(t, "did-1", nil))
		in.Items[0].Format = issuance.FormatJWTVC
		return in
	})
	add("a JWT VC as a linkage credential", "unparsable", func(t *testing.T, f *fixture) wire.SignRequest {
		in := request(f.jwtvc(t, "did-1", nil))
		in.Items[0].Format = issuance.FormatDomain
		return in
	})
	add("a JWT VC of the linkage credential's type", "profile.types", func(t *testing.T, f *fixture) wire.SignRequest {
		return request(f.jwtvc(t, "did-1", func(r *w3cvc.Request) {
			r.Types, r.SubjectID, r.Subject = []string{domainlinkage.Type}, r.Issuer, map[string]any{"origin": "https://evil.example"}
		}))
	})
	return cases
}

// TestCheck324Refusals has one defect in each request: nothing is signed, and the
// log names what was refused.
func TestCheck324Refusals(t *testing.T) {
	f := start(t, signertest.Options{Plan: signertest.Example(t, "ceremony.toml") + dids})
	for _, c := range linkageRefusals() {
		t.Run(c.name, func(t *testing.T) {
			in, e := f.refuse(t, c)
			if e.Key != in.Items[0].Key || e.Hash != hash(in.Items[0].TBS) {
				t.Fatalf("the log has %+v of %+v", e, in)
			}
		})
	}
	if _, err := f.Sign.Sign(soon(t), linkageRequest("did-1", f.linkage(t, "did-1", nil))); err != nil {
		t.Errorf("as it is: %v", err)
	}
}

// TestCheck326KeyIdentifier: a credential signer is known by its thumbprint beside
// its chain; another kid is not signed.
func TestCheck326KeyIdentifier(t *testing.T) {
	f := start(t, signertest.Options{})
	public, err := x509.ParsePKIXPublicKey(f.ids["cs-1"].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: public}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.ids["cs-1"].KeyID, base64.RawURLEncoding.EncodeToString(thumbprint); got != want {
		t.Errorf("kid %q, want the thumbprint %q", got, want)
	}
	for name, c := range map[string]struct {
		kid  string
		code wire.Code
	}{"its own": {f.ids["cs-1"].KeyID, ""}, "none": {"", ""}, "a DID key's": {f.ids["did-1"].KeyID, wire.CodeRefused}, "another": {"1", wire.CodeRefused}} {
		i := f.sdjwt(t, "cs-1", func(r *sdjwt.Request) { r.KeyID = c.kid })
		if header, _, err := jws.Parse(i.TBS); err != nil || header.KeyID != c.kid || !reflect.DeepEqual(header.X5C, f.ids["cs-1"].Chain) {
			t.Errorf("%s: header %+v, %v", name, header, err)
		}
		if _, err := f.Sign.Sign(soon(t), request(i)); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
