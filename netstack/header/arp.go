package header

import (
	"encoding/binary"
	"net/netip"
)

// ARPLen is the length of an ARP message for IPv4 over Ethernet, in bytes.
const ARPLen = 28

// ARPOp is an ARP operation.
type ARPOp uint16

// The operations of RFC 826.
const (
	ARPRequest ARPOp = 1
	ARPReply   ARPOp = 2
)

// arpPreamble is hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
const arpPreamble = 0x0001_0800_06_04

// ARP is a view of an ARP message for IPv4 over Ethernet (RFC 826).
//
//	0    2    4  5  6   8             14          18            24
//	| 1 |0800| 6| 4|op | sender MAC  | sender IP | target MAC  | target IP |
type ARP []byte

// ARPFields is what [PutARP] writes.
type ARPFields struct {
	Op                   ARPOp
	SenderMAC, TargetMAC MAC
	SenderIP, TargetIP   netip.Addr // IPv4
}

// ParseARP reports false for anything but IPv4 over Ethernet. Bytes after the
// message are padding and ignored.
func ParseARP(b []byte) (h ARP, ok bool) {
	if len(b) < ARPLen || binary.BigEndian.Uint64(b)>>16 != arpPreamble {
		return nil, false
	}
	return ARP(b[:ARPLen:ARPLen]), true
}

// Op is the operation; others than request and reply are the caller's to drop.
func (h ARP) Op() ARPOp { return ARPOp(binary.BigEndian.Uint16(h[6:8])) }

// SenderMAC is the sender's Ethernet address.
func (h ARP) SenderMAC() MAC { return MAC(h[8:14]) }

// SenderIP is the sender's IPv4 address, 0.0.0.0 in a probe (RFC 5227 §1.1).
func (h ARP) SenderIP() netip.Addr { return netip.AddrFrom4([4]byte(h[14:18])) }

// TargetMAC is the target's Ethernet address, meaningless in a request.
func (h ARP) TargetMAC() MAC { return MAC(h[18:24]) }

// TargetIP is the IPv4 address asked for.
func (h ARP) TargetIP() netip.Addr { return netip.AddrFrom4([4]byte(h[24:28])) }

// Fields returns all fields.
func (h ARP) Fields() ARPFields {
	return ARPFields{Op: h.Op(), SenderMAC: h.SenderMAC(), TargetMAC: h.TargetMAC(),
		SenderIP: h.SenderIP(), TargetIP: h.TargetIP()}
}

// PutARP writes a message to the front of b and returns ARPLen.
func PutARP(b []byte, f ARPFields) int {
	b = b[:ARPLen]
	binary.BigEndian.PutUint64(b, arpPreamble<<16|uint64(f.Op))
	*(*MAC)(b[8:14]) = f.SenderMAC
	*(*[4]byte)(b[14:18]) = f.SenderIP.As4()
	*(*MAC)(b[18:24]) = f.TargetMAC
	*(*[4]byte)(b[24:28]) = f.TargetIP.As4()
	return ARPLen
}
