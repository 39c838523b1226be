// Package flow is the smallest client that takes a running appliance through
// the pre-authorized code flow (OpenID4VCI 1.0 §3.5), step by step, for the
// promise tests and the load generator. It checks little and shows everything;
// the wallet package is the one that behaves as a wallet should.
package flow

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Client talks to one appliance.
type Client struct {
	Issuer     string // the Credential Issuer Identifier
	Admin      string // the admin API's base URL
	AdminToken string
	HTTP       *http.Client
}

// New returns a client that trusts the CA in caFile alone and keeps up to
// connections idle connections to each host.
func New(issuer, admin, adminToken, caFile string, connections int) (*Client, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(256)},
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     time.Minute,
	}
	return &Client{Issuer: issuer, Admin: admin, AdminToken: adminToken, HTTP: &http.Client{Transport: transport, Timeout: 30 * time.Second}}, nil
}

// Answer is an HTTP answer, read whole.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// ErrorCode returns the body's error member (RFC 6749 §5.2, OpenID4VCI 1.0 §8.3.1.2).
func (a Answer) ErrorCode() string {
	var body struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(a.Body, &body)
	return body.Error
}

// Offer is what the admin API answered.
type Offer struct {
	ID              string `json:"id"`
	URI             string `json:"uri"`
	URIByValue      string `json:"uriByValue"`
	ExpiresAt       string `json:"expiresAt"`
	TransactionCode string `json:"transactionCode"`
}

// Do sends a request and reads the answer.
func (c *Client) Do(ctx context.Context, method, target string, header map[string]string, body []byte) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	return Answer{response.StatusCode, response.Header, data}, err
}

// OfferRequest is the body that asks for a pre-authorized offer.
func OfferRequest(configuration string, claims json.RawMessage, txCode bool) ([]byte, error) {
	request := map[string]any{"credentials": []string{configuration}, "claims": claims}
	if txCode {
		request["transactionCodeConfiguration"] = map[string]any{"inputMode": "numeric", "length": 6}
	}
	return json.Marshal(request)
}

// CreateOffer asks the admin API for a pre-authorized offer.
func (c *Client) CreateOffer(ctx context.Context, configuration string, claims json.RawMessage, txCode bool) (Offer, Answer, error) {
	body, err := OfferRequest(configuration, claims, txCode)
	if err != nil {
		return Offer{}, Answer{}, err
	}
	return c.PostOffer(ctx, body)
}

// PostOffer sends an [OfferRequest].
func (c *Client) PostOffer(ctx context.Context, body []byte) (Offer, Answer, error) {
	answer, err := c.Do(ctx, http.MethodPost, c.Admin+"/v1/openid/offers/pre-authorized",
		map[string]string{"Authorization": "Bearer " + c.AdminToken, "Content-Type": "application/json"}, body)
	var offer Offer
	if err == nil && answer.Status == http.StatusCreated {
		err = json.Unmarshal(answer.Body, &offer)
	}
	return offer, answer, err
}

// Code resolves the offer's link, by value or by reference, and returns the
// pre-authorized code.
func (c *Client) Code(ctx context.Context, link string) (string, error) {
	u, err := url.Parse(link)
	if err != nil {
		return "", err
	}
	data := []byte(u.Query().Get("credential_offer"))
	if len(data) == 0 {
		answer, err := c.Do(ctx, http.MethodGet, u.Query().Get("credential_offer_uri"), nil, nil)
		if err != nil {
			return "", err
		}
		if answer.Status != http.StatusOK {
			return "", fmt.Errorf("the offer's URI answers %d", answer.Status)
		}
		data = answer.Body
	}
	var offer struct {
		Grants map[string]struct {
			Code string `json:"pre-authorized_code"`
		} `json:"grants"`
	}
	if err := json.Unmarshal(data, &offer); err != nil {
		return "", err
	}
	return offer.Grants[grantType].Code, nil
}

const grantType = "urn:ietf:params:oauth:grant-type:pre-authorized_code"

// Token redeems a code; txCode may be empty.
func (c *Client) Token(ctx context.Context, code, txCode string) (string, Answer, error) {
	return c.TokenWith(ctx, code, txCode, nil)
}

// TokenWith is Token with further headers.
func (c *Client) TokenWith(ctx context.Context, code, txCode string, header map[string]string) (string, Answer, error) {
	form := url.Values{"grant_type": {grantType}, "pre-authorized_code": {code}}
	if txCode != "" {
		form.Set("tx_code", txCode)
	}
	all := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	maps.Copy(all, header)
	answer, err := c.Do(ctx, http.MethodPost, c.Issuer+"/token", all, []byte(form.Encode()))
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err == nil && answer.Status == http.StatusOK {
		err = json.Unmarshal(answer.Body, &token)
	}
	return token.AccessToken, answer, err
}

// Nonce asks the nonce endpoint.
func (c *Client) Nonce(ctx context.Context) (string, Answer, error) {
	answer, err := c.Do(ctx, http.MethodPost, c.Issuer+"/nonce", nil, nil)
	var nonce struct {
		Nonce string `json:"c_nonce"`
	}
	if err == nil && answer.Status == http.StatusOK {
		err = json.Unmarshal(answer.Body, &nonce)
	}
	return nonce.Nonce, answer, err
}

// Ask asks for one credential with a proof by key and returns the answer as it is.
func (c *Client) Ask(ctx context.Context, token, configuration, nonce string, key *ecdsa.PrivateKey) (Answer, error) {
	return c.AskWith(ctx, configuration, nonce, key, map[string]string{"Authorization": "Bearer " + token})
}

