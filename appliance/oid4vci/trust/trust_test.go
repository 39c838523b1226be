package trust

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

func parse(t testing.TB, compact string) *jwt.Token {
	t.Helper()
	token, err := jwt.Parse(compact, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func providers(t testing.TB, list ...Provider) *Providers {
	t.Helper()
	p, err := New(list...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Checks 136 and 228: a chain is there, leads to an anchor that is not in it,
// and its leaf is not self-signed; everything else about it is as X.509 wants it.
func TestChain_136_228(t *testing.T) {
	root, stranger := trusttest.Root(t, "Root"), trusttest.Root(t, "Root") // the same name, another key
	ca := root.Authority(t, "CA")
	leaf := ca.Leaf(t, "Leaf", nil)
	direct := root.Leaf(t, "Direct", nil)
	p := providers(t, Provider{Name: "P", Anchors: []*x509.Certificate{root.Certificate}, RequireChain: true})
	change := func(f func(*x509.Certificate)) trusttest.Certificate { return ca.Leaf(t, "Leaf", f) }
	selfSigned := trusttest.SelfSigned(t, "Root")
	for name, c := range map[string]struct {
		chain []trusttest.Certificate
		now   time.Time
		want  error
	}{
		"leaf and intermediate":         {[]trusttest.Certificate{leaf, ca}, trusttest.Now, nil},
		"leaf under the anchor":         {[]trusttest.Certificate{direct}, trusttest.Now, nil},
		"no key usage":                  {[]trusttest.Certificate{change(func(c *x509.Certificate) { c.KeyUsage = 0 }), ca}, trusttest.Now, nil},
		"any extended key usage":        {[]trusttest.Certificate{change(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }), ca}, trusttest.Now, nil},
		"anchor inside":                 {[]trusttest.Certificate{leaf, ca, root}, trusttest.Now, ErrAnchorInside},
		"a stranger's root inside":      {[]trusttest.Certificate{leaf, ca, stranger}, trusttest.Now, ErrAnchorInside},
		"self-signed leaf":              {[]trusttest.Certificate{selfSigned}, trusttest.Now, ErrAnchorInside},
		"the anchor as leaf":            {[]trusttest.Certificate{root}, trusttest.Now, ErrLeaf},
		"intermediate missing":          {[]trusttest.Certificate{leaf}, trusttest.Now, ErrUntrusted},
		"intermediate first":            {[]trusttest.Certificate{ca, leaf}, trusttest.Now, ErrLeaf},
		"another anchor of that name":   {[]trusttest.Certificate{stranger.Leaf(t, "Leaf", nil)}, trusttest.Now, ErrUntrusted},
		"leaf expired":                  {[]trusttest.Certificate{leaf, ca}, trusttest.Now.Add(366 * 24 * time.Hour), ErrUntrusted},
		"leaf not valid yet":            {[]trusttest.Certificate{leaf, ca}, trusttest.Now.Add(-25 * time.Hour), ErrUntrusted},
		"leaf for key agreement":        {[]trusttest.Certificate{change(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), ca}, trusttest.Now, ErrLeaf},
		"intermediate that is no CA":    {[]trusttest.Certificate{direct.Leaf(t, "Leaf", nil), direct}, trusttest.Now, ErrUntrusted},
		"unknown critical extension":    {[]trusttest.Certificate{change(critical), ca}, trusttest.Now, ErrUntrusted},
		"nine certificates":             {[]trusttest.Certificate{leaf, ca, ca, ca, ca, ca, ca, ca, ca}, trusttest.Now, ErrChain},
		"one in it that is of no use":   {[]trusttest.Certificate{leaf, direct, ca}, trusttest.Now, nil},
		"leaf under an expired issuer":  {[]trusttest.Certificate{expiredCA(t, root)}, trusttest.Now, ErrUntrusted},
		"no certificate at all in here": {nil, trusttest.Now, ErrChain},
	} {
		signer := leaf
		if len(c.chain) > 0 {
			signer = c.chain[0]
		}
		token := parse(t, trusttest.Token(t, signer.Key, map[string]any{"x5c": trusttest.X5C(c.chain...)}, map[string]any{}))
		source, err := p.Resolve(token, c.now)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == nil && (source.Provider != "P" || !token.Verify(source.Key)) {
			t.Errorf("%s: %+v", name, source)
		}
	}
	for _, header := range []map[string]any{{}, {"kid": "1"}} {
		if _, err := p.Resolve(parse(t, trusttest.Token(t, leaf.Key, header, map[string]any{})), trusttest.Now); err != ErrNoChain {
			t.Errorf("%v: %v", header, err)
		}
	}
	if _, err := p.Resolve(parse(t, trusttest.Token(t, leaf.Key, map[string]any{"x5c": "x"}, map[string]any{})), trusttest.Now); err != ErrChain {
		t.Error(err)
	}
}

func critical(c *x509.Certificate) {
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
}

// expiredCA is a leaf whose issuing CA is not in the chain and has expired.
func expiredCA(t *testing.T, root trusttest.Certificate) trusttest.Certificate {
	ca := root.Leaf(t, "Old", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.NotAfter = true, x509.KeyUsageCertSign, trusttest.Now.Add(-time.Hour)
	})
	return ca.Leaf(t, "Leaf", nil)
}

// A chain that was good is taken for good for a while, but not beyond its
// validity and not before it was judged; and those kept are bounded.
func TestChainsKept(t *testing.T) {
	root := trusttest.Root(t, "Root")
	p := providers(t, Provider{Name: "P", Anchors: []*x509.Certificate{root.Certificate}})
	leaf := root.Leaf(t, "Leaf", func(c *x509.Certificate) { c.NotAfter = trusttest.Now.Add(2 * time.Minute) })
	token := parse(t, trusttest.Token(t, leaf.Key, map[string]any{"x5c": trusttest.X5C(leaf)}, map[string]any{}))
	for _, step := range []struct {
		after time.Duration
		want  error
	}{{0, nil}, {time.Minute, nil}, {2*time.Minute + time.Second, ErrUntrusted}, {time.Minute, nil}, {-25 * time.Hour, ErrUntrusted}, {0, nil}} {
		if _, err := p.Resolve(token, trusttest.Now.Add(step.after)); err != step.want {
			t.Errorf("%s: %v", step.after, err)
		}
	}
	if len(p.chains.good) != 1 {
		t.Errorf("%d chains are kept", len(p.chains.good))
	}
	for range maxChains + 10 {
		other := root.Leaf(t, "Leaf", nil)
		if _, err := p.Resolve(parse(t, trusttest.Token(t, other.Key, map[string]any{"x5c": trusttest.X5C(other)}, map[string]any{})), trusttest.Now); err != nil {
			t.Fatal(err)
		}
		if len(p.chains.good) > maxChains {
			t.Fatalf("%d chains are kept", len(p.chains.good))
		}
	}
	bad := parse(t, trusttest.Token(t, leaf.Key, map[string]any{"x5c": []any{1}}, map[string]any{}))
	if _, err := p.Resolve(bad, trusttest.Now); err != ErrChain {
		t.Error(err)
	}
}

// A token without a chain names a configured key, or is of the only one.
func TestKeyID(t *testing.T) {
	one, two, other := issuancetest.Key(t, issuance.ES256), issuancetest.Key(t, issuance.EdDSA), issuancetest.Key(t, issuance.ES256)
	single := providers(t, Provider{Name: "P", Keys: []Key{{"1", one.Public()}}})
	several := providers(t, Provider{Name: "P", Keys: []Key{{"1", one.Public()}, {"2", two.Public()}}}, Provider{Name: "Q", Keys: []Key{{"1", other.Public()}}})
	for name, c := range map[string]struct {
		p        *Providers
		header   map[string]any
		signer   int
		provider string
		want     error
	}{
		"kid":                       {single, map[string]any{"kid": "1"}, 0, "P", nil},
		"none and one key":          {single, nil, 0, "P", nil},
		"another kid":               {single, map[string]any{"kid": "2"}, 0, "", ErrUnknownKey},
		"an empty kid":              {single, map[string]any{"kid": ""}, 0, "", ErrUnknownKey},
		"a kid that is no string":   {single, map[string]any{"kid": 1}, 0, "", ErrUnknownKey},
		"none and several keys":     {several, nil, 0, "", ErrAmbiguousKey},
		"second key":                {several, map[string]any{"kid": "2"}, 1, "P", nil},
		"a kid of two providers":    {several, map[string]any{"kid": "1"}, 0, "P", nil},
		"that kid by the other one": {several, map[string]any{"kid": "1"}, 2, "Q", nil},
		"no providers":              {providers(t), map[string]any{"kid": "1"}, 0, "", ErrUnknownKey},
		"no providers, no kid":      {providers(t), nil, 0, "", ErrAmbiguousKey},
		"nil":                       {nil, nil, 0, "", ErrUntrusted},
	} {
		key := []crypto.Signer{one, two, other}[c.signer]
		token := parse(t, trusttest.Token(t, key, c.header, map[string]any{}))
		source, err := c.p.Resolve(token, trusttest.Now)
		if err != c.want || source.Provider != c.provider {
			t.Errorf("%s: %+v, %v", name, source, err)
		}
		if c.want == nil && !token.Verify(source.Key) {
			t.Errorf("%s: the key is not the one that signed", name)
		}
	}
	if single.Len() != 1 || (*Providers)(nil).Len() != 0 {
		t.Error("Len")
	}
}

// A chain whose leaf holds a configured key is as good as the key, unless a
// chain to an anchor is required.
func TestPinnedLeaf(t *testing.T) {
	leaf := trusttest.SelfSigned(t, "Attester")
	token := parse(t, trusttest.Token(t, leaf.Key, map[string]any{"x5c": trusttest.X5C(leaf)}, map[string]any{}))
	pinned := Provider{Name: "P", Keys: []Key{{"", leaf.Key.Public()}}}
	if source, err := providers(t, pinned).Resolve(token, trusttest.Now); err != nil || !token.Verify(source.Key) {
		t.Error(err)
	}
	pinned.RequireChain, pinned.Anchors = true, []*x509.Certificate{trusttest.Root(t, "Root").Certificate}
	if _, err := providers(t, pinned).Resolve(token, trusttest.Now); err != ErrAnchorInside {
		t.Error(err)
	}
}

// Of two providers under one CA the first counts, whatever iss says; a provider
// vouches for its own clients alone.
func TestSameAnchorAndClients(t *testing.T) {
	root := trusttest.Root(t, "Root")
	leaf := root.Leaf(t, "Leaf", nil)
	anchors := []*x509.Certificate{root.Certificate}
	a := Provider{Name: "A", Anchors: anchors, ClientIDs: []string{"a1", "a2"}}
	b := Provider{Name: "B", Anchors: anchors}
	for _, iss := range []any{nil, "https://b.example", "", 1} {
		token := parse(t, trusttest.Token(t, leaf.Key, map[string]any{"x5c": trusttest.X5C(leaf)}, trusttest.With(nil, "iss", iss)))
		source, err := providers(t, a, b).Resolve(token, trusttest.Now)
		if err != nil || source.Provider != "A" || !source.Allows("a2") || source.Allows("b1") {
			t.Errorf("%v: %+v, %v", iss, source, err)
		}
		source, err = providers(t, b, a).Resolve(token, trusttest.Now)
		if err != nil || source.Provider != "B" || !source.Allows("b1") {
			t.Errorf("%v: %+v, %v", iss, source, err)
		}
	}
}

// Configured providers that could believe nobody, or cannot be told apart, are refused.
func TestNewRefuses(t *testing.T) {
	root := trusttest.Root(t, "Root")
	key := issuancetest.Key(t, issuance.ES256).Public()
	for want, list := range map[string][]Provider{
		"has no name":                            {{Keys: []Key{{"", key}}}},
		"or another one's":                       {{Name: "P", Keys: []Key{{"", key}}}, {Name: "P", Keys: []Key{{"", key}}}},
		"neither keys nor anchors":               {{Name: "P"}},
		"there is no anchor":                     {{Name: "P", Keys: []Key{{"", key}}, RequireChain: true}},
		"kid is there twice":                     {{Name: "P", Keys: []Key{{"1", key}, {"1", key}}}},
		"cannot sign":                            {{Name: "P", Keys: []Key{{"1", "no key"}}}},
		"anchor 0 is no CA certificate":          {{Name: "P", Anchors: []*x509.Certificate{root.Leaf(t, "Leaf", nil).Certificate}}},
		"configure the certificate of the CA th": {{Name: "P", Anchors: []*x509.Certificate{trusttest.SelfSigned(t, "Leaf").Certificate}}},
	} {
		if _, err := New(list...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
