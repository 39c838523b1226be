package admin

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chancery/appliance/store"
	"chancery/issuance/configuration"
)

// createRequest is the body of POST /v1/openid/offers/pre-authorized.
type createRequest struct {
	Credentials     []string        `json:"credentials"`
	Claims          json.RawMessage `json:"claims"`
	TransactionCode *struct {
		InputMode   string `json:"inputMode"`
		Length      *int   `json:"length"`
		Description string `json:"description"`
	} `json:"transactionCodeConfiguration"`
	ExpiresIn *span `json:"expiresIn"`
	// ClientID is the client_id that must redeem.
	ClientID *string `json:"clientId"`
	// ClientAuthenticationRequired asks that the client which redeems has authenticated.
	ClientAuthenticationRequired bool `json:"clientAuthenticationRequired"`
}

// span is a time span by its parts.
type span struct {
	Days    int `json:"days"`
	Hours   int `json:"hours"`
	Minutes int `json:"minutes"`
	Seconds int `json:"seconds"`
}

// duration adds the parts up; false when one is negative or beyond ten years,
// which no sum of a [time.Duration] may overflow by.
func (s span) duration() (sum time.Duration, ok bool) {
	const longest = 10 * 365 * 24 * time.Hour
	for _, part := range []struct {
		n    int
		unit time.Duration
	}{{s.Days, 24 * time.Hour}, {s.Hours, time.Hour}, {s.Minutes, time.Minute}, {s.Seconds, time.Second}} {
		if part.n < 0 || part.n > int(longest/part.unit) {
			return 0, false
		}
		sum += time.Duration(part.n) * part.unit
	}
	return sum, true
}

// Limits of what an operator may ask for: an offer's life, a transaction code's
// length, its description's and a client_id's, in characters.
const (
	shortestLife       = time.Minute
	shortestCode       = 4
	longestCode        = 16
	longestDescription = 300
	longestClientID    = 512
)

