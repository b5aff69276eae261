package tcp

import "net/netip"

// Listener takes connections to one address and port.
type Listener struct{}

// Addr is what the listener listens on.
func (l *Listener) Addr() netip.AddrPort { return netip.AddrPort{} }

// Accept takes the oldest established connection off the accept queue. Its
// handler is set with [Conn.SetHandler].
func (l *Listener) Accept() (*Conn, bool) { return nil, false }

// SetNotify has f called whenever the accept queue stops being empty.
func (l *Listener) SetNotify(f func()) {}

// Close stops listening and resets the connections nobody accepted.
func (l *Listener) Close() {}
