package configuration

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/mdoc"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
)

var parsers = map[issuance.Format]func([]byte) (issuance.Statement, error){
	issuance.FormatMdoc: mdoc.ParseTBS, issuance.FormatSDJWT: sdjwt.ParseTBS, issuance.FormatJWTVC: w3cvc.ParseTBS,
}

// materialFor is what a key of the format's purpose adds.
func materialFor(t testing.TB, c *Configuration) Material {
	t.Helper()
	m := material(t)
	if c.Format == issuance.FormatJWTVC {
		m.Issuer, m.KeyID, m.Chain = "did:web:issuer.example", "did:web:issuer.example#k", nil
	}
	return m
}

// issue prepares a credential, reads what would be signed as the signer does,
// and puts it together.
func issue(t testing.TB, c *Configuration, claims json.RawMessage) (issuance.Statement, string) {
	t.Helper()
	prepared, err := c.Prepare(claims, materialFor(t, c))
	if err != nil {
		t.Fatalf("claims were accepted and cannot be issued: %v", err)
	}
	s, err := parsers[c.Format](prepared.TBS)
	if err != nil {
		t.Fatalf("what was prepared is not signed: %v", err)
	}
	text, err := prepared.Assemble(make([]byte, prepared.Algorithm.SignatureSize()))
	if err != nil {
		t.Fatal(err)
	}
	return s, text
}

// TestExamples prepares a credential of every example configuration from its
// sample claims and parses what would be signed.
func TestExamples(t *testing.T) {
	all := load(t)
	if len(all) < 4 {
		t.Fatalf("%d example configurations", len(all))
	}
	for id, c := range all {
		t.Run(id, func(t *testing.T) {
			if problems := c.CheckClaims(sample(t, id), now); len(problems) > 0 {
				t.Fatalf("the sample claims: %+v", problems)
			}
			s, _ := issue(t, c, sample(t, id))
			day := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
			if !s.Signed.Equal(day) || !s.ValidFrom.Equal(day) || !s.ValidUntil.After(now) || s.ValidUntil.Sub(day) > c.ValidFor {
				t.Errorf("signed %v, valid from %v until %v", s.Signed, s.ValidFrom, s.ValidUntil)
			}
			// The sample is complete: it gives every claim that is not fixed or derived.
			var object map[string]any
			if err := json.Unmarshal(sample(t, id), &object); err != nil {
				t.Fatal(err)
			}
			beyondASCII := false
			for i := range c.Claims {
				claim := &c.Claims[i]
				given := lookUp(object, claim.source)
				if claim.Value == nil && claim.Type != TypeAgeOver && given == nil {
					t.Errorf("the sample has no %s", claim.sourceName())
				}
				if text, ok := given.(string); ok && strings.ContainsFunc(text, func(r rune) bool { return r > 0x7f }) {
					beyondASCII = true
				}
				for _, locale := range []string{"en", "de"} {
					if claim.Display[locale] == "" {
						t.Errorf("%v has no name in %s", claim.Path, locale)
					}
				}
			}
			if !beyondASCII {
				t.Error("no name of the sample goes beyond ASCII")
			}
		})
	}
}

// issuerSigned reads an mdoc's elements without this project's decoder.
func issuerSigned(t testing.TB, text string) map[string]map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		NameSpaces map[string][]cbor.Tag `cbor:"nameSpaces"`
		IssuerAuth []any                 `cbor:"issuerAuth"`
	}
	if err := cbor.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]any{}
	for namespace, items := range c.NameSpaces {
		out[namespace] = map[string]any{}
		for _, tag := range items {
			var item struct {
				Identifier string `cbor:"elementIdentifier"`
				Value      any    `cbor:"elementValue"`
			}
			if err := cbor.Unmarshal(tag.Content.([]byte), &item); err != nil {
				t.Fatal(err)
			}
			out[namespace][item.Identifier] = item.Value
		}
	}
	return out
}

