package neighbor

import (
	"bytes"
	"net/netip"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

// Held is a frame that waits for its Ethernet destination. Its header is its
// own; its payload belongs to whoever sent it until [Cache.Pin].
type Held struct {
	frame.Frame
	left bool // sent or given up
}

// address fills in the Ethernet destination.
func (f *Held) address(mac header.MAC) { copy(f.Header, mac[:]) }

// Hold returns a frame with a header of n bytes that is sent when addr
// resolves, or nil if addr is not being resolved or too much waits already.
// The caller fills it in as it would one of [frame.Batch.Append]; size is the
// length that it will have.
func (c *Cache) Hold(addr netip.Addr, n, size int) *Held {
	e := c.entries[addr]
	if e == nil || e.state != incomplete {
		return nil
	}
	if len(e.held) == c.limits.HeldFrames || e.bytes+size > c.limits.HeldBytes {
		c.stats.HeldDropped++
		return nil
	}
	f := &Held{Frame: frame.Frame{Header: make([]byte, n, frame.MaxHeader)}}
	e.held = append(e.held, f)
	e.bytes += size
	c.pinning = append(c.pinning, f)
	return f
}

// Pin gives the frames held since the last call payload of their own. It is
// called before the memory their payload points into may be reused.
func (c *Cache) Pin() {
	for _, f := range c.pinning {
		if f.left {
			continue
		}
		f.Payload[0] = bytes.Clone(f.Payload[0])
		f.Payload[1] = bytes.Clone(f.Payload[1])
	}
	clear(c.pinning)
	c.pinning = c.pinning[:0]
}
