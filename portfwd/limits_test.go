package portfwd

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
	"sbxnet/netstack/reassembly"
	"sbxnet/netstack/tcp"
)

// datagramFrame is a UDP datagram of the sandbox's, to port 9 of outside4.
func datagramFrame(payload int, ttl uint8) []byte {
	src, dst := netip.MustParseAddr(sandbox4), netip.MustParseAddr(outside4)
	b := make([]byte, 14+20+8+payload)
	header.PutEthernet(b, header.EthernetFields{Destination: ourMAC, Source: guestMAC, Type: header.EtherTypeIPv4})
	header.PutIPv4(b[14:], header.IPv4Fields{Source: src, Destination: dst, Protocol: header.ProtocolUDP, TTL: ttl, PayloadLen: 8 + payload})
	header.PutUDP(b[34:], header.UDPFields{SourcePort: 1000, DestinationPort: 9, PayloadLen: payload})
	header.UDP(b[34:]).SetChecksum(src, dst, b[42:])
	return b
}

// inject gives shard 0 frames as if the sandbox had sent them.
func (w *world) inject(frames ...[]byte) {
	s := w.fwd.shards[0]
	s.call(func() {
		for _, b := range frames {
			s.stack.Input(b, frame.Offload{}, s.loop.Now())
		}
		s.udp.flush()
	})
}

func TestLimitsOfTheStackAreTheForwarders(t *testing.T) {
	w := newWorld(t, queues(1), withConfig(func(c *Config) {
		c.Limits.Stack = netstack.Limits{
			Reassembly: reassembly.Limits{Datagrams: 2},
			Neighbors:  neighbor.Limits{Entries: 3},
			ICMPErrors: 1, ICMPBurst: 5,
		}
	}))
	for id := range uint16(5) {
		b := datagramFrame(800, 64)
		header.PutIPv4(b[14:], header.IPv4Fields{Source: netip.MustParseAddr(sandbox4), Destination: netip.MustParseAddr(outside4),
			Protocol: header.ProtocolUDP, TTL: 64, PayloadLen: 808, MoreFragments: true, ID: id})
		w.inject(b)
	}
	for range 20 {
		w.inject(datagramFrame(10, 1))
	}
	s := w.fwd.shards[0]
	s.call(func() { // what is on the link but not there is asked for
		for i := range byte(10) {
			s.stack.SendUDP(netip.MustParseAddrPort(gateway4+":1"), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, 10 + i}), 1), []byte("x"), 0)
		}
	})
	st := w.fwd.Stats().Stacks[0]
	if st.Reassembly4.Evicted != 3 || st.ReassemblyBytes == 0 || st.ReassemblyBytes > 3*4096 {
		t.Errorf("reassembly: %+v, %d bytes; want 3 of 5 datagrams evicted", st.Reassembly4, st.ReassemblyBytes)
	}
	if st.Drops.TTL != 20 || st.Drops.ICMPRateLimited < 13 { // a second or two may pass
		t.Errorf("%d out of hops, %d of the errors not sent, want all but 5 of 20", st.Drops.TTL, st.Drops.ICMPRateLimited)
	}
	if st.ARP.Evicted != 7 {
		t.Errorf("neighbours: %+v, want 7 of 10 evicted", st.ARP)
	}
}

func TestMemoryOfAllConnectionsIsBounded(t *testing.T) {
	const limit = 1 << 20
	const connections = 8
	w := newWorld(t, queues(1), withConfig(func(c *Config) { c.Limits.Engine = tcp.Limits{BufferBytes: limit, IdleBytes: 1} }))
	for range connections { // each would hold a megabyte, both ways
		near, far := w.connect(outside4)
		for _, c := range []net.Conn{near, far} {
			go func() {
				c.SetWriteDeadline(time.Now().Add(60 * time.Second))
				for b := make([]byte, 1<<20); ; {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}
	most := 0
	for start := time.Now(); time.Since(start) < 1500*time.Millisecond || most < limit && time.Since(start) < 30*time.Second; time.Sleep(10 * time.Millisecond) {
		most = max(most, w.fwd.Stats().Stacks[0].TCP.BufferBytes)
	}
	// A buffer's first piece of memory is always granted: nobody comes to a halt.
	if first := connections * 2 * 64 << 10; most < limit || most > limit+first {
		t.Errorf("%d bytes, want %d and what %d connections begin with", most, limit, connections)
	}
}

func TestMemoryOfDatagramsHeldForTheNextTargetIsBounded(t *testing.T) {
	w := newWorld(t, withConfig(func(c *Config) { c.Limits.HeldBytes = 2500 }), publishing("127.0.0.1::53/udp"))
	w.listenPacket("udp4", sandbox4+":53") // takes datagrams and never answers
	to := w.bound[0].Host.String()
	for range 5 {
		c, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(make([]byte, 1000))
	}
	for start := time.Now(); w.fwd.Stats().UDP.Published < 5; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("%+v, want 5 flows", w.fwd.Stats().UDP)
		}
	}
	if st := w.fwd.Stats().UDP; st.HeldBytes != 2000 || st.NotHeld != 3 {
		t.Errorf("%+v, want two datagrams held and three not", st)
	}
	w.age(30 * time.Second)
	if st := w.fwd.Stats().UDP; st.HeldBytes != 0 || st.Open != 0 {
		t.Errorf("%+v, want nothing held when the flows are gone", st)
	}
}

func TestDatagramsHandedOverAreBounded(t *testing.T) {
	w := newWorld(t, queues(2), withConfig(func(c *Config) { c.Limits.HandoverDatagrams = 3 }))
	a, b := w.fwd.shards[0], w.fwd.shards[1]
	d := netstack.Datagram{Src: netip.MustParseAddrPort(sandbox4 + ":1"), Dst: netip.MustParseAddrPort(noRoute4 + ":9"), TTL: 64}
	b.call(func() { b.claim(flowKey{header.ProtocolUDP, udpKey{d.Src, d.Dst}}) })
	busy, ready := make(chan struct{}), make(chan struct{})
	b.loop.Post(func() { close(ready); <-busy })
	<-ready
	a.call(func() {
		for range 10 {
			a.Datagram(&d)
		}
	})
	close(busy)
	// What the sandbox's kernel has to say by itself may be handed over, too.
	if st := w.fwd.Stats(); st.HandedOver < 3 || st.HandoverLost != 7 {
		t.Errorf("%d handed over, %d lost, want 3 at least, and 7", st.HandedOver, st.HandoverLost)
	}
}

// busy is a flow that always has more to move than one turn allows.
type busy struct {
	*shard
	rounds int
}

func (b *busy) work() (again bool) {
	b.rounds++
	b.moved += bytesPerFlow
	return true
}

func TestOneTurnIsBoundedAndNobodyIsPassedOver(t *testing.T) {
	s := new(shard)
	flows := make([]*busy, 7)
	for i := range flows {
		flows[i] = &busy{shard: s}
		s.schedule(flows[i])
	}
	const turns = 70
	for range turns {
		s.workReady()
		if s.moved > bytesPerTurn+bytesPerFlow {
			t.Fatalf("%d bytes in one turn", s.moved)
		}
	}
	// Two flows to a turn, and of seven the last one alone.
	for i, f := range flows {
		if n := f.rounds; n < turns/4 || n > turns/4+1 {
			t.Errorf("flow %d has worked %d times in %d turns, want %d", i, n, turns, turns/4)
		}
	}
}
