package configuration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/issuance"
	"chancery/issuance/mdoc"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
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

// TestExamples prepares a credential of every example configuration from its
// sample claims and parses what would be signed.
func TestExamples(t *testing.T) {
	parse := map[issuance.Format]func([]byte) (issuance.Statement, error){
		issuance.FormatMdoc: mdoc.ParseTBS, issuance.FormatSDJWT: sdjwt.ParseTBS, issuance.FormatJWTVC: w3cvc.ParseTBS,
	}
	all := load(t)
	if len(all) < 4 {
		t.Fatalf("%d example configurations", len(all))
	}
	for id, c := range all {
		t.Run(id, func(t *testing.T) {
			if problems := c.CheckClaims(sample(t, id), now); len(problems) > 0 {
				t.Fatalf("the sample claims: %+v", problems)
			}
			m := material(t)
			if c.Format == issuance.FormatJWTVC {
				m.Issuer, m.KeyID, m.Chain = "did:web:issuer.example", "did:web:issuer.example#k", nil
			}
			prepared, err := c.Prepare(sample(t, id), m)
			if err != nil {
				t.Fatal(err)
			}
			s, err := parse[c.Format](prepared.TBS)
			if err != nil {
				t.Fatal(err)
			}
			day := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
			if !s.ValidFrom.Equal(day) || !s.ValidUntil.After(now) || s.ValidUntil.Sub(day) > c.ValidFor {
				t.Errorf("valid from %v until %v", s.ValidFrom, s.ValidUntil)
			}
			data, err := json.Marshal(c.Metadata([]issuance.Algorithm{issuance.ES256}))
			if err != nil || !strings.Contains(string(data), `"proof_types_supported"`) {
				t.Errorf("metadata: %v %s", err, data)
			}
		})
	}
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
		{mdl, "nationality", func(c map[string]any) { c["nationality"] = "ut" }},
		{mdl, "unknown_claim", func(c map[string]any) { c["unknown_claim"] = "SECRETVALUE" }},
		{mdl, "issuing_country", func(c map[string]any) { c["issuing_country"] = "XX" }},
		{mdl, "age_over_18", func(c map[string]any) { c["age_over_18"] = true }},
		{pid, "nationalities", func(c map[string]any) { c["nationalities"] = []any{} }},
		{pid, "nationalities", func(c map[string]any) { c["nationalities"] = []any{"SECRETVALUE"} }},
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
		if strings.Contains(problems[0].Message, "SECRETVALUE") {
			t.Errorf("the problem holds the value: %+v", problems[0])
		}
	}
	for name, data := range map[string]string{"array": "[]", "twice": `{"a":1,"a":2}`, "text": "x", "tail": "{} {}"} {
		if p := all[pid].CheckClaims(json.RawMessage(data), now); len(p) != 1 || p[0].Param != "claims" {
			t.Errorf("%s: %+v", name, p)
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
		from, until, err := c.validity(object, material(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := until.Format(time.DateOnly); got != test.untilDay {
			t.Errorf("born %s: valid until %s, want %s", test.birth, got, test.untilDay)
		}
		values, _ := c.convertAll(object, from)
		for _, v := range values {
			if v.claim.Path[1] == "age_over_18" && v.value != test.over18 {
				t.Errorf("born %s: age_over_18 is %v", test.birth, v.value)
			}
		}
	}
}

// TestFileRefusals changes one thing in an example file.
func TestFileRefusals(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(examples, "configurations", "org.iso.18013.5.1.mDL.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, wants string }{
		{`format = "mso_mdoc"`, `format = "mdoc"`, "format"},
		{`format = "mso_mdoc"`, `format = "dc+sd-jwt"`, "vct"},
		{`doctype = `, `doctyp = `, "doctyp: unknown key"},
		{`id = "org.iso`, `id = "org iso`, "id"},
		{`signer = "ds-1"`, ``, "signer"},
		{`validity = "720h"`, `validity = "30 days"`, "validity"},
		{`pad = 8`, `pad = 800`, "pad"},
		{`locale = "de"`, `locale = "en"`, "display[1].locale"},
		{`locale = "de"`, `locale = "German"`, "display[1].locale"},
		{`"#12407c"`, `"navy"`, "background_color"},
		{`type = "image"`, `type = "picture"`, "claims[3].type"},
		{`value = "UT"`, `value = "Utopia"`, "claims[8].value"},
		{`"family_name"]`, `"given_name"]`, "path"},
		{`from = "birth_date"`, `from = "family_name"`, "from"},
		{`age = 14`, `age = 140`, "age"},
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

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(examples, "configurations", "*.toml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("x", data)
		if err != nil {
			return
		}
		c.Metadata([]issuance.Algorithm{issuance.ES256})
		c.CheckClaims(json.RawMessage(`{"family_name":"x","birth_date":"2000-01-01"}`), now)
	})
}

func FuzzCheckClaims(f *testing.F) {
	all := load(f)
	for id := range all {
		f.Add([]byte(sample(f, id)))
	}
	f.Add([]byte(`{"birth_date":"0000-00-00","driving_privileges":[{}],"portrait":"/9j/"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range all {
			if len(c.CheckClaims(data, now)) > 0 {
				continue
			}
			m := material(t)
			if c.Format == issuance.FormatJWTVC {
				m.Issuer, m.KeyID = "did:web:h", "did:web:h#k"
			}
			if _, err := c.Prepare(data, m); err != nil {
				t.Errorf("%s: claims were accepted and cannot be issued: %v", c.ID, err)
			}
		}
	})
}

func BenchmarkPrepare(b *testing.B) {
	for id, c := range load(b) {
		b.Run(id, func(b *testing.B) {
			claims, m := sample(b, id), material(b)
			if c.Format == issuance.FormatJWTVC {
				m.Issuer, m.KeyID = "did:web:h", "did:web:h#k"
			}
			for b.Loop() {
				if _, err := c.Prepare(claims, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
