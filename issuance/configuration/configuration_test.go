package configuration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/issuance"
)

const examples = "../../examples"

var now = time.Date(2026, 11, 24, 15, 30, 12, 0, time.UTC)

func load(t testing.TB) map[string]*Configuration {
	t.Helper()
	all, err := LoadDir(filepath.Join(examples, "configurations"))
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]*Configuration{}
	for _, c := range all {
		byID[c.ID] = c
	}
	return byID
}

func sample(t testing.TB, id string) json.RawMessage {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(examples, "claims", id+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func material(t testing.TB) Material {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Material{Holder: key.Public(), Chain: [][]byte{[]byte("certificate")}, Issuer: "https://issuer.example", Algorithm: issuance.ES256,
		CredentialID: "b2f3", Now: now, NotBefore: now.Add(-100 * 24 * time.Hour), NotAfter: now.Add(400 * 24 * time.Hour)}
}

// TestClaimRefusals changes one claim of a sample and expects the problem to
// name it and to hold no value.
func TestClaimRefusals(t *testing.T) {
	all := load(t)
	const mdl, pid, residence = "org.iso.18013.5.1.mDL", "eu.europa.ec.eudi.pid.sdjwt", "org.example.residence.jwt"
	for _, test := range []struct {
		id, param string
		change    func(c map[string]any)
	}{
		{mdl, "family_name", func(c map[string]any) { delete(c, "family_name") }},
		{mdl, "family_name", func(c map[string]any) { c["family_name"] = "SECRETVALUE Đorđević" }},
		{mdl, "family_name", func(c map[string]any) { c["family_name"] = strings.Repeat("SECRETVALUE", 20) }},
		{mdl, "family_name", func(c map[string]any) { c["family_name"] = 5 }},
		{mdl, "family_name", func(c map[string]any) { c["family_name"] = "SECRETVALUE\n" }},
		{mdl, "birth_date", func(c map[string]any) { c["birth_date"] = "1987-02-30" }},
		{mdl, "birth_date", func(c map[string]any) { c["birth_date"] = "SECRETVALUE" }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = "SECRETVALUE!" }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = "AAAA" }},
		{mdl, "height", func(c map[string]any) { c["height"] = 17.5 }},
		{mdl, "height", func(c map[string]any) { c["height"] = 1700 }},
		{mdl, "portrait_capture_date", func(c map[string]any) { c["portrait_capture_date"] = "2026-08-20" }},
		{mdl, "driving_privileges", func(c map[string]any) { c["driving_privileges"] = []any{map[string]any{"issue_date": "2020-01-01"}} }},
		{mdl, "driving_privileges", func(c map[string]any) {
			c["driving_privileges"] = []any{map[string]any{"vehicle_category_code": "B", "codes": []any{map[string]any{"sign": "="}}}}
		}},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = c["portrait"].(string) + "\n" }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = "data:image/png;base64," + c["portrait"].(string) }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = changed(t, c, cut) }},
		{mdl, "portrait", func(c map[string]any) {
			c["portrait"] = changed(t, c, func(data []byte) []byte { return append(data, "SECRETVALUE"...) })
		}},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = changed(t, c, segment(0xe1, "Exif\x00\x00")) }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = changed(t, c, segment(0xed, "Photoshop 3.0\x00")) }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = changed(t, c, segment(0xfe, strings.Repeat("x", 65000))) }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n")) }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = base64.StdEncoding.EncodeToString(large(t)) }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = "" }},
		{mdl, "portrait", func(c map[string]any) { c["portrait"] = []any{} }},
		{mdl, "sex", func(c map[string]any) { c["sex"] = 5 }},
		{mdl, "sex", func(c map[string]any) { c["sex"] = "2" }},
		{mdl, "sex", func(c map[string]any) { c["sex"] = json.Number("1e0") }},
		{mdl, "eye_colour", func(c map[string]any) { c["eye_colour"] = "SECRETVALUE" }},
		{mdl, "family_name", func(c map[string]any) { c["family_name"] = "SECRETVALUE\u0085" }},
		{pid, "family_name", func(c map[string]any) { c["family_name"] = "SECRETVALUE M\ufffdller" }},
		{mdl, "family_name", func(c map[string]any) { c["family_name"] = "" }},
		{mdl, "family_name", func(c map[string]any) { c["family_name"] = nil }},
		{mdl, "family_name_national_character", func(c map[string]any) { c["family_name_national_character"] = strings.Repeat("佐", 4097) }},
		{mdl, "portrait_capture_date", func(c map[string]any) { c["portrait_capture_date"] = "2026-08-20T09:30:00" }},
		{mdl, "portrait_capture_date", func(c map[string]any) { c["portrait_capture_date"] = "0000-01-01T00:00:00Z" }},
		{mdl, "portrait_capture_date", func(c map[string]any) { c["portrait_capture_date"] = "9999-12-31T23:59:59-01:00" }},
		{mdl, "driving_privileges", func(c map[string]any) { c["driving_privileges"] = "B" }},
		{mdl, "driving_privileges", func(c map[string]any) { c["driving_privileges"] = []any{"B"} }},
		{mdl, "driving_privileges", privilege("expiry_date", "SECRETVALUE")},
		{mdl, "driving_privileges", privilege("issue_date", 20200101)},
		{mdl, "driving_privileges", privilege("vehicle_category_code", "")},
		{mdl, "driving_privileges", privilege("licence", "SECRETVALUE")},
		{mdl, "driving_privileges", privilege("codes", []any{})},
		{mdl, "driving_privileges", privilege("codes", []any{"01"})},
		{mdl, "driving_privileges", privilege("codes", []any{map[string]any{"code": "01", "note": "SECRETVALUE"}})},
		{mdl, "driving_privileges", privilege("codes", []any{map[string]any{"code": "S01", "sign": 1}})},
		{mdl, "driving_privileges", func(c map[string]any) { c["driving_privileges"] = make([]any, 65) }},
		{mdl, "nationality", func(c map[string]any) { c["nationality"] = "ut" }},
		{mdl, "nationality", func(c map[string]any) { c["nationality"] = "UTO" }},
		{mdl, "unknown_claim", func(c map[string]any) { c["unknown_claim"] = "SECRETVALUE" }},
		{mdl, "issuing_country", func(c map[string]any) { c["issuing_country"] = "XX" }},
		{mdl, "age_over_18", func(c map[string]any) { c["age_over_18"] = true }},
		{pid, "nationalities", func(c map[string]any) { c["nationalities"] = []any{} }},
		{pid, "nationalities", func(c map[string]any) { c["nationalities"] = []any{"SECRETVALUE"} }},
		{pid, "nationalities", func(c map[string]any) { c["nationalities"] = "UT" }},
		{pid, "nationalities", func(c map[string]any) { c["nationalities"] = make([]any, 65) }},
		{pid, "birthdate", func(c map[string]any) { c["birthdate"] = "1987-3-14" }},
		{pid, "place_of_birth", func(c map[string]any) { c["place_of_birth"] = map[string]any{} }},
		{pid, "place_of_birth", func(c map[string]any) { c["place_of_birth"] = "SECRETVALUE" }},
		{pid, "place_of_birth", func(c map[string]any) { c["place_of_birth"].(map[string]any)["country"] = "SECRETVALUE" }},
		{pid, "attestation_legal_category", func(c map[string]any) { c["attestation_legal_category"] = "PID" }},
		{pid, strings.Repeat("x", 63) + "…", func(c map[string]any) { c[strings.Repeat("x", 63)+"éSECRETVALUE"] = 1 }},
		{residence, "remarks", func(c map[string]any) { c["remarks"] = []any{"a", ""} }},
		{residence, "remarks", func(c map[string]any) { c["remarks"] = []any{"a", []any{}} }},
		{pid, "address.planet", func(c map[string]any) { c["address"].(map[string]any)["planet"] = "SECRETVALUE" }},
		{pid, "address", func(c map[string]any) { c["address"] = "SECRETVALUE" }},
		{pid, "place_of_birth", func(c map[string]any) { c["place_of_birth"].(map[string]any)["street"] = "SECRETVALUE" }},
		{residence, "permit.number", func(c map[string]any) { delete(c["permit"].(map[string]any), "number") }},
		{residence, "work_permitted", func(c map[string]any) { c["work_permitted"] = "yes" }},
	} {
		var claims map[string]any
		if err := json.Unmarshal(sample(t, test.id), &claims); err != nil {
			t.Fatal(err)
		}
		test.change(claims)
		data, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		problems := all[test.id].CheckClaims(data, now)
		if len(problems) != 1 || problems[0].Param != test.param {
			t.Errorf("%s %s: %+v", test.id, test.param, problems)
			continue
		}
		if strings.Contains(problems[0].Message+problems[0].Param, "SECRETVALUE") {
			t.Errorf("the problem holds the value: %+v", problems[0])
		}
	}
	for name, data := range map[string]string{"array": "[]", "twice": `{"a":1,"a":2}`, "text": "x", "tail": "{} {}", "Latin-1": "{\"family_name\":\"M\xfcller\"}",
		"lone surrogate": `{"family_name":"\ud800"}`, "too long": string(sample(t, pid)) + strings.Repeat(" ", MaxClaims)} {
		if p := all[pid].CheckClaims(json.RawMessage(data), now); len(p) != 1 || p[0].Param != "claims" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// changed returns the sample's portrait after a change to its bytes.
func changed(t testing.TB, claims map[string]any, change func([]byte) []byte) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(claims["portrait"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(change(data))
}

// cut leaves the head of a JPEG whole and half of its picture.
func cut(data []byte) []byte { return data[:len(data)/2] }

// segment puts a segment behind a JPEG's first two bytes.
func segment(marker byte, content string) func([]byte) []byte {
	return func(data []byte) []byte {
		n := len(content) + 2
		return slices.Concat(data[:2], []byte{0xff, marker, byte(n >> 8), byte(n)}, []byte(content), data[2:])
	}
}

// large is a small JPEG of too many pixels.
func large(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, maxImagePixels+1, 8)), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// privilege changes a member of the first driving privilege.
func privilege(name string, value any) func(map[string]any) {
	return func(c map[string]any) { c["driving_privileges"].([]any)[0].(map[string]any)[name] = value }
}

// TestImageTakes what is around the picture and says nothing about the person.
func TestImageTakes(t *testing.T) {
	c := load(t)["org.iso.18013.5.1.mDL"]
	var claims map[string]any
	if err := json.Unmarshal(sample(t, c.ID), &claims); err != nil {
		t.Fatal(err)
	}
	whole := claims["portrait"].(string)
	for name, portrait := range map[string]string{
		"data URL": "data:image/jpeg;base64," + whole, "JFIF": changed(t, claims, segment(0xe0, "JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00")),
		"colour profile": changed(t, claims, segment(0xe2, "ICC_PROFILE\x00\x01\x01")), "comment": changed(t, claims, segment(0xfe, "a")),
		"fill bytes": changed(t, claims, func(data []byte) []byte { return slices.Concat(data[:2], []byte{0xff, 0xff}, data[2:]) }),
	} {
		claims["portrait"] = portrait
		data, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		if problems := c.CheckClaims(data, now); len(problems) > 0 {
			t.Errorf("%s: %+v", name, problems)
		}
	}
}

// TestEveryProblemAtOnce breaks three claims.
func TestEveryProblemAtOnce(t *testing.T) {
	c := load(t)["org.iso.18013.5.1.mDL"]
	problems := c.CheckClaims(json.RawMessage(`{"birth_date":"x","surplus":1}`), now)
	var params []string
	for _, p := range problems {
		params = append(params, p.Param)
	}
	for _, want := range []string{"birth_date", "surplus", "family_name", "portrait", "driving_privileges"} {
		if !strings.Contains(strings.Join(params, " "), want) {
			t.Errorf("%s is missing from %v", want, params)
		}
	}
}

// TestAgeAttestations derives them for the first day of validity, and stops the
// validity before the next birthday that matters.
func TestAgeAttestations(t *testing.T) {
	c := load(t)["org.iso.18013.5.1.mDL"]
	for _, test := range []struct {
		birth    string
		over18   bool
		untilDay string // the last day of validity
	}{
		{"1987-03-14", true, "2026-12-23"},
		{"2008-11-24", true, "2026-12-23"},
		{"2008-11-25", false, "2026-11-24"}, // turns 18 tomorrow
		{"2008-12-10", false, "2026-12-09"},
		{"2010-01-01", false, "2026-12-23"},
	} {
		var claims map[string]any
		if err := json.Unmarshal(sample(t, c.ID), &claims); err != nil {
			t.Fatal(err)
		}
		claims["birth_date"] = test.birth
		data, _ := json.Marshal(claims)
		object, _ := decodeClaims(data)
		from, until, err := c.validity(c.births(object), material(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := until.Format(time.DateOnly); got != test.untilDay {
			t.Errorf("born %s: valid until %s, want %s", test.birth, got, test.untilDay)
		}
		values, _ := c.convertAll(object, c.births(object), from)
		for _, v := range values {
			if v.claim.Path[1] == "age_over_18" && v.value != test.over18 {
				t.Errorf("born %s: age_over_18 is %v", test.birth, v.value)
			}
		}
	}
}

// TestBornOnALeapDay: in a common year the birthday is the first of March.
func TestBornOnALeapDay(t *testing.T) {
	births := map[string]time.Time{"birth_date": time.Date(2008, 2, 29, 0, 0, 0, 0, time.UTC)}
	for age, want := range map[int]string{18: "2026-03-01", 20: "2028-02-29", 0: "2008-02-29"} {
		if flip, ok := (&Claim{From: "birth_date", Age: age}).flip(births); !ok || flip.Format(time.DateOnly) != want {
			t.Errorf("%d from %s on, want %s", age, flip.Format(time.DateOnly), want)
		}
	}
	if _, ok := (&Claim{From: "birthdate", Age: 18}).flip(births); ok {
		t.Error("an age without a birth date")
	}
}

// TestFileRefusals changes one thing in an example file.
func TestFileRefusals(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(examples, "configurations", "org.iso.18013.5.1.mDL.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, wants string }{
		{`format = "mso_mdoc"`, `format = "mdoc"`, `format: "mdoc" is not known`},
		{`value = "UT"`, `value = "/9j/"`, "claims[8].value"},
		{`format = "mso_mdoc"`, `format = "dc+sd-jwt"`, "vct"},
		{`doctype = `, `doctyp = `, "doctyp: unknown key"},
		{`id = "org.iso`, `id = "org iso`, "id"},
		{`signer = "ds-1"`, ``, "signer"},
		{`validity = "720h"`, `validity = "30 days"`, "validity"},
		{`validity = "720h"`, `validity = "1h"`, "validity"},
		{`validity = "720h"`, `validity = "175201h"`, "validity"},
		{`pad = 8`, `pad = 800`, "pad"},
		{`pad = 8`, `pad = -1`, "pad"},
		{`doctype = "org.iso.18013.5.1.mDL"`, `doctype = "führerschein"`, "doctype"},
		{`doctype = "org.iso.18013.5.1.mDL"`, `doctype = "a"` + "\n" + `vct = "b"`, "vct"},
		{`doctype = "org.iso.18013.5.1.mDL"`, `doctype = "a"` + "\n" + `contexts = ["https://x.example"]`, "contexts"},
		{`scope = "org.iso.18013.5.1.mDL"`, `scope = "two scopes"`, "scope"},
		{`name = "Driving licence"`, ``, "display[0].name"},
		{`description = "Mobile driving licence of Utopia"`, `logo_uri = "http://utopia.example/logo.png"`, "logo_uri"},
		{`description = "Mobile driving licence of Utopia"`, `logo_alt = "Arms"`, "logo_alt"},
		{`path = ["org.iso.18013.5.1", "family_name"]`, `path = ["family_name"]`, "claims[0].path"},
		{`path = ["org.iso.18013.5.1", "family_name"]`, `path = ["org.iso.18013.5.1", "familyné"]`, "claims[0].path"},
		{`path = ["org.iso.18013.5.1", "family_name"]`, `path = []`, "claims[0].path"},
		{`display = { en = "Family name"`, `display = { english = "Family name"`, "claims[0].display"},
		{`display = { en = "Family name"`, `display = { en = ""`, "claims[0].display"},
		{`one_of = [0, 1, 2, 9]`, `one_of = [0, "1"]`, "one_of[1]"},
		{`one_of = [0, 1, 2, 9]`, `one_of = [0, 1.5]`, "one_of[1]"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `one_of = ["1987-03-14"]`, "one_of"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `min = 1`, "min and max"},
		{`min = 30`, `min = 300`, "min"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `age = 18`, "age"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `default = "1987-03-14"`, "default"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `value = "1987-03-14"`, "value"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `from = "birth_date"`, "age-over"},
		{`type = "full-date"`, `type = "object"`, "members"},
		{`type = "full-date"`, `type = "object"` + "\n" + `members = { a = "image" }`, "members.a"},
		{`value = "UTO"`, `value = "Ł"`, "claims[10].value"},
		{`value = "UTO"`, `value = 1`, "claims[10].value"},
		{`value = "UTO"`, `value = "UTO"` + "\n" + `map_from = "x"`, "value"},
		{`from = "birth_date"`, `from = "birth_day"`, "from"},
		{`age = 13`, `age = -1`, "age"},
		{`locale = "de"`, `locale = "en"`, "display[1].locale"},
		{`locale = "de"`, `locale = "German"`, "display[1].locale"},
		{`"#12407c"`, `"navy"`, "background_color"},
		{`type = "image"`, `type = "picture"`, "claims[3].type"},
		{`value = "UT"`, `value = "Utopia"`, "claims[8].value"},
		{`"family_name"]`, `"given_name"]`, "path"},
		{`from = "birth_date"`, `from = "family_name"`, "from"},
		{`age = 14`, `age = 140`, "age"},
		{`age = 14`, `age = 14` + "\n" + `required = true`, "age"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `disclose = "never"`, "disclose"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `members = { a = "text" }`, "members"},
		{`type = "full-date"`, `type = "full-date"` + "\n" + `map_from = "family_name.x"`, "map_from"},
	} {
		text := string(data)
		if !strings.Contains(text, test.old) {
			t.Fatalf("the example no longer contains %q", test.old)
		}
		_, err := Parse("x.toml", []byte(strings.Replace(text, test.old, test.new, 1)))
		if err == nil || !strings.Contains(err.Error(), test.wants) {
			t.Errorf("%s → %s: %v, want it to name %s", test.old, test.new, err, test.wants)
		}
	}
}

func TestNoValidityLeft(t *testing.T) {
	c := load(t)["org.iso.18013.5.1.mDL"]
	m := material(t)
	m.NotAfter = now.Add(-time.Hour)
	if _, err := c.Prepare(sample(t, c.ID), m); err == nil {
		t.Error("a credential under an expired certificate")
	}
}
