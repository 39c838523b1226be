package promises

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Configurations that the judges' appliances have besides the demonstration's:
// SD-JWT VCs with the PID's claims.
const (
	approved = "check.approval" // an operator approves each
	attested = "check.attested" // a key attestation is demanded
	unbound  = "check.unbound"  // without key binding
)

var furtherConfigurations = map[string]string{
	approved: "approval = true\npoll_interval = \"1s\"\n",
	attested: "proof_types = [\"jwt\", \"attestation\"]\nbatch_size = 5\n\n[key_attestation]\nkey_storage = [\"iso_18045_high\", \"iso_18045_moderate\"]\nuser_authentication = [\"iso_18045_high\"]\n",
	unbound:  "key_binding = false\n",
}

// clientKeys is the file with the registered client's public key, in the state folder.
const clientKeys = "clients.json"

const clients = "[[issuer.clients]]\nid = \"" + registeredClient + "\"\nkeys = \"" + clientKeys + "\"\n\n"

// walletSetting is an appliance in settings of its own, and what wallets do with it.
type walletSetting struct {
	name string
	// path is the identifier's.
	path string
	// issuer are further members of [issuer], sections further sections.
	issuer, sections string
	// anonymous lets wallets redeem without a client_id.
	anonymous bool
	cases     []walletCase
}

