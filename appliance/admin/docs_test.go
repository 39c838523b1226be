package admin

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"chancery/appliance/signer/signertest"
	"chancery/issuance"
)

// TestDocumentation holds docs/admin-api.md against the code: every path, member,
// error code and event is in it, and the example of an offer is accepted.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "admin-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	mentions := func(what, kind string) {
		t.Helper()
		if !strings.Contains(page, what) {
			t.Errorf("%s %s is not in the page", kind, what)
		}
	}
	for _, source := range sources(t) {
		for _, match := range regexp.MustCompile(`"((?:offer|deferred|operator|credential|encryption_key|configuration|appliance|database)\.[a-z]+)"`).FindAllStringSubmatch(source, -1) {
			mentions("`"+match[1]+"`", "event")
		}
		for _, match := range regexp.MustCompile(`Status: http\.Status\w+, Code: "(\w+)"`).FindAllStringSubmatch(source, -1) {
			mentions("`"+match[1]+"`", "error code")
		}
	}
	for path, methods := range everyPath {
		path = strings.Replace(strings.Replace(path, "identities/x", "identities/{label}", 1), "/x", "/{id}", 1)
		for method := range strings.SplitSeq(methods, ", ") {
			mentions("| `"+method+" "+path+"` |", "request")
		}
	}
	for _, body := range []any{createRequest{}, span{}, createdBody{}, offerBody{}, codeBody{}, requirementsBody{}, credentialBody{}, notificationBody{}, deferredBody{}, refuseRequest{}, failureBody{}, configurationBody{}, claimBody{}, identityBody{}, certificateBody{}, crlBody{}, foresightBody{}, horizonBody{}, findingBody{}, eventBody{}, listBody{}, Error{}, Detail{}, issuance.Profile{}} {
		for _, name := range members(reflect.TypeOf(body)) {
			if !strings.Contains(page, "`"+name+"`") && !strings.Contains(page, `"`+name+`"`) {
				t.Errorf("member %s of %T is not in the page", name, body)
			}
		}
	}
	r := newRig(t, signertest.Options{})
	posted := 0
	for _, match := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(page, -1) {
		if !json.Valid([]byte(match[1])) {
			t.Errorf("not JSON: %s", match[1])
		}
		if !strings.HasPrefix(match[1], `{"credentials"`) {
			continue
		}
		posted++
		if a := r.post(t, offersPath, match[1]); a.status != http.StatusCreated {
			t.Errorf("the example is refused: %s", a.body)
		}
	}
	if posted != 1 {
		t.Errorf("%d examples of an offer", posted)
	}
}

// sources are the files that make events and errors.
func sources(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, folder := range []string{".", "../store", "../daemon"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", folder, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(data))
		}
	}
	return all
}

// members are a struct's names in JSON, without those of its structs.
func members(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}
