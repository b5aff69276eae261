package netstack

import (
	"fmt"
	"net/netip"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/tcp"
)

// Datagram is a UDP datagram from the sandbox, or a train of datagrams of one
// flow. It is good until the call that hands it over returns.
type Datagram struct {
	Src, Dst netip.AddrPort
	Payload  []byte
	// SegmentSize is 0 for one datagram. Else Payload is a train: datagrams of
	// SegmentSize bytes each, the last one possibly shorter.
	SegmentSize int
	TTL, TOS    uint8
	Station     header.MAC // that the datagram came from
}

// Unreachable is the sandbox's word that a datagram which we sent did not
// arrive.
type Unreachable struct {
	Src, Dst netip.AddrPort // of the datagram: Src is the stack's end
	// Reason is PortUnreachable, HostUnreachable, NetUnreachable or Prohibited.
	// It means nothing if MTU is not 0.
	Reason tcp.Refusal
	// MTU is the size of IP packet that would have arrived, in bytes, if the
	// datagram was too big.
	MTU int
}

// UDPEndpoint takes the datagrams to one address and port.
type UDPEndpoint struct {
	stack       *Stack
	local       netip.AddrPort
	datagram    func(*Datagram)
	unreachable func(*Unreachable)
}

// BindUDP has f called with the datagrams to local. An unspecified address means
// all of the stack's own of that family; any other address will do, its own or
// not, also 255.255.255.255 and a group of the link, such as ff02::1:2. Port 0 takes a free one, in no order that can be foreseen (RFC 6056). It
// fails with tcp.ErrInUse, tcp.ErrNoPorts or tcp.ErrAddress.
func (s *Stack) BindUDP(local netip.AddrPort, f func(*Datagram)) (*UDPEndpoint, error) {
	if !canBindUDP(local.Addr()) {
		return nil, fmt.Errorf("bind udp %v: %w", local, tcp.ErrAddress)
	}
	if local.Port() == 0 {
		port, ok := s.freeUDPPort(local.Addr())
		if !ok {
			return nil, fmt.Errorf("bind udp %v: %w", local.Addr(), tcp.ErrNoPorts)
		}
		local = netip.AddrPortFrom(local.Addr(), port)
	}
	if s.endpoints[local] != nil {
		return nil, fmt.Errorf("bind udp %v: %w", local, tcp.ErrInUse)
	}
	e := &UDPEndpoint{stack: s, local: local, datagram: f}
	s.endpoints[local] = e
	return e, nil
}

// The ports that are given out (RFC 6335 §6).
const firstDynamicPort, dynamicPorts = 49152, 16384

func (s *Stack) freeUDPPort(a netip.Addr) (uint16, bool) {
	start := s.rand.IntN(dynamicPorts)
	for i := range dynamicPorts {
		port := uint16(firstDynamicPort + (start+i)%dynamicPorts)
		if s.endpoints[netip.AddrPortFrom(a, port)] == nil {
			return port, true
		}
	}
	return 0, false
}

// Addr is what the endpoint is bound to.
func (e *UDPEndpoint) Addr() netip.AddrPort { return e.local }

// SetUnreachable has f called when the sandbox reports that a datagram from the
// endpoint did not arrive.
func (e *UDPEndpoint) SetUnreachable(f func(*Unreachable)) { e.unreachable = f }

// Overflowed is called by the endpoint's owner, from within its function, when it
// had no room for n datagrams: they are counted as Drops.EndpointFull.
func (e *UDPEndpoint) Overflowed(n int) { e.stack.stats.Drops.EndpointFull += uint64(n) }

// Close unbinds the endpoint. It may be called more than once.
func (e *UDPEndpoint) Close() {
	if e.stack.endpoints[e.local] == e {
		delete(e.stack.endpoints, e.local)
	}
}

// endpoint finds who is bound to local.
func (s *Stack) endpoint(local netip.AddrPort) *UDPEndpoint {
	if len(s.endpoints) == 0 {
		return nil
	}
	if e := s.endpoints[local]; e != nil {
		return e
	}
	if !s.isOwn(local.Addr()) {
		return nil
	}
	unspecified := netip.IPv4Unspecified()
	if !local.Addr().Is4() {
		unspecified = netip.IPv6Unspecified()
	}
	return s.endpoints[netip.AddrPortFrom(unspecified, local.Port())]
}

// inputUDP hands a datagram to its endpoint or to the handler.
func (s *Stack) inputUDP(p *packet) {
	h, payload, ok := header.ParseUDP(p.payload)
	if !ok || h.SourcePort() == 0 || h.DestinationPort() == 0 {
		s.stats.Drops.Malformed++
		return
	}
	if !s.udpChecksumGood(p, h, payload) {
		s.stats.Drops.TransportCheck++
		return
	}
	d := &s.datagram
	*d = Datagram{
		Src:     netip.AddrPortFrom(p.src, h.SourcePort()),
		Dst:     netip.AddrPortFrom(p.dst, h.DestinationPort()),
		Payload: payload, TTL: p.ttl, TOS: p.tos, Station: p.mac,
	}
	if p.loopback && !s.loopback.has(loopbackFlow{d.Dst, d.Src, header.ProtocolUDP}) {
		s.stats.Drops.MartianSource++
		return
	}
	if p.off.GSOType == frame.GSOUDP && p.off.GSOSize > 0 && len(payload) > int(p.off.GSOSize) {
		d.SegmentSize = int(p.off.GSOSize)
	}
	s.deliverUDP(p, d)
	d.Payload = nil
}

