package configuration

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// Problem is one thing wrong with an offer's claims. It never holds a value.
type Problem struct {
	// Param is the claim's dotted path in the offer's claims.
	Param string
	// Message says what was wrong and what would be right.
	Message string
}

// MaxClaims bounds the claims' JSON in bytes.
const MaxClaims = 512 << 10

// CheckClaims holds an offer's claims against the configuration and returns
// every problem found. now is needed for what is derived from dates.
func (c *Configuration) CheckClaims(claims json.RawMessage, now time.Time) []Problem {
	object, problem := decodeClaims(claims)
	if problem != nil {
		return []Problem{*problem}
	}
	return c.CheckObject(object, now)
}

// CheckObject is [Configuration.CheckClaims] for claims that [jws.Object] has
// decoded already.
func (c *Configuration) CheckObject(object map[string]any, now time.Time) []Problem {
	problems := c.sources.unknown(object, "")
	values, more := c.convertAll(object, c.births(object), now)
	problems = append(problems, more...)
	for _, v := range values {
		if v.claim.Type != TypeImage {
			continue
		}
		if problem := checkImage(v.value); problem != "" {
			problems = append(problems, Problem{v.claim.sourceName(), problem})
		}
	}
	sort.SliceStable(problems, func(i, j int) bool { return problems[i].Param < problems[j].Param })
	return problems
}

func decodeClaims(claims json.RawMessage) (map[string]any, *Problem) {
	if len(claims) > MaxClaims {
		return nil, &Problem{"claims", fmt.Sprintf("must have at most %d bytes", MaxClaims)}
	}
	if len(claims) == 0 {
		claims = []byte("{}")
	}
	object, err := jws.Object(claims)
	if err != nil {
		return nil, &Problem{"claims", "must be a JSON object without duplicate members"}
	}
	return object, nil
}

// unknown lists members that no claim reads.
func (s *source) unknown(object map[string]any, prefix string) []Problem {
	var problems []Problem
	for name, value := range object {
		below := s.below[name]
		if below == nil {
			problems = append(problems, Problem{prefix + clip(name), "is not a claim of this configuration: remove it or correct its spelling"})
			continue
		}
		if below.claim != nil {
			continue
		}
		inner, ok := value.(map[string]any)
		if !ok {
			problems = append(problems, Problem{prefix + name, "must be an object"})
			continue
		}
		problems = append(problems, below.unknown(inner, prefix+name+".")...)
	}
	return problems
}

// longestName bounds a foreign member's name in an error, in bytes.
const longestName = 64

// clip bounds a foreign member's name in an error.
func clip(name string) string {
	if len(name) <= longestName {
		return name
	}
	end := longestName
	for !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + "…"
}

// sourceName is the dotted path in the offer's claims.
func (c *Claim) sourceName() string { return strings.Join(c.source, ".") }

// converted is one claim's value in the format's own form.
type converted struct {
	claim *Claim
	value any
}

// convertAll maps, defaults and converts every claim.
func (c *Configuration) convertAll(object map[string]any, births map[string]time.Time, validFrom time.Time) ([]converted, []Problem) {
	out := make([]converted, 0, len(c.Claims))
	var problems []Problem
	for i := range c.Claims {
		claim := &c.Claims[i]
		if claim.Type == TypeAgeOver {
			if flip, ok := claim.flip(births); ok {
				out = append(out, converted{claim, !validFrom.Before(flip)})
			}
			continue
		}
		value, problem := claim.fixed, ""
		if value == nil {
			value, problem = claim.from(object, c.Format)
		}
		if problem != "" {
			problems = append(problems, Problem{claim.sourceName(), problem})
		} else if value != nil {
			out = append(out, converted{claim, value})
		}
	}
	return out, problems
}

// from converts a claim's value in the offer; nil when it has none and need not.
func (c *Claim) from(object map[string]any, format issuance.Format) (any, string) {
	given := lookUp(object, c.source)
	switch {
	case given != nil:
		return c.convert(given, format)
	case c.Required:
		return nil, "is missing: this configuration requires it"
	}
	return c.fallback, ""
}

// lookUp follows a path; nil when it ends early.
func lookUp(object map[string]any, path []string) any {
	var value any = object
	for _, step := range path {
		inner, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = inner[step]
	}
	return value
}

// births reads each birth date that attestations are derived from, once, by its
// dotted path.
func (c *Configuration) births(object map[string]any) map[string]time.Time {
	var out map[string]time.Time
	for i := range c.Claims {
		claim := &c.Claims[i]
		if _, known := out[claim.From]; known || claim.Type != TypeAgeOver {
			continue
		}
		text, _ := lookUp(object, claim.birth).(string)
		if birth, err := time.Parse(time.DateOnly, text); err == nil {
			if out == nil {
				out = map[string]time.Time{}
			}
			out[claim.From] = birth
		}
	}
	return out
}

// flip returns the day from which on an age attestation is true: on which the
// person becomes Age. It returns false when the offer has no birth date.
func (c *Claim) flip(births map[string]time.Time) (time.Time, bool) {
	birth, ok := births[c.From]
	// Whoever is born on 29 February becomes a year older on 1 March of a
	// common year, which is what AddDate gives.
	return birth.AddDate(c.Age, 0, 0), ok
}

// nextFlip returns the first day after from on which a derived attestation
// would be another; false when there is none.
func (c *Configuration) nextFlip(births map[string]time.Time, from time.Time) (time.Time, bool) {
	var next time.Time
	for i := range c.Claims {
		if c.Claims[i].Type != TypeAgeOver {
			continue
		}
		flip, ok := c.Claims[i].flip(births)
		if ok && flip.After(from) && (next.IsZero() || flip.Before(next)) {
			next = flip
		}
	}
	return next, !next.IsZero()
}

// errClaims is the error of claims that were checked and no longer fit: the
// configuration changed since the offer was made.
var errClaims = errors.New("the offer's claims do not fit the configuration any more: cancel the offer and make it again")
