package mdoc

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// goldenFile is the golden set, which the verifier's tests keep.
type goldenFile struct {
	DS          hexBytes           `json:"ds"`
	DSKey       hexBytes           `json:"dsPrivateKey_P256_d"`
	DeviceKey   hexBytes           `json:"devicePrivateKey_P256_d"`
	Credentials []goldenCredential `json:"credentials"`
}

type goldenCredential struct {
	Name         string   `json:"name"`
	Alg          string   `json:"alg"`
	DocType      string   `json:"docType"`
	MSO          hexBytes `json:"mso"`
	SigStructure hexBytes `json:"sigStructure"`
	Signature    hexBytes `json:"signature"`
	Credential   string   `json:"credential"`
	Items        []struct {
		DigestID              uint64   `json:"digestID"`
		Namespace             string   `json:"namespace"`
		ElementIdentifier     string   `json:"elementIdentifier"`
		ElementValue          hexBytes `json:"elementValue"`
		Random                hexBytes `json:"random"`
		Digest                hexBytes `json:"digest"`
		IssuerSignedItemBytes hexBytes `json:"issuerSignedItemBytes"`
	} `json:"items"`
}

func golden(t testing.TB) goldenFile {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "verifier", "testdata", "golden", "credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file goldenFile
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// goValue brings a decoded value to the types of an [Element].
func goValue(t testing.TB, v any) any {
	t.Helper()
	switch v := v.(type) {
	case time.Time:
		return TDate(v)
	case cbor.Tag:
		if v.Number != 1004 {
			t.Fatalf("tag %d in a golden value", v.Number)
		}
		return FullDate(v.Content.(string))
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = goValue(t, e)
		}
		return out
	case map[any]any:
		out := map[string]any{}
		for name, e := range v {
			out[name.(string)] = goValue(t, e)
		}
		return out
	}
	return v
}

// script is the randomness that makes prepare choose a golden credential's
// digest ids, salts and padding digests.
func script(g goldenCredential, o securityObject) []byte {
	var namespaces []string
	for namespace := range o.ValueDigests {
		namespaces = append(namespaces, namespace)
	}
	slices.Sort(namespaces)
	var out []byte
	for _, namespace := range namespaces {
		var want []uint64 // element by element, then the padding
		var salts, padding []byte
		for _, i := range g.Items {
			if i.Namespace == namespace {
				want, salts = append(want, i.DigestID), append(salts, i.Random...)
			}
		}
		for id := range uint64(len(o.ValueDigests[namespace])) {
			if !slices.Contains(want, id) {
				want, padding = append(want, id), append(padding, o.ValueDigests[namespace][id]...)
			}
		}
		ids := make([]uint64, len(want))
		for i := range ids {
			ids[i] = uint64(i)
		}
		for i := len(ids) - 1; i > 0; i-- { // Fisher–Yates, with the outcome known
			j := slices.Index(ids, want[i])
			ids[i], ids[j] = ids[j], ids[i]
			out = append(out, byte(j>>8), byte(j))
		}
		out = append(append(out, salts...), padding...)
	}
	return out
}

// goldenRequest is the request that gives a golden credential.
func goldenRequest(t testing.TB, file goldenFile, g goldenCredential, o securityObject) Request {
	t.Helper()
	device, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), file.DeviceKey)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{DocType: g.DocType, DeviceKey: device.Public(), Chain: [][]byte{file.DS}, Algorithm: issuance.ES256,
		Signed: time.Time(o.ValidityInfo.Signed), ValidFrom: time.Time(o.ValidityInfo.ValidFrom), ValidUntil: time.Time(o.ValidityInfo.ValidUntil)}
	if update := o.ValidityInfo.ExpectedUpdate; update != nil {
		r.ExpectedUpdate = time.Time(*update)
	}
	if o.Status != nil && o.Status.StatusList.URI != "" {
		r.Status = &StatusReference{o.Status.StatusList.URI, o.Status.StatusList.Index}
	}
	count := map[string]int{}
	for _, i := range g.Items {
		var value any
		if err := cbor.Unmarshal(i.ElementValue, &value); err != nil {
			t.Fatal(err)
		}
		r.Elements = append(r.Elements, Element{i.Namespace, i.ElementIdentifier, goValue(t, value)})
		count[i.Namespace]++
	}
	for namespace, digests := range o.ValueDigests {
		if len(digests) > count[namespace] {
			r.PadTo = len(digests)
		}
	}
	return r
}

// TestGoldenCredentials makes the golden credentials again, byte for byte, with
// their randomness, and signs them with their key.
func TestGoldenCredentials(t *testing.T) {
	file := golden(t)
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), file.DSKey)
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for _, g := range file.Credentials {
		if g.Alg != "ES256" {
			continue // its digests are SHA-384: TestGoldenSHA384
		}
		t.Run(g.Name, func(t *testing.T) {
			var o securityObject
			if err := cbor.Unmarshal(g.MSO, &o); err != nil {
				t.Fatal(err)
			}
			r := goldenRequest(t, file, g, o)
			p, err := prepare(r, bufio.NewReader(bytes.NewReader(script(g, o))))
			if err != nil {
				t.Fatal(err)
			}
			if o.Status != nil && r.Status == nil {
				identifierList(t, g, p)
				return
			}
			whole++
			if !bytes.Equal(p.TBS, g.SigStructure) {
				t.Fatalf("Sig_structure\n%x, want\n%x", p.TBS, g.SigStructure)
			}
			signature := issuancetest.Sign(t, key, p.TBS)
			if !bytes.Equal(signature, g.Signature) {
				t.Errorf("signature %x, want %x", signature, g.Signature)
			}
			text, err := p.Assemble(signature)
			if err != nil || text != g.Credential {
				t.Errorf("credential (%v)\n%s, want\n%s", err, text, g.Credential)
			}
			s, err := ParseTBS(g.SigStructure)
			if err != nil || s.Types[0] != g.DocType || !s.ValidUntil.Equal(r.ValidUntil) {
				t.Errorf("the golden bytes read as %+v, %v", s, err)
			}
		})
	}
	if whole < 2 {
		t.Errorf("only %d golden credentials were made whole", whole)
	}
}

