// Package portfwd joins the stack and the host: it carries the sandbox's
// traffic over ordinary host sockets, and published ports the other way.
//
// # Theory of operation
//
// A [Forwarder] runs one shard for each queue of its link. A shard is one
// goroutine locked to its thread that owns a queue, a netstack.Stack, all flows
// on them and their host sockets, and waits for all of them in one epoll set
// (package reactor). A turn of its loop:
//
//	wait until something is ready, or for the earliest deadline
//	read the clock; run the stack's timers and the shard's own
//	note which host sockets are ready; run what other goroutines posted
//	read frames from the link, bounded; the stack works each one through to a
//	  host socket, by way of the flows here
//	work on flows whose host sockets are ready, each bounded; those with more
//	  to do stay on the ready list, and the next wait only looks
//	flush the stack; write its batch to the link; reclaim buffers
//
// Readiness is edge-triggered: an event sets a flag on its flow and puts it on
// the ready list, and the flag stays until a system call says EAGAIN.
//
// # Flows
//
// A relay is one TCP connection: a connection of the stack on the sandbox's
// side, a socket on the host's. Payload goes from the received frame into send;
// what the socket does not take stays in the connection's buffer, and the
// advertised window says so. From the host, readv fills the connection's send
// buffer, where it stays until the sandbox acknowledges it. An end of stream, a
// reset and an error cross as themselves.
//
//	outbound:  SYN held ─▶ policy ─▶ connect ─┬─▶ SYN-ACK, open
//	                                          └─▶ RST, ICMP error or silence
//	published: accept ─▶ SYN to a target ─┬─▶ open
//	                                      └─▶ refused: next target; none: RST
//	open ─▶ half-closed, either side ─▶ both ends of stream seen ─▶ closed
//
// A UDP flow is a pair of endpoints and a host socket: one of its own,
// connected, for outbound flows; the published one for flows from outside. An
// echo flow is an identifier and a ping socket. Both end by being idle, or as the
// longest idle when there are too many. A relay ends by being idle, too. All
// idle times are nf_conntrack's, and [Timeouts] adjusts them.
//
// The TTL of a datagram, an echo request or a SYN goes out less one, and a
// router's time exceeded comes back from the host socket's error queue: the
// sandbox's traceroute shows the gateway, the routers and the destination. Of a
// connection only a TTL below the usual one is passed on, that of its SYN.
//
// # What the sandbox may reach
//
// The policy maps each destination to a host address or a refusal: the host's
// loopback in no spelling of it, but where Config.HostMappings lead there
// (Config.HostLoopback is two of them, from the gateway's addresses); nothing on
// the link but the gateway and the name server; no multicast or broadcast. With
// Config.AnswerAll, for a sandbox that has the host's own addresses, the link is
// the host's network, and all of it is reached by way of the host.
//
// # Published ports
//
// They come and go while the forwarder runs: Publish takes over bound sockets,
// all or none, and Unpublish frees the host's ports before it returns. A port is
// one shard's for as long as it is published. Its connections are not the port's:
// they outlive it. Its UDP flows are, since they answer from its socket.
//
// With Config.Sockets, TCP clients do without the link: a splice joins the accepted
// socket to one that was made inside the sandbox, and connected there in the
// client's name. What the server sees is the same; where that cannot be, or nobody
// accepts, a relay tries over the link.
//
// With Config.Diverter, an outbound relay with bulk becomes a splice while it runs.
//
// # Bounds
//
// [Limits] names what one shard may hold, docs/limits.md everything else, with
// what happens at each bound and the statistic that shows it. Running out of
// flows or of file descriptors refuses what is new and leaves the rest alone;
// datagram and echo flows make room by ending the longest idle. All memory per
// flow is bounded: TCP by the connection's buffers, or a pipe's, UDP by nothing
// being held but one datagram of a flow whose target is not known yet.
//
// # What cannot be
//
// A client of a published UDP port whose datagram every target refuses hears
// nothing, and times out where on the host itself it would have heard
// "connection refused": an unprivileged socket cannot send ICMP, and a published
// one stays open for all other clients. TCP clients are reset.
//
// What the packet way never does: allocate, lock, log, or change goroutines.
package portfwd
