package conformance

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// authority is a CA under which there may be attesters.
type authority struct {
	key
	certificate *x509.Certificate
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	k := newKey(t, jose.ES256)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Attesters"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{k, certificate}
}

// attester is a new one under the CA.
func (a authority) attester(t testing.TB, alg jose.SignatureAlgorithm) attester {
	t.Helper()
	k := newKey(t, alg)
	return attester{k, []string{certify(t, "Attester", k, a.certificate, a.key)}, a.certificate}
}

// ownAnchor is the CA that the instance "closed" believes.
var ownAnchor = sync.OnceValue(func() authority { return newAuthority(&fatal{}) })

// fatal panics where a test would end, for what is made outside of one.
type fatal struct{ testing.TB }

func (*fatal) Helper()           {}
func (*fatal) Fatal(args ...any) { panic(args) }

// open is a configuration of the instance "closed": an SD-JWT VC without
// selectively disclosable claims.
const open = "check.open"

// keyed is an attester that the instance "closed" believes by its key, for walletID alone.
var keyed = sync.OnceValue(func() key { return newKey(&fatal{}, jose.ES256) })

// closed refuses wallet and key attestations whose status cannot be looked up. Its
// attesters are under a CA of the test's, but for one that has a key alone.
func closed(t testing.TB) *instance {
	i := start(t, "closed", settings{sections: "[issuer.key_attestation]\nstatus = \"closed\"\n\n[issuer.wallet_attestation]\nstatus = \"closed\"\nrequire_chain = false\n\n" +
		"[[issuer.wallet_attestation.providers]]\nname = \"By key\"\nkeys = \"attester/keys.json\"\nclient_ids = [\"" + walletID + "\"]\n", prepared: func(run string) {
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: keyed().private.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}}
		if err := os.WriteFile(filepath.Join(run, "attester", "keys.json"), marshal(t, set), 0o600); err != nil {
			t.Fatal(err)
		}
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ownAnchor().certificate.Raw})
		if err := os.WriteFile(filepath.Join(run, "attester", "anchor.pem"), certificate, 0o600); err != nil {
			t.Fatal(err)
		}
		base, err := os.ReadFile(filepath.Join(run, "configurations", pidSDJWT+".toml"))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(base), `"`+pidSDJWT+`"`, `"`+open+`"`)
		text = regexp.MustCompile(`(?m)^disclose = .*\n`).ReplaceAllString(text, "")
		text = strings.ReplaceAll(text, "[[claims]]\n", "[[claims]]\ndisclose = \"never\"\n")
		if err := os.WriteFile(filepath.Join(run, "configurations", open+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}})
	return i
}

// An attester's algorithm is one of the metadata's for proofs, or it is refused.
func TestCheck213AttestersAlgorithm(t *testing.T) {
	i := closed(t)
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA, jose.ES512} {
		for way, carry := range carriers {
			t.Run(string(alg)+" "+way, func(t *testing.T) {
				s, k, nonce := i.session(t, attested), newKey(t, jose.ES256), i.nonce(t)
				a := s.askAttested(t, carry(t, i, k, nonce, ownAnchor().attester(t, alg).keyAttestation(t, []key{k}, nonce, nil)))
				if alg == jose.ES512 {
					refused(t, a, http.StatusBadRequest, "invalid_proof")
					s.nothingIssued(t)
					return
				}
				i.verified(t, credentials(t, a, 1)[0], &k)
			})
		}
	}
}

// listener is a TLS server on a loopback address that counts who connects.
func listener(t testing.TB) (url string, connections *atomic.Int32) {
	t.Helper()
	connections = &atomic.Int32{}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, connections
}

// A status list that cannot be looked up: the policy decides. The appliance
// fetches from public addresses alone, so that nobody may have it ask servers of
// its own network; a list that says "revoked" is tested with the code that reads it.
func TestCheck227Status(t *testing.T) {
	url, connections := listener(t)
	for name, i := range map[string]*instance{"open": plain(t), "closed": closed(t)} {
		by := i.attester
		if name == "closed" {
			by = ownAnchor().attester(t, jose.ES256)
		}
		for way, carry := range carriers {
			s, k := i.session(t, attested), newKey(t, jose.ES256)
			ask := func(status any) answer {
				nonce := i.nonce(t)
				return s.askAttested(t, carry(t, i, k, nonce, by.keyAttestation(t, []key{k}, nonce, with(nil, members{"status": status}))))
			}
			list := func(index any, uri string) members {
				return members{"status_list": members{"idx": index, "uri": uri}}
			}
			for what, status := range map[string]any{"no index": members{"status_list": members{"uri": url}}, "no uri": members{"status_list": members{"idx": 1}}, "http": list(1, strings.Replace(url, "https", "http", 1)),
				"a negative index": list(-1, url), "an index of text": list("1", url), "a text": "valid", "empty": members{}} {
				t.Run(name+" "+way+" "+what, func(t *testing.T) {
					refused(t, ask(status), http.StatusBadRequest, "invalid_proof")
				})
			}
			t.Run(name+" "+way+" unreachable", func(t *testing.T) {
				s.nothingIssued(t)
				a := ask(list(1, url+"/list"))
				if name == "open" {
					i.verified(t, credentials(t, a, 1)[0], &k)
					return
				}
				refused(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
				if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
					t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
				}
				s.nothingIssued(t)
				i.verified(t, credentials(t, ask(nil), 1)[0], &k)
			})
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the appliance connected %d times to a loopback address that a wallet named", n)
	}
}

// The same of a wallet's attestation, whose status stands in it or, with EU
// wallets, in its client_status. It spends no code.
func TestWalletAttestationStatus(t *testing.T) {
	url, connections := listener(t)
	status := members{"status_list": members{"idx": 1, "uri": url + "/list"}}
	for name, i := range map[string]*instance{"open": plain(t), "closed": closed(t)} {
		by := i.attester
		if name == "closed" {
			by = ownAnchor().attester(t, jose.ES256)
		}
		code := i.offer(t, pidSDJWT, nil).code
		for where, claims := range map[string]members{"status": {"status": status}, "client_status": {"client_status": members{"status": status, "exp": time.Now().Add(time.Hour).Unix()}}} {
			try := func(claims members) answer {
				k := newKey(t, jose.ES256)
				a := i.attempt(t, k)
				a.attestation = by.attestation(t, k, with(nil, claims))
				return i.try(t, code, a)
			}
			t.Run(name+" "+where, func(t *testing.T) {
				refused(t, try(members{where: "x"}), http.StatusBadRequest, "invalid_client")
				a := try(claims)
				if name == "open" {
					granted(t, a, "Bearer")
					code = i.offer(t, pidSDJWT, nil).code
					return
				}
				refused(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
				if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
					t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
				}
				granted(t, try(nil), "Bearer")
				code = i.offer(t, pidSDJWT, nil).code
			})
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the appliance connected %d times to a loopback address that a wallet named", n)
	}
}
