package conformance

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Every format, exactly the members that a success may have, never to be stored.
func TestCheck157ByConfigurationID(t *testing.T) {
	i := plain(t)
	for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence} {
		t.Run("157 178 179 "+id, func(t *testing.T) {
			s, k := i.session(t, id), newKey(t, jose.ES256)
			a := s.ask(t, request(id, i.proof(t, k, i.nonce(t), nil)))
			i.verified(t, credentials(t, a, 1)[0], &k) // one credential member each, no-store
			object := a.object(t)
			if names := slices.Sorted(maps.Keys(object)); !slices.Equal(names, []string{"credentials", "notification_id"}) || object["notification_id"] == "" {
				t.Errorf("members %v", names)
			}
		})
	}
}

// identified is a session whose token response named credential identifiers.
func (i *instance) identified(t testing.TB, id string) (s *session, identifier string) {
	t.Helper()
	s = i.session(t, id, "authorization_details", string(marshal(t, []members{{"type": "openid_credential", "credential_configuration_id": id}})))
	var body struct {
		Details []struct {
			Identifiers []string `json:"credential_identifiers"`
		} `json:"authorization_details"`
	}
	if err := json.Unmarshal(s.answer.body, &body); err != nil || len(body.Details) != 1 || len(body.Details[0].Identifiers) != 1 {
		t.Fatalf("authorization_details: %v %.300s", err, s.answer.body)
	}
	return s, body.Details[0].Identifiers[0]
}

func TestCheck158And161ByIdentifier(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		s, identifier := i.identified(t, pidSDJWT)
		k := newKey(t, jose.ES256)
		right := request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))
		t.Run("161 "+name, func(t *testing.T) {
			refused(t, s.ask(t, right), http.StatusBadRequest, "invalid_credential_request")
			s.nothingIssued(t)
		})
		t.Run("158 "+name, func(t *testing.T) {
			delete(right, "credential_configuration_id")
			right["credential_identifier"] = identifier
			i.verified(t, credentials(t, s.ask(t, right), 1)[0], &k)
		})
	}
}

// A lenient issuer takes the configuration's id for the identifier, where the
// token covers it.
func TestCheck161Lenient(t *testing.T) {
	i := draft(t, "draft-15")
	s, _ := i.identified(t, pidSDJWT)
	k := newKey(t, jose.ES256)
	refused(t, s.ask(t, request(mdl, i.proof(t, k, i.nonce(t), nil))), http.StatusForbidden, "insufficient_scope")
	i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))), 1)[0], &k)
}

// wrong is a credential request with one defect.
type wrong struct {
	name string // begins with the check's number
	code string
	// spoil makes the request's body from a right one; proof is another right proof.
	spoil func(t testing.TB, right members, proof string) any
}

// body is the request's; both proofs are right.
func (w wrong) body(t testing.TB, proof, another string) []byte {
	t.Helper()
	spoilt := w.spoil(t, request(pidSDJWT, proof), another)
	if text, ok := spoilt.([]byte); ok {
		return text
	}
	return marshal(t, spoilt)
}

// set sets members, nil takes one away.
func set(changes members) func(testing.TB, members, string) any {
	return func(_ testing.TB, right members, _ string) any {
		maps.Copy(right, changes)
		maps.DeleteFunc(right, func(_ string, v any) bool { return v == nil })
		return right
	}
}

// text makes a body that json.Marshal would not.
func text(make func(right string) string) func(testing.TB, members, string) any {
	return func(t testing.TB, right members, _ string) any { return []byte(make(string(marshal(t, right)))) }
}

