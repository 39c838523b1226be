package signer_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/jws"
	"chancery/issuance/mdoc"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
)

// TestSigns has every kind of key sign what it may, one at a time and in one
// batch, and finds in the log what was answered: intents, then outcomes, with the
// hash of the very bytes (promise P1).
func TestSigns(t *testing.T) {
	f := start(t, signertest.Options{})
	items := []wire.SignItem{
		f.mdoc(t, "ds-1", nil), f.mdoc(t, "ds-1", func(r *mdoc.Request) { r.DocType = "eu.europa.ec.eudi.pid.1" }), f.mdoc(t, "ds-384", nil),
		f.sdjwt(t, "cs-1", nil), f.sdjwt(t, "did-ed", nil),
		f.jwtvc(t, "did-1", nil), f.jwtvc(t, "did-ed", func(r *w3cvc.Request) { r.Types = append(r.Types, "ExtraCredential") }),
	}
	var requests []wire.SignRequest
	for _, i := range items {
		requests = append(requests, request(i))
	}
	requests = append(requests, request(items...))
	signed := 0
	for _, in := range requests {
		before := len(f.Entries(t))
		out, err := f.Sign.Sign(soon(t), in)
		if err != nil {
			t.Fatalf("%s %s: %v", in.Items[0].Key, in.Items[0].Format, err)
		}
		entries := f.Entries(t)
		n := len(in.Items)
		signed += n
		if got := len(entries) - before; got != 2*n {
			t.Errorf("%d entries for %d signatures", got, n)
		}
		for i, r := range out.Results {
			it := in.Items[i]
			if !f.verifies(t, it, r.Signature) {
				t.Errorf("%s: the signature does not verify", it.Key)
			}
			intent, outcome := entries[r.Intent], entries[r.Outcome]
			if intent.Kind != audit.KindIntent || intent.Key != it.Key || intent.Credential != it.Credential || intent.Hash != hash(it.TBS) ||
				intent.Format != it.Format || intent.Offer != "offer-1" || intent.Configuration != "configuration-1" || len(intent.Types) == 0 || intent.ValidUntil == "" {
				t.Errorf("intent %+v", intent)
			}
			if outcome.Kind != audit.KindMade || outcome.Key != it.Key || outcome.Hash != intent.Hash || outcome.Intent == nil || *outcome.Intent != r.Intent {
				t.Errorf("outcome %+v", outcome)
			}
		}
	}
	status, err := f.Sign.Status(soon(t))
	if err != nil || status.Signatures != uint64(signed) || status.LogSize != int64(len(f.Entries(t))) || status.Queue != 0 {
		t.Errorf("%+v, %v; want %d signatures", status, err, signed)
	}
	if err := f.Stop(t); err != nil {
		t.Fatal(err)
	}
	db, err := os.ReadFile(f.Config.Signer.Database)
	if err != nil {
		t.Fatal(err)
	}
	if claim := claimed(db); claim != "" {
		t.Errorf("%q is in the log's file", claim)
	}
}

// TestSignsTogether runs 32 callers: each gets its own signatures, and the log
// has for each an intent and an outcome, in this order.
func TestSignsTogether(t *testing.T) {
	f := start(t, signertest.Options{})
	const callers, each = 32, 4
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			for range each {
				in := request(f.mdoc(t, "ds-1", nil), f.jwtvc(t, "did-1", nil))
				out, err := f.Sign.Sign(soon(t), in)
				if err != nil {
					t.Error(err)
					return
				}
				for i, r := range out.Results {
					if !f.verifies(t, in.Items[i], r.Signature) || r.Intent >= r.Outcome {
						t.Errorf("item %d: %d, %d", i, r.Intent, r.Outcome)
					}
				}
			}
		})
	}
	wait.Wait()
	open := map[int64]audit.Entry{}
	made := 0
	for i, e := range f.Entries(t) {
		switch e.Kind {
		case audit.KindIntent:
			open[int64(i)] = e
		case audit.KindMade:
			if open[*e.Intent].Hash != e.Hash {
				t.Errorf("outcome %d has another hash than its intent", i)
			}
			delete(open, *e.Intent)
			made++
		}
	}
	if made != 2*callers*each || len(open) != 0 {
		t.Errorf("%d made, %d open", made, len(open))
	}
}

