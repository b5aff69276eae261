package header

import "net/netip"

// Limits on a chain of extension headers. A chain past them is dropped; no
// ordinary packet comes near (RFC 8504 §5.3, RFC 8883).
const (
	MaxIPv6Extensions   = 8   // headers
	MaxIPv6ExtensionLen = 512 // bytes, of all of them together
)

// Options in hop-by-hop and destination options headers (RFC 8200 §4.2,
// RFC 2711).
const (
	IPv6OptionPad1        = 0
	IPv6OptionPadN        = 1
	IPv6OptionRouterAlert = 5
)

// IPv6Chain is what a walk over the extension headers found. Offsets are in
// bytes from the start of the IPv6 payload.
type IPv6Chain struct {
	// Protocol is the upper-layer protocol and Offset where it begins. Of a
	// fragment that is not the first, they are the protocol its fragment
	// header names, which may be an extension header, and the fragment's data.
	Protocol uint8
	Offset   int
	// Fragment is the fragment header, nil if there is none or it is atomic,
	// and FragmentOffset is where it lies. The data to put together begins at
	// FragmentOffset+IPv6FragmentLen, also of the first fragment.
	Fragment       IPv6Fragment
	FragmentOffset int
	// NextHeaderAt is the place, from the start of the IPv6 header, of the
	// next-header byte that names the fragment header: a reassembled packet
	// has the fragment header's own next header there (RFC 8200 §4.5).
	NextHeaderAt int

	// Problem, with ok false, says that the sender is to be told with an
	// ICMPv6 parameter problem of this code and pointer, the latter counted
	// from the start of the IPv6 header. Without Problem the packet is dropped
	// in silence.
	Problem bool
	Code    uint8
	Pointer uint32
}

// WalkIPv6 follows the extension headers of a packet to its upper layer (RFC
// 8200 §4), on behalf of the packet's destination. Hop-by-hop options may
// only come first. A routing header is passed over if it has no segments left
// and refused if it has (RFC 5095). Options that are not known are treated as
// their two highest bits say. The first fragment of several must hold all
// headers up to and including the upper layer's (RFC 7112). Protocols that are
// not extension headers known here, such as ESP, end the walk as upper layers.
func WalkIPv6(h IPv6, payload []byte) (c IPv6Chain, ok bool) {
	// The common case: no extension header at all.
	switch c.Protocol = h.NextHeader(); c.Protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolICMPv6:
		return c, true
	}
	w := ipv6Walk{IPv6Chain: c, payload: payload, destination: h.Destination(), field: 6}
	ok = w.walk()
	return w.IPv6Chain, ok
}

// ipv6Walk is a walk in progress: Protocol is the kind of header at Offset.
type ipv6Walk struct {
	IPv6Chain
	payload     []byte
	destination netip.Addr
	field       int // where, from the start of the IPv6 header, Protocol was read
	headers     int
	fragmented  bool // a fragment header has been passed, atomic or not
}

func (w *ipv6Walk) walk() bool {
	for {
		switch w.Protocol {
		case ProtocolHopByHop:
			if w.headers > 0 {
				// Elsewhere than first it is an unrecognised next header
				// (RFC 8200 §4, §4.1).
				return w.problem(ICMPv6UnrecognizedNextHeader, w.field)
			}
			if !w.options() {
				return false
			}
		case ProtocolDestination:
			if !w.options() {
				return false
			}
		case ProtocolRouting:
			if !w.routing() {
				return false
			}
		case ProtocolFragment:
			last, ok := w.fragment()
			if last || !ok {
				return ok
			}
		default:
			return w.upper()
		}
		if w.headers++; w.headers > MaxIPv6Extensions || w.Offset > MaxIPv6ExtensionLen {
			return false
		}
	}
}

// upper ends the walk at an upper-layer header.
func (w *ipv6Walk) upper() bool {
	if w.Fragment == nil {
		return true
	}
	need := 1
	switch w.Protocol {
	case ProtocolTCP:
		need = TCPMinLen
	case ProtocolUDP:
		need = UDPLen
	case ProtocolICMPv6:
		need = 4
	case ProtocolNoNext:
		need = 0
	}
	if len(w.payload)-w.Offset < need {
		return w.incomplete()
	}
	return true
}

