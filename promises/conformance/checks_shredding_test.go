package conformance

import (
	"database/sql"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/go-jose/go-jose/v4"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// kept tells whether the files hold an offer's sealed claims, and the wrapped key
// that opens them.
func (i *instance) kept(t testing.TB, id string) (claims, key bool) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(i.env["STATE_DIR"], "data", "chancery.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM claims WHERE offer = o.id), substr(k.wrapped, o.id % 64 * 60 + 1, 60) <> zeroblob(60)
		FROM offers o JOIN keys k ON k.block = o.id / 64 WHERE lower(hex(o.uuid)) = replace(?, '-', '')`, id).Scan(&claims, &key)
	if err != nil {
		t.Fatal(err)
	}
	return claims, key
}

// TestPromiseP9ShreddedInTheFiles reads chancery.db beside the running daemon: an
// open offer has sealed claims and a key, an issued or cancelled one has neither.
func TestPromiseP9ShreddedInTheFiles(t *testing.T) {
	i, to := sealed(t), newRecipient(t)
	want := func(what string, o offer, there bool) {
		t.Helper()
		if claims, key := i.kept(t, o.id); claims != there || key != there {
			t.Errorf("%s: claims %t, key %t, want %t", what, claims, key, there)
		}
	}
	s := i.session(t, pidSDJWT)
	want("redeemed", s.offer, true)
	k := newKey(t, jose.ES256)
	r := request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))
	r["credential_response_encryption"] = to.parameters(t)
	credentials(t, to.open(t, s.post(t, "/credential", i.seal(t, r), "Content-Type", "application/jwt")), 1)
	want("issued", s.offer, false)

	cancelled := i.session(t, pidSDJWT)
	want("another", cancelled.offer, true)
	if a := i.operator(t, http.MethodDelete, "/v1/openid/offers/pre-authorized/"+cancelled.offer.id, nil); a.status != http.StatusNoContent {
		t.Fatal(a.status)
	}
	want("cancelled", cancelled.offer, false)
}
