package checksum

// Update16 returns the checksum field of data in which the aligned 16-bit word
// old has become new, given the field's content before (RFC 1624 §3, eqn. 3).
//
// The result equals a full computation unless every other word of the data is
// zero and new is too, where it gives 0 and the full one 0xffff; no IP header
// or pseudo-header is like that.
func Update16(field, old, new uint16) uint16 {
	s := uint32(^field) + uint32(^old) + uint32(new)
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return ^uint16(s)
}

// Update32 is Update16 for a 32-bit word that begins on a 16-bit boundary.
func Update32(field uint16, old, new uint32) uint16 {
	s := uint32(^field) +
		uint32(^uint16(old>>16)) + uint32(^uint16(old)) +
		new>>16 + new&0xffff
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return ^uint16(s)
}
