package conformance

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/veraison/go-cose"
)

// everyFormat are configurations of each.
var everyFormat = []string{mdl, pidMdoc, pidSDJWT, residence}

// read is what the checks of every format look at.
type read struct {
	claims    any // what the metadata's paths point into
	from      []int64
	until     int64
	leaf      *x509.Certificate // nil for a credential under a DID
	alg       string
	signature []byte
}

// readAny reads a credential by its configuration.
func (i *instance) readAny(t testing.TB, id, credential string) read {
	t.Helper()
	switch id {
	case mdl, pidMdoc:
		d := readMdoc(t, credential)
		return read{d.elements(t), []int64{d.date(t, "signed").Unix(), d.date(t, "validFrom").Unix()}, d.date(t, "validUntil").Unix(), d.chain[0],
			map[cose.Algorithm]string{cose.AlgorithmES256: "ES256", cose.AlgorithmES384: "ES384", cose.AlgorithmES512: "ES512"}[d.alg], d.signature}
	case residence:
		c := i.readVC(t, credential)
		return read{c.vc, []int64{seconds(t, c.payload, "nbf")}, seconds(t, c.payload, "exp"), nil, fmt.Sprint(c.header["alg"]), signatureOf(t, credential)}
	}
	c := readSDJWT(t, credential)
	jws, _, _ := strings.Cut(credential, "~")
	return read{c.disclosed(c.payload), []int64{seconds(t, c.payload, "iat"), seconds(t, c.payload, "nbf")}, seconds(t, c.payload, "exp"), c.chain[0], fmt.Sprint(c.header["alg"]), signatureOf(t, jws)}
}

