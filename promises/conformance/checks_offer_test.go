package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"image/png"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rsc.io/qr"
)

// everywhere are all instances.
func everywhere(t testing.TB) map[string]*instance {
	t.Helper()
	return map[string]*instance{"plain": plain(t), "haip": haip(t), "sealed": sealed(t), "draft-13": draft(t, "draft-13"), "draft-15": draft(t, "draft-15")}
}

const offersPath = "/v1/openid/offers/pre-authorized"

// made is what the operators' API answers when an offer was made.
type made struct {
	ID         string `json:"id"`
	URI        string `json:"uri"`
	HAIP       string `json:"haipUri"`
	ByValue    string `json:"uriByValue"`
	TxCode     string `json:"transactionCode"`
	QR         string `json:"qr"`
	ExpiresAt  string `json:"expiresAt"`
	offer      map[string]any
	grant      map[string]any
	fetched    answer
	referenced string
}

// make makes an offer of configurations and fetches it.
func (i *instance) make(t testing.TB, query string, change func(members), ids ...string) made {
	t.Helper()
	request := members{"credentials": ids, "claims": sample(t, ids[0])}
	if change != nil {
		change(request)
	}
	a := i.operator(t, http.MethodPost, offersPath+query, request)
	if a.status != http.StatusCreated {
		t.Fatalf("%d %.500s", a.status, a.body)
	}
	var m made
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatal(err)
	}
	m.referenced = parameter(t, m.URI, "openid-credential-offer", "credential_offer_uri")
	m.fetched = i.do(t, http.MethodGet, m.referenced, nil)
	m.offer = m.fetched.object(t)
	grants, _ := m.offer["grants"].(map[string]any)
	m.grant, _ = grants[grantType].(map[string]any)
	if len(grants) != 1 || m.grant == nil {
		t.Fatalf("grants: %v", grants)
	}
	return m
}

// parameter returns the one parameter that a link of that scheme has.
func parameter(t testing.TB, link, scheme, name string) string {
	t.Helper()
	query, found := strings.CutPrefix(link, scheme+"://?")
	values, err := url.ParseQuery(query)
	if !found || err != nil || len(values) != 1 || len(values[name]) != 1 || strings.ContainsAny(query, "+ :/{\"") {
		t.Fatalf("%s does not have %s:// and %s alone, percent-encoded: %v", link, scheme, name, err)
	}
	return values.Get(name)
}

// TestCheckOffers: what offers hold and how they reach wallets, on each instance.
func TestCheckOffers(t *testing.T) {
	for name, i := range everywhere(t) {
		t.Run("001 007 the offer's members "+name, func(t *testing.T) {
			for _, ids := range [][]string{{mdl}, {residence}, {pidSDJWT, unbound}} {
				m := i.make(t, "", nil, ids...)
				if len(m.offer) != 3 || m.offer["credential_issuer"] != i.issuer {
					t.Errorf("%s", m.fetched.body)
				}
				listed, _ := m.offer["credential_configuration_ids"].([]any)
				if len(listed) != len(ids) {
					t.Errorf("credential_configuration_ids: %v", listed)
				}
				for n, id := range listed {
					if id != ids[n] || i.metadata(t).Configurations[ids[n]] == nil {
						t.Errorf("%v is not %s of the metadata", id, ids[n])
					}
				}
				if m.grant["authorization_server"] != nil { // 007
					t.Error("authorization_server with one server alone")
				}
			}
		})
		t.Run("003 004 008 009 016 017 transport "+name, func(t *testing.T) {
			for _, code := range []func(members){nil, withTxCode} {
				m := i.make(t, "", code, pidSDJWT)
				if txCode, has := m.grant["tx_code"]; has != (code != nil) {
					t.Errorf("tx_code: %v", txCode)
				} else if object, _ := txCode.(map[string]any); has && (object["input_mode"] != "numeric" || object["length"] != 6.0 || object["description"] != "Sent to you by letter.") {
					t.Errorf("tx_code: %v", txCode)
				}
				var byValue any
				if err := json.Unmarshal([]byte(parameter(t, m.ByValue, "openid-credential-offer", "credential_offer")), &byValue); err != nil || string(marshal(t, byValue)) != string(marshal(t, m.offer)) {
					t.Errorf("by value: %v %v", byValue, err)
				}
				if !strings.HasPrefix(m.referenced, i.issuer+"/") || parameter(t, m.HAIP, "haip-vci", "credential_offer_uri") != m.referenced {
					t.Errorf("by reference: %s, %s", m.referenced, m.HAIP)
				}
			}
		})
		t.Run("010 012 014 fetched twice "+name, func(t *testing.T) {
			m := i.make(t, "", nil, residence)
			for range 2 {
				a := i.do(t, http.MethodGet, m.referenced, nil)
				if a.status != http.StatusOK || !bytes.Equal(a.body, m.fetched.body) || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%d %v %s", a.status, a.header, a.body)
				}
			}
			if a := i.do(t, http.MethodHead, m.referenced, nil); a.status != http.StatusOK || len(a.body) > 0 || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("HEAD: %d %v", a.status, a.header)
			}
		})
	}
}