// refusalCase is one request that must not be signed.
type refusalCase struct {
	name string
	in   func(t *testing.T, f *fixture) wire.SignRequest
	code wire.Code
	// reason is what the log says; "" when the limit on refusals is not the point.
	reason string
	text   string // part of the answer
}

// refuse sends the case's request. Nothing is signed, the answer says why, and
// the log has one refusal for the case's reason and nothing else.
func (f *fixture) refuse(t *testing.T, c refusalCase) (wire.SignRequest, audit.Entry) {
	t.Helper()
	f.advance(2 * time.Second) // for the limit on recorded refusals
	before := len(f.Entries(t))
	in := c.in(t, f)
	out, err := f.Sign.Sign(soon(t), in)
	if code(err) != c.code || !strings.Contains(fmt.Sprint(err), c.text) || len(out.Results) != 0 {
		t.Fatalf("%v, %d signatures; want %s with %q", err, len(out.Results), c.code, c.text)
	}
	entries := f.Entries(t)[before:]
	if len(entries) != 1 || entries[0].Kind != audit.KindRefused || entries[0].Reason != c.reason {
		t.Fatalf("the log has %+v, want one refusal for %q", entries, c.reason)
	}
	return in, entries[0]
}

// one is a request with one item.
func one(make func(t *testing.T, f *fixture) wire.SignItem) func(*testing.T, *fixture) wire.SignRequest {
	return func(t *testing.T, f *fixture) wire.SignRequest { return request(make(t, f)) }
}

func refusedMdoc(change func(*mdoc.Request)) func(*testing.T, *fixture) wire.SignRequest {
	return one(func(t *testing.T, f *fixture) wire.SignItem { return f.mdoc(t, "ds-1", change) })
}

func refusedSDJWT(key string, change func(*sdjwt.Request)) func(*testing.T, *fixture) wire.SignRequest {
	return one(func(t *testing.T, f *fixture) wire.SignItem { return f.sdjwt(t, key, change) })
}

func refusedVC(change func(*w3cvc.Request)) func(*testing.T, *fixture) wire.SignRequest {
	return one(func(t *testing.T, f *fixture) wire.SignItem { return f.jwtvc(t, "did-1", change) })
}

// altered is a good request with its item or itself changed.
func altered(change func(f *fixture, in *wire.SignRequest)) func(*testing.T, *fixture) wire.SignRequest {
	return func(t *testing.T, f *fixture) wire.SignRequest {
		in := request(f.mdoc(t, "ds-1", nil))
		change(f, &in)
		return in
	}
}

// shapeRefusals are requests of a shape that nothing can be signed from.
func shapeRefusals() []refusalCase {
	return []refusalCase{
		{"no items", altered(func(_ *fixture, in *wire.SignRequest) { in.Items = nil }), wire.CodeBadRequest, "items", "0 items"},
		{"too many items", altered(func(_ *fixture, in *wire.SignRequest) {
			in.Items = append(in.Items, make([]wire.SignItem, 128)...)
		}), wire.CodeBadRequest, "items", "129 items"},
		{"offer with a space", altered(func(_ *fixture, in *wire.SignRequest) { in.Offer = "Jane Doe" }), wire.CodeBadRequest, "name", "offer"},
		{"configuration with a letter beyond ASCII", altered(func(_ *fixture, in *wire.SignRequest) { in.Configuration = "é" }), wire.CodeBadRequest, "name", "configuration"},
		{"no credential id", altered(func(_ *fixture, in *wire.SignRequest) { in.Items[0].Credential = "" }), wire.CodeBadRequest, "name", "credential"},
		{"credential id of 257 bytes", altered(func(_ *fixture, in *wire.SignRequest) { in.Items[0].Credential = strings.Repeat("x", 257) }), wire.CodeBadRequest, "name", "credential"},
		{"unknown key", altered(func(_ *fixture, in *wire.SignRequest) { in.Items[0].Key = "ds-2" }), wire.CodeUnknownKey, "unknown-key", "no key"},
		{"no key", altered(func(_ *fixture, in *wire.SignRequest) { in.Items[0].Key = "" }), wire.CodeUnknownKey, "unknown-key", "no key"},
		{"unknown format", altered(func(_ *fixture, in *wire.SignRequest) { in.Items[0].Format = "ldp_vc" }), wire.CodeRefused, "purpose", "does not sign"},
		{"no format", altered(func(_ *fixture, in *wire.SignRequest) { in.Items[0].Format = "" }), wire.CodeRefused, "purpose", "does not sign"},
		{"the second of two", altered(func(_ *fixture, in *wire.SignRequest) {
			in.Items = append(in.Items, in.Items[0])
			in.Items[1].TBS = []byte("x")
		}), wire.CodeRefused, "unparsable", "item 1"},
	}
}

