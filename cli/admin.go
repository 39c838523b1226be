package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"unicode"

	"chancery/verifier/strictjson"
)

// adminFlags say where the admin API is and who asks.
type adminFlags struct {
	url, tokenFile, ca string
	asJSON             bool
}

func (f *adminFlags) declare(flags *flag.FlagSet) {
	flags.StringVar(&f.url, "admin-url", "", "the admin API's base `URL`; default: CHANCERY_ADMIN_URL")
	flags.StringVar(&f.tokenFile, "admin-token-file", "", "`FILE` with the operator's token; default: CHANCERY_ADMIN_TOKEN_FILE, or the token itself in CHANCERY_ADMIN_TOKEN")
	flags.StringVar(&f.ca, "ca", "", "`FILE` with the CA certificates that the admin API is trusted by (PEM); default: CHANCERY_CA_FILE, else the system's")
	flags.BoolVar(&f.asJSON, "json", false, "print the answer as JSON")
}

// adminClient talks to the admin API.
type adminClient struct {
	s      *session
	base   string
	bearer string
	http   *http.Client
}

// connect resolves flags and environment; needToken says whether the call needs a token.
func (f *adminFlags) connect(s *session, needToken bool) (*adminClient, error) {
	base := f.url
	if base == "" {
		base = s.firstEnv("CHANCERY_ADMIN_URL", "ADMIN_URL")
	}
	if base == "" {
		return nil, usage("the admin API's address is missing: give --admin-url or set CHANCERY_ADMIN_URL")
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
		return nil, usage("--admin-url: %q is no https URL, like https://localhost:9443", base)
	}
	client, err := s.client(f.ca)
	if err != nil {
		return nil, err
	}
	a := &adminClient{s: s, base: strings.TrimSuffix(base, "/"), http: client}
	file := f.tokenFile
	if file == "" {
		file = s.firstEnv("CHANCERY_ADMIN_TOKEN_FILE", "ADMIN_TOKEN_FILE")
	}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--admin-token-file: %w", plainPathError(file, err))
		}
		a.bearer = strings.TrimSpace(string(data))
	} else {
		a.bearer = s.firstEnv("CHANCERY_ADMIN_TOKEN", "ADMIN_TOKEN")
	}
	if a.bearer == "" && needToken {
		return nil, usage("the operator's token is missing: give --admin-token-file or set CHANCERY_ADMIN_TOKEN_FILE; \"chanceryd token add NAME\" makes one")
	}
	return a, nil
}

