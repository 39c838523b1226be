package sdjwt

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strconv"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// ParseTBS reads a signing input back: the header this package writes, one type,
// times in order, a holder's key that is public, digests where _sd stands. The
// person's claims are what they are; all else is as [Prepare] writes it.
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	header, claims, err := jws.Parse(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	if header.Type != MediaType && header.Type != DraftMediaType || header.Algorithm.SignatureSize() == 0 || (len(header.X5C) == 0 && header.KeyID == "") {
		return issuance.Statement{}, errors.New("header: typ must be dc+sd-jwt or vc+sd-jwt, alg known, and x5c or kid there")
	}
	s := issuance.Statement{Format: issuance.FormatSDJWT, Algorithm: header.Algorithm, KeyID: header.KeyID, Chain: header.X5C}
	if err := names(claims, &s); err != nil {
		return issuance.Statement{}, err
	}
	if err := times(claims, &s); err != nil {
		return issuance.Statement{}, err
	}
	if err := checkStatus(claims); err != nil {
		return issuance.Statement{}, err
	}
	if err := jws.CheckConfirmation(claims); err != nil {
		return issuance.Statement{}, err
	}
	seen := map[string]bool{}
	if err := checkDigests(claims, true, seen); err != nil {
		return issuance.Statement{}, err
	}
	if algorithm, has := claims["_sd_alg"]; has != (len(seen) > 0) || (has && algorithm != "sha-256") {
		return issuance.Statement{}, errors.New("_sd_alg must be sha-256 where there are digests, and absent where there are none")
	}
	return s, nil
}

// names reads type and issuer.
func names(claims map[string]any, s *issuance.Statement) error {
	vct, err := jws.String(claims, "vct")
	if err != nil {
		return err
	}
	s.Types = []string{vct}
	if _, has := claims["aka_vcts"]; has {
		return errors.New("aka_vcts would give the credential types beside its vct")
	}
	if _, has := claims["vct#integrity"]; has {
		if _, err := jws.String(claims, "vct#integrity"); err != nil {
			return err
		}
	}
	if _, has := claims["iss"]; has || s.Chain == nil {
		s.Issuer, err = jws.String(claims, "iss")
	}
	return err
}

func times(claims map[string]any, s *issuance.Statement) error {
	var err error
	if s.Signed, err = jws.Date(claims, "iat"); err != nil {
		return err
	}
	if s.ValidFrom, err = jws.Date(claims, "nbf"); err != nil {
		return err
	}
	if s.ValidUntil, err = jws.Date(claims, "exp"); err != nil {
		return err
	}
	if s.ValidFrom.IsZero() {
		s.ValidFrom = s.Signed
	}
	if s.Signed.IsZero() {
		s.Signed = s.ValidFrom
	}
	if s.Signed.IsZero() || s.ValidUntil.IsZero() || !s.ValidUntil.After(s.ValidFrom) || !s.ValidUntil.After(s.Signed) {
		return errors.New("exp and one of iat and nbf are required, and exp must be after them")
	}
	return nil
}

// checkStatus demands a reference into a Token Status List and nothing else
// (HAIP §6.1).
func checkStatus(claims map[string]any) error {
	status, has := claims["status"]
	if !has {
		return nil
	}
	outer, _ := status.(map[string]any)
	list, _ := outer["status_list"].(map[string]any)
	index, _ := list["idx"].(json.Number)
	uri, _ := list["uri"].(string)
	if _, err := strconv.ParseUint(string(index), 10, 64); err != nil || uri == "" || len(outer) != 1 || len(list) != 2 {
		return errors.New("status must hold a status_list of idx and uri, and nothing else")
	}
	return nil
}

// checkDigests holds every _sd array and every array placeholder against its
// form, and refuses a digest that is there twice (RFC 9901 §7.1).
func checkDigests(value any, top bool, seen map[string]bool) error {
	switch value := value.(type) {
	case map[string]any:
		for name, member := range value {
			var err error
			switch name {
			case "_sd":
				err = noteAll(member, seen)
			case "...":
				err = errors.New("an array placeholder stands outside an array")
			case "_sd_alg":
				if !top {
					err = errors.New("_sd_alg stands below the top")
				}
			default:
				err = checkDigests(member, false, seen)
			}
			if err != nil {
				return err
			}
		}
	case []any:
		for _, element := range value {
			if err := checkElement(element, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkElement reads an array's element, which may be a placeholder.
func checkElement(element any, seen map[string]bool) error {
	object, _ := element.(map[string]any)
	digest, hidden := object["..."]
	if !hidden {
		return checkDigests(element, false, seen)
	}
	if len(object) != 1 {
		return errors.New("an array placeholder has other members")
	}
	return note(digest, seen)
}

func noteAll(member any, seen map[string]bool) error {
	list, _ := member.([]any)
	if len(list) == 0 {
		return errors.New("_sd is not a list of digests")
	}
	for _, digest := range list {
		if err := note(digest, seen); err != nil {
			return err
		}
	}
	return nil
}

func note(value any, seen map[string]bool) error {
	digest, ok := value.(string)
	if raw, err := jws.Base64URL(digest); !ok || err != nil || len(raw) != sha256.Size || seen[digest] {
		return errors.New("a digest is malformed or there twice")
	}
	seen[digest] = true
	return nil
}
