package ceremony

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
)

// Deps are what a ceremony works on. The token has its existing keys loaded.
type Deps struct {
	Token    *hsm.Token
	Log      *audit.Log
	Registry *registry.Registry
	Now      time.Time
	// Issuer is the appliance's Credential Issuer Identifier; the plan is for it.
	Issuer string
	// Spool is the folder for the transcript.
	Spool string
}

// Result is what was made.
type Result struct {
	// Text is the printable transcript.
	Text string
	// Keys are the new labels.
	Keys []string
	// Transcript and Outputs are the files that were written.
	Transcript string
	Outputs    []string
}

// act is a ceremony under way.
type act struct {
	Deps
	plan     *Plan
	planHash string
	text     string // the transcript's file
	// made holds the new keys' records in order, refs what to destroy on failure.
	made  []registry.Key
	refs  []hsm.KeyRef
	crls  []registry.CRL
	files map[string][]byte // name → content
	open  map[string]*os.File
}

// Run carries out the plan in planPath. An error without a result says that
// nothing was recorded and that the new keys were destroyed; if that failed too
// it names them. A result with an error says that the keys are made and recorded,
// but that a checkpoint or an output is missing.
func Run(ctx context.Context, planPath string, deps Deps) (*Result, error) {
	data, err := os.ReadFile(planPath)
	if err != nil {
		return nil, err
	}
	plan, err := ParsePlan(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", planPath, err)
	}
	if plan.Issuer != deps.Issuer {
		return nil, fmt.Errorf("%s: issuer: %q is not the appliance's identifier %q: certificates and CRL would point elsewhere", planPath, plan.Issuer, deps.Issuer)
	}
	if !filepath.IsAbs(plan.Output) {
		plan.Output = filepath.Join(filepath.Dir(planPath), plan.Output)
	}
	labels, err := deps.Token.Labels()
	if err != nil {
		return nil, err
	}
	if err := plan.against(deps.Registry, labels); err != nil {
		return nil, fmt.Errorf("%s: %w", planPath, err)
	}
	sum := sha256.Sum256(data)
	a := &act{Deps: deps, plan: plan, planHash: hex.EncodeToString(sum[:]), text: transcriptName(deps.Spool, deps.Now), files: map[string][]byte{}, open: map[string]*os.File{}}
	text, err := a.run(ctx)
	if err != nil {
		return nil, errors.Join(err, a.undo(ctx))
	}
	return a.finish(ctx, text)
}

// transcriptName is the transcript's file in the spool: the time, and a number
// for a second ceremony of the same second.
func transcriptName(spool string, now time.Time) string {
	name := filepath.Join(spool, "ceremony-"+now.UTC().Format("20060102T150405Z"))
	for n := 1; ; n++ {
		path := name + ".txt"
		if n > 1 {
			path = fmt.Sprintf("%s-%d.txt", name, n)
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) || n == 1000 {
			return path // which is made only if it is not there
		}
	}
}

// run makes everything and records it; until then all can be undone. It returns
// the transcript.
func (a *act) run(ctx context.Context) (string, error) {
	if err := a.rehearse(); err != nil {
		return "", err
	}
	if err := a.reserve(); err != nil {
		return "", err
	}
	for _, k := range a.plan.Keys {
		record, err := a.Token.Generate(ctx, hsm.KeySpec{Label: k.Label, Algorithm: k.Algorithm})
		if err != nil {
			return "", err
		}
		a.refs = append(a.refs, record.KeyRef)
		made, err := a.complete(k, record)
		if err != nil {
			return "", fmt.Errorf("key %q: %w", k.Label, err)
		}
		a.made = append(a.made, made)
	}
	text, err := a.transcript()
	if err != nil {
		return "", err
	}
	if err = a.record(ctx, text); errors.Is(err, audit.ErrFailed) {
		a.refs = nil // they may be recorded: then the signer wants them
		err = fmt.Errorf("whether the new keys are recorded is not known: look with \"chancery-signer keys\"; those that are not there are to be destroyed with the vendor's tool: %w", err)
	}
	return text, err
}

