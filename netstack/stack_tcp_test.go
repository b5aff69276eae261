package netstack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

// stream is one side of a connection that sends what it is given and collects
// what comes.
type stream struct {
	send, got   []byte
	established bool
	eof, closed bool
	err         error
}

func (s *stream) Established(c *tcp.Conn) { s.established = true; s.Writable(c) }

func (s *stream) Data(c *tcp.Conn, p []byte) int {
	s.got = append(s.got, p...)
	return len(p)
}

func (s *stream) EOF(c *tcp.Conn) { s.eof = true }

func (s *stream) Writable(c *tcp.Conn) {
	s.send = s.send[c.Write(s.send):]
	if len(s.send) == 0 {
		c.CloseWrite()
		return
	}
	c.Reserve(1<<20, nil) // falls short, so that Writable is called again
}

func (s *stream) Closed(c *tcp.Conn, err error) { s.closed, s.err = true, err }

// accepting is a Handler that accepts every connection with a stream.
type accepting struct {
	lab
	conns  map[string]*stream // by remote > local
	answer func() []byte
}

func (a *accepting) OpenTCP(c *tcp.Conn) {
	s := &stream{send: a.answer()}
	a.conns[c.RemoteAddr().String()+" > "+c.LocalAddr().String()] = s
	c.Accept(s)
}

// relayPair is a pair whose gateway accepts every connection and answers it.
func relayPair(t *testing.T, answer []byte, change func(int, *Config)) (*pair, *accepting) {
	a := &accepting{conns: map[string]*stream{}, answer: func() []byte { return answer }}
	return newPair(t, func(i int, c *Config) {
		if i == gatewayEnd {
			c.Handler = a
		}
		if change != nil {
			change(i, c)
		}
	}), a
}

func TestTCPThroughTwoStacks(t *testing.T) {
	up, down := pattern(3<<20), bytes.Repeat(pattern(1000), 2000)
	for _, gso := range []bool{true, false} {
		for _, c := range [][2]string{
			{"10.0.2.100:0", "9.9.9.9:80"}, {"[fd00::100]:0", "[2001:db8::1]:80"}, {"10.0.2.100:0", "10.0.2.2:80"}} {
			p, a := relayPair(t, down, func(_ int, c *Config) {
				if !gso {
					c.Caps.TSO4, c.Caps.TSO6, c.Caps.USO = false, false, false
				}
			})
			s := &stream{send: up}
			conn, err := p.ends[sandboxEnd].TCP().Dial(port(c[0]), port(c[1]), s)
			if err != nil {
				t.Fatal(err)
			}
			p.run(time.Minute, func() bool { return s.eof })
			far := a.conns[conn.LocalAddr().String()+" > "+c[1]]
			if far == nil || !bytes.Equal(s.got, down) || !bytes.Equal(far.got, up) {
				t.Fatalf("%v, gso %v: the bytes are not those sent", c, gso)
			}
			for _, e := range p.ends {
				if d := e.Stats().Drops; d != (Drops{}) {
					t.Errorf("%v, gso %v: %+v", c, gso, d)
				}
			}
		}
	}
}

func TestTCPSurvivesALossyLinkAndARPLoss(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		up, down := pattern(200000), pattern(300000)
		p, a := relayPair(t, down, func(_ int, c *Config) { c.Caps.TSO4 = false; c.Seed[3] = byte(seed) })
		p.lose = func(int, []byte) bool { return rng.IntN(50) == 0 }
		s := &stream{send: up}
		if _, err := p.ends[sandboxEnd].TCP().Dial(port("10.0.2.100:1000"), port("9.9.9.9:80"), s); err != nil {
			t.Fatal(err)
		}
		p.run(10*time.Minute, func() bool {
			far := a.conns["10.0.2.100:1000 > 9.9.9.9:80"]
			return s.eof && far != nil && far.eof
		})
		if far := a.conns["10.0.2.100:1000 > 9.9.9.9:80"]; !bytes.Equal(s.got, down) || !bytes.Equal(far.got, up) {
			t.Fatalf("seed %d: the bytes are not those sent", seed)
		}
	}
}

func TestFirstSYNWaitsForTheNextHop(t *testing.T) {
	l := newLab(t, strangers)
	if _, err := l.TCP().Dial(port("192.0.2.7:5000"), port("10.0.2.100:80"), &stream{}); err != nil {
		t.Fatal(err)
	}
	l.Flush()
	l.expect("arp who has 10.0.2.100 tell 10.0.2.2 [to ff:ff:ff:ff:ff:ff]")
	l.at += 1000
	l.in(arp(header.ARPReply, "10.0.2.100", "10.0.2.2"))
	l.expect("192.0.2.7:5000 > 10.0.2.100:80 tcp SYN 0")
}

