// Package hostsock is the host side of a flow: non-blocking sockets, the system
// calls on them that the packet path makes, and what their errors mean.
//
// Calls here never block, so they enter the kernel without telling the Go
// scheduler, and none allocates. Results come back as a count and an errno; an
// errno of 0 is success. EINTR is retried, EAGAIN is the caller's to remember:
// the reactor reports the next edge.
//
// Every IPv6 socket is IPV6_V6ONLY, so that no spelling of an IPv4 address
// reaches a socket by way of IPv6. Addresses are not judged here: the policy
// that decides what the sandbox may reach has run before.
package hostsock
