package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"chancery/appliance/oid4vci"
	"chancery/appliance/signer/signertest"
)

// TestCreate: the contract of POST …/pre-authorized, checks 1, 3, 4, 5, 8, 9.
func TestCreate(t *testing.T) {
	r := newRig(t, signertest.Options{})
	for name, c := range map[string]struct {
		body  map[string]any
		code  string // the transaction code's pattern
		shape string // tx_code in the offer
		life  time.Duration
	}{
		"plain":         {map[string]any{}, "", "", 10 * time.Minute},
		"code":          {map[string]any{"transactionCodeConfiguration": map[string]any{}}, "^[0-9]{6}$", `{"input_mode":"numeric","length":6}`, 10 * time.Minute},
		"numeric":       {map[string]any{"transactionCodeConfiguration": map[string]any{"inputMode": "numeric", "length": 8, "description": "From the letter"}}, "^[0-9]{8}$", `{"input_mode":"numeric","length":8,"description":"From the letter"}`, 10 * time.Minute},
		"text":          {map[string]any{"transactionCodeConfiguration": map[string]any{"inputMode": "text", "length": 10}}, "^[2-9A-HJ-NP-Z]{10}$", `{"input_mode":"text","length":10}`, 10 * time.Minute},
		"longest code":  {map[string]any{"transactionCodeConfiguration": map[string]any{"length": 16, "description": strings.Repeat("é", 300)}}, "^[0-9]{16}$", `{"input_mode":"numeric","length":16,"description":"` + strings.Repeat("é", 300) + `"}`, 10 * time.Minute},
		"life":          {map[string]any{"expiresIn": map[string]any{"hours": 1, "minutes": 2, "seconds": 3}}, "", "", time.Hour + 2*time.Minute + 3*time.Second},
		"longest life":  {map[string]any{"expiresIn": map[string]any{"days": 1}}, "", "", 24 * time.Hour},
		"shortest life": {map[string]any{"expiresIn": map[string]any{"seconds": 60}}, "", "", time.Minute},
		"null members":  {map[string]any{"expiresIn": nil, "transactionCodeConfiguration": nil}, "", "", 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			c.body["credentials"], c.body["claims"] = []string{pidID}, claims(t, pidID)
			before := time.Now()
			a := r.post(t, offersPath, c.body)
			var got map[string]any
			a.into(t, &got)
			if a.status != http.StatusCreated || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v %s", a.status, a.header, a.body)
			}
			expires, err := time.Parse(time.RFC3339, got["expiresAt"].(string))
			if err != nil || expires.Before(before.Add(c.life-2*time.Second)) || expires.After(time.Now().Add(c.life+time.Second)) {
				t.Errorf("expiresAt is %v", got["expiresAt"])
			}
			code, has := got["transactionCode"].(string)
			if has != (c.code != "") || has && !regexp.MustCompile(c.code).MatchString(code) {
				t.Errorf("transactionCode is %q", code)
			}
			r.checkLinks(t, got, c.shape)
			if has && strings.Contains(fmt.Sprint(got["uri"], got["haipUri"], got["uriByValue"]), code) {
				t.Error("the transaction code is in a link")
			}
		})
	}
}

// checkLinks reads an offer's three links back.
func (r *rig) checkLinks(t *testing.T, got map[string]any, shape string) {
	t.Helper()
	var created createdBody
	data, err := json.Marshal(got)
	if err == nil {
		err = json.Unmarshal(data, &created)
	}
	if err != nil {
		t.Fatal(err)
	}
	reference, found := strings.CutPrefix(created.URI, "openid-credential-offer://?credential_offer_uri=")
	haip, foundHAIP := strings.CutPrefix(created.HAIPURI, "haip-vci://?credential_offer_uri=")
	target, err := url.PathUnescape(reference)
	if !found || !foundHAIP || err != nil || haip != reference || !strings.HasPrefix(target, signertest.Issuer+"/offers/") {
		t.Errorf("%q %q", created.URI, created.HAIPURI)
	}
	value, found := strings.CutPrefix(created.URIByValue, "openid-credential-offer://?credential_offer=")
	object, err := url.PathUnescape(value)
	if !found || err != nil {
		t.Fatalf("%q", created.URIByValue)
	}
	var offer struct {
		Issuer string   `json:"credential_issuer"`
		IDs    []string `json:"credential_configuration_ids"`
		Grants map[string]struct {
			Code   string          `json:"pre-authorized_code"`
			TxCode json.RawMessage `json:"tx_code"`
		} `json:"grants"`
	}
	if err := json.Unmarshal([]byte(object), &offer); err != nil {
		t.Fatal(err)
	}
	grant := offer.Grants[oid4vci.GrantType]
	if offer.Issuer != signertest.Issuer || len(offer.IDs) != 1 || offer.IDs[0] != pidID || len(grant.Code) < 40 || string(grant.TxCode) != shape {
		t.Errorf("%s", object)
	}
	id := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	if !id.MatchString(created.ID) || strings.Contains(target, created.ID) {
		t.Errorf("id is %q", created.ID)
	}
}

