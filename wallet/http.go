package wallet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"chancery/verifier/strictjson"
)

// maxAnswer is the longest answer in bytes that is read.
const maxAnswer = 8 << 20

const (
	jsonType = "application/json"
	jwtType  = "application/jwt"
	formType = "application/x-www-form-urlencoded"
)

// request is one request before it is dressed with proofs of possession.
type request struct {
	step   Step
	method string
	target string
	header map[string]string
	body   []byte
	// fresh, when not nil, makes what may not be sent twice; it is called for
	// every try.
	fresh func(*request) error
}

func (r request) clone() request {
	r.header = maps.Clone(r.header)
	if r.header == nil {
		r.header = map[string]string{}
	}
	return r
}

// answer is an HTTP answer, read whole.
type answer struct {
	step   Step
	status int
	header http.Header
	body   []byte
}

// do sends one request. Only a missing answer is an error here.
func (w *Wallet) do(ctx context.Context, r request) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, r.method, r.target, bytes.NewReader(r.body))
	if err != nil {
		return nil, failed(r.step, err)
	}
	request.Header.Set("Accept", jsonType)
	for name, value := range r.header {
		request.Header.Set(name, value)
	}
	client := http.Client{}
	if w.HTTP != nil {
		client = *w.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		var untrusted *tls.CertificateVerificationError
		return nil, &Error{Step: r.step, Err: withoutQuery(err), broken: ctx.Err() == nil && !errors.As(err, &untrusted)}
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, &Error{Step: r.step, Status: response.StatusCode, Err: err, broken: ctx.Err() == nil}
	}
	if len(data) > maxAnswer {
		return nil, &Error{Step: r.step, Status: response.StatusCode, Err: errors.New("the answer is too long")}
	}
	return &answer{r.step, response.StatusCode, response.Header, data}, nil
}

// withoutQuery keeps an offer's reference, a secret, out of messages.
func withoutQuery(err error) error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}

func (a *answer) wrong(format string, args ...any) *Error {
	return &Error{Step: a.step, Status: a.status, Problem: fmt.Sprintf(format, args...), RetryAfter: a.header.Get("Retry-After")}
}

// want checks the status and that the body is JSON; another status becomes the
// server's error.
func (a *answer) want(status int) error {
	if a.status != status {
		return a.failure()
	}
	return a.mediaType(jsonType)
}

func (a *answer) mediaType(want string) error {
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || kind != want {
		return a.wrong("Content-Type is %q, not %s", a.header.Get("Content-Type"), want)
	}
	return nil
}

// noStore insists on Cache-Control: no-store.
func (a *answer) noStore() error {
	for _, value := range a.header.Values("Cache-Control") {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), "no-store") {
				return nil
			}
		}
	}
	return a.wrong("Cache-Control lacks no-store")
}

// object reads the body.
func (a *answer) object() (map[string]any, error) {
	object, err := strictjson.Object(a.body)
	if err != nil {
		return nil, a.wrong("%v", err)
	}
	return object, nil
}

// secret expects a 200 with JSON that no cache may keep.
func (a *answer) secret() (map[string]any, error) {
	if err := a.want(http.StatusOK); err != nil {
		return nil, err
	}
	if err := a.noStore(); err != nil {
		return nil, err
	}
	return a.object()
}

// failure turns an unexpected answer into an error with the server's words. An
// error answer has rules of its own (RFC 6749 §5.2, RFC 6750 §3, OpenID4VCI
// 1.0 §8.3.1).
func (a *answer) failure() *Error {
	e := a.wrong("")
	if a.status >= 300 && a.status < 400 {
		e.Problem = "a redirect, which a wallet does not follow"
		return e
	}
	challenge := a.challenge()
	if a.step.protected() && a.status == http.StatusUnauthorized && challenge == nil {
		e.Problem = "WWW-Authenticate is missing or names neither Bearer nor DPoP"
		return e
	}
	object, err := strictjson.Object(a.body)
	if err != nil || a.mediaType(jsonType) != nil {
		switch {
		case challenge["error"] != "":
			e.Code, e.Description = challenge["error"], challenge["error_description"]
			e.printable()
		case a.status < 400:
			e.Problem = "unexpected status"
		case a.step == StepOffer && (a.status == http.StatusGone || a.status == http.StatusNotFound):
			// No error object is specified for an offer's URI.
			e.Problem = "the offer was used already, has ended or never was"
		default:
			e.Problem = "the answer is no JSON error object"
		}
		return e
	}
	e.Code, _ = object["error"].(string)
	e.Description, _ = object["error_description"].(string)
	switch {
	case e.Code == "":
		e.Problem = "the error object has no error member"
	case !e.printable():
	case challenge["error"] != "" && challenge["error"] != e.Code:
		e.Problem = "WWW-Authenticate says another error than the body"
	case a.step != StepOffer && a.step != StepMetadata && a.step != StepServer && a.noStore() != nil:
		e.Problem = "Cache-Control lacks no-store"
	}
	return e
}

// printable takes out what must not be in the server's words.
func (e *Error) printable() bool {
	switch {
	case strings.ContainsFunc(e.Code, notAllowed):
		e.Code, e.Description = "", ""
		e.Problem = "error holds characters that are not allowed"
	case strings.ContainsFunc(e.Description, notAllowed):
		e.Description = ""
		e.Problem = "error_description holds characters that are not allowed"
	default:
		return true
	}
	return false
}

// notAllowed reports characters that error and error_description must not hold
// (RFC 6749 §5.2: %x20-21 / %x23-5B / %x5D-7E).
func notAllowed(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }

// parameter is an authentication parameter of WWW-Authenticate; OAuth's are quoted.
var parameter = regexp.MustCompile(`([a-z_]+)\s*=\s*"([^"]*)"`)

// challenge returns the parameters of a Bearer or DPoP challenge, preferring
// one with an error; nil when there is none (RFC 6750 §3, RFC 9449 §7.1).
func (a *answer) challenge() map[string]string {
	var found map[string]string
	for _, value := range a.header.Values("WWW-Authenticate") {
		scheme, _, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "DPoP") {
			continue
		}
		if found == nil {
			found = map[string]string{}
		}
		for _, match := range parameter.FindAllStringSubmatch(value, -1) {
			if found[match[1]] == "" {
				found[match[1]] = match[2]
			}
		}
	}
	return found
}