func TestTCPHeaderTemplateFollowsTheNeighbor(t *testing.T) {
	l := newLab(t, strangers)
	r := tcp.Route{Local: port("9.9.9.9:80"), Remote: port("10.0.2.100:1")}
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.2"))
	l.out()
	send := func() header.MAC {
		f, b := l.AppendTCP(&r, header.TCPMinLen, 0)
		if f == nil {
			return header.MAC{}
		}
		header.PutTCP(b, header.TCPFields{})
		return header.MAC(f.Header[:6])
	}
	if got := send(); got != sandboxMAC {
		t.Fatalf("sent to %v", got)
	}
	l.batch.Reset()
	if got := send(); got != sandboxMAC || l.batch.Len() != 1 {
		t.Fatalf("from the template: to %v", got)
	}
	l.pass(10 * time.Second) // the station that asked does not answer: it is gone
	l.batch.Reset()
	if got := send(); got == sandboxMAC {
		t.Fatal("the template outlived the neighbour")
	}
}

func TestTCPWithoutAnyoneListeningIsReset(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Handler = nil })
	l.in(segment("10.0.2.100:1", "9.9.9.9:80", header.SYN), segment("[fd00::100]:1", "[2001:db8::1]:80", header.SYN))
	l.Flush()
	l.expect("9.9.9.9:80 > 10.0.2.100:1 tcp RST|ACK 0", "[2001:db8::1]:80 > [fd00::100]:1 tcp RST|ACK 0")
}

func TestTCPHeldThenRefused(t *testing.T) {
	for r, want := range map[tcp.Refusal][]string{
		tcp.Reset:           {"9.9.9.9:80 > 10.0.2.100:1 tcp RST|ACK 0"},
		tcp.HostUnreachable: {"10.0.2.2 > 10.0.2.100 icmp 3/1 rest 0 about 10.0.2.100:1 > 9.9.9.9:80 protocol 6"},
		tcp.Silent:          nil,
	} {
		l := newLab(t, nil)
		var held *tcp.Conn
		l.open = func(c *tcp.Conn) { held = c }
		l.in(segment("10.0.2.100:1", "9.9.9.9:80", header.SYN), segment("10.0.2.100:1", "9.9.9.9:80", header.SYN))
		l.Flush()
		l.expect()
		l.told("open 10.0.2.100:1 > 9.9.9.9:80")
		held.Refuse(r)
		l.Flush()
		l.expect(want...)
	}
}

func TestTCPWithBadChecksumIsDropped(t *testing.T) {
	p := segment("10.0.2.100:1", "9.9.9.9:80", header.SYN)
	p[len(p)-1] ^= 1
	dropped(t, p, func(d *Drops) uint64 { return d.TransportCheck })
	dropped(t, packetOf(ip("10.0.2.100"), ip("9.9.9.9"), header.ProtocolTCP, make([]byte, 19)), func(d *Drops) uint64 { return d.Malformed })
}

func TestSYNFromLoopbackNeverOpens(t *testing.T) {
	l := newLab(t, nil)
	if _, err := l.TCP().Dial(port("192.0.2.7:5000"), port("127.0.0.1:80"), &stream{}); err != nil {
		t.Fatal(err)
	}
	l.Flush()
	l.expect("192.0.2.7:5000 > 127.0.0.1:80 tcp SYN 0")
	l.in(segment("127.0.0.1:80", "192.0.2.7:5000", header.SYN), segment("127.0.0.1:81", "192.0.2.7:5000", header.SYN|header.ACK))
	if n := l.Stats().Drops.MartianSource; n != 2 {
		t.Fatalf("%d martians", n)
	}
	l.in(segment("127.0.0.1:80", "192.0.2.7:5000", header.RST|header.ACK))
	if s := l.Stats(); s.TCPIn != 1 {
		t.Fatalf("the connection's own segment did not get through: %+v", s)
	}
}

func TestICMPErrorEndsAConnectionAttempt(t *testing.T) {
	l := newLab(t, nil)
	s := &stream{}
	if _, err := l.TCP().Dial(port("192.0.2.7:5000"), port("10.0.2.100:80"), s); err != nil {
		t.Fatal(err)
	}
	l.Flush()
	syn := l.out()[0]
	l.in(icmp("10.0.2.100", "192.0.2.7", header.ICMPv4Unreachable, header.ICMPv4PortUnreachable, 0, syn[14:14+28]))
	l.Flush()
	l.pass(time.Millisecond)
	if !s.closed || !errors.Is(s.err, tcp.ErrRefused) && !errors.Is(s.err, tcp.ErrUnreachable) {
		t.Fatalf("closed %v, %v", s.closed, s.err)
	}
}

func TestClientsAddressIsSeenInTheSandbox(t *testing.T) {
	p := newPair(t, nil)
	l, err := p.ends[sandboxEnd].TCP().Listen(port("10.0.2.100:80"), 8)
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{send: []byte("GET")}
	if _, err := p.ends[gatewayEnd].TCP().Dial(port("192.0.2.7:5000"), port("10.0.2.100:80"), s); err != nil {
		t.Fatal(err)
	}
	p.run(time.Minute, func() bool { return s.established })
	c, ok := l.Accept()
	if !ok || c.RemoteAddr() != port("192.0.2.7:5000") {
		t.Fatalf("accepted %v from %v", ok, c.RemoteAddr())
	}
	server := &stream{send: []byte("200")}
	c.SetHandler(server)
	server.Writable(c)
	p.run(time.Minute, func() bool { return s.eof && server.eof })
	if string(s.got) != "200" || string(server.got) != "GET" {
		t.Fatalf("%q, %q", s.got, server.got)
	}
}

