package wallet

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"chancery/verifier"

	"github.com/go-jose/go-jose/v4"
)

// strict is an issuer with every feature, which reads the wallet's messages with
// go-jose and refuses by the book what is wrong with them.
type strict struct {
	t        *testing.T
	server   *httptest.Server
	metadata map[string]any
	as       map[string]any
	// attester is trusted for attestations, signer signs credentials and metadata.
	attester, signer *Attester
	clientKey        crypto.PublicKey // of private_key_jwt
	sealing          *ecdsa.PrivateKey
	// What it does: nonces wants DPoP nonces, draft expects that ABCA draft,
	// deferrals is how often a deferred credential is not ready, breaks how many
	// credential answers are lost, fewer makes it issue one less than was asked.
	nonces    bool
	draft     Draft
	deferrals int
	interval  float64 // between deferred requests, in seconds
	breaks    int
	fewer     bool
	reversed  bool   // credentials come in another order than keys
	tokenType string // instead of what fits
	spoil     func(claims map[string]any)
	signed    func(header, claims map[string]any) // changes signed metadata
	// What it has seen.
	now       time.Time
	spent     map[string]bool // jti
	cnonces   map[string]int
	counter   int
	grants    map[string]*grant
	waiting   map[string][]crypto.PublicKey
	events    []string
	refusals  []string
	issued    int
	bodies    [][]byte // of credential requests, after decryption
	encrypted int
	pops      int
}

// grant is what an access token stands for.
type grant struct {
	client, jkt string
	identifiers bool
}

// refused is a refusal by the book.
type refused struct {
	status int
	code   string
	what   string
}

func (r *refused) Error() string { return r.code + ": " + r.what }

func refuse(code, format string, args ...any) error {
	return &refused{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

func newStrict(t *testing.T) *strict {
	t.Helper()
	i := &strict{t: t, interval: 30, now: time.Now().Truncate(time.Second), spent: map[string]bool{}, cnonces: map[string]int{}, grants: map[string]*grant{}, waiting: map[string][]crypto.PublicKey{}}
	var err error
	if i.attester, err = NewAttester("Attester", i.now); err != nil {
		t.Fatal(err)
	}
	if i.signer, err = NewAttester("Issuer", i.now); err != nil {
		t.Fatal(err)
	}
	if i.sealing, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	i.server = httptest.NewTLSServer(i)
	t.Cleanup(i.server.Close)
	id := i.server.URL
	all := []any{"ES256", "ES384", "EdDSA"}
	i.metadata = map[string]any{"credential_issuer": id, "credential_endpoint": id + "/credential", "nonce_endpoint": id + "/nonce",
		"deferred_credential_endpoint": id + "/deferred", "notification_endpoint": id + "/notification",
		"batch_credential_issuance": map[string]any{"batch_size": 5},
		"credential_configurations_supported": map[string]any{"pid": map[string]any{"format": "dc+sd-jwt", "vct": "urn:eudi:pid:1", "scope": "pid",
			"credential_signing_alg_values_supported": []any{"ES256"}, "cryptographic_binding_methods_supported": []any{"jwk", "did:jwk", "did:key"},
			"proof_types_supported": map[string]any{"jwt": map[string]any{"proof_signing_alg_values_supported": all},
				"attestation": map[string]any{"proof_signing_alg_values_supported": []any{"ES256"}},
				"di_vp":       map[string]any{"proof_signing_alg_values_supported": []any{suiteECDSA, suiteEdDSA}}},
			"credential_metadata": map[string]any{"claims": []any{map[string]any{"path": []any{"family_name"}, "mandatory": true}}}}}}
	i.as = map[string]any{"issuer": id, "token_endpoint": id + "/token", "grant_types_supported": []any{grantType, "refresh_token"},
		"pre-authorized_grant_anonymous_access_supported": true, "authorization_details_types_supported": []any{"openid_credential"},
		"dpop_signing_alg_values_supported": all}
	return i
}

// attested makes the issuer take wallet attestations.
func (i *strict) attested() {
	set(i.as, "token_endpoint_auth_methods_supported", []any{methodAttest})
	set(i.as, "client_attestation_signing_alg_values_supported", []any{"ES256"})
	set(i.as, "client_attestation_pop_signing_alg_values_supported", []any{"ES256"})
	set(i.as, "challenge_endpoint", i.server.URL+"/challenge")
	set(i.as, "pre-authorized_grant_anonymous_access_supported", nil)
}

// encryption makes the issuer encrypt.
func (i *strict) encryption(required bool, alg, enc string, zip bool) {
	jwk := jose.JSONWebKey{Key: i.sealing.Public(), KeyID: "seal-1", Algorithm: alg, Use: "enc"}
	request := map[string]any{"jwks": jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk}}, "enc_values_supported": []any{enc}, "encryption_required": required}
	response := map[string]any{"alg_values_supported": []any{alg}, "enc_values_supported": []any{enc}, "encryption_required": required}
	if zip {
		request["zip_values_supported"], response["zip_values_supported"] = []any{"DEF"}, []any{"DEF"}
	}
	set(i.metadata, "credential_request_encryption", request)
	set(i.metadata, "credential_response_encryption", response)
}

