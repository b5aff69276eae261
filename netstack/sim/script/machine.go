package script

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
)

var (
	stackMAC = header.MAC{2, 0, 0, 0, 0, 2}
	peerMAC  = header.MAC{2, 0, 0, 0, 1, 0}
)

// flow is one connection's two ends and what is known of its numbers.
type flow struct {
	peer, local netip.AddrPort
	iss         seq.Value // the stack's, learned from its SYN
	tsVal       uint32    // the stack's last timestamp
	conn        *tcp.Conn
	held        *tcp.Conn
	listener    *tcp.Listener
	sock        *socket
}

// socket is the user's side of a flow. It implements tcp.Handler.
type socket struct {
	m       *machine
	greedy  bool // takes data as it comes
	read    int
	written int
	eof     bool
	closed  bool
	err     error
}

// sentFrame is a frame that the stack has sent and no step has asked for yet.
type sentFrame struct {
	at   timer.Instant
	data []byte
}

// machine is a script in progress.
type machine struct {
	stack   *netstack.Stack
	config  netstack.Config
	batch   frame.Batch
	now     timer.Instant
	sent    []sentFrame
	flows   map[string]*flow
	byEnds  map[[2]netip.AddrPort]*flow
	peerISN seq.Value
	hold    bool
	trace   []string // what went over the wire, the last of it
	problem error    // found while the stack called back
	floods  int      // ports used up by floods
}

func newMachine() *machine {
	m := &machine{
		flows: map[string]*flow{}, byEnds: map[[2]netip.AddrPort]*flow{},
		peerISN: 1000, now: timer.Instant(time.Hour),
	}
	m.config = netstack.Config{
		HardwareAddr: stackMAC,
		Addresses:    []netip.Prefix{netip.MustParsePrefix("10.0.2.2/24"), netip.MustParsePrefix("fd00::2/64")},
		NextHop4:     netip.MustParseAddr("10.0.2.100"), NextHop6: netip.MustParseAddr("fd00::100"),
		Neighbors: []netstack.Neighbor{
			{Addr: netip.MustParseAddr("10.0.2.100"), MAC: peerMAC}, {Addr: netip.MustParseAddr("fd00::100"), MAC: peerMAC}},
		MTU: 1500, Output: &m.batch, Handler: m, Seed: [32]byte{7},
		TCP: tcp.Config{SendBuffer: 64 << 10, ReceiveBuffer: 64<<10 - 1},

		NoDuplicateDetection: true, // a script begins with its own packets
	}
	m.addFlow("", "10.0.2.100:5000", "10.0.2.2:80")
	return m
}

func (m *machine) addFlow(name, peer, local string) error {
	p, err := netip.ParseAddrPort(peer)
	if err != nil {
		return err
	}
	l, err := netip.ParseAddrPort(local)
	if err != nil {
		return err
	}
	f := &flow{peer: p, local: l, sock: &socket{m: m}}
	m.flows[name] = f
	m.byEnds[[2]netip.AddrPort{p, l}] = f
	return nil
}

// start makes the stack, when all settings are known.
func (m *machine) start() (err error) {
	if m.stack != nil {
		return nil
	}
	m.stack, err = netstack.New(m.config)
	if err == nil {
		m.stack.Tick(m.now)
	}
	return err
}

// OpenTCP implements netstack.Handler.
func (m *machine) OpenTCP(c *tcp.Conn) {
	f := m.byEnds[[2]netip.AddrPort{c.RemoteAddr(), c.LocalAddr()}]
	if f == nil || !m.hold {
		c.Refuse(tcp.Reset)
		return
	}
	f.held = c
	c.SetHandler(f.sock)
}

// Datagram implements netstack.Handler.
func (m *machine) Datagram(*netstack.Datagram) {}

// Echo implements netstack.Handler.
func (m *machine) Echo(*netstack.Echo) {}

// Unreachable implements netstack.Handler.
func (m *machine) Unreachable(*netstack.Unreachable) {}

// Established implements tcp.Handler.
func (s *socket) Established(*tcp.Conn) {}

// Writable implements tcp.Handler.
func (s *socket) Writable(*tcp.Conn) {}

// EOF implements tcp.Handler.
func (s *socket) EOF(*tcp.Conn) { s.eof = true }

// Closed implements tcp.Handler.
func (s *socket) Closed(_ *tcp.Conn, err error) { s.closed, s.err = true, err }

// Data implements tcp.Handler.
func (s *socket) Data(_ *tcp.Conn, p []byte) int {
	if !s.greedy {
		return 0
	}
	s.take(p)
	return len(p)
}

