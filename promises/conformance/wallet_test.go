package conformance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// members are a header's or a payload's.
type members = map[string]any

// change spoils what would be right; nil changes nothing. A member set to nil
// is taken away.
type change func(header, claims members)

// with returns a change that sets members of the header, claims of the payload.
func with(header, claims members) change {
	return func(h, c members) {
		maps.Copy(h, header)
		maps.Copy(c, claims)
	}
}

// key is a key of the wallet's, or of somebody who vouches for it.
type key struct {
	alg     jose.SignatureAlgorithm
	private crypto.Signer
}

func newKey(t testing.TB, alg jose.SignatureAlgorithm) key {
	t.Helper()
	k := key{alg: alg}
	var err error
	switch alg {
	case jose.EdDSA:
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	case jose.ES384:
		k.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		k.private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k key) jwk() jose.JSONWebKey { return jose.JSONWebKey{Key: k.private.Public()} }

// members is the public key as a JWK's members.
func (k key) members(t testing.TB) members {
	t.Helper()
	data, err := k.jwk().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var m members
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// thumbprint is the RFC 7638 thumbprint, SHA-256, base64url.
func (k key) thumbprint(t testing.TB) string {
	t.Helper()
	jwk := k.jwk()
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// sign makes a compact JWS. alg comes from the key, whatever the header says; see
// [forge] for one that lies.
func (k key) sign(t testing.TB, header, claims members) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for name, value := range header {
		if value != nil && name != "alg" {
			options = options.WithHeader(jose.HeaderKey(name), value)
		}
	}
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.alg, Key: k.private}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// forge makes a compact JWS of any header with any bytes for a signature.
func forge(t testing.TB, header, claims members, signature []byte) string {
	t.Helper()
	maps.DeleteFunc(header, func(_ string, value any) bool { return value == nil })
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return b64(h) + "." + b64(c) + "." + b64(signature)
}

// proof is a jwt key proof (OpenID4VCI 1.0 App. F.1).
func (i *instance) proof(t testing.TB, k key, nonce string, c change) string {
	t.Helper()
	header := members{"typ": "openid4vci-proof+jwt", "jwk": k.jwk()}
	claims := members{"aud": i.issuer, "iat": time.Now().Unix(), "nonce": nonce}
	if c != nil {
		c(header, claims)
	}
	return k.sign(t, header, claims)
}

// dpop is a DPoP proof for a path below the identifier (RFC 9449 §4.2); token
// is "" at the token endpoint.
func (i *instance) dpop(t testing.TB, k key, path, token, nonce string, c change) string {
	t.Helper()
	header := members{"typ": "dpop+jwt", "jwk": k.jwk()}
	claims := members{"jti": rand.Text(), "htm": "POST", "htu": i.issuer + path, "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if c != nil {
		c(header, claims)
	}
	return k.sign(t, header, claims)
}

// attester vouches for wallets and their keys; the instances believe it.
type attester struct {
	key
	x5c    []string // its certificate; the anchor is not in it
	anchor *x509.Certificate
}

func loadAttester(t testing.TB, dir string) attester {
	t.Helper()
	block := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := pem.Decode(data)
		if b == nil {
			t.Fatalf("%s is no PEM", name)
		}
		return b.Bytes
	}
	private, err := x509.ParsePKCS8PrivateKey(block("attester.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := x509.ParseCertificate(block("anchor.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return attester{key{jose.ES256, private.(crypto.Signer)}, []string{base64.StdEncoding.EncodeToString(block("attester.pem"))}, anchor}
}

// walletID is the client_id of the wallet that the attester vouches for.
const walletID = "https://wallet.example/app"

// attestation is a wallet attestation for an instance's key (OpenID4VCI 1.0
// App. E, ABCA -07 §5.1).
func (a attester) attestation(t testing.TB, instance key, c change) string {
	t.Helper()
	header := members{"typ": "oauth-client-attestation+jwt", "x5c": a.x5c}
	claims := members{"iss": "https://provider.example", "sub": walletID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "cnf": members{"jwk": instance.jwk()}}
	if c != nil {
		c(header, claims)
	}
	return a.sign(t, header, claims)
}

// pop is the proof of possession that goes with it (ABCA -07 §5.2).
func (i *instance) pop(t testing.TB, instance key, challenge string, c change) string {
	t.Helper()
	header := members{"typ": "oauth-client-attestation-pop+jwt"}
	claims := members{"iss": walletID, "aud": i.issuer, "jti": rand.Text(), "iat": time.Now().Unix()}
	if challenge != "" {
		claims["challenge"] = challenge
	}
	if c != nil {
		c(header, claims)
	}
	return instance.sign(t, header, claims)
}

// keyAttestation vouches for keys (OpenID4VCI 1.0 App. D.1); nonce may be "".
func (a attester) keyAttestation(t testing.TB, keys []key, nonce string, c change) string {
	t.Helper()
	var jwks []any
	for _, k := range keys {
		jwks = append(jwks, k.members(t))
	}
	header := members{"typ": "key-attestation+jwt", "x5c": a.x5c}
	claims := members{"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "attested_keys": jwks,
		"key_storage": []string{"iso_18045_high"}, "user_authentication": []string{"iso_18045_high"}}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if c != nil {
		c(header, claims)
	}
	return a.sign(t, header, claims)
}

// challenge fetches an attestation challenge where the instance has them.
func (i *instance) challenge(t testing.TB) string {
	t.Helper()
	if !i.haipOn {
		return ""
	}
	return i.do(t, http.MethodPost, "/challenge", nil).text(t, "attestation_challenge")
}

// tokenRequest sends a token request for a code, with parameters (names and
// values in turn) and header lines (likewise).
func (i *instance) tokenRequest(t testing.TB, code string, parameters, header []string) answer {
	t.Helper()
	form := url.Values{"grant_type": {grantType}, "pre-authorized_code": {code}}
	for n := 0; n+1 < len(parameters); n += 2 {
		form.Set(parameters[n], parameters[n+1])
	}
	return i.do(t, http.MethodPost, "/token", []byte(form.Encode()), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

// session is a wallet with an access token.
type session struct {
	*instance
	offer  offer
	token  string
	key    *key // DPoP's, nil for a Bearer token
	client *key // the attested instance's key; nil for an anonymous wallet
	answer answer
}

// session makes an offer and redeems it: as a Bearer where the instance allows it,
// else with everything that HAIP demands. parameters go into the token request.
func (i *instance) session(t testing.TB, id string, parameters ...string) *session {
	t.Helper()
	if i.haipOn {
		return i.bound(t, id, parameters...)
	}
	s := &session{instance: i, offer: i.offer(t, id, nil)}
	return s.redeem(t, parameters)
}

// bound is a session whose token is bound to a DPoP key; where the instance
// demands it, the wallet is attested too.
func (i *instance) bound(t testing.TB, id string, parameters ...string) *session {
	t.Helper()
	k := newKey(t, jose.ES256)
	s := &session{instance: i, offer: i.offer(t, id, nil), key: &k}
	if i.haipOn {
		s.client = &k
	}
	return s.redeem(t, parameters)
}

func (s *session) redeem(t testing.TB, parameters []string) *session {
	t.Helper()
	s.answer = s.tokenRequest(t, s.offer.code, parameters, s.tokenHeader(t))
	if s.answer.status != http.StatusOK {
		t.Fatalf("token: %d %.300s", s.answer.status, s.answer.body)
	}
	s.token = s.answer.text(t, "access_token")
	return s
}

// tokenHeader is what the session's wallet sends with a token request.
func (s *session) tokenHeader(t testing.TB) []string {
	t.Helper()
	var header []string
	if s.client != nil {
		header = append(header, "OAuth-Client-Attestation", s.attester.attestation(t, *s.client, nil), "OAuth-Client-Attestation-PoP", s.pop(t, *s.client, s.challenge(t), nil))
	}
	if s.key != nil {
		nonce := ""
		if s.nonces {
			nonce = s.do(t, http.MethodPost, "/token", nil).header.Get("DPoP-Nonce") // refused, with a nonce
		}
		header = append(header, "DPoP", s.dpop(t, *s.key, "/token", "", nonce, nil))
	}
	return header
}

// nonce fetches a c_nonce.
func (i *instance) nonce(t testing.TB) string {
	t.Helper()
	a := i.do(t, http.MethodPost, "/nonce", nil)
	if a.status != http.StatusOK {
		t.Fatalf("nonce: %d %.300s", a.status, a.body)
	}
	return a.text(t, "c_nonce")
}

// post sends a body to a protected endpoint with the session's token; header
// lines are added, and take the place of the session's Authorization and DPoP
// where they name them.
func (s *session) post(t testing.TB, path string, body []byte, header ...string) answer {
	t.Helper()
	given := map[string]bool{}
	for n := 0; n+1 < len(header); n += 2 {
		given[http.CanonicalHeaderKey(header[n])] = true
	}
	if !given["Content-Type"] {
		header = append(header, "Content-Type", "application/json")
	}
	if !given["Authorization"] {
		scheme := "Bearer "
		if s.key != nil {
			scheme = "DPoP "
		}
		header = append(header, "Authorization", scheme+s.token)
	}
	if s.key != nil && !given["Dpop"] {
		nonce := ""
		if s.nonces {
			nonce = s.do(t, http.MethodPost, "/nonce", nil).header.Get("DPoP-Nonce")
		}
		header = append(header, "DPoP", s.dpop(t, *s.key, path, s.token, nonce, nil))
	}
	return s.do(t, http.MethodPost, path, body, header...)
}

// ask sends a credential request.
func (s *session) ask(t testing.TB, request members, header ...string) answer {
	t.Helper()
	return s.post(t, "/credential", marshal(t, request), header...)
}

// request is a right credential request by configuration id with jwt proofs.
func request(id string, proofs ...string) members {
	return members{"credential_configuration_id": id, "proofs": members{"jwt": proofs}}
}

// credentials returns those of a success, without more than may stand beside
// them (checks 157, 178, 179).
func credentials(t testing.TB, a answer, n int) []string {
	t.Helper()
	var body struct {
		Credentials []map[string]string `json:"credentials"`
		ID          string              `json:"notification_id"`
	}
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil || a.status != http.StatusOK || len(body.Credentials) != n {
		t.Fatalf("%d, %d credentials, want %d: %v %.300s", a.status, len(body.Credentials), n, err, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", a.header)
	}
	var out []string
	for _, c := range body.Credentials {
		if len(c) != 1 || c["credential"] == "" {
			t.Fatalf("%.300v", c)
		}
		out = append(out, c["credential"])
	}
	return out
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
