package conformance

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
)

// batch asks for n credentials, each for a key of its own, all on one nonce.
func (s *session) batch(t testing.TB, id string, n int) (keys []key, answer answer) {
	t.Helper()
	nonce := s.nonce(t)
	var proofs []string
	for range n {
		k := newKey(t, jose.ES256)
		keys, proofs = append(keys, k), append(proofs, s.proof(t, k, nonce, nil))
	}
	return keys, s.ask(t, request(id, proofs...))
}

// Each key has one credential, in the order of the proofs.
func TestCheck254AKeyForEachCredential(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence} {
			for _, n := range []int{2, 10} {
				t.Run(fmt.Sprint(name, " ", id, " ", n), func(t *testing.T) {
					s := i.session(t, id)
					keys, a := s.batch(t, id, n)
					for place, credential := range credentials(t, a, n) {
						i.verified(t, credential, &keys[place])
					}
					if state, list := i.look(t, s.offer); state != "issued" || len(list) != n {
						t.Errorf("%s, %d credentials", state, len(list))
					}
				})
			}
		}
	}
	// A configuration that gives fewer than the metadata allows gives fewer.
	t.Run("fewer", func(t *testing.T) {
		i := plain(t)
		s := i.session(t, single)
		keys, a := s.batch(t, single, 10)
		i.verified(t, credentials(t, a, 1)[0], &keys[0])
	})
}

func TestCheck255MoreThanTheMetadataAllows(t *testing.T) {
	i := plain(t)
	if size := i.batchSize(t); size != 10.0 {
		t.Fatalf("batch_size %v", size)
	}
	for _, id := range []string{pidSDJWT, mdl, single} {
		s := i.session(t, id)
		for _, n := range []int{11, 64} {
			_, a := s.batch(t, id, n)
			refused(t, a, http.StatusBadRequest, "invalid_credential_request")
		}
		s.nothingIssued(t)
		_, a := s.batch(t, id, 1)
		credentials(t, a, 1)
	}
}

// batchSize is batch_credential_issuance.batch_size of the metadata; nil without.
func (i *instance) batchSize(t testing.TB) any {
	t.Helper()
	a := i.do(t, http.MethodGet, "/.well-known/openid-credential-issuer", nil)
	if a.status != http.StatusOK {
		t.Fatalf("%d %.300s", a.status, a.body)
	}
	batch, _ := a.object(t)["batch_credential_issuance"].(members)
	return batch["batch_size"]
}

func TestCheck256WithoutBatches(t *testing.T) {
	i := brief(t)
	if size := i.batchSize(t); size != nil {
		t.Fatalf("batch_size %v", size)
	}
	s := i.session(t, pidSDJWT)
	_, a := s.batch(t, pidSDJWT, 2)
	refused(t, a, http.StatusBadRequest, "invalid_credential_request")
	s.nothingIssued(t)
	_, a = s.batch(t, pidSDJWT, 1)
	credentials(t, a, 1)
}

// All of a batch say the same, of the same type, from the same issuer, for the
// same time.
func TestCheck257OneDataset(t *testing.T) {
	i := plain(t)
	for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence} {
		t.Run(id, func(t *testing.T) {
			s := i.session(t, id)
			keys, a := s.batch(t, id, 5)
			var first string
			for place, credential := range credentials(t, a, 5) {
				r := i.verified(t, credential, &keys[place])
				claims := map[string]string{}
				for _, c := range r.Claims {
					if path := fmt.Sprint(c.Path); r.Format != "jwt_vc_json" || c.Path[len(c.Path)-1] != "id" {
						claims[path] = c.Text
					}
				}
				said := fmt.Sprint(r.Format, r.Type, r.Issuer, r.ValidFrom, r.ValidUntil, r.Signed, claims)
				if len(claims) == 0 {
					t.Fatal("no claims")
				}
				if place == 0 {
					first = said
				} else if said != first {
					t.Errorf("credential %d is another:\n%.600s\n%.600s", place, said, first)
				}
			}
		})
	}
}

// Where credentials have a status, each has an entry of its own, and the entries
// do not tell that they belong together.
func TestCheck258StatusEntries(t *testing.T) {
	i := plain(t)
	s := i.session(t, pidSDJWT)
	_, a := s.batch(t, pidSDJWT, 10)
	entries := map[string]bool{}
	var numbers []float64
	for _, credential := range credentials(t, a, 10) {
		status, _ := payload(t, credential)["status"].(members)
		list, _ := status["status_list"].(members)
		if list == nil {
			t.Skip("these credentials have no status: they are short-lived")
		}
		number, _ := list["idx"].(float64)
		entries[fmt.Sprint(list["uri"], number)], numbers = true, append(numbers, number)
	}
	if len(entries) != 10 || slices.IsSorted(numbers) {
		t.Errorf("entries %v", numbers)
	}
}