// purposeRefusals ask keys for what their purpose does not sign at all.
func purposeRefusals() (cases []refusalCase) {
	for key, formats := range map[string][]issuance.Format{
		"iaca-1":       {issuance.FormatMdoc, issuance.FormatSDJWT, issuance.FormatJWTVC},
		"status-1":     {issuance.FormatSDJWT, issuance.FormatStatus},
		"metadata-1":   {issuance.FormatMdoc, issuance.FormatSDJWT, issuance.FormatJWTVC, issuance.FormatStatus},
		"checkpoint-1": {issuance.FormatMdoc}, "sealing-1": {issuance.FormatMdoc},
		"ds-1":  {issuance.FormatSDJWT, issuance.FormatJWTVC, issuance.FormatMetadata, issuance.FormatDomain},
		"cs-1":  {issuance.FormatMdoc, issuance.FormatJWTVC, issuance.FormatMetadata, issuance.FormatDomain},
		"did-1": {issuance.FormatMdoc, issuance.FormatMetadata},
	} {
		for _, format := range formats {
			cases = append(cases, refusalCase{key + " for " + string(format), altered(func(_ *fixture, in *wire.SignRequest) {
				in.Items[0].Key, in.Items[0].Format = key, format
			}), wire.CodeRefused, "purpose", "does not sign"})
		}
	}
	return cases
}

// byteRefusals hand over bytes that are not what they are said to be (promise P3).
func byteRefusals() []refusalCase {
	tbs := func(change func(f *fixture, tbs []byte) []byte) func(*testing.T, *fixture) wire.SignRequest {
		return altered(func(f *fixture, in *wire.SignRequest) { in.Items[0].TBS = change(f, bytes.Clone(in.Items[0].TBS)) })
	}
	unparsable := func(name string, in func(*testing.T, *fixture) wire.SignRequest) refusalCase {
		return refusalCase{name, in, wire.CodeRefused, "unparsable", "to be signed"}
	}
	return []refusalCase{
		unparsable("nothing", tbs(func(*fixture, []byte) []byte { return nil })),
		unparsable("a digest", tbs(func(_ *fixture, b []byte) []byte { return []byte(hash(b)[:32]) })),
		unparsable("a probe", tbs(func(*fixture, []byte) []byte { return append([]byte("chancery probe\x00"), make([]byte, 32)...) })),
		unparsable("a checkpoint", tbs(func(*fixture, []byte) []byte { return []byte(signertest.Origin + "\n1\nAAAA\n") })),
		unparsable("a certificate", tbs(func(f *fixture, _ []byte) []byte { return f.ids["ds-1"].Chain[0] })),
		unparsable("a byte more", tbs(func(_ *fixture, b []byte) []byte { return append(b, 0) })),
		unparsable("a byte less", tbs(func(_ *fixture, b []byte) []byte { return b[:len(b)-1] })),
		unparsable("an SD-JWT as an mdoc", one(func(t *testing.T, f *fixture) wire.SignItem {
			it := f.sdjwt(t, "cs-1", nil)
			it.Key, it.Format = "ds-1", issuance.FormatMdoc
			return it
		})),
		unparsable("a JWT VC as an SD-JWT VC", one(func(t *testing.T, f *fixture) wire.SignItem {
			it := f.jwtvc(t, "did-ed", nil)
			it.Format = issuance.FormatSDJWT
			return it
		})),
		unparsable("an SD-JWT VC without exp", one(func(t *testing.T, f *fixture) wire.SignItem {
			return payload(t, "cs-1", issuance.FormatSDJWT, jws.Header{Algorithm: issuance.ES256, Type: "dc+sd-jwt", X5C: f.ids["cs-1"].Chain},
				map[string]any{"vct": "urn:eudi:pid:1", "iat": f.today().Unix()})
		})),
		unparsable("an SD-JWT VC without key", one(func(t *testing.T, f *fixture) wire.SignItem {
			return payload(t, "cs-1", issuance.FormatSDJWT, jws.Header{Algorithm: issuance.ES256, Type: "dc+sd-jwt"},
				map[string]any{"vct": "urn:eudi:pid:1", "iat": f.today().Unix(), "exp": f.today().AddDate(0, 1, 0).Unix()})
		})),
		unparsable("a JWT without vc", one(func(t *testing.T, f *fixture) wire.SignItem {
			return payload(t, "did-1", issuance.FormatJWTVC, jws.Header{Algorithm: issuance.ES256, Type: "JWT", KeyID: f.ids["did-1"].KeyID},
				map[string]any{"iss": f.ids["did-1"].DID, "nbf": f.today().Unix(), "exp": f.today().AddDate(0, 1, 0).Unix()})
		})),
		{"many types", refusedVC(func(r *w3cvc.Request) {
			for range 16 {
				r.Types = append(r.Types, "ResidencePermitCredential")
			}
		}), wire.CodeRefused, "types", "17 types"},
	}
}

