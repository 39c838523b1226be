package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"chancery/config"
	"chancery/hsm"
)

// benchPrefix begins what is signed here; no format's parser takes it.
const benchPrefix = "chancery bench\x00"

// worthwhile is by how much more sessions must sign faster to be suggested.
const worthwhile = 1.1

// measured is one number of sessions.
type measured struct {
	sessions int
	rate     float64 // signatures a second
	p50, p99 time.Duration
}

// bench measures how fast the token signs with each number of sessions, with a
// key of the log, and suggests the smallest number that is not clearly slower.
// What it signs begins with a text that no format's parser takes. The signer
// must be stopped or paused.
func bench(ctx context.Context, cfg *config.Config, list string, span time.Duration) error {
	var numbers []int
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > 64 {
			return fmt.Errorf("-sessions: %q is not a number from 1 to 64", field)
		}
		numbers = append(numbers, n)
	}
	if span <= 0 {
		return fmt.Errorf("-seconds: must be at least 1")
	}
	var results []measured
	for _, n := range numbers {
		m, err := benchOne(ctx, cfg, n, span)
		if err != nil {
			return err
		}
		fmt.Printf("%2d sessions: %8.0f signatures/s   p50 %7s   p99 %7s\n", n, m.rate, m.p50.Round(10*time.Microsecond), m.p99.Round(10*time.Microsecond))
		results = append(results, m)
	}
	fmt.Printf("\nsuggested: sessions = %d\n", suggest(results))
	return nil
}

// suggest takes the fewest sessions within a tenth of the best rate.
func suggest(results []measured) int {
	best := slices.MaxFunc(results, func(a, b measured) int { return int(a.rate - b.rate) })
	chosen := best
	for _, m := range results {
		if m.rate*worthwhile >= best.rate && m.sessions < chosen.sessions {
			chosen = m
		}
	}
	return chosen.sessions
}

func benchOne(ctx context.Context, cfg *config.Config, sessions int, span time.Duration) (measured, error) {
	reg, log, err := openLog(cfg)
	if err != nil {
		return measured{}, err
	}
	defer log.Close()
	with := *cfg
	with.Signer.Sessions = sessions
	token, err := openToken(ctx, &with, reg)
	if err != nil {
		return measured{}, err
	}
	defer token.Close()
	for _, k := range reg.Sorted() {
		if k.Algorithm != hsm.Sealing {
			return load(ctx, token, k.Label, sessions, span)
		}
	}
	return measured{}, fmt.Errorf("the log names no key that signs: run a ceremony first")
}

// load signs with as many callers as sessions.
func load(ctx context.Context, token *hsm.Token, label string, sessions int, span time.Duration) (measured, error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	times := make([][]time.Duration, sessions)
	failures := make([]error, sessions)
	start := time.Now()
	var wait sync.WaitGroup
	for i := range sessions {
		wait.Go(func() {
			message := []byte(benchPrefix + strconv.Itoa(i))
			for ctx.Err() == nil {
				began := time.Now()
				if _, err := token.Sign(context.WithoutCancel(ctx), label, message); err != nil {
					failures[i] = err
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	wait.Wait()
	elapsed := time.Since(start)
	all := slices.Concat(times...)
	for _, err := range failures {
		if err != nil {
			return measured{}, err
		}
	}
	if len(all) == 0 {
		return measured{}, fmt.Errorf("not one signature within %s", span)
	}
	slices.Sort(all)
	return measured{sessions, float64(len(all)) / elapsed.Seconds(), all[len(all)/2], all[len(all)*99/100]}, nil
}
