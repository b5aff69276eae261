package tapdev

import "runtime"

// mostQueues is what DefaultQueues returns at most: each queue is a thread, with
// buffers of its own, and no laptop's link is worth more of them.
const mostQueues = 4

// DefaultQueues is how many queues a link gets if Options.Queues is 0: one for two
// cores that this process may use, since the processes at both ends of a flow want
// the others. On two cores a second one would make connections one after the other
// a tenth slower, and bulk does not stay on the link.
func DefaultQueues() int { return queuesFor(runtime.NumCPU()) }

func queuesFor(cores int) int { return min(max(cores/2, 1), mostQueues) }

// withQueues are the options with a number of queues.
func (o Options) withQueues() Options {
	if o.Queues == 0 {
		o.Queues = DefaultQueues()
	}
	return o
}
