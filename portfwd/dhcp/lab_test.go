package dhcp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

var (
	serverMAC = header.MAC{2, 0, 0, 0, 0, 2}
	alice     = header.MAC{2, 0, 0, 0, 1, 0}
	bob       = header.MAC{2, 0, 0, 0, 1, 1}
	carol     = header.MAC{2, 0, 0, 0, 1, 2}
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func labConfig() Config {
	return Config{
		IPv4: Family{Prefix: netip.MustParsePrefix("10.0.2.0/24"), Gateway: ip("10.0.2.2"), Sandbox: ip("10.0.2.100"),
			DNS: []netip.Addr{ip("10.0.2.3")}},
		IPv6: Family{Prefix: netip.MustParsePrefix("fd00::/64"), Gateway: ip("fd00::2"), Sandbox: ip("fd00::100"),
			DNS: []netip.Addr{ip("fd00::3")}},
		HardwareAddr: serverMAC, MTU: 1500, Lease: time.Hour,
		Hostname: "box", Domain: "sbxnet.internal", Search: []string{"sbxnet.internal", "example.org"},
	}
}

// lab is a server with a clock.
type lab struct {
	testing.TB
	*Server
	now timer.Instant
}

func newLab(t testing.TB, change func(*Config)) *lab {
	t.Helper()
	c := labConfig()
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &lab{TB: t, Server: s}
}

func (l *lab) pass(d time.Duration) { l.now = l.now.Add(d) }

// ask is a DHCPv4 request being made.
type ask struct {
	kind                                        byte
	mac                                         header.MAC
	ciaddr, giaddr, requested, server           string
	broadcast                                   bool
	id                                          string
	list                                        []byte
	more                                        []byte // raw options
	noType, badCookie, badHardware, replyOpcode bool
}

func (a ask) bytes() []byte {
	b := make([]byte, at4Options)
	b[0], b[1], b[2] = 1, 1, 6
	if a.replyOpcode {
		b[0] = 2
	}
	if a.badHardware {
		b[2] = 16
	}
	copy(b[4:8], "xid!")
	if a.broadcast {
		b[at4Flags] = 0x80
	}
	for at, s := range map[int]string{at4Client: a.ciaddr, at4Relay: a.giaddr} {
		if s != "" {
			copy(b[at:], ip(s).AsSlice())
		}
	}
	copy(b[at4Hardware:], a.mac[:])
	if !a.badCookie {
		binary.BigEndian.PutUint32(b[at4Cookie:], magicCookie)
	}
	if !a.noType {
		b = append(b, optType, 1, a.kind)
	}
	for code, s := range map[byte]string{optRequested: a.requested, optServer: a.server} {
		if s != "" {
			b = append(append(b, code, 4), ip(s).AsSlice()...)
		}
	}
	if a.id != "" {
		b = append(append(b, optClientID, byte(len(a.id))), a.id...)
	}
	if a.list != nil {
		b = append(append(b, optParameters, byte(len(a.list))), a.list...)
	}
	return append(append(b, a.more...), optEnd)
}

// got4 is a reply taken apart.
type got4 struct {
	Reply
	wire4
	yiaddr string
}

// send asks, and takes the reply apart; nil if there is none.
func (l *lab) send(a ask) *got4 {
	l.Helper()
	r, ok := l.Respond4(a.bytes(), l.now)
	if !ok {
		return nil
	}
	return l.read(r)
}

func (l *lab) read(r Reply) *got4 {
	l.Helper()
	g := &got4{Reply: r}
	b := r.Payload
	var ok bool
	if g.wire4, ok = readWire4(b); !ok {
		l.Fatalf("reply cannot be read: %x", b)
	}
	if string(b[4:8]) != "xid!" {
		l.Fatalf("transaction is %x", b[4:8])
	}
	g.yiaddr = netip.AddrFrom4([4]byte(b[at4Your:])).String()
	return g
}

// lease4 has a station go through the usual four messages and returns its
// address.
func (l *lab) lease4(mac header.MAC, id string) string {
	l.Helper()
	o := l.send(ask{kind: discover4, mac: mac, id: id})
	if o == nil {
		return ""
	}
	a := l.send(ask{kind: request4, mac: mac, id: id, requested: o.yiaddr, server: "10.0.2.2"})
	if a == nil || a.kind != ack4 || a.yiaddr != o.yiaddr {
		l.Fatalf("offered %v, then %+v", o.yiaddr, a)
	}
	return a.yiaddr
}
