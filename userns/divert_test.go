package userns

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kinds of a client's socket and its connection.
var kinds = map[string]struct {
	to     netip.AddrPort
	mapped bool
}{"IPv4": {there4, false}, "IPv6": {there6, false}, "IPv4 by an IPv6 socket": {there4, true}}

// noise is much more than windows and buffers hold.
func noise() []byte {
	b := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func TestDivertedConnectionGoesOnOverLoopback(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			sb := runningSandbox(t, linked())
			ns, out := inside(sb), watch(t, sb)
			look(t, sb, known)
			all := connections(t, ns, k.to, k.mapped, 2)
			c, other := all[0], all[1]
			// It is sending while it is diverted.
			_, err := c.client.Write([]byte("first "))
			must(t, err)
			out.awaits(t, c)
			server, client := connOf(t, c.repaired(t, ns)), connOf(t, c.client)
			must(t, sb.Divert(c.from, c.to))
			out.read(t)
			out.tcp = nil
			got := make([]byte, 6)
			_, err = io.ReadFull(server, got)
			if string(got) != "first " {
				t.Errorf("got %q, %v", got, err)
			}
			say(t, noise(), client, server)
			say(t, noise(), server, client)
			// One between the same addresses still goes to the link.
			_, err = other.client.Write([]byte("anyone there?"))
			must(t, err)
			out.awaits(t, other)
			if slices.Contains(out.tcp, flow{c.from, c.to}) {
				t.Errorf("%s to %s is on the link", c.from, c.to)
			}
		})
	}
}

// rulesFor are those that Divert has made.
const rulesFor = "(ip rule; ip -6 rule) | grep -w tcp || true"

func TestDivertRefusesWhatItCouldNotHold(t *testing.T) {
	for name, to := range map[string]netip.AddrPort{"IPv4": there4, "IPv6": there6} {
		t.Run(name, func(t *testing.T) {
			sb := runningSandbox(t, linked())
			ns := inside(sb)
			all := connections(t, ns, to, false, 4)
			c, bound, closing := all[0], all[1], all[2]
			must(t, unix.BindToDevice(fdOf(t, bound.client), "tap0"))
			must(t, unix.Shutdown(fdOf(t, closing.client), unix.SHUT_WR))
			here := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(c.from.Addr(), port) }
			udp, err := sb.Listen([]Socket{{UDP: true, Addr: here(7000)}})
			must(t, err)
			defer closeAll(udp)
			must(t, unix.Connect(fdOf(t, udp[0]), sockaddr(to)))
			listening(t, sb, here(7001).String())
			listening(t, sb, here(7002).String())
			local := plainClient(t, ns, here(7003), false)
			if err := unix.Connect(fdOf(t, local), sockaddr(here(7002))); err != unix.EINPROGRESS {
				must(t, err)
			}
			for _, r := range []struct {
				from, to netip.AddrPort
				want     string
			}{
				{here(9), to, "no socket"},
				{c.from, netip.AddrPortFrom(to.Addr(), 81), "no socket"},
				{c.from, netip.AddrPortFrom(to.Addr().Next(), to.Port()), "no socket"},
				{netip.AddrPortFrom(c.from.Addr().Next(), c.from.Port()), to, "no socket"},
				{bound.from, to, "no socket"},
				{here(7000), to, "no socket"},
				{here(7001), to, "no socket"},
				{closing.from, to, "not established"},
				{to, c.from, "route"},                                // the server's end, and its client is here
				{here(7003), here(7002), "a rule comes before ours"}, // over lo anyway
				{netip.AddrPort{}, to, "not the address"},
				{c.from, netip.AddrPort{}, "not the address"},
				{here(0), to, "not the address"},
				{here(1), netip.AddrPortFrom(netip.IPv6Unspecified(), 1), "not the address"},
				{here(1), netip.MustParseAddrPort("[::ffff:198.51.100.7]:80"), "in the form of an IPv6 one"},
				{here(1), netip.MustParseAddrPort("[fe80::1%tap0]:80"), "zone"},
				{here4Port, there6, "different families"},
				{here6Port, there4, "different families"},
			} {
				err := sb.Divert(r.from, r.to)
				if err == nil || !strings.Contains(err.Error(), r.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s to %s: %v, want %q", r.from, r.to, err, r.want)
				}
			}
			if out := look(t, sb, rulesFor); out != "" {
				t.Errorf("rules are left:\n%s", out)
			}
			must(t, sb.Divert(c.from, c.to))
		})
	}
}

