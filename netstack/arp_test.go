package netstack

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

// arp makes an ARP message; the sender's MAC is the sandbox's.
func arp(op header.ARPOp, sender, target string) []byte {
	b := make([]byte, header.ARPLen)
	header.PutARP(b, header.ARPFields{Op: op, SenderMAC: sandboxMAC, SenderIP: ip(sender), TargetIP: ip(target)})
	return b
}

// inARP has the sandbox send an ARP message to everyone.
func (l *lab) inARP(m []byte) {
	l.Input(ethernet(sandboxMAC, header.Broadcast, m), frame.Offload{}, l.at)
}

// strangers leaves out the static neighbours.
func strangers(c *Config) { c.Neighbors = nil }

func TestARPAnswersForOwnAddressesOnly(t *testing.T) {
	l := newLab(t, nil)
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.2"))
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.3"))
	l.inARP(arp(header.ARPRequest, "0.0.0.0", "10.0.2.2")) // a probe (RFC 5227)
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.77"))
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.100")) // an announcement
	l.inARP(arp(header.ARPRequest, "9.9.9.9", "10.0.2.2"))      // not on this link
	l.inARP(arp(header.ARPReply, "127.0.0.1", "10.0.2.2"))
	l.inARP(arp(header.ARPRequest, "127.0.0.1", "127.0.0.1"))
	l.inARP(arp(9, "10.0.2.100", "10.0.2.2"))
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.2")[:27])
	l.expect(
		"arp 10.0.2.2 is at 02:00:00:00:00:02 tells 10.0.2.100",
		"arp 10.0.2.3 is at 02:00:00:00:00:02 tells 10.0.2.100",
		"arp 10.0.2.2 is at 02:00:00:00:00:02 tells 0.0.0.0",
	)
}

// A server on 127.0.0.1 that is published is the first to answer through the
// link, and the sandbox asks in its name.
func TestARPRequestFromLoopbackIsAnsweredAndNotLearned(t *testing.T) {
	l := newLab(t, strangers)
	l.inARP(arp(header.ARPRequest, "127.0.0.1", "10.0.2.2"))
	l.expect("arp 10.0.2.2 is at 02:00:00:00:00:02 tells 127.0.0.1")
	if n := l.Stats().NeighborsNow; n != 0 {
		t.Errorf("%d neighbours learned", n)
	}
}

func TestARPConflictIsCounted(t *testing.T) {
	l := newLab(t, nil)
	l.inARP(arp(header.ARPReply, "10.0.2.2", "10.0.2.100"))
	l.expect()
	if n := l.Stats().Drops.AddressConflicts; n != 1 {
		t.Fatalf("%d conflicts", n)
	}
}

func TestFirstDatagramWaitsForARP(t *testing.T) {
	l := newLab(t, strangers)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("one"), 0)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("four"), 0)
	l.expect("arp who has 10.0.2.100 tell 10.0.2.2 [to ff:ff:ff:ff:ff:ff]")
	l.pass(time.Second)
	l.expect("arp who has 10.0.2.100 tell 10.0.2.2 [to ff:ff:ff:ff:ff:ff]")
	l.in(arp(header.ARPReply, "10.0.2.100", "10.0.2.2"))
	l.expect("9.9.9.9:53 > 10.0.2.100:4000 udp 3", "9.9.9.9:53 > 10.0.2.100:4000 udp 4")
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("five!"), 0)
	l.expect("9.9.9.9:53 > 10.0.2.100:4000 udp 5")
}

func TestOffLinkDestinationsGoToTheNextHop(t *testing.T) {
	l := newLab(t, strangers)
	l.SendUDP(port("9.9.9.9:53"), port("172.17.0.2:4000"), []byte("x"), 0)
	l.expect("arp who has 10.0.2.100 tell 10.0.2.2 [to ff:ff:ff:ff:ff:ff]")
	l.SendUDP(port("9.9.9.9:53"), port("127.0.0.1:80"), []byte("x"), 0)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.50:4000"), []byte("x"), 0)
	l.expect("arp who has 10.0.2.50 tell 10.0.2.2 [to ff:ff:ff:ff:ff:ff]")
	l.in(arp(header.ARPReply, "10.0.2.100", "10.0.2.2"))
	l.expect("9.9.9.9:53 > 172.17.0.2:4000 udp 1", "9.9.9.9:53 > 127.0.0.1:80 udp 1")
}

