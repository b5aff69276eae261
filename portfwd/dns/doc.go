// Package dns is the resolver that the sandbox sees. It has no cache and no
// opinion: a query goes to the host's resolvers as the bytes that came, and
// their answer comes back as the bytes they sent. EDNS, DNSSEC bits, unknown
// types and truncation are between the two ends. Only the message ID changes on
// the way, because ours must be unpredictable (RFC 5452).
//
// A query comes in through [Server.ServePacket] or [Server.Serve], on any
// net.PacketConn or net.Listener. It is checked as far as its one question. A
// name that is ours, host.sbxnet.internal, is answered here. Everything else is
// sent from a socket of its own, and so from a random port, to the first of the
// host's resolvers; the next one is asked when an answer is late, an error or
// refused, while the earlier ones may still answer. The first good answer wins,
// then the first error answer, then SERVFAIL. What counts as an answer must come
// from the server that was asked, carry our ID and repeat the question. UDP
// queries go out over UDP and TCP queries over TCP, so a truncated answer makes
// the client come back over TCP just as it would without us.
//
// The host's resolvers are those of its resolv.conf now: the file is looked at
// on every query and read again when it, or what it links to, has changed. A
// server that did not answer goes to the end of the line for a while.
//
// Everything the sandbox can make us keep is bounded: queries in flight, TCP
// connections, their idle time, the size of messages. Past the bounds UDP
// queries are dropped and TCP connections are not read.
//
// Not supported: zone transfers of more than one message.
package dns