// plainly writes a span without the zeros at its end.
func plainly(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// offer checks the request and returns what is stored; every fault at once.
// claims is what request.Claims holds, decoded.
func (a *api) offer(request createRequest, claims any, operator store.Operator) (store.NewOffer, error) {
	var details []Detail
	fault := func(param, format string, args ...any) {
		details = append(details, Detail{Msg: fmt.Sprintf(format, args...), Param: param, Location: "body"})
	}
	configurations := a.requested(request.Credentials, fault)
	details = append(details, a.checkClaims(configurations, request.Claims, claims)...)
	now := a.Now()
	n := store.NewOffer{Configurations: request.Credentials, Claims: request.Claims, CreatedBy: operator.Name, ExpiresAt: now.Add(a.DefaultExpiry)}
	if len(n.Claims) == 0 {
		n.Claims = []byte("{}")
	}
	if request.ExpiresIn != nil {
		life, ok := request.ExpiresIn.duration()
		if !ok || life < shortestLife || life > a.LongestExpiry {
			fault("expiresIn", "must be from %s to %s, as days, hours, minutes and seconds", plainly(shortestLife), plainly(a.LongestExpiry))
		}
		n.ExpiresAt = now.Add(life)
	}
	if t := request.TransactionCode; t != nil {
		n.TxCode = a.transactionCode(t.InputMode, t.Length, t.Description, fault)
	}
	if id := request.ClientID; id != nil {
		if !isClientID(*id) {
			fault("clientId", "must have 1 to %d printable ASCII characters", longestClientID)
		}
		n.RequiredClient = *id
	}
	if n.ClientAuthentication = request.ClientAuthenticationRequired; n.ClientAuthentication && !a.ClientAuthentication {
		fault("clientAuthenticationRequired", "must be false: this issuer authenticates no clients, as it has neither issuer.clients nor issuer.wallet_attestation.providers")
	}
	if len(details) > 0 {
		return n, invalid(details...)
	}
	return n, nil
}

// requested finds the configurations.
func (a *api) requested(ids []string, fault func(param, format string, args ...any)) []*configuration.Configuration {
	if len(ids) == 0 || len(ids) > store.MaxConfigurations {
		fault("credentials", "must name 1 to %d configurations", store.MaxConfigurations)
		return nil
	}
	var found []*configuration.Configuration
	seen := map[string]bool{}
	for i, id := range ids {
		c := a.Configurations[id]
		switch {
		case c == nil:
			fault(fmt.Sprintf("credentials[%d]", i), "is not a configuration of this issuer: GET /v1/openid/configurations lists them")
		case seen[id]:
			fault(fmt.Sprintf("credentials[%d]", i), "is there twice")
		default:
			found = append(found, c)
		}
		seen[id] = true
	}
	return found
}

// checkClaims holds the claims against each configuration. Where several share
// the claims, a member is unknown when none of them knows it.
func (a *api) checkClaims(configurations []*configuration.Configuration, text json.RawMessage, claims any) []Detail {
	object, ok := claims.(map[string]any)
	switch {
	case len(text) > configuration.MaxClaims:
		return []Detail{{Msg: fmt.Sprintf("must have at most %d bytes", configuration.MaxClaims), Param: "claims", Location: "body"}}
	case !ok && len(text) > 0:
		return []Detail{{Msg: "must be a JSON object", Param: "claims", Location: "body"}}
	}
	type problem struct{ param, message string }
	count := map[problem]int{}
	var order []problem
	for _, c := range configurations {
		for _, p := range c.CheckObject(object, a.Now()) {
			key := problem{p.Param, p.Message}
			if count[key]++; count[key] == 1 {
				order = append(order, key)
			}
		}
	}
	var details []Detail
	for _, p := range order {
		if strings.HasPrefix(p.message, "is not a claim") && count[p] < len(configurations) {
			continue
		}
		param := "claims." + p.param
		if p.param == "claims" {
			param = "claims"
		}
		details = append(details, Detail{Msg: p.message, Param: param, Location: "body"})
	}
	return details
}

// transactionCode checks how the code is to look (OpenID4VCI 1.0 §4.1.1).
func (a *api) transactionCode(inputMode string, length *int, description string, fault func(param, format string, args ...any)) *store.TxCode {
	code := &store.TxCode{InputMode: inputMode, Length: a.CodeLength, Description: description}
	if inputMode == "" {
		code.InputMode = "numeric"
	}
	if code.InputMode != "numeric" && code.InputMode != "text" {
		fault("transactionCodeConfiguration.inputMode", "must be \"numeric\" or \"text\"")
	}
	if length != nil {
		code.Length = *length
	}
	if code.Length < shortestCode || code.Length > longestCode {
		fault("transactionCodeConfiguration.length", "must be from %d to %d", shortestCode, longestCode)
	}
	if utf8.RuneCountInString(description) > longestDescription || strings.ContainsFunc(description, unicode.IsControl) {
		fault("transactionCodeConfiguration.description", "must have at most %d characters, and none that control", longestDescription)
	}
	return code
}

// isClientID tells whether a text can be a client_id (RFC 6749 App. A.1).
func isClientID(text string) bool {
	return text != "" && len(text) <= longestClientID && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// offerBody is an offer as the API shows it: never claims, codes or links.
type offerBody struct {
	ID              string    `json:"id"`
	Credentials     []string  `json:"credentials"`
	State           string    `json:"state"`
	CreatedAt       string    `json:"createdAt"`
	CreatedBy       string    `json:"createdBy"`
	ExpiresAt       string    `json:"expiresAt"`
	FetchedAt       string    `json:"fetchedAt,omitempty"`
	RedeemedAt      string    `json:"redeemedAt,omitempty"`
	FinishedAt      string    `json:"finishedAt,omitempty"`
	TransactionCode *codeBody `json:"transactionCodeConfiguration,omitempty"`
	AttemptsLeft    *int      `json:"attemptsLeft,omitempty"`
	// Requirements is nil where any client may redeem.
	Requirements *requirementsBody `json:"requirements,omitempty"`
	// RefreshTokenExpiresAt is there while a refresh token lives.
	RefreshTokenExpiresAt string `json:"refreshTokenExpiresAt,omitempty"`
	// IssuedCredentials and Notifications are not in lists.
	IssuedCredentials []credentialBody   `json:"issuedCredentials,omitempty"`
	Notifications     []notificationBody `json:"notifications,omitempty"`
}

type codeBody struct {
	InputMode   string `json:"inputMode"`
	Length      int    `json:"length"`
	Description string `json:"description,omitempty"`
}

// requirementsBody is what the client that redeems has to fulfil.
type requirementsBody struct {
	ClientID                     string `json:"clientId,omitempty"`
	ClientAuthenticationRequired bool   `json:"clientAuthenticationRequired"`
}

// credentialBody is one signature of a credential.
type credentialBody struct {
	ID            string `json:"id"`
	Configuration string `json:"configuration"`
	Version       string `json:"configurationVersion"`
	Key           string `json:"key"`
	IssuedAt      string `json:"issuedAt"`
	// Repeat is 0 for the first signature. A credential that was signed again for
	// a wallet that had lost it is there once for each time, with the same ID.
	Repeat int `json:"repeat,omitempty"`
	// Intent and Outcome are the audit log's entries.
	Intent  int64 `json:"auditIntent"`
	Outcome int64 `json:"auditOutcome"`
}

// notificationBody is what a wallet has told (OpenID4VCI 1.0 §11).
type notificationBody struct {
	Configuration string `json:"configuration"`
	Event         string `json:"event"`
	NotifiedAt    string `json:"notifiedAt"`
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func describe(o store.Offer) offerBody {
	b := offerBody{
		ID: o.ID, Credentials: o.Configurations, State: o.State.String(), CreatedAt: stamp(o.CreatedAt), CreatedBy: o.CreatedBy,
		ExpiresAt: stamp(o.ExpiresAt), FetchedAt: stamp(o.FetchedAt), RedeemedAt: stamp(o.RedeemedAt), FinishedAt: stamp(o.FinishedAt),
		RefreshTokenExpiresAt: stamp(o.RefreshExpires),
	}
	if o.RequiredClient != "" || o.ClientAuthentication {
		b.Requirements = &requirementsBody{o.RequiredClient, o.ClientAuthentication}
	}
	if o.TxCode != nil {
		b.TransactionCode = &codeBody{o.TxCode.InputMode, o.TxCode.Length, o.TxCode.Description}
		b.AttemptsLeft = &o.AttemptsLeft
	}
	for _, c := range o.Credentials {
		b.IssuedCredentials = append(b.IssuedCredentials, credentialBody{c.ID, c.Configuration, c.Version, c.Key, stamp(c.IssuedAt), c.Repeat, c.Intent, c.Outcome})
	}
	for _, n := range o.Notifications {
		b.Notifications = append(b.Notifications, notificationBody{n.Configuration, n.Event, stamp(n.At)})
	}
	return b
}

// createdBody is the answer to a creation; only here are the secrets.
type createdBody struct {
	ID         string `json:"id"`
	URI        string `json:"uri"`
	HAIPURI    string `json:"haipUri"`
	URIByValue string `json:"uriByValue"`
	ExpiresAt  string `json:"expiresAt"`
	// TransactionCode goes to the holder on another channel than the link.
	TransactionCode string `json:"transactionCode,omitempty"`
	// QR is a data URI of the link's QR code, when ?qr=svg or ?qr=png asks for it.
	QR string `json:"qr,omitempty"`
}

func (a *api) createOffer(r *http.Request, operator store.Operator) (result, error) {
	kind := r.URL.Query().Get("qr")
	if kind != "" && kind != "svg" && kind != "png" {
		return result{}, invalid(Detail{Msg: "must be svg or png", Param: "qr", Location: "query"})
	}
	var request createRequest
	members, err := decode(r, &request)
	if err != nil {
		return result{}, err
	}
	n, err := a.offer(request, members["claims"], operator)
	if err != nil {
		return result{}, err
	}
	created, err := a.Store.CreateOffer(r.Context(), n)
	if err != nil {
		return result{}, err
	}
	links, err := a.Links(created)
	if err != nil {
		return result{}, err
	}
	body := createdBody{ID: created.ID, URI: links.URI, HAIPURI: links.HAIP, URIByValue: links.ByValue, ExpiresAt: stamp(created.ExpiresAt), TransactionCode: created.TransactionCode}
	if kind != "" {
		image, mediaType, err := qrCode(links.URI, kind)
		if err != nil {
			return result{}, err
		}
		body.QR = "data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(image)
	}
	return result{status: http.StatusCreated, body: body}, nil
}

// page reads limit and cursor.
func page(r *http.Request) (limit int, cursor string, err error) {
	limit = 100
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > 1000 {
			return 0, "", invalid(Detail{Msg: "must be a number from 1 to 1000", Param: "limit", Location: "query"})
		}
	}
	return limit, r.URL.Query().Get("cursor"), nil
}

// listBody is a page of a list.
type listBody struct {
	Data       any    `json:"data"`
	NextCursor string `json:"nextCursor,omitempty"`
}

// badCursor turns a cursor that cannot be read into the caller's fault.
func badCursor(err error, cursor string) error {
	if cursor != "" && errors.Is(err, store.ErrNotFound) {
		return invalid(Detail{Msg: "must be the nextCursor of an earlier answer", Param: "cursor", Location: "query"})
	}
	return err
}

func (a *api) listOffers(r *http.Request, _ store.Operator) (result, error) {
	limit, cursor, err := page(r)
	if err != nil {
		return result{}, err
	}
	var filter store.Filter
	if name := r.URL.Query().Get("state"); name != "" {
		state, known := store.ParseState(name)
		if !known {
			return result{}, invalid(Detail{Msg: "must be made, fetched, redeemed, issued, accepted, expired, cancelled, locked or failed", Param: "state", Location: "query"})
		}
		filter.State = &state
	}
	offers, next, err := a.Store.ListOffers(r.Context(), filter, limit, cursor)
	if err != nil {
		return result{}, badCursor(err, cursor)
	}
	data := make([]offerBody, len(offers))
	for i, o := range offers {
		data[i] = describe(o)
	}
	return result{status: http.StatusOK, body: listBody{data, next}}, nil
}

func (a *api) readOffer(r *http.Request, _ store.Operator) (result, error) {
	o, err := a.Store.Offer(r.Context(), r.PathValue("id"))
	if err != nil {
		return result{}, err
	}
	return result{status: http.StatusOK, body: describe(o)}, nil
}

func (a *api) cancelOffer(r *http.Request, operator store.Operator) (result, error) {
	if err := a.Store.CancelOffer(r.Context(), r.PathValue("id"), operator.Name); err != nil {
		return result{}, err
	}
	return result{status: http.StatusNoContent}, nil
}
