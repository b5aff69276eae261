package netstack

import (
	"net/netip"
	"strings"
	"testing"

	"sbxnet/netstack/header"
)

// answerAll stands for all of 10.0.2.0/24 and fd00::/64 but the sandbox.
func answerAll(c *Config) { c.AnswerAll = true }

func TestAnswerAllAnswersARPForTheWorldButTheSandbox(t *testing.T) {
	l := newLab(t, answerAll)
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.77"))
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "9.9.9.9"))     // routed without a gateway
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "169.254.1.1")) //
	l.inARP(arp(header.ARPRequest, "0.0.0.0", "10.0.2.77"))      // a probe: the sandbox is about to take it
	l.inARP(arp(header.ARPRequest, "10.0.2.77", "10.0.2.77"))    // and has
	l.inARP(arp(header.ARPRequest, "10.0.2.7", "10.0.2.100"))    // one station asks for the other
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "10.0.2.255"))
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "127.0.0.1"))
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "224.0.0.1"))
	l.expect(
		"arp 10.0.2.77 is at 02:00:00:00:00:02 tells 10.0.2.100",
		"arp 9.9.9.9 is at 02:00:00:00:00:02 tells 10.0.2.100",
		"arp 169.254.1.1 is at 02:00:00:00:00:02 tells 10.0.2.100",
	)
}

func TestAnswerAllAnswersNeighborSolicitations(t *testing.T) {
	ask := func(l *lab, from, target string) []string {
		f := header.NeighborFields{Target: ip(target), LinkAddress: sandboxMAC}
		src := ip(from)
		if src.IsUnspecified() {
			f.LinkAddress = header.MAC{}
		}
		l.in(nd(header.PutNeighborSolicitation, f, src, header.SolicitedNode(ip(target))))
		var got []string
		for _, b := range l.out() {
			got = append(got, describe(b))
		}
		return got
	}
	l := newLab(t, answerAll)
	for target, answered := range map[string]bool{
		"fd00::77": true, "2001:db8::1": true,
		"fd00::100": false, // the sandbox's own
		"fe80::77":  false, // any station's
		"::1":       false,
	} {
		if got := ask(l, "fd00::100", target); (len(got) == 1) != answered {
			t.Errorf("%s: %q", target, got)
		}
	}
	const proxy = "router false solicited true override false"
	if got := ask(l, "fd00::100", "fd00::77"); len(got) != 1 || !strings.Contains(got[0], proxy) {
		t.Errorf("%q, want a proxy's answer", got)
	}
	if got := ask(l, "::", "fd00::77"); len(got) > 0 {
		t.Errorf("duplicate address detection of an address not ours: %q", got)
	}
}

func TestAnswerAllHandsOnWhatIsForTheLink(t *testing.T) {
	l := newLab(t, answerAll)
	l.in(udp("10.0.2.100:4000", "10.0.2.77:53", "x"), udp("[fd00::100]:4000", "[fd00::77]:53", "x"))
	l.told("udp 10.0.2.100:4000 > 10.0.2.77:53 1", "udp [fd00::100]:4000 > [fd00::77]:53 1")
	l.in(udp("10.0.2.100:4000", "10.0.2.255:53", "x"), udp("[fd00::100]:4000", "[fe80::77]:53", "x"))
	l.told()
}

func TestNoEchoIsSilentAboutOwnAddressesToo(t *testing.T) {
	l := newLab(t, func(c *Config) { c.NoEcho = true })
	l.in(echo("10.0.2.100", "10.0.2.2", "x"), echo("10.0.2.100", "9.9.9.9", "x"), echo("fd00::100", "fd00::2", "x"))
	l.expect()
	l.told()
}

func TestPrefixesOnTheLinkNeedNoAddressOfTheStack(t *testing.T) {
	l := newLab(t, func(c *Config) {
		c.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")} // a gateway outside
		c.OnLink = []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}
		c.Neighbors = nil
	})
	l.SendUDP(port("9.9.9.9:53"), port("10.0.2.50:4000"), []byte("x"), 0)
	l.expect("arp who has 10.0.2.50 tell 192.0.2.1 [to ff:ff:ff:ff:ff:ff]")
	l.inARP(arp(header.ARPRequest, "10.0.2.100", "192.0.2.1"))
	l.expect("arp 192.0.2.1 is at 02:00:00:00:00:02 tells 10.0.2.100")
}