// profileRefusals leave the key's profile, its algorithm or its name by one step.
func profileRefusals() []refusalCase {
	refused := func(name, reason, text string, in func(*testing.T, *fixture) wire.SignRequest) refusalCase {
		return refusalCase{name, in, wire.CodeRefused, reason, text}
	}
	return []refusalCase{
		refused("another docType", "profile.types", "org.iso.23220", refusedMdoc(func(r *mdoc.Request) { r.DocType = "org.iso.23220.photoid.1" })),
		refused("another vct", "profile.types", "urn:eudi:pid:2", refusedSDJWT("cs-1", func(r *sdjwt.Request) { r.VCT = "urn:eudi:pid:2" })),
		refused("another type beside", "profile.types", "ExtraCredential", refusedVC(func(r *w3cvc.Request) { r.Types = append(r.Types, "ExtraCredential") })),
		refused("a format outside the profile", "profile.formats", "dc+sd-jwt", one(func(t *testing.T, f *fixture) wire.SignItem { return f.sdjwt(t, "did-1", nil) })),
		refused("another issuer", "profile.issuer", "issuer", refusedSDJWT("cs-1", func(r *sdjwt.Request) { r.Issuer = "https://evil.example" })),
		refused("the issuer with a slash", "profile.issuer", "issuer", refusedSDJWT("cs-1", func(r *sdjwt.Request) { r.Issuer += "/" })),
		refused("another DID", "profile.issuer", "issuer", refusedVC(func(r *w3cvc.Request) {
			r.Issuer, r.KeyID = "did:web:evil.example", "did:web:evil.example#"+strings.Split(r.KeyID, "#")[1]
		})),
		refused("an SD-JWT VC in the URL's name under a DID", "profile.issuer", "issuer", refusedSDJWT("did-ed", func(r *sdjwt.Request) { r.Issuer = signertest.Issuer })),
		refused("valid for too long", "profile.longest_validity_hours", "at most", refusedMdoc(func(r *mdoc.Request) { r.ValidUntil = r.ValidFrom.Add(8761 * time.Hour) })),
		refused("another algorithm in the header", "algorithm", "ES384", refusedMdoc(func(r *mdoc.Request) { r.Algorithm = issuance.ES384 })),
		refused("another algorithm in a JWT", "algorithm", "EdDSA", refusedVC(func(r *w3cvc.Request) { r.Algorithm = issuance.EdDSA })),
		refused("another key's id", "kid", "kid", one(func(t *testing.T, f *fixture) wire.SignItem {
			return f.jwtvc(t, "did-1", func(r *w3cvc.Request) { r.KeyID = f.ids["did-capped"].KeyID })
		})),
		refused("a kid for a key without one", "kid", "kid", refusedSDJWT("cs-1", func(r *sdjwt.Request) { r.KeyID = "did:web:localhost%3A8443#x" })),
		refused("another key's chain", "x5c", "chain", one(func(t *testing.T, f *fixture) wire.SignItem {
			return f.sdjwt(t, "cs-1", func(r *sdjwt.Request) { r.Chain = f.ids["ds-1"].Chain })
		})),
		refused("the anchor in the chain", "x5c", "chain", one(func(t *testing.T, f *fixture) wire.SignItem {
			return f.sdjwt(t, "cs-1", func(r *sdjwt.Request) { r.Chain = append(slices.Clone(r.Chain), f.ids["cs-1"].Anchor) })
		})),
		refused("a chain for a key without one", "x5c", "chain", one(func(t *testing.T, f *fixture) wire.SignItem {
			return f.sdjwt(t, "did-ed", func(r *sdjwt.Request) { r.Chain = f.ids["cs-1"].Chain })
		})),
	}
}

