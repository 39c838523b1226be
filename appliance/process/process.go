// Package process is what the two daemons' mains share: their command lines,
// their JSON log, and what they ask of the kernel before they touch a secret.
package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"chancery/config"
)

// Command is one command of a daemon's binary.
type Command struct {
	// Name has one or two words.
	Name string
	// Args names the positional arguments, for the help.
	Args    string
	Summary string
	// Count is how many positional arguments there must be.
	Count int
	// Serves marks a daemon: what ends it is told as the last line of its log.
	Serves bool
	// Flags declares flags besides -config; nil declares none.
	Flags func(*flag.FlagSet)
	// Run does the work. Its error becomes the exit status through Program.Status.
	Run func(ctx context.Context, cfg *config.Config, args []string) error
}

// Program is a daemon's binary.
type Program struct {
	Name, Version, About string
	Commands             []Command
	// Status maps an error to an exit status; nil means 1 for every error.
	Status func(error) int
}

// ExitPIN is chancery-signer's exit status when the token refused the PIN: another
// start would bring it nearer to being locked (RestartPreventExitStatus=).
const ExitPIN = 78

// defaultConfig is where a Debian host keeps the configuration.
const defaultConfig = "/etc/chancery/chancery.toml"

// errUsage marks a wrong command line, exit status 2.
var errUsage = errors.New("wrong command line")

// Main hardens the process, runs the command that os.Args names until it ends
// or the process is told to stop (SIGINT, SIGTERM), and exits.
func (p Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := Harden()
	if err == nil {
		err = p.run(ctx, os.Args[1:])
	}
	if err == nil {
		return
	}
	status := 1
	c, _ := p.find(os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		status = 2
	case p.Status != nil:
		status = p.Status(err)
	}
	if c != nil && c.Serves && status != 2 {
		logger(slog.LevelInfo, p.Name).Error("ended", "status", status, "error", err.Error())
	} else {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
	}
	os.Exit(status)
}

func (p Program) run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		p.help(os.Stderr)
		return fmt.Errorf("%w: a command is missing", errUsage)
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		p.help(os.Stdout)
		return nil
	case "version", "-version", "--version":
		fmt.Println(p.Name, p.Version)
		return nil
	}
	c, rest := p.find(args)
	if c == nil {
		return fmt.Errorf("%w: there is no command %q: \"%s help\" lists them", errUsage, args[0], p.Name)
	}
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	path := flags.String("config", defaultConfig, "the appliance's configuration")
	if c.Flags != nil {
		c.Flags(flags)
	}
	positional, err := parse(flags, rest)
	if errors.Is(err, flag.ErrHelp) {
		p.help(os.Stdout)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %v", errUsage, c.Name, err)
	}
	if len(positional) != c.Count {
		return fmt.Errorf("%w: usage: %s %s [-config FILE] %s", errUsage, p.Name, c.Name, c.Args)
	}
	cfg, err := config.Load(*path)
	if err != nil {
		return err
	}
	return c.Run(ctx, cfg, positional)
}

// find looks a command up by its one or two words.
func (p Program) find(args []string) (*Command, []string) {
	for words := min(2, len(args)); words > 0; words-- {
		for i := range p.Commands {
			if p.Commands[i].Name == strings.Join(args[:words], " ") {
				return &p.Commands[i], args[words:]
			}
		}
	}
	return nil, nil
}

// parse reads flags before, between and after the positional arguments.
func parse(flags *flag.FlagSet, args []string) (positional []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if args = flags.Args(); len(args) == 0 {
			return positional, nil
		}
		positional, args = append(positional, args[0]), args[1:]
	}
}

func (p Program) help(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n\nUsage: %s COMMAND [-config FILE] [ARGUMENTS]\n\n", p.Name, p.About, p.Name)
	for _, c := range p.Commands {
		fmt.Fprintf(w, "  %-22s %s\n", strings.TrimSpace(c.Name+" "+c.Args), c.Summary)
	}
	fmt.Fprintf(w, "  %-22s %s\n\nThe configuration is %s unless -config names another file.\n", "version", "print the version", defaultConfig)
}

// Harden keeps the process's memory to itself: no core dumps, and no other
// process of the same user may attach to it or read its memory
// (prctl(2), PR_SET_DUMPABLE). It also lets the garbage collector run less
// often than Go's default, which the daemons' small heaps allow; GOGC in the
// environment takes precedence.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("no reading of memory: %w", err)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	return nil
}

// Logger returns the daemon's log: JSON lines on standard error from the
// configuration's level up.
func Logger(cfg *config.Config, name string) *slog.Logger {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(cfg.Log)) // the configuration was checked
	return logger(level, name)
}

func logger(level slog.Level, name string) *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("process", name)
}
