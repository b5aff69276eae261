package netstack

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// Duplicate address detection for the stack's own IPv6 addresses (RFC 4862
// §5.4). It is optimistic (RFC 4429): the addresses are in use from the start,
// as nobody could use the link without them, and a conflict is noticed whenever
// it comes up. The network on the link is laid out by the stack's owner, so the
// stack defends its addresses and says so, rather than give one up.
//
// The question goes out when the first frame comes in: before, there may be
// nobody to hear it. It costs no timer; that the addresses are optimistic no
// longer is read from the clock.

const (
	dadTime        = time.Second      // RetransTimer: how long after the probe an address is optimistic (RFC 4861 §10)
	defendInterval = 10 * time.Second // between announcements that nobody asked for (as RFC 5227 §1.1, DEFEND_INTERVAL)
)

// duplicates is what the stack knows of others that have its IPv6 addresses.
type duplicates struct {
	asked      bool // or there is nothing to ask
	nonce      [header.NonceLen]byte
	verifiedAt timer.Instant
	defended   []timer.Instant // when last, for each of own6; 0: not yet
}

func (s *Stack) startDuplicateDetection() {
	s.dad.asked = s.cfg.NoDuplicateDetection || len(s.own6) == 0
	s.dad.defended = make([]timer.Instant, len(s.own6))
}

// askForDuplicates probes each of the stack's IPv6 addresses, once (RFC 4862
// §5.1, DupAddrDetectTransmits), with a nonce that tells the probe from another
// station's if it comes back (RFC 7527 §4.1).
func (s *Stack) askForDuplicates() {
	d := &s.dad
	d.asked, d.verifiedAt = true, s.now.Add(dadTime)
	binary.NativeEndian.PutUint32(d.nonce[:], s.rand.Uint32())
	binary.NativeEndian.PutUint16(d.nonce[4:], uint16(s.rand.Uint32()))
	for _, a := range s.own6 {
		fields := header.NeighborFields{Target: a, Nonce: d.nonce}
		group := header.SolicitedNode(a)
		var b [header.IPv6Len]byte
		n := header.PutNeighborSolicitation(b[:], &fields, netip.IPv6Unspecified(), group)
		s.sendND(b[:n], netip.IPv6Unspecified(), group)
	}
}

// optimistic reports whether an address of the stack's may still turn out to be
// another station's: then answers for it override nothing that a neighbour knows
// (RFC 4429 §3.3).
func (s *Stack) optimistic() bool { return s.now.Before(s.dad.verifiedAt) }

// ownProbe reports whether a probe with these options is one of the stack's that
// came back (RFC 7527 §4.2).
func (s *Stack) ownProbe(options header.NDPOptions) bool {
	nonce, ok := options.Nonce()
	return ok && s.dad.verifiedAt != 0 && nonce == s.dad.nonce
}

// claimsIPv6 reports whether a packet that comes from one of our addresses may: it
// is an advertisement to all, with which another station says that it has it.
func claimsIPv6(p *packet) bool {
	return p.protocol == header.ProtocolICMPv6 && p.ttl == header.NDPHopLimit && p.dst == header.AllNodes &&
		len(p.payload) > 0 && p.payload[0] == header.ICMPv6NeighborAdvertisement
}

// claimed is told that another station says that the IPv6 address a, which is
// ours, is its own. Both sides may mean it, so that the answer is not to be an
// answer each time.
func (s *Stack) claimed(a netip.Addr, station header.MAC) {
	s.conflict(a, station)
	i := slices.Index(s.own6, a)
	if last := s.dad.defended[i]; last != 0 && s.now.Sub(last) < defendInterval {
		return
	}
	s.dad.defended[i] = s.now
	s.sendNeighborAdvertisement(a, header.AllNodes, false)
}

// conflict counts and reports that another station uses a, or is about to.
func (s *Stack) conflict(a netip.Addr, station header.MAC) {
	s.stats.Drops.AddressConflicts++
	if s.cfg.AddressConflict != nil {
		s.cfg.AddressConflict(a, station)
	}
}
