package netstack

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

func TestUDPEndpointsComeBeforeTheHandler(t *testing.T) {
	l := newLab(t, nil)
	var got []string
	take := func(name string) func(*Datagram) {
		return func(d *Datagram) { got = append(got, name+" "+d.Src.String()+" "+string(d.Payload)) }
	}
	dns, err := l.BindUDP(port("10.0.2.3:53"), take("dns"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.BindUDP(port("0.0.0.0:53"), take("any")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.BindUDP(port("192.0.2.7:5000"), take("outside")); err != nil {
		t.Fatal(err)
	}
	l.in(udp("10.0.2.100:1", "10.0.2.3:53", "a"), udp("10.0.2.100:1", "10.0.2.2:53", "b"),
		udp("10.0.2.100:1", "9.9.9.9:53", "c"), // any means our own
		udp("10.0.2.100:1", "192.0.2.7:5000", "d"), udp("[fd00::100]:1", "[fd00::2]:53", "e"))
	dns.Close()
	dns.Close()
	l.in(udp("10.0.2.100:1", "10.0.2.3:53", "f"))
	compare(t, "endpoints", got, []string{"dns 10.0.2.100:1 a", "any 10.0.2.100:1 b", "outside 10.0.2.100:1 d", "any 10.0.2.100:1 f"})
	l.told("udp 10.0.2.100:1 > 9.9.9.9:53 1", "udp [fd00::100]:1 > [fd00::2]:53 1")
}

func TestBindUDPRefusesWhatCannotBe(t *testing.T) {
	l := newLab(t, nil)
	a, err := l.BindUDP(port("10.0.2.3:0"), func(*Datagram) {})
	if err != nil || a.Addr().Port() < firstDynamicPort {
		t.Fatalf("%v, %v", a, err)
	}
	if _, err := l.BindUDP(a.Addr(), nil); !errors.Is(err, tcp.ErrInUse) {
		t.Errorf("bound twice: %v", err)
	}
	if _, err := l.BindUDP(port("224.0.0.1:53"), nil); !errors.Is(err, tcp.ErrAddress) {
		t.Errorf("bound to a group: %v", err)
	}
	if _, err := l.BindUDP(port("[::ffff:10.0.2.3]:53"), nil); !errors.Is(err, tcp.ErrAddress) {
		t.Errorf("bound to a mapped address: %v", err)
	}
	for range dynamicPorts - 1 {
		if _, err := l.BindUDP(port("10.0.2.3:0"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.BindUDP(port("10.0.2.3:0"), nil); !errors.Is(err, tcp.ErrNoPorts) {
		t.Errorf("more ports than there are: %v", err)
	}
}

func TestUDPWithoutTakerIsRefused(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Handler = nil })
	l.in(udp("10.0.2.100:1", "10.0.2.2:53", "a"), udp("[fd00::100]:1", "[fd00::3]:53", "a"))
	l.expect(
		"10.0.2.2 > 10.0.2.100 icmp 3/3 rest 0 about 10.0.2.100:1 > 10.0.2.2:53 protocol 17",
		"fd00::3 > fd00::100 icmp 1/4 rest 0 about [fd00::100]:1 > [fd00::3]:53 protocol 17",
	)
}

func TestUDPChecksumRules(t *testing.T) {
	with := func(p []byte, sum uint16) []byte {
		p = bytes.Clone(p)
		at := 20
		if p[0]>>4 == 6 {
			at = 40
		}
		p[at+6], p[at+7] = byte(sum>>8), byte(sum)
		return p
	}
	v4, v6 := udp("10.0.2.100:1", "9.9.9.9:53", "x"), udp("[fd00::100]:1", "[2001:db8::1]:53", "x")
	partial := frame.Offload{NeedsChecksum: true, ChecksumOffset: 6}
	valid := frame.Offload{ChecksumValid: true}
	for name, c := range map[string]struct {
		packet []byte
		off    frame.Offload
		good   bool
	}{
		"v4 right":                            {v4, frame.Offload{}, true},
		"v4 wrong":                            {with(v4, 1), frame.Offload{}, false},
		"v4 none":                             {with(v4, 0), frame.Offload{}, true},
		"v6 right":                            {v6, frame.Offload{}, true},
		"v6 wrong":                            {with(v6, 1), frame.Offload{}, false},
		"v6 none":                             {with(v6, 0), frame.Offload{}, false},
		"v6 none, though the link vouches":    {with(v6, 0), valid, false},
		"left to us by the sandbox's kernel":  {with(v4, 1), partial, true},
		"left to us, and its sum is 0":        {with(v6, 0), partial, true},
		"wrong by the look, the link vouches": {with(v4, 1), valid, true},
	} {
		l := newLab(t, nil)
		l.Input(ethernet(sandboxMAC, stackMAC, c.packet), c.off, 0)
		if good := len(l.seen) == 1; good != c.good {
			t.Errorf("%s: taken %v, want %v", name, good, c.good)
		}
		if !c.good && l.Stats().Drops.TransportCheck != 1 {
			t.Errorf("%s: %+v", name, l.Stats().Drops)
		}
	}
}

func TestUDPLengthTrimsAndIsDistrusted(t *testing.T) {
	length := func(n int) []byte {
		p := udp("10.0.2.100:1", "9.9.9.9:53", "0123456789")
		p[24], p[25], p[26], p[27] = byte(n>>8), byte(n), 0, 0
		return p
	}
	l := newLab(t, nil)
	l.in(length(12), length(8))
	l.told("udp 10.0.2.100:1 > 9.9.9.9:53 4", "udp 10.0.2.100:1 > 9.9.9.9:53 0")
	malformed := func(d *Drops) uint64 { return d.Malformed }
	for _, n := range []int{0, 7, 19, 65535} {
		dropped(t, length(n), malformed)
	}
	dropped(t, udp("10.0.2.100:0", "9.9.9.9:53", "x"), malformed)
	dropped(t, udp("10.0.2.100:1", "9.9.9.9:0", "x"), malformed)
}

func TestTrainFromTheSandboxIsHandedOverWhole(t *testing.T) {
	l := newLab(t, nil)
	off := frame.Offload{NeedsChecksum: true, GSOType: frame.GSOUDP, GSOSize: 1000}
	train := ethernet(sandboxMAC, stackMAC, udp("10.0.2.100:1", "9.9.9.9:53", strings.Repeat("x", 2500)))
	l.Input(train, off, 0)
	one := ethernet(sandboxMAC, stackMAC, udp("10.0.2.100:1", "9.9.9.9:53", strings.Repeat("x", 1000)))
	l.Input(one, off, 0)
	off.GSOSize = 0
	l.Input(one, off, 0)
	l.told("udp 10.0.2.100:1 > 9.9.9.9:53 2500 by 1000", "udp 10.0.2.100:1 > 9.9.9.9:53 1000", "udp 10.0.2.100:1 > 9.9.9.9:53 1000")
}

func TestTrainToTheSandboxIsOneFrameWhereTheLinkCuts(t *testing.T) {
	l := newLab(t, nil)
	payload := []byte(strings.Repeat("x", 2500))
	for _, dst := range []string{"10.0.2.100:4000", "[fd00::100]:4000"} {
		src := "9.9.9.9:53"
		if dst[0] == '[' {
			src = "[2001:db8::1]:53"
		}
		l.SendUDP(port(src), port(dst), payload, 1000)
		f := l.batch.Frames()[0]
		if f.GSOType != frame.GSOUDP || f.GSOSize != 1000 || !f.NeedsChecksum || int(f.HeaderLen) != len(f.Header) ||
			int(f.ChecksumStart) != len(f.Header)-8 || f.ChecksumOffset != 6 {
			t.Errorf("offload %+v", f.Offload)
		}
		l.expect(src + " > " + dst + " udp 2500")
	}
	// One that fits into a datagram is no train.
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), payload[:1000], 1000)
	if f := l.batch.Frames()[0]; f.GSOType != frame.GSONone || f.GSOSize != 0 {
		t.Errorf("offload %+v", f.Offload)
	}
	l.expect("9.9.9.9:53 > 10.0.2.100:4000 udp 1000")
}

func TestTrainToTheSandboxIsCutHereWhereTheLinkCannot(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Caps = frame.Capabilities{} })
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte(strings.Repeat("x", 2500)), 1000)
	one := "9.9.9.9:53 > 10.0.2.100:4000 udp "
	l.expect(one+"1000", one+"1000", one+"500")
}

