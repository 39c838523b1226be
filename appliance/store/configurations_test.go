package store

import (
	"context"
	"strings"
	"testing"
)

// TestConfigurations holds that the log learns of each configuration that is
// new, changed or gone, once, in the order of their ids, also over a restart.
func TestConfigurations(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	seen := int64(0)
	for _, step := range []struct {
		versions map[string]string
		want     string
	}{
		{map[string]string{"pid": "1", "mdl": "1"}, "configuration.added mdl 1, configuration.added pid 1"},
		{map[string]string{"pid": "1", "mdl": "1"}, ""},
		{map[string]string{"pid": "2", "permit": "1"}, "configuration.added permit 1, configuration.changed pid 2, configuration.removed mdl "},
		{map[string]string{"pid": "1", "permit": "1", "mdl": "1"}, "configuration.added mdl 1, configuration.changed pid 1"},
		{nil, "configuration.removed mdl , configuration.removed permit , configuration.removed pid "},
	} {
		f.restart()
		if err := f.SetConfigurations(ctx, step.versions); err != nil {
			t.Fatal(err)
		}
		f.drain()
		var got []string
		for _, e := range f.log.events[f.outbox.source][seen:] {
			got = append(got, e.Kind+" "+e.Subject+" "+e.Detail["version"])
			seen = e.Seq
		}
		if text := strings.Join(got, ", "); text != step.want {
			t.Errorf("%v: %s, want %s", step.versions, text, step.want)
		}
	}
	f.tamper("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
	if err := f.SetConfigurations(ctx, map[string]string{"pid": "1"}); err == nil || f.ask("SELECT count(*) FROM configurations") != 0 {
		t.Errorf("a configuration was noted without its event: %v", err)
	}
}