// TestDrivingLicence looks at the type of every mandatory element of an mDL
// (ISO/IEC 18013-5 table 5), and at those derived.
func TestDrivingLicence(t *testing.T) {
	c := load(t)["org.iso.18013.5.1.mDL"]
	_, text := issue(t, c, sample(t, c.ID))
	all := issuerSigned(t, text)
	elements := all["org.iso.18013.5.1"]
	date := func(text string) cbor.Tag { return cbor.Tag{Number: 1004, Content: text} }
	for name, want := range map[string]any{
		"family_name": "Ångström-Müller", "given_name": "Zoë Renée", "birth_date": date("1987-03-14"), "issue_date": date("2026-09-01"), "expiry_date": date("2036-08-31"),
		"issuing_country": "UT", "issuing_authority": "Utopia Driver Licensing Office", "document_number": "UT-DL-4711-0815", "un_distinguishing_sign": "UTO",
		"sex": uint64(2), "height": uint64(171), "portrait_capture_date": time.Date(2026, 8, 20, 9, 30, 0, 0, time.UTC),
		"age_over_13": true, "age_over_18": true, "age_over_25": true, "age_over_60": false, "age_over_68": false,
	} {
		if got := elements[name]; !reflect.DeepEqual(got, want) {
			if moment, ok := got.(time.Time); !ok || !moment.Equal(want.(time.Time)) {
				t.Errorf("%s is %#v, want %#v", name, got, want)
			}
		}
	}
	if portrait, ok := elements["portrait"].([]byte); !ok || len(portrait) < 4000 || portrait[0] != 0xff || portrait[1] != 0xd8 || portrait[2] != 0xff {
		t.Errorf("portrait is %T", elements["portrait"])
	}
	want := []any{
		map[any]any{"vehicle_category_code": "AM", "issue_date": date("2005-06-20"), "expiry_date": date("2036-08-31")},
		map[any]any{"vehicle_category_code": "B", "issue_date": date("2006-03-20"), "expiry_date": date("2036-08-31"),
			"codes": []any{map[any]any{"code": "01.06"}, map[any]any{"code": "78"}}},
		map[any]any{"vehicle_category_code": "C1", "issue_date": date("2011-10-03"), "expiry_date": date("2031-10-02"),
			"codes": []any{map[any]any{"code": "S01", "sign": "<=", "value": "7500"}}},
	}
	if !reflect.DeepEqual(elements["driving_privileges"], want) {
		t.Errorf("driving_privileges %v", elements["driving_privileges"])
	}
	if len(all) != 1 || len(elements) != len(c.Claims) {
		t.Errorf("%d elements of %d claims", len(elements), len(c.Claims))
	}
}

// pidElements are the PID Rulebook's names in both formats; "" where a claim has
// no place of its own.
var pidElements = map[string]string{
	"family_name": "family_name", "given_name": "given_name", "birth_date": "birthdate", "place_of_birth": "place_of_birth", "nationality": "nationalities",
	"portrait": "picture", "resident_address": "address/formatted", "resident_country": "address/country", "resident_state": "address/region",
	"resident_city": "address/locality", "resident_postal_code": "address/postal_code", "resident_street": "address/street_address",
	"personal_administrative_number": "personal_administrative_number", "family_name_birth": "birth_family_name", "given_name_birth": "birth_given_name",
	"sex": "sex", "email_address": "email", "mobile_phone_number": "phone_number", "expiry_date": "date_of_expiry", "issuance_date": "date_of_issuance",
	"issuing_authority": "issuing_authority", "issuing_country": "issuing_country", "document_number": "document_number", "issuing_jurisdiction": "issuing_jurisdiction",
	"trust_anchor": "trust_anchor", "attestation_legal_category": "attestation_legal_category",
}

// TestPersonIdentificationData holds both example PIDs against the Rulebook's names.
func TestPersonIdentificationData(t *testing.T) {
	all := load(t)
	inMdoc, inSDJWT := all["eu.europa.ec.eudi.pid.mdoc"], all["eu.europa.ec.eudi.pid.sdjwt"]
	_, text := issue(t, inMdoc, sample(t, inMdoc.ID))
	elements := issuerSigned(t, text)["eu.europa.ec.eudi.pid.1"]
	_, text = issue(t, inSDJWT, sample(t, inSDJWT.ID))
	compact, disclosures, _ := strings.Cut(strings.TrimSuffix(text, "~"), "~")
	disclosed := map[string]any{}
	for disclosure := range strings.SplitSeq(disclosures, "~") {
		var content []any
		data, err := base64.RawURLEncoding.DecodeString(disclosure)
		if err != nil || json.Unmarshal(data, &content) != nil {
			t.Fatal(disclosure)
		}
		if len(content) == 3 {
			disclosed[content[1].(string)] = content[2]
		}
	}
	payload := payloadOf(t, compact)
	for element, claim := range pidElements {
		if elements[element] == nil {
			t.Errorf("the mdoc has no %s", element)
		}
		name := claim[strings.LastIndex(claim, "/")+1:]
		if claim == "nationalities" {
			if list, _ := payload[claim].([]any); len(list) != 8 { // two, padded
				t.Errorf("nationalities is %v", payload[claim])
			}
		} else if disclosed[name] == nil || payload[name] != nil {
			t.Errorf("the SD-JWT VC has no disclosure of its own for %s", claim)
		}
	}
	if len(elements) != len(pidElements) || len(inSDJWT.Claims) != len(pidElements) {
		t.Errorf("%d elements and %d claims, want %d", len(elements), len(inSDJWT.Claims), len(pidElements))
	}
	if place, ok := elements["place_of_birth"].(map[any]any); !ok || place["locality"] != "Göteborg" || place["country"] != "UT" {
		t.Errorf("place_of_birth is %v", elements["place_of_birth"])
	}
	if list, ok := elements["nationality"].([]any); !ok || !slices.Equal(list, []any{"UT", "SE"}) {
		t.Errorf("nationality is %v", elements["nationality"])
	}
	if picture, _ := disclosed["picture"].(string); !strings.HasPrefix(picture, "data:image/jpeg;base64,/9j/") {
		t.Errorf("picture begins with %.30s", picture)
	}
	if address, _ := payload["address"].(map[string]any); len(address) != 1 || len(address["_sd"].([]any)) != 8 {
		t.Errorf("address is %v", payload["address"])
	}
}