// timeRefusals are wrong by time alone; the clock stands at noon.
func timeRefusals() []refusalCase {
	refused := func(name, reason string, in func(*testing.T, *fixture) wire.SignRequest) refusalCase {
		return refusalCase{name, in, wire.CodeRefused, reason, ""}
	}
	noon := 12 * time.Hour
	return []refusalCase{
		refused("signed in the future", "signed-in-future", refusedMdoc(func(r *mdoc.Request) {
			r.Signed = r.Signed.Add(noon + time.Hour)
			r.ValidFrom = r.Signed
		})),
		refused("nbf of a VC in the future", "signed-in-future", refusedVC(func(r *w3cvc.Request) { r.ValidFrom = r.ValidFrom.Add(noon + time.Hour) })),
		refused("signed three days ago", "signed-too-old", refusedMdoc(func(r *mdoc.Request) { r.Signed = r.Signed.Add(-noon - 49*time.Hour) })),
		refused("expired", "expired", refusedMdoc(func(r *mdoc.Request) { r.ValidUntil = r.ValidFrom.Add(noon - time.Minute) })),
		refused("begins far ahead", "profile.longest_validity_hours", refusedVC(func(r *w3cvc.Request) {
			r.ValidUntil = r.ValidFrom.Add(noon + 8760*time.Hour + time.Hour)
			r.ValidFrom = r.ValidFrom.Add(noon)
		})),
		refused("begins later and ends further away than the longest validity", "profile.longest_validity_hours", refusedSDJWT("cs-1", func(r *sdjwt.Request) {
			r.NotBefore = r.IssuedAt.AddDate(0, 1, 0)
			r.Expires = r.NotBefore.Add(8760 * time.Hour)
		})),
	}
}

// TestRefusals has one defect in each request. Nothing is signed, the answer and
// the log say why.
func TestRefusals(t *testing.T) {
	f := start(t, signertest.Options{})
	f.advance(f.today().Add(84 * time.Hour).Sub(f.now())) // noon, three days later
	for _, group := range [][]refusalCase{shapeRefusals(), purposeRefusals(), byteRefusals(), profileRefusals(), timeRefusals()} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) { f.refuse(t, c) })
		}
	}
	// The same requests without their defects are signed.
	good := request(f.mdoc(t, "ds-1", nil), f.sdjwt(t, "cs-1", nil), f.sdjwt(t, "did-ed", nil), f.jwtvc(t, "did-1", nil),
		f.mdoc(t, "ds-1", func(r *mdoc.Request) { r.Signed = r.Signed.Add(-35 * time.Hour) }),
		f.mdoc(t, "ds-1", func(r *mdoc.Request) { r.ValidUntil = r.ValidFrom.Add(8760 * time.Hour) }),
		f.sdjwt(t, "cs-1", func(r *sdjwt.Request) { r.Issuer = "" }))
	if _, err := f.Sign.Sign(soon(t), good); err != nil {
		t.Error(err)
	}
	if err := f.Stop(t); err != nil {
		t.Fatal(err)
	}
	if db, err := os.ReadFile(f.Config.Signer.Database); err != nil || claimed(db) != "" {
		t.Errorf("%q is in the log's file, %v", claimed(db), err)
	}
}

