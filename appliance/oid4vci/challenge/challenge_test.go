package challenge

import (
	"encoding/base64"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1_800_000_000, 0)

// A value is good for its lifetime, at its source alone, and can be shown again.
func TestLifetime(t *testing.T) {
	s, other := New(time.Minute), New(time.Minute)
	value := s.Make(start)
	for age, want := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false, time.Hour: false, -MaxAhead: true, -MaxAhead - 1: false, -time.Hour: false} {
		for range 2 {
			if _, ok := s.Check(value, start.Add(age)); ok != want {
				t.Errorf("%s: %t", age, ok)
			}
		}
	}
	if _, ok := other.Check(value, start); ok {
		t.Error("another source knows it")
	}
	seen := map[ID]bool{}
	for range 1000 {
		id, ok := s.Check(s.Make(start), start)
		if !ok || seen[id] {
			t.Fatal("a value is there twice, or unknown")
		}
		seen[id] = true
	}
}

// No other value passes: none of another length, none with a bit changed.
func TestForged(t *testing.T) {
	s := New(time.Minute)
	value := s.Make(start)
	raw, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(raw) != size {
		t.Fatal(err)
	}
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if _, ok := s.Check(base64.RawURLEncoding.EncodeToString(raw), start); ok {
			t.Errorf("bit %d does not matter", bit)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	for _, forged := range []string{"", value[:51], value + "A", value + "=", "\n" + value[1:], value[:len(value)-4] + "====", "+" + value[1:]} {
		if _, ok := s.Check(forged, start); ok {
			t.Errorf("%q", forged)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		if _, ok := s.Check(rapid.String().Draw(t, "value"), start); ok {
			t.Fatal("a value that nobody made passes")
		}
	})
}
