package proof

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust"
	"chancery/issuance"
)

// attestationCase is a key attestation with one defect, or none.
type attestationCase struct {
	name   string
	change change
	// member is what the refusal is about; "-" when the attestation holds.
	member string
}

// alters changes a claim; nil takes it away.
func alters(name string, value any) change {
	return func(_, claims map[string]any) { set(claims, name, value) }
}

// heads changes a header; nil takes it away.
func heads(name string, value any) change {
	return func(header, _ map[string]any) { set(header, name, value) }
}

// attestationCases hold or fail alike as a proof and within one.
func attestationCases(m maker) []attestationCase {
	at := func(d time.Duration) int64 { return m.now.Add(d).Unix() }
	return []attestationCase{
		{"212 typ key-attestation+jwt", nil, "-"},
		{"212 typ of draft 15", heads("typ", legacyTyp), "header typ"},
		{"212 typ JWT", heads("typ", "JWT"), "header typ"},
		{"212 typ of a proof", heads("typ", proofTyp), "header typ"},
		{"212 typ missing", heads("typ", nil), "header typ"},
		{"215 iat missing", alters("iat", nil), "iat"},
		{"215 iat of a string", alters("iat", "now"), "iat"},
		{"215 iat to come", alters("iat", at(10*time.Minute)), "iat"},
		{"215 iat of last year", alters("iat", at(-365*24*time.Hour)), "-"},
		{"215 attested_keys missing", alters("attested_keys", nil), "attested_keys"},
		{"215 attested_keys empty", alters("attested_keys", []any{}), "attested_keys"},
		{"215 attested_keys of an object", alters("attested_keys", m.h.jwk()), "attested_keys"},
		{"215 attested_keys of a string", alters("attested_keys", []any{"x"}), "attested_keys"},
		{"215 attested_keys with null", alters("attested_keys", []any{m.h.jwk(), nil}), "attested_keys"},
		{"215 attested_keys with a key off its curve", alters("attested_keys", []any{m.h.jwk(), m.members(m.other.jwk(), map[string]any{"y": m.members(m.h.jwk(), nil)["y"]})}), "attested_keys"},
		{"215 attested_keys with a key for encryption", alters("attested_keys", []any{m.h.jwk(), m.members(m.other.jwk(), map[string]any{"use": "enc"})}), "attested_keys"},
		{"215 attested_keys with a key twice", alters("attested_keys", []any{m.h.jwk(), m.other.jwk(), m.members(m.h.jwk(), map[string]any{"kid": "2"})}), "attested_keys"},
		{"217 expired", alters("exp", at(-2*time.Minute)), "exp"},
		{"217 exp of a string", alters("exp", "never"), "exp"},
		{"217 not valid yet", alters("nbf", at(2*time.Minute)), "nbf"},
		{"220 nonce of a number", alters("nonce", 1), "nonce"},
		{"220 nonce empty", alters("nonce", ""), "nonce"},
		{"222 key_storage of a string", alters("key_storage", "iso_18045_high"), "key_storage"},
		{"222 key_storage empty", alters("key_storage", []any{}), "key_storage"},
		{"222 key_storage of numbers", alters("key_storage", []any{1}), "key_storage"},
		{"223 user_authentication null", func(_, claims map[string]any) { claims["user_authentication"] = nil }, "user_authentication"},
		{"226 private key", alters("attested_keys", []any{m.h.jwk(), jose.JSONWebKey{Key: m.other.private}}), "attested_keys"},
		{"226 private key of the signer", alters("attested_keys", []any{jose.JSONWebKey{Key: m.h.private}}), "attested_keys"},
		{"226 symmetric key", alters("attested_keys", []any{m.h.jwk(), map[string]any{"kty": "oct", "k": "AAAA"}}), "attested_keys"},
		{"228 x5c missing", heads("x5c", nil), "header"},
		{"228 x5c missing, kid", func(header, _ map[string]any) { delete(header, "x5c"); header["kid"] = "1" }, "header"},
		{"228 x5c with the anchor", heads("x5c", b64(m.provider.leaf, m.provider.ca)), "header"},
		{"228 x5c self-signed", heads("x5c", []string{m.certificate(m.other.private.Public())}), "header"},
		{"228 x5c of the anchor alone", heads("x5c", b64(m.provider.ca)), "header"},
		{"228 x5c empty", heads("x5c", []string{}), "header"},
		{"212 further claims and headers", func(header, claims map[string]any) {
			header["x"], claims["certification"], claims["iss"], claims["x"] = 1, "https://certification.example.com", "provider", true
		}, "-"},
	}
}

