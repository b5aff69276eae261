package netstack

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// detecting has a stack look for duplicates of its addresses, and tell.
func detecting(told *[]string) func(*Config) {
	return func(c *Config) {
		c.NoDuplicateDetection = false
		c.AddressConflict = func(a netip.Addr, station header.MAC) { *told = append(*told, fmt.Sprint(a, " ", station)) }
	}
}

var nobody = netip.IPv6Unspecified()

// probeFor is somebody's question whether a is free.
func probeFor(a string, nonce [header.NonceLen]byte) []byte {
	return nd(ns, header.NeighborFields{Target: ip(a), Nonce: nonce}, nobody, header.SolicitedNode(ip(a)))
}

func claimOf(a string) []byte {
	return nd(na, header.NeighborFields{Target: ip(a), LinkAddress: sandboxMAC, Override: true}, ip(a), header.AllNodes)
}

// Each address is asked for once, when the link shows that it is there, and the
// stack uses them meanwhile: nothing waits.
func TestOwnAddressesAreProbedWhenTheFirstFrameComes(t *testing.T) {
	var told []string
	l := newLab(t, detecting(&told))
	if d := l.NextDeadline(); d != timer.Never {
		t.Errorf("a timer is armed for %v before the first frame", d)
	}
	l.pass(time.Minute)
	l.expect()
	l.in(echo("fd00::100", "fd00::2", "hi"))
	probe := func(a, group, station string) string {
		return ":: > " + group + " ns " + a + " with a nonce [ttl 255] [to " + station + "]"
	}
	l.expect(
		probe("fd00::2", "ff02::1:ff00:2", "33:33:ff:00:00:02"),
		probe("fd00::3", "ff02::1:ff00:3", "33:33:ff:00:00:03"),
		probe("fe80::ff:fe00:2", "ff02::1:ff00:2", "33:33:ff:00:00:02"),
		`fd00::2 > fd00::100 echo reply id 7 seq 1 "hi"`,
	)
	if d := l.NextDeadline(); d != timer.Never {
		t.Errorf("an idle stack is woken at %v", d)
	}
	l.in(echo("fd00::100", "fd00::2", "hi"))
	l.expect(`fd00::2 > fd00::100 echo reply id 7 seq 1 "hi"`)
	if n := l.Stats().Drops.AddressConflicts; n != 0 || told != nil {
		t.Errorf("%d conflicts, %v", n, told)
	}
}

func TestStackWithoutIPv6ProbesNothing(t *testing.T) {
	var told []string
	l := newLab(t, func(c *Config) {
		detecting(&told)(c)
		c.Addresses, c.NextHop6 = c.Addresses[:2], netip.Addr{}
	})
	l.in(echo("10.0.2.100", "10.0.2.2", "hi"))
	l.expect(`10.0.2.2 > 10.0.2.100 echo reply id 7 seq 1 "hi"`)
}

// While an address may turn out to be a duplicate, an answer for it overrides
// nothing (RFC 4429 §3.3).
func TestAnswersOverrideNothingWhileAddressesAreOptimistic(t *testing.T) {
	var told []string
	l := newLab(t, detecting(&told))
	sandbox := ip("fd00::100")
	question := nd(ns, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC}, sandbox, ownGroup)
	answer := func(override bool) string {
		return fmt.Sprintf("fd00::2 > fd00::100 na fd00::2 at 02:00:00:00:00:02 router true solicited true override %v valid true [ttl 255]", override)
	}
	l.in(question)
	l.expectAfterProbes(answer(false))
	l.at = l.at.Add(dadTime - 1)
	l.in(question)
	l.expect(answer(false))
	l.at = l.at.Add(1)
	l.in(question)
	l.expect(answer(true))
}

// expectAfterProbes compares what was sent behind the probes for three addresses.
func (l *lab) expectAfterProbes(want ...string) {
	l.Helper()
	var got []string
	for _, f := range l.out()[3:] {
		got = append(got, describe(f))
	}
	compare(l.T, "sent", got, want)
}