// call makes a request and returns status and body of whatever was answered.
func (a *adminClient) call(method, path string, body any) (int, []byte, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(a.s.ctx, method, a.base+path, reader)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if a.bearer != "" {
		request.Header.Set("Authorization", "Bearer "+a.bearer)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("the admin API does not answer: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	return response.StatusCode, data, err
}

// object makes a request that must succeed and returns the answer's object; nil when it has no body.
func (a *adminClient) object(method, path string, body any) (map[string]any, error) {
	code, data, err := a.call(method, path, body)
	if err != nil {
		return nil, err
	}
	if code < 200 || code > 299 {
		return nil, apiError(code, data)
	}
	if len(data) == 0 {
		return nil, nil
	}
	object, err := strictjson.Object(data)
	if err != nil {
		return nil, fmt.Errorf("the admin API's answer: %w", err)
	}
	return object, nil
}

// apiError shows the API's error object with its details, one a line.
func apiError(code int, data []byte) error {
	var body struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Details []struct {
			Msg      string `json:"msg"`
			Param    string `json:"param"`
			Location string `json:"location"`
		} `json:"details"`
	}
	if json.Unmarshal(data, &body) != nil || body.Message == "" {
		return fmt.Errorf("the admin API answers %d %s", code, http.StatusText(code))
	}
	text := fmt.Sprintf("the admin API refuses (%d %s): %s", code, body.Code, body.Message)
	for _, d := range body.Details {
		text += "\n  " + d.Param + ": " + d.Msg
	}
	if code == http.StatusUnauthorized {
		text += "\n  check the operator's token (--admin-token-file)"
	}
	return errors.New(printableLines(text))
}

// printable makes a stranger's text safe for a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// showObject prints an object's members, those named first in that order, the
// rest by name.
func showObject(w io.Writer, object map[string]any, first ...string) {
	names := make([]string, 0, len(object))
	for name := range object {
		if !slices.Contains(first, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var rows [][2]string
	for _, name := range append(slices.Clone(first), names...) {
		if value, found := object[name]; found && value != nil {
			rows = append(rows, [2]string{title(name), valueText(value)})
		}
	}
	table(w, "  ", rows)
}

// title turns a camelCase member name into words.
func title(name string) string {
	var b strings.Builder
	for i, r := range name {
		switch {
		case i == 0:
			b.WriteRune(unicode.ToUpper(r))
		case unicode.IsUpper(r):
			b.WriteString(" " + string(unicode.ToLower(r)))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// valueText shows a JSON value on one line.
func valueText(value any) string {
	switch x := value.(type) {
	case string:
		return printable(x)
	case bool:
		return map[bool]string{true: "yes", false: "no"}[x]
	case json.Number:
		return x.String()
	case []any:
		parts := make([]string, len(x))
		for i, item := range x {
			parts[i] = valueText(item)
		}
		return strings.Join(parts, ", ")
	case map[string]any:
		names := make([]string, 0, len(x))
		for name := range x {
			names = append(names, name)
		}
		slices.Sort(names)
		parts := make([]string, len(names))
		for i, name := range names {
			parts[i] = printable(name) + " " + valueText(x[name])
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(value)
}

var status = command{
	name: "status", summary: "Say whether the appliance can issue, and with which keys",
	help: `Readiness needs no token; with an operator's token the keys are listed, too.
Exit status 1 when the appliance is not ready.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &adminFlags{}
		f.declare(flags)
		return func(s *session, args []string) error {
			if err := none(args); err != nil {
				return err
			}
			return f.status(s)
		}
	},
}

func (f *adminFlags) status(s *session) error {
	a, err := f.connect(s, false)
	if err != nil {
		return err
	}
	code, body, err := a.call(http.MethodGet, "/readyz", nil)
	if err != nil {
		return err
	}
	ready := code == http.StatusOK
	var details any = printableLines(strings.TrimSpace(string(body)))
	if object, err := strictjson.Object(body); err == nil {
		details = object
	}
	var identities map[string]any
	if a.bearer != "" {
		// Without a signer there are none to be had; the reasons say so.
		if identities, err = a.object(http.MethodGet, "/v1/identities", nil); err != nil && ready {
			return err
		}
	}
	err = nil
	if f.asJSON {
		err = printJSON(s.Stdout, map[string]any{"ready": ready, "details": details, "identities": identities["data"]})
	} else {
		showStatus(s, ready, details, identities)
	}
	if err == nil && !ready {
		return errFailed
	}
	return err
}

func showStatus(s *session, ready bool, details any, identities map[string]any) {
	fmt.Fprintln(s.Stdout, map[bool]string{true: "Ready: the appliance issues", false: "NOT READY"}[ready])
	if object, ok := details.(map[string]any); ok {
		reasons, _ := object["reasons"].([]any)
		for _, reason := range reasons {
			fmt.Fprintln(s.Stdout, "  "+valueText(reason))
		}
		if foreseen, _ := object["foresight"].([]any); len(foreseen) > 0 {
			fmt.Fprintln(s.Stdout, "  Something is wrong or will be: \"chancery doctor\" says what.")
		}
	} else if text, _ := details.(string); text != "" {
		fmt.Fprintln(s.Stdout, "  "+strings.ReplaceAll(text, "\n", "\n  "))
	}
	list, _ := identities["data"].([]any)
	if len(list) == 0 {
		return
	}
	rows := [][]string{{"KEY", "PURPOSE", "ALGORITHM", "READY"}}
	for _, item := range list {
		entry, _ := item.(map[string]any)
		rows = append(rows, []string{valueText(orEmpty(entry["label"])), valueText(orEmpty(entry["purpose"])), valueText(orEmpty(entry["algorithm"])), valueText(orEmpty(entry["ready"]))})
	}
	fmt.Fprintln(s.Stdout)
	grid(s.Stdout, rows)
}

func orEmpty(value any) any {
	if value == nil {
		return ""
	}
	return value
}

// seconds turns a positive span into the API's duration object.
func durationObject(seconds int64) map[string]int64 { return map[string]int64{"seconds": seconds} }
