package encryption

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"chancery/appliance/oid4vci/refusal"
)

// TestRow44RequestMetadata: public keys only, each with a kid of its own and alg,
// ECDH-ES first; enc values; whether it is required.
func TestRow44RequestMetadata(t *testing.T) {
	for _, policy := range []Policy{Optional, Required} {
		e := opened(t, Options{Request: policy, Response: Off}, &memory{})
		request, response := e.Metadata()
		if response != nil || request["encryption_required"] != (policy == Required) {
			t.Errorf("%v, %v", request, response)
		}
		if _, has := request["zip_values_supported"]; has {
			t.Error("zip is advertised and off")
		}
		if got := fmt.Sprint(request["enc_values_supported"]); got != "[A128GCM A256GCM A128CBC-HS256 A256CBC-HS512]" {
			t.Error(got)
		}
		kids, algs := map[any]bool{}, ""
		for _, k := range published(t, e) {
			algs += k["alg"].(string) + " "
			kids[k["kid"]] = true
			if len(k) != 7 || k["kty"] != "EC" || k["crv"] != "P-256" || k["use"] != "enc" || len(k["x"].(string)) != 43 || len(k["y"].(string)) != 43 {
				t.Errorf("%v", k)
			}
		}
		if algs != "ECDH-ES ECDH-ES+A128KW ECDH-ES+A256KW " || len(kids) != 3 {
			t.Errorf("%s, %v", algs, kids)
		}
	}
}

// TestRow45ResponseMetadata: algorithms are there, and whether it is required.
func TestRow45ResponseMetadata(t *testing.T) {
	for _, policy := range []Policy{Optional, Required} {
		e := opened(t, Options{Request: Optional, Response: policy, Zip: true}, &memory{})
		request, response := e.Metadata()
		data, err := json.Marshal(response)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"alg_values_supported":["ECDH-ES","ECDH-ES+A128KW","ECDH-ES+A256KW"],"enc_values_supported":["A128GCM","A256GCM","A128CBC-HS256","A256CBC-HS512"],"encryption_required":%t,"zip_values_supported":["DEF"]}`, policy == Required)
		if string(data) != want {
			t.Errorf("%s", data)
		}
		if fmt.Sprint(request["zip_values_supported"]) != "[DEF]" {
			t.Errorf("%v", request)
		}
	}
}

// TestRow46ResponseNeedsRequest: encrypted answers without encrypted requests
// cannot be configured, and nothing is advertised while keys are missing.
func TestRow46ResponseNeedsRequest(t *testing.T) {
	for _, response := range []Policy{Optional, Required} {
		if _, err := New(Options{Request: Off, Response: response, Rotation: rotation, Overlap: overlap, Store: &memory{}}); err == nil || !strings.Contains(err.Error(), "make requests optional or required") {
			t.Errorf("%s: %v", response, err)
		}
	}
	e := closed(t, all(), &memory{read: errAway})
	if request, response := e.Metadata(); request != nil || response != nil || e.Version() != 0 {
		t.Errorf("%v, %v, version %d", request, response, e.Version())
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{Request: Optional, Response: Optional, Rotation: rotation, Overlap: overlap, Store: &memory{}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"request":    func(o *Options) { o.Request = "" },
		"response":   func(o *Options) { o.Response = "yes" },
		"rotation":   func(o *Options) { o.Rotation = 0 },
		"overlap":    func(o *Options) { o.Overlap = -time.Second },
		"no storage": func(o *Options) { o.Store = nil },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestOff: nothing is advertised or taken, and no store is needed.
func TestOff(t *testing.T) {
	e, err := New(Options{Request: Off, Response: Off})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Refresh(context.Background()); err != nil {
		t.Error(err)
	}
	if request, response := e.Metadata(); request != nil || response != nil {
		t.Errorf("%v, %v", request, response)
	}
	_, err = e.Decrypt([]byte("a.b.c.d.e"))
	refused(t, err, "Content-Type")
	_, err = e.ParseResponse(map[string]any{})
	refused(t, err, "credential_response_encryption")
	if err := e.Require(false, nil); err != nil {
		t.Error(err)
	}
}

// TestRows262And270And271Require: what is less encrypted than the policies want
// is refused, and nothing else is.
func TestRows262And270And271Require(t *testing.T) {
	asked := &Recipient{}
	for _, c := range []struct {
		request, response Policy
		drafts, encrypted bool
		asked             *Recipient
		member            string // "" for none
	}{
		{Off, Off, false, false, nil, ""},
		{Optional, Off, false, false, nil, ""},
		{Optional, Off, false, true, nil, ""},
		{Required, Off, false, true, nil, ""},
		{Required, Off, false, false, nil, "Content-Type"},
		{Required, Off, true, false, nil, "Content-Type"},
		{Required, Required, true, false, asked, "Content-Type"},
		{Optional, Optional, false, false, nil, ""},
		{Optional, Optional, false, true, nil, ""},
		{Optional, Optional, false, true, asked, ""},
		{Optional, Optional, false, false, asked, "credential_response_encryption"},
		{Optional, Optional, true, false, asked, ""},
		{Optional, Required, false, true, asked, ""},
		{Optional, Required, false, true, nil, "credential_response_encryption"},
		{Optional, Required, false, false, nil, "credential_response_encryption"},
		{Optional, Required, true, false, nil, "credential_response_encryption"},
	} {
		o := Options{Request: c.request, Response: c.response, Drafts: c.drafts}
		err := opened(t, o, &memory{}).Require(c.encrypted, c.asked)
		if c.member == "" && err != nil {
			t.Errorf("%+v: %v", c, err)
		} else if c.member != "" {
			refused(t, err, c.member)
		}
	}
}

// TestRequireWithoutKeys: a wallet that was told of no keys cannot encrypt; it
// is to come again.
func TestRequireWithoutKeys(t *testing.T) {
	e := closed(t, Options{Request: Required, Response: Required}, &memory{})
	_, decrypted := e.Decrypt([]byte("a.b.c.d.e"))
	for _, err := range []error{e.Require(false, nil), e.Require(true, nil), decrypted} {
		r := &refusal.Refusal{}
		if !errors.As(err, &r) || r.Status != 503 || r.RetryAfter < 1 || r.Code != "temporarily_unavailable" {
			t.Errorf("%+v", err)
		}
	}
}
