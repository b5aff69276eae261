package netstack

import (
	"net/netip"
	"testing"

	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

func TestTimeExceededComesFromTheRouterThatSaysSo(t *testing.T) {
	l := newLab(t, nil)
	a, b := port("10.0.2.100:4000"), port("9.9.9.9:33434")
	c, d := port("[fd00::100]:4000"), port("[2001:db8::1]:33434")
	r4, r6 := ip("198.51.100.7"), ip("2001:db8:7::1")
	l.SendUDPTimeExceeded(a, b, 32, r4)
	l.SendUDPTimeExceeded(c, d, 32, r6)
	l.SendUDPTimeExceeded(a, b, 32, netip.Addr{})
	l.SendUDPTimeExceeded(a, b, 32, r6) // makes no sense
	l.SendEchoTimeExceeded(a.Addr(), b.Addr(), 7, 1, r4)
	l.SendEchoTimeExceeded(c.Addr(), d.Addr(), 7, 1, r6)
	l.expect(
		"198.51.100.7 > 10.0.2.100 icmp 11/0 rest 0 about 10.0.2.100:4000 > 9.9.9.9:33434 protocol 17",
		"2001:db8:7::1 > fd00::100 icmp 3/0 rest 0 about [fd00::100]:4000 > [2001:db8::1]:33434 protocol 17",
		"10.0.2.2 > 10.0.2.100 icmp 11/0 rest 0 about 10.0.2.100:4000 > 9.9.9.9:33434 protocol 17",
		"198.51.100.7 > 10.0.2.100 icmp 11/0 rest 0 about 10.0.2.100:0 > 9.9.9.9:0 protocol 1",
		"2001:db8:7::1 > fd00::100 icmp 3/0 rest 0 about [fd00::100]:0 > [2001:db8::1]:0 protocol 58",
	)
}

func TestSYNThatRanOutOfHopsIsRefusedByTheRouter(t *testing.T) {
	l := newLab(t, nil)
	var seen []uint8
	l.open = func(c *tcp.Conn) {
		seen = append(seen, l.InputTTL())
		if l.InputTTL() < 9 {
			l.RefuseTimeExceeded(c, ip("198.51.100.7"))
		} else {
			c.Refuse(tcp.HostUnreachable)
		}
	}
	l.in(ttl(3, segment("10.0.2.100:1", "9.9.9.9:80", header.SYN)), ttl(9, segment("10.0.2.100:2", "9.9.9.9:80", header.SYN)))
	l.Flush()
	l.expect(
		"198.51.100.7 > 10.0.2.100 icmp 11/0 rest 0 about 10.0.2.100:1 > 9.9.9.9:80 protocol 6",
		"10.0.2.2 > 10.0.2.100 icmp 3/1 rest 0 about 10.0.2.100:2 > 9.9.9.9:80 protocol 6",
	)
	if len(seen) != 2 || seen[0] != 3 || seen[1] != 9 {
		t.Errorf("TTLs %v, want 3 and 9", seen)
	}
	if n := l.TCP().Stats().Connections; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