// TestCertificateTerm asks a key whose certificate ends for what would outlast it.
func TestCertificateTerm(t *testing.T) {
	f := start(t, signertest.Options{})
	tooLong := func() (wire.SignItem, wire.SignItem) {
		return f.mdoc(t, "ds-1", func(r *mdoc.Request) { r.ValidUntil = r.ValidFrom.Add(30 * 24 * time.Hour) }),
			f.jwtvc(t, "did-1", func(r *w3cvc.Request) { r.ValidUntil = r.ValidFrom.Add(30 * 24 * time.Hour) })
	}
	yesterday := func() (wire.SignItem, wire.SignItem) {
		return f.mdoc(t, "ds-1", func(r *mdoc.Request) { r.Signed = r.Signed.Add(-time.Hour) }),
			f.jwtvc(t, "did-1", func(r *w3cvc.Request) { r.ValidFrom = r.ValidFrom.Add(-time.Hour) })
	}
	early, free := yesterday() // before the day of the ceremony
	if _, err := f.Sign.Sign(soon(t), request(early)); code(err) != wire.CodeRefused {
		t.Errorf("before the certificate's beginning: %v", err)
	}
	if _, err := f.Sign.Sign(soon(t), request(free)); err != nil {
		t.Errorf("a DID key has no such beginning: %v", err)
	}
	f.advance(380 * 24 * time.Hour) // of 400
	certified, free := tooLong()
	if _, err := f.Sign.Sign(soon(t), request(certified)); code(err) != wire.CodeRefused {
		t.Errorf("beyond the certificate's end: %v", err)
	}
	if _, err := f.Sign.Sign(soon(t), request(free)); err != nil {
		t.Errorf("a DID key has no such end: %v", err)
	}
	f.advance(21 * 24 * time.Hour)
	certified = f.mdoc(t, "ds-1", func(r *mdoc.Request) {
		r.Signed = f.now().Add(-47 * time.Hour)
		r.ValidFrom, r.ValidUntil = r.Signed, f.now().Add(time.Hour)
	})
	if _, err := f.Sign.Sign(soon(t), request(certified)); code(err) != wire.CodeRefused {
		t.Errorf("after the certificate's end: %v", err)
	}
	refused := f.Entries(t, audit.KindRefused)
	for _, e := range refused {
		if e.Reason != "certificate-validity" {
			t.Errorf("the log has %+v", e)
		}
	}
	if len(refused) != 3 {
		t.Errorf("%d refusals in the log", len(refused))
	}
}

// TestRateCap uses a cap up, also across a restart, and waits as told.
func TestRateCap(t *testing.T) {
	f := start(t, signertest.Options{})
	sign := func(n int) error {
		var items []wire.SignItem
		for range n {
			items = append(items, f.jwtvc(t, "did-capped", nil))
		}
		_, err := f.Sign.Sign(soon(t), request(items...))
		return err
	}
	if err := sign(6); code(err) != wire.CodeBusy || wire.AsError(err).RetryAfter != 60 {
		t.Errorf("more than the cap at once: %v", err)
	}
	if err := sign(3); err != nil {
		t.Fatal(err)
	}
	f.advance(20 * time.Second)
	f.Restart(t)
	if err := sign(3); code(err) != wire.CodeBusy {
		t.Errorf("a restart opened the cap anew: %v", err)
	}
	if err := sign(2); err != nil {
		t.Errorf("what is left of the cap: %v", err)
	}
	err := sign(3)
	e := wire.AsError(err)
	if e == nil || e.Code != wire.CodeBusy || e.RetryAfter < 1 || e.RetryAfter > 40 {
		t.Fatalf("%v; want busy for the rest of the minute", err)
	}
	f.advance(time.Duration(e.RetryAfter) * time.Second)
	if err := sign(3); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	if refused := f.Entries(t, audit.KindRefused); len(refused) != 3 || refused[0].Reason != "rate" || refused[0].Key != "did-capped" {
		t.Errorf("the log has %+v", refused)
	}
}

