package wallet

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// State is what a flow needs to go on after the wallet has ended: tokens and
// keys, all of them secret. Write it where only its owner reads.
type State struct {
	// Issuer is the Credential Issuer Identifier.
	Issuer string `json:"credential_issuer"`
	// Server is the authorization_server of the offer; usually empty.
	Server string `json:"authorization_server,omitempty"`
	// ClientID is the client_id that was authenticated or sent; empty when anonymous.
	ClientID string `json:"client_id,omitempty"`
	// Configurations are what is asked for, Identifiers the credential_identifiers
	// of each when the server named some (OpenID4VCI 1.0 §6.2).
	Configurations []string            `json:"credential_configuration_ids"`
	Identifiers    map[string][]string `json:"credential_identifiers,omitempty"`
	// AccessToken is of TokenType Bearer or DPoP and ends at Expires.
	AccessToken  string    `json:"access_token"`
	TokenType    string    `json:"token_type"`
	Expires      time.Time `json:"expires"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	// DPoPKey signs DPoP proofs; InstanceKey is what the wallet attestation is about.
	DPoPKey     *jose.JSONWebKey `json:"dpop_key,omitempty"`
	InstanceKey *jose.JSONWebKey `json:"instance_key,omitempty"`
	// Pending are the deferred credentials.
	Pending []Pending `json:"pending,omitempty"`
}

// Pending is one deferred transaction (OpenID4VCI 1.0 §9).
type Pending struct {
	Configuration string `json:"credential_configuration_id"`
	Transaction   string `json:"transaction_id"`
	// Next is the earliest moment of the next request.
	Next time.Time `json:"next"`
	// Keys are what the credentials will be bound to; empty when unbound.
	Keys []jose.JSONWebKey `json:"keys,omitempty"`
}

// Encode writes the state as JSON.
func (s *State) Encode() ([]byte, error) { return json.MarshalIndent(s, "", "  ") }

// ParseState reads a state. Errors tell none of its secrets.
func ParseState(data []byte) (*State, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	s := &State{}
	if err := d.Decode(s); err != nil {
		return nil, errors.New("this is no state file of the wallet")
	}
	for _, key := range append(pendingKeys(s.Pending), s.DPoPKey, s.InstanceKey) {
		if key == nil {
			continue
		}
		if _, err := privateKey(key); err != nil {
			return nil, fmt.Errorf("the wallet's state: %w", err)
		}
	}
	if err := checkIssuer(s.Issuer); err != nil {
		return nil, fmt.Errorf("the wallet's state: credential_issuer %w", err)
	}
	if len(s.Configurations) == 0 || s.AccessToken == "" || s.TokenType != bearer && (s.TokenType != dpop || s.DPoPKey == nil) {
		return nil, errors.New("the wallet's state: credential_configuration_ids, access_token or its key is missing")
	}
	return s, nil
}

func pendingKeys(pending []Pending) []*jose.JSONWebKey {
	var keys []*jose.JSONWebKey
	for _, p := range pending {
		for i := range p.Keys {
			keys = append(keys, &p.Keys[i])
		}
	}
	return keys
}

// Unfinished says that the state is good for more: something is pending, or
// there is a refresh token.
func (s *State) Unfinished() bool { return len(s.Pending) > 0 || s.RefreshToken != "" }

func privateKey(key *jose.JSONWebKey) (crypto.Signer, error) {
	signer, ok := key.Key.(crypto.Signer)
	if !ok || !key.Valid() {
		return nil, errors.New("a key is no private key")
	}
	return signer, nil
}
