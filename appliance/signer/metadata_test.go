package signer_test

import (
	"crypto/x509"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/audit"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/jws"
	"chancery/issuance/metadata"
)

// hourly is a second metadata signer, on another curve, whose profile names a
// longest validity; the example's names none.
const hourly = `
[[keys]]
label = "metadata-384"
purpose = "metadata-signer"
algorithm = "ES384"
under = "iaca-1"
common_name = "Utopia Metadata Signer 384"
days = 400
[keys.profile]
formats = ["metadata+jwt"]
issuer = "https://localhost:8443"
longest_validity_hours = 1
`

// description is the unsigned metadata of an issuer.
func description(issuer string) map[string]any {
	return map[string]any{"credential_issuer": issuer, "credential_endpoint": issuer + "/credential",
		"display":                             []any{map[string]any{"name": "Utopia Bürgerdienste", "locale": "de"}},
		"credential_configurations_supported": map[string]any{"pid": map[string]any{"format": "dc+sd-jwt", "vct": "urn:eudi:pid:1"}}}
}

// prepared prepares an issuer's metadata for a key; change makes the defect.
func (f *fixture) prepared(t testing.TB, key string, change func(*metadata.Material)) *issuance.Prepared {
	t.Helper()
	id := f.ids[key]
	m := metadata.Material{Issuer: signertest.Issuer, Chain: id.Chain, Algorithm: id.Algorithm, IssuedAt: f.now(), ExpiresAt: f.now().Add(time.Hour)}
	if change != nil {
		change(&m)
	}
	p, err := metadata.Prepare(description(m.Issuer), m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// metadataRequest asks for metadata's signature, which no offer is the cause of.
func metadataRequest(key string, p *issuance.Prepared) wire.SignRequest {
	return wire.SignRequest{Items: []wire.SignItem{{Key: key, Format: p.Format, TBS: p.TBS, Credential: "metadata-" + hash(p.TBS)}}}
}

// TestSignsMetadata has both keys sign metadata through the socket, lets go-jose
// judge it under the ceremony's anchor, and finds in the log what was answered
// (checks 52 to 57).
func TestSignsMetadata(t *testing.T) {
	f := start(t, signertest.Options{Plan: signertest.Example(t, "ceremony.toml") + hourly})
	for key, longest := range map[string]time.Duration{"metadata-1": 48 * time.Hour, "metadata-384": time.Hour} {
		id := f.ids[key]
		if got := id.Profile.LongestValidity(); got != longest {
			t.Errorf("%s: longest validity %v", key, got)
		}
		p := f.prepared(t, key, func(m *metadata.Material) { m.ExpiresAt = m.IssuedAt.Add(longest) })
		before := len(f.Entries(t))
		out, err := f.Sign.Sign(soon(t), metadataRequest(key, p))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		compact, err := p.Assemble(out.Results[0].Signature)
		if err != nil {
			t.Fatal(err)
		}
		payload, exp := judgeMetadata(t, id, compact, f.now())
		want := description(signertest.Issuer)
		maps.Copy(want, map[string]any{"iss": signertest.Issuer, "sub": signertest.Issuer, "iat": payload["iat"], "exp": payload["exp"]})
		if !reflect.DeepEqual(payload, want) || !exp.After(f.now()) {
			t.Errorf("%s: payload\n%v, want\n%v", key, payload, want)
		}
		entries := f.Entries(t)[before:]
		if len(entries) != 2 {
			t.Fatalf("%s: %d entries", key, len(entries))
		}
		intent, made := entries[0], entries[1]
		if intent.Kind != audit.KindIntent || intent.Key != key || intent.Format != issuance.FormatMetadata || intent.Hash != hash(p.TBS) ||
			intent.Credential != "metadata-"+hash(p.TBS) || intent.Offer != "" || intent.Configuration != "" || intent.Types != nil || intent.ValidUntil != exp.Format(time.RFC3339) {
			t.Errorf("%s: intent %+v", key, intent)
		}
		if made.Kind != audit.KindMade || made.Key != key || made.Hash != intent.Hash || made.Intent == nil || *made.Intent != int64(before) {
			t.Errorf("%s: outcome %+v", key, made)
		}
	}
}

// judgeMetadata verifies a compact JWS as a wallet does that has only the anchor
// from elsewhere, and returns what it says.
func judgeMetadata(t *testing.T, id wire.Identity, compact string, now time.Time) (payload map[string]any, exp time.Time) {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(id.Algorithm)})
	if err != nil {
		t.Fatal(err)
	}
	header := signed.Signatures[0].Protected
	if header.ExtraHeaders["typ"] != "openidvci-issuer-metadata+jwt" || header.KeyID != "" {
		t.Errorf("header %+v", header)
	}
	anchor, err := x509.ParseCertificate(id.Anchor)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(anchor)
	chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		t.Fatal(err)
	}
	leaf := chains[0][0]
	if len(chains[0]) != 2 || leaf.Equal(anchor) || len(leaf.URIs) != 1 || leaf.URIs[0].String() != signertest.Issuer {
		t.Errorf("the chain: %v", chains)
	}
	data, err := signed.Verify(leaf.PublicKey)
	if err != nil {
		t.Fatalf("go-jose does not verify it: %v", err)
	}
	if payload, err = jws.Object(data); err != nil {
		t.Fatal(err)
	}
	if exp, err = jws.Date(payload, "exp"); err != nil {
		t.Fatal(err)
	}
	return payload, exp
}

