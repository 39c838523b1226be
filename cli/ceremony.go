package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/config"
)

// defaultConfig is where a Debian host keeps the configuration.
const defaultConfig = "/etc/chancery/chancery.toml"

// drainWithin bounds the wait for a running signer to pause or resume,
// answerWithin that for it to answer at all.
const (
	drainWithin  = 2 * time.Minute
	answerWithin = 10 * time.Second
)

type ceremonyFlags struct{ config, signer, pinFile string }

var ceremonyCommand = command{
	name: "ceremony", args: "PLAN.toml",
	summary: "Make the keys and certificates that a plan names, inside the token",
	help: `Runs on the appliance's host. A signer that is running is paused for the time, and
resumed afterwards with the new keys. Nothing that exists is replaced: a label or a
file of the plan that is there already ends the ceremony before it begins.

Run as root, the ceremony takes place as the owner of signer.db, and the PIN is handed
over from --pin-file as systemd would.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &ceremonyFlags{}
		flags.StringVar(&f.config, "config", defaultConfig, "the appliance's configuration, a `FILE`")
		flags.StringVar(&f.signer, "signer", "", "the chancery-signer `BINARY`; default: beside this one, else on the path")
		flags.StringVar(&f.pinFile, "pin-file", "", "`FILE` with the token's PIN, when the configuration names a systemd credential; default: the credential's name beside the configuration")
		return func(s *session, args []string) error {
			plan, err := one(args, "the ceremony's plan")
			if err != nil {
				return err
			}
			return f.run(s, plan)
		}
	},
}

func (f *ceremonyFlags) run(s *session, plan string) (err error) {
	if _, err := os.Stat(plan); err != nil {
		return fmt.Errorf("the plan: %w", plainPathError(plan, err))
	}
	if plan, err = filepath.Abs(plan); err != nil {
		return err
	}
	c, err := config.Load(f.config)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	cmd, cleanup, err := f.process(s, c, plan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	resume, err := pause(s, c.Signer.AdminSocket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resume()) }()
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("the ceremony did not take place: %s ended with status %d", filepath.Base(cmd.Path), exit.ExitCode())
		}
		return fmt.Errorf("--signer: %w", err)
	}
	return nil
}

// pause lets a running signer drain and give token and log free. What it
// returns resumes the signer; without a running one it does nothing. The signer
// resumes by itself when this process dies, because the connection does.
func pause(s *session, socket string) (resume func() error, err error) {
	connection, err := net.DialTimeout("unix", socket, 5*time.Second)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		fmt.Fprintln(s.Stderr, "No signer is running; the ceremony begins.")
		return func() error { return nil }, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s may not be used by this user: run the ceremony as one of admin_users", socket)
	case err != nil:
		return nil, fmt.Errorf("admin.sock: %w", err)
	}
	connection.Close()
	client := wire.NewClient(socket)
	if err := answers(s.ctx, client); err != nil {
		client.Close()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, drainWithin)
	defer cancel()
	if err := client.Pause(ctx); err != nil {
		client.Close()
		if e := wire.AsError(err); e != nil && e.Code == wire.CodeDenied {
			return nil, fmt.Errorf("the signer does not let this user pause it: run the ceremony as one of admin_users")
		}
		return nil, fmt.Errorf("the signer does not pause: %w", err)
	}
	fmt.Fprintln(s.Stderr, "The signer is paused; the ceremony begins.")
	return func() error {
		defer client.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), drainWithin)
		defer cancel()
		if err := client.Resume(ctx); err != nil {
			return fmt.Errorf("the signer does not resume: %w: restart it", err)
		}
		fmt.Fprintln(s.Stderr, "The signer has resumed.")
		return nil
	}, nil
}

// answers asks the signer how it is. A socket that the service manager holds is
// open without one, and a signer without keys ends at once.
func answers(ctx context.Context, client *wire.Client) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := client.Status(ctx)
	if e := wire.AsError(err); e != nil && e.Code == wire.CodeUnavailable {
		return fmt.Errorf("the signer's socket is open, but no signer answers (%w): stop both for the ceremony, with \"systemctl stop 'chancery-signer*.socket' chancery-signer\"", err)
	}
	return nil // a denial, too, is told by what is asked next
}

// process prepares the one-shot chancery-signer process. An interrupt reaches
// it like this one; it is never killed in the middle.
func (f *ceremonyFlags) process(s *session, c *config.Config, plan string) (*exec.Cmd, func() error, error) {
	nothing := func() error { return nil }
	binary, err := f.binary()
	if err != nil {
		return nil, nothing, err
	}
	cmd := exec.Command(binary, "ceremony", "-config", c.Path, plan)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = s.Stdin, s.Stdout, s.Stderr, os.Environ()
	uid, gid, err := owner(c.Signer.Database)
	if err != nil {
		return nil, nothing, err
	}
	if os.Geteuid() == 0 && uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	if strings.Contains(c.Signer.PIN, "/") || s.Getenv("CREDENTIALS_DIRECTORY") != "" {
		return cmd, nothing, nil
	}
	dir, err := f.handOverPIN(c, int(uid), int(gid))
	if err != nil {
		return nil, nothing, err
	}
	cmd.Env = append(cmd.Env, "CREDENTIALS_DIRECTORY="+dir)
	return cmd, func() error { return os.RemoveAll(dir) }, nil
}

func (f *ceremonyFlags) binary() (string, error) {
	if f.signer != "" {
		return f.signer, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "chancery-signer")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	binary, err := exec.LookPath("chancery-signer")
	if err != nil {
		return "", errors.New("chancery-signer is neither beside this command nor on the path: name it with --signer")
	}
	return binary, nil
}

// owner returns who owns signer.db; the ceremony must not leave files of another user.
func owner(path string) (uid, gid uint32, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, fmt.Errorf("signer.db: %w: \"chancery-signer init\" makes it", plainPathError(path, err))
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, errors.New("signer.db: its owner is unknown on this system")
	}
	return stat.Uid, stat.Gid, nil
}

// handOverPIN puts the PIN where the signer expects a systemd credential, in a
// folder in memory that only the signer's user may enter, for the time of the
// ceremony.
func (f *ceremonyFlags) handOverPIN(c *config.Config, uid, gid int) (string, error) {
	source := f.pinFile
	if source == "" {
		source = filepath.Join(filepath.Dir(c.Path), c.Signer.PIN)
	}
	pin, err := os.ReadFile(source)
	if err != nil {
		return "", fmt.Errorf("--pin-file: %w: the configuration's pin is a systemd credential, so the PIN must come from a file", plainPathError(source, err))
	}
	dir, err := os.MkdirTemp("/run", "chancery-ceremony-")
	if err != nil {
		return "", fmt.Errorf("a folder for the PIN: %w: run the ceremony as root, or set CREDENTIALS_DIRECTORY", err)
	}
	file := filepath.Join(dir, filepath.Base(c.Signer.PIN))
	err = os.WriteFile(file, pin, 0o400)
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(file, uid, gid), os.Chown(dir, uid, gid))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}
