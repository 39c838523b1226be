package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// certificateEvery is the time between two looks at a certificate's files.
const certificateEvery = 5 * time.Second

// certificate is a listener's TLS certificate. Its files are read again when
// they change, or on SIGHUP; connections that are open stay as they are. Files
// that do not fit together, as in the middle of a renewal, change nothing.
type certificate struct {
	name              string // the listener's
	certFile, keyFile string
	present           atomic.Pointer[tls.Certificate]
	seen              [2]time.Time // the files' modification times; owned by watch after the start
}

func loadCertificate(name, certFile, keyFile string) (*certificate, error) {
	c := &certificate{name: name, certFile: certFile, keyFile: keyFile}
	return c, c.load()
}

// load reads both files.
func (c *certificate) load() error {
	seen := c.times()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("the %s listener's certificate: %w", c.name, err)
	}
	c.present.Store(&pair)
	c.seen = seen
	return nil
}

func (c *certificate) times() (t [2]time.Time) {
	for i, file := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(file); err == nil {
			t[i] = info.ModTime()
		}
	}
	return t
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.present.Load(), nil
}

// watch loads the files again when they changed, until ctx ends.
func (c *certificate) watch(ctx context.Context, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(certificateEvery)
	defer tick.Stop()
	var failedAt [2]time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		case <-tick.C:
			if now := c.times(); now == c.seen || now == failedAt {
				continue
			}
		}
		now := c.times()
		if err := c.load(); err != nil {
			failedAt = now
			log.Error("the old certificate stays in use", "listener", c.name, "error", err.Error())
			continue
		}
		log.Info("certificate read again", "listener", c.name, "not_after", c.present.Load().Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}
