package cli

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// commands is the table, in the order of the help.
func commands() []command {
	return []command{
		offerCreate, offerList, offerShow, offerCancel,
		deferredList, deferredApprove, deferredRefuse, eventsList, eventsExplain, status, doctor,
		walletAccept, walletResume, walletRefresh, walletAttester, verifyCommand,
		auditVerify, auditProve, auditExport,
		lintCert, lintCRL, lintCSR, lintRules,
		ceremonyCommand,
		{name: "version", summary: "Print the version", set: func(*flag.FlagSet) func(*session, []string) error {
			return func(s *session, args []string) error {
				fmt.Fprintln(s.Stdout, "chancery", s.Version)
				return none(args)
			}
		}},
	}
}

// groups heads the overview's parts by the first command of each.
var groups = map[string]string{
	"offer create":  "An operator, over the admin API",
	"wallet accept": "A wallet's or a verifier's view",
	"audit verify":  "An auditor, offline on a copy of signer.db",
	"lint cert":     "Certificates",
	"ceremony":      "On the appliance's host",
	"version":       "The rest",
}

func (s *session) overview(w io.Writer) {
	fmt.Fprintln(w, "chancery: offers, ceremonies, audit, and an independent wallet and verifier")
	fmt.Fprintln(w, "\nUsage: chancery COMMAND [FLAGS] [ARGUMENTS]")
	for _, c := range commands() {
		if head := groups[c.name]; head != "" {
			fmt.Fprintf(w, "\n%s\n", head)
		}
		fmt.Fprintf(w, "  %-17s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(w, "  %-17s %s\n", "help COMMAND", "Say more about a command")
}

func (s *session) help(args []string) error {
	if len(args) == 0 {
		s.overview(s.Stdout)
		return nil
	}
	c, rest, err := find(args)
	if err != nil {
		for _, other := range commands() {
			if strings.HasPrefix(other.name, args[0]+" ") && len(args) == 1 {
				s.commandHelp(s.Stdout, &other)
				fmt.Fprintln(s.Stdout)
				err = nil
			}
		}
		return err
	}
	if err := none(rest); err != nil {
		return err
	}
	s.commandHelp(s.Stdout, c)
	return nil
}

func (s *session) commandHelp(w io.Writer, c *command) {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.set(flags)
	line := "Usage: chancery " + c.name
	count := 0
	flags.VisitAll(func(*flag.Flag) { count++ })
	if count > 0 {
		line += " [FLAGS]"
	}
	if c.args != "" {
		line += " " + c.args
	}
	fmt.Fprintf(w, "%s\n\n", line)
	fmt.Fprintln(w, fill(c.summary+".", "", 80))
	if c.help != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.help))
	}
	if count > 0 {
		fmt.Fprintln(w, "\nFlags:")
	}
	flags.VisitAll(func(f *flag.Flag) {
		name, text := flag.UnquoteUsage(f)
		head := "  --" + f.Name
		if name != "" {
			head += " " + name
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "-1" {
			text += " (default " + f.DefValue + ")"
		}
		if len(head) > 23 {
			fmt.Fprintln(w, head)
			head = ""
		}
		fmt.Fprintf(w, "%-24s%s\n", head, strings.TrimPrefix(fill(text, strings.Repeat(" ", 24), 96), strings.Repeat(" ", 24)))
	})
}
