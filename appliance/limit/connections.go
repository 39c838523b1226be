package limit

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// share is the part of a listener's connections that one address may hold: one
// in so many.
const share = 4

// Connections is a listener with a bounded number of open connections. When it
// is full, the connection that has been idle longest is closed for the next one; when
// none is idle, the next one waits, at most as long as the server's time limits
// let the others last, and those after it wait in the kernel's queue. One
// address, unless it is exempt, holds at most a quarter of them; what it opens
// above that is closed at once.
type Connections struct {
	net.Listener
	exempt func(netip.Addr) bool
	slots  chan struct{} // as many elements as there are open connections
	closed chan struct{}
	once   sync.Once // closes closed
	// refused counts connections above their address's share.
	refused atomic.Int64

	// mu guards the rest.
	mu   sync.Mutex
	held map[netip.Addr]int
	// idle are the idle connections, longest first; element finds them.
	idle    *list.List
	element map[net.Conn]*list.Element
	waiting bool // a connection waits for a slot
}

// NewConnections bounds l to most connections, at least one. Addresses for which
// exempt is true, such as a proxy's, may hold all of them. The server's ConnState
// must be [Connections.State].
func NewConnections(l net.Listener, most int, exempt func(netip.Addr) bool) *Connections {
	return &Connections{Listener: l, exempt: exempt, slots: make(chan struct{}, max(most, 1)), closed: make(chan struct{}),
		held: map[netip.Addr]int{}, idle: list.New(), element: map[net.Conn]*list.Element{}}
}

// Open returns how many connections are open.
func (c *Connections) Open() int { return len(c.slots) }

// Limit returns how many connections may be open.
func (c *Connections) Limit() int { return cap(c.slots) }

// Refused returns how many connections were closed at once because their address
// held its share.
func (c *Connections) Refused() int64 { return c.refused.Load() }

// Accept returns the next connection that there is room for.
func (c *Connections) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := network(peer(conn.RemoteAddr().String()))
		if !c.hold(address) {
			c.refused.Add(1)
			conn.Close()
			continue
		}
		if !c.enter() {
			c.letGo(address)
			conn.Close()
			return nil, net.ErrClosed
		}
		return &connection{Conn: conn, release: sync.OnceFunc(func() { c.letGo(address); <-c.slots })}, nil
	}
}

// Close ends Accept, also one that waits for room.
func (c *Connections) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// hold counts a connection of the address; false means it has its share.
func (c *Connections) hold(address netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[address] >= max(cap(c.slots)/share, 1) && !c.exempt(address) {
		return false
	}
	c.held[address]++
	return true
}

func (c *Connections) letGo(address netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[address]--; c.held[address] == 0 {
		delete(c.held, address)
	}
}

// enter takes a slot, an idle connection's if need be; false means the listener was closed.
func (c *Connections) enter() bool {
	select {
	case c.slots <- struct{}{}:
		return true
	default:
	}
	c.makeRoom()
	select {
	case c.slots <- struct{}{}:
		c.mu.Lock()
		c.waiting = false
		c.mu.Unlock()
		return true
	case <-c.closed:
		return false
	}
}

// makeRoom closes the connection that has been idle longest, or has the next
// one that becomes idle closed.
func (c *Connections) makeRoom() {
	c.mu.Lock()
	longest := c.idle.Front()
	c.waiting = longest == nil
	if longest != nil {
		delete(c.element, longest.Value.(net.Conn))
		c.idle.Remove(longest)
	}
	c.mu.Unlock()
	if longest != nil {
		closeAtOnce(longest.Value.(net.Conn))
	}
}

// State follows which connections are idle; it is for http.Server's ConnState.
func (c *Connections) State(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	if e := c.element[conn]; e != nil {
		c.idle.Remove(e)
		delete(c.element, conn)
	}
	needed := state == http.StateIdle && c.waiting
	switch {
	case needed:
		c.waiting = false
	case state == http.StateIdle:
		c.element[conn] = c.idle.PushBack(conn)
	}
	c.mu.Unlock()
	if needed {
		closeAtOnce(conn)
	}
}

// closeAtOnce closes without TLS's farewell, which may wait for the peer.
func closeAtOnce(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}

// connection gives its slot back when it is closed.
type connection struct {
	net.Conn
	release func()
}

// Close closes the connection.
func (c *connection) Close() error {
	defer c.release()
	return c.Conn.Close()
}
