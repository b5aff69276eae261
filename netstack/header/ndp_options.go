package header

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Neighbour discovery option types (RFC 4861 §4.6, RFC 8106 §5.1, RFC 3971).
const (
	NDPSourceLinkAddress = 1
	NDPTargetLinkAddress = 2
	NDPPrefixInformation = 3
	NDPRedirectedHeader  = 4
	NDPMTU               = 5
	NDPNonce             = 14 // RFC 7527: loop-back detection in duplicate address detection
	NDPRDNSS             = 25
)

// NDPOptions iterates over the options of a neighbour discovery message.
type NDPOptions struct{ rest []byte }

// Next returns an option's type and its data after the length byte. It ends at
// an option of length zero or past the end; messages that came through a
// ParseX have neither.
func (o *NDPOptions) Next() (kind uint8, data []byte, ok bool) {
	if len(o.rest) < 8 {
		return 0, nil, false
	}
	n := int(o.rest[1]) * 8
	if n == 0 || n > len(o.rest) {
		return 0, nil, false
	}
	kind, data, o.rest = o.rest[0], o.rest[2:n:n], o.rest[n:]
	return kind, data, true
}

// LinkAddress finds the first source or target link-layer address option, as
// kind says, in the options that are left. It does not consume them.
func (o NDPOptions) LinkAddress(kind uint8) (m MAC, ok bool) {
	for {
		k, data, ok := o.Next()
		if !ok {
			return MAC{}, false
		}
		// Ethernet's option is 8 bytes (RFC 2464 §6).
		if k == kind && len(data) == 6 {
			return MAC(data), true
		}
	}
}

// NonceLen is the length of the shortest nonce, in bytes, which is what Linux
// sends, too (RFC 3971 §5.3.2).
const NonceLen = 6

// Nonce finds the first nonce option in the options that are left, if it has
// the shortest length. It does not consume them.
func (o NDPOptions) Nonce() (nonce [NonceLen]byte, ok bool) {
	for {
		k, data, ok := o.Next()
		if !ok {
			return nonce, false
		}
		if k == NDPNonce && len(data) == NonceLen {
			return [NonceLen]byte(data), true
		}
	}
}

// ParsePrefixInformation reads the data of a prefix information option. Bits of
// the address beyond the prefix are dropped.
func ParsePrefixInformation(data []byte) (p PrefixInformation, ok bool) {
	if len(data) != prefixOptionLen-2 || data[0] > 128 {
		return PrefixInformation{}, false
	}
	address := netip.AddrFrom16([16]byte(data[14:30]))
	return PrefixInformation{
		Prefix:     netip.PrefixFrom(address, int(data[0])).Masked(),
		OnLink:     data[1]&0x80 != 0,
		Autonomous: data[1]&0x40 != 0,
		Valid:      time.Duration(binary.BigEndian.Uint32(data[2:6])) * time.Second,
		Preferred:  time.Duration(binary.BigEndian.Uint32(data[6:10])) * time.Second,
	}, true
}

// ParseMTUOption reads the data of an MTU option, in bytes, as it came.
func ParseMTUOption(data []byte) (mtu uint32, ok bool) {
	if len(data) != mtuOptionLen-2 {
		return 0, false
	}
	return binary.BigEndian.Uint32(data[2:6]), true
}

// RDNSS is the data of a recursive DNS server option (RFC 8106 §5.1).
type RDNSS []byte

// ParseRDNSS wants at least one address and no part of another.
func ParseRDNSS(data []byte) (o RDNSS, ok bool) {
	n := len(data) - (rdnssFixedLen - 2)
	if n < rdnssAddressLen || n%rdnssAddressLen != 0 {
		return nil, false
	}
	return RDNSS(data), true
}

// Lifetime is how long the servers may be used.
func (o RDNSS) Lifetime() time.Duration {
	return time.Duration(binary.BigEndian.Uint32(o[2:6])) * time.Second
}

// Len is the number of servers.
func (o RDNSS) Len() int { return (len(o) - (rdnssFixedLen - 2)) / rdnssAddressLen }

// Server is the i-th server's address, 0 ≤ i < Len.
func (o RDNSS) Server(i int) netip.Addr {
	at := rdnssFixedLen - 2 + i*rdnssAddressLen
	return netip.AddrFrom16([16]byte(o[at : at+rdnssAddressLen]))
}

func putLinkAddress(b []byte, kind uint8, m MAC) int {
	b = b[:linkAddressLen]
	b[0], b[1] = kind, linkAddressLen/8
	*(*MAC)(b[2:8]) = m
	return linkAddressLen
}

func putNonce(b []byte, nonce [NonceLen]byte) int {
	b = b[:nonceOptionLen]
	b[0], b[1] = NDPNonce, nonceOptionLen/8
	*(*[NonceLen]byte)(b[2:8]) = nonce
	return nonceOptionLen
}

func putPrefix(b []byte, p *PrefixInformation) int {
	b = b[:prefixOptionLen]
	b[0], b[1], b[2], b[3] = NDPPrefixInformation, prefixOptionLen/8, uint8(p.Prefix.Bits()), 0
	if p.OnLink {
		b[3] |= 0x80
	}
	if p.Autonomous {
		b[3] |= 0x40
	}
	binary.BigEndian.PutUint32(b[4:8], seconds(p.Valid))
	binary.BigEndian.PutUint32(b[8:12], seconds(p.Preferred))
	clear(b[12:16])
	*(*[16]byte)(b[16:32]) = p.Prefix.Masked().Addr().As16()
	return prefixOptionLen
}

func putMTU(b []byte, mtu uint32) int {
	b = b[:mtuOptionLen]
	b[0], b[1], b[2], b[3] = NDPMTU, mtuOptionLen/8, 0, 0
	binary.BigEndian.PutUint32(b[4:8], mtu)
	return mtuOptionLen
}

func putRDNSS(b []byte, servers []netip.Addr, lifetime time.Duration) int {
	n := rdnssFixedLen + len(servers)*rdnssAddressLen
	if n/8 > 0xff {
		panic("header: too many DNS servers for one option")
	}
	b = b[:n]
	b[0], b[1], b[2], b[3] = NDPRDNSS, uint8(n/8), 0, 0
	binary.BigEndian.PutUint32(b[4:8], seconds(lifetime))
	for i, a := range servers {
		*(*[16]byte)(b[rdnssFixedLen+i*rdnssAddressLen:]) = a.As16()
	}
	return n
}
