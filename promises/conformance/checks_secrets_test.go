package conformance

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// talkative is an instance that logs all it can, with everything switched on that
// gives out secrets.
func talkative(t testing.TB) *instance {
	i := start(t, "talkative", settings{issuer: "compatibility = \"draft-13\"\nauthorization_endpoint = true\n", replace: map[string]string{`log = "info"`: `log = "debug"`},
		sections: "[issuer.refresh]\nenabled = true\n\n[issuer.wallet_attestation]\nchallenges = true\n\n[issuer.dpop]\nnonces = true\n"})
	i.nonces = true
	return i
}

// secrets are what must be found nowhere, with what each is.
type secrets map[string]string

// add keeps a secret and returns it. Of a token with an identifier in front, its
// secret half is looked for, too, as bytes; of a JWT its payload and signature; of
// an SD-JWT each disclosure.
func (s secrets) add(what, secret string) string {
	if len(secret) < 8 {
		return secret // "" of what was refused
	}
	s[secret] = what
	for n, part := range strings.Split(secret, "~") {
		if n > 0 && part != "" {
			s[part] = what + ", a disclosure"
		}
	}
	jwt, _, _ := strings.Cut(secret, "~")
	if parts := strings.Split(jwt, "."); len(parts) > 2 {
		for _, part := range parts[1:] {
			if len(part) >= 16 {
				s[part] = what + ", a part"
			}
		}
	} else if data, err := base64.RawURLEncoding.DecodeString(secret); err == nil && len(data) >= 24 && !strings.Contains(secret, " ") {
		s[string(data[len(data)-16:])] = what + ", as bytes"
	}
	return secret
}

// invented is a text that stands nowhere else, for what is kept as a secret.
func (s secrets) invented(what string) string { return s.add(what, "Geheim"+rand.Text()) }

// answer keeps what an answer gives out: every text at the places where secrets are.
func (s secrets) answer(t testing.TB, a answer) answer {
	t.Helper()
	var body struct {
		Access      string `json:"access_token"`
		Refresh     string `json:"refresh_token"`
		Nonce       string `json:"c_nonce"`
		Challenge   string `json:"attestation_challenge"`
		Transaction string `json:"transaction_id"`
		Credential  string `json:"credential"`
		Credentials []struct {
			Credential string `json:"credential"`
		} `json:"credentials"`
		Notification string `json:"notification_id"`
	}
	_ = json.Unmarshal(a.body, &body) // what is no JSON gives out nothing
	s.add("access token", body.Access)
	s.add("refresh token", body.Refresh)
	s.add("c_nonce", body.Nonce)
	s.add("attestation challenge", body.Challenge)
	s.add("transaction_id", body.Transaction)
	s.add("credential", body.Credential)
	s.add("notification_id", body.Notification)
	for _, c := range body.Credentials {
		s.add("credential", c.Credential)
	}
	s.add("DPoP nonce", a.header.Get("DPoP-Nonce"))
	return a
}

// offer makes an offer whose claims nobody else has.
func (s secrets) offer(t testing.TB, i *instance, id string) offer {
	t.Helper()
	o := i.offer(t, id, func(request map[string]any) {
		var claims members
		if err := json.Unmarshal(sample(t, id), &claims); err != nil {
			t.Fatal(err)
		}
		claims["family_name"], claims["given_name"] = s.invented("family_name"), s.invented("given_name")
		if address, ok := claims["address"].(members); ok && address["street_address"] != nil {
			address["street_address"] = s.invented("street_address")
		}
		request["claims"] = claims
		request["transactionCodeConfiguration"] = map[string]any{"inputMode": "text", "length": 16}
	})
	s.add("code", o.code)
	s.add("tx_code", o.txCode)
	s.add("the offer's URI", o.reference[strings.LastIndexByte(o.reference, '/')+1:])
	return o
}

