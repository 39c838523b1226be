package conformance

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// documents that no JSON endpoint takes: a member twice on each level, nesting
// without end, and what is no object.
func hostileDocuments() map[string]string {
	deep := func(n int, open, end string) string { return strings.Repeat(open, n) + strings.Repeat(end, n) }
	return map[string]string{
		"a member twice":              `{"credential_configuration_id":"a","credential_configuration_id":"a","transaction_id":"a","transaction_id":"a","notification_id":"a","notification_id":"a"}`,
		"an unknown member twice":     `{"x":1,"x":2}`,
		"a member twice, escaped":     `{"credential_configuration_id":"a","credential\u005fconfiguration_id":"a"}`,
		"a member twice, deeper":      `{"proofs":{"jwt":["a"],"jwt":["a"]}}`,
		"a member twice, in an array": `{"x":[{"y":1,"y":1}]}`,
		"100000 arrays":               `{"x":` + deep(100_000, "[", "]") + "}",
		"100000 arrays without ends":  `{"x":` + strings.Repeat("[", 100_000),
		"30000 objects":               `{"x":` + deep(30_000, `{"x":`, "}") + "}",
		"no object but arrays":        deep(100_000, "[", "]"),
		"not UTF-8":                   "{\"x\":\"\xff\"}",
		"half a surrogate pair":       `{"x":"\ud800"}`,
		"a byte order mark":           "\ufeff{}",
		"more behind":                 "{}{}",
		"a comment":                   "{}//",
		"a comma too many":            `{"x":1,}`,
		"a number that is none":       `{"x":01}`,
		"NaN":                         `{"x":NaN}`,
		"cut off":                     `{"x":"`,
		"nothing":                     "",
		"zeros":                       strings.Repeat("\x00", 1000),
	}
}

