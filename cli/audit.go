package cli

import (
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
too. With --proof a proof of "audit prove" is checked instead; no copy is needed, and
--checkpoint demands that the proof is about that checkpoint.

Exit status 0 when the log is sound, 1 when it is not.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		var key keyFlags
		key.declare(flags)
		var kept list
		flags.Var(&kept, "checkpoint", "`FILE` with a checkpoint that was kept elsewhere; may be repeated")
		proof := flags.String("proof", "", "check this `FILE` with a proof instead of a log")
		asJSON := flags.Bool("json", false, "print the report as JSON")
		return func(s *session, args []string) error {
			vkey, err := key.key(s)
			if err != nil {
				return err
			}
			var notes [][]byte
			for _, file := range kept {
				data, err := s.readFile(file, "--checkpoint")
				if err != nil {
					return err
				}
				notes = append(notes, data)
			}
			if *proof != "" {
				if err := none(args); err != nil {
					return err
				}
				return s.verifyProof(*proof, vkey, notes, *asJSON)
			}
			path, err := one(args, "the copy of signer.db")
			if err != nil {
				return err
			}
			return s.verifyLog(path, vkey, notes, *asJSON)
		}
	},
}

func (s *session) verifyLog(path, vkey string, kept [][]byte, asJSON bool) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("audit verify: %w", plainPathError(path, err))
	}
	report, err := audit.Verify(path, vkey, kept...)
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
	summary: "Prove what is in the log to somebody who has only the public key",
	help: `Prints a proof as JSON, under the newest checkpoint of the copy: with --credential or
--index that entries are in the log, with --checkpoint that nothing under a checkpoint
that was kept elsewhere was changed, moved or dropped since. Both may be asked for at
once. "chancery audit verify --proof" checks it.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		var key keyFlags
		key.declare(flags)
		credential := flags.String("credential", "", "prove the entries of this credential `ID`")
		index := flags.Int64("index", -1, "prove the entry with this `NUMBER`, from 0")
		kept := flags.String("checkpoint", "", "prove that the log goes on from the checkpoint in `FILE`")
		return func(s *session, args []string) error {
			path, err := one(args, "the copy of signer.db")
			if err != nil {
				return err
			}
			vkey, err := key.key(s)
			if err != nil {
				return err
			}
			var wanted audit.Wanted
			switch {
			case *credential != "" && *index >= 0:
				return usage("--credential and --index exclude each other")
			case *credential != "":
				wanted.Match = func(_ int64, e audit.Entry) bool { return e.Credential == *credential }
			case *index >= 0:
				wanted.Match = func(i int64, _ audit.Entry) bool { return i == *index }
			case *kept == "":
				return usage("audit prove: give --credential, --index or --checkpoint")
			}
			if *kept != "" {
				if wanted.Kept, err = s.readFile(*kept, "--checkpoint"); err != nil {
					return err
				}
			}
			proof, err := audit.Prove(path, vkey, wanted)
			if err != nil {
				return fmt.Errorf("audit prove: %w", err)
			}
			return printJSON(s.Stdout, proof)
		}
	},
}

// verifyProof checks a proof, and that its older checkpoint is the one in kept.
func (s *session) verifyProof(path, vkey string, kept [][]byte, asJSON bool) error {
	data, err := s.readFile(path, "--proof")
	if err != nil {
		return err
	}
	proof, err := audit.ParseProof(data)
	if err != nil {
		return fmt.Errorf("--proof: %s: %w", path, err)
	}
	proven, err := audit.VerifyProof(proof, vkey, kept...)
	if err != nil {
		fmt.Fprintln(s.Stdout, fill("NOT PROVEN: "+printable(err.Error()), "  ", columns))
		return errFailed
	}
	if asJSON {
		return printJSON(s.Stdout, proven)
	}
	table(s.Stdout, "  ", [][2]string{
		{"Log", proven.Checkpoint.Origin},
		{"Checkpoint", fmt.Sprintf("%d entries, root %s", proven.Checkpoint.Size, proven.Checkpoint.Root)},
	})
	for i, e := range proven.Entries {
		fmt.Fprintf(s.Stdout, "  Entry %d, %s, is in the log:\n    %s\n", proof.Entries[i].Index, printable(string(e.Kind)), printable(proof.Entries[i].Leaf))
	}
	if proven.Kept != nil {
		fmt.Fprintf(s.Stdout, "  The %d entries under the kept checkpoint, root %s, stand unchanged at its beginning\n", proven.Kept.Size, proven.Kept.Root)
	}
	fmt.Fprintln(s.Stdout, "\n  PROVEN")
	return nil
}

var auditExport = command{
	name: "audit export", args: "signer.db",
	summary: "Print the log's entries, one JSON object a line, exactly as they were hashed",
	help: `With --checkpoint prints the newest signed checkpoint instead: kept off the host, it is
what "chancery audit verify --checkpoint" compares with. Nothing is checked here.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		checkpoint := flags.Bool("checkpoint", false, "print the newest checkpoint instead of the entries")
		return func(s *session, args []string) error {
			path, err := one(args, "the copy of signer.db")
			if err != nil {
				return err
			}
			if !*checkpoint {
				err = audit.Export(path, s.Stdout)
			} else if signed, failed := audit.NewestCheckpoint(path); failed != nil {
				err = failed
			} else {
				_, err = s.Stdout.Write(signed)
			}
			if err != nil {
				return fmt.Errorf("audit export: %w", err)
			}
			return nil
		}
	},
}
