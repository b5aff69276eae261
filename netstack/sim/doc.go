// Package sim runs two netstack.Stacks against each other over a bad network,
// in virtual time, and checks after every event that TCP keeps its promises.
//
// # Theory of operation
//
// A [Scenario] is everything that one run does: how each direction of the path
// mistreats frames, how the stacks are configured, where their clocks start,
// and what applications write, read and pause. [Draw] makes one from a seed.
// [Run] carries it out: it pops the earliest of the frames on the way, the
// applications' plans and the stacks' deadlines, moves the clock there, and lets
// both stacks speak. There is no other clock and no other randomness than the
// seed's, so a run can be repeated exactly, which is how a failure is looked at:
//
//	go test ./netstack/sim -run TestRandomScenarios -sim.seed 1234
//
// A frame goes from a stack's batch through
//
//	finish     checksums and segmentation, as a link does them in software
//	observe    the wire's part of the oracle
//	path       loss, queue, delay, MTU …
//	Input      of the other stack; the frame's memory is then overwritten
//
// # The oracle
//
// On the wire, of every segment that a stack emits: its checksums hold; it is no
// larger than the peer's MSS and the link's MTU; its payload is what the
// application wrote at that place in the stream; it leaves no hole behind what
// was sent before (UNA ≤ NXT), and does not pass the window that the peer has
// told; it acknowledges, also by SACK, nothing that has not arrived, and never
// less than before; the right edge of its window does not move back; its
// timestamp does not either.
//
// At the applications: a read yields exactly the stream's next bytes; the end
// of the stream comes after all of it; a connection ends in good order unless a
// side broke it off, the network lost enough to justify a timeout, or a window
// stayed closed to what an application left behind; each makes progress within a
// time that the frames lost meanwhile account for.
//
// In the stack: buffers are bounded; something outstanding means an armed timer;
// when all is over, nothing is: no connection, no TIME-WAIT, no timer.
//
// # What it never does
//
// It looks at no unexported state: the invariants that need it are asserted by
// the tests of netstack/tcp. It writes no file; a capture is a byte slice.
package sim
