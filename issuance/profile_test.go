package issuance

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func allowed() (Profile, Statement) {
	p := Profile{Formats: []Format{FormatMdoc, FormatJWTVC}, Types: []string{"a", "b"}, Issuer: "https://issuer.example", LongestValidityHours: 24}
	s := Statement{Format: FormatJWTVC, Types: []string{"b"}, Issuer: "https://issuer.example", Signed: start, ValidFrom: start, ValidUntil: start.Add(24 * time.Hour)}
	return p, s
}

// describe makes a key for metadata of the profile, as ceremonies make it, and
// metadata of the statement.
func describe(p *Profile, s *Statement) {
	*p = Profile{Formats: []Format{FormatMetadata}, Issuer: p.Issuer}
	s.Format, s.Types = FormatMetadata, nil
}

// link does so for a domain linkage credential, of a key that signs credentials too.
func link(p *Profile, s *Statement) {
	p.Formats = append(p.Formats, FormatDomain)
	s.Format, s.Types = FormatDomain, nil
}

// TestProfileCheck changes one thing at a time in a statement that is allowed.
func TestProfileCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *Profile, s *Statement)
		member string // "" when it stays allowed
	}{
		"allowed":                               {func(*Profile, *Statement) {}, ""},
		"both types":                            {func(_ *Profile, s *Statement) { s.Types = []string{"a", "b"} }, ""},
		"mdoc has no issuer":                    {func(_ *Profile, s *Statement) { s.Format, s.Issuer = FormatMdoc, "" }, ""},
		"mdoc without profile's":                {func(p *Profile, s *Statement) { s.Format, s.Issuer, p.Issuer = FormatMdoc, "", "" }, ""},
		"shorter":                               {func(_ *Profile, s *Statement) { s.ValidUntil = s.ValidFrom.Add(time.Second) }, ""},
		"other format":                          {func(_ *Profile, s *Statement) { s.Format = FormatSDJWT }, "formats"},
		"no format":                             {func(_ *Profile, s *Statement) { s.Format = "" }, "formats"},
		"empty profile":                         {func(p *Profile, _ *Statement) { *p = Profile{} }, "formats"},
		"other type":                            {func(_ *Profile, s *Statement) { s.Types = []string{"c"} }, "types"},
		"one type too many":                     {func(_ *Profile, s *Statement) { s.Types = []string{"a", "c"} }, "types"},
		"no type":                               {func(_ *Profile, s *Statement) { s.Types = nil }, "types"},
		"profile without types":                 {func(p *Profile, _ *Statement) { p.Types = nil }, "types"},
		"type in another case":                  {func(_ *Profile, s *Statement) { s.Types = []string{"A"} }, "types"},
		"other issuer":                          {func(_ *Profile, s *Statement) { s.Issuer = "https://issuer.example/" }, "issuer"},
		"issuer missing":                        {func(_ *Profile, s *Statement) { s.Issuer = "" }, "issuer"},
		"profile without issuer":                {func(p *Profile, _ *Statement) { p.Issuer = "" }, "issuer"},
		"a second too long":                     {func(_ *Profile, s *Statement) { s.ValidUntil = s.ValidUntil.Add(time.Second) }, "longest_validity_hours"},
		"begins earlier":                        {func(_ *Profile, s *Statement) { s.ValidFrom = s.ValidFrom.Add(-time.Second) }, "longest_validity_hours"},
		"no end":                                {func(_ *Profile, s *Statement) { s.ValidUntil = time.Time{} }, "longest_validity_hours"},
		"no start":                              {func(_ *Profile, s *Statement) { s.ValidFrom = time.Time{} }, "longest_validity_hours"},
		"ends before it starts":                 {func(_ *Profile, s *Statement) { s.ValidUntil = s.ValidFrom.Add(-time.Hour) }, "longest_validity_hours"},
		"ends as it starts":                     {func(_ *Profile, s *Statement) { s.ValidUntil = s.ValidFrom }, "longest_validity_hours"},
		"profile without a validity":            {func(p *Profile, _ *Statement) { p.LongestValidityHours = 0 }, "longest_validity_hours"},
		"domain linkage":                        {link, ""},
		"domain linkage that the profile lacks": {func(p *Profile, s *Statement) { kept := *p; link(p, s); *p = kept }, "formats"},
		"domain linkage of another issuer":      {func(p *Profile, s *Statement) { link(p, s); s.Issuer = "did:web:evil.example" }, "issuer"},
		"domain linkage without issuer":         {func(p *Profile, s *Statement) { link(p, s); s.Issuer, p.Issuer = "", "" }, "issuer"},
		"domain linkage that names a type":      {func(p *Profile, s *Statement) { link(p, s); s.Types = []string{"c"} }, "types"},
		"domain linkage for longer":             {func(p *Profile, s *Statement) { link(p, s); s.ValidUntil = s.ValidUntil.Add(time.Second) }, "longest_validity_hours"},
		"domain linkage without a validity":     {func(p *Profile, s *Statement) { link(p, s); p.LongestValidityHours = 0 }, "longest_validity_hours"},
		"domain linkage alone without a validity": {func(p *Profile, s *Statement) {
			link(p, s)
			p.Formats, p.LongestValidityHours = []Format{FormatDomain}, 0
		}, "longest_validity_hours"},
		"an untyped credential beside domain linkage": {func(p *Profile, s *Statement) {
			p.Formats, s.Types = append(p.Formats, FormatDomain), nil
		}, "types"},
		"metadata":              {describe, ""},
		"metadata for two days": {func(p *Profile, s *Statement) { describe(p, s); s.ValidUntil = start.Add(48 * time.Hour) }, ""},
		"metadata for longer": {func(p *Profile, s *Statement) {
			describe(p, s)
			s.ValidUntil = start.Add(48*time.Hour + time.Second)
		}, "longest_validity_hours"},
		"metadata beyond the profile's": {func(p *Profile, s *Statement) {
			describe(p, s)
			p.LongestValidityHours, s.ValidUntil = 1, start.Add(time.Hour+time.Second)
		}, "longest_validity_hours"},
		"metadata of a negative validity":   {func(p *Profile, s *Statement) { describe(p, s); p.LongestValidityHours = -1 }, "longest_validity_hours"},
		"metadata of another issuer":        {func(p *Profile, s *Statement) { describe(p, s); s.Issuer = "https://evil.example" }, "issuer"},
		"metadata without issuer":           {func(p *Profile, s *Statement) { describe(p, s); s.Issuer, p.Issuer = "", "" }, "issuer"},
		"metadata that names a type":        {func(p *Profile, s *Statement) { describe(p, s); s.Types = []string{"a"} }, "types"},
		"metadata, profile without issuer":  {func(p *Profile, s *Statement) { describe(p, s); p.Issuer = "" }, "issuer"},
		"metadata under a credential key":   {func(p *Profile, s *Statement) { kept := *p; describe(p, s); *p = kept }, "formats"},
		"a credential under a metadata key": {func(p *Profile, s *Statement) { kept := *s; describe(p, s); *s = kept }, "formats"},
		"an untyped credential beside metadata": {func(p *Profile, s *Statement) {
			p.Formats, s.Types = append(p.Formats, FormatMetadata), nil
		}, "types"},
		"no longest validity for metadata beside credentials": {func(p *Profile, s *Statement) {
			describe(p, s)
			p.Formats = append(p.Formats, FormatMdoc)
		}, "longest_validity_hours"},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := allowed()
			c.change(&p, &s)
			err := p.Check(s)
			if c.member == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var outside *OutsideProfile
			if !errors.As(err, &outside) || !errors.Is(err, ErrOutsideProfile) || outside.Member != c.member {
				t.Fatalf("error %v, want a refusal by %s", err, c.member)
			}
		})
	}
}

