package wallet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"chancery/verifier/strictjson"
)

// maxAnswer is the longest answer in bytes that is read.
const maxAnswer = 8 << 20

// answer is an HTTP answer, read whole.
type answer struct {
	step   Step
	status int
	header http.Header
	body   []byte
}

// do sends one request. Only a missing answer is an error here.
func (w *Wallet) do(ctx context.Context, step Step, method, target string, header map[string]string, body []byte) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Step: step, Err: err}
	}
	request.Header.Set("Accept", "application/json")
	for name, value := range header {
		request.Header.Set(name, value)
	}
	client := http.Client{}
	if w.HTTP != nil {
		client = *w.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		return nil, &Error{Step: step, Err: withoutQuery(err)}
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err == nil && len(data) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	if err != nil {
		return nil, &Error{Step: step, Status: response.StatusCode, Err: err}
	}
	return &answer{step, response.StatusCode, response.Header, data}, nil
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
	return a.mediaType()
}

func (a *answer) mediaType() error {
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return a.wrong("Content-Type is %q, not application/json", a.header.Get("Content-Type"))
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

// failure turns an unexpected answer into an error with the server's words. An
// error answer has rules of its own (RFC 6749 §5.2, OpenID4VCI 1.0 §8.3.1.2).
func (a *answer) failure() *Error {
	e := a.wrong("")
	if a.status >= 300 && a.status < 400 {
		e.Problem = "a redirect, which a wallet does not follow"
		return e
	}
	object, err := strictjson.Object(a.body)
	if err != nil || a.mediaType() != nil {
		switch {
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
	case strings.ContainsFunc(e.Description, notAllowed):
		e.Description = ""
		e.Problem = "error_description holds characters that are not allowed"
	case a.step != StepOffer && a.step != StepMetadata && a.step != StepServer && a.noStore() != nil:
		e.Problem = "Cache-Control lacks no-store"
	}
	return e
}

// notAllowed reports characters that an error_description must not hold
// (RFC 6749 §5.2: %x20-21 / %x23-5B / %x5D-7E).
func notAllowed(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }
