package store

import (
	"context"
	"maps"
	"slices"

	"chancery/appliance/database"
)

// SetConfigurations takes note of the credential configurations in force, id →
// version, and records an event for each that is new, changed or gone since the
// last time: configuration.added, configuration.changed, configuration.removed.
func (s *Store) SetConfigurations(ctx context.Context, versions map[string]string) error {
	now := s.now()
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		had := map[string]string{}
		err := tx.Rows("SELECT id, version FROM configurations", nil, func(scan func(...any) error) error {
			var id, version string
			err := scan(&id, &version)
			had[id] = version
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range slices.Sorted(maps.Keys(versions)) {
			before, known := had[id]
			delete(had, id)
			kind := "configuration.changed"
			switch {
			case !known:
				kind = "configuration.added"
			case before == versions[id]:
				continue
			}
			if _, err := tx.Exec("INSERT INTO configurations (id, version) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET version = excluded.version", id, versions[id]); err != nil {
				return err
			}
			if err := s.record(tx, Event{Time: now, Kind: kind, Actor: "appliance", Subject: id, Detail: map[string]string{"version": versions[id]}}); err != nil {
				return err
			}
		}
		for _, id := range slices.Sorted(maps.Keys(had)) {
			if _, err := tx.Exec("DELETE FROM configurations WHERE id = ?", id); err != nil {
				return err
			}
			if err := s.record(tx, Event{Time: now, Kind: "configuration.removed", Actor: "appliance", Subject: id}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.outbox.wake()
	}
	return err
}