// AskWith is Ask with headers of the caller's for the access token.
func (c *Client) AskWith(ctx context.Context, configuration, nonce string, key *ecdsa.PrivateKey, header map[string]string) (Answer, error) {
	proof, err := c.Proof(key, nonce)
	if err != nil {
		return Answer{}, err
	}
	body, err := json.Marshal(map[string]any{"credential_configuration_id": configuration, "proofs": map[string]any{"jwt": []string{proof}}})
	if err != nil {
		return Answer{}, err
	}
	all := map[string]string{"Content-Type": "application/json"}
	maps.Copy(all, header)
	return c.Do(ctx, http.MethodPost, c.Issuer+"/credential", all, body)
}

// Credential asks for one credential with a proof by key.
func (c *Client) Credential(ctx context.Context, token, configuration, nonce string, key *ecdsa.PrivateKey) (string, Answer, error) {
	answer, err := c.Ask(ctx, token, configuration, nonce, key)
	var response struct {
		Credentials []struct {
			Credential string `json:"credential"`
		} `json:"credentials"`
	}
	if err != nil || answer.Status != http.StatusOK {
		return "", answer, err
	}
	if err := json.Unmarshal(answer.Body, &response); err != nil {
		return "", answer, err
	}
	if len(response.Credentials) != 1 {
		return "", answer, fmt.Errorf("%d credentials were answered, one was asked for", len(response.Credentials))
	}
	return response.Credentials[0].Credential, answer, nil
}

// Proof makes a jwt key proof (OpenID4VCI 1.0 App. F.1) with the public key in its jwk header.
func (c *Client) Proof(key *ecdsa.PrivateKey, nonce string) (string, error) {
	jwk, err := publicJWK(key)
	if err != nil {
		return "", err
	}
	return sign(key, map[string]any{"alg": "ES256", "typ": "openid4vci-proof+jwt", "jwk": jwk},
		map[string]any{"aud": c.Issuer, "iat": time.Now().Unix(), "nonce": nonce})
}

// DPoP makes a DPoP proof (RFC 9449 §4.2) for a POST to a path below the
// identifier; token is "" at the token endpoint.
func (c *Client) DPoP(key *ecdsa.PrivateKey, path, token string) (string, error) {
	jwk, err := publicJWK(key)
	if err != nil {
		return "", err
	}
	claims := map[string]any{"jti": rand.Text(), "htm": http.MethodPost, "htu": c.Issuer + path, "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return sign(key, map[string]any{"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk}, claims)
}

// PoP makes the proof of possession that goes with a wallet attestation
// (OpenID4VCI 1.0 App. E).
func (c *Client) PoP(key *ecdsa.PrivateKey, client string) (string, error) {
	return sign(key, map[string]any{"alg": "ES256", "typ": "oauth-client-attestation-pop+jwt"},
		map[string]any{"iss": client, "aud": c.Issuer, "jti": rand.Text(), "iat": time.Now().Unix()})
}

// Attestation makes a wallet attestation for key, signed by an attester whose
// certificate is x5c, base64 DER (OpenID4VCI 1.0 App. E).
func Attestation(attester *ecdsa.PrivateKey, x5c, client string, key *ecdsa.PrivateKey) (string, error) {
	jwk, err := publicJWK(key)
	if err != nil {
		return "", err
	}
	return sign(attester, map[string]any{"alg": "ES256", "typ": "oauth-client-attestation+jwt", "x5c": []string{x5c}},
		map[string]any{"iss": client, "sub": client, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "cnf": map[string]any{"jwk": jwk}})
}

var b64 = base64.RawURLEncoding.EncodeToString

func publicJWK(key *ecdsa.PrivateKey) (map[string]string, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return map[string]string{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}, nil
}

// sign makes a compact JWS, ES256.
func sign(key *ecdsa.PrivateKey, header, claims map[string]any) (string, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	input := b64(h) + "." + b64(payload)
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return "", err
	}
	var raw [64]byte
	r.FillBytes(raw[:32])
	s.FillBytes(raw[32:])
	return input + "." + b64(raw[:]), nil
}

// NewKey makes a wallet's key.
func NewKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // the system has no randomness
	}
	return key
}

// Whole runs the flow from offer to credential and returns the credential. Any
// answer but the expected one is an error that names the step.
func (c *Client) Whole(ctx context.Context, configuration string, claims json.RawMessage, txCode bool) (string, error) {
	offer, answer, err := c.CreateOffer(ctx, configuration, claims, txCode)
	if err := failed("offer", answer, err, http.StatusCreated); err != nil {
		return "", err
	}
	code, err := c.Code(ctx, offer.URI)
	if err != nil {
		return "", fmt.Errorf("offer URI: %w", err)
	}
	return c.Redeem(ctx, configuration, code, offer.TransactionCode)
}

// Redeem runs the flow from the code to the credential.
func (c *Client) Redeem(ctx context.Context, configuration, code, txCode string) (string, error) {
	token, answer, err := c.Token(ctx, code, txCode)
	if err := failed("token", answer, err, http.StatusOK); err != nil {
		return "", err
	}
	nonce, answer, err := c.Nonce(ctx)
	if err := failed("nonce", answer, err, http.StatusOK); err != nil {
		return "", err
	}
	credential, answer, err := c.Credential(ctx, token, configuration, nonce, NewKey())
	if err := failed("credential", answer, err, http.StatusOK); err != nil {
		return "", err
	}
	return credential, nil
}

func failed(step string, answer Answer, err error, want int) error {
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if answer.Status != want {
		return fmt.Errorf("%s: %d %s", step, answer.Status, strings.TrimSpace(string(answer.Body)))
	}
	return nil
}
