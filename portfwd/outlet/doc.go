// Package outlet carries connections and datagrams from listening sockets in the
// sandbox to the host's own addresses: ports that lead out, as published ports
// lead in. It is how a process in the sandbox reaches a server on the host's
// loopback as if it were on its own, where somebody asks for that port by number;
// nothing leads there otherwise.
//
// # Theory of operation
//
// The sockets are made inside the sandbox's network namespace, such as by
// spec.Bind in a process that is there, and their descriptors are handed to
// [Outlets.Open]. A socket stays in the namespace that it was made in, whoever
// holds it; sockets made here are the host's. So both ends are the kernel's, and
// no packet passes the link or the stack.
//
//	TCP: accept inside ─▶ connect on the host ─┬─▶ copy, both ways, by splice(2)
//	                                           └─▶ refused: reset
//	UDP: datagram inside ─▶ flow of its client ─▶ connected socket on the host
//
// An end of stream crosses as itself, an error as a reset. There is a goroutine
// for each direction of a connection and for each flow: unlike the shards of
// package portfwd this is for a handful of clients, and has [Limits].
//
// What it never does: bind, choose ports, or decide who may.
package outlet