var wrongRequests = []wrong{
	{"159 both identifiers", "invalid_credential_request", set(members{"credential_identifier": pidSDJWT + "#1"})},
	{"160 neither identifier", "invalid_credential_request", set(members{"credential_configuration_id": nil})},
	{"160 credential_configuration_id a number", "invalid_credential_request", set(members{"credential_configuration_id": 1})},
	{"160 credential_identifier an array", "invalid_credential_request", set(members{"credential_configuration_id": nil, "credential_identifier": []string{"x"}})},
	{"162 unknown configuration", "unknown_credential_configuration", set(members{"credential_configuration_id": "org.example.nothing"})},
	{"162 empty configuration", "unknown_credential_configuration", set(members{"credential_configuration_id": ""})},
	{"162 configuration in other case", "unknown_credential_configuration", set(members{"credential_configuration_id": strings.ToUpper(pidSDJWT)})},
	{"163 unknown identifier", "unknown_credential_identifier", set(members{"credential_configuration_id": nil, "credential_identifier": "nothing"})},
	{"163 identifier though none was returned", "unknown_credential_identifier", set(members{"credential_configuration_id": nil, "credential_identifier": pidSDJWT + "#1"})},
	{"165 no body", "invalid_credential_request", text(func(string) string { return "" })},
	{"165 cut", "invalid_credential_request", text(func(s string) string { return s[:len(s)-1] })},
	{"165 array", "invalid_credential_request", text(func(s string) string { return "[" + s + "]" })},
	{"165 string", "invalid_credential_request", text(func(string) string { return `"credential"` })},
	{"165 null", "invalid_credential_request", text(func(string) string { return "null" })},
	{"165 more than one value", "invalid_credential_request", text(func(s string) string { return s + "{}" })},
	{"165 duplicate member", "invalid_credential_request", text(func(s string) string { return s[:len(s)-1] + `,"credential_configuration_id":"` + mdl + `"}` })},
	{"165 duplicate member within", "invalid_credential_request", text(func(s string) string { return s[:len(s)-1] + `,"x":{"a":1,"a":2}}` })},
	{"165 no UTF-8", "invalid_credential_request", text(func(s string) string { return s[:len(s)-1] + ",\"x\":\"\xff\"}" })},
	{"165 deeply nested", "invalid_credential_request", text(func(s string) string {
		return s[:len(s)-1] + `,"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}"
	})},
	{"167 no proofs", "invalid_proof", set(members{"proofs": nil})},
	{"168 two proof types", "invalid_credential_request", func(_ testing.TB, right members, proof string) any {
		right["proofs"] = members{"jwt": []string{proof}, "attestation": []string{proof}}
		return right
	}},
	{"168 no proof type", "invalid_credential_request", set(members{"proofs": members{}})},
	{"168 proofs an array", "invalid_credential_request", func(_ testing.TB, right members, proof string) any {
		right["proofs"] = []string{proof}
		return right
	}},
	{"169 empty array", "invalid_credential_request", set(members{"proofs": members{"jwt": []string{}}})},
	{"169 string", "invalid_credential_request", func(_ testing.TB, right members, proof string) any {
		right["proofs"] = members{"jwt": proof}
		return right
	}},
	{"169 null", "invalid_credential_request", set(members{"proofs": members{"jwt": nil}})},
	{"169 numbers", "invalid_credential_request", set(members{"proofs": members{"jwt": []int{1}}})},
	{"170 proof type of no configuration", "invalid_credential_request", func(_ testing.TB, right members, proof string) any {
		right["proofs"] = members{"cwt": []string{proof}}
		return right
	}},
	{"170 proof type of another configuration", "invalid_credential_request", func(_ testing.TB, right members, proof string) any {
		right["proofs"] = members{"attestation": []string{proof}}
		return right
	}},
	{"171 proof", "invalid_proof", func(_ testing.TB, right members, proof string) any {
		right["proofs"] = nil
		right["proof"] = members{"proof_type": "jwt", "jwt": proof}
		return right
	}},
}

// After each refusal the same token and the same proof get the credential:
// nothing was issued, nothing was spent.
func TestCheck159To171Refusals(t *testing.T) {
	i := plain(t)
	for _, w := range wrongRequests {
		t.Run(w.name, func(t *testing.T) {
			s, k, nonce := i.session(t, pidSDJWT), newKey(t, jose.ES256), i.nonce(t)
			proof := i.proof(t, k, nonce, nil)
			refused(t, s.post(t, "/credential", w.body(t, proof, i.proof(t, newKey(t, jose.ES256), nonce, nil))), http.StatusBadRequest, w.code)
			s.nothingIssued(t)
			credentials(t, s.ask(t, request(pidSDJWT, proof)), 1)
		})
	}
	t.Run("163 identifier of another configuration", func(t *testing.T) {
		s, identifier := i.identified(t, pidSDJWT)
		for _, other := range []string{mdl + "#1", pidSDJWT, identifier + "1", pidSDJWT + "#2", ""} {
			refused(t, s.ask(t, members{"credential_identifier": other, "proofs": members{"jwt": []string{i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)}}}), http.StatusBadRequest, "unknown_credential_identifier")
		}
		s.nothingIssued(t)
	})
}

// codes are those that an error of the request's payload may have (OpenID4VCI 1.0 §8.3.1.2).
var codes = []string{"invalid_credential_request", "unknown_credential_configuration", "unknown_credential_identifier", "invalid_proof", "invalid_nonce", "invalid_encryption_parameters", "credential_request_denied"}

// What every error of the payload looks like, whatever is wrong.
func TestCheck173To175Errors(t *testing.T) {
	i := plain(t)
	answers := map[string]answer{}
	for _, w := range wrongRequests {
		s, nonce := i.session(t, pidSDJWT), i.nonce(t)
		answers[w.name] = s.post(t, "/credential", w.body(t, i.proof(t, newKey(t, jose.ES256), nonce, nil), i.proof(t, newKey(t, jose.ES256), nonce, nil)))
	}
	s := i.session(t, pidSDJWT)
	answers["a nonce that is none"] = s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), "\"\\ä\n", nil)))
	answers["a member's name"] = s.post(t, "/credential", []byte(`{"\"\\ä\n":1,"\"\\ä\n":1}`))
	answers["a proof's header"] = s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), with(members{"typ": "\"\\ä\n"}, nil))))
	description := regexp.MustCompile(`^[\x20-\x21\x23-\x5B\x5D-\x7E]+$`)
	t.Run("173 error_description", func(t *testing.T) {
		for name, a := range answers {
			if text := a.text(t, "error_description"); !description.MatchString(text) {
				t.Errorf("%s: %q", name, text)
			}
		}
	})
	t.Run("174 status and code", func(t *testing.T) {
		for name, a := range answers {
			if code := a.text(t, "error"); a.status != http.StatusBadRequest || a.header.Get("Content-Type") != "application/json" || !slices.Contains(codes, code) {
				t.Errorf("%s: %d %q %s", name, a.status, a.header.Get("Content-Type"), code)
			}
		}
	})
	t.Run("175 members", func(t *testing.T) {
		for name, a := range answers {
			if got := slices.Sorted(maps.Keys(a.object(t))); !slices.Equal(got, []string{"error", "error_description"}) {
				t.Errorf("%s: %v", name, got)
			}
		}
	})
}

func TestCheck164UnknownMembers(t *testing.T) {
	i := plain(t)
	s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
	r := request(pidSDJWT, i.proof(t, k, i.nonce(t), with(members{"x": 1}, members{"y": members{"z": nil}, "jti": "1"})))
	maps.Copy(r, members{"x": members{"credential_identifier": "y"}, "claims": members{}, "CREDENTIAL_IDENTIFIER": "x", "proof": nil, "": 1})
	i.verified(t, credentials(t, s.ask(t, r), 1)[0], &k)
}

func TestCheck166MediaType(t *testing.T) {
	i := plain(t)
	s := i.session(t, pidSDJWT)
	body := marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
	for _, mediaType := range []string{"text/plain", "", "application/x-www-form-urlencoded", "application/jsonp", "application/json-seq", "json", "application/jose", "*/*"} {
		refused(t, s.post(t, "/credential", body, "Content-Type", mediaType), http.StatusBadRequest, "invalid_credential_request")
	}
	s.nothingIssued(t)
	for _, mediaType := range []string{"application/json;charset=utf-8", "Application/JSON", `application/json; charset="UTF-8"`} {
		credentials(t, s.post(t, "/credential", body, "Content-Type", mediaType), 1)
	}
}

func TestCheck172WithoutBinding(t *testing.T) {
	i := plain(t)
	s := i.session(t, unbound)
	credential := credentials(t, s.ask(t, members{"credential_configuration_id": unbound}), 1)[0]
	i.verified(t, credential, nil)
	if claims := payload(t, credential); claims["cnf"] != nil || claims["sub"] != nil {
		t.Errorf("cnf %v, sub %v", claims["cnf"], claims["sub"])
	}
}

// The operator refused, the keys are others than those of before: denied.
func TestCheck176Denied(t *testing.T) {
	i := plain(t)
	s := i.session(t, pidSDJWT)
	credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), 1)
	refused(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), http.StatusBadRequest, "credential_request_denied")
	if state, list := i.look(t, s.offer); state != "issued" || len(list) != 1 {
		t.Errorf("%s, %d credentials", state, len(list))
	}
}

// A second request gets an equivalent credential; the first still verifies.
func TestCheck177SecondRequest(t *testing.T) {
	i := plain(t)
	s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
	first := credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))), 1)[0]
	second := credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))), 1)[0]
	i.verified(t, first, &k)
	i.verified(t, second, &k)
}

// A body that is too long costs an answer and nothing else.
func TestCheck180TooLong(t *testing.T) {
	i := plain(t)
	s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
	right := request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))
	for _, size := range []int{256 << 10, 1 << 20, 16 << 20} {
		right["padding"] = strings.Repeat("x", size)
		body := marshal(t, right)
		refused(t, s.post(t, "/credential", body), http.StatusRequestEntityTooLarge, "invalid_credential_request")
		// The same without Content-Length.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.issuer+"/credential", io.MultiReader(bytes.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+s.token)
		response, err := i.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%d bytes in chunks: %d", size, response.StatusCode)
		}
	}
	s.nothingIssued(t)
	right["padding"] = strings.Repeat("x", 200<<10)
	i.verified(t, credentials(t, s.ask(t, right), 1)[0], &k)
}