func signatureOf(t testing.TB, jws string) []byte {
	t.Helper()
	signature, err := base64.RawURLEncoding.Strict().DecodeString(jws[strings.LastIndexByte(jws, '.')+1:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// selects tells whether a claims path selects anything (OpenID4VCI 1.0 App. C).
func selects(value any, path []any) bool {
	if len(path) == 0 {
		return true
	}
	switch step := path[0].(type) {
	case string:
		var next any
		var has bool
		switch object := value.(type) {
		case members:
			next, has = object[step]
		case map[any]any: // within an mdoc's element
			next, has = object[step]
		}
		return has && selects(next, path[1:])
	case nil:
		list, _ := value.([]any)
		return slices.ContainsFunc(list, func(element any) bool { return selects(element, path[1:]) })
	}
	return false
}

// mandatory are the paths that the metadata calls so.
func (i *instance) mandatory(t testing.TB, id string) (paths [][]any) {
	t.Helper()
	for _, claim := range i.metadata(t).Configurations[id].Metadata.Claims {
		if claim.Mandatory {
			paths = append(paths, claim.Path)
		}
	}
	return paths
}

// claimsWith are the sample's claims as far as keep wants them.
func claimsWith(t testing.TB, id string, keep func(path []any) bool) members {
	t.Helper()
	var all members
	if err := json.Unmarshal(sample(t, id), &all); err != nil {
		t.Fatal(err)
	}
	prefix := []any{}
	if id == residence {
		prefix = append(prefix, "credentialSubject")
	}
	var prune func(object members, at []any)
	prune = func(object members, at []any) {
		for name, value := range object {
			path := append(slices.Clone(at), name)
			if inner, isObject := value.(members); isObject && !keep(path) {
				if prune(inner, path); len(inner) > 0 {
					continue
				}
			}
			if !keep(path) {
				delete(object, name)
			}
		}
	}
	prune(all, prefix)
	return all
}

// issue gets a credential with these claims; "" when the offer is refused for them.
func (i *instance) issue(t testing.TB, id string, claims members) string {
	t.Helper()
	a := i.operator(t, http.MethodPost, "/v1/openid/offers/pre-authorized", members{"credentials": []string{id}, "claims": claims})
	if a.status == http.StatusBadRequest || a.status == http.StatusUnprocessableEntity {
		return ""
	}
	s := &session{instance: i, offer: i.offer(t, id, func(request map[string]any) { request["claims"] = claims })}
	s.redeem(t, nil)
	return credentials(t, s.ask(t, request(id, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), 1)[0]
}

// An offer of the mandatory claims alone gets a credential with all of them; one
// without one of them either is not made, or the credential has the claim all the same.
func TestCheck250Mandatory(t *testing.T) {
	i := plain(t)
	for _, id := range everyFormat {
		paths := i.mandatory(t, id)
		// In an mdoc the claims stand under their namespaces, in an offer by themselves.
		name := func(path []any) string { return fmt.Sprint(path) }
		if id == mdl || id == pidMdoc {
			name = func(path []any) string { return fmt.Sprint(path[len(path)-1:]) }
		}
		wanted := map[string]bool{}
		for _, path := range paths {
			wanted[name(path)] = true
		}
		all := func(t *testing.T, credential string) {
			t.Helper()
			claims := i.readAny(t, id, credential).claims
			for _, path := range paths {
				if !selects(claims, path) {
					t.Errorf("%v is not in the credential", path)
				}
			}
			if selects(claims, append(slices.Clone(paths[0]), "nothing")) {
				t.Error("a path finds what is not there")
			}
		}
		t.Run(id+" alone", func(t *testing.T) {
			all(t, i.issue(t, id, claimsWith(t, id, func(path []any) bool { return wanted[name(path)] })))
		})
		refusals := 0
		for _, path := range paths {
			t.Run(fmt.Sprint(id, " without ", path), func(t *testing.T) {
				claims := claimsWith(t, id, func(p []any) bool { return wanted[name(p)] && name(p) != name(path) })
				if credential := i.issue(t, id, claims); credential != "" {
					all(t, credential)
				} else {
					refusals++
				}
			})
		}
		if refusals < 3 {
			t.Errorf("%s: %d offers were refused", id, refusals)
		}
	}
}

// sameDay runs what must not see midnight (UTC) pass: once more if it did.
func sameDay(f func()) {
	for {
		day := time.Now().UTC().YearDay()
		if f(); time.Now().UTC().YearDay() == day {
			return
		}
	}
}

// Times say nothing of when a credential was fetched: whole hours, or the
// certificate's bounds; the same in a batch and in another wallet's credential.
func TestCheck251Times(t *testing.T) {
	i := plain(t)
	for _, id := range everyFormat {
		t.Run(id, func(t *testing.T) {
			var all []read
			sameDay(func() {
				all = nil
				s := i.session(t, id)
				_, a := s.batch(t, id, 4)
				for _, credential := range append(credentials(t, a, 4), i.one(t, id, newKey(t, jose.ES256))) {
					all = append(all, i.readAny(t, id, credential))
				}
			})
			const hour = 3600
			for n, r := range all {
				if !slices.Equal(r.from, all[0].from) || r.until != all[0].until {
					t.Errorf("credential %d: %v to %v, the first one's %v to %v", n, r.from, r.until, all[0].from, all[0].until)
				}
				for _, from := range r.from {
					if from%hour != 0 && (r.leaf == nil || from != r.leaf.NotBefore.Unix()) {
						t.Errorf("from %v", time.Unix(from, 0).UTC())
					}
				}
				if (r.until+1)%hour != 0 && (r.leaf == nil || r.until != r.leaf.NotAfter.Unix()) {
					t.Errorf("until %v", time.Unix(r.until, 0).UTC())
				}
			}
		})
	}
}

// ECDSA signatures are r and s of the curve's length, whatever zeros they begin with.
func TestCheck252RawSignatures(t *testing.T) {
	i := plain(t)
	size := map[string]int{"ES256": 64, "ES384": 96, "ES512": 132}
	for _, id := range everyFormat {
		t.Run(id, func(t *testing.T) {
			s := i.session(t, id)
			_, a := s.batch(t, id, 10)
			for _, credential := range credentials(t, a, 10) {
				if r := i.readAny(t, id, credential); size[r.alg] == 0 || len(r.signature) != size[r.alg] {
					t.Errorf("%s with %d bytes", r.alg, len(r.signature))
				}
			}
		})
	}
}

// secretsOf are parts of a credential that nobody could hold who has not the
// credential, as text and as bytes.
func secretsOf(t testing.TB, id, credential string) (out map[string][]byte) {
	t.Helper()
	out = map[string][]byte{"the credential": []byte(credential)}
	jws, rest, _ := strings.Cut(credential, "~")
	switch id {
	case mdl, pidMdoc:
		d := readMdoc(t, credential)
		out["the signature"], out["issuerAuth"] = d.signature, d.IssuerAuth
		for namespace, list := range d.NameSpaces {
			for n, encoded := range list {
				out[fmt.Sprint("item ", n, " of ", namespace)] = encoded
			}
		}
		return out
	case pidSDJWT:
		for n, d := range strings.Split(strings.TrimSuffix(rest, "~"), "~") {
			out[fmt.Sprint("disclosure ", n)] = []byte(d)
		}
	}
	parts := strings.Split(jws, ".")
	out["the payload"], out["the signature"], out["the signature's bytes"] = []byte(parts[1]), []byte(parts[2]), signatureOf(t, jws)
	return out
}

// Once a credential was delivered and accepted neither it nor a part of it nor
// the person's data are in any file of the appliance.
func TestCheck253NotStored(t *testing.T) {
	i := plain(t)
	for _, id := range everyFormat {
		t.Run(id, func(t *testing.T) {
			s := i.session(t, id)
			a := s.ask(t, request(id, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
			secrets := secretsOf(t, id, credentials(t, a, 1)[0])
			if a := s.notify(t, a.text(t, "notification_id"), "credential_accepted"); a.status != http.StatusNoContent {
				t.Fatalf("%d %s", a.status, a.body)
			}
			for n, text := range texts(t, sample(t, id)) {
				if len(text) >= 12 { // shorter ones are anywhere by chance
					secrets[fmt.Sprint("claim ", n)] = []byte(text)
				}
			}
			_, list := i.look(t, s.offer)
			if len(list) != 1 || len(secrets) < 4 {
				t.Fatalf("%d credentials, %d secrets", len(list), len(secrets))
			}
			// What is kept: the log's record of the credential. It is found, so would the rest be.
			known := false
			i.eachFile(t, func(path string, data []byte) {
				known = known || bytes.Contains(data, []byte(list[0].ID))
				for what, secret := range secrets {
					if bytes.Contains(data, secret) {
						t.Errorf("%s holds %s", path, what)
					}
				}
			})
			if !known {
				t.Error("the log's record of the credential is in no file")
			}
		})
	}
}

// eachFile reads every file below the instance's folder.
func (i *instance) eachFile(t testing.TB, f func(path string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(i.run, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // gone meanwhile, a folder, a socket
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		f(path, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