// finish gives out what was recorded. One failure does not keep the rest back.
func (a *act) finish(ctx context.Context, text string) (*Result, error) {
	result := &Result{Text: text, Transcript: a.text}
	for _, k := range a.made {
		result.Keys = append(result.Keys, k.Label)
		a.Registry.Keys[k.Label] = k
	}
	a.files[a.text] = []byte(text)
	var failed error
	result.Outputs, failed = a.write()
	if err := a.checkpoint(ctx); err != nil {
		failed = errors.Join(failed, fmt.Errorf("no checkpoint: %w: the signer makes one when it starts", err))
	}
	if failed != nil {
		return result, fmt.Errorf("the keys are made and recorded, but: %w: \"chancery-signer keys\" shows what is public of them", failed)
	}
	return result, nil
}

// outputs lists the files that the plan gives.
func (a *act) outputs() []string {
	var names []string
	for _, k := range a.plan.Keys {
		switch k.Purpose {
		case wire.PurposeIACA:
			names = append(names, k.Label+".pem", k.Label+".crl")
		case wire.PurposeDID:
			names = append(names, k.Label+".did.json")
		case wire.PurposeCheckpoint:
			names = append(names, "checkpoint.vkey")
		case wire.PurposeSealing:
		default:
			names = append(names, k.Label+".pem")
		}
	}
	return names
}

// reserve creates every output, empty, so that one that exists stops the
// ceremony before it makes anything.
func (a *act) reserve() error {
	if err := os.MkdirAll(a.plan.Output, 0o755); err != nil {
		return err
	}
	paths := []string{a.text}
	for _, name := range a.outputs() {
		paths = append(paths, filepath.Join(a.plan.Output, name))
	}
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("output %s: %w: nothing is overwritten, move it away", path, err)
		}
		a.open[path] = f
	}
	return nil
}

// undo destroys the new keys and removes the empty outputs.
func (a *act) undo(ctx context.Context) error {
	var problems []error
	for _, ref := range a.refs {
		if err := a.Token.Destroy(ctx, ref); err != nil {
			problems = append(problems, fmt.Errorf("key %q is in the token, in no log, and could not be destroyed: destroy it with the vendor's tool: %w", ref.Label, err))
		}
	}
	for path, f := range a.open {
		f.Close()
		if info, err := os.Stat(path); err == nil && info.Size() == 0 {
			os.Remove(path)
		}
	}
	return errors.Join(problems...)
}

// record appends everything in one durable write.
func (a *act) record(ctx context.Context, text string) error {
	var leaves [][]byte
	var labels []string
	for _, k := range a.made {
		leaf, err := registry.KeyEntry(k, a.Now)
		if err != nil {
			return err
		}
		leaves, labels = append(leaves, leaf), append(labels, k.Label)
	}
	for _, c := range a.crls {
		leaf, err := registry.CRLEntry(c, a.Now)
		if err != nil {
			return err
		}
		leaves = append(leaves, leaf)
	}
	sum := sha256.Sum256([]byte(text))
	leaf, err := registry.TranscriptEntry(registry.Transcript{Plan: a.planHash, Text: hex.EncodeToString(sum[:]), Keys: labels}, a.Now)
	if err != nil {
		return err
	}
	_, err = a.Log.Append(ctx, append(leaves, leaf)...)
	return err
}

// checkpoint signs the log as it is now, when there is a checkpoint key.
func (a *act) checkpoint(ctx context.Context) error {
	if _, err := a.Registry.Sole(wire.PurposeCheckpoint); err != nil {
		return nil // a later ceremony makes it; the signer does not start without
	}
	signer, err := a.Registry.NoteSigner(func(label string, text []byte) ([]byte, error) {
		return a.Token.Sign(ctx, label, text)
	})
	if err != nil {
		return err
	}
	_, err = a.Log.Checkpoint(ctx, signer)
	return err
}

// write fills the reserved outputs, each as far as it can, and syncs them.
func (a *act) write() (written []string, failed error) {
	for path, f := range a.open {
		content, has := a.files[path]
		if !has {
			content = a.files[filepath.Base(path)]
		}
		_, err := f.Write(content)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			failed = errors.Join(failed, fmt.Errorf("output %s: %w", path, err))
			continue
		}
		written = append(written, path)
	}
	slices.Sort(written)
	return written, errors.Join(failed, syncDirectory(a.plan.Output), syncDirectory(a.Spool))
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