func TestDivertWithoutANetworkOrAFamily(t *testing.T) {
	only4, host, detached, ended := linked(), unlinked(), linked(), runningSandbox(t, unlinked())
	only4.Addresses, only4.Gateways = only4.Addresses[:1], only4.Gateways[:1]
	host.Network = NetworkHost
	detached.DetachNetNS = name(t)
	must(t, ended.Close())
	for want, sb := range map[string]*Sandbox{
		"no socket": runningSandbox(t, only4), "the host's network": runningSandbox(t, host),
		"detached": runningSandbox(t, detached), "in the sandbox: ": ended,
	} {
		err := sb.Divert(here6Port, there6)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

func TestDivertedConnectionsAreBounded(t *testing.T) {
	sb := runningSandbox(t, linked())
	ns := inside(sb)
	all := append(connections(t, ns, there4, false, maxDiverted/2), connections(t, ns, there6, false, maxDiverted/2+1)...)
	last := all[maxDiverted]
	for _, c := range all[:maxDiverted] {
		must(t, sb.Divert(c.from, c.to))
	}
	must(t, sb.Divert(all[0].from, all[0].to)) // which is none more
	if err := sb.Divert(last.from, last.to); err == nil || !strings.Contains(err.Error(), "64") {
		t.Errorf("one too many: %v", err)
	}
	for range 2 {
		must(t, sb.Undivert(all[3].from, all[3].to))
	}
	must(t, sb.Undivert(last.from, last.to)) // which was never diverted
	must(t, sb.Undivert(netip.AddrPort{}, netip.AddrPort{}))
	must(t, sb.Divert(last.from, last.to))
	if n := strings.Count(look(t, sb, rulesFor), "tcp"); n != maxDiverted {
		t.Errorf("there are %d rules", n)
	}
	for _, c := range all {
		must(t, sb.Undivert(c.from, c.to))
	}
	if out := look(t, sb, rulesFor); out != "" {
		t.Errorf("rules are left:\n%s", out)
	}
}

func TestUndivertedConnectionGoesToTheLink(t *testing.T) {
	sb := runningSandbox(t, linked())
	out := watch(t, sb)
	look(t, sb, known)
	for _, to := range []netip.AddrPort{there4, there6} {
		c := connections(t, inside(sb), to, false, 1)[0]
		must(t, sb.Divert(c.from, c.to))
		must(t, sb.Undivert(c.from, c.to))
		_, err := c.client.Write([]byte("anyone there?"))
		must(t, err)
		out.awaits(t, c)
	}
}

// Whatever the command does to rules, to divert it once more makes good.
func TestDivertIsMended(t *testing.T) {
	sb := runningSandbox(t, linked())
	ns := inside(sb)
	var all []connection
	for _, to := range []netip.AddrPort{there4, there6} {
		c := connections(t, ns, to, false, 1)[0]
		c.server = c.repaired(t, ns)
		must(t, sb.Divert(c.from, c.to))
		all = append(all, c)
	}
	l := listening(t, sb, "10.0.2.100:81")
	for _, spoil := range []string{
		"ip rule flush; ip rule add pref 32766 lookup main; ip -6 rule flush; ip -6 rule add pref 32766 lookup main",
		"ip rule add lookup main; ip -6 rule add lookup main", // before ours, where no priority is given
		"ip rule add pref 20 lookup main; ip -6 rule add pref 20 lookup main",
		fmt.Sprintf("ip route flush table %d; ip -6 route flush table %[1]d", SocketMark),
	} {
		look(t, sb, spoil)
		for _, c := range all {
			must(t, sb.Divert(c.from, c.to))
			_, err := c.client.Write([]byte("still"))
			must(t, err)
			b := make([]byte, 10)
			until(t, "what was sent", func() bool { n, _ := unix.Read(fdOf(t, c.server), b); return n == 5 })
		}
		// Sockets and Divert agree on the order of their rules.
		meets(t, sb, l, "203.0.113.7", "10.0.2.100:81")
		if n := strings.Count(look(t, sb, rulesFor), "tcp"); n != len(all) || t.Failed() {
			t.Fatalf("%d rules after %s:\n%s", n, spoil, look(t, sb, routing))
		}
	}
	// What is over is still diverted until somebody says otherwise.
	for _, c := range all {
		must(t, unix.Shutdown(fdOf(t, c.client), unix.SHUT_WR))
		must(t, sb.Divert(c.from, c.to))
	}
	// Where none of ours may be, it says so, and leaves none.
	look(t, sb, "ip rule add pref 1 lookup main")
	err := sb.Divert(all[0].from, all[0].to)
	if err == nil || !strings.Contains(err.Error(), "priority 1") {
		t.Errorf("without room for it: %v", err)
	}
	if out := look(t, sb, "ip rule | grep -w tcp || true"); out != "" {
		t.Errorf("rules are left:\n%s", out)
	}
}

// After an error there is no rule, whatever the error is about.
func TestDivertThatIsNotMendedIsUndone(t *testing.T) {
	sb := runningSandbox(t, linked())
	for _, to := range []netip.AddrPort{there4, there6} {
		all := connections(t, inside(sb), to, false, 2)
		gone, bound := all[0], all[1]
		must(t, sb.Divert(gone.from, gone.to))
		must(t, sb.Divert(bound.from, bound.to))
		must(t, unix.SetsockoptLinger(fdOf(t, gone.client), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
		must(t, gone.client.Close())
		must(t, unix.BindToDevice(fdOf(t, bound.client), "tap0"))
		for _, c := range all {
			if err := sb.Divert(c.from, c.to); err == nil || !strings.Contains(err.Error(), "no socket") {
				t.Errorf("%s to %s: %v", c.from, c.to, err)
			}
		}
		if out := look(t, sb, rulesFor); out != "" {
			t.Errorf("rules are left:\n%s", out)
		}
	}
}

// A datagram from outside in the name of another address of the sandbox's, such as its
// bridge's, is none of the sandbox's own, but while something is diverted.
func TestTheLinkTakesNothingFromOwnAddressesBeforeAndAfter(t *testing.T) {
	sb := runningSandbox(t, linked())
	all := connections(t, inside(sb), there4, false, 2)
	accepts := func() string { t.Helper(); return look(t, sb, "cat /proc/sys/net/ipv4/conf/tap0/accept_local") }
	for _, v := range []string{"0", "1"} { // as somebody else has set it
		look(t, sb, "echo "+v+" > /proc/sys/net/ipv4/conf/tap0/accept_local")
		for i, step := range []struct {
			do   func(from, to netip.AddrPort) error
			c    connection
			want string
		}{{sb.Divert, all[0], "1"}, {sb.Divert, all[1], "1"}, {sb.Undivert, all[0], "1"}, {sb.Undivert, all[1], v}} {
			must(t, step.do(step.c.from, step.c.to))
			if got := strings.TrimSpace(accepts()); got != step.want {
				t.Errorf("%s before, after step %d: %s, want %s", v, i, got, step.want)
			}
		}
	}
}

// A mark of the client's own may lead elsewhere, by a rule that came later.
func TestDivertHeedsTheMarkOfTheClient(t *testing.T) {
	sb := runningSandbox(t, linked())
	for _, to := range []netip.AddrPort{there4, there6} {
		all := connections(t, inside(sb), to, false, 2)
		must(t, sb.Divert(all[0].from, all[0].to))
		must(t, unix.SetsockoptInt(fdOf(t, all[1].client), unix.SOL_SOCKET, unix.SO_MARK, 7))
		family := "-4"
		if to.Addr().Is6() {
			family = "-6"
		}
		look(t, sb, "ip "+family+" rule add pref 50 fwmark 7 lookup main")
		must(t, sb.Divert(all[1].from, all[1].to))
		if out := look(t, sb, "ip "+family+" rule"); !strings.Contains(out, "\n49:") {
			t.Errorf("not before the rule for its mark:\n%s", out)
		}
	}
}

func TestAttachmentDivertsAndTakesItBack(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Attachment) error{
		"closed":         func(_ *testing.T, a *Attachment) error { return a.Close() },
		"sbxnet is gone": func(_ *testing.T, a *Attachment) error { return a.conn.Close() },
		"handed over":    func(t *testing.T, a *Attachment) error { return handOver(t, a).Close() },
	} {
		t.Run(name, func(t *testing.T) {
			theirs := makeNamespace(t, "", rootInside...)
			a := attached(t, attachTo(theirs))
			pid, before := a.PID(), theirs.run(t, settings)
			ns := namespace{a, theirs.run}
			for _, k := range kinds {
				c := connections(t, ns, k.to, k.mapped, 1)[0]
				server := connOf(t, c.repaired(t, ns))
				must(t, a.Divert(c.from, c.to))
				client := connOf(t, c.client)
				say(t, []byte("a question"), client, server)
				say(t, []byte("an answer"), server, client)
			}
			if n := strings.Count(theirs.run(t, rulesFor), "tcp"); n != len(kinds) {
				t.Errorf("there are %d rules", n)
			}
			must(t, end(t, a))
			gone(t, pid)
			if out := theirs.run(t, settings); out != before {
				t.Errorf("after it\n%sbefore\n%s", out, before)
			}
			if out := theirs.run(t, "ip route show table all; ip -6 route show table all"); strings.Contains(out, fmt.Sprint(SocketMark)) {
				t.Errorf("its table is left:\n%s", out)
			}
			if err := a.Divert(here4Port, there4); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("after it: %v", err)
			}
		})
	}
}

// A firewall of the sandbox's that sends a connection elsewhere comes after the
// routing of what its client has: a rule for what is on the link would not hold.
func TestDivertRefusesATranslatedConnection(t *testing.T) {
	sb := runningSandbox(t, linked())
	from := netip.AddrPortFrom(here4, 7000)
	client := plainClient(t, inside(sb), from, false) // with a firewall it gives none
	out, err := joinCommand(t, sb.PID(), "exec 2>&1; iptables -t nat -A OUTPUT -d 203.0.113.9 -p tcp -j DNAT --to-destination "+there4.String()).Output()
	if err != nil {
		skip(t, "no address translation: %v: %s", err, out)
	}
	look(t, sb, "ip addr add 198.51.100.7/32 dev lo")
	l := listening(t, sb, there4.String())
	if err := unix.Connect(fdOf(t, client), sockaddr(netip.MustParseAddrPort("203.0.113.9:80"))); err != unix.EINPROGRESS {
		must(t, err)
	}
	_ = l.SetDeadline(time.Now().Add(answered))
	server, err := l.Accept()
	must(t, err)
	defer server.Close()
	look(t, sb, "ip addr del 198.51.100.7/32 dev lo")
	if got := server.RemoteAddr().String(); got != from.String() {
		t.Fatalf("the client is %s", got)
	}
	if err := sb.Divert(from, there4); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("%v", err)
	}
}
