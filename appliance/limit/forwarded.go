package limit

import (
	"net/netip"
	"strings"
)

// splitList returns the entries of an X-Forwarded-For line.
func splitList(line string) ([]string, bool) {
	var nodes []string
	for entry := range strings.SplitSeq(line, ",") {
		if entry = strings.Trim(entry, " \t"); entry != "" {
			nodes = append(nodes, entry)
		}
	}
	return nodes, true
}

// splitForwarded returns the "for" of each element of a Forwarded line (RFC 7239
// §4), "" where an element has none. A line that breaks the grammar anywhere is
// not read at all: a client may have left a quote open in front of what the
// proxy appended.
func splitForwarded(line string) ([]string, bool) {
	var nodes []string
	s := scanner{line}
	for {
		node, pairs, ok := s.element()
		if !ok {
			return nil, false
		}
		if pairs > 0 {
			nodes = append(nodes, node)
		}
		if s.rest == "" {
			return nodes, true
		}
		if !s.take(',') {
			return nil, false
		}
	}
}

// scanner reads a Forwarded line from left to right.
type scanner struct{ rest string }

// element reads pairs up to a comma or the end.
func (s *scanner) element() (node string, pairs int, ok bool) {
	named := false
	for {
		s.space()
		if s.rest != "" && s.rest[0] != ',' && s.rest[0] != ';' {
			name := s.token()
			if name == "" || !s.take('=') {
				return "", 0, false
			}
			value, ok := s.value()
			if !ok {
				return "", 0, false
			}
			if strings.EqualFold(name, "for") {
				if named {
					return "", 0, false // at most once (§4)
				}
				named, node = true, value
			}
			pairs++
			s.space()
		}
		if !s.take(';') {
			return node, pairs, true
		}
	}
}

// value reads a token or a quoted string (RFC 9110 §5.6.4).
func (s *scanner) value() (string, bool) {
	if !s.take('"') {
		v := s.token()
		return v, v != ""
	}
	var b strings.Builder
	for s.rest != "" {
		c := s.rest[0]
		s.rest = s.rest[1:]
		switch c {
		case '"':
			return b.String(), true
		case '\\':
			if s.rest == "" {
				return "", false
			}
			c, s.rest = s.rest[0], s.rest[1:]
		}
		b.WriteByte(c)
	}
	return "", false
}

func (s *scanner) token() string {
	i := 0
	for i < len(s.rest) && isToken(s.rest[i]) {
		i++
	}
	t := s.rest[:i]
	s.rest = s.rest[i:]
	return t
}

func (s *scanner) take(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) space() { s.rest = strings.TrimLeft(s.rest, " \t") }

// isToken tells the characters of a token (RFC 9110 §5.6.2).
func isToken(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// parseNode reads an address with or without a port. RFC 7239 §6 has IPv6 in
// brackets, X-Forwarded-For has it without as well. "unknown" and obfuscated identifiers
// are no addresses.
func parseNode(s string) (netip.Addr, bool) {
	host, port := s, ""
	bracket := strings.HasPrefix(s, "[")
	if bracket {
		var closed bool
		if host, port, closed = strings.Cut(s[1:], "]"); !closed {
			return netip.Addr{}, false
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 && i == strings.LastIndexByte(s, ':') {
		host, port = s[:i], s[i:]
	}
	address, err := netip.ParseAddr(host)
	if err != nil || address.Zone() != "" || bracket && !address.Is6() || !validPort(port) {
		return netip.Addr{}, false
	}
	return address.Unmap(), true
}

// validPort tells whether s is nothing, or a colon and a port or an obfuscated
// one (RFC 7239 §6).
func validPort(s string) bool {
	if s == "" {
		return true
	}
	digits := len(s) >= 2 && len(s) <= 6 && s[0] == ':'
	for i := 1; digits && i < len(s); i++ {
		digits = s[i] >= '0' && s[i] <= '9'
	}
	if digits {
		return true
	}
	name, obfuscated := strings.CutPrefix(s, ":_")
	return obfuscated && name != "" && strings.IndexFunc(name, func(r rune) bool {
		return r > 0x7f || !isAlphanumeric(byte(r)) && !strings.ContainsRune("._-", r)
	}) < 0
}
