package conformance

import (
	"crypto/x509"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// byFormat are credential requests of draft 13 §7.2 for the demonstration's
// configurations, without proofs.
var byFormat = map[string]members{
	mdl:       {"format": "mso_mdoc", "doctype": "org.iso.18013.5.1.mDL"},
	pidMdoc:   {"format": "mso_mdoc", "doctype": "eu.europa.ec.eudi.pid.1"},
	pidSDJWT:  {"format": "vc+sd-jwt", "vct": "urn:eudi:pid:1"},
	residence: {"format": "jwt_vc_json", "credential_definition": members{"type": []string{"VerifiableCredential", "ResidencePermitCredential"}}},
}

// older is a request in a draft's form: request has no proofs yet.
func older(request members, kind string, proof any) members {
	m := maps.Clone(request)
	m["proof"] = members{"proof_type": kind, kind: proof}
	return m
}

// only demands that a success has these members and no others.
func only(t testing.TB, a answer, names ...string) members {
	t.Helper()
	object := a.object(t)
	if got := slices.Sorted(maps.Keys(object)); a.status != http.StatusOK || !slices.Equal(got, names) || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v, want %v: %.300s", a.status, got, names, a.body)
	}
	return object
}

// fresh returns the c_nonce of an answer of draft 13, which says how long it lives.
func fresh(t testing.TB, a answer) string {
	t.Helper()
	object := a.object(t)
	nonce, _ := object["c_nonce"].(string)
	if lifetime, _ := object["c_nonce_expires_in"].(float64); nonce == "" || lifetime < 1 {
		t.Fatalf("%d %.300s", a.status, a.body)
	}
	return nonce
}

func TestCheck335(t *testing.T) {
	i := draft(t, "draft-13")
	s := i.session(t, pidSDJWT)
	only(t, s.answer, "access_token", "c_nonce", "c_nonce_expires_in", "expires_in", "token_type")
	fresh(t, i.bound(t, pidSDJWT).answer)
	one, other := fresh(t, s.answer), fresh(t, i.session(t, pidSDJWT).answer)
	if one == other {
		t.Error("the same c_nonce twice")
	}
	k := newKey(t, jose.ES256)
	i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, one, nil))), 1)[0], &k)
	for name, i := range map[string]*instance{"plain": plain(t), "draft-15": draft(t, "draft-15")} {
		t.Run("335 none in "+name, func(t *testing.T) {
			if object := i.session(t, pidSDJWT).answer.object(t); object["c_nonce"] != nil || object["c_nonce_expires_in"] != nil {
				t.Errorf("%v", slices.Sorted(maps.Keys(object)))
			}
		})
	}
}

func TestCheck336And339Draft13(t *testing.T) {
	i := draft(t, "draft-13")
	for id, by := range byFormat {
		t.Run("336 "+id, func(t *testing.T) {
			s, k := i.session(t, id), newKey(t, jose.ES256)
			first := older(by, "jwt", i.proof(t, k, fresh(t, s.answer), nil))
			a := s.ask(t, first)
			object := only(t, a, "c_nonce", "c_nonce_expires_in", "credential", "notification_id")
			credential, _ := object["credential"].(string)
			i.asDraft13(t, credential, id, k)
			// The same request again, and a nonce for whatever comes next.
			only(t, s.ask(t, first), "c_nonce", "c_nonce_expires_in", "credential", "notification_id")
			if again := fresh(t, a); again == fresh(t, s.answer) {
				t.Error("the c_nonce that was used is given out again")
			}
			done(t, s.notify(t, object["notification_id"].(string), "credential_accepted"))
		})
		t.Run("336 by identifier "+id, func(t *testing.T) {
			s, identifier := i.identified(t, id)
			k := newKey(t, jose.ES256)
			object := only(t, s.ask(t, older(members{"credential_identifier": identifier}, "jwt", i.proof(t, k, i.nonce(t), nil))), "c_nonce", "c_nonce_expires_in", "credential", "notification_id")
			i.asDraft13(t, object["credential"].(string), id, k)
		})
		t.Run("339 a request of 1.0 "+id, func(t *testing.T) {
			s, k := i.session(t, id), newKey(t, jose.ES256)
			typed(t, credentials(t, s.ask(t, request(id, i.proof(t, k, i.nonce(t), nil))), 1)[0], id, typOf[id])
		})
	}
	s := i.session(t, pidSDJWT)
	proof := i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)
	for name, c := range map[string]struct {
		request members
		code    string
	}{
		"336 an unknown format":      {members{"format": "ldp_vc"}, "unsupported_credential_format"},
		"336 format no text":         {members{"format": 1}, "unsupported_credential_format"},
		"336 an unknown type":        {members{"format": "vc+sd-jwt", "vct": "urn:other"}, "unsupported_credential_type"},
		"336 no type":                {members{"format": "vc+sd-jwt"}, "unsupported_credential_type"},
		"336 a type not offered":     {byFormat[mdl], "unsupported_credential_type"},
		"336 an unknown id":          {members{"credential_configuration_id": "x"}, "unsupported_credential_type"},
		"336 an unknown identifier":  {members{"credential_identifier": "x"}, "unsupported_credential_type"},
		"336 nothing that is wanted": {members{}, "invalid_credential_request"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, s.ask(t, older(c.request, "jwt", proof)), 400, c.code) })
	}
	s.nothingIssued(t)
	only(t, s.ask(t, older(byFormat[pidSDJWT], "jwt", proof)), "c_nonce", "c_nonce_expires_in", "credential", "notification_id")
}

