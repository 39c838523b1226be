package oid4vci

import (
	"slices"
	"strings"
)

// displays copies metadata, each display array in it changed by change.
func displays(v any, change func(display []any) []any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			if display, ok := member.([]any); ok && name == "display" {
				out[name] = change(display)
			} else {
				out[name] = displays(member, change)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = displays(element, change)
		}
		return out
	}
	return v
}

// locale returns a display entry's language tag, "" when it has none.
func locale(entry any) string {
	members, _ := entry.(map[string]any)
	tag, _ := members["locale"].(string)
	return tag
}

// languages returns the tags of all languages in metadata, in order.
func languages(metadata map[string]any) (tags []string) {
	displays(metadata, func(display []any) []any {
		for _, entry := range display {
			if tag := locale(entry); tag != "" {
				tags = append(tags, tag)
			}
		}
		return display
	})
	slices.Sort(tags)
	return slices.Compact(tags)
}

// inLanguage returns metadata with each display array cut to the entries in a
// language. An array that has none keeps them all: people rather read another
// language than nothing.
func inLanguage(metadata map[string]any, tag string) any {
	return displays(metadata, func(display []any) []any {
		tags := make([]string, len(display))
		for i, entry := range display {
			tags[i] = strings.ToLower(locale(entry))
		}
		best := lookUpLanguage(strings.ToLower(tag), tags)
		if best == "" {
			return display
		}
		return []any{display[slices.Index(tags, best)]}
	})
}

// lookUpLanguage returns the tag that fits a language range best, "" when none
// does: the range itself or what it is a special case of (RFC 4647 §3.4), else
// the first special case of it (§3.3.1). All are in lower case.
func lookUpLanguage(wanted string, tags []string) string {
	for prefix := wanted; prefix != ""; {
		if slices.Contains(tags, prefix) {
			return prefix
		}
		end := max(strings.LastIndexByte(prefix, '-'), 0)
		if end >= 2 && prefix[end-2] == '-' { // a single letter only introduces what follows it
			end -= 2
		}
		prefix = prefix[:end]
	}
	for _, tag := range tags {
		if strings.HasPrefix(tag, wanted+"-") {
			return tag
		}
	}
	return ""
}
