package clientauth

import (
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/replay"
)

// assertionType is the only kind of client assertion (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertion authenticates a registered client (RFC 7523 §3, FAPI 2.0 §5.3.2.1).
func (a *Authenticator) assertion(r Request, id string) (Identity, error) {
	const section = "RFC 7523 §2.2, §3"
	if r.Form.Get("client_assertion_type") != assertionType {
		return Identity{}, invalid("client_assertion_type", "client_assertion_type must be "+assertionType, section)
	}
	t, err := jwt.Parse(r.Form.Get("client_assertion"), maxToken)
	if err != nil {
		return Identity{}, invalid("client_assertion", "the assertion is not readable: "+err.Error(), section)
	}
	if _, err := t.Algorithm(a.options.Algorithms); err != nil {
		return Identity{}, invalid("client_assertion header alg", err.Error(), section)
	}
	subject := t.String("sub")
	client, registered := a.clients[subject]
	switch {
	case subject == "" || t.Claims["iss"] != subject:
		return Identity{}, invalid("client_assertion iss, sub", "iss and sub must both be the client_id", section)
	case id != "" && id != subject:
		return Identity{}, invalid("client_id", "client_id is not the sub of the assertion", section)
	case !registered || !client.verifies(t):
		// Whether a client is registered is not told to those who are not it.
		return Identity{}, invalid("client_assertion", "no registered client's key verifies the assertion", section)
	case !a.audience(t.Claims["aud"], false):
		return Identity{}, invalid("client_assertion aud", "aud must be the issuer identifier of the authorization server, as a string", "FAPI 2.0 §5.3.2.1")
	}
	now := a.options.Now()
	expires, ok := jwt.Date(t.Claims["exp"])
	switch {
	case !ok || !expires.After(now):
		return Identity{}, invalid("client_assertion exp", "exp is missing or has passed", section)
	case expires.After(now.Add(maxAssertionAge + clockSkew)):
		return Identity{}, invalid("client_assertion exp", "exp must be within an hour", section)
	case !past(t, "iat", now) || !past(t, "nbf", now):
		return Identity{}, invalid("client_assertion iat, nbf", "the assertion is not valid yet", section)
	}
	jti := t.String("jti")
	if jti == "" || len(jti) > maxJTI {
		return Identity{}, invalid("client_assertion jti", "jti must be a string of 1 to 1024 bytes", section)
	}
	// One that was lasting when it came first may expire soon when it comes again.
	cache, other, key := a.assertions, a.lasting, replay.NewKey(subject, jti)
	if expires.After(now.Add(soon)) {
		cache, other = a.lasting, a.assertions
	}
	if err := a.use(cache, "client_assertion", section, key); err != nil {
		return Identity{}, err
	}
	if other.Seen(key) {
		return Identity{}, invalid("client_assertion jti", "jti was used before", section)
	}
	return Identity{ID: subject, Authenticated: true, Method: PrivateKeyJWT}, nil
}

// since returns the date of the first claim of names that is there; ok is false
// when that is no date, or when there is none.
func since(t *jwt.Token, names ...string) (time.Time, bool) {
	for _, name := range names {
		if value, has := t.Claims[name]; has {
			return jwt.Date(value)
		}
	}
	return time.Time{}, false
}