// metadataRefusals have one defect each.
func metadataRefusals() (cases []refusalCase) {
	material := func(name, reason string, change func(f *fixture, m *metadata.Material)) {
		cases = append(cases, refusalCase{name, func(t *testing.T, f *fixture) wire.SignRequest {
			return metadataRequest("metadata-1", f.prepared(t, "metadata-1", func(m *metadata.Material) { change(f, m) }))
		}, wire.CodeRefused, reason, ""})
	}
	material("another issuer", "profile.issuer", func(_ *fixture, m *metadata.Material) { m.Issuer = "https://evil.example" })
	material("the issuer with a slash", "profile.issuer", func(_ *fixture, m *metadata.Material) { m.Issuer += "/" })
	material("another metadata signer's chain", "x5c", func(f *fixture, m *metadata.Material) { m.Chain = f.ids["metadata-384"].Chain })
	material("a credential signer's chain", "x5c", func(f *fixture, m *metadata.Material) { m.Chain = f.ids["cs-1"].Chain })
	material("a certificate more in the chain", "x5c", func(f *fixture, m *metadata.Material) {
		m.Chain = append(slices.Clone(m.Chain), f.ids["cs-1"].Chain...)
	})
	material("another algorithm", "algorithm", func(_ *fixture, m *metadata.Material) { m.Algorithm = issuance.ES384 })
	material("expired", "expired", func(_ *fixture, m *metadata.Material) {
		m.IssuedAt, m.ExpiresAt = m.IssuedAt.Add(-2*time.Hour), m.IssuedAt.Add(-time.Hour)
	})
	material("of the future", "signed-in-future", func(_ *fixture, m *metadata.Material) { m.IssuedAt = m.IssuedAt.Add(5 * time.Minute) })
	material("too old", "signed-too-old", func(_ *fixture, m *metadata.Material) {
		m.IssuedAt, m.ExpiresAt = m.IssuedAt.Add(-49*time.Hour), m.IssuedAt.Add(-time.Hour)
	})
	material("for more than 48 hours", "profile.longest_validity_hours", func(_ *fixture, m *metadata.Material) {
		m.ExpiresAt = m.IssuedAt.Add(48*time.Hour + time.Second)
	})

	unparsable := func(name, text string, change func(f *fixture, h *jws.Header, claims map[string]any)) {
		cases = append(cases, refusalCase{name, func(t *testing.T, f *fixture) wire.SignRequest {
			return metadataRequest("metadata-1", changed(t, f.prepared(t, "metadata-1", nil), func(h *jws.Header, claims map[string]any) { change(f, h, claims) }))
		}, wire.CodeRefused, "unparsable", text})
	}
	unparsable("another typ", "typ", func(_ *fixture, h *jws.Header, _ map[string]any) { h.Type = "JWT" })
	unparsable("the typ of an SD-JWT VC", "typ", func(_ *fixture, h *jws.Header, _ map[string]any) { h.Type = "dc+sd-jwt" })
	unparsable("a kid", "kid", func(_ *fixture, h *jws.Header, _ map[string]any) { h.KeyID = "did:web:localhost%3A8443#x" })
	unparsable("no chain", "x5c", func(_ *fixture, h *jws.Header, _ map[string]any) { h.X5C = nil })
	unparsable("the anchor in the chain", "anchor", func(f *fixture, h *jws.Header, _ map[string]any) { h.X5C = append(h.X5C, f.ids["metadata-1"].Anchor) })
	unparsable("another sub than iss", "iss", func(_ *fixture, _ *jws.Header, claims map[string]any) { claims["sub"] = "https://evil.example" })
	unparsable("another's metadata", "credential_issuer", func(_ *fixture, _ *jws.Header, claims map[string]any) {
		claims["credential_issuer"] = "https://evil.example"
	})
	unparsable("no exp", "exp", func(_ *fixture, _ *jws.Header, claims map[string]any) { delete(claims, "exp") })
	unparsable("a credential's claims", "credential_issuer", func(_ *fixture, _ *jws.Header, claims map[string]any) {
		delete(claims, "credential_issuer")
		claims["vct"] = "urn:eudi:pid:1"
	})
	return append(cases, crossed()...)
}