// typOf is the typ header of a credential in 1.0; an mdoc has none.
var typOf = map[string]string{pidSDJWT: "dc+sd-jwt", residence: "JWT"}

// typed demands a typ header.
func typed(t testing.TB, credential, id, want string) {
	t.Helper()
	if id == mdl || id == pidMdoc {
		return
	}
	header := payload(t, "."+credential) // the header takes the payload's place
	if header["typ"] != want {
		t.Errorf("%s: typ %v, want %s", id, header["typ"], want)
	}
}

// asDraft13 checks a credential of draft 13 (check 339).
func (i *instance) asDraft13(t testing.TB, credential, id string, k key) {
	t.Helper()
	if id == mdl || id == pidMdoc || id == residence {
		typed(t, credential, id, typOf[id])
		i.verified(t, credential, &k)
		return
	}
	typed(t, credential, id, "vc+sd-jwt")
	i.signed(t, credential, k)
}

// signed checks the signature of an SD-JWT VC by its certificate's key, the
// certificate by the IACA, and the holder's key. The verifier refuses the typ of
// a draft.
func (i *instance) signed(t testing.TB, credential string, k key) {
	t.Helper()
	compact, _, _ := strings.Cut(credential, "~")
	object, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(i.iaca(t))
	chains, err := object.Signatures[0].Protected.Certificates(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := object.Verify(chains[0][0].PublicKey); err != nil {
		t.Error(err)
	}
	confirmation, _ := payload(t, compact)["cnf"].(members)
	holder, _ := confirmation["jwk"].(members)
	if want := k.members(t); holder["x"] != want["x"] || holder["y"] != want["y"] {
		t.Errorf("bound to %v, want %v", holder, want)
	}
}

func TestCheck337(t *testing.T) {
	i := draft(t, "draft-13")
	used := i.nonce(t)
	credentials(t, i.session(t, pidSDJWT).ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), used, nil))), 1)
	for name, c := range map[string]change{
		"337 an unknown nonce": with(nil, members{"nonce": "unknown"}),
		"337 a used nonce":     with(nil, members{"nonce": used}),
		"337 no nonce":         with(nil, members{"nonce": nil}),
		"337 a wrong typ":      with(members{"typ": "JWT"}, nil),
		"337 another audience": with(nil, members{"aud": "https://other.example"}),
	} {
		t.Run(name, func(t *testing.T) {
			s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
			a := s.ask(t, older(byFormat[pidSDJWT], "jwt", i.proof(t, k, i.nonce(t), c)))
			if a.status != 400 || a.text(t, "error") != "invalid_proof" || len(a.object(t)) != 4 || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %v: %.300s", a.status, a.header, a.body)
			}
			s.nothingIssued(t)
			// With the nonce of the error it works.
			only(t, s.ask(t, older(byFormat[pidSDJWT], "jwt", i.proof(t, k, fresh(t, a), nil))), "c_nonce", "c_nonce_expires_in", "credential", "notification_id")
		})
	}
	t.Run("337 1.0 has its own error", func(t *testing.T) {
		refused(t, i.session(t, pidSDJWT).ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), used, nil))), 400, "invalid_nonce")
	})
	t.Run("337 so has draft 15", func(t *testing.T) {
		i := draft(t, "draft-15")
		refused(t, i.session(t, pidSDJWT).ask(t, older(members{"credential_configuration_id": pidSDJWT}, "jwt", i.proof(t, newKey(t, jose.ES256), "unknown", nil))), 400, "invalid_nonce")
	})
}

