package iaca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// messages is a signer that takes messages, as a token's.
type messages struct {
	*ecdsa.PrivateKey
	asked *int
}

func (m messages) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errUsed }

func (m messages) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	*m.asked++
	h := opts.HashFunc().New()
	h.Write(message)
	return m.PrivateKey.Sign(rand.Reader, h.Sum(nil), opts)
}

// successor makes a second root, with the name given.
func successor(t testing.TB, name string, days int) root {
	t.Helper()
	key := newKey(t, elliptic.P384())
	p := plan(Root)
	p.Subject.CommonName, p.NotAfter = name, start.AddDate(0, 0, days)
	der, err := Create(p, nil, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return root{key, mustParse(t, der)}
}

// TestLinksLeadFromTheOldRootToTheNew: with the old root alone as anchor openssl
// accepts the link, and across a link of the same name what the new root issued.
func TestLinksLeadFromTheOldRootToTheNew(t *testing.T) {
	old := newRoot(t, elliptic.P256())
	for name, test := range map[string]struct {
		common  string
		crossed bool
	}{"same name": {"Utopia iaca", true}, "another name": {"Utopia IACA G2", false}} {
		next := successor(t, test.common, 5000)
		der, err := CreateLink(old.cert, next.cert, start.Add(time.Hour), old.key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		link := mustParse(t, der)
		if !bytes.Equal(link.RawSubject, next.cert.RawSubject) || !bytes.Equal(link.RawIssuer, old.cert.RawSubject) || !next.key.PublicKey.Equal(link.PublicKey) ||
			!bytes.Equal(link.SubjectKeyId, next.cert.SubjectKeyId) || !bytes.Equal(link.AuthorityKeyId, old.cert.SubjectKeyId) ||
			!link.NotAfter.Equal(old.cert.NotAfter) || !link.NotBefore.Equal(start.Add(time.Hour)) {
			t.Errorf("%s: %+v", name, link)
		}
		leafDER, err := Create(plan(DocumentSigner), next.cert, newKey(t, elliptic.P256()).Public(), next.key)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		anchor, linkFile := writePEM(t, dir, "old.pem", "CERTIFICATE", old.cert.Raw), writePEM(t, dir, "link.pem", "CERTIFICATE", der)
		leafFile := writePEM(t, dir, "leaf.pem", "CERTIFICATE", leafDER)
		verify := []string{"verify", "-attime", "1795600000", "-x509_strict", "-ignore_critical", "-no-CApath", "-CAfile", anchor}
		if out := openssl(t, append(verify, linkFile)...); !strings.Contains(out, "OK") {
			t.Errorf("%s: %s", name, out)
		}
		out, err := exec.Command("openssl", append(verify, "-untrusted", linkFile, leafFile)...).CombinedOutput()
		if (err == nil) != test.crossed {
			t.Errorf("%s, across the link: %v %s", name, err, out)
		}
		if out, err := exec.Command("openssl", append(verify, leafFile)...).CombinedOutput(); err == nil {
			t.Errorf("%s, without the link: %s", name, out)
		}
		want := []string{"warning link.path"}
		if test.crossed {
			want = nil
		}
		if got := broken(Linter{Profile: Link, Issuer: old.cert, Successor: next.cert}.Certificate(der)); !slices.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLinksEndWithTheFirstOfTheirRoots.
func TestLinksEndWithTheFirstOfTheirRoots(t *testing.T) {
	old, next := newRoot(t, elliptic.P256()), successor(t, "Utopia iaca", 1000)
	der, err := CreateLink(old.cert, next.cert, start, old.key)
	if err != nil {
		t.Fatal(err)
	}
	if link := mustParse(t, der); !link.NotAfter.Equal(next.cert.NotAfter) {
		t.Errorf("it ends on %v, the new root on %v", link.NotAfter, next.cert.NotAfter)
	}
}

// TestRefusesToLink: neither to what is no root, nor in another's name, nor for a
// time that the old root does not have.
func TestRefusesToLink(t *testing.T) {
	old, next := newRoot(t, elliptic.P256()), successor(t, "Utopia iaca", 5000)
	der, err := Create(plan(DocumentSigner), old.cert, next.key.Public(), old.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := mustParse(t, der)
	never := refusing{old.key.Public()}
	for name, test := range map[string]struct {
		old, new *x509.Certificate
		from     time.Time
		signer   crypto.Signer
	}{
		"to a document signer":   {old.cert, leaf, start, never},
		"from a document signer": {leaf, next.cert, start, never},
		"to itself":              {old.cert, old.cert, start, never},
		"before the old root":    {old.cert, next.cert, start.Add(-time.Second), never},
		"after the old root":     {old.cert, next.cert, old.cert.NotAfter.Add(time.Second), never},
		"by the new root's key":  {old.cert, next.cert, start, next.key},
	} {
		if _, err := CreateLink(test.old, test.new, test.from, test.signer); err == nil {
			t.Errorf("%s: signed", name)
		} else if strings.Contains(err.Error(), "the key was used") {
			t.Errorf("%s: the real key was asked before the linter spoke", name)
		}
	}
	if _, err := CreateLink(old.cert, next.cert, start, never); err == nil || !strings.Contains(err.Error(), "the key was used") {
		t.Errorf("a key that does not sign: %v", err)
	}
}

// TestGuessProfile tells profiles by what they have.
func TestGuessProfile(t *testing.T) {
	old, next := newRoot(t, elliptic.P256()), successor(t, "Utopia iaca", 5000)
	link, err := CreateLink(old.cert, next.cert, start, old.key)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[Profile][][]byte{Root: {old.cert.Raw, next.cert.Raw}, Link: {link}}
	for _, profile := range leaves {
		key := newKey(t, elliptic.P256())
		want := profile
		if profile != DocumentSigner {
			want = "" // they have nothing of their own
		}
		cert, err := Create(plan(profile), old.cert, key.Public(), old.key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := CreateCSR(plan(profile), key)
		if err != nil {
			t.Fatal(err)
		}
		cases[want] = append(cases[want], cert, csr)
	}
	for want, all := range cases {
		for _, der := range all {
			if got, err := GuessProfile(der); err != nil || got != want {
				t.Errorf("%q, want %q: %v", got, want, err)
			}
		}
	}
	if _, err := GuessProfile([]byte("note")); err == nil {
		t.Error("a note has a profile")
	}
}
