package oid4vci

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/audit"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/config"
)

// signing is a rig with a metadata signer, whose clock the signer shares.
type signing struct {
	*rig
	clock *atomic.Int64
	log   *bytes.Buffer
}

func newSigning(t *testing.T, faults bool, change func(*config.Issuer)) signing {
	t.Helper()
	s := signing{clock: &atomic.Int64{}, log: &bytes.Buffer{}}
	now := func() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }
	s.rig = newRig(t, rigOptions{signer: signertest.Options{Now: now, Faults: faults}, issuer: func(i *config.Issuer) {
		i.MetadataSigner, i.MetadataLifetime = "metadata-1", config.Duration(24*time.Hour)
		if change != nil {
			change(i)
		}
	}})
	s.Issuer.log = slog.New(slog.NewTextHandler(s.log, nil))
	return s
}

// advance moves every clock on and refreshes.
func (s signing) advance(t *testing.T, by time.Duration) {
	t.Helper()
	s.clock.Add(int64(by))
	s.ahead.Add(int64(by))
	s.refresh(t)
}

func (s signing) refresh(t *testing.T) {
	t.Helper()
	p := s.published.Load()
	if err := s.update(t.Context(), wire.IdentitiesResponse{Generation: p.generation, Identities: p.identities}, p.encryption); err != nil {
		t.Fatal(err)
	}
}

// fetch asks for the signed form.
func (s signing) fetch(t *testing.T, header ...string) answer {
	t.Helper()
	return s.get(t, "/.well-known/openid-credential-issuer", append([]string{"Accept", "application/jwt"}, header...)...)
}

// signatures counts those that the log has of metadata.
func (s signing) signatures(t *testing.T) (n int) {
	t.Helper()
	for _, e := range s.signer.Entries(t, audit.KindMade) {
		if strings.HasPrefix(e.Credential, "metadata-") {
			n++
		}
	}
	return n
}

// verified checks the signed form as a wallet does and returns its claims.
func (s signing) verified(t *testing.T, a answer) map[string]any {
	t.Helper()
	want(t, a.status == http.StatusOK && a.header.Get("Content-Type") == "application/jwt", "check 26", a.header)
	object, err := jose.ParseSignedCompact(string(a.body), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	header := object.Signatures[0].Protected
	want(t, header.ExtraHeaders["typ"] == "openidvci-issuer-metadata+jwt", "check 52: typ", header)
	anchor, err := x509.ParseCertificate(s.signer.Identity(t, "metadata-1").Anchor)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(anchor)
	chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: s.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		t.Fatalf("check 55: %v", err)
	}
	payload, err := object.Verify(chains[0][0].PublicKey)
	if err != nil {
		t.Fatalf("check 56: %v", err)
	}
	raw, _, _ := strings.Cut(string(a.body), ".")
	want(t, !bytes.Contains(a.body, []byte("=")) && raw != "", "compact", nil)
	for _, certificate := range chains[0][:len(chains[0])-1] { // those without the anchor are what x5c holds
		want(t, !certificate.Equal(anchor) && !bytes.Equal(certificate.RawIssuer, certificate.RawSubject), "check 55: self-signed", certificate.Subject)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// TestChecks52To57Signed: header, claims and signature of the signed form, and
// that it says what the unsigned one says.
func TestChecks52To57Signed(t *testing.T) {
	s := newSigning(t, false, nil)
	s.refresh(t)
	a := s.fetch(t)
	claims := s.verified(t, a)
	iat, exp := claims["iat"].(float64), claims["exp"].(float64)
	want(t, iat == float64(int64(iat)) && exp-iat == (24*time.Hour).Seconds() && exp > float64(s.now().Unix()), "check 53, 57: iat, exp", claims["exp"])
	want(t, claims["sub"] == s.identifier && claims["iss"] == s.identifier, "check 53: sub, iss", claims["sub"])
	for _, name := range []string{"sub", "iss", "iat", "exp"} {
		delete(claims, name)
	}
	unsigned := s.get(t, "/.well-known/openid-credential-issuer")
	want(t, string(encode(t, claims)) == string(encode(t, unsigned.object(t))), "check 54: the unsigned form says something else", claims)
	sound(t, metadataFaults(s.identifier, claims, false))
	t.Run("28 in every language, whatever is asked for", func(t *testing.T) {
		german := s.fetch(t, "Accept-Language", "de")
		want(t, bytes.Equal(german.body, a.body) && german.header.Get("Content-Language") == "" && german.header.Get("Vary") == "Accept, Accept-Language", "the signed form", german.header)
	})
	t.Run("50 HEAD and entity tag", func(t *testing.T) {
		const target = "https://localhost:8443/.well-known/openid-credential-issuer"
		head := do(t, s.client, http.MethodHead, target, nil, "Accept", "application/jwt")
		for _, name := range []string{"Content-Type", "Content-Length", "Etag", "Vary", "Cache-Control"} {
			want(t, head.header.Get(name) == a.header.Get(name) && head.header.Get(name) != "", name, head.header)
		}
		want(t, a.header.Get("Etag") != unsigned.header.Get("Etag"), "an entity tag for each form", a.header)
		want(t, s.fetch(t, "If-None-Match", a.header.Get("Etag")).status == http.StatusNotModified, "304", nil)
		want(t, s.fetch(t, "If-None-Match", unsigned.header.Get("Etag")).status == http.StatusOK, "200", nil)
	})
}

// TestCheck57SignedOnce: once for each change, and again after half of the lifetime.
func TestCheck57SignedOnce(t *testing.T) {
	s := newSigning(t, false, nil)
	s.refresh(t)
	first := s.fetch(t)
	for range 3 {
		s.refresh(t)
	}
	s.advance(t, 12*time.Hour-time.Minute)
	want(t, s.signatures(t) == 1 && bytes.Equal(s.fetch(t).body, first.body), "signatures before half of the lifetime", s.signatures(t))
	s.advance(t, 2*time.Minute)
	second := s.fetch(t)
	want(t, s.signatures(t) == 2 && !bytes.Equal(second.body, first.body), "signatures after half of it", s.signatures(t))
	want(t, s.verified(t, second)["exp"].(float64) > float64(s.now().Add(23*time.Hour).Unix()), "check 57: exp", nil)

	p := s.published.Load()
	change := func(e encryptionMetadata, generation uint64) {
		t.Helper()
		if err := s.update(t.Context(), wire.IdentitiesResponse{Generation: generation, Identities: p.identities}, e); err != nil {
			t.Fatal(err)
		}
	}
	change(encrypted(t), p.generation)
	want(t, s.signatures(t) == 3 && s.verified(t, s.fetch(t))["credential_request_encryption"] != nil, "signatures after other encryption keys", s.signatures(t))
	change(s.published.Load().encryption, p.generation+1)
	want(t, s.signatures(t) == 3, "signatures after a change that the metadata does not show", s.signatures(t))
}

// TestSignedMetadataWhileTheTokenIsAway: the signed form stays until it expires,
// then JSON alone is served, and the log says each once.
func TestSignedMetadataWhileTheTokenIsAway(t *testing.T) {
	s := newSigning(t, true, nil)
	s.refresh(t)
	first := s.fetch(t)
	s.verified(t, first)
	s.signer.Fault.Order(t, "gone 0x32")
	for range 3 {
		s.advance(t, 5*time.Hour) // 15 h: due since 12 h
	}
	want(t, bytes.Equal(s.fetch(t).body, first.body), "the signed form stays", s.fetch(t).header)
	want(t, strings.Count(s.log.String(), "stays until it expires") == 1, "the log", s.log)
	s.advance(t, 9*time.Hour-90*time.Second)
	want(t, bytes.Equal(s.fetch(t).body, first.body), "the signed form stays to the end", s.fetch(t).header)
	s.advance(t, 45*time.Second) // a cache may keep it for a minute
	for range 3 {
		a := s.fetch(t)
		want(t, a.status == http.StatusOK && a.header.Get("Content-Type") == "application/json", "JSON alone", a.header)
		s.refresh(t)
	}
	want(t, strings.Count(s.log.String(), "the unsigned form alone") == 1, "the log", s.log)
	s.signer.Fault.Order(t)
	for deadline := time.Now().Add(time.Minute); s.fetch(t).header.Get("Content-Type") != "application/jwt"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not signed again: %s", s.log)
		}
		s.refresh(t)
	}
	want(t, strings.Count(s.log.String(), "can be signed again") == 1, "the log", s.log)
}

