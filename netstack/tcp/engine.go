package tcp

import (
	"net/netip"

	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// Packet is one TCP segment from the link, or a super-segment of up to 64 KiB
// that the link coalesced. Its checksum has been verified. TCP keeps no part of
// it after Input returns.
type Packet struct {
	Now         timer.Instant // when the frame was read
	Src, Dst    netip.Addr
	TCP         []byte // header and payload
	ECN         uint8  // the IP header's ECN codepoint
	SegmentSize int    // payload of each segment it was coalesced from; 0: it is one segment
}

// Engine is all TCP of one stack. It has one owner, who makes every call.
type Engine struct {
	cfg    Config
	out    Output
	timers *timer.Queue
	now    timer.Instant
}

// NewEngine returns an engine that sends through out and keeps its timers in
// timers, which the owner runs. It fails if cfg names an unknown congestion control.
func NewEngine(cfg Config, out Output, timers *timer.Queue) *Engine {
	cfg.setDefaults()
	return &Engine{cfg: cfg, out: out, timers: timers}
}

// SetNow sets the clock that all calls use until the next SetNow or Input.
func (e *Engine) SetNow(now timer.Instant) { e.now = now }

// Input processes one segment. Answers are appended to the batch by Flush.
func (e *Engine) Input(p *Packet) { e.now = p.Now }

// Flush emits what connections have to say: acknowledgements, data, window
// updates; and makes the handler calls that calls on a Conn left for later.
func (e *Engine) Flush() {}

// Reclaim lets buffers be reused that frames pointed into. It is called after
// the batch is on the link.
func (e *Engine) Reclaim() {}

// Unreachable reports an ICMP error about a segment of ours from local to
// remote whose quoted sequence number is quoted. With mtu > 0 the error is
// "fragmentation needed" or "packet too big" and reason is not looked at.
func (e *Engine) Unreachable(local, remote netip.AddrPort, quoted seq.Value, reason Refusal, mtu int) {
}

// SetOpenHandler has f called for a SYN to an address and port where nobody
// listens. The connection is then held: nothing is sent and further SYNs of the
// flow are absorbed until Accept or Refuse is called on it, in f or later. A
// handler set with SetHandler meanwhile learns in Closed that the peer gave up.
// Without f such a SYN is answered with RST.
func (e *Engine) SetOpenHandler(f func(c *Conn)) {}

// Listen takes connections to local, whose address may be unspecified: all
// addresses of its family.
func (e *Engine) Listen(local netip.AddrPort, backlog int) (*Listener, error) { return nil, nil }

// Dial opens a connection from local, any address and, unless 0, port, to
// remote. The SYN goes out with the next Flush.
func (e *Engine) Dial(local, remote netip.AddrPort, h Handler) (*Conn, error) { return nil, nil }
