// Package seq is arithmetic on TCP sequence numbers, which live on a circle of
// 2³² points (RFC 9293 §3.4).
//
// "Less than" on a circle means "at most half of it behind": v < w if w can be
// reached from v by going forward fewer than 2³¹ steps. That is meaningful
// because a window never exceeds 2³⁰ bytes (RFC 7323 §2.3). The relation is not
// transitive over the whole circle, so nothing here sorts; compare only values
// that belong to one window. Two values exactly 2³¹ apart are each less than
// the other, as in every implementation that subtracts.
//
// A distance in sequence space is a plain int32, or a uint32 where it is known
// to go forward.
package seq
