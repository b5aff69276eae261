// Package spec is published ports before any packet moves: what the user wrote
// after -p, whether several of them contradict each other, and the host sockets
// that they ask for.
//
// The way through is [ParseAll], which reads and checks the values of all -p
// flags, then [Bind], which opens every host socket or none, then [Lines],
// which says what is published now. Bind comes before namespaces and links, so
// that a taken port is an error with nothing to clean up. The sockets are plain
// non-blocking descriptors: a [Bound] owns one, whoever forwards reads and
// accepts on it.
//
// A spec without a host address means the host's two loopback addresses. They
// are two sockets with one port, because a wildcard would open the port to the
// network and a dual-stack socket cannot be bound to loopback.
//
// A spec may also say where in the sandbox it leads, and which of the host's
// interfaces its clients come in by (Spec.Child, Spec.Interface): other tools'
// specs do, -p does not.
//
// Nothing here accepts, reads or forwards, and nothing here knows the sandbox.
package spec
