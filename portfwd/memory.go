package portfwd

import (
	"time"

	"sbxnet/netstack/timer"
	"sbxnet/tapdev/hugepage"
)

// idleMemory is how long buffers that nothing is in are kept for reuse.
const idleMemory = time.Second

// memory is where the buffers of a shard's connections come from. What is not
// used for a while goes back to the kernel.
type memory struct {
	slabs hugepage.Slabs
	timer timer.Timer
	// bytes moved when the timer was armed.
	moved uint64
}

// watchMemory sees to it that idle memory is looked at in a while.
func (s *shard) watchMemory() {
	if s.stack.TCP().IdleBytes() == 0 && s.inbox.idleBytes() == 0 {
		return
	}
	m := &s.memory
	if _, armed := m.timer.Armed(); armed {
		return
	}
	m.moved = s.counters.toHost + s.counters.toGuest
	s.timers.Arm(&m.timer, s.loop.Now().Add(idleMemory))
}

// trimMemory gives idle memory back, unless bytes have moved since the timer was
// armed; the turn that runs this then arms it again.
func (s *shard) trimMemory(timer.Instant) {
	if s.memory.moved != s.counters.toHost+s.counters.toGuest {
		return
	}
	s.stack.TCP().Trim()
	s.inbox.trim()
	s.memory.slabs.Trim()
}