// problem makes the walk's verdict a parameter problem.
func (w *ipv6Walk) problem(code uint8, pointer int) bool {
	w.Problem, w.Code, w.Pointer = true, code, uint32(pointer)
	return false
}

// incomplete is the verdict on a header that the packet does not hold in full.
// A first fragment is answered (RFC 7112 §5); anything else is just broken.
func (w *ipv6Walk) incomplete() bool {
	if w.Fragment != nil {
		return w.problem(ICMPv6IncompleteChain, 0)
	}
	return false
}

// extension returns the header at Offset, whose length in units of 8 bytes
// beyond the first 8 is in its second byte.
func (w *ipv6Walk) extension() ([]byte, bool) {
	b := w.payload[w.Offset:]
	if len(b) < 8 {
		return nil, w.incomplete()
	}
	n := 8 + int(b[1])*8
	if n > len(b) {
		return nil, w.incomplete()
	}
	return b[:n], true
}

// advance goes on to the header after b.
func (w *ipv6Walk) advance(b []byte) {
	w.Protocol = b[0]
	w.field = IPv6Len + w.Offset
	w.Offset += len(b)
}

// options goes over a hop-by-hop or destination options header.
func (w *ipv6Walk) options() bool {
	b, ok := w.extension()
	if !ok {
		return false
	}
	if len(b) > MaxIPv6ExtensionLen {
		return false
	}
	for i := 2; i < len(b); {
		if b[i] == IPv6OptionPad1 {
			i++
			continue
		}
		if i+2 > len(b) || i+2+int(b[i+1]) > len(b) {
			return false
		}
		if !w.option(b[i], IPv6Len+w.Offset+i) {
			return false
		}
		i += 2 + int(b[i+1])
	}
	w.advance(b)
	return true
}

// option does what the highest bits of an option say to one who does not know
// it (RFC 8200 §4.2). The known ones have no effect on an end host.
func (w *ipv6Walk) option(kind uint8, pointer int) bool {
	switch {
	case kind == IPv6OptionPadN, kind == IPv6OptionRouterAlert, kind>>6 == 0:
		return true
	case kind>>6 == 1, kind>>6 == 3 && w.destination.IsMulticast():
		return false
	}
	return w.problem(ICMPv6UnrecognizedOption, pointer)
}

// routing passes over a routing header that has been used up.
func (w *ipv6Walk) routing() bool {
	b, ok := w.extension()
	if !ok {
		return false
	}
	if segmentsLeft := b[3]; segmentsLeft != 0 {
		// Code 0, pointing to the routing type (RFC 8200 §4.4, RFC 5095 §3).
		return w.problem(ICMPv6ErroneousHeader, IPv6Len+w.Offset+2)
	}
	w.advance(b)
	return true
}

// fragment takes note of a fragment header. It reports last for a fragment
// that is not the first: what follows is not a header.
func (w *ipv6Walk) fragment() (last, ok bool) {
	f, data, ok := ParseIPv6Fragment(w.payload[w.Offset:])
	if !ok {
		return true, w.incomplete()
	}
	if w.fragmented {
		return true, false // a fragment of a fragment
	}
	w.fragmented = true
	if f.MoreFragments() && len(data)%8 != 0 {
		// Code 0, pointing to the payload length (RFC 8200 §4.5).
		return true, w.problem(ICMPv6ErroneousHeader, 4)
	}
	if w.Offset+f.Offset()+len(data) > 0xffff {
		// Code 0, pointing to the fragment offset (RFC 8200 §4.5).
		return true, w.problem(ICMPv6ErroneousHeader, IPv6Len+w.Offset+2)
	}
	if !f.IsAtomic() {
		w.Fragment, w.FragmentOffset, w.NextHeaderAt = f, w.Offset, w.field
	}
	w.advance(f)
	return f.Offset() != 0, true
}