func TestWithoutNextHopNothingIsSent(t *testing.T) {
	l := newLab(t, func(c *Config) { c.NextHop6 = netip.Addr{} })
	l.SendUDP(port("[2001:db8::1]:53"), port("[2001:db8::2]:53"), []byte("x"), 0)
	l.expect()
	if n := l.Stats().Drops.NoRoute; n != 1 {
		t.Fatalf("%d without route", n)
	}
}

func TestWhoAsksIsKnownFromThen(t *testing.T) {
	l := newLab(t, strangers)
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.2"))
	l.expect("arp 10.0.2.2 is at 02:00:00:00:00:02 tells 10.0.2.100")
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("x"), 0)
	// It goes at once, and the address is verified beside it.
	l.expect("arp who has 10.0.2.100 tell 10.0.2.2", "9.9.9.9:53 > 10.0.2.100:4000 udp 1")
}

func TestARPDoesNotOverwriteUnasked(t *testing.T) {
	l := newLab(t, strangers)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("x"), 0)
	l.in(arp(header.ARPReply, "10.0.2.100", "10.0.2.2"))
	l.out()
	b := make([]byte, header.ARPLen)
	header.PutARP(b, header.ARPFields{Op: header.ARPReply, SenderMAC: header.MAC{2, 6, 6, 6, 6, 6},
		SenderIP: ip("10.0.2.100"), TargetIP: ip("10.0.2.2")})
	l.in(b)
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.100:4000"), []byte("x"), 0)
	l.expect("arp who has 10.0.2.100 tell 10.0.2.2", "9.9.9.9:53 > 10.0.2.100:4000 udp 1")
}

func TestFlowLearnsThatItsNextHopIsNotThere(t *testing.T) {
	l := newLab(t, strangers)
	s := &stream{}
	if _, err := l.TCP().Dial(port("192.0.2.7:5000"), port("10.0.2.100:80"), s); err != nil {
		t.Fatal(err)
	}
	l.Flush()
	l.SendUDP(port("192.0.2.7:5000"), port("10.0.2.100:80"), []byte("x"), 0)
	l.pass(time.Millisecond)
	l.SendUDP(port("[2001:db8::7]:5000"), port("[fd00::100]:80"), []byte("x"), 0)
	l.pass(3 * time.Second)
	l.told("unreachable 192.0.2.7:5000 > 10.0.2.100:80 reason 2 mtu 0",
		"unreachable [2001:db8::7]:5000 > [fd00::100]:80 reason 2 mtu 0")
	for range 200 { // TCP insists, for the neighbour may yet come up (RFC 5461 §4)
		l.pass(time.Second)
		l.Flush()
		l.out()
	}
	if !errors.Is(s.err, tcp.ErrUnreachable) {
		t.Fatalf("the attempt ended with %v", s.err)
	}
}

func TestARPFromABroadcastAddressIsIgnored(t *testing.T) {
	l := newLab(t, nil)
	l.inARP(arp(header.ARPRequest, "10.0.2.255", "10.0.2.2"))
	l.expect()
}

func TestFramesOnHoldOutliveTheirSendersMemory(t *testing.T) {
	for _, c := range [][2]string{{"9.9.9.9:53", "10.0.2.100:4000"}, {"[2001:db8::1]:53", "[fd00::100]:4000"}} {
		p := newPair(t, nil)
		got := received(t, p.ends[sandboxEnd], c[1])
		memory := []byte("copied")
		p.ends[gatewayEnd].SendUDP(port(c[0]), port(c[1]), memory, 0)
		copy(memory, "XXXXXX") // before Reclaim
		p.lose = func(int, []byte) bool { return true }
		stays := []byte("stayed")
		p.ends[gatewayEnd].SendUDPNoCopy(port(c[0]), port(c[1]), stays, 0)
		p.carry()
		copy(stays, "XXXXXX") // after Reclaim
		p.lose = nil
		p.run(10*time.Second, func() bool { return len(*got) == 2 })
		compare(t, "received", *got, []string{"copied", "stayed"})
	}
}
