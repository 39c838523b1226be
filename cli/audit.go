package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"chancery/appliance/audit"
)

// keyFlags name the log's public key.
type keyFlags struct{ vkey, vkeyFile string }

func (f *keyFlags) declare(flags *flag.FlagSet) {
	flags.StringVar(&f.vkey, "vkey", "", "the checkpoint's public `KEY`, as the ceremony wrote it (a C2SP verifier key)")
	flags.StringVar(&f.vkeyFile, "vkey-file", "", "`FILE` with the key")
}

func (f *keyFlags) key(s *session) (string, error) {
	if f.vkeyFile == "" {
		if strings.TrimSpace(f.vkey) == "" {
			return "", usage("the log's public key is missing: give --vkey or --vkey-file (checkpoint.vkey of the ceremony)")
		}
		return strings.TrimSpace(f.vkey), nil
	}
	if f.vkey != "" {
		return "", usage("--vkey and --vkey-file exclude each other")
	}
	data, err := s.readFile(f.vkeyFile, "--vkey-file")
	return strings.TrimSpace(string(data)), err
}

var auditVerify = command{
	name: "audit verify", args: "signer.db",
	summary: "Verify a copy of the audit log, offline, with the public key alone",
	help: `Every byte of the file is accounted for, every entry is hashed again, and every
checkpoint must be signed and fit the tree. --checkpoint compares with a checkpoint
that was kept elsewhere: then a log that was cut or rewritten as a whole is noticed,
too. With --proof a proof of "audit prove" is checked instead; no copy is needed.

Exit status 0 when the log is sound, 1 when it is not.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		var key keyFlags
		key.declare(flags)
		var kept list
		flags.Var(&kept, "checkpoint", "`FILE` with a checkpoint that was kept elsewhere; may be repeated")
		proof := flags.String("proof", "", "check this `FILE` of proofs instead of a log")
		asJSON := flags.Bool("json", false, "print the report as JSON")
		return func(s *session, args []string) error {
			vkey, err := key.key(s)
			if err != nil {
				return err
			}
			if *proof != "" {
				if err := none(args); err != nil {
					return err
				}
				return s.verifyProofs(*proof, vkey, *asJSON)
			}
			path, err := one(args, "the copy of signer.db")
			if err != nil {
				return err
			}
			return s.verifyLog(path, vkey, kept, *asJSON)
		}
	},
}

func (s *session) verifyLog(path, vkey string, kept []string, asJSON bool) error {
	var notes [][]byte
	for _, file := range kept {
		data, err := s.readFile(file, "--checkpoint")
		if err != nil {
			return err
		}
		notes = append(notes, data)
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("audit verify: %w", plainPathError(path, err))
	}
	report, err := audit.Verify(path, vkey, notes...)
	if err != nil {
		return fmt.Errorf("audit verify: %w", err)
	}
	if asJSON {
		if err := printJSON(s.Stdout, report); err != nil {
			return err
		}
	} else {
		showAudit(s, report)
	}
	if !report.OK() {
		return errFailed
	}
	return nil
}

func showAudit(s *session, r *audit.Report) {
	table(s.Stdout, "  ", [][2]string{
		{"Log", r.Origin},
		{"Entries", fmt.Sprintf("%d, of which %d are under the newest checkpoint", r.Size, r.Covered)},
		{"Root", r.Root},
		{"Checkpoints", fmt.Sprintf("%d in the file fit, %d kept elsewhere fit", r.Checkpoints, r.Kept)},
		{"Signatures", fmt.Sprintf("%d intents, %d of them without an outcome", r.Signatures, r.Open)},
	})
	for _, p := range r.Problems {
		fmt.Fprintln(s.Stdout, fill("PROBLEM: "+printable(p), "  ", columns))
	}
	if r.OK() {
		fmt.Fprintln(s.Stdout, "\n  SOUND")
	} else {
		fmt.Fprintln(s.Stdout, "\n  NOT SOUND")
	}
}

var auditProve = command{
	name: "audit prove", args: "signer.db",
	summary: "Prove that entries are in the log, for somebody who has only the public key",
	help: `Prints a JSON array with each entry, its audit path and the signed checkpoint. "chancery
audit verify --proof" checks it.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		var key keyFlags
		key.declare(flags)
		credential := flags.String("credential", "", "prove the entries of this credential `ID`")
		index := flags.Int64("index", -1, "prove the entry with this number, from 0")
		return func(s *session, args []string) error {
			path, err := one(args, "the copy of signer.db")
			if err != nil {
				return err
			}
			vkey, err := key.key(s)
			if err != nil {
				return err
			}
			if (*credential == "") == (*index < 0) {
				return usage("audit prove: give one of --credential and --index")
			}
			proofs, err := audit.Prove(path, vkey, func(i int64, e audit.Entry) bool {
				return i == *index || *credential != "" && e.Credential == *credential
			})
			if err != nil {
				return fmt.Errorf("audit prove: %w", err)
			}
			return printJSON(s.Stdout, proofs)
		}
	},
}

func (s *session) verifyProofs(path, vkey string, asJSON bool) error {
	data, err := s.readFile(path, "--proof")
	if err != nil {
		return err
	}
	var proofs []audit.Proof
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&proofs); err != nil || len(proofs) == 0 {
		return fmt.Errorf("--proof: %s holds no proofs as \"audit prove\" prints them", path)
	}
	var entries []audit.Entry
	for i, p := range proofs {
		// The leaf was hashed as one line; printing may have spread it out.
		var leaf bytes.Buffer
		if err := json.Compact(&leaf, p.Leaf); err != nil {
			return fmt.Errorf("--proof: proof %d: %w", i+1, err)
		}
		p.Leaf = leaf.Bytes()
		entry, checkpoint, err := audit.VerifyProof(p, vkey)
		if err != nil {
			fmt.Fprintf(s.Stdout, "  Entry %d: NOT PROVEN: %v\n", p.Index, err)
			return errFailed
		}
		entries = append(entries, entry)
		if !asJSON {
			fmt.Fprintf(s.Stdout, "  Entry %d, %s, is in the log of %d entries under root %s\n", p.Index, entry.Kind, checkpoint.Size, checkpoint.Root)
		}
	}
	if asJSON {
		return printJSON(s.Stdout, entries)
	}
	fmt.Fprintln(s.Stdout, "\n  PROVEN")
	return nil
}

var auditExport = command{
	name: "audit export", args: "signer.db",
	summary: "Print the log's entries, one JSON object a line, exactly as they were hashed",
	set: func(*flag.FlagSet) func(*session, []string) error {
		return func(s *session, args []string) error {
			path, err := one(args, "the copy of signer.db")
			if err != nil {
				return err
			}
			if err := audit.Export(path, s.Stdout); err != nil {
				return fmt.Errorf("audit export: %w", err)
			}
			return nil
		}
	},
}