func TestSegmentSizeOfASuperSegmentReachesTCP(t *testing.T) {
	for kind, p := range map[frame.GSOType][]byte{
		frame.GSOTCPv4: segment("10.0.2.100:1", "9.9.9.9:80", header.ACK),
		frame.GSOTCPv6: segment("[fd00::100]:1", "[2001:db8::1]:80", header.ACK),
	} {
		p = append(p, make([]byte, 5000)...)
		if kind == frame.GSOTCPv4 {
			header.IPv4(p[:20]).SetTotalLen(len(p))
		} else {
			header.IPv6(p).SetPayloadLen(len(p) - header.IPv6Len)
		}
		super := ethernet(sandboxMAC, stackMAC, p)
		l := newLab(t, nil)
		l.Input(super, frame.Offload{NeedsChecksum: true, GSOType: kind, GSOSize: 1400}, 0)
		if got := l.segment.SegmentSize; got != 1400 {
			t.Errorf("type %d: segment size %d", kind, got)
		}
		l.Input(super, frame.Offload{NeedsChecksum: true, GSOType: kind, GSOSize: 5000}, 0)
		if got := l.segment.SegmentSize; got != 0 {
			t.Errorf("type %d: one segment, and its size is %d", kind, got)
		}
	}
}

func TestECNCodepointOfASegmentIsInItsIPHeader(t *testing.T) {
	l := newLab(t, nil)
	for _, remote := range []string{"10.0.2.100:1", "[fd00::100]:1"} {
		r := tcp.Route{Local: port("9.9.9.9:80"), Remote: port(remote)}
		if r.Remote.Addr().Is6() {
			r.Local = port("[2001:db8::1]:80")
		}
		for _, ecn := range []uint8{0, header.ECT0, 0, header.CE} { // the first makes the template
			r.ECN = ecn
			f, _ := l.AppendTCP(&r, header.TCPMinLen, 100)
			got := header.IPv6(f.Header[14:]).ECN()
			if r.Remote.Addr().Is4() {
				h := header.IPv4(f.Header[14:34])
				if got = h.ECN(); !h.ChecksumValid() || h.TotalLen() != 140 {
					t.Errorf("%v: bad header %x", remote, []byte(h))
				}
			}
			if got != ecn {
				t.Errorf("%v: codepoint %d, want %d", remote, got, ecn)
			}
		}
		l.batch.Reset()
	}
}

// badLink is a link that damages, loses, repeats and reorders frames.
func badLink(rng *rand.Rand) func([]byte) [][]byte {
	var late []byte // a frame that comes after the next one
	return func(data []byte) (out [][]byte) {
		switch rng.IntN(40) {
		case 0:
			return nil
		case 1:
			data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		case 2:
			data = data[:rng.IntN(len(data))]
		case 3:
			out = append(out, data)
		case 4:
			if late == nil {
				late = data
				return nil
			}
		}
		out = append(out, data)
		if late != nil {
			out, late = append(out, late), nil
		}
		return out
	}
}

func TestTCPIsExactOverALinkThatDamagesFrames(t *testing.T) {
	var damaged uint64
	for seed := range uint64(6) {
		local, remote := "10.0.2.100:1000", "9.9.9.9:80"
		if seed%2 == 1 {
			local, remote = "[fd00::100]:1000", "[2001:db8::1]:80"
		}
		up, down := pattern(100000), pattern(150000)
		p, a := relayPair(t, down, func(i int, c *Config) {
			c.Caps, c.Seed[3] = frame.Capabilities{}, byte(seed)
			if i == gatewayEnd {
				c.Neighbors = labConfig().Neighbors
			} else {
				c.Neighbors = []Neighbor{{ip("10.0.2.2"), stackMAC}, {ip("fd00::2"), stackMAC}}
			}
		})
		p.mangle = badLink(rand.New(rand.NewPCG(seed, 2)))
		s := &stream{send: up}
		if _, err := p.ends[sandboxEnd].TCP().Dial(port(local), port(remote), s); err != nil {
			t.Fatal(err)
		}
		p.run(10*time.Minute, func() bool {
			far := a.conns[local+" > "+remote]
			return s.eof && far != nil && far.eof
		})
		if far := a.conns[local+" > "+remote]; !bytes.Equal(s.got, down) || !bytes.Equal(far.got, up) {
			t.Fatalf("seed %d: the bytes are not those sent", seed)
		}
		damaged += p.ends[gatewayEnd].Stats().Drops.TransportCheck
	}
	if damaged == 0 {
		t.Error("no seed damaged a segment: the test has shown nothing")
	}
}
