package oid4vci

import (
	"testing"

	"chancery/config"
	"chancery/issuance/jws"
)

// TestDraftOfARequest tells the form in which a request is answered by what it
// looks like, when it names its credential as 1.0 does.
func TestDraftOfARequest(t *testing.T) {
	for _, c := range []struct {
		compatibility, path, request string
		want                         draft
	}{
		{"", "/a", `{"credential_identifier":"a#1","proof":{"proof_type":"jwt","jwt":"x"}}`, draft{}},
		{"draft-15", "/a", `{"credential_identifier":"a#1","proof":{"proof_type":"jwt","jwt":"x"}}`, draft{on: true}},
		{"draft-13", "/a", `{"credential_identifier":"a#1","proof":{"proof_type":"jwt","jwt":"x"}}`, draft{on: true, single: true, sdjwt: true}},
		{"draft-13", "", `{"credential_identifier":"a#1","proof":{"proof_type":"jwt","jwt":"x"}}`, draft{on: true, single: true}},
		{"draft-13", "/a", `{"credential_identifier":"a#1","proofs":{"jwt":["x"]}}`, draft{}},
		{"draft-13", "/a", `{"credential_configuration_id":"a","proofs":{"jwt":["x"]}}`, draft{}},
	} {
		object, err := jws.Object([]byte(c.request))
		if err != nil {
			t.Fatal(err)
		}
		i := &Issuer{path: c.path, options: config.Issuer{Compatibility: c.compatibility}}
		got, err := i.adapt(object, nil)
		if err != nil || got != c.want {
			t.Errorf("%q %q %s: %+v %v, want %+v", c.compatibility, c.path, c.request, got, err, c.want)
		}
	}
}
