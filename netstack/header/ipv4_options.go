package header

// IPv4 option types (RFC 791 §3.1, RFC 2113).
const (
	IPv4OptionEnd               = 0
	IPv4OptionNop               = 1
	IPv4OptionRecordRoute       = 7
	IPv4OptionTimestamp         = 68
	IPv4OptionLooseSourceRoute  = 131
	IPv4OptionStrictSourceRoute = 137
	IPv4OptionRouterAlert       = 148
)

// IPv4Options iterates over the options of an IPv4 header. It skips
// no-operations and stops at the end of the list or at the first option whose
// length is wrong.
type IPv4Options struct{ rest []byte }

// Options starts an iteration over h's options.
func (h IPv4) Options() IPv4Options { return IPv4Options{h[IPv4MinLen:]} }

// Next returns an option's type and its data after the length byte.
func (o *IPv4Options) Next() (kind uint8, data []byte, ok bool) {
	for len(o.rest) > 0 && o.rest[0] == IPv4OptionNop {
		o.rest = o.rest[1:]
	}
	kind, data, o.rest, ok = nextOption(o.rest)
	return kind, data, ok
}

// nextOption takes one kind-length-value option, as IPv4 and TCP have them,
// off the front of b. Kind 0 ends the list; the length counts the two bytes
// of kind and length.
func nextOption(b []byte) (kind uint8, data, rest []byte, ok bool) {
	if len(b) < 2 || b[0] == 0 {
		return 0, nil, nil, false
	}
	n := int(b[1])
	if n < 2 || n > len(b) {
		return 0, nil, nil, false
	}
	return b[0], b[2:n:n], b[n:], true
}

// HasSourceRoute reports whether the header asks for loose or strict source
// routing, which the stack drops.
func (h IPv4) HasSourceRoute() bool {
	if len(h) == IPv4MinLen {
		return false
	}
	options := h.Options()
	for {
		kind, _, ok := options.Next()
		if !ok {
			return false
		}
		if kind == IPv4OptionLooseSourceRoute || kind == IPv4OptionStrictSourceRoute {
			return true
		}
	}
}
