// Package network is a sandbox's network, seen from outside: the addresses it
// has, the stack on its link, its name server, and the host ports that lead in.
// Every command that gives a sandbox its network is one caller of Start:
// `sbxnet run`, `sbxnet attach`, and the other names that sbxnet goes by.
//
//	userns, tapdev      link's descriptors, opened inside the sandbox
//	     │
//	link.go             attach; impairment, capture, packet log around it
//	     │
//	network.go          portfwd on the link, the DNS service, what watches them
//	     │
//	ports.go            the one set of published ports, changed while running
//
// plan.go chooses the sandbox's addresses out of the way of the host's routes,
// for those whose contract does not prescribe them.
//
// What Start was given is closed by Close, last opened first; after an error it
// is closed already. Nothing here makes a namespace, reads a flag or prints;
// errors name the flags of `sbxnet run`, which the other names share as far as
// they have them.
package network