// redeem turns an offer into a session, after all that may go wrong before; the
// wallet is bound and attested or neither.
func (s secrets) redeem(t testing.TB, i *instance, o offer, bound bool) *session {
	t.Helper()
	out := &session{instance: i, offer: o}
	header := func() []string { return nil }
	if bound {
		k := newKey(t, jose.ES256)
		out.key = &k
		header = func() []string {
			challenge := s.answer(t, i.do(t, http.MethodPost, "/challenge", nil)).text(t, "attestation_challenge")
			nonce := s.answer(t, i.do(t, http.MethodPost, "/token", nil)).header.Get("DPoP-Nonce")
			return []string{"OAuth-Client-Attestation", s.add("wallet attestation", i.attester.attestation(t, k, nil)), "OAuth-Client-Attestation-PoP", s.add("proof of possession", i.pop(t, k, challenge, nil)),
				"DPoP", s.add("DPoP proof", i.dpop(t, k, "/token", "", nonce, nil))}
		}
		refused(t, i.tokenRequest(t, o.code, []string{"tx_code", o.txCode}, []string{"DPoP", s.add("DPoP proof", i.dpop(t, k, "/token", "", "", nil))}), 400, "use_dpop_nonce")
	}
	s.answer(t, i.tokenRequest(t, o.code, nil, header()))
	s.answer(t, i.tokenRequest(t, o.code, []string{"tx_code", s.invented("a wrong tx_code")}, header()))
	s.answer(t, i.tokenRequest(t, o.code, []string{"tx_code", o.txCode, "authorization_details", s.invented("wrong details")}, header()))
	out.answer = s.answer(t, i.tokenRequest(t, o.code, []string{"tx_code", o.txCode}, header()))
	if out.answer.status != http.StatusOK {
		t.Fatalf("%d %.300s", out.answer.status, out.answer.body)
	}
	out.token = out.answer.text(t, "access_token")
	s.answer(t, i.tokenRequest(t, o.code, []string{"tx_code", o.txCode}, header())) // again
	return out
}

// proof is a key proof, which is kept.
func (s secrets) proof(t testing.TB, i *instance, c change) string {
	t.Helper()
	nonce := s.answer(t, i.do(t, http.MethodPost, "/nonce", nil)).text(t, "c_nonce")
	return s.add("proof", i.proof(t, newKey(t, jose.ES256), nonce, c))
}

// issue asks for a credential: wrongly, rightly, again, and notifies.
func (s secrets) issue(t testing.TB, o *session, id string) {
	t.Helper()
	post := func(path string, body any, header ...string) answer {
		data, raw := body.([]byte)
		if !raw {
			data = marshal(t, body)
		}
		return s.answer(t, o.post(t, path, data, header...))
	}
	for _, c := range []change{with(members{"typ": "JWT"}, nil), with(nil, members{"aud": s.invented("aud")}), with(nil, members{"nonce": s.invented("a wrong nonce")}), with(members{"kid": s.invented("kid"), "jwk": nil}, nil)} {
		post("/credential", request(id, s.proof(t, o.instance, c)))
	}
	post("/credential", members{"credential_configuration_id": s.invented("configuration")})
	post("/credential", []byte(s.invented("a body")))
	post("/credential", []byte(`{"`+s.invented("a member")+`":1,`))
	post("/credential", []byte("{}"), "Content-Type", s.invented("media type"))
	post("/credential", []byte(s.invented("no JWE")), "Content-Type", "application/jwt")
	body := request(id, s.proof(t, o.instance, nil))
	r := newRecipient(t)
	body["credential_response_encryption"] = r.parameters(t)
	sealed := o.seal(t, body)
	var first answer
	for range 2 {
		first = s.answer(t, r.open(t, post("/credential", sealed, "Content-Type", "application/jwt")))
	}
	if transaction := first.object(t)["transaction_id"]; transaction != nil {
		post("/deferred", members{"transaction_id": transaction})
		post("/deferred", members{"transaction_id": s.invented("transaction")})
		o.decide(t, o.offer, "approve")
		first = post("/deferred", members{"transaction_id": transaction})
		post("/deferred", members{"transaction_id": transaction})
	}
	credentials(t, first, 1)
	notification := first.text(t, "notification_id")
	post("/notification", members{"notification_id": s.invented("notification"), "event": "credential_accepted"})
	post("/notification", members{"notification_id": notification, "event": s.invented("event")})
	post("/notification", members{"notification_id": notification, "event": "credential_accepted", "event_description": s.invented("description")})
	post("/credential", request(id, s.proof(t, o.instance, nil))) // for another key
}