// Nothing random is in two credentials of a batch: no salt, no digest, no signature.
func TestCheck259NothingInCommon(t *testing.T) {
	i := plain(t)
	for id, parts := range map[string]func(testing.TB, string) map[string]string{pidSDJWT: sdjwtParts, mdl: mdocParts, pidMdoc: mdocParts, residence: jwtParts} {
		t.Run(id, func(t *testing.T) {
			s := i.session(t, id)
			_, a := s.batch(t, id, 5)
			seen := map[string]string{}
			for _, credential := range credentials(t, a, 5) {
				for part, what := range parts(t, credential) {
					if seen[part] != "" {
						t.Errorf("%s is in two credentials, or twice in one", what)
					}
					seen[part] = what
				}
			}
			if len(seen) < 5 {
				t.Errorf("%d random parts", len(seen))
			}
		})
	}
}

// sdjwtParts are signature, disclosures, salts and digests of an SD-JWT.
func sdjwtParts(t testing.TB, credential string) map[string]string {
	t.Helper()
	disclosures := strings.Split(credential, "~")
	parts := map[string]string{disclosures[0][strings.LastIndex(disclosures[0], "."):]: "a signature"}
	for _, d := range disclosures[1 : len(disclosures)-1] {
		data, err := base64.RawURLEncoding.DecodeString(d)
		if err != nil {
			t.Fatal(err)
		}
		salt, _, _ := bytes.Cut(data[2:], []byte(`"`))
		parts[d], parts[string(salt)] = "a disclosure", "a salt"
	}
	digests, _ := payload(t, credential)["_sd"].([]any)
	if len(digests) == 0 {
		t.Fatal("no _sd")
	}
	for _, d := range digests {
		parts[fmt.Sprint(d)] = "a digest"
	}
	return parts
}

// mdocParts are signature, salts and digests of an IssuerSigned.
func mdocParts(t testing.TB, credential string) map[string]string {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(credential)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		NameSpaces map[string][]cbor.Tag `cbor:"nameSpaces"`
		IssuerAuth []any                 `cbor:"issuerAuth"`
	}
	if err := cbor.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{string(document.IssuerAuth[3].([]byte)): "a signature"}
	for _, items := range document.NameSpaces {
		for _, tag := range items {
			var item struct {
				Random []byte `cbor:"random"`
			}
			if err := cbor.Unmarshal(tag.Content.([]byte), &item); err != nil || len(item.Random) < 16 {
				t.Fatal(err, len(item.Random))
			}
			parts[string(item.Random)] = "a salt"
		}
	}
	var wrapped cbor.Tag
	if err := cbor.Unmarshal(document.IssuerAuth[2].([]byte), &wrapped); err != nil {
		t.Fatal(err)
	}
	var object struct {
		Digests map[string]map[uint64][]byte `cbor:"valueDigests"`
	}
	if err := cbor.Unmarshal(wrapped.Content.([]byte), &object); err != nil || len(object.Digests) == 0 {
		t.Fatal(err)
	}
	for _, digests := range object.Digests {
		for digest := range maps.Values(digests) {
			parts[string(digest)] = "a digest"
		}
	}
	return parts
}

// jwtParts are signature and identifier of a W3C VC.
func jwtParts(t testing.TB, credential string) map[string]string {
	t.Helper()
	id, _ := payload(t, credential)["jti"].(string)
	if id == "" {
		t.Fatal("no jti")
	}
	return map[string]string{credential[strings.LastIndex(credential, "."):]: "a signature", id: "an identifier"}
}

// One notification_id stands for all of a batch.
func TestCheck260OneNotification(t *testing.T) {
	i := plain(t)
	s := i.session(t, pidSDJWT)
	_, a := s.batch(t, pidSDJWT, 10)
	credentials(t, a, 10) // nothing beside credential in its elements, one notification_id beside the array
	if n := bytes.Count(a.body, []byte("notification_id")); n != 1 {
		t.Fatalf("%d notification_id", n)
	}
	if a := s.notify(t, a.text(t, "notification_id"), "credential_accepted"); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if state, list := i.look(t, s.offer); state != "accepted" || len(list) != 10 {
		t.Errorf("%s, %d credentials", state, len(list))
	}
}