func TestProbeThatComesBackIsNoConflict(t *testing.T) {
	var told []string
	l := newLab(t, detecting(&told))
	l.in(echo("fd00::100", "fd00::2", "hi"))
	back := l.out()[0]
	copy(back[6:12], sandboxMAC[:]) // a bridge in between may put its own address there
	l.Input(back, frame.Offload{}, l.at)
	l.expect()
	if n := l.Stats().Drops.AddressConflicts; n != 0 || told != nil {
		t.Fatalf("%d conflicts, %v", n, told)
	}
	// Another's probe for the same address has another nonce, or none.
	l.at = l.at.Add(dadTime)
	l.in(probeFor("fd00::2", [header.NonceLen]byte{1}), probeFor("fd00::2", [header.NonceLen]byte{}))
	defence := "fd00::2 > ff02::1 na fd00::2 at 02:00:00:00:00:02 router true solicited false override true valid true [ttl 255] [to 33:33:00:00:00:01]"
	l.expect(defence, defence)
	compare(t, "owner", told, []string{"fd00::2 02:00:00:00:01:00", "fd00::2 02:00:00:00:01:00"})
	if n := l.Stats().Drops.AddressConflicts; n != 2 {
		t.Errorf("%d conflicts counted, want 2", n)
	}
}

// Only an advertisement to all may come from one of our addresses; all else is a
// martian.
func TestOwnAddressAsSourceIsAMartianUnlessItIsClaimed(t *testing.T) {
	group := header.SolicitedNode(ip("fd00::3"))
	for name, p := range map[string][]byte{
		"solicitation":          nd(ns, header.NeighborFields{Target: ip("fd00::3"), LinkAddress: sandboxMAC}, ip("fd00::2"), group),
		"answer to us":          nd(na, header.NeighborFields{Target: ip("fd00::2"), LinkAddress: sandboxMAC, Solicited: true}, ip("fd00::2"), ip("fd00::3")),
		"came through a router": ttl(254, claimOf("fd00::2")),
		"echo to all":           echo("fd00::2", "ff02::1", "hi"),
	} {
		t.Run(name, func(t *testing.T) { dropped(t, p, func(d *Drops) uint64 { return d.MartianSource }) })
	}
}

// Both may go on claiming an address; that must not become a storm.
func TestClaimedAddressIsDefendedAtIntervals(t *testing.T) {
	var told []string
	l := newLab(t, detecting(&told))
	defence := func(a string, override bool) string {
		return fmt.Sprintf("%s > ff02::1 na %s at 02:00:00:00:00:02 router true solicited false override %v valid true [ttl 255] [to 33:33:00:00:00:01]", a, a, override)
	}
	l.at = timer.Instant(time.Hour)
	l.in(claimOf("fd00::2"))
	l.expectAfterProbes(defence("fd00::2", false))
	l.at = l.at.Add(defendInterval - 1)
	l.in(claimOf("fd00::2"), claimOf("fd00::3")) // each address by itself
	l.expect(defence("fd00::3", true))
	l.at = l.at.Add(1)
	l.in(claimOf("fd00::2"))
	l.expect(defence("fd00::2", true))
	if n := l.Stats().Drops.AddressConflicts; n != 4 || len(told) != 4 {
		t.Errorf("%d conflicts counted, %d told, want 4", n, len(told))
	}
	l.in(echo("fd00::100", "fd00::2", "hi")) // the address stays in use
	l.expect(`fd00::2 > fd00::100 echo reply id 7 seq 1 "hi"`)
}

func TestIPv4ConflictIsTold(t *testing.T) {
	var told []string
	l := newLab(t, detecting(&told))
	b := make([]byte, header.ARPLen)
	header.PutARP(b, header.ARPFields{Op: header.ARPRequest, SenderMAC: sandboxMAC, SenderIP: ip("10.0.2.2"), TargetIP: ip("10.0.2.2")})
	f := make([]byte, header.EthernetLen, header.EthernetLen+len(b))
	header.PutEthernet(f, header.EthernetFields{Destination: header.Broadcast, Source: sandboxMAC, Type: header.EtherTypeARP})
	l.Input(append(f, b...), frame.Offload{}, l.at)
	compare(t, "owner", told, []string{"10.0.2.2 02:00:00:00:01:00"})
}
