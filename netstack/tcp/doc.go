// Package tcp is the stack's TCP: connections, listeners, loss recovery,
// congestion control and every timer they need. It is a state machine that is
// told the time and the segments, and appends frames to a batch. It makes no
// system call, reads no clock, starts no goroutine and takes no lock.
//
// # Theory of operation
//
// An [Engine] is all TCP of one stack and belongs to one owner, who repeats:
//
//	timers.Run(now)      deadlines that have passed
//	engine.Input(p)…     every segment that the link has for us
//	conn.Write(…)…       what hosts' sockets have for connections
//	engine.Flush()       speak, once per connection
//	write the batch      the link takes the frames
//	engine.Reclaim()     buffers the frames pointed into may be used again
//
// Input works a segment through to the handler and never answers for a
// connection: it marks it dirty, and Flush sends what is due in one go, so a
// batch of twenty segments costs one acknowledgement. Only answers that belong
// to no connection (RST, cookies, TIME-WAIT) and resets are appended on the spot.
//
// Segments may be super-segments of up to 64 KiB in both directions. On the way
// out the link is asked to cut them (frame.Offload), and the payload stays in
// the send buffer: a frame is a header and two pointers. On the way in payload
// is offered to the [Handler] where it lies in the frame.
//
// # Connections
//
// A [Conn] moves through the states of RFC 9293 §3.3.2, with one before them:
// Held, a SYN to an address where nobody listens, about which the owner is to
// decide. It costs a Conn and no buffers. In TIME-WAIT a small record takes the
// connection's place, and the Conn lives on only until its handler has all data.
//
//	SYN ─ no listener ─→ Held ─ Accept ─→ SYN-RECEIVED ─→ ESTABLISHED ─→ …
//	                       └ Refuse, RST, 150 s ─→ gone
//
// Received segments are checked in the order of RFC 9293 §3.10.7.4 as amended
// by RFC 5961 and RFC 7323 (input.go); nearly all take a short cut (fastPath)
// that checks the same and changes nothing if it does not apply.
//
// A connection on which nothing is under way can leave the stack for a kernel's
// socket to carry it on (released.go).
//
// # Sending
//
// The send buffer (sendbuf.go) is a queue of 64 KiB chunks from the engine's
// pool; sequence numbers index it. What has been sent is described by records
// (sent.go): ranges that went out at one time, and whether they were SACKed,
// taken for lost, or sent again. SACK splits records, cumulative
// acknowledgement drops them. Loss is found by RACK (rack.go), a tail loss probe
// (tlp.go), duplicate ACKs where the peer has no SACK, and the timeout. It is
// repaired under PRR (recovery.go), and a reduction that proves to have been for
// nothing is taken back (Eifel, DSACK). CUBIC or NewReno say what becomes of the
// window (congestion.go).
//
// # Receiving
//
// The receive buffer (recvbuf.go) is empty and without memory as long as the
// handler takes all it is offered. What it leaves, and what comes out of order,
// lies in chunks at the place its sequence number gives it. The right edge of
// the window is the first byte not taken plus the buffer's size; it never moves
// back, and nothing is acknowledged that was neither taken nor stored.
//
// # Memory
//
// Buffers begin with what fills a link in memory, and grow with what the path
// carries in its shortest round trip (autotune.go).
//
// Every bound is in limits.go: connections, held ones, TIME-WAIT records,
// buffers in all and per connection, out-of-order ranges, records. Past the
// bound on all buffers a connection may still have its first chunk, so every
// one moves and none can move much. The data path allocates nothing.
//
// # Not here
//
// TCP Fast Open, urgent data (its bytes are taken as ordinary ones), MD5 and AO,
// Nagle's algorithm (a relay forwards what was written), pacing, and F-RTO (RFC
// 5682): Eifel and DSACK find out the timeouts that were for nothing.
package tcp