// udpChecksumGood judges the checksum as far as the link has not. A field of 0
// is never good over IPv6, whatever the link says (RFC 8200 §8.1).
func (s *Stack) udpChecksumGood(p *packet, h header.UDP, payload []byte) bool {
	if p.checksumKnown() {
		return p.off.NeedsChecksum || h.Checksum() != 0 || p.dst.Is4()
	}
	return h.ChecksumValid(p.src, p.dst, payload)
}

func (s *Stack) deliverUDP(p *packet, d *Datagram) {
	e := s.endpoint(d.Dst)
	switch {
	case e != nil:
		s.stats.UDPIn++
		e.datagram(d)
	case s.handler != nil:
		s.stats.UDPIn++
		s.handler.Datagram(d)
	default:
		s.stats.Drops.Refused++
		s.sendError(p, errPort)
	}
}

// SendUDP sends a datagram to the sandbox, from src, which may be any address.
// With a segmentSize other than 0, payload is a train of datagrams of that many
// bytes, the last possibly shorter. payload is copied. What cannot be sent is
// dropped and counted, as networks do.
func (s *Stack) SendUDP(src, dst netip.AddrPort, payload []byte, segmentSize int) {
	s.sendUDP(src, dst, payload, segmentSize, false)
}

// SendUDPNoCopy is SendUDP for a payload that stays untouched until
// [Stack.Reclaim].
func (s *Stack) SendUDPNoCopy(src, dst netip.AddrPort, payload []byte, segmentSize int) {
	s.sendUDP(src, dst, payload, segmentSize, true)
}

// maxTrain is the most datagrams in one super-segment: UDP_MAX_SEGMENTS in
// include/linux/udp.h up to Linux 6.8.
const maxTrain = 64

func (s *Stack) sendUDP(src, dst netip.AddrPort, payload []byte, segmentSize int, stays bool) {
	if !s.canSendUDP(src, dst) {
		s.stats.Drops.NoRoute++
		return
	}
	if dst.Addr().IsLoopback() {
		s.loopback.note(loopbackFlow{src, dst, header.ProtocolUDP})
	}
	s.stats.UDPOut++
	if segmentSize <= 0 || segmentSize >= len(payload) {
		s.sendOneUDP(src, dst, payload, 0, stays)
		return
	}
	car := segmentSize * s.trainLen(dst.Addr(), segmentSize)
	for len(payload) > 0 {
		n := min(car, len(payload))
		gso := segmentSize
		if n <= segmentSize {
			gso = 0
		}
		s.sendOneUDP(src, dst, payload[:n], gso, stays)
		payload = payload[n:]
	}
}

// canSendUDP turns down what no packet can say.
func (s *Stack) canSendUDP(src, dst netip.AddrPort) bool {
	a, b := src.Addr(), dst.Addr()
	return a.IsValid() && b.IsValid() && a.Is4() == b.Is4() && !a.Is4In6() && !b.Is4In6() &&
		!b.IsMulticast() && !b.IsUnspecified() && dst.Port() != 0
}

// trainLen is how many datagrams of n bytes go into one frame.
func (s *Stack) trainLen(dst netip.Addr, n int) int {
	headers := ipLen(dst) + header.UDPLen
	if !s.cfg.Caps.USO || headers+n > s.cfg.MTU {
		return 1
	}
	room := min(s.cfg.Caps.MaxFrame-header.EthernetLen, MaxMTU) - headers
	return max(1, min(maxTrain, room/n))
}

// sendOneUDP sends one datagram, or with gso other than 0 one super-segment.
func (s *Stack) sendOneUDP(src, dst netip.AddrPort, payload []byte, gso int, stays bool) {
	ip := ipLen(dst.Addr())
	if header.UDPLen+len(payload) > maxPayload(dst.Addr()) {
		s.stats.Drops.TooBig++
		return
	}
	o := &s.outgoing
	*o = outgoing{
		src: src.Addr(), dst: dst.Addr(), protocol: header.ProtocolUDP, hopLimit: defaultTTL,
		payload: payload, stays: stays,
	}
	if !o.dst.Is4() {
		o.label = s.flowLabel(src, dst, header.ProtocolUDP)
	}
	h := header.UDP(o.head[:])
	header.PutUDP(h, header.UDPFields{SourcePort: src.Port(), DestinationPort: dst.Port(), PayloadLen: len(payload)})
	if gso == 0 && ip+o.length() > s.cfg.MTU {
		h.SetChecksum(o.src, o.dst, payload)
		s.sendFragmented(o)
	} else {
		h.SetPartialChecksum(o.src, o.dst)
		o.off = udpOffload(ip, gso)
		s.send(o)
	}
	o.payload = nil
}

// maxPayload is the most that an IP packet holds after its header.
func maxPayload(a netip.Addr) int {
	if a.Is4() {
		return 65535 - header.IPv4MinLen
	}
	return 65535
}

// udpOffload says what is left to the link in a datagram after an IP header of
// ip bytes.
func udpOffload(ip, gso int) frame.Offload {
	o := frame.Offload{
		NeedsChecksum:  true,
		ChecksumStart:  uint16(header.EthernetLen + ip),
		ChecksumOffset: header.UDPChecksumOffset,
	}
	if gso != 0 {
		o.GSOType, o.GSOSize = frame.GSOUDP, uint16(gso)
	}
	return o
}
