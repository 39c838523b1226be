package store

import (
	"context"
	"errors"
	"slices"

	"chancery/appliance/database"

	"pgregory.net/rapid"
)

// all tells whether the wallet has told an event of every configuration that was
// issued; "" stands for any event.
func (o *modelOffer) all(event string) bool {
	for _, i := range o.issues {
		if event == "" && len(i.notified) == 0 || event != "" && !i.notified[event] {
			return false
		}
	}
	return true
}

func (m *model) repeat(t *rapid.T) {
	o := m.pick(t)
	g := m.grantOf(t, o)
	if g == nil {
		return
	}
	defer g.Release()
	id := rapid.SampledFrom(o.Configurations).Draw(t, "configuration")
	r, err := g.Repeat(context.Background(), id)
	i := o.issues[id]
	switch {
	case i == nil || o.open[id] || len(i.notified) > 0 || !o.kept || !m.clock.Now().Before(o.due()):
		want(t, "repeat", err, ErrNotFound)
		return
	case i.repeats == MaxRepeats:
		want(t, "repeat", err, ErrRepeated)
		return
	}
	want(t, "repeat", err, nil)
	if r.KeysHash != hashOf(id) || r.ProofsHash != hashOf("proofs") || len(r.Credentials) != len(i.credentials) {
		t.Fatalf("%+v", r)
	}
	for n, c := range r.Credentials {
		if c.ID != i.credentials[n].ID {
			t.Fatal("other credentials, or in another order")
		}
	}
	for range rapid.SampledFrom([]int{1, 1, MaxRepeats - i.repeats}).Draw(t, "times") {
		notification, err := g.Reissue(context.Background(), r, i.credentials)
		want(t, "reissue", err, nil)
		if notification != i.notification {
			t.Fatal("another notification_id")
		}
		i.repeats++
		o.credentials += len(i.credentials)
	}
	if i.repeats == MaxRepeats {
		_, err := g.Reissue(context.Background(), r, i.credentials)
		want(t, "reissue", err, ErrRepeated)
		for range i.credentials {
			o.events = append(o.events, "credential.withheld")
		}
	}
}