func TestLongTrainsAreCutToWhatKernelsTake(t *testing.T) {
	l := newLab(t, nil)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), make([]byte, 100*100), 100)
	one := "9.9.9.9:53 > 10.0.2.100:4000 udp "
	l.expect(one+"6400", one+"3600") // 64 datagrams at most
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), make([]byte, 100*1400), 1400)
	l.expect(one+"64400", one+"64400", one+"11200") // 64 KiB at most
}

func TestTrainOfDatagramsLongerThanTheMTUIsFragmented(t *testing.T) {
	l := newLab(t, nil)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), make([]byte, 4000), 2000)
	if n := len(l.out()); n != 4 {
		t.Fatalf("%d frames, want 2 datagrams of 2 fragments", n)
	}
}

func TestUDPThatNoPacketHoldsIsDropped(t *testing.T) {
	l := newLab(t, nil)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), make([]byte, 65508), 0)
	l.SendUDP(port("[2001:db8::1]:53"), port("[fd00::100]:4000"), make([]byte, 65528), 0)
	l.SendUDP(port("9.9.9.9:53"), port("[fd00::100]:4000"), nil, 0)
	l.SendUDP(port("9.9.9.9:53"), port("224.0.0.1:4000"), nil, 0)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:0"), nil, 0)
	l.expect()
	if d := l.Stats().Drops; d.TooBig != 2 || d.NoRoute != 3 {
		t.Fatalf("%+v", d)
	}
}

