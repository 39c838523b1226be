// Package cli is the chancery command: a table of subcommands, each with its
// flags, over the packages that do the work. It prints plain text without
// colours, at most about 100 columns wide, or JSON with --json.
//
// Exit status: 0 when all went well, 1 when the work failed or a check did not
// pass, 2 when the command line was wrong.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Environment is what a command sees of the world. Secrets come in through
// files and environment variables, never as flags that a process list shows.
type Environment struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// Version is the build's version.
	Version string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// command is one subcommand. set declares its flags and returns what runs it.
type command struct {
	name    string // one or two words
	args    string // positional arguments, for the usage line
	summary string
	help    string // further paragraphs
	set     func(*flag.FlagSet) func(*session, []string) error
}

// session is one run of a command.
type session struct {
	Environment
	ctx context.Context
}

// errUsage marks errors that the command line caused; they end with status 2.
var errUsage = errors.New("wrong command line")

// errFailed ends with status 1 without a message: the output has said why.
var errFailed = errors.New("failed")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w%w", fmt.Errorf(format, args...), hidden{errUsage})
}

// hidden joins an error to a message without adding words to it.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }

// Run runs one command line, without the program's name, and returns the exit status.
func Run(ctx context.Context, args []string, env Environment) int {
	if env.Getenv == nil {
		env.Getenv = os.Getenv
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	s := &session{Environment: env, ctx: ctx}
	err := s.run(args)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFailed):
		return 1
	}
	fmt.Fprintln(env.Stderr, "chancery:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

func (s *session) run(args []string) error {
	if len(args) == 0 {
		s.overview(s.Stderr)
		return errFailedUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		return s.help(args[1:])
	case "-version", "--version":
		args = []string{"version"}
	}
	c, rest, err := find(args)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	run := c.set(flags)
	positional, err := parse(flags, rest)
	if errors.Is(err, flag.ErrHelp) {
		s.commandHelp(s.Stdout, c)
		return nil
	}
	if err != nil {
		return usage("%s: %v; see \"chancery help %s\"", c.name, err, c.name)
	}
	return run(s, positional)
}

// errFailedUsage ends with status 2; the overview was printed.
var errFailedUsage = usage("a command is missing")

// find looks a command up by its one or two words.
func find(args []string) (*command, []string, error) {
	for words := min(2, len(args)); words > 0; words-- {
		name := strings.Join(args[:words], " ")
		if i := slices.IndexFunc(commands(), func(c command) bool { return c.name == name }); i >= 0 {
			c := commands()[i]
			return &c, args[words:], nil
		}
	}
	var group []string
	for _, c := range commands() {
		if strings.HasPrefix(c.name, args[0]+" ") {
			group = append(group, c.name)
		}
	}
	if len(group) > 0 {
		return nil, nil, usage("%q needs one of: %s", args[0], strings.Join(group, ", "))
	}
	return nil, nil, usage("there is no command %q; \"chancery help\" lists them", args[0])
}

// parse reads flags before, between and after the positional arguments.
func parse(flags *flag.FlagSet, args []string) ([]string, error) {
	var positional []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, flagError(err)
		}
		rest := flags.Args()
		if used := len(args) - len(rest); used > 0 && args[used-1] == "--" {
			return append(positional, rest...), nil
		}
		if len(rest) == 0 {
			return positional, nil
		}
		positional, args = append(positional, rest[0]), rest[1:]
	}
}

// flagError says what the flag package says, with the two dashes people type.
func flagError(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	text := err.Error()
	if name, found := strings.CutPrefix(text, "flag provided but not defined: -"); found {
		return fmt.Errorf("there is no flag --%s", name)
	}
	if name, found := strings.CutPrefix(text, "flag needs an argument: -"); found {
		return fmt.Errorf("--%s needs a value", name)
	}
	return errors.New(strings.Replace(text, "for flag -", "for --", 1))
}

// one expects exactly one positional argument.
func one(args []string, what string) (string, error) {
	switch len(args) {
	case 0:
		return "", usage("%s is missing", what)
	case 1:
		return args[0], nil
	}
	return "", usage("only one argument is expected, %s; unexpected: %q", what, args[1])
}

// none expects no positional arguments.
func none(args []string) error {
	if len(args) > 0 {
		return usage("unexpected argument %q", args[0])
	}
	return nil
}

// list is a flag that may be given more than once.
type list []string

// String joins the values.
func (l *list) String() string { return strings.Join(*l, ", ") }

// Set adds a value.
func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}