func (i *strict) link() string {
	data, err := json.Marshal(map[string]any{"credential_issuer": i.server.URL, "credential_configuration_ids": []any{"pid"},
		"grants": map[string]any{grantType: map[string]any{"pre-authorized_code": "code-1"}}})
	if err != nil {
		i.t.Fatal(err)
	}
	return "openid-credential-offer://?credential_offer=" + url.QueryEscape(string(data))
}

// wallet is one whose clock is the issuer's, and whose sleep advances it.
func (i *strict) wallet() *Wallet {
	return &Wallet{HTTP: i.server.Client(), Now: func() time.Time { return i.now }, Verify: &verifier.Options{Anchors: []*x509.Certificate{i.signer.Anchor}},
		Sleep: sleepOf(&i.now)}
}

// accept takes the offer; a refusal or a credential that is not accepted fails the test.
func (i *strict) accept(w *Wallet) *Result {
	i.t.Helper()
	result, err := w.Accept(i.t.Context(), i.link(), "")
	if err != nil {
		i.t.Fatalf("%v; refusals: %q", err, i.refusals)
	}
	if len(result.Unnotified) > 0 {
		i.t.Error(result.Unnotified)
	}
	for _, c := range result.Credentials {
		if !c.Accepted {
			i.t.Errorf("not accepted: %q", c.Problems(true))
		}
	}
	return result
}

// ServeHTTP routes, and turns refusals into answers.
func (i *strict) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Cache-Control", "no-store")
	var answer any
	status := http.StatusOK
	var err error
	switch r.Method + " " + r.URL.Path {
	case "GET /.well-known/openid-credential-issuer":
		if r.Header.Get("Accept") == jwtType {
			i.serveSigned(w)
			return
		}
		answer = i.metadata
	case "GET /.well-known/oauth-authorization-server":
		answer = i.as
	case "POST /challenge":
		answer = map[string]any{"attestation_challenge": "challenge-1"}
	case "POST /token":
		answer, err = i.serveToken(w, r)
	case "POST /nonce":
		i.counter++
		nonce := fmt.Sprintf("c-nonce-%d", i.counter)
		i.cnonces[nonce] = 0
		answer = map[string]any{"c_nonce": nonce}
	case "POST /credential", "POST /deferred":
		status, answer, err = i.serveCredential(w, r)
		if err == nil && answer == nil {
			return
		}
	case "POST /notification":
		if err = i.serveNotification(w, r); err == nil {
			w.Header().Del("Content-Type")
			w.WriteHeader(http.StatusNoContent)
			return
		}
	default:
		http.NotFound(w, r)
		return
	}
	var no *refused
	if errors.As(err, &no) {
		i.refusals = append(i.refusals, r.URL.Path+" "+no.Error())
		status, answer = no.status, map[string]any{"error": no.code}
		if no.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `DPoP algs="ES256", error="`+no.code+`"`)
		}
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		i.t.Error(err)
	}
}

// reply writes a credential answer, encrypted when the request asked for it.
func (i *strict) reply(w http.ResponseWriter, status int, answer map[string]any, encryption map[string]any) {
	data, err := json.Marshal(answer)
	if err != nil {
		i.t.Fatal(err)
	}
	if encryption != nil {
		w.Header().Set("Content-Type", jwtType)
		data = i.encrypt(data, encryption)
	}
	w.WriteHeader(status)
	if _, err := w.Write(data); err != nil {
		i.t.Error(err)
	}
}

func (i *strict) encrypt(data []byte, parameters map[string]any) []byte {
	raw, err := json.Marshal(parameters["jwk"])
	if err != nil {
		i.t.Fatal(err)
	}
	var key jose.JSONWebKey
	if err := json.Unmarshal(raw, &key); err != nil || !key.IsPublic() || key.Algorithm == "" {
		i.t.Fatalf("the wallet's key: %s, %v", raw, err)
	}
	options := &jose.EncrypterOptions{}
	if parameters["zip"] == "DEF" {
		options.Compression = jose.DEFLATE
	}
	encrypter, err := jose.NewEncrypter(jose.ContentEncryption(parameters["enc"].(string)), jose.Recipient{Algorithm: jose.KeyAlgorithm(key.Algorithm), Key: key.Key, KeyID: key.KeyID}, options)
	if err != nil {
		i.t.Fatal(err)
	}
	object, err := encrypter.Encrypt(data)
	if err != nil {
		i.t.Fatal(err)
	}
	compact, err := object.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	i.encrypted++
	return []byte(compact)
}