// TestCheckOfferRefusals: what operators cannot offer, and that nothing is made then.
func TestCheckOfferRefusals(t *testing.T) {
	i := plain(t)
	count := func() int {
		list, _ := i.operator(t, http.MethodGet, offersPath+"?limit=1000", nil).object(t)["data"].([]any)
		return len(list)
	}
	code := func(members members) map[string]any {
		return map[string]any{"credentials": []string{pidSDJWT}, "claims": sample(t, pidSDJWT), "transactionCodeConfiguration": members}
	}
	before := count()
	for name, request := range map[string]map[string]any{
		"002 no configuration":           {"credentials": []string{}, "claims": sample(t, mdl)},
		"002 no member":                  {"claims": sample(t, mdl)},
		"002 unknown configuration":      {"credentials": []string{"org.example.none"}, "claims": sample(t, mdl)},
		"002 one of two unknown":         {"credentials": []string{mdl, "org.example.none"}, "claims": sample(t, mdl)},
		"002 duplicates":                 {"credentials": []string{mdl, mdl}, "claims": sample(t, mdl)},
		"005 input mode":                 code(members{"inputMode": "alphanumeric"}),
		"005 a length that is a text":    code(members{"length": "6"}),
		"005 a length that is broken":    code(members{"length": 6.5}),
		"005 a length of nothing":        code(members{"length": 0}),
		"006 301 characters":             code(members{"description": strings.Repeat("a", 301)}),
		"006 301 characters of 2 bytes":  code(members{"description": strings.Repeat("ä", 301)}),
		"006 301 characters and numeric": code(members{"inputMode": "numeric", "length": 6, "description": strings.Repeat("a", 301)}),
	} {
		t.Run(name, func(t *testing.T) {
			if a := i.operator(t, http.MethodPost, offersPath, request); a.status != http.StatusBadRequest || a.text(t, "code") != "BadRequest" {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	if after := count(); after != before {
		t.Errorf("002: %d offers were made", after-before)
	}
	t.Run("006 300 characters", func(t *testing.T) {
		m := i.make(t, "", func(r members) { r["transactionCodeConfiguration"] = members{"description": strings.Repeat("ä", 300)} }, pidSDJWT)
		description, _ := m.grant["tx_code"].(map[string]any)["description"].(string)
		if utf8.RuneCountInString(description) != 300 {
			t.Errorf("%q", description)
		}
	})
}

// TestCheck005TransactionCodes: a numeric code has its length in digits, with
// leading zeros; some of many begin with one.
func TestCheck005TransactionCodes(t *testing.T) {
	i := plain(t)
	digits := regexp.MustCompile(`^[0-9]{4}$`)
	const codes = 120 // none begins with a zero in one of 300,000 runs
	zeros, different := 0, map[string]bool{}
	for range codes {
		a := i.operator(t, http.MethodPost, offersPath, members{"credentials": []string{residence}, "claims": sample(t, residence),
			"transactionCodeConfiguration": members{"inputMode": "numeric", "length": 4}})
		code := a.text(t, "transactionCode")
		if !digits.MatchString(code) {
			t.Fatalf("%d %q", a.status, code)
		}
		different[code] = true
		if code[0] == '0' {
			zeros++
		}
	}
	if zeros == 0 || len(different) < codes/2 {
		t.Errorf("%d of %d begin with 0, %d are different", zeros, codes, len(different))
	}
	m := i.make(t, "", func(r members) { r["transactionCodeConfiguration"] = members{"inputMode": "text", "length": 8} }, residence)
	if object, _ := m.grant["tx_code"].(map[string]any); utf8.RuneCountInString(m.TxCode) != 8 || object["input_mode"] != "text" || object["length"] != 8.0 {
		t.Errorf("%q %v", m.TxCode, object)
	}
}

// TestCheck011Unguessable: URIs and codes of two offers share nothing, and each
// has 128 random bits at least.
func TestCheck011Unguessable(t *testing.T) {
	i := plain(t)
	secrets := func() (string, string) {
		m := i.make(t, "", nil, residence)
		code, _ := m.grant["pre-authorized_code"].(string)
		return m.referenced[strings.LastIndexByte(m.referenced, '/')+1:], code
	}
	uriA, codeA := secrets()
	uriB, codeB := secrets()
	for what, pair := range map[string][2]string{"URIs": {uriA, uriB}, "codes": {codeA, codeB}, "URI and code": {uriA, codeA}} {
		a, errA := base64.RawURLEncoding.DecodeString(pair[0])
		b, errB := base64.RawURLEncoding.DecodeString(pair[1])
		if errA != nil || errB != nil || len(a) < 16 || len(b) < 16 {
			t.Fatalf("%s: %v", what, pair)
		}
		// What precedes the random part, a number, may be alike.
		different := 0
		for n := range min(len(a), len(b)) {
			if a[n] != b[n] {
				different++
			}
		}
		if different < 14 { // of 16 random bytes, three are alike in one of 30,000 runs
			t.Errorf("%s: %v differ in %d bytes", what, pair, different)
		}
	}
}

// TestCheck013Expired waits for the shortest life that an offer can have while
// other tests run.
func TestCheck013Expired(t *testing.T) {
	i := plain(t)
	o := i.offer(t, residence, func(request map[string]any) { request["expiresIn"] = members{"minutes": 1} })
	ends := time.Now().Add(time.Minute)
	t.Parallel()
	time.Sleep(time.Until(ends) + 100*time.Millisecond)
	gone(t, i, o)
}

// gone checks that an offer's URI leads to nothing any more (check 013).
func gone(t testing.TB, i *instance, o offer) {
	t.Helper()
	a := i.do(t, http.MethodGet, o.reference, nil)
	if a.status != http.StatusGone && a.status != http.StatusNotFound || bytes.Contains(a.body, []byte(o.code)) || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
}

// TestCheck013Gone: an offer's URI tells nothing after redemption or cancellation.
func TestCheck013Gone(t *testing.T) {
	i := plain(t)
	for name, end := range map[string]func(t *testing.T) offer{
		"redeemed": func(t *testing.T) offer { return i.session(t, residence).offer },
		"issued": func(t *testing.T) offer {
			s := i.session(t, unbound)
			credentials(t, s.ask(t, members{"credential_configuration_id": unbound}), 1)
			return s.offer
		},
		"cancelled": func(t *testing.T) offer {
			o := i.offer(t, residence, nil)
			if a := i.operator(t, http.MethodDelete, offersPath+"/"+o.id, nil); a.status/100 != 2 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			return o
		},
	} {
		t.Run(name, func(t *testing.T) {
			gone(t, i, end(t))
		})
	}
}

// TestCheck015Guessed: unknown URIs, one letter away from a good one too.
func TestCheck015Guessed(t *testing.T) {
	i := plain(t)
	good := i.offer(t, residence, nil).reference
	last := good[len(good)-1]
	for _, guess := range []string{i.issuer + "/offers/x", i.issuer + "/offers/" + strings.Repeat("A", 43), i.issuer + "/offers/%00", i.issuer + "/offers/",
		good[:len(good)-2] + string([]byte{last, last ^ 1}), good + "A", good[:len(good)-1]} {
		if a := i.do(t, http.MethodGet, guess, nil); a.status != http.StatusNotFound || bytes.Contains(a.body, []byte("pre-authorized")) {
			t.Errorf("%s: %d %s", guess, a.status, a.body)
		}
	}
}

// TestCheck018QR: each module of the picture is that of the link by reference.
// That such a picture reads back as the text is the operators' API's test.
func TestCheck018QR(t *testing.T) {
	m := plain(t).make(t, "?qr=png", nil, residence)
	want, err := qr.Encode(m.URI, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.QR, "data:image/png;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	drawn, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	const quiet = 4
	side := want.Size + 2*quiet
	scale := drawn.Bounds().Dx() / side
	if drawn.Bounds().Dx() != side*scale || drawn.Bounds().Dy() != side*scale || scale < 4 {
		t.Fatalf("%v for %d modules", drawn.Bounds(), side)
	}
	for y := range side {
		for x := range side {
			red, _, _, _ := drawn.At(x*scale+scale/2, y*scale+scale/2).RGBA()
			if (red < 1<<15) != want.Black(x-quiet, y-quiet) {
				t.Fatalf("module %d,%d of %s", x, y, m.URI)
			}
		}
	}
}

// TestCheck019NothingPersonal: no claim's value stands in an offer or its links.
func TestCheck019NothingPersonal(t *testing.T) {
	i := plain(t)
	for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence} {
		m := i.make(t, "", withTxCode, id)
		values := texts(t, sample(t, id))
		if len(values) < 5 {
			t.Fatalf("%s: %d values", id, len(values))
		}
		shown := string(m.fetched.body)
		for _, link := range []string{m.URI, m.HAIP, m.ByValue} {
			text, err := url.QueryUnescape(link)
			if err != nil {
				t.Fatal(err)
			}
			shown += link + text
		}
		for _, value := range append(values, m.TxCode) {
			if strings.Contains(shown, value) {
				t.Errorf("%s: %q is in %s", id, value, shown)
			}
		}
	}
}

// texts are the strings in a document that are long enough not to be anywhere by chance.
func texts(t testing.TB, data []byte) (out []string) {
	t.Helper()
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) > 3 {
				out = append(out, v)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(document)
	slices.Sort(out)
	return slices.Compact(out)
}

// TestCheck020NoJWT: an offer is JSON whatever a wallet would rather have.
func TestCheck020NoJWT(t *testing.T) {
	i := plain(t)
	o := i.offer(t, residence, nil)
	for _, accept := range []string{"application/jwt", "application/jwt, application/json;q=0.1", "application/oauth-authz-req+jwt", "text/html", "*/*"} {
		a := i.do(t, http.MethodGet, o.reference, nil, "Accept", accept)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.object(t)["credential_issuer"] != i.issuer {
			t.Errorf("%s: %d %v %.100s", accept, a.status, a.header, a.body)
		}
	}
}
