package hostsock

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"sbxnet/netstack/checksum"
)

// The types of echo messages (RFC 792, RFC 4443 §4).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	echoHeader               = 8
)

// Ping is a socket for echo requests to one address, and the identifier they
// carry.
type Ping struct {
	FD int
	to netip.Addr
	// raw sockets send and match the identifier themselves; the kernel does it
	// for ping sockets.
	raw bool
	id  uint16
}

// OpenPing makes a ping socket that sends from src, which the kernel allows the groups in
// net.ipv4.ping_group_range, or where it does not and privilege does, a raw
// socket. EACCES or EPERM means neither is allowed.
func OpenPing(to netip.Addr, src *Source) (*Ping, unix.Errno) {
	protocol := unix.IPPROTO_ICMPV6
	if to.Is4() {
		protocol = unix.IPPROTO_ICMP
	}
	p := &Ping{to: to}
	var errno unix.Errno
	if p.FD, errno = socket(to, unix.SOCK_DGRAM, protocol); errno == unix.EACCES || errno == unix.EPERM {
		denied := errno
		if p.FD, errno = socket(to, unix.SOCK_RAW, protocol); errno == unix.EACCES || errno == unix.EPERM {
			return nil, denied
		}
		p.raw = true
		var id [2]byte
		rand.Read(id[:])
		p.id = binary.BigEndian.Uint16(id[:])
	}
	if errno != 0 {
		return nil, errno
	}
	if p.raw {
		onlyReplies(p.FD, to)
	}
	ReportErrors(p.FD, to)
	if errno = src.Bind(p.FD, to); errno == 0 {
		errno = ConnectTo(p.FD, netip.AddrPortFrom(to, 0))
	}
	if errno != 0 {
		unix.Close(p.FD)
		return nil, errno
	}
	return p, 0
}

// onlyReplies has the kernel keep everything but echo replies from a raw socket
// (ICMP_FILTER, RFC 3542 §3.2).
func onlyReplies(fd int, of netip.Addr) {
	if of.Is4() {
		const icmpFilter = 1 // linux/icmp.h; a set bit blocks a type
		blocked := ^uint32(1 << echoReply4)
		unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, int(int32(blocked)))
		return
	}
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[echoReply6>>5] &^= 1 << (echoReply6 & 31)
	unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f)
}

// Send sends one echo request. buf is memory to build it in, of at least
// len(payload) + 8 bytes.
func (p *Ping) Send(buf []byte, seq uint16, payload []byte) unix.Errno {
	b := buf[:echoHeader+len(payload)]
	clear(b[:echoHeader])
	b[0] = echoRequest6
	if p.to.Is4() {
		b[0] = echoRequest4
	}
	binary.BigEndian.PutUint16(b[4:], p.id) // a ping socket puts its own
	binary.BigEndian.PutUint16(b[6:], seq)
	copy(b[echoHeader:], payload)
	if p.raw && p.to.Is4() { // in the other three cases the kernel does
		binary.BigEndian.PutUint16(b[2:], checksum.Of(b))
	}
	_, errno := Send(p.FD, b)
	return errno
}

// Reply takes apart what was received on the socket and reports whether it is
// an answer to one of our requests.
func (p *Ping) Reply(b []byte) (seq uint16, payload []byte, ok bool) {
	if p.raw && p.to.Is4() { // raw IPv4 sockets deliver the IP header, too
		if len(b) < 20 || int(b[0]&15)*4 > len(b) {
			return 0, nil, false
		}
		b = b[int(b[0]&15)*4:]
	}
	want := byte(echoReply6)
	if p.to.Is4() {
		want = echoReply4
	}
	if len(b) < echoHeader || b[0] != want || p.raw && binary.BigEndian.Uint16(b[4:]) != p.id {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(b[6:]), b[echoHeader:], true
}

// Quoted returns the sequence number of the request that an entry of the error
// queue quotes.
func (p *Ping) Quoted(b []byte) (seq uint16, ok bool) {
	want := byte(echoRequest6)
	if p.to.Is4() {
		want = echoRequest4
	}
	if len(b) < echoHeader || b[0] != want || p.raw && binary.BigEndian.Uint16(b[4:]) != p.id {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[6:]), true
}
