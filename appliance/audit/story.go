package audit

// story follows what the entries tell: an outcome belongs to an intent and names
// what that names, and the events of each source come without gaps.
type story struct {
	report *Report
	open   map[int64]named   // intents without outcome, by index
	last   map[string]uint64 // the last event of each source
}

// named is what an intent and its outcome name alike.
type named struct{ key, credential, hash string }

func newStory(report *Report) *story {
	return &story{report: report, open: map[int64]named{}, last: map[string]uint64{}}
}

// take goes on with the next entry.
func (s *story) take(index int64, leaf []byte) {
	e, err := ParseEntry(leaf)
	if err != nil {
		s.report.problem("entry %d: %v", index, err)
		return
	}
	if (e.Kind == KindLogCreated) != (index == 0) || index == 0 && e.Subject != s.report.Origin {
		s.report.problem("entry %d: the log of %q is made by its first entry and by no other", index, s.report.Origin)
	}
	names := named{e.Key, e.Credential, e.Hash}
	switch e.Kind {
	case KindIntent:
		s.open[index] = names
		s.report.Signatures++
	case KindMade, KindFailed, KindAbandoned:
		s.outcome(index, e.Intent, names)
	}
	if e.Source == "" {
		return
	}
	if e.Kind.OfSigner() {
		s.report.problem("entry %d: an event of %q has the signer's own kind %s", index, e.Source, e.Kind)
	}
	if e.Seq != s.last[e.Source]+1 {
		s.report.problem("entry %d: event %d of %q follows %d", index, e.Seq, e.Source, s.last[e.Source])
	}
	s.last[e.Source] = e.Seq
}

func (s *story) outcome(index int64, intent *int64, names named) {
	if intent == nil {
		s.report.problem("entry %d is an outcome that names no intent", index)
		return
	}
	intended, open := s.open[*intent]
	switch {
	case !open:
		s.report.problem("entry %d is the outcome of entry %d, which is no open intent", index, *intent)
	case intended != names:
		s.report.problem("entry %d is the outcome of entry %d, but names another key, credential or hash", index, *intent)
	}
	delete(s.open, *intent)
}
