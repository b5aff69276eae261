package sim

import (
	"testing"
	"time"
)

// slowReader has stack 0 or 1 write to one that takes 2 bytes at a time, and
// some 30 bytes a second.
func slowReader(writer int) Scenario {
	s := bulk(0, 20*time.Millisecond, 8<<10, "cubic")
	s.Limit = 0
	c := &s.Conns[0]
	c.Dialer = 0
	c.Apps[writer] = AppPlan{Send: 20 << 10, WriteMax: 32 << 10, ReadMax: 1 << 20}
	c.Apps[1-writer] = AppPlan{WriteMax: 1, ReadMax: 2, Pause: 0.234, PauseMax: time.Second / 2}
	return s
}

// blackout takes all that a stack sends, but for neighbors' questions.
func (s *Scenario) blackout(from int, at, until time.Duration) {
	s.Routes = append(s.Routes, PathMTU{At: at, From: from, MTU: 28}, PathMTU{At: until, From: from})
}

// The writer has gone, the reader opens its window once in eight minutes: the
// stack lets go of the rest though every probe is answered.
func TestOrphanIsLetGoWhenTheWindowStaysClosed(t *testing.T) {
	s := slowReader(1)
	for i := range s.Stacks {
		s.Stacks[i].MTU, s.Stacks[i].ReceiveBuffer, s.Stacks[i].SendBuffer = 65520, 32<<10, 1<<20
	}
	s.Conns[0].Apps[1].Send = 150 << 10
	r, err := Run(s, nil)
	if err != nil || r.Timeouts != 1 || r.Lost != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// The same reader is waited for as long as the writer stays to hear of it.
func TestSlowReaderIsWaitedFor(t *testing.T) {
	s := slowReader(0)
	r, err := Run(s, nil)
	if err != nil || r.Timeouts != 0 || r.Bytes != 20<<10 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A listener that hears no answer to its SYN-ACKs forgets the SYN; the client,
// which has taken the connection for established, then meets a reset.
func TestHandshakeForgottenByTheListenerIsReset(t *testing.T) {
	s := bulk(0, 20*time.Millisecond, 64<<10, "cubic")
	s.Limit = 0
	s.Conns[0].Dialer, s.Conns[0].Apps[0].Send = 0, 1000
	s.blackout(0, 5*time.Millisecond, 100*time.Second)
	r, err := Run(s, nil)
	if err != nil || r.Timeouts != 1 || r.Bytes != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// Window updates get lost while the reader reads on: the writer's probes are far
// apart by then, and find out in the end.
func TestLostWindowUpdatesAreFoundOutByProbes(t *testing.T) {
	s := slowReader(0)
	s.Conns[0].Apps[1].Pause /= 4
	s.blackout(1, 20*time.Second, 110*time.Second)
	r, err := Run(s, nil)
	if err != nil || r.Timeouts != 0 || r.Bytes != 20<<10 {
		t.Fatalf("%+v, %v", r, err)
	}
}