// crossed ask one kind of key for what the other signs.
func crossed() (cases []refusalCase) {
	add := func(name, reason string, in func(t *testing.T, f *fixture) wire.SignRequest) {
		cases = append(cases, refusalCase{name, in, wire.CodeRefused, reason, ""})
	}
	for _, key := range []string{"cs-1", "ds-1", "did-1", "status-1", "iaca-1", "checkpoint-1", "sealing-1"} {
		add("metadata by "+key, "purpose", func(t *testing.T, f *fixture) wire.SignRequest {
			return metadataRequest(key, f.prepared(t, "metadata-1", nil))
		})
	}
	add("metadata by a credential signer as an SD-JWT VC", "unparsable", func(t *testing.T, f *fixture) wire.SignRequest {
		in := metadataRequest("cs-1", f.prepared(t, "metadata-1", func(m *metadata.Material) { m.Chain = f.ids["cs-1"].Chain }))
		in.Items[0].Format = issuance.FormatSDJWT
		return in
	})
	add("an SD-JWT VC by a metadata signer", "purpose", func(t *testing.T, f *fixture) wire.SignRequest { return request(f.sdjwt(t, "metadata-1", nil)) })
	add("an SD-JWT VC by a metadata signer as metadata", "unparsable", func(t *testing.T, f *fixture) wire.SignRequest {
		in := request(f.sdjwt(t, "metadata-1", nil))
		in.Items[0].Format = issuance.FormatMetadata
		return in
	})
	add("a JWT VC by a metadata signer as metadata", "unparsable", func(t *testing.T, f *fixture) wire.SignRequest {
		in := request(f.jwtvc(t, "did-1", nil))
		in.Items[0].Key, in.Items[0].Format = "metadata-1", issuance.FormatMetadata
		return in
	})
	return cases
}

// TestMetadataRefusals has one defect in each request. Nothing is signed, and the
// log names the refused item although no offer is its cause.
func TestMetadataRefusals(t *testing.T) {
	f := start(t, signertest.Options{Plan: signertest.Example(t, "ceremony.toml") + hourly})
	f.advance(72 * time.Hour) // so that two days back is within the certificate's term
	for _, c := range metadataRefusals() {
		t.Run(c.name, func(t *testing.T) {
			in, e := f.refuse(t, c)
			if e.Key != in.Items[0].Key || e.Credential != in.Items[0].Credential || e.Hash != hash(in.Items[0].TBS) || e.Offer != in.Offer {
				t.Fatalf("the log has %+v of %+v", e, in)
			}
		})
	}
	for name, change := range map[string]func(*metadata.Material){
		"as it is": nil, "for 48 hours": func(m *metadata.Material) { m.ExpiresAt = m.IssuedAt.Add(48 * time.Hour) },
		"two days ago": func(m *metadata.Material) { m.IssuedAt = m.IssuedAt.Add(-47 * time.Hour) },
	} {
		if _, err := f.Sign.Sign(soon(t), metadataRequest("metadata-1", f.prepared(t, "metadata-1", change))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A certificate's end is the end of what it attests.
	f.advance(396 * 24 * time.Hour) // of 400
	if _, err := f.Sign.Sign(soon(t), metadataRequest("metadata-1", f.prepared(t, "metadata-1", func(m *metadata.Material) {
		m.ExpiresAt = m.IssuedAt.Add(48 * time.Hour)
	}))); code(err) != wire.CodeRefused || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("beyond the certificate's end: %v", err)
	}
}