// TestAttestation: each attestation as a proof by itself, and within a jwt proof.
func TestAttestation(t *testing.T) {
	m := newMaker(t)
	for _, c := range attestationCases(m) {
		t.Run(c.name, func(t *testing.T) {
			m := m
			m.TB = t
			compact := m.attest(c.change, m.h, m.other)
			for _, way := range []struct {
				proofs any
				place  string
			}{
				{attestations(compact), "proofs.attestation[0] "},
				{jwts(m.header("key_attestation", compact)), "proofs.jwt[0] key_attestation "},
			} {
				if c.member != "-" {
					fails(t, m.rules(), way.proofs, "invalid_proof", way.place+c.member)
					continue
				}
				s := holds(t, m.rules(), way.proofs)
				if named(t, s, m.h, m.other); !s.Attested || len(s.Attestations) != 1 || s.Attestations[0].Provider != "provider" || s.Attestations[0].Keys != 2 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// TestAttestationAlone is of the proof type attestation.
func TestAttestationAlone(t *testing.T) {
	m := newMaker(t)
	third, fourth := newHolder(t, issuance.EdDSA), newHolder(t, issuance.ES512)
	t.Run("219 nonce missing", func(t *testing.T) {
		fails(t, m.rules(), attestations(m.attest(alters("nonce", nil), m.h)), "invalid_proof", "proofs.attestation[0] nonce")
	})
	t.Run("220 the nonce is for the caller to judge", func(t *testing.T) {
		if s := holds(t, m.rules(), attestations(m.attest(alters("nonce", "wrong"), m.h))); len(s.Nonces) != 1 || s.Nonces[0] != "wrong" {
			t.Errorf("%q", s.Nonces)
		}
	})
	t.Run("224 two attestations", func(t *testing.T) {
		fails(t, m.rules(), attestations(m.attest(nil, m.h), m.attest(nil, m.other)), "invalid_credential_request", "proofs.attestation")
	})
	t.Run("225 three keys", func(t *testing.T) {
		named(t, holds(t, m.rules(), attestations(m.attest(nil, m.h, m.other, third))), m.h, m.other, third)
	})
	t.Run("225 more keys than the batch size", func(t *testing.T) {
		s := holds(t, m.rules(), attestations(m.attest(nil, m.h, m.other, third, fourth)))
		if named(t, s, m.h, m.other, third); s.Attestations[0].Keys != 4 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("225 no batches", func(t *testing.T) {
		rules := m.rules()
		rules.BatchSize = 1
		named(t, holds(t, rules, attestations(m.attest(nil, m.h, m.other))), m.h)
	})
	t.Run("225 no exp", func(t *testing.T) {
		holds(t, m.rules(), attestations(m.attest(alters("exp", nil), m.h)))
	})
	t.Run("225 jwk is no binding method", func(t *testing.T) {
		rules := m.rules()
		rules.Methods = []string{"did:jwk"}
		fails(t, rules, attestations(m.attest(nil, m.h)), "invalid_proof", "proofs.attestation[0] attested_keys")
	})
	t.Run("215 more keys than are read", func(t *testing.T) {
		keys := make([]holder, maxKeys+1)
		for n := range keys {
			keys[n] = newHolder(t, issuance.EdDSA)
		}
		holds(t, m.rules(), attestations(m.attest(nil, keys[:maxKeys]...)))
		fails(t, m.rules(), attestations(m.attest(nil, keys...)), "invalid_proof", "proofs.attestation[0] attested_keys")
	})
	t.Run("213 a proof in place of an attestation", func(t *testing.T) {
		fails(t, m.rules(), attestations(m.sign(nil)), "invalid_proof", "proofs.attestation[0] header typ")
	})
	t.Run("213 an attestation in place of a proof", func(t *testing.T) {
		fails(t, m.rules(), jwts(m.attest(nil, m.h)), "invalid_proof", "proofs.jwt[0] header typ")
	})
	t.Run("212 draft 15", func(t *testing.T) {
		rules := m.rules()
		rules.LegacyTyp = true
		holds(t, rules, attestations(m.attest(heads("typ", legacyTyp), m.h)))
		holds(t, rules, attestations(m.attest(nil, m.h)))
	})
}

// TestAttestationSigner is of who signed and with what.
func TestAttestationSigner(t *testing.T) {
	m := newMaker(t)
	stranger := m
	stranger.provider = newProvider(t, m.now)
	good := m.attest(nil, m.h)
	parts := strings.Split(good, ".")
	_, claims := m.decoded(good)
	with := func(algorithm string) string {
		header := `{"alg":"` + algorithm + `","typ":"` + attestationTyp + `","x5c":["` + b64(m.provider.leaf)[0] + `"]}`
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "."
	}
	mac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: m.provider.leaf.RawSubjectPublicKeyInfo},
		(&jose.SignerOptions{}).WithType(attestationTyp).WithHeader("x5c", b64(m.provider.leaf)))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := mac.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	hs256, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, compact, member string }{
		{"213 alg none", with("none") + parts[1] + ".", "header alg"},
		{"213 alg HS256", hs256, "header alg"},
		{"213 alg not in the metadata", with("ES512") + parts[1] + "." + parts[2], "header alg"},
		{"213 alg of another key", with("ES384") + parts[1] + "." + parts[2], "signature"},
		{"214 signer not trusted", stranger.attest(nil, m.h), "header"},
		{"214 bad signature", parts[0] + "." + parts[1] + "." + strings.Split(m.attest(alters("x", 1), m.h), ".")[2], "signature"},
		{"214 payload changed", parts[0] + "." + strings.Split(m.attest(alters("x", 1), m.h), ".")[1] + "." + parts[2], "signature"},
		{"214 signed by another", stranger.attest(heads("x5c", b64(m.provider.leaf)), m.h), "signature"},
		{"214 too long", m.attest(alters("x", strings.Repeat("x", maxAttestation*3/4)), m.h), ""},
		{"214 empty", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails(t, m.rules(), attestations(c.compact), "invalid_proof", strings.TrimSuffix("proofs.attestation[0] "+c.member, " "))
			fails(t, m.rules(), jwts(m.header("key_attestation", c.compact)), "invalid_proof", strings.TrimSuffix("proofs.jwt[0] key_attestation "+c.member, " "))
		})
	}
	t.Run("213 alg of the attestation's proof type alone", func(t *testing.T) {
		rules := m.rules()
		rules.Types["attestation"] = Type{Algorithms: []string{"ES384"}}
		fails(t, rules, attestations(good), "invalid_proof", "proofs.attestation[0] header alg")
		holds(t, rules, jwts(m.header("key_attestation", good)))
	})
	t.Run("214 certificate expired", func(t *testing.T) {
		rules := m.rules()
		rules.Now = m.now.Add(31 * 24 * time.Hour)
		late := m.attest(func(_, claims map[string]any) { claims["exp"] = rules.Now.Add(time.Hour).Unix() }, m.h)
		fails(t, rules, attestations(late), "invalid_proof", "proofs.attestation[0] header")
	})
	t.Run("214 a key by its kid", func(t *testing.T) {
		rules := m.rules()
		var err error
		if rules.Providers, err = trust.New(trust.Provider{Name: "by key", Keys: []trust.Key{{KeyID: "k", Public: m.provider.private.Public()}}}); err != nil {
			t.Fatal(err)
		}
		byKey := func(header, _ map[string]any) { delete(header, "x5c"); header["kid"] = "k" }
		if s := holds(t, rules, attestations(m.attest(byKey, m.h))); s.Attestations[0].Provider != "by key" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("214 nobody is trusted", func(t *testing.T) {
		rules := m.rules()
		rules.Providers = nil
		fails(t, rules, attestations(good), "invalid_proof", "proofs.attestation[0] header")
	})
}

// TestAttestationRequired: what the metadata demands must be there.
func TestAttestationRequired(t *testing.T) {
	m := newMaker(t)
	says := func(storage, authentication []string) change {
		return func(_, claims map[string]any) {
			if storage != nil {
				claims["key_storage"] = storage
			}
			if authentication != nil {
				claims["user_authentication"] = authentication
			}
		}
	}
	high, moderate, basic := "iso_18045_high", "iso_18045_moderate", "iso_18045_basic"
	both := m.required([]string{high, moderate}, []string{high})
	for _, c := range []struct {
		name   string
		rules  Rules
		says   change
		member string
	}{
		{"211 whatever it says", m.required(nil, nil), nil, "-"},
		{"222 as required", both, says([]string{high}, []string{high}), "-"},
		{"222 one of several", both, says([]string{basic, moderate}, []string{moderate, high}), "-"},
		{"222 key_storage below", both, says([]string{basic}, []string{high}), "key_storage"},
		{"222 key_storage absent", both, says(nil, []string{high}), "key_storage"},
		{"222 key_storage in capitals", both, says([]string{"ISO_18045_HIGH"}, []string{high}), "key_storage"},
		{"222 key_storage above what is listed", m.required([]string{moderate}, nil), says([]string{high}, nil), "key_storage"},
		{"223 user_authentication absent", both, says([]string{high}, nil), "user_authentication"},
		{"223 user_authentication below", both, says([]string{high}, []string{moderate}), "user_authentication"},
		{"223 user_authentication alone", m.required(nil, []string{moderate}), says(nil, []string{moderate}), "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			compact := m.attest(c.says, m.h)
			if c.member != "-" {
				fails(t, c.rules, attestations(compact), "invalid_proof", "proofs.attestation[0] "+c.member)
				fails(t, c.rules, jwts(m.header("key_attestation", compact)), "invalid_proof", "proofs.jwt[0] key_attestation "+c.member)
				return
			}
			holds(t, c.rules, attestations(compact))
			holds(t, c.rules, jwts(m.header("key_attestation", compact)))
		})
	}
	t.Run("211 absent", func(t *testing.T) {
		fails(t, m.required(nil, nil), jwts(m.sign(nil)), "invalid_proof", "proofs.jwt[0] header key_attestation")
	})
	t.Run("211 in one proof of two", func(t *testing.T) {
		second := m.with(issuance.EdDSA)
		fails(t, m.required(nil, nil), jwts(m.header("key_attestation", m.attest(nil, m.h, second.h)), second.sign(nil)), "invalid_proof", "proofs.jwt[1] header key_attestation")
	})
	t.Run("211 required, and nobody is trusted", func(t *testing.T) {
		rules := m.required(nil, nil)
		rules.Providers = nil
		fails(t, rules, jwts(m.header("key_attestation", m.attest(nil, m.h))), "invalid_proof", "proofs.jwt[0] key_attestation header")
	})
	t.Run("211 what was said is told", func(t *testing.T) {
		s := holds(t, both, attestations(m.attest(says([]string{high}, []string{high}), m.h)))
		if a := s.Attestations[0]; len(a.KeyStorage) != 1 || a.KeyStorage[0] != high || len(a.UserAuthentication) != 1 {
			t.Errorf("%+v", a)
		}
	})
}

// TestAttestationStatus asks a real status list server (check 227).
func TestAttestationStatus(t *testing.T) {
	m := newMaker(t)
	var answer string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/statuslist+jwt")
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	uri := server.URL + "/list"
	// Entry 0 is valid, entry 1 is not.
	answer = m.provider.token(t, map[string]any{"typ": "statuslist+jwt", "x5c": b64(m.provider.leaf)},
		map[string]any{"sub": uri, "iat": m.now.Unix(), "exp": m.now.Add(time.Hour).Unix(), "status_list": map[string]any{"bits": 1, "lst": zlibbed(t, 0b10)}})
	status := trust.NewStatus(trust.StatusOptions{Providers: m.provider.trusted, FailClosed: true, AllowedHosts: []string{"127.0.0.1"}, RootCAs: pool, Now: func() time.Time { return m.now }})
	rules := m.rules()
	rules.Status = status.Check
	refers := func(index int, uri string) change {
		return alters("status", map[string]any{"status_list": map[string]any{"idx": index, "uri": uri}})
	}
	t.Run("227 valid", func(t *testing.T) { holds(t, rules, attestations(m.attest(refers(0, uri), m.h))) })
	t.Run("227 no status", func(t *testing.T) { holds(t, rules, attestations(m.attest(nil, m.h))) })
	t.Run("227 revoked", func(t *testing.T) {
		fails(t, rules, attestations(m.attest(refers(1, uri), m.h)), "invalid_proof", "proofs.attestation[0] status")
		fails(t, rules, jwts(m.header("key_attestation", m.attest(refers(1, uri), m.h))), "invalid_proof", "proofs.jwt[0] key_attestation status")
	})
	t.Run("227 revoked, and nobody asks", func(t *testing.T) { holds(t, m.rules(), attestations(m.attest(refers(1, uri), m.h))) })
	t.Run("227 no list", func(t *testing.T) {
		fails(t, rules, attestations(m.attest(alters("status", "valid"), m.h)), "invalid_proof", "proofs.attestation[0] status")
	})
	t.Run("227 the list is not to be had", func(t *testing.T) {
		gone := httptest.NewTLSServer(http.NotFoundHandler())
		gone.Close()
		_, err := Check(context.Background(), decode(t, attestations(m.attest(refers(0, gone.URL), m.h))), rules)
		var r *refusal.Refusal
		if !errors.As(err, &r) || r.Code != "temporarily_unavailable" || r.Status != http.StatusServiceUnavailable || r.RetryAfter == 0 {
			t.Errorf("%+v", err)
		}
	})
}

// zlibbed is a status list of one byte.
func zlibbed(t testing.TB, bits byte) string {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write([]byte{bits}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(b.Bytes())
}
