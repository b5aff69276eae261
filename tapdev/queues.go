package tapdev

import "runtime"

// mostQueues is what DefaultQueues returns at most: each queue is a thread, with
// buffers of its own, and no laptop's link is worth more of them.
const mostQueues = 4

// DefaultQueues is how many queues a link of this kind, TAP or Packet, gets if
// Options.Queues is 0: one for two cores that this process may use, since the
// processes at both ends of a flow want the others.
//
// A TAP has two on two cores already. There the second makes many streams a fifth
// to a third faster, and one flow, which stays on one queue, is as fast as with
// one. On a packet link flows that begin on our side arrive on any queue,
// whichever they were written to, which costs more than that gains.
func (k Kind) DefaultQueues() int { return k.queuesFor(runtime.NumCPU()) }

func (k Kind) queuesFor(cores int) int {
	least := 1
	if k == TAP {
		least = min(cores, 2)
	}
	return min(max(cores/2, least), mostQueues)
}

// withQueues are the options for a link of a kind that has been decided on.
func (o Options) withQueues(k Kind) Options {
	if o.Queues == 0 {
		o.Queues = k.DefaultQueues()
	}
	return o
}
