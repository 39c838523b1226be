package wallet

import (
	"context"
	"crypto"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"chancery/verifier"
)

// checkTrust is the verifier's check whether the issuer is trusted.
const checkTrust = "issuer trusted"

// judge verifies the credentials of one response: each bound to a key of its
// own among those that were proven, complete, and of the promised format.
func (f *flow) judge(ctx context.Context, credentials []Credential, keys []crypto.Signer) {
	assign(ctx, credentials, keys)
	for i := range credentials {
		c := &credentials[i]
		o := *f.w.Verify
		o.Fresh, o.Type, o.Now = true, c.Metadata.Type, f.w.now()
		if c.Key != nil {
			o.Holder = c.Key.Public()
		}
		report, err := verifier.Verify(ctx, []byte(c.Text), o)
		if err != nil {
			c.Problem, c.Accepted = err.Error(), false
			continue
		}
		c.Report = report
		f.accept(c)
	}
}

// assign gives each credential the key that it says it is bound to, as the order
// of the credentials need not be that of the keys. One that names a stranger's
// key gets one that is left, against which it then fails.
func assign(ctx context.Context, credentials []Credential, keys []crypto.Signer) {
	free := slices.Clone(keys)
	take := func(c *Credential, k int) {
		c.Key = free[k]
		free = slices.Delete(free, k, k+1)
	}
	for i := range credentials {
		c := &credentials[i]
		c.Key = nil
		report, err := verifier.Verify(ctx, []byte(c.Text), verifier.Options{})
		if err != nil {
			continue
		}
		if k := slices.IndexFunc(free, func(key crypto.Signer) bool { return samePublic(key.Public(), report.HolderKey) }); k >= 0 {
			take(c, k)
		}
	}
	for i := range credentials {
		if credentials[i].Key == nil && len(free) > 0 {
			take(&credentials[i], 0)
		}
	}
}

// accept decides on a verified credential.
func (f *flow) accept(c *Credential) {
	c.Accepted = true
	for _, failure := range c.Report.Failures() {
		if failure.Name != checkTrust || f.w.judgesTrust() {
			c.Accepted = false
		}
	}
	if format := string(c.Report.Format); format != c.Metadata.Format {
		c.Problem, c.Accepted = "it is "+format+", the metadata says "+c.Metadata.Format, false
	}
	var paths [][]string
	for _, claim := range c.Report.Claims {
		paths = append(paths, claim.Path)
	}
	if c.Missing = c.Metadata.Missing(paths); len(c.Missing) > 0 {
		c.Accepted = false
	}
}

// judgesTrust says that the wallet was told whom to trust as issuer.
func (w *Wallet) judgesTrust() bool { return len(w.Verify.Anchors) > 0 || len(w.Verify.IssuerKeys) > 0 }

func samePublic(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && b != nil && key.Equal(b)
}

// notify tells the issuer what became of a response's credentials: one
// notification for all, and a failure of one is a failure of all (OpenID4VCI
// 1.0 §11). A notification that fails takes nothing from the credentials.
func (f *flow) notify(ctx context.Context, credentials []Credential) {
	id := credentials[0].Notification
	if id == "" || f.w.NoNotify {
		return
	}
	event := "credential_accepted"
	if slices.ContainsFunc(credentials, func(c Credential) bool { return !c.Accepted }) {
		event = "credential_failure"
	}
	if err := f.sendEvent(ctx, id, event); err != nil {
		f.result.Unnotified = append(f.result.Unnotified, err)
	}
}

func (f *flow) sendEvent(ctx context.Context, id, event string) error {
	if f.m.NotificationEndpoint == "" {
		return wrong(StepNotification, "the issuer gave a notification_id, but there is no notification_endpoint")
	}
	body, err := json.Marshal(map[string]string{"notification_id": id, "event": event})
	if err != nil {
		return failed(StepNotification, err)
	}
	a, err := f.send(ctx, request{step: StepNotification, method: http.MethodPost, target: f.m.NotificationEndpoint,
		header: map[string]string{"Content-Type": jsonType}, body: body})
	if err != nil {
		return err
	}
	if a.status < 200 || a.status > 299 {
		return a.failure()
	}
	return nil
}

// Problems says in words what is wrong with a credential that was not accepted.
func (c Credential) Problems(trustJudged bool) []string {
	var problems []string
	if c.Problem != "" {
		problems = append(problems, c.Problem)
	}
	if c.Report != nil {
		for _, failure := range c.Report.Failures() {
			if failure.Name != checkTrust || trustJudged {
				problems = append(problems, failure.Name+": "+failure.Detail)
			}
		}
	}
	if len(c.Missing) > 0 {
		problems = append(problems, "mandatory claims are missing: "+strings.Join(c.Missing, ", "))
	}
	return problems
}