func (s *socket) take(p []byte) {
	if !bytes.Equal(p, pattern(s.read, len(p))) {
		s.m.problem = fmt.Errorf("read %d bytes at %d that are not the peer's", len(p), s.read)
	}
	s.read += len(p)
}

// pattern is the n bytes of every stream from position at on.
func pattern(at, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		x := uint32(at+i) * 2654435761
		b[i] = byte(x >> 24)
	}
	return b
}

// flush lets the stack speak.
func (m *machine) flush() error {
	m.stack.Flush()
	for i := range m.batch.Frames() {
		b := finish(&m.batch.Frames()[i])
		m.note(">", b)
		m.sent = append(m.sent, sentFrame{m.now, b})
		if err := m.learn(b); err != nil {
			return err
		}
	}
	m.batch.Reset()
	m.stack.Reclaim()
	err := m.problem
	m.problem = nil
	return err
}

// finish completes a frame's checksum.
func finish(f *frame.Frame) []byte {
	b := f.AppendTo(nil)
	if f.NeedsChecksum {
		c := checksum.Of(b[f.ChecksumStart:])
		at := f.ChecksumStart + f.ChecksumOffset
		b[at], b[at+1] = byte(c>>8), byte(c)
	}
	return b
}

// learn takes the stack's numbers from a segment.
func (m *machine) learn(b []byte) error {
	p, ok := parsePacket(b)
	if !ok || p.tcp == nil {
		return nil
	}
	if !p.tcp.ChecksumValid(p.src.Addr(), p.dst.Addr(), p.payload) {
		return fmt.Errorf("segment with a bad checksum")
	}
	f := m.byEnds[[2]netip.AddrPort{p.dst, p.src}]
	if f == nil {
		return nil
	}
	if p.tcp.Flags().Has(header.SYN) {
		f.iss = p.tcp.Seq()
	}
	if o := p.tcp.Options(); o.Timestamp {
		f.tsVal = o.TSVal
	}
	return nil
}

// pass lets time go by, from deadline to deadline, until at, or until the stack
// has sent something if that is asked for.
func (m *machine) pass(at timer.Instant, untilSent bool) error {
	for steps := 0; ; steps++ {
		if err := m.flush(); err != nil {
			return err
		}
		if untilSent && len(m.sent) > 0 {
			return nil
		}
		next := m.stack.NextDeadline()
		if next > at || m.now >= at && next > m.now {
			break
		}
		if steps > 1_000_000 {
			return fmt.Errorf("the stack's timers do not come to rest")
		}
		m.now = max(m.now, next)
		m.stack.Tick(m.now)
	}
	m.now = max(m.now, at)
	m.stack.Tick(m.now)
	return m.flush()
}

// input hands the stack a frame.
func (m *machine) input(b []byte) {
	m.note("<", b)
	m.stack.Input(b, frame.Offload{}, m.now)
}

// traceLen is how much of what went over the wire an error shows.
const traceLen = 24

func (m *machine) note(direction string, b []byte) {
	m.trace = append(m.trace, fmt.Sprintf("%10.6f %s %s", time.Duration(m.now-timer.Instant(time.Hour)).Seconds(), direction, m.describe(b)))
	if len(m.trace) > traceLen {
		m.trace = m.trace[1:]
	}
}

// describe puts a frame in the script's words.
func (m *machine) describe(b []byte) string {
	p, ok := parsePacket(b)
	switch {
	case !ok:
		return fmt.Sprintf("%x", b)
	case p.icmp != "":
		return "icmp " + p.icmp
	case p.tcp == nil:
		return "packet that is no TCP"
	}
	ours := true
	f := m.byEnds[[2]netip.AddrPort{p.dst, p.src}]
	if f == nil {
		ours = false
		f = m.byEnds[[2]netip.AddrPort{p.src, p.dst}]
	}
	if f == nil {
		return fmt.Sprintf("%v > %v %s", p.src, p.dst, formatFlags(p.tcp.Flags()))
	}
	name := ""
	for n, x := range m.flows {
		if x == f && n != "" {
			name = "@" + n + " "
		}
	}
	return strings.TrimSpace(name + m.segmentOf(f, &p, ours).String())
}

// segmentOf is a packet of the flow in the script's numbers.
func (m *machine) segmentOf(f *flow, p *packet, ours bool) segment {
	from, to := m.peerISN, f.iss
	if ours {
		from, to = to, from
	}
	s := segment{flags: p.tcp.Flags(), seq: int(p.tcp.Seq().Diff(from)), ack: -1, win: int(p.tcp.Window()), hasOpts: true}
	s.end = s.seq + len(p.payload)
	if s.flags.Has(header.ACK) {
		s.ack = int(p.tcp.Ack().Diff(to))
	}
	s.options = formatOptions(p.tcp, to)
	return s
}