func payloadOf(t testing.TB, compact string) map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(compact, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var payload map[string]any
	if err := json.Unmarshal(data, &payload); err != nil {
		t.Fatal(err)
	}
	return payload
}

// TestResidencePermit looks at a W3C VC's claims.
func TestResidencePermit(t *testing.T) {
	c := load(t)["org.example.residence.jwt"]
	m := materialFor(t, c)
	m.HolderDID = "did:key:zHolder"
	p, err := c.Prepare(sample(t, c.ID), m)
	if err != nil {
		t.Fatal(err)
	}
	payload := payloadOf(t, string(p.TBS))
	subject := payload["vc"].(map[string]any)["credentialSubject"].(map[string]any)
	permit, _ := subject["permit"].(map[string]any)
	if payload["sub"] != "did:key:zHolder" || payload["jti"] != "urn:uuid:b2f3" || subject["work_permitted"] != true || subject["birth_date"] != "1987-03-14" ||
		subject["sex"] != 2.0 || permit["number"] != "UT-RP-2026-004812" || permit["valid_until"] != "2031-08-31" || len(subject["remarks"].([]any)) != 2 {
		t.Errorf("%v", payload)
	}
	m.HolderDID = ""
	if p, err = c.Prepare(sample(t, c.ID), m); err != nil {
		t.Fatal(err)
	}
	if sub, _ := payloadOf(t, string(p.TBS))["sub"].(string); !strings.HasPrefix(sub, "did:jwk:") {
		t.Errorf("sub is %s", sub)
	}
}

