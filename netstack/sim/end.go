package sim

import (
	"net/netip"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
)

// The stations on the simulated link. The router is where ICMP errors and
// forged segments come from.
var (
	macs      = [2]header.MAC{{2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 1, 0}}
	routerMAC = header.MAC{2, 0, 0, 0, 9, 9}
	address4  = [2]netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("10.0.2.100")}
	address6  = [2]netip.Addr{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::100")}
	router4   = netip.MustParseAddr("10.0.2.1")
	router6   = netip.MustParseAddr("fd00::1")
)

func addressOf(stack int, ipv6 bool) netip.Addr {
	if ipv6 {
		return address6[stack]
	}
	return address4[stack]
}

// end is one stack at the link.
type end struct {
	*netstack.Stack
	w      *world
	which  int
	plan   StackPlan
	batch  frame.Batch
	offset time.Duration // of the stack's clock from the world's
	inbox  int           // frames delivered in this step, and those for which an answer may have waited
	acks   int           // bare acknowledgements emitted in this step
}

// clock is the stack's time.
func (e *end) clock() timer.Instant { return e.w.now.Add(e.offset) }

// deadline is when the stack wants to be woken, in the world's time.
func (e *end) deadline() timer.Instant {
	d := e.NextDeadline()
	if d == timer.Never {
		return d
	}
	return d.Add(-e.offset)
}

func newEnd(w *world, which int, s *Scenario) (*end, error) {
	e := &end{w: w, which: which, plan: s.Stacks[which]}
	stack, err := netstack.New(e.config(s))
	if err != nil {
		return nil, err
	}
	e.Stack = stack
	if e.plan.HasISN {
		if e.offset, err = offsetFor(e, s); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *end) config(s *Scenario) netstack.Config {
	i := e.which
	c := netstack.Config{
		HardwareAddr: macs[i],
		Addresses:    []netip.Prefix{netip.PrefixFrom(address4[i], 24), netip.PrefixFrom(address6[i], 64)},
		NextHop4:     address4[1-i], NextHop6: address6[1-i],
		MTU:     e.plan.MTU,
		Output:  &e.batch,
		Handler: e,
		TCP: tcp.Config{
			SendBuffer: e.plan.SendBuffer, ReceiveBuffer: e.plan.ReceiveBuffer,
			SendBufferMax: e.plan.BufferMax, ReceiveBufferMax: e.plan.BufferMax,
			Congestion: e.plan.Congestion,
		},
	}
	for j := range 8 {
		c.Seed[j] = byte(s.Seed >> (8 * j))
	}
	c.Seed[8] = byte(i)
	c.RouterAdvertisement.Disabled = true
	c.NoDuplicateDetection = !s.AskNeighbors
	if e.plan.TSO {
		c.Caps = frame.Capabilities{TSO4: true, TSO6: true, USO: true, MaxFrame: netstack.MaxMTU + header.EthernetLen}
	}
	router := []netstack.Neighbor{{Addr: router4, MAC: routerMAC}, {Addr: router6, MAC: routerMAC}}
	c.Neighbors = router
	if !s.AskNeighbors {
		c.Neighbors = append(router, netstack.Neighbor{Addr: address4[1-i], MAC: macs[1-i]},
			netstack.Neighbor{Addr: address6[1-i], MAC: macs[1-i]})
	}
	return c
}

// isnTick is how long the clock takes to move an ISN by one (RFC 6528 §3).
const isnTick = 4 * time.Microsecond

// offsetFor finds the clock with which the stack's side of the first connection
// begins at the sequence number that the plan asks for. An ISN is a hash of the
// flow plus a clock; a probe with clock 0 shows the hash.
func offsetFor(e *end, s *Scenario) (time.Duration, error) {
	p := &end{w: e.w, which: e.which, plan: e.plan}
	c := p.config(s)
	c.Neighbors = append(c.Neighbors, netstack.Neighbor{Addr: address4[1-e.which], MAC: macs[1-e.which]},
		netstack.Neighbor{Addr: address6[1-e.which], MAC: macs[1-e.which]})
	c.Handler, c.NoDuplicateDetection = nil, true
	stack, err := netstack.New(c)
	if err != nil {
		return 0, err
	}
	dialer, acceptor := s.Conns[0].ends(0)
	if s.Conns[0].Dialer == e.which {
		_, err = stack.TCP().Dial(dialer, acceptor, nil)
	} else {
		var l *tcp.Listener
		if l, err = stack.TCP().Listen(acceptor, 1); err == nil {
			defer l.Close()
			stack.Input(synFrame(macs[e.which], dialer, acceptor), frame.Offload{}, 0)
		}
	}
	if err != nil {
		return 0, err
	}
	stack.Flush()
	syn, _ := parseTCP(p.batch.Frames()[0].AppendTo(nil))
	at := timer.Instant(s.Conns[0].At) // the clock will have moved by then
	ticks := e.plan.ISN - syn.tcp.Seq() - seq.Value(uint32(at/timer.Instant(isnTick)))
	return time.Duration(ticks) * isnTick, nil
}

// synFrame is a SYN without options.
func synFrame(to header.MAC, src, dst netip.AddrPort) []byte {
	b := make([]byte, header.TCPMinLen)
	header.PutTCP(b, header.TCPFields{SourcePort: src.Port(), DestinationPort: dst.Port(), Flags: header.SYN, Window: 65535})
	header.TCP(b).SetChecksum(src.Addr(), dst.Addr(), nil)
	return frameOf(to, src.Addr(), dst.Addr(), header.ProtocolTCP, b)
}

// ends are the two ends of connection number i: its dialer's and the other.
// A sandbox dials an address beyond the gateway, which is held and accepted; a
// gateway dials the sandbox's listener.
func (c *ConnPlan) ends(i int) (dialer, acceptor netip.AddrPort) {
	dialer = netip.AddrPortFrom(addressOf(c.Dialer, c.IPv6), uint16(40000+i))
	if c.Dialer == 0 {
		return dialer, netip.AddrPortFrom(addressOf(1, c.IPv6), listenPort)
	}
	far := netip.MustParseAddr("9.9.9.9")
	if c.IPv6 {
		far = netip.MustParseAddr("2001:db8::9")
	}
	return dialer, netip.AddrPortFrom(far, 443)
}

const listenPort = 80

// OpenTCP implements netstack.Handler.
func (e *end) OpenTCP(c *tcp.Conn) { e.w.opened(e, c) }

// Datagram implements netstack.Handler. No datagrams are sent.
func (e *end) Datagram(*netstack.Datagram) { e.w.fail("a datagram came from nowhere") }

// Echo implements netstack.Handler. No echo requests are sent.
func (e *end) Echo(*netstack.Echo) { e.w.fail("an echo request came from nowhere") }

// Unreachable implements netstack.Handler. A damaged quotation may tell of UDP.
func (e *end) Unreachable(*netstack.Unreachable) {}
