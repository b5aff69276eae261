// Package impair makes a link behave like a network: packets are lost, late,
// out of order, twice there or damaged, and only so many pass in a second. It
// is what `sbxnet run --impair` does, and how the stack is tested against Linux
// on machines whose kernel has no netem.
//
// [Wrap] puts a link of its own around another one, and nothing at all where
// [Spec] asks for nothing. Each direction of each queue is a lane. What enters
// a lane is first cut into the packets that would be on a wire, so that losing
// one loses one segment and not forty; then fate decides, in this order:
//
//	loss → duplication → corruption → limit → rate → delay, jitter → reordering
//
// A lane copies the packets it holds, at most [Spec.Limit] of them; what comes
// on top is dropped, as a router's full queue does. Duplicates are packets of
// their own from there on. A damaged packet has its checksum completed first,
// so that the damage shows.
//
// The rate belongs to the link: its queues share it, each direction its own.
// Jitter keeps the order, as it does in one queue of one router; only packets
// that reordering picks are overtaken, being held back by one to five
// milliseconds, or as many times the packet's own time on the wire if that is
// longer.
//
// # Waking up
//
// The descriptor of an impaired queue is an epoll set that holds the inner
// queue's descriptor and a timer. It is readable, level-triggered, when there
// is a frame to read, a packet in a lane has become due, or the inner queue
// takes again what it was too full for. In any of these cases Read does what is
// to be done in both directions; there is no goroutine.
//
// # Repeating a run
//
// Each lane draws from a generator of its own, seeded from [Spec.Seed], the
// direction and the queue's number: the same packets at the same times have
// the same fate. Two runs over a real link differ all the same as soon as their
// packets do.
package impair