func TestNoCopyPayloadIsNotCopied(t *testing.T) {
	l := newLab(t, nil)
	payload := []byte("payload")
	l.SendUDPNoCopy(port("9.9.9.9:53"), port("10.0.2.100:4000"), payload, 0)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), payload, 0)
	f := l.batch.Frames()
	if &f[0].Payload[0][0] != &payload[0] || &f[1].Payload[0][0] == &payload[0] {
		t.Fatal("copied the wrong one")
	}
	l.out()
}

func TestLoopbackSourceIsTakenForFlowsThatWeOpened(t *testing.T) {
	l := newLab(t, nil)
	answer := udp("127.0.0.1:80", "192.0.2.7:5000", "answer")
	refusal := icmp("127.0.0.1", "192.0.2.7", header.ICMPv4Unreachable, header.ICMPv4PortUnreachable, 0,
		udp("192.0.2.7:5000", "127.0.0.1:80", "x"))
	l.in(answer, refusal)
	l.told()
	l.SendUDP(port("192.0.2.7:5000"), port("127.0.0.1:80"), []byte("question"), 0)
	l.expect("192.0.2.7:5000 > 127.0.0.1:80 udp 8")
	l.in(answer, refusal)
	l.told("udp 127.0.0.1:80 > 192.0.2.7:5000 6", "unreachable 192.0.2.7:5000 > 127.0.0.1:80 reason 3 mtu 0")
	l.in(udp("127.0.0.1:81", "192.0.2.7:5000", "x"), udp("127.0.0.1:80", "192.0.2.7:5001", "x"),
		udp("127.0.0.2:80", "192.0.2.7:5000", "x"), echo("127.0.0.1", "192.0.2.7", "x"))
	l.told()
	l.expect()
}

func TestLoopbackFlowsAreBounded(t *testing.T) {
	var l loopbackFlows
	f := loopbackFlow{port("192.0.2.7:5000"), port("127.0.0.1:80"), header.ProtocolUDP}
	l.note(f)
	for i := range 3 * loopbackFlowsMax {
		g := f
		g.local = netip.AddrPortFrom(ip("192.0.2.8"), uint16(i))
		g.remote = netip.AddrPortFrom(ip("127.0.0.1"), uint16(i>>16))
		l.note(g)
		if i%1000 == 0 && !l.has(f) {
			t.Fatalf("a flow in use was forgotten after %d others", i)
		}
	}
	n := len(l.young) + len(l.old)
	if n > 2*loopbackFlowsMax {
		t.Fatalf("%d flows remembered", n)
	}
	if int(l.forgotten) != 3*loopbackFlowsMax+1-n { // each but f was noted once, and f never forgotten
		t.Fatalf("%d counted as forgotten, %d remembered of %d", l.forgotten, n, 3*loopbackFlowsMax+1)
	}
}

func TestClosedEndpointLeavesItsSuccessorAlone(t *testing.T) {
	l := newLab(t, nil)
	first, err := l.BindUDP(port("10.0.2.3:53"), func(*Datagram) { t.Error("the first endpoint is closed") })
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	got := 0
	if _, err := l.BindUDP(port("10.0.2.3:53"), func(*Datagram) { got++ }); err != nil {
		t.Fatal(err)
	}
	first.Close()
	l.in(udp("10.0.2.100:1", "10.0.2.3:53", "x"))
	if got != 1 {
		t.Fatalf("the second endpoint got %d datagrams", got)
	}
}