// TestHostileDocuments sends them to every endpoint that takes JSON.
func TestHostileDocuments(t *testing.T) {
	i := plain(t)
	s := i.session(t, unbound)
	for path, code := range map[string]string{"/credential": "invalid_credential_request", "/deferred": "invalid_credential_request", "/notification": "invalid_notification_request"} {
		limit := map[bool]int{true: 16 << 10, false: 256 << 10}[path == "/notification"]
		i.bounded(t, mayGrow, func() {
			for name, document := range hostileDocuments() {
				t.Run(name+" "+path, func(t *testing.T) {
					status := 400
					if len(document) > limit {
						status = 413
					}
					refused(t, s.post(t, path, []byte(document)), status, code)
				})
			}
		})
	}
	s.nothingIssued(t)
	// authorization_details is JSON in a form.
	code := i.offer(t, pidSDJWT, nil).code
	detail := `{"type":"openid_credential","credential_configuration_id":"` + pidSDJWT + `"`
	for name, details := range map[string]string{
		"a member twice":             "[" + detail + `,"type":"openid_credential"}]`,
		"an unknown member twice":    "[" + detail + `,"x":1,"x":1}]`,
		"a member twice, deeper":     "[" + detail + `,"claims":[{"path":["a"],"path":["a"]}]}]`,
		"deep":                       "[" + detail + `,"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}]",
		"deep without ends":          strings.Repeat("[", 20_000),
		"an array of 10000 elements": "[" + strings.Repeat("0,", 9_999) + "0]",
		"an array of 500 details":    "[" + strings.Repeat(detail+"},", 499) + detail + "}]",
		"a text that closes more":    `[]}, {"d":[` + detail + "}]",
		"a text that opens more":     `[], "e":[`,
	} {
		t.Run(name+" authorization_details", func(t *testing.T) {
			refused(t, i.tokenRequest(t, code, []string{"authorization_details", details}, nil), 400, "invalid_authorization_details")
		})
	}
	granted(t, i.tokenRequest(t, code, []string{"authorization_details", "[" + detail + "}]"}, nil), "Bearer")
	t.Run("the operators' API", func(t *testing.T) {
		for name, document := range hostileDocuments() {
			a := i.do(t, http.MethodPost, i.admin+"/v1/openid/offers/pre-authorized", []byte(document), "Authorization", "Bearer "+i.env["ADMIN_TOKEN"], "Content-Type", "application/json")
			if a.status != http.StatusBadRequest || a.text(t, "code") != "BadRequest" {
				t.Errorf("%s: %d %.200s", name, a.status, a.body)
			}
		}
	})
}

// TestHostileTokens: a token's header and payload are read as strictly as a body.
func TestHostileTokens(t *testing.T) {
	i := plain(t)
	s, code := i.session(t, pidSDJWT), i.offer(t, pidSDJWT, nil).code
	k := newKey(t, jose.ES256)
	head := `{"alg":"ES256","typ":"%s","jwk":` + string(marshal(t, k.members(t)))
	for name, more := range map[string]string{
		"a member twice":          `,"typ":"%s"}`,
		"an unknown member twice": `,"x":1,"x":1}`,
		"deep":                    `,"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + "}",
		"cut off":                 "",
		"more behind":             "}{}",
		"8 KB":                    `,"x":"` + strings.Repeat("x", 8_000) + `"}`,
	} {
		token := func(typ, claims string, inHeader bool) string {
			header := fmt.Sprintf(head, typ)
			changed := strings.ReplaceAll(more, "%s", typ)
			if inHeader {
				header += changed
			} else {
				header, claims = header+"}", strings.TrimSuffix(claims, "}")+changed
				if name == "a member twice" {
					claims = strings.Replace(claims, `"typ":`, `"typ":"",  "typ":`, 1)
				}
			}
			return base64url([]byte(header)) + "." + base64url([]byte(claims)) + "." + base64url(make([]byte, 64))
		}
		for _, inHeader := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, header: %t", name, inHeader), func(t *testing.T) {
				claims := string(marshal(t, members{"aud": i.issuer, "iat": 1, "nonce": i.nonce(t)}))
				refused(t, s.ask(t, request(pidSDJWT, token("openid4vci-proof+jwt", claims, inHeader))), 400, "invalid_proof")
				refused(t, i.tokenRequest(t, code, nil, []string{"DPoP", token("dpop+jwt", claims, inHeader)}), 400, "invalid_dpop_proof")
				refused(t, i.tokenRequest(t, code, nil, []string{"OAuth-Client-Attestation", token("oauth-client-attestation+jwt", claims, inHeader), "OAuth-Client-Attestation-PoP", token("oauth-client-attestation-pop+jwt", claims, inHeader)}), 400, "invalid_client")
			})
		}
	}
	s.nothingIssued(t)
}

// TestHostileArrays: an array of a million elements is too long for every
// endpoint; one that fits is refused, and costs what it weighs.
func TestHostileArrays(t *testing.T) {
	i := plain(t)
	s := i.session(t, byProof)
	million := "[" + strings.Repeat("0,", 999_999) + "0]"
	fits := "[" + strings.Repeat("0,", 120_000) + "0]"
	i.bounded(t, 2*mayGrow, func() { // decoded, a body of 256 KiB takes some 10 MiB
		for path, code := range map[string]string{"/credential": "invalid_credential_request", "/deferred": "invalid_credential_request", "/notification": "invalid_notification_request"} {
			refused(t, s.post(t, path, []byte(million)), 413, code)
			refused(t, s.post(t, path, []byte(`{"x":`+million+"}")), 413, code)
		}
		refused(t, i.tokenRequest(t, s.offer.code, []string{"authorization_details", million}, nil), 413, "invalid_request")
		for _, kind := range []string{"jwt", "attestation", "di_vp", "x"} {
			refused(t, s.post(t, "/credential", []byte(`{"credential_configuration_id":"`+byProof+`","proofs":{"`+kind+`":`+fits+"}}")), 400, "invalid_proof", "invalid_credential_request")
		}
		refused(t, s.post(t, "/credential", []byte(`{"credential_configuration_id":`+fits+"}")), 400, "invalid_credential_request")
		refused(t, s.post(t, "/deferred", []byte(`{"transaction_id":`+fits+"}")), 400, "invalid_credential_request")
		// Texts of proofs, each looked at with a signature's cost if it were not counted before.
		proof := i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)
		refused(t, s.post(t, "/credential", []byte(`{"credential_configuration_id":"`+byProof+`","proofs":{"jwt":["`+strings.Repeat(proof+`","`, 400)+proof+`"]}}`)), 400, "invalid_credential_request", "invalid_proof")
	})
	s.nothingIssued(t)
	credentials(t, s.ask(t, request(byProof, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), 1)
}

