package process

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// What a daemon tells the service manager (sd_notify(3)).
const (
	Ready    = daemon.SdNotifyReady
	Stopping = daemon.SdNotifyStopping
	// StillStarting asks for a minute more before a start counts as failed.
	StillStarting = "EXTEND_TIMEOUT_USEC=60000000"
)

// Tell tells the service manager, when there is one.
func Tell(state string) { _, _ = daemon.SdNotify(false, state) }

// Watchdog tells the service manager, three times in each of its watchdog
// intervals, that the daemon is alive, until ctx ends; it says nothing when alive
// returns false or does not return, and then the service manager restarts the
// daemon. Without a watchdog it returns at once.
func Watchdog(ctx context.Context, alive func(context.Context) bool) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if alive(ctx) {
				Tell(daemon.SdNotifyWatchdog)
			}
		}
	}
}
