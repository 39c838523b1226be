package clientauth

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"chancery/appliance/oid4vci/dpop"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

const (
	audience = "https://issuer.example/t"
	walletID = "https://wallet.example"
	clientID = "registered"
)

// rig is an authenticator with a clock, a wallet provider with its CA, a wallet
// instance and a registered client.
type rig struct {
	*Authenticator
	now      time.Time
	leaf     trusttest.Certificate
	ca       trusttest.Certificate
	root     trusttest.Certificate
	instance crypto.Signer
	client   crypto.Signer
	jti      int
}

func newRig(t testing.TB, change func(*rig, *Options)) *rig {
	t.Helper()
	r := &rig{now: trusttest.Now, root: trusttest.Root(t, "Root"), instance: issuancetest.Key(t, issuance.ES256), client: issuancetest.Key(t, issuance.ES256)}
	r.ca = r.root.Authority(t, "CA")
	r.leaf = r.ca.Leaf(t, "Wallet provider", nil)
	providers, err := trust.New(trust.Provider{Name: "Provider", Anchors: []*x509.Certificate{r.root.Certificate}, RequireChain: true, ClientIDs: []string{walletID, clientID}})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Audience: audience, Providers: providers, Now: func() time.Time { return r.now },
		Clients: []Client{{ID: clientID, Keys: []trust.Key{{KeyID: "1", Public: r.client.Public()}}}},
	}
	if change != nil {
		change(r, &o)
	}
	if r.Authenticator, err = New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) attestationHeader() map[string]any {
	return map[string]any{"typ": "oauth-client-attestation+jwt", "x5c": trusttest.X5C(r.leaf, r.ca)}
}

// attestationClaims are as -07 has them: with iss.
func (r *rig) attestationClaims(t testing.TB) map[string]any {
	return map[string]any{"iss": "https://provider.example", "sub": walletID, "iat": r.now.Unix() - 3600, "exp": r.now.Unix() + 3600,
		"wallet_name": "Wallet", "cnf": map[string]any{"jwk": trusttest.JWK(t, r.instance.Public())}}
}

var popHeader = map[string]any{"typ": "oauth-client-attestation-pop+jwt"}

func (r *rig) popClaims() map[string]any {
	r.jti++
	return map[string]any{"iss": walletID, "aud": audience, "jti": "jti-" + strconv.Itoa(r.jti), "iat": r.now.Unix()}
}

// wallet is a request with an attestation and a proof of possession.
func (r *rig) wallet(t testing.TB, attestation, pop map[string]any) Request {
	return request(trusttest.Token(t, r.leaf.Key, r.attestationHeader(), attestation), trusttest.Token(t, r.instance, popHeader, pop))
}

// request has the headers given, "" for none, and an empty form.
func request(attestation, pop string) Request {
	q := Request{Header: http.Header{}, Form: url.Values{}}
	if attestation != "" {
		q.Header.Add(AttestationHeader, attestation)
	}
	if pop != "" {
		q.Header.Add(PoPHeader, pop)
	}
	return q
}

func (r *rig) assertionClaims() map[string]any {
	r.jti++
	return map[string]any{"iss": clientID, "sub": clientID, "aud": audience, "jti": "jti-" + strconv.Itoa(r.jti), "iat": r.now.Unix(), "exp": r.now.Unix() + 60}
}

func asserted(assertion string) Request {
	return Request{Header: http.Header{}, Form: url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion}}}
}

// refused checks a refusal: 400 with its code, and the operator's part.
func refused(t *testing.T, name string, err error, code string) *refusal.Refusal {
	t.Helper()
	var e *refusal.Refusal
	if !errors.As(err, &e) {
		t.Errorf("%s: %v", name, err)
		return &refusal.Refusal{}
	}
	if e.Code != code || e.Status != http.StatusBadRequest || e.Description == "" || e.Member == "" || e.Section == "" {
		t.Errorf("%s: %+v", name, e)
	}
	return e
}

func (r *rig) authenticate(q Request) (Identity, error) {
	return r.Authenticate(context.Background(), q)
}

// proof is a DPoP proof as [dpop.Checker.Check] gives it.
func proof(key crypto.Signer, nonce string, fresh bool) *dpop.Proof {
	return &dpop.Proof{Key: key.Public(), Nonce: nonce, Fresh: fresh}
}