// strays sends secrets to where they do not belong.
func (s secrets) strays(t testing.TB, i *instance, o offer) {
	t.Helper()
	for _, path := range []string{"/credential", "/deferred", "/notification", "/nonce", "/token", "/"} {
		for _, scheme := range []string{"Bearer ", "DPoP ", "Basic ", ""} {
			s.answer(t, i.do(t, http.MethodPost, path, []byte(s.invented("a body")), "Authorization", scheme+s.invented("a token"), "DPoP", s.invented("no DPoP proof"), "Content-Type", "application/json"))
		}
		i.do(t, http.MethodPost, path+"?access_token="+s.invented("a token in the URL"), nil)
		i.do(t, http.MethodGet, path+"?tx_code="+s.invented("a code in the URL"), nil, s.invented("a header"), s.invented("a header's value"))
		i.do(t, s.invented("a method"), path, nil)
	}
	for _, target := range []string{"/offers/" + s.invented("an offer"), "/" + s.invented("a path"), "/crl/" + s.invented("a list"), "/authorize?response_type=code&client_id=" + s.invented("client_id") + "&state=" + s.invented("state"),
		"/authorize?" + url.Values{"issuer_state": {o.code}}.Encode()} {
		i.do(t, http.MethodGet, target, nil)
		i.do(t, http.MethodPost, target, []byte(s.invented("a form")), "Content-Type", "application/x-www-form-urlencoded")
	}
	for _, parameters := range [][]string{{"client_id", s.invented("client_id")}, {"grant_type", s.invented("grant")}, {"grant_type", "refresh_token", "refresh_token", s.invented("refresh token")},
		{"client_assertion_type", assertionType, "client_assertion", s.invented("assertion")}, {"scope", s.invented("scope")}, {s.invented("parameter"), s.invented("value")}} {
		i.tokenRequest(t, s.invented("a code"), parameters, nil)
		i.tokenRequest(t, s.invented("a code"), parameters, []string{"OAuth-Client-Attestation", s.invented("attestation"), "OAuth-Client-Attestation-PoP", s.invented("proof of possession")})
	}
	// What an operator's system sends, too.
	for _, claims := range []members{{"family_name": []string{s.invented("a claim of a wrong type")}}, {"family_name": s.invented("a claim"), "birthdate": s.invented("a date")}, {s.invented("an unknown claim"): s.invented("its value")}} {
		if a := i.operator(t, http.MethodPost, "/v1/openid/offers/pre-authorized", members{"credentials": []string{pidSDJWT}, "claims": claims}); a.status != http.StatusBadRequest {
			t.Errorf("%d %.300s", a.status, a.body)
		}
	}
	i.do(t, http.MethodGet, i.admin+"/v1/events", nil, "Authorization", "Bearer chancery_op_"+s.invented("an operator's token"))
	s.add("the operator's token", i.env["ADMIN_TOKEN"])
}

// whereabouts are all places that must not hold a secret, by name.
func (i *instance) whereabouts(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, dir := range []string{i.env["LOG_DIR"], filepath.Dir(i.env["CHANCERY_DB"])} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // the appliance runs: a file may have gone
			}
			out[path] = data
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/metrics", "/readyz", "/healthz", "/v1/openid/failures?limit=1000", "/v1/openid/deferred?limit=1000", "/v1/openid/offers/pre-authorized?limit=1000", "/v1/openid/configurations", "/v1/identities"} {
		out[path] = i.operator(t, http.MethodGet, path, nil).body
	}
	for cursor := ""; ; {
		a := i.operator(t, http.MethodGet, "/v1/events?limit=1000&cursor="+cursor, nil)
		out["/v1/events"] = append(out["/v1/events"], a.body...)
		if cursor = a.text(t, "nextCursor"); cursor == "" {
			return out
		}
	}
}

// TestPromiseP9Check329: after requests of all kinds, no secret, no claim and nothing that
// somebody sent is in a log, a metric, the operators' API or in the plain in a
// database.
func TestPromiseP9Check329(t *testing.T) {
	i := talkative(t)
	s := secrets{}
	var one *session
	for _, id := range []string{pidSDJWT, mdl, residence, unbound, approved} {
		for _, bound := range []bool{false, true} {
			o := s.redeem(t, i, s.offer(t, i, id), bound)
			s.issue(t, o, id)
			if refresh := o.answer.text(t, "refresh_token"); bound && refresh != "" {
				one = o
				s.answer(t, i.sendForm(t, "", form("grant_type", "refresh_token", "refresh_token", refresh)))
			}
		}
	}
	if one == nil {
		t.Error("no refresh token was given out")
	}
	waits := s.redeem(t, i, s.offer(t, i, approved), false) // which stays
	s.answer(t, waits.ask(t, request(approved, s.proof(t, i, nil))))
	open := s.offer(t, i, pidSDJWT)
	s.strays(t, i, open)
	old := s.redeem(t, i, s.offer(t, i, pidSDJWT), false)
	for _, proof := range []members{{"proof_type": "jwt", "jwt": s.proof(t, i, nil)}, {"proof_type": "jwt", "jwt": s.proof(t, i, with(nil, members{"nonce": s.invented("nonce")}))}} {
		s.answer(t, old.ask(t, members{"format": "vc+sd-jwt", "vct": "urn:eudi:pid:1", "proof": proof}))
	}
	i.operator(t, http.MethodDelete, "/v1/openid/offers/pre-authorized/"+s.offer(t, i, pidSDJWT).id, nil)

	kinds := map[string]bool{}
	for _, what := range s {
		kinds[what] = true
	}
	for _, what := range []string{"code", "tx_code", "the offer's URI", "access token", "refresh token", "c_nonce", "DPoP nonce", "DPoP proof", "wallet attestation", "proof of possession", "attestation challenge", "proof", "transaction_id", "notification_id", "credential", "family_name"} {
		if !kinds[what] {
			t.Errorf("no %s was seen", what)
		}
	}
	// The same search finds what may be there.
	found := func(where map[string][]byte, suffix, text string) bool {
		for name, data := range where {
			if strings.HasSuffix(name, suffix) && bytes.Contains(data, []byte(text)) {
				return true
			}
		}
		return false
	}
	var where map[string][]byte
	eventually(t, "the log's lines", func() error {
		where = i.whereabouts(t)
		if !found(where, "chanceryd.log", waits.offer.id) && !found(where, "chanceryd.log", one.offer.id) || !found(where, "/v1/events", open.id) {
			return errors.New("the offers are not in the log or the events")
		}
		return nil
	})
	if !found(where, "chancery.db", pidSDJWT) && !found(where, "chancery.db-wal", pidSDJWT) || !found(where, "/metrics", "chancery_") || !found(where, "failures?limit=1000", "invalid_proof") {
		t.Error("the search finds nothing")
	}
	size := 0
	for name, data := range where {
		size += len(data)
		for secret, what := range s {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds: %s (%.60q)", name, what, secret)
			}
		}
	}
	t.Logf("%d secrets of %d kinds in %d places of %d KiB", len(s), len(kinds), len(where), size>>10)
}

