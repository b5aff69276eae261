package portfwd

import (
	"time"

	"sbxnet/portfwd/hostsock"
)

// While it drains, a forwarder is looked at this often; a sandbox that has
// nothing in flight costs two looks.
const (
	drainLook     = time.Millisecond
	drainLookMost = 20 * time.Millisecond
)

// Drain waits until what the sandbox's processes sent before they ended has
// been handed to the host's sockets: the bytes that the sandbox's kernel still
// holds of closed connections, and frames that are on the link. It gives up when
// nothing has moved for stall, and at once when stop is closed. It is called
// after the sandbox's last process is gone, while the link still exists.
//
// Without it `sbxnet run -- sh -c 'producer | nc host'` would lose the end of the
// stream, because the network would end with the command.
func (f *Forwarder) Drain(stall time.Duration, stop <-chan struct{}) {
	// The first look may have come before frames that were already on the link
	// were read; the second one comes after.
	f.look(stall, stop)
	moved, look := uint64(0), drainLook
	for last := time.Now(); ; {
		flows, bytes := f.look(stall, stop)
		if flows == 0 {
			return
		}
		now := time.Now()
		if bytes != moved {
			moved, last, look = bytes, now, drainLook
		}
		if now.Sub(last) >= stall {
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(look):
		}
		look = min(2*look, drainLookMost)
	}
}

// look is inFlight, or nothing where a shard stands still; see Close.
func (f *Forwarder) look(most time.Duration, stop <-chan struct{}) (flows int, moved uint64) {
	type found struct {
		flows int
		moved uint64
	}
	c := make(chan found, 1)
	go func() {
		flows, moved := f.inFlight()
		c <- found{flows, moved}
	}()
	select {
	case is := <-c:
		return is.flows, is.moved
	case <-stop:
	case <-time.After(most):
	}
	return 0, 0
}

// inFlight counts the connections on which the sandbox has not ended its stream,
// and adds up a number that changes when bytes move on any: what host sockets
// took, less what they still hold. A socket with a large buffer takes its next
// bytes long after the last, while the far end reads all the time.
func (f *Forwarder) inFlight() (flows int, moved uint64) {
	for _, s := range f.shards {
		var n int
		var bytes uint64
		if !s.call(func() {
			bytes = s.counters.toHost
			for r := range s.relays {
				if r.open && !r.guestEOF {
					n++
					bytes -= hostsock.Unacked(r.fd)
				}
			}
			for c := range s.splices.all {
				if c.inFlight() {
					n++
					bytes -= hostsock.Unacked(c.client.fd)
				}
			}
		}) {
			continue // nothing is in flight on a shard that has ended
		}
		flows += n
		moved += bytes
	}
	return flows, moved
}