// createFault is a body with one defect, for a request that is right otherwise.
type createFault struct {
	name   string
	change func(body map[string]any)
	params string // the members that the answer names
}

func member(path string, value any) func(map[string]any) {
	return func(body map[string]any) {
		steps := strings.Split(path, ".")
		for _, step := range steps[:len(steps)-1] {
			inner, ok := body[step].(map[string]any)
			if !ok {
				inner = map[string]any{}
				body[step] = inner
			}
			body = inner
		}
		if body[steps[len(steps)-1]] = value; value == missing {
			delete(body, steps[len(steps)-1])
		}
	}
}

// missing takes a member away.
const missing = "\x00missing"

var createFaults = []createFault{
	{"2 no credentials", member("credentials", missing), "credentials"},
	{"2 empty credentials", member("credentials", []string{}), "credentials"},
	{"2 an unknown configuration", member("credentials", []string{pidID, "x"}), "credentials[1]"},
	{"2 a configuration twice", member("credentials", []string{pidID, pidID}), "credentials[1]"},
	{"2 seventeen configurations", member("credentials", strings.Split(strings.Repeat("x ", 17), " ")[:17]), "credentials"},
	{"credentials of a string", member("credentials", pidID), "credentials"},
	{"credentials of null", member("credentials", nil), "credentials"},
	{"a credential of a number", member("credentials", []any{pidID, 1}), "credentials[1]"},
	{"an unknown member", member("x", 1), "x"},
	{"a member in capitals", member("Claims", map[string]any{}), "Claims"},
	{"an unknown member, deeper", member("expiresIn.weeks", 1), "expiresIn.weeks"},
	{"5 inputMode", member("transactionCodeConfiguration.inputMode", "alphabetic"), "transactionCodeConfiguration.inputMode"},
	{"5 inputMode of a number", member("transactionCodeConfiguration.inputMode", 1), "transactionCodeConfiguration.inputMode"},
	{"5 a length of three", member("transactionCodeConfiguration.length", 3), "transactionCodeConfiguration.length"},
	{"5 a length of seventeen", member("transactionCodeConfiguration.length", 17), "transactionCodeConfiguration.length"},
	{"5 a length of zero", member("transactionCodeConfiguration.length", 0), "transactionCodeConfiguration.length"},
	{"5 a length with a fraction", member("transactionCodeConfiguration.length", 6.5), "transactionCodeConfiguration.length"},
	{"5 a length of a string", member("transactionCodeConfiguration.length", "6"), "transactionCodeConfiguration.length"},
	{"6 a description of 301 characters", member("transactionCodeConfiguration.description", strings.Repeat("é", 301)), "transactionCodeConfiguration.description"},
	{"6 a description of two lines", member("transactionCodeConfiguration.description", "a\nb"), "transactionCodeConfiguration.description"},
	{"a code configuration of true", member("transactionCodeConfiguration", true), "transactionCodeConfiguration"},
	{"an empty life", member("expiresIn", map[string]any{}), "expiresIn"},
	{"a life of seconds", member("expiresIn.seconds", 59), "expiresIn"},
	{"a life beyond the policy", member("expiresIn", map[string]any{"days": 1, "seconds": 1}), "expiresIn"},
	{"a negative part", member("expiresIn", map[string]any{"hours": 1, "minutes": -1}), "expiresIn"},
	{"days that overflow", member("expiresIn.days", 106752), "expiresIn"},
	{"days that overflow to one minute", member("expiresIn", map[string]any{"days": 213503982, "seconds": -1}), "expiresIn"},
	{"hours that overflow", member("expiresIn.hours", 1<<40), "expiresIn"},
	{"a number beyond all", member("expiresIn.days", json.Number("99999999999999999999")), "expiresIn.days"},
	{"claims of a string", member("claims", "x"), "claims"},
	{"claims of null", member("claims", nil), "claims"},
	{"no claims", member("claims", missing), "claims.birthdate claims.family_name claims.given_name claims.issuing_authority claims.nationalities claims.place_of_birth"},
	{"a required claim missing", member("claims.family_name", missing), "claims.family_name"},
	{"an unknown claim", member("claims.shoe_size", 44), "claims.shoe_size"},
	{"a claim of the wrong type", member("claims.sex", "female"), "claims.sex"},
	{"a date of no calendar", member("claims.birthdate", "1971-02-30"), "claims.birthdate"},
	{"an integer out of its bounds", member("claims.sex", 10), "claims.sex"},
	{"an unknown member of a claim", member("claims.address.planet", "x"), "claims.address.planet"},
	{"an object in a text's place", member("claims.given_name", map[string]any{}), "claims.given_name"},
	{"a picture that is none", member("claims.picture", "AAAA"), "claims.picture"},
	{"an empty client", member("clientId", ""), "clientId"},
	{"a client of 513 bytes", member("clientId", strings.Repeat("a", 513)), "clientId"},
	{"a client beyond ASCII", member("clientId", "wället"), "clientId"},
	{"a client of two lines", member("clientId", "a\nb"), "clientId"},
	{"a client of a number", member("clientId", 1), "clientId"},
	{"authentication of a string", member("clientAuthenticationRequired", "true"), "clientAuthenticationRequired"},
	{"authentication of null", member("clientAuthenticationRequired", nil), "clientAuthenticationRequired"},
	{"two faults at once", func(body map[string]any) { body["x"], body["credentials"] = 1, 2 }, "credentials x"},
	{"two faults of what it says", func(body map[string]any) {
		body["expiresIn"] = map[string]any{"seconds": 1}
		member("transactionCodeConfiguration.length", 1)(body)
	}, "expiresIn transactionCodeConfiguration.length"},
}