func TestCheck338(t *testing.T) {
	i := draft(t, "draft-15")
	for _, id := range []string{mdl, pidSDJWT, residence} {
		t.Run("338 "+id, func(t *testing.T) {
			s, k := i.session(t, id), newKey(t, jose.ES256)
			a := s.ask(t, older(members{"credential_configuration_id": id}, "jwt", i.proof(t, k, i.nonce(t), nil)))
			credential := credentials(t, a, 1)[0]
			i.verified(t, credential, &k)
			typed(t, credential, id, typOf[id])
		})
		t.Run("338 by identifier "+id, func(t *testing.T) {
			s, identifier := i.identified(t, id)
			credentials(t, s.ask(t, older(members{"credential_identifier": identifier}, "jwt", i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))), 1)
		})
	}
	t.Run("338 proofs, as 1.0", func(t *testing.T) {
		s, nonce := i.session(t, pidSDJWT), i.nonce(t)
		credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), nonce, nil), i.proof(t, newKey(t, jose.ES256), nonce, nil))), 2)
	})
	t.Run("338 proof and proofs", func(t *testing.T) { // proofs counts, and what is in it is held against its rules
		s := i.session(t, pidSDJWT)
		m := request(pidSDJWT, "x")
		m["proof"] = members{"proof_type": "jwt", "jwt": i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)}
		refused(t, s.ask(t, m), 400, "invalid_proof", "invalid_credential_request")
		s.nothingIssued(t)
	})
	for name, proof := range map[string]any{
		"no object": "x", "null": nil, "no type": members{"jwt": "x"}, "an unknown type": members{"proof_type": "x", "x": "y"}, "another member": members{"proof_type": "jwt", "attestation": "x"},
		"a list": members{"proof_type": "jwt", "jwt": []string{"x"}}, "a number": members{"proof_type": "jwt", "jwt": 1}, "type no text": members{"proof_type": []string{"jwt"}, "jwt": "x"}, "empty": members{},
		"its own name": members{"proof_type": "proof_type"},
	} {
		t.Run("338 proof: "+name, func(t *testing.T) {
			s := i.session(t, pidSDJWT)
			refused(t, s.ask(t, members{"credential_configuration_id": pidSDJWT, "proof": proof}), 400, "invalid_proof", "invalid_credential_request")
			s.nothingIssued(t)
		})
	}
}

func TestCheck340(t *testing.T) {
	old := with(members{"typ": "keyattestation+jwt"}, nil)
	ask := func(t *testing.T, i *instance, c change) (*session, answer) {
		s, k, nonce := i.session(t, attested), newKey(t, jose.ES256), i.nonce(t)
		return s, s.ask(t, request(attested, i.proof(t, k, nonce, with(members{"key_attestation": i.attester.keyAttestation(t, []key{k}, nonce, c)}, nil))))
	}
	for name, i := range map[string]*instance{"draft-13": draft(t, "draft-13"), "draft-15": draft(t, "draft-15")} {
		t.Run("340 "+name, func(t *testing.T) {
			_, a := ask(t, i, old)
			credentials(t, a, 1)
			_, a = ask(t, i, nil)
			credentials(t, a, 1)
			s, a := ask(t, i, with(members{"typ": "JWT"}, nil))
			refused(t, a, 400, "invalid_proof")
			s.nothingIssued(t)
		})
		t.Run("340 as a proof "+name, func(t *testing.T) {
			s, k := i.session(t, attested), newKey(t, jose.ES256)
			body := members{"credential_configuration_id": attested, "proofs": members{"attestation": []string{i.attester.keyAttestation(t, []key{k}, i.nonce(t), old)}}}
			i.verified(t, credentials(t, s.ask(t, body), 1)[0], &k)
		})
	}
	t.Run("340 strict", func(t *testing.T) {
		i := plain(t)
		s, a := ask(t, i, old)
		refused(t, a, 400, "invalid_proof")
		s.nothingIssued(t)
		s = i.session(t, attested)
		refused(t, s.ask(t, members{"credential_configuration_id": attested, "proofs": members{"attestation": []string{i.attester.keyAttestation(t, []key{newKey(t, jose.ES256)}, i.nonce(t), old)}}}), 400, "invalid_proof")
		s.nothingIssued(t)
	})
}

