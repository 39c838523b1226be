package trust

import (
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// entryOverhead is what a cached list takes beside its bits, in bytes, about.
const entryOverhead = 2048 + 256

// cache keeps lists, and faults, until they are stale; bounded in number and bytes.
type cache struct {
	maxEntries, maxBytes int
	flights              singleflight.Group

	mu    sync.Mutex // guards what follows
	lists map[string]list
	bytes int
}

func (c *cache) get(uri string, now time.Time) (list, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.lists[uri]
	return l, ok && now.Before(l.until)
}

// put keeps a list and makes room for it: stale ones go first, then any. One
// that is larger than the whole cache is not kept.
func (c *cache) put(uri string, l list, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(uri)
	if cost(l) > c.maxBytes {
		return
	}
	full := func() bool { return len(c.lists) >= c.maxEntries || c.bytes+cost(l) > c.maxBytes }
	for _, staleOnly := range []bool{true, false} {
		for other, kept := range c.lists {
			if !full() {
				break
			}
			if !staleOnly || !now.Before(kept.until) {
				c.drop(other)
			}
		}
	}
	c.lists[uri] = l
	c.bytes += cost(l)
}

func (c *cache) drop(uri string) {
	if l, ok := c.lists[uri]; ok {
		c.bytes -= cost(l)
		delete(c.lists, uri)
	}
}

func cost(l list) int { return cap(l.bits) + entryOverhead }