func (m *model) deferOne(t *rapid.T) {
	o := m.pick(t)
	g := m.grantOf(t, o)
	if g == nil {
		return
	}
	defer g.Release()
	id, keys := rapid.SampledFrom(o.Configurations).Draw(t, "configuration"), ""
	again := g.Deferring(id)
	if keys = id; again && rapid.Bool().Draw(t, "other keys") {
		keys = "other"
	}
	transaction, err := g.Defer(context.Background(), id, Deferred{Holders: []byte("keys of " + id), KeysHash: hashOf(keys), ProofsHash: hashOf("proofs"), Interval: testWindow})
	switch {
	case !o.open[id]:
		want(t, "defer", err, ErrNotGranted)
	case keys != id:
		want(t, "defer for other keys", err, ErrKeys)
	case again:
		want(t, "defer again", err, nil)
		o.deferrals[id].transaction = transaction
	default:
		want(t, "defer", err, nil)
		var uuid []byte
		if err := m.db.Read(context.Background(), func(r *database.Reader) error {
			_, err := r.Row("SELECT uuid FROM deferred ORDER BY id DESC LIMIT 1", nil, []any{&uuid})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		o.deferrals[id] = &modelDeferral{id: formatUUID(uuid), transaction: transaction}
		o.events = append(o.events, "deferred.requested")
	}
}

func (m *model) decide(t *rapid.T) {
	o := m.pick(t)
	if len(o.deferrals) == 0 {
		t.Skip("nothing deferred")
	}
	var ids []string
	for _, id := range o.Configurations {
		if o.deferrals[id] != nil {
			ids = append(ids, id)
		}
	}
	id := rapid.SampledFrom(ids).Draw(t, "configuration")
	d, approve := o.deferrals[id], rapid.Bool().Draw(t, "approve")
	err := m.DecideDeferred(context.Background(), d.id, approve, "a reason", "registrar")
	switch {
	case d.state != DeferredPending || o.state != Redeemed || !m.clock.Now().Before(o.due()):
		want(t, "decide", err, ErrState)
	case approve:
		want(t, "approve", err, nil)
		d.state, o.events = DeferredApproved, append(o.events, "deferred.approved")
	default:
		want(t, "refuse", err, nil)
		d.state, o.events = DeferredRefused, append(o.events, "deferred.refused")
		delete(o.open, id)
		switch {
		case len(o.open) > 0:
		case o.credentials == 0:
			o.become(Failed)
			o.shred()
		default:
			o.become(Issued)
			if o.refresh == "" {
				o.shred()
			}
		}
	}
}

func (m *model) poll(t *rapid.T) {
	o := m.pick(t)
	g := m.grantOf(t, o)
	if g == nil {
		return
	}
	defer g.Release()
	for _, id := range o.Configurations {
		d := o.deferrals[id]
		if d == nil || d.transaction == "" {
			continue
		}
		tr, err := g.Transaction(context.Background(), d.transaction)
		want(t, "poll", err, nil)
		if tr.Configuration != id || tr.State != d.state || (tr.State == DeferredApproved) != (string(tr.Holders) == "keys of "+id) || tr.Interval != testWindow {
			t.Fatalf("%+v, want %s", tr, d.state)
		}
		batch := batchOf(t, id)
		notification, err := g.Complete(context.Background(), tr, batch)
		if d.state != DeferredApproved || !o.open[id] {
			want(t, "complete", err, ErrNotGranted)
			continue
		}
		want(t, "complete", err, nil)
		used := d.transaction
		d.state, d.transaction = DeferredIssued, ""
		m.issued(o, id, notification, batch)
		if _, err := g.Transaction(context.Background(), used); !errors.Is(err, ErrNotFound) {
			t.Fatalf("a used transaction_id: %v", err)
		}
		return
	}
}

func (m *model) notify(t *rapid.T) {
	o := m.pick(t)
	if o.hadToken == "" {
		t.Skip("no token yet")
	}
	g, err := m.NotificationGrant(context.Background(), o.hadToken)
	if now := m.clock.Now(); o.token == "" || !now.Before(o.tokenEnds.Add(NotificationGrace)) {
		want(t, "notification grant", err, ErrToken)
		return
	}
	want(t, "notification grant", err, nil)
	defer g.Release()
	if g.Expired != !m.clock.Now().Before(o.tokenEnds) {
		t.Fatalf("expired: %t", g.Expired)
	}
	id := rapid.SampledFrom(o.Configurations).Draw(t, "configuration")
	event := rapid.SampledFrom([]string{CredentialAccepted, CredentialAccepted, CredentialFailure, CredentialDeleted}).Draw(t, "event")
	i := o.issues[id]
	if i == nil {
		want(t, "notify", m.Notify(context.Background(), g, opaque(g.id, secret{}), event), ErrNotFound)
		return
	}
	for range 2 { // the second changes nothing
		want(t, "notify", m.Notify(context.Background(), g, i.notification, event), nil)
	}
	if i.notified[event] {
		return
	}
	i.notified[event] = true
	o.notifications++
	o.follow(event)
}

// follow is what a notification means.
func (o *modelOffer) follow(event string) {
	conclude := func(s State) {
		o.become(s)
		clear(o.open)
		if o.refresh == "" {
			o.shred()
		}
	}
	switch {
	case event == CredentialFailure:
		if slices.Contains([]State{Redeemed, Issued, Accepted}, o.state) {
			conclude(Failed)
		}
		return
	case event == CredentialDeleted:
		o.events = append(o.events, "credential.deleted")
	case o.state == Issued && o.all(CredentialAccepted):
		conclude(Accepted)
		return
	}
	if o.state == Issued && o.refresh == "" && o.all("") {
		o.shred()
	}
}

// checkDeferred compares the operators' list, after what was due has ended.
func (m *model) checkDeferred(t *rapid.T) {
	var got []DeferredRequest
	for cursor, more := "", true; more; more = cursor != "" {
		page, next, err := m.ListDeferred(context.Background(), nil, 2, cursor)
		if err != nil {
			t.Fatal(err)
		}
		got, cursor = append(got, page...), next
	}
	states := map[string]DeferredState{}
	for _, o := range m.offers {
		for _, d := range o.deferrals {
			states[d.id] = d.state
		}
	}
	for _, d := range got {
		if s, known := states[d.ID]; known && s != d.State {
			t.Fatalf("%s is %s, want %s", d.ID, d.State, s)
		}
		delete(states, d.ID)
	}
	if len(states) > 0 {
		t.Fatalf("not listed: %v", states)
	}
}