// ldp_vp is what di_vp was called; wallets of drafts send one as they always did.
func TestCheck342Drafts(t *testing.T) {
	for _, name := range []string{"draft-13", "draft-15"} {
		t.Run("342 ldp_vp "+name, func(t *testing.T) {
			i, k := draft(t, name), newKey(t, jose.ES256)
			s := i.session(t, byProof)
			a := s.ask(t, older(members{"credential_configuration_id": byProof}, "ldp_vp", i.presentation(t, k, didJWK(t, k), i.nonce(t), nil)))
			if name == "draft-15" {
				i.verified(t, credentials(t, a, 1)[0], &k)
				return
			}
			i.asDraft13(t, only(t, a, "c_nonce", "c_nonce_expires_in", "credential", "notification_id")["credential"].(string), byProof, k)
		})
	}
}

func TestCheck341And342Strict(t *testing.T) {
	i := plain(t)
	for id, by := range byFormat {
		t.Run("341 "+id, func(t *testing.T) {
			s := i.session(t, id)
			proof := i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)
			refused(t, s.ask(t, older(by, "jwt", proof)), 400, "invalid_credential_request")
			refused(t, s.ask(t, older(members{"credential_configuration_id": id}, "jwt", proof)), 400, "invalid_proof")
			m := maps.Clone(by)
			m["proofs"] = members{"jwt": []string{proof}}
			refused(t, s.ask(t, m), 400, "invalid_credential_request")
			s.nothingIssued(t)
			identified, identifier := i.identified(t, id)
			refused(t, identified.ask(t, older(members{"credential_identifier": identifier}, "jwt", proof)), 400, "invalid_proof")
			identified.nothingIssued(t)
			credentials(t, s.ask(t, request(id, proof)), 1) // nothing was spent
		})
	}
	t.Run("341 an encrypted answer to a plain request", func(t *testing.T) { // drafts up to 15 §8.2, with alg beside the jwk
		s, r := i.session(t, pidSDJWT), newRecipient(t)
		asked := r.parameters(t)
		delete(asked["jwk"].(members), "alg")
		asked["alg"] = "ECDH-ES"
		refused(t, s.ask(t, s.asking(t, pidSDJWT, asked)), 400, "invalid_encryption_parameters")
		s.nothingIssued(t)
		for _, name := range []string{"draft-13", "draft-15"} {
			s := draft(t, name).session(t, pidSDJWT)
			credentials(t, r.open(t, s.ask(t, s.asking(t, pidSDJWT, asked))), 1)
		}
	})
	t.Run("341 the batch endpoint", func(t *testing.T) { // draft 13 §8
		s := i.session(t, pidSDJWT)
		if a := s.post(t, "/batch_credential", marshal(t, members{"credential_requests": []any{byFormat[pidSDJWT]}})); a.status != http.StatusNotFound {
			t.Errorf("%d %.300s", a.status, a.body)
		}
	})
	proof := i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)
	for _, kind := range []string{"ldp_vp", "cwt", "x", "JWT"} {
		for name, value := range map[string]any{"a text": "x", "an object": members{"type": []string{"VerifiablePresentation"}}, "a jwt": proof} {
			t.Run("342 "+kind+", "+name, func(t *testing.T) {
				s := i.session(t, byProof)
				refused(t, s.ask(t, members{"credential_configuration_id": byProof, "proofs": members{kind: []any{value}}}), 400, "invalid_credential_request")
				single := older(members{"credential_configuration_id": byProof}, kind, value)
				refused(t, s.ask(t, single), 400, "invalid_proof")
				s.nothingIssued(t)
				s = draft(t, "draft-15").session(t, byProof)
				refused(t, s.ask(t, single), 400, "invalid_credential_request", "invalid_proof") // ldp_vp is di_vp there
				s.nothingIssued(t)
			})
		}
	}
}