// TestCreateFaults: each fault names its member, says what was wrong and what
// would be right, and no offer is made, check 2.
func TestCreateFaults(t *testing.T) {
	r := newRig(t, signertest.Options{})
	for _, c := range createFaults {
		t.Run(c.name, func(t *testing.T) {
			body := map[string]any{"credentials": []string{pidID}, "claims": claims(t, pidID)}
			c.change(body)
			e := faulty(t, r.post(t, offersPath, body), http.StatusBadRequest, "BadRequest")
			if e.params() != c.params {
				t.Errorf("%+v, want %s", e.Details, c.params)
			}
			for _, d := range e.Details {
				if d.Location != "body" || !strings.Contains(d.Msg, "must") && !strings.HasPrefix(d.Msg, "is ") {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	var list struct{ Data []offerBody }
	r.do(t, http.MethodGet, offersPath, nil).into(t, &list)
	if len(list.Data) > 0 {
		t.Errorf("offers were made: %+v", list.Data)
	}
}

// TestNoValues: whatever is wrong with claims, their values are in no answer and
// no log line (promise P9).
func TestNoValues(t *testing.T) {
	r := newRig(t, signertest.Options{})
	const secret = "Zaubernuss"
	for name := range claims(t, mdlID) {
		for _, value := range []any{secret, secret + strings.Repeat("x", 5000), []any{secret}, map[string]any{"value": secret}, secret + "\u0000"} {
			body := map[string]any{"credentials": []string{mdlID, pidID}, "claims": claims(t, mdlID)}
			member("claims."+name, value)(body)
			member("claims.also_"+name, secret)(body)
			a := r.post(t, offersPath, body)
			faulty(t, a, http.StatusBadRequest, "BadRequest")
			if strings.Contains(string(a.body), secret) {
				t.Errorf("%s: %s", name, a.body)
			}
		}
	}
	for _, body := range []string{`{"credentials":["` + secret + `"],"claims":"` + secret + `"}`, `{"credentials":"` + secret + `"`, `{"expiresIn":{"days":"` + secret + `"}}`, `"` + secret + `"`} {
		if a := r.post(t, offersPath, body); strings.Contains(string(a.body), secret) {
			t.Errorf("%s", a.body)
		}
	}
	if strings.Contains(r.log.String(), secret) {
		t.Errorf("logged: %s", r.log.String())
	}
}

// TestCreateSeveral: configurations share the claims; a claim that one of them
// knows is no fault.
func TestCreateSeveral(t *testing.T) {
	r := newRig(t, signertest.Options{})
	all := claims(t, pidID)
	for name, value := range claims(t, residenceID) {
		all[name] = value
	}
	body := map[string]any{"credentials": []string{pidID, residenceID}, "claims": all}
	r.create(t, body)
	all["shoe_size"] = 44
	delete(all, "family_name")
	e := faulty(t, r.post(t, offersPath, body), http.StatusBadRequest, "BadRequest")
	if e.params() != "claims.family_name claims.shoe_size" {
		t.Errorf("%+v", e.Details)
	}
}

// TestBodies: media type, JSON, size.
func TestBodies(t *testing.T) {
	r := newRig(t, signertest.Options{})
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset"} {
		faulty(t, r.do(t, http.MethodPost, offersPath, strings.NewReader("{}"), "Content-Type", contentType), http.StatusUnsupportedMediaType, "UnsupportedMediaType")
	}
	for _, body := range []string{"", "{", "[]", "null", `{"credentials":[],"credentials":[]}`, `{} {}`, `{"claims":{"a":1,"a":2}}`, "\xff", strings.Repeat("[", 10000)} {
		if e := faulty(t, r.post(t, offersPath, body), http.StatusBadRequest, "BadRequest"); e.params() != "body" {
			t.Errorf("%q: %+v", body[:min(len(body), 40)], e.Details)
		}
	}
	faulty(t, r.post(t, offersPath, `{"claims":"`+strings.Repeat("x", maxBody)+`"}`), http.StatusRequestEntityTooLarge, "TooLarge")
	t.Run("many faults", func(t *testing.T) {
		e := faulty(t, r.post(t, offersPath, `{"credentials":[`+strings.Repeat("1,", 10_000)+`1]}`), http.StatusBadRequest, "BadRequest")
		if len(e.Details) != mostDetails+1 || !strings.Contains(e.Details[mostDetails].Msg, "9901 further") {
			t.Errorf("%d details, the last %+v", len(e.Details), e.Details[len(e.Details)-1])
		}
	})
	t.Run("a long name", func(t *testing.T) {
		e := faulty(t, r.post(t, offersPath, `{"`+strings.Repeat("ü", 5000)+`":1}`), http.StatusBadRequest, "BadRequest")
		if len(e.params()) > 300 {
			t.Errorf("%d bytes", len(e.params()))
		}
	})
	body := `{"credentials":["` + residenceID + `"],"claims":` + signertest.Example(t, "claims/"+residenceID+".json") + `}`
	if a := r.do(t, http.MethodPost, offersPath, strings.NewReader(body), "Content-Type", "Application/JSON; charset=utf-8"); a.status != http.StatusCreated {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestTokenAway: offers can be made while the token is away (promise P10), once
// a data key is open; before that the answer is 503 and nothing was made.
func TestTokenAway(t *testing.T) {
	r := newRig(t, signertest.Options{Faults: true})
	body := map[string]any{"credentials": []string{pidID}, "claims": claims(t, pidID)}
	// The store has opened a data key by itself as soon as it ran.
	r.create(t, body)
	r.signer.Fault.Order(t, "gone 0x32")
	r.create(t, body)
	r.signer.Fault.Order(t)
	if err := r.signer.Stop(t); err != nil {
		t.Fatal(err)
	}
	r.create(t, body)
	for _, path := range []string{"/v1/identities", "/v1/identities/ds-1"} {
		a := r.do(t, http.MethodGet, path, nil)
		faulty(t, a, http.StatusServiceUnavailable, "Unavailable")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	r.signer.Start(t)
	if a := r.do(t, http.MethodGet, "/v1/identities", nil); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}