// identifierList: a reference into an identifier list is not made here, and not
// signed; all else of that credential is the same.
func identifierList(t *testing.T, g goldenCredential, p *issuance.Prepared) {
	var members map[string]cbor.RawMessage
	if err := cbor.Unmarshal(g.MSO, &members); err != nil {
		t.Fatal(err)
	}
	delete(members, "status")
	want, err := encoder.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	if got := payloadOf(t, p.TBS); !bytes.Equal(got, mustEmbed(t, want)) {
		t.Errorf("security object\n%x, want\n%x", got, mustEmbed(t, want))
	}
	if _, err := ParseTBS(g.SigStructure); err == nil {
		t.Error("an identifier list is signed")
	}
}

// TestGoldenSHA384: what other issuers may do, this appliance does not sign.
func TestGoldenSHA384(t *testing.T) {
	for _, g := range golden(t).Credentials {
		if g.Alg != "ES384" {
			continue
		}
		if _, err := ParseTBS(g.SigStructure); err == nil || !strings.Contains(err.Error(), "SHA-256") {
			t.Errorf("%s: %v", g.Name, err)
		}
		for _, i := range g.Items { // the items do not depend on the hash
			inner, err := unembed(i.IssuerSignedItemBytes)
			if err != nil {
				t.Fatal(err)
			}
			var read item
			if err := strict.Unmarshal(inner, &read); err != nil {
				t.Fatal(err)
			}
			if again, err := encoder.Marshal(read); err != nil || !bytes.Equal(mustEmbed(t, again), i.IssuerSignedItemBytes) {
				t.Errorf("%s: item %s is written as %x", g.Name, i.ElementIdentifier, again)
			}
		}
	}
}

func annexD(t testing.TB, name string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.TrimSpace(string(issuancetest.Vector(t, "mdoc", "annex-d", name))))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestAnnexD holds what this package builds against ISO/IEC 18013-5 Annex D.
// Its maps are not sorted, so what can be compared are the parts.
func TestAnnexD(t *testing.T) {
	want := annexD(t, "sig_structure.hex")
	payload := annexD(t, "mso_bytes.hex")
	if !bytes.Equal(mustEmbed(t, annexD(t, "mso.hex")), payload) {
		t.Error("MobileSecurityObjectBytes differ")
	}
	protected, err := protectedHeader(issuance.ES256)
	if err != nil {
		t.Fatal(err)
	}
	if tbs, err := sigStructure(protected, payload); err != nil || !bytes.Equal(tbs, want) {
		t.Errorf("Sig_structure %x (%v), want %x", tbs, err, want)
	}
	if _, err := ParseTBS(want); err == nil || !strings.Contains(err.Error(), "deterministic") {
		t.Errorf("an unsorted security object: %v", err)
	}
	var o securityObject
	if err := cbor.Unmarshal(annexD(t, "mso.hex"), &o); err != nil {
		t.Fatal(err)
	}
	var c credential
	if err := cbor.Unmarshal(annexD(t, "issuer_signed.hex"), &c); err != nil {
		t.Fatal(err)
	}
	count := 0
	for namespace, items := range c.NameSpaces {
		for _, raw := range items {
			i := readItem(t, raw)
			if sum := sha256.Sum256(raw); !bytes.Equal(sum[:], o.ValueDigests[namespace][i.DigestID]) {
				t.Errorf("the digest of %s differs", i.ElementIdentifier)
			}
			inner, err := unembed(raw)
			if err != nil || !bytes.Equal(mustEmbed(t, inner), raw) {
				t.Errorf("%s: %v", i.ElementIdentifier, err)
			}
			count++
		}
	}
	if count != 6 {
		t.Errorf("%d items", count)
	}
	if err := checkCOSEKey(o.DeviceKeyInfo.DeviceKey); err != nil {
		t.Errorf("the device key: %v", err)
	}
}

// TestAnnexDDrivingPrivileges writes D.2.1's value; sorted, it has the same
// members and length.
func TestAnnexDDrivingPrivileges(t *testing.T) {
	want := annexD(t, "driving_privileges.hex")
	got, err := encoder.Marshal([]any{
		map[string]any{"vehicle_category_code": "A", "issue_date": FullDate("2018-08-09"), "expiry_date": FullDate("2024-10-20")},
		map[string]any{"vehicle_category_code": "B", "issue_date": FullDate("2017-02-23"), "expiry_date": FullDate("2024-10-20")},
	})
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if cbor.Unmarshal(got, &a) != nil || cbor.Unmarshal(want, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) || len(got) != len(want) {
		t.Errorf("%x\n%v, want\n%v", got, a, b)
	}
}