// start prepares the appliance; it is not up yet.
func (s walletSetting) start(t testing.TB) *appliance {
	t.Helper()
	a := setUp(t, "CHANCERY_PATH="+s.path)
	if err := a.demo("prepare"); err != nil {
		t.Fatal(err)
	}
	a.configure("[issuer]\n", "[issuer]\n"+s.issuer)
	// A section of TOML stands before the arrays of tables within it.
	const provider = "\n[[issuer.wallet_attestation.providers]]"
	a.configure(provider, "\n"+s.sections+provider)
	if !s.anonymous {
		a.configure("anonymous_access = true", "anonymous_access = false")
	}
	folder := filepath.Join(a.run, "configurations")
	base, err := os.ReadFile(filepath.Join(folder, pidSDJWT+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	for id, members := range furtherConfigurations {
		text := strings.Replace(strings.ReplaceAll(string(base), `"`+pidSDJWT+`"`, `"`+id+`"`), "batch_size = 10\n", "", 1)
		text = strings.Replace(text, "\n[[display]]", "\n"+members+"\n[[display]]", 1)
		if err := os.WriteFile(filepath.Join(folder, id+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// sampleClaims returns the claims for a configuration of the demonstration's or a
// further one.
func sampleClaims(t testing.TB, configuration string) json.RawMessage {
	t.Helper()
	if furtherConfigurations[configuration] != "" {
		configuration = pidSDJWT
	}
	return claims(t, configuration)
}

// walletCase is one wallet and what it does: args are the judges' (see
// scripts/judges/judge.mjs).
type walletCase struct {
	name, configuration, args string
	txCode, byValue           bool
}

// format is the one that the wallet sees.
func (c walletCase) format() string {
	switch {
	case c.configuration == mdl || c.configuration == pidMdoc:
		return "mso_mdoc"
	case c.configuration == residence:
		return "jwt_vc_json"
	case strings.Contains(c.args, "Draft14") || strings.Contains(c.args, "sphereon-13"):
		return "vc+sd-jwt"
	}
	return "dc+sd-jwt"
}

// What every wallet must do at the strict appliance.
const strictly = "--encryption ECDH-ES:A128GCM --with dpop,attestation,challenge"

// How @openid4vc/openid4vci is a wallet of an older draft.
const (
	asDraft15 = "--version Draft15 --with appended-path"
	asDraft14 = "--version Draft14 --with appended-path"
)

const refreshing = "[issuer.refresh]\nenabled = true\n\n"

// walletSettings are the appliances that other people's wallets meet.
var walletSettings = []walletSetting{
	{name: "open", anonymous: true, sections: clients + refreshing, cases: []walletCase{
		{name: "mDL", configuration: mdl},
		{name: "PID mdoc", configuration: pidMdoc},
		{name: "PID SD-JWT", configuration: pidSDJWT},
		{name: "JWT VC", configuration: residence},
		{name: "mDL, tx_code", configuration: mdl, txCode: true},
		{name: "PID mdoc, tx_code", configuration: pidMdoc, txCode: true},
		{name: "PID SD-JWT, tx_code", configuration: pidSDJWT, txCode: true},
		{name: "JWT VC, tx_code, offer by value", configuration: residence, txCode: true, byValue: true},
		{name: "offer by value", configuration: mdl, byValue: true},
		{name: "signed metadata", configuration: pidSDJWT, args: "--with signed-metadata"},
		{name: "DPoP", configuration: pidSDJWT, args: "--with dpop"},
		{name: "wallet attestation", configuration: mdl, args: "--with attestation"},
		{name: "wallet attestation, DPoP, notification", configuration: residence, args: "--with attestation,dpop,notification"},
		{name: "private_key_jwt", configuration: pidSDJWT, args: "--with private-key-jwt"},
		{name: "authorization_details", configuration: pidSDJWT, args: "--with details"},
		{name: "authorization_details, DPoP, batch", configuration: mdl, args: "--with details,dpop --keys 3"},
		{name: "scope", configuration: mdl, args: "--with scope"},
		{name: "batch of ten", configuration: pidSDJWT, args: "--keys 10"},
		{name: "x5c proofs", configuration: mdl, args: "--binding x5c --keys 3"},
		{name: "did:jwk proof, EdDSA", configuration: pidSDJWT, args: "--binding did:jwk --alg EdDSA"},
		{name: "ES384 proof", configuration: pidMdoc, args: "--alg ES384"},
		{name: "EdDSA proofs for an mdoc", configuration: mdl, args: "--alg EdDSA --keys 2"},
		{name: "one jwt proof, five attested keys", configuration: attested, args: "--with key-attestation --keys 5"},
		{name: "attestation proof, five keys", configuration: attested, args: "--with attestation-proof --keys 5"},
		{name: "no key binding", configuration: unbound, args: "--with unbound"},
		{name: "request repeated", configuration: pidSDJWT, args: "--with retry"},
		{name: "notification", configuration: pidMdoc, args: "--with notification"},
		{name: "refresh, DPoP", configuration: pidSDJWT, args: "--with refresh,dpop"},
		{name: "refresh, private_key_jwt", configuration: mdl, args: "--with refresh,private-key-jwt"},
		{name: "refresh, wallet attestation", configuration: residence, args: "--with refresh,attestation"},
		{name: "encryption", configuration: residence, args: "--encryption ECDH-ES:A256GCM"},
		{name: "encryption, key wrap", configuration: mdl, args: "--encryption ECDH-ES+A256KW:A256CBC-HS512"},
		{name: "deferred", configuration: approved, args: "--with deferred,dpop,notification"},
		{name: "deferred, encryption", configuration: approved, args: "--with deferred --encryption ECDH-ES+A128KW:A128GCM"},
	}},
	{name: "strict", path: "/tenant",
		sections: "[issuer.dpop]\nrequired = true\nnonces = true\n\n[issuer.encryption]\nrequest = \"required\"\nresponse = \"required\"\n\n" +
			"[issuer.key_attestation]\nnonce = true\n\n[issuer.wallet_attestation]\nchallenges = true\nmax_age = \"1h\"\n",
		cases: []walletCase{
			{name: "mDL", configuration: mdl, args: strictly},
			{name: "tx_code, signed metadata, notification", configuration: pidSDJWT, txCode: true, args: strictly + ",signed-metadata,notification"},
			{name: "authorization_details, request repeated", configuration: residence, args: strictly + ",details,retry"},
			{name: "scope, batch of ten", configuration: pidMdoc, args: strictly + ",scope --keys 10"},
			{name: "one jwt proof, five attested keys", configuration: attested, args: strictly + ",key-attestation --keys 5"},
			{name: "attestation proof, five keys", configuration: attested, args: strictly + ",attestation-proof --keys 5"},
			{name: "deferred", configuration: approved, args: strictly + ",deferred,notification"},
		}},
	{name: "draft-15", path: "/draft-15", anonymous: true, issuer: "compatibility = \"draft-15\"\n", sections: clients + refreshing + "[issuer.dpop]\nnonces = true\n", cases: []walletCase{
		{name: "a wallet of 1_0", configuration: pidSDJWT, args: "--with dpop --keys 3"},
		{name: "openid4vci, offer by value, did:jwk, EdDSA", configuration: pidSDJWT, byValue: true, args: asDraft15 + " --binding did:jwk --alg EdDSA"},
		{name: "openid4vci, batch of mdocs", configuration: mdl, args: asDraft15 + " --keys 3"},
		{name: "openid4vci, tx_code, DPoP, notification", configuration: residence, txCode: true, args: asDraft15 + ",dpop,notification"},
		{name: "openid4vci, one jwt proof, three attested keys", configuration: attested, args: asDraft15 + ",key-attestation --keys 3"},
		{name: "openid4vci, private_key_jwt, scope", configuration: pidMdoc, args: asDraft15 + ",private-key-jwt,scope"},
		{name: "openid4vci, deferred", configuration: approved, args: asDraft15 + ",deferred"},
		{name: "openid4vci, wallet attestation, refresh, x5c proofs", configuration: pidSDJWT, args: asDraft15 + ",attestation,refresh --binding x5c --keys 2"},
		{name: "openid4vci, attestation proof", configuration: attested, args: asDraft15 + ",attestation-proof --keys 2"},
		{name: "openid4vci, authorization_details, ES384, request repeated", configuration: mdl, args: asDraft15 + ",details,retry --alg ES384"},
		{name: "openid4vci, no key binding", configuration: unbound, args: asDraft15 + ",unbound"},
		{name: "openid4vci, encrypted response", configuration: residence, args: asDraft15 + " --encryption ECDH-ES:A128GCM"},
		{name: "sphereon, PID SD-JWT", configuration: pidSDJWT, args: "--library sphereon-15"},
		{name: "sphereon, mDL, DPoP", configuration: mdl, args: "--library sphereon-15 --with dpop"},
		{name: "sphereon, tx_code, scope, notification", configuration: residence, txCode: true, args: "--library sphereon-15 --with scope,notification"},
		{name: "sphereon, private_key_jwt, ES384", configuration: pidMdoc, args: "--library sphereon-15 --with private-key-jwt --alg ES384"},
		{name: "sphereon, offer by value, did:jwk, EdDSA", configuration: pidSDJWT, byValue: true, args: "--library sphereon-15 --binding did:jwk --alg EdDSA"},
	}},
	{name: "draft-13", path: "/draft-13", anonymous: true, issuer: "compatibility = \"draft-13\"\n", sections: clients + refreshing + "[issuer.dpop]\nnonces = true\n", cases: []walletCase{
		{name: "a wallet of 1_0", configuration: pidSDJWT, args: "--with dpop --keys 3"},
		{name: "openid4vci, offer by value, did:jwk, EdDSA", configuration: pidSDJWT, byValue: true, args: asDraft14 + " --binding did:jwk --alg EdDSA"},
		{name: "openid4vci, mDL", configuration: mdl, args: asDraft14},
		{name: "openid4vci, refresh, DPoP, x5c proof", configuration: pidSDJWT, args: asDraft14 + ",refresh,dpop --binding x5c"},
		{name: "openid4vci, scope, ES384, request repeated", configuration: pidMdoc, args: asDraft14 + ",scope,retry --alg ES384"},
		{name: "openid4vci, authorization_details", configuration: pidSDJWT, args: asDraft14 + ",details"},
		{name: "openid4vci, no key binding", configuration: unbound, args: asDraft14 + ",unbound"},
		{name: "openid4vci, encrypted response", configuration: residence, args: asDraft14 + " --encryption ECDH-ES:A128GCM"},
		{name: "openid4vci, tx_code, DPoP, notification", configuration: residence, txCode: true, args: asDraft14 + ",dpop,notification"},
		{name: "openid4vci, private_key_jwt", configuration: pidMdoc, args: asDraft14 + ",private-key-jwt"},
		{name: "sphereon, PID SD-JWT", configuration: pidSDJWT, args: "--library sphereon-13"},
		{name: "sphereon, tx_code, scope, notification", configuration: residence, txCode: true, args: "--library sphereon-13 --with scope,notification"},
		{name: "sphereon, DPoP", configuration: pidSDJWT, args: "--library sphereon-13 --with dpop"},
		{name: "sphereon, private_key_jwt", configuration: residence, args: "--library sphereon-13 --with private-key-jwt --alg ES384"},
		{name: "sphereon, offer by value, did:jwk, EdDSA", configuration: pidSDJWT, byValue: true, args: "--library sphereon-13 --binding did:jwk --alg EdDSA"},
		{name: "sphereon, deferred", configuration: approved, args: "--library sphereon-13 --with deferred"},
	}},
}

// leftOut are variants that a library cannot do.
var leftOut = []struct{ library, variant, reason string }{
	{"openid4vci 0.4.6", "di_vp", "the library makes jwt and attestation proofs only"},
	{"openid4vci 0.4.6", "DPoP proof as client attestation PoP", "the library makes a PoP of its own always"},
	{"openid4vci 0.4.6", "zip", "jose 6 compresses no more"},
	{"openid4vci 0.4.6", "deferred, draft 13", "the library reads credentials, not credential, in a deferred response"},
	{"sphereon 0.20.1", "OpenID4VCI 1.0", "the library speaks draft 15 only"},
	{"sphereon 0.20.1", "batch, attestations, encryption, refresh", "the library has one proof by one key, and neither of the others"},
	{"sphereon 0.20.1", "authorization_details", "its client does not hand them on to the credential request"},
	{"sphereon 0.20.1", "deferred", "its metadata client loses the deferred credential endpoint"},
	{"sphereon 0.16.0", "mso_mdoc", "the library does not know the format"},
	{"sphereon 0.16.0", "batch, attestations, encryption, refresh", "the library has one proof by one key, and neither of the others"},
	{"digitalbazaar 5.10.0", "every one", "the library wants issuer and token_endpoint in the credential issuer metadata, 4 KiB of it at most, and no token_type but bearer in lower case"},
}