// TestRefusalsDoNotFillTheLog sends more of them than anybody reads.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	f := start(t, signertest.Options{})
	bad := request(f.mdoc(t, "ds-1", func(r *mdoc.Request) { r.DocType = "another" }))
	refuse := func() {
		t.Helper()
		if _, err := f.Sign.Sign(soon(t), bad); code(err) != wire.CodeRefused {
			t.Fatal(err)
		}
	}
	const sent = 200
	for range sent {
		refuse()
	}
	n := len(f.Entries(t, audit.KindRefused))
	if n < 60 || n > 100 {
		t.Errorf("%d of %d refusals are in the log: the first 60, and one a second", n, sent)
	}
	f.advance(time.Minute)
	refuse()
	refused := f.Entries(t, audit.KindRefused)
	if last := refused[len(refused)-1]; !strings.HasPrefix(string(last.Detail), `{"not_recorded":`) || len(refused) != n+1 {
		t.Errorf("%d entries, the last is %+v: it counts what was left out", len(refused), last)
	}
	// What goes into the entry is chosen, not copied.
	bad.Offer, bad.Items[0].Credential, bad.Items[0].Key, bad.Items[0].Format = "Jane Doe", "Jane Doe", "Jane Doe", "Jane Doe"
	f.advance(time.Minute)
	if _, err := f.Sign.Sign(soon(t), bad); code(err) != wire.CodeBadRequest {
		t.Error(err)
	}
	refused = f.Entries(t, audit.KindRefused)
	if last := refused[len(refused)-1]; last.Offer != "" || last.Credential != "" || last.Key != "" || last.Format != "" || last.Hash != hash(bad.Items[0].TBS) {
		t.Errorf("the entry repeats what it was sent: %+v", last)
	}
}

// TestIdentities holds the public side against what the ceremony wrote.
func TestIdentities(t *testing.T) {
	f := start(t, signertest.Options{})
	if len(f.ids) != 11 {
		t.Fatalf("%d identities", len(f.ids))
	}
	document := f.ids["did-1"].DIDDocument
	for label, id := range f.ids {
		certified := id.Purpose != wire.PurposeDID && id.Purpose != wire.PurposeCheckpoint && id.Purpose != wire.PurposeSealing
		if !id.Ready || (len(id.Chain) == 1) != certified || (len(id.Anchor) > 0) != (certified && id.Purpose != wire.PurposeIACA) ||
			(len(id.CRL) > 0) != (id.Purpose == wire.PurposeIACA) || (len(id.PublicKey) == 0) != (id.Purpose == wire.PurposeSealing) {
			t.Errorf("%s: %+v", label, id)
		}
		if id.Anchor != nil && !bytes.Equal(id.Anchor, f.ids["iaca-1"].Chain[0]) {
			t.Errorf("%s: another anchor", label)
		}
		if id.Purpose != wire.PurposeDID {
			continue
		}
		if id.Profile.Issuer != id.DID || !strings.HasPrefix(id.KeyID, id.DID+"#") || !bytes.Equal(id.DIDDocument, document) {
			t.Errorf("%s: %+v", label, id)
		}
		if !bytes.Contains(document, []byte(id.KeyID)) {
			t.Errorf("the document lacks %s", id.KeyID)
		}
	}
	crl, err := os.ReadFile(filepath.Join(filepath.Dir(f.Ceremony.Outputs[0]), "iaca-1.crl"))
	if err != nil || !bytes.Equal(crl, f.ids["iaca-1"].CRL) {
		t.Errorf("the served CRL is not the ceremony's: %v", err)
	}
}
