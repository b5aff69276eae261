package netstack

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// pair is two stacks on one link, in memory: the gateway, and one that plays
// the sandbox.
type pair struct {
	*testing.T
	ends [2]*end
	at   timer.Instant
	// lose, if set, says which frames the link loses; to is the receiver.
	lose func(to int, data []byte) bool
	// mangle, if set, is a link without offload: it gets complete frames and
	// says what comes of each at the other end.
	mangle func(data []byte) [][]byte
}

type end struct {
	*Stack
	batch frame.Batch
}

const (
	gatewayEnd = 0
	sandboxEnd = 1
)

func newPair(t *testing.T, change func(which int, c *Config)) *pair {
	t.Helper()
	p := &pair{T: t}
	for i := range p.ends {
		c := labConfig()
		c.Neighbors = nil
		c.Seed[1] = byte(i)
		if i == sandboxEnd {
			c.HardwareAddr = sandboxMAC
			c.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00::100/64")}
			c.NextHop4, c.NextHop6 = ip("10.0.2.2"), ip("fd00::2")
		}
		if change != nil {
			change(i, &c)
		}
		p.ends[i] = &end{}
		c.Output = &p.ends[i].batch
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		p.ends[i].Stack = s
	}
	return p
}

// carry moves frames until both ends are silent, within a bound. The offload
// metadata travels along, as on a link in memory.
func (p *pair) carry() (frames int) {
	p.Helper()
	for range 100000 {
		moved := 0
		for i, e := range p.ends {
			e.Flush()
			for _, f := range e.batch.Frames() {
				moved++
				p.deliver(1-i, &f)
			}
			e.batch.Reset()
			e.Reclaim()
		}
		if moved == 0 {
			return frames
		}
		frames += moved
	}
	p.Fatal("the two stacks talk without end")
	return frames
}

// deliver takes one frame to an end of the link.
func (p *pair) deliver(to int, f *frame.Frame) {
	data := f.AppendTo(nil)
	switch {
	case p.mangle != nil:
		for _, data := range p.mangle(finish(p.T, f)) {
			p.ends[to].Input(data, frame.Offload{}, p.at)
		}
	case p.lose == nil || !p.lose(to, data):
		p.ends[to].Input(data, f.Offload, p.at)
	}
}

// run carries frames and lets time go by, from deadline to deadline, until done
// or the time is over.
func (p *pair) run(limit time.Duration, done func() bool) {
	p.Helper()
	for end := p.at.Add(limit); ; {
		p.carry()
		if done() {
			return
		}
		next := min(p.ends[0].NextDeadline(), p.ends[1].NextDeadline())
		if p.at >= end || next == timer.Never {
			p.Fatalf("not done at %v, next deadline %v", time.Duration(p.at), time.Duration(next))
		}
		p.at = max(p.at+1, min(next, end))
		for _, e := range p.ends {
			e.Tick(p.at)
		}
	}
}

// received binds a UDP port and collects the payloads that come.
func received(t *testing.T, e *end, local string) *[]string {
	t.Helper()
	got := new([]string)
	if _, err := e.BindUDP(port(local), func(d *Datagram) { *got = append(*got, string(d.Payload)) }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFragmentsOfLongDatagramsComeTogetherAgain(t *testing.T) {
	for _, mtu := range []int{1280, 1500, 9000} {
		p := newPair(t, func(_ int, c *Config) { c.MTU = mtu })
		got4, got6 := received(t, p.ends[1], "10.0.2.100:4000"), received(t, p.ends[1], "[fd00::100]:4000")
		p.ends[0].SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("first, so that ARP is done"), 0)
		p.ends[0].SendUDP(port("[2001:db8::1]:53"), port("[fd00::100]:4000"), []byte("first"), 0)
		p.carry()
		for _, n := range []int{mtu - 28, mtu - 27, mtu, 2 * mtu, 5000, 40000, 65507} {
			want := string(pattern(n))
			for _, stays := range []bool{false, true} {
				*got4, *got6 = nil, nil
				p.ends[0].sendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte(want), 0, stays)
				p.ends[0].sendUDP(port("[2001:db8::1]:53"), port("[fd00::100]:4000"), []byte(want), 0, stays)
				for _, f := range p.ends[0].batch.Frames() {
					if f.Len() > mtu+header.EthernetLen {
						t.Fatalf("MTU %d: a frame of %d bytes", mtu, f.Len())
					}
				}
				p.carry()
				if !slices.Equal(*got4, []string{want}) || !slices.Equal(*got6, []string{want}) {
					t.Fatalf("MTU %d, %d bytes: %d and %d datagrams came, or others", mtu, n, len(*got4), len(*got6))
				}
			}
		}
		if d := p.ends[1].Stats().Drops; d != (Drops{}) {
			t.Errorf("MTU %d: %+v", mtu, d)
		}
	}
}

func TestManyFragmentsWaitForTheNextHopTogether(t *testing.T) {
	p := newPair(t, nil)
	got := received(t, p.ends[1], "10.0.2.100:4000")
	want := string(pattern(20000))
	p.ends[0].SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte(want), 0)
	p.carry()
	if !slices.Equal(*got, []string{want}) {
		t.Fatalf("%d datagrams", len(*got))
	}
}

func TestLongEchoIsAnsweredInFragments(t *testing.T) {
	p := newPair(t, func(i int, c *Config) { c.MTU = 1500 - 100*i })
	var e outgoing
	e.src, e.dst, e.protocol, e.hopLimit, e.payload = ip("10.0.2.100"), ip("10.0.2.2"), header.ProtocolICMP, 64, pattern(5000)
	header.PutICMPv4(e.head[:], header.ICMPFields{Type: header.ICMPv4EchoRequest, Rest: header.EchoRest(1, 1)}, e.payload)
	p.ends[1].sendFragmented(&e)
	p.carry()
	s := p.ends[0].Stats()
	if s.DatagramsReassembled != 1 || s.EchoRepliesOut != 1 || s.FragmentsOut != 4 {
		t.Fatalf("%+v", s)
	}
	if got := p.ends[1].Stats(); got.DatagramsReassembled != 1 || got.Drops.ICMPIgnored != 1 || got.Drops.TransportCheck != 0 {
		t.Fatalf("the reply: %+v", got)
	}
}

func TestTrainCrossesTheLinkWhole(t *testing.T) {
	p := newPair(t, nil)
	var sizes []int
	if _, err := p.ends[1].BindUDP(port("[fd00::100]:4000"), func(d *Datagram) {
		sizes = append(sizes, len(d.Payload), d.SegmentSize)
	}); err != nil {
		t.Fatal(err)
	}
	p.ends[0].SendUDP(port("[2001:db8::1]:53"), port("[fd00::100]:4000"), pattern(5000), 1200)
	p.carry()
	if !slices.Equal(sizes, []int{5000, 1200}) {
		t.Fatalf("came as %v", sizes)
	}
}

// pattern is n bytes, each telling its place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