// TestCheck329Everywhere: whatever the other tests have sent, no log holds a JWT, a
// token's header or a sample claim.
func TestCheck329Everywhere(t *testing.T) {
	plain(t)
	instances.Lock()
	defer instances.Unlock()
	for name, i := range instances.byName {
		files, err := filepath.Glob(filepath.Join(i.env["LOG_DIR"], "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no logs: %v", name, err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"eyJ", "Bearer ", "DPoP ", "pre-authorized_code=", "tx_code=", "Đorđević", "Dorevic", "Zoë", "Port-Utopie", "UT-870314-2398", "openid-credential-offer://"} {
				if at := bytes.Index(data, []byte(text)); at >= 0 {
					t.Errorf("%s holds %q: %.300q", path, text, data[max(0, at-100):])
				}
			}
		}
	}
}

// TestCheck332ClockSkew: a wallet, its provider and a registered client whose
// clocks are a minute off are served. A wallet that is late is given two seconds
// less: iat has whole seconds, and a request is under way for a while.
func TestCheck332ClockSkew(t *testing.T) {
	for _, seconds := range []int64{60, -58} {
		off := func(_, claims members) {
			for _, name := range []string{"iat", "exp"} {
				if date, ok := claims[name].(int64); ok {
					claims[name] = date + seconds
				}
			}
		}
		t.Run(fmt.Sprintf("332 %+d s, everything", seconds), func(t *testing.T) {
			i := haip(t)
			k := newKey(t, jose.ES256)
			a := i.tokenRequest(t, i.offer(t, attested, nil).code, nil, []string{"OAuth-Client-Attestation", i.attester.attestation(t, k, off), "OAuth-Client-Attestation-PoP", i.pop(t, k, i.challenge(t), off),
				"DPoP", i.dpop(t, k, "/token", "", i.tokenNonce(t), off)})
			granted(t, a, "DPoP")
			s := &session{instance: i, key: &k, client: &k, token: a.text(t, "access_token")}
			nonce := i.nonce(t)
			holder := newKey(t, jose.ES256)
			proof := i.proof(t, holder, nonce, func(h, c members) {
				off(h, c)
				c["iss"], h["key_attestation"] = walletID, i.attester.keyAttestation(t, []key{holder}, nonce, off)
			})
			dpop := i.dpop(t, k, "/credential", s.token, i.do(t, http.MethodPost, "/nonce", nil).header.Get("DPoP-Nonce"), off)
			credentials(t, s.ask(t, request(attested, proof), "DPoP", dpop), 1)
		})
		t.Run(fmt.Sprintf("332 %+d s, nothing but a proof", seconds), func(t *testing.T) {
			i := plain(t)
			for _, id := range []string{mdl, pidSDJWT, residence} {
				s := i.session(t, id)
				credentials(t, s.ask(t, request(id, i.proof(t, newKey(t, jose.ES256), i.nonce(t), off))), 1)
			}
		})
		t.Run(fmt.Sprintf("332 %+d s, a client's assertion", seconds), func(t *testing.T) {
			i, k := registered(t)
			fiveMinutes := func(h, c members) {
				c["exp"] = time.Now().Add(5 * time.Minute).Unix()
				off(h, c)
				c["nbf"] = c["iat"]
			}
			granted(t, i.tokenRequest(t, i.offer(t, pidSDJWT, nil).code, i.assertion(t, k, fiveMinutes), nil), "Bearer")
		})
	}
}