// TestSignedMetadataOfAChange: what was signed before a change is not given out
// after it, as both forms must say the same (check 54).
func TestSignedMetadataOfAChange(t *testing.T) {
	s := newSigning(t, true, nil)
	s.refresh(t)
	s.signer.Fault.Order(t, "gone 0x32")
	p := s.published.Load()
	if err := s.update(t.Context(), wire.IdentitiesResponse{Generation: p.generation, Identities: p.identities}, encrypted(t)); err != nil {
		t.Fatal(err)
	}
	a := s.fetch(t)
	want(t, a.header.Get("Content-Type") == "application/json" && a.object(t)["credential_request_encryption"] != nil, "JSON alone", a.header)
}

// TestSignedMetadataCannotBeMade: a refusal is told once, does not stop what is
// unsigned, and is not tried at every refresh.
func TestSignedMetadataCannotBeMade(t *testing.T) {
	for name, label := range map[string]string{"no such key": "metadata-9", "a key that signs no metadata": "cs-1"} {
		t.Run(name, func(t *testing.T) {
			s := newSigning(t, false, func(i *config.Issuer) { i.MetadataSigner = label })
			for range 3 {
				s.refresh(t)
			}
			tried := len(s.signer.Entries(t, audit.KindRefused))
			want(t, tried <= 1, "attempts", tried)
			a := s.fetch(t)
			want(t, a.status == http.StatusOK && a.header.Get("Content-Type") == "application/json", "check 27", a.header)
			s.advance(t, 2*signPause)
			want(t, len(s.signer.Entries(t, audit.KindRefused)) == 2*tried, "attempts after a pause", tried)
			want(t, s.signatures(t) == 0 && s.published.Load().signed.told != "", "signatures", s.signatures(t))
		})
	}
}

// TestSignedMetadataLastsNoLonger than the key's profile and certificate allow.
func TestSignedMetadataLastsNoLonger(t *testing.T) {
	s := newSigning(t, false, func(i *config.Issuer) { i.MetadataLifetime = config.Duration(48 * time.Hour) })
	leaf, err := x509.ParseCertificate(s.signer.Identity(t, "metadata-1").Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	s.advance(t, leaf.NotAfter.Sub(s.now())-time.Hour)
	claims := s.verified(t, s.fetch(t))
	want(t, int64(claims["exp"].(float64)) == leaf.NotAfter.Unix(), "exp", claims["exp"])
	s.advance(t, time.Hour+time.Minute)
	want(t, s.fetch(t).header.Get("Content-Type") == "application/json", "after the certificate's end", nil)
	want(t, strings.Contains(s.log.String(), "the unsigned form alone"), "the log", s.log)
}