// TestValidity: times are cut to days, or hours, so that they tell nothing of
// the moment of issuing, and stay within the certificate's.
func TestValidity(t *testing.T) {
	at := func(text string) time.Time {
		moment, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	for name, test := range map[string]struct {
		validFor, now, notBefore, notAfter, from, until string
	}{
		"days":               {"336h", "2026-11-24T15:30:12Z", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T00:00:00Z", "2026-12-07T23:59:59Z"},
		"first second":       {"336h", "2026-11-24T00:00:00Z", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T00:00:00Z", "2026-12-07T23:59:59Z"},
		"last second":        {"336h", "2026-11-24T23:59:59Z", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T00:00:00Z", "2026-12-07T23:59:59Z"},
		"another zone":       {"336h", "2026-11-25T00:30:00+01:00", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T00:00:00Z", "2026-12-07T23:59:59Z"},
		"two days":           {"48h", "2026-11-24T15:30:12Z", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T00:00:00Z", "2026-11-25T23:59:59Z"},
		"days and a half":    {"60h", "2026-11-24T15:30:12Z", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T00:00:00Z", "2026-11-25T23:59:59Z"},
		"a day":              {"24h", "2026-11-24T15:30:12Z", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T15:00:00Z", "2026-11-25T14:59:59Z"},
		"two hours, at last": {"2h", "2026-11-24T15:59:59Z", "2026-01-01T00:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T15:00:00Z", "2026-11-24T16:59:59Z"},
		"new certificate":    {"336h", "2026-11-24T15:30:12Z", "2026-11-24T10:00:00Z", "2027-12-31T00:00:00Z", "2026-11-24T10:00:00Z", "2026-12-07T23:59:59Z"},
		"old certificate":    {"336h", "2026-11-24T15:30:12Z", "2026-01-01T00:00:00Z", "2026-11-30T12:00:00Z", "2026-11-24T00:00:00Z", "2026-11-30T12:00:00Z"},
		"no certificate":     {"336h", "2026-11-24T15:30:12Z", "", "", "2026-11-24T00:00:00Z", "2026-12-07T23:59:59Z"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Configuration{}
			var err error
			if c.ValidFor, err = time.ParseDuration(test.validFor); err != nil {
				t.Fatal(err)
			}
			m := Material{Now: at(test.now)}
			if test.notBefore != "" {
				m.NotBefore, m.NotAfter = at(test.notBefore), at(test.notAfter)
			}
			from, until, err := c.validity(nil, m)
			if err != nil || !from.Equal(at(test.from)) || !until.Equal(at(test.until)) {
				t.Errorf("from %v until %v (%v)", from, until, err)
			}
		})
	}
}

// TestTimesDoNotTrackTheHolder: whoever is issued to within the same day gets
// the same times, whatever the moment.
func TestTimesDoNotTrackTheHolder(t *testing.T) {
	all := load(t)
	midnight := now.Truncate(24 * time.Hour)
	for id, c := range all {
		claims := sample(t, id)
		rapid.Check(t, func(rt *rapid.T) {
			var statements [2]issuance.Statement
			for i := range statements {
				m := materialFor(t, c)
				m.Now = midnight.Add(time.Duration(rapid.Int64Range(0, int64(24*time.Hour)-1).Draw(rt, "moment")))
				p, err := c.Prepare(claims, m)
				if err != nil {
					rt.Fatal(err)
				}
				if statements[i], err = parsers[c.Format](p.TBS); err != nil {
					rt.Fatal(err)
				}
				statements[i].Chain = nil
			}
			if !reflect.DeepEqual(statements[0], statements[1]) {
				rt.Fatalf("%s: %+v and %+v", id, statements[0], statements[1])
			}
		})
	}
}

// TestFIPS runs the examples where only FIPS 140's algorithms are allowed.
func TestFIPS(t *testing.T) {
	command := exec.Command(os.Args[0], "-test.run=^TestExamples$", "-test.count=1")
	command.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestVersion is the file's hash, whatever it says.
func TestVersion(t *testing.T) {
	file := filepath.Join(examples, "configurations", "org.example.residence.jwt.toml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(file, data)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(data); c.Version != hexOf(sum[:]) || c.BatchSize != 10 {
		t.Errorf("version %s, batch size %d", c.Version, c.BatchSize)
	}
}

func hexOf(data []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, b := range data {
		s.WriteByte(digits[b>>4])
		s.WriteByte(digits[b&15])
	}
	return s.String()
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(examples, "configurations", "*.toml"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no example configurations: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(small))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("x", data)
		if err != nil {
			return
		}
		if _, err := json.Marshal(c.Metadata([]issuance.Algorithm{issuance.ES256})); err != nil {
			t.Fatal(err)
		}
		claims := json.RawMessage(`{"family_name":"x","birth_date":"2000-01-01","a":"x","b":{"c":1},"list":["x"]}`)
		if len(c.CheckClaims(claims, now)) == 0 && c.nonEmpty(t, claims) {
			issue(t, c, claims)
		}
	})
}

// nonEmpty tells whether any claim comes of it: an mdoc without elements is none.
func (c *Configuration) nonEmpty(t testing.TB, claims json.RawMessage) bool {
	object, problem := decodeClaims(claims)
	if problem != nil {
		t.Fatal(problem)
	}
	values, _ := c.convertAll(object, c.births(object), now)
	return len(values) > 0
}

func FuzzCheckClaims(f *testing.F) {
	all := load(f)
	for id := range all {
		f.Add([]byte(sample(f, id)))
	}
	f.Add([]byte(`{"birth_date":"0000-00-00","driving_privileges":[{}],"portrait":"/9j/"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range all {
			if len(c.CheckClaims(data, now)) == 0 {
				issue(t, c, data)
			}
		}
	})
}

func BenchmarkPrepare(b *testing.B) {
	for id, c := range load(b) {
		b.Run(id, func(b *testing.B) {
			claims, m := sample(b, id), materialFor(b, c)
			for b.Loop() {
				if _, err := c.Prepare(claims, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCheckClaims(b *testing.B) {
	for id, c := range load(b) {
		b.Run(id, func(b *testing.B) {
			claims := sample(b, id)
			for b.Loop() {
				if problems := c.CheckClaims(claims, now); len(problems) > 0 {
					b.Fatal(problems)
				}
			}
		})
	}
}