// TestHostileBodies sends 10 MB to every endpoint, with and without saying so
// before, eight at a time.
func TestHostileBodies(t *testing.T) {
	body := strings.Repeat("a", 10<<20)
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t), "sealed": sealed(t)} {
		s := i.session(t, pidSDJWT)
		const document, form = "application/json", "application/x-www-form-urlencoded"
		for _, c := range []struct {
			path, mediaType string
			status          int
			code            string // "" where the body is not read
		}{
			{"/token", form, 413, "invalid_request"}, {"/token", document, 400, "invalid_request"},
			{"/credential", document, 413, "invalid_credential_request"}, {"/credential", "application/jwt", 413, "invalid_credential_request"},
			{"/deferred", document, 413, "invalid_credential_request"}, {"/deferred", "application/jwt", 413, "invalid_credential_request"},
			{"/notification", document, 413, "invalid_notification_request"},
			{"/nonce", document, 200, ""}, {"/challenge", document, map[bool]int{true: 200, false: 404}[i.haipOn], ""},
		} {
			t.Run(fmt.Sprintf("%s %s %s", name, c.path, c.mediaType), func(t *testing.T) {
				i.bounded(t, mayGrow, func() {
					var wait sync.WaitGroup
					for n := range 8 {
						header := []string{"Content-Type", c.mediaType}
						if c.code != "" && c.path != "/token" {
							scheme := "Bearer "
							if s.key != nil {
								scheme = "DPoP "
								header = append(header, "DPoP", i.dpop(t, *s.key, c.path, s.token, i.do(t, http.MethodPost, "/nonce", nil).header.Get("DPoP-Nonce"), nil))
							}
							header = append(header, "Authorization", scheme+s.token)
						}
						wait.Go(func() {
							a := i.stream(t, c.path, body, n%2 == 0, header...)
							if c.code != "" {
								refused(t, a, c.status, c.code)
							} else if a.status != c.status {
								t.Errorf("%d %.200s", a.status, a.body)
							}
						})
					}
					wait.Wait()
				})
			})
		}
		t.Run(name+" the operators' API", func(t *testing.T) {
			operators := *i
			operators.issuer = i.admin
			i.bounded(t, mayGrow, func() {
				for _, known := range []bool{true, false} {
					a := operators.stream(t, "/v1/openid/offers/pre-authorized", body, known, "Content-Type", document, "Authorization", "Bearer "+i.env["ADMIN_TOKEN"])
					if a.status != http.StatusRequestEntityTooLarge || a.text(t, "code") != "TooLarge" {
						t.Errorf("%d %.200s", a.status, a.body)
					}
				}
			})
		})
	}
	t.Run("the authorization endpoint", func(t *testing.T) {
		i := sealed(t)
		i.bounded(t, mayGrow, func() {
			query := url.Values{"response_type": {"code"}, "client_id": {"x"}}.Encode()
			for _, known := range []bool{true, false} {
				if a := i.stream(t, "/authorize?"+query, body, known, "Content-Type", "application/x-www-form-urlencoded"); a.status/100 != 4 {
					t.Errorf("%d %.200s", a.status, a.body)
				}
			}
		})
	})
}
