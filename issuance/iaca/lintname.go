package iaca

import (
	"encoding/asn1"
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Attribute types of names (RFC 5280 Appendix A.1, ITU-T X.520).
const (
	typeCommonName             = "2.5.4.3"
	typeSerialNumber           = "2.5.4.5"
	typeCountry                = "2.5.4.6"
	typeState                  = "2.5.4.8"
	typeOrganization           = "2.5.4.10"
	typeOrganizationIdentifier = "2.5.4.97"
	typeEmailAddress           = "1.2.840.113549.1.9.1"
	typeDomainComponent        = "0.9.2342.19200300.100.1.25"
)

var (
	countryPattern = regexp.MustCompile(`^[A-Z]{2}$`)
	statePattern   = regexp.MustCompile(`^[A-Z]{2}-[A-Z0-9]{1,3}$`)
	// organizationPattern is ETSI EN 319 412-1 §5.1.4: a kind of register, a country, a reference.
	organizationPattern = regexp.MustCompile(`^([A-Z]{3}|[A-Z]{2}:)[A-Z]{2}-.+$`)
)

// attributes reads a name's attributes by type, with their string tags.
func attributes(raw []byte) (map[string][]asn1.RawValue, error) {
	var sequence []asn1.RawValue
	if err := unmarshal(raw, &sequence); err != nil {
		return nil, errors.New("malformed name")
	}
	out := map[string][]asn1.RawValue{}
	for _, set := range sequence {
		if set.Tag != asn1.TagSet || len(set.Bytes) == 0 {
			return nil, errors.New("malformed relative name")
		}
		rest := set.Bytes
		for len(rest) > 0 {
			var attribute struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &attribute); err != nil {
				return nil, errors.New("malformed attribute")
			}
			out[attribute.Type.String()] = append(out[attribute.Type.String()], attribute.Value)
		}
	}
	return out, nil
}

// names holds the subject against its rules.
func (l *lint) names(subject []byte) {
	names, err := attributes(subject)
	if err != nil {
		l.report("subject", "the subject cannot be read: %v", err)
		return
	}
	l.name = names
	code := ""
	switch country := names[typeCountry]; {
	case len(country) != 1:
		l.report("subject.country", "there are %d countryName attributes", len(country))
	case !countryPattern.Match(country[0].Bytes):
		l.report("subject.country.code", "countryName is %q", country[0].Bytes)
	case country[0].Tag != asn1.TagPrintableString:
		l.report("subject.country.encoding", "countryName is not a PrintableString")
	default:
		code = string(country[0].Bytes)
	}
	switch state := names[typeState]; {
	case len(state) > 1:
		l.report("subject.state", "there are %d stateOrProvinceName attributes", len(state))
	case len(state) == 1 && (!statePattern.Match(state[0].Bytes) || code != "" && !strings.HasPrefix(string(state[0].Bytes), code+"-")):
		l.report("subject.state.code", "stateOrProvinceName is %q, no ISO 3166-2 code of the country", state[0].Bytes)
	case len(state) == 0:
		l.report("aamva.state", "stateOrProvinceName is missing")
	}
	if common := names[typeCommonName]; len(common) != 1 || len(common[0].Bytes) == 0 {
		l.report("subject.common-name", "commonName is missing, empty or there twice")
	}
	l.strings(names)
}

// strings holds the attributes' string types against the rules, once for each rule.
func (l *lint) strings(names map[string][]asn1.RawValue) {
	serial, encoding, characters := false, false, false
	for kind, values := range names {
		for _, v := range values {
			switch {
			case kind == typeCountry:
			case kind == typeEmailAddress || kind == typeDomainComponent:
				encoding = encoding || v.Tag != asn1.TagIA5String // RFC 5280 Appendix A.1
			case kind == typeSerialNumber && v.Tag != asn1.TagPrintableString:
				serial = true
			case v.Tag == asn1.TagPrintableString:
				characters = characters || strings.IndexFunc(string(v.Bytes), notPrintable) >= 0
			case v.Tag == asn1.TagUTF8String:
				characters = characters || !utf8.Valid(v.Bytes)
			default:
				encoding = true
			}
		}
	}
	if serial {
		l.report("subject.serial-number", "the attribute serialNumber is not a PrintableString")
	}
	if encoding {
		l.report("subject.encoding", "an attribute has another string type")
	}
	if characters {
		l.report("subject.characters", "an attribute has characters that its string type does not have")
	}
}

// notPrintable tells the characters that PrintableString does not have.
func notPrintable(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r))
}
