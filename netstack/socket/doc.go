// Package socket is the standard library's network interfaces over a running
// stack: net.Conn, net.Listener and net.PacketConn, and a loop that runs a stack
// for programs that have none of their own.
//
// # Theory of operation
//
// A stack has one owner, a goroutine that makes every call on it. Sockets are
// used by any number of others. Between the two stands, for each socket, a pair
// of bounded buffers under a lock:
//
//	user                      │ owner
//	Write ─▶ out buffer ─ Post ─▶ tcp.Conn.Reserve, Commit ─▶ segments
//	Read  ◀─ in buffer ◀─────── tcp.Handler.Data ◀────────── segments
//
// The user's side never touches the stack. It moves bytes between its caller
// and the buffers, waits on a condition when they are full or empty, and has
// [Runner.Post] run a closure on the owner's goroutine when there is something
// for the stack to do, once however many calls made it necessary. The owner's
// side never waits. What the in buffer does not take stays in the connection,
// and its window tells the peer; what the connection does not take stays in the
// out buffer, and Write waits.
//
// The same goes for datagrams, except that what the in queue does not take is
// dropped.
//
// Close returns at once. What was written before still goes out, then FIN; but
// closing with data unread resets the connection (RFC 2525 §2.17), as Linux does.
//
// The lock order is socket, then Runner. Callbacks from the stack take the
// socket's lock, and calls on the stack are made with it held; that is safe
// because the stack never calls back from within a call.
//
// # Errors
//
// Errors are those of package net, so that programs written for it understand
// them: a *[net.OpError] with the addresses, around the system's number and the
// call that would have reported it, such as connect: ECONNREFUSED, or around
// net.ErrClosed, os.ErrDeadlineExceeded, a *[net.AddrError], or the error of the
// context that ended a dial. The end of a stream is a bare io.EOF.
//
// # What it never does
//
// It resolves no names: addresses are literals. It is not made for the packet
// path: each byte is copied twice and may wait for another goroutine. Relays are
// built on tcp.Handler itself.
package socket