// body reads a request, decrypted when it must be.
func (i *strict) body(r *http.Request) (map[string]any, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	rules, _ := i.metadata["credential_request_encryption"].(map[string]any)
	switch kind := r.Header.Get("Content-Type"); {
	case kind == jwtType:
		object, err := jose.ParseEncryptedCompact(string(data), []jose.KeyAlgorithm{jose.ECDH_ES, jose.ECDH_ES_A128KW, jose.ECDH_ES_A256KW}, []jose.ContentEncryption{jose.ContentEncryption(rules["enc_values_supported"].([]any)[0].(string))})
		if err != nil {
			return nil, refuse("invalid_encryption_parameters", "%v", err)
		}
		if object.Header.KeyID != "seal-1" {
			return nil, refuse("invalid_encryption_parameters", "kid")
		}
		if data, err = object.Decrypt(i.sealing); err != nil {
			return nil, refuse("invalid_encryption_parameters", "%v", err)
		}
	case kind != jsonType:
		return nil, refuse("invalid_credential_request", "Content-Type")
	case rules["encryption_required"] == true:
		return nil, refuse("invalid_encryption_parameters", "not encrypted")
	}
	var object map[string]any
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&object); err != nil {
		return nil, refuse("invalid_credential_request", "%v", err)
	}
	if object["credential_response_encryption"] != nil && r.Header.Get("Content-Type") != jwtType {
		return nil, refuse("invalid_encryption_parameters", "a plain request for an encrypted answer")
	}
	i.bodies = append(i.bodies, data)
	return object, nil
}

func (i *strict) serveCredential(w http.ResponseWriter, r *http.Request) (int, any, error) {
	g, err := i.access(w, r)
	if err != nil {
		return 0, nil, err
	}
	body, err := i.body(r)
	if err != nil {
		return 0, nil, err
	}
	encryption, _ := body["credential_response_encryption"].(map[string]any)
	if rules, _ := i.metadata["credential_response_encryption"].(map[string]any); rules["encryption_required"] == true && encryption == nil {
		return 0, nil, refuse("invalid_encryption_parameters", "no credential_response_encryption")
	}
	var keys []crypto.PublicKey
	transaction := "transaction-1"
	if r.URL.Path == "/deferred" {
		if body["transaction_id"] != transaction || i.waiting[transaction] == nil {
			return 0, nil, refuse("invalid_transaction_id", "unknown")
		}
		keys = i.waiting[transaction]
	} else {
		if (body["credential_identifier"] == "pid-7") != g.identifiers || (body["credential_configuration_id"] == "pid") == g.identifiers {
			return 0, nil, refuse("invalid_credential_request", "identifier")
		}
		proofs, _ := body["proofs"].(map[string]any)
		if keys, err = i.checkProofs(proofs, g.client); err != nil {
			return 0, nil, err
		}
	}
	if i.breaks > 0 {
		i.breaks--
		connection, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			i.t.Fatal(err)
		}
		return 0, nil, connection.Close()
	}
	if i.deferrals > 0 {
		i.deferrals--
		i.waiting[transaction] = keys
		i.reply(w, http.StatusAccepted, map[string]any{"transaction_id": transaction, "interval": i.interval}, encryption)
		return 0, nil, nil
	}
	delete(i.waiting, transaction)
	var list []any
	for _, key := range keys {
		list = append(list, map[string]any{"credential": i.issue(key)})
	}
	if i.fewer {
		list = list[1:]
	}
	if i.reversed {
		slices.Reverse(list)
	}
	i.reply(w, http.StatusOK, map[string]any{"credentials": list, "notification_id": "notification-1"}, encryption)
	return 0, nil, nil
}

// issue makes an SD-JWT VC without disclosures.
func (i *strict) issue(holder crypto.PublicKey) string {
	i.issued++
	claims := map[string]any{"vct": "urn:eudi:pid:1", "iat": i.now.Unix(), "exp": i.now.Add(time.Hour).Unix(), "family_name": fmt.Sprintf("Mustermann %d", i.issued),
		"cnf": map[string]any{"jwk": jose.JSONWebKey{Key: holder}}}
	if i.spoil != nil {
		i.spoil(claims)
	}
	text, err := signJWT(i.signer.Key, "dc+sd-jwt", map[jose.HeaderKey]any{"x5c": x5c(i.signer.Certificate)}, claims)
	if err != nil {
		i.t.Fatal(err)
	}
	return text + "~"
}

func (i *strict) serveNotification(w http.ResponseWriter, r *http.Request) error {
	if _, err := i.access(w, r); err != nil {
		return err
	}
	var body map[string]string
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("Content-Type") != jsonType {
		return refuse("invalid_notification_request", "%v", err)
	}
	if body["notification_id"] != "notification-1" {
		return refuse("invalid_notification_id", "unknown")
	}
	i.events = append(i.events, body["event"])
	return nil
}

func (i *strict) serveSigned(w http.ResponseWriter) {
	header := map[string]any{"x5c": x5c(i.signer.Certificate)}
	claims := map[string]any{"sub": i.server.URL, "iat": i.now.Unix(), "exp": i.now.Add(time.Hour).Unix()}
	for name, value := range i.metadata {
		claims[name] = value
	}
	kind := metadataType
	if i.signed != nil {
		i.signed(header, claims)
	}
	if typ, found := header["typ"].(string); found {
		kind = typ
	}
	text, err := signJWT(i.signer.Key, kind, map[jose.HeaderKey]any{"x5c": header["x5c"]}, claims)
	if err != nil {
		i.t.Fatal(err)
	}
	w.Header().Set("Content-Type", jwtType)
	if _, err := io.WriteString(w, text); err != nil {
		i.t.Error(err)
	}
}