// TestProfileNeverAllowsMore: whatever a statement says, when it is allowed
// every member of the profile allows it.
func TestProfileNeverAllowsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"", "a", "b", "c"})
		formats := rapid.SampledFrom([]Format{"", FormatMdoc, FormatSDJWT, FormatJWTVC, FormatMetadata})
		p := Profile{
			Formats: rapid.SliceOf(formats).Draw(t, "formats"), Types: rapid.SliceOf(names).Draw(t, "allowed types"),
			Issuer: names.Draw(t, "allowed issuer"), LongestValidityHours: rapid.IntRange(-1, 3).Draw(t, "hours"),
		}
		s := Statement{
			Format: formats.Draw(t, "format"), Types: rapid.SliceOf(names).Draw(t, "types"), Issuer: names.Draw(t, "issuer"),
			ValidFrom: start, ValidUntil: start.Add(time.Duration(rapid.IntRange(-3600, 4*3600).Draw(t, "seconds")) * time.Second),
		}
		if p.Check(s) != nil {
			return
		}
		in := func(list []string, v string) bool {
			for _, e := range list {
				if e == v {
					return true
				}
			}
			return false
		}
		format := false
		for _, f := range p.Formats {
			format = format || f == s.Format
		}
		types := len(s.Types) > 0 || s.Format == FormatMetadata
		for _, name := range s.Types {
			types = types && in(p.Types, name)
		}
		valid := s.ValidUntil.Sub(s.ValidFrom)
		if !format || !types || (s.Issuer != "" && s.Issuer != p.Issuer) || valid <= 0 || valid > p.LongestValidity() {
			t.Fatalf("profile %+v allowed %+v", p, s)
		}
	})
}

func TestAlgorithms(t *testing.T) {
	for _, c := range []struct {
		curve     elliptic.Curve
		algorithm Algorithm
		cose      int64
		size      int
		hash      string
	}{
		{elliptic.P256(), ES256, -7, 64, "SHA-256"},
		{elliptic.P384(), ES384, -35, 96, "SHA-384"},
		{elliptic.P521(), ES512, -36, 132, "SHA-512"},
	} {
		key, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := AlgorithmFor(key.Public())
		if err != nil || got != c.algorithm || got.COSE() != c.cose || got.SignatureSize() != c.size || got.Hash().String() != c.hash {
			t.Errorf("%s: %s (%v), COSE %d, %d bytes, %v", c.algorithm, got, err, got.COSE(), got.SignatureSize(), got.Hash())
		}
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := AlgorithmFor(public); err != nil || got != EdDSA || got.COSE() != -8 || got.SignatureSize() != 64 || got.Hash() != 0 {
		t.Errorf("Ed25519: %s, %v", got, err)
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []any{small.Public(), &rsa.PublicKey{}, nil, "a string"} {
		if got, err := AlgorithmFor(key); err == nil {
			t.Errorf("%T may sign with %s", key, got)
		}
	}
	if a := Algorithm("RS256"); a.COSE() != 0 || a.SignatureSize() != 0 || a.Hash() != 0 {
		t.Error("an unknown algorithm has properties")
	}
}
