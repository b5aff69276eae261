// Package pasta is sbxnet under the names of pasta and pesto: the same options,
// wording, exit statuses and life cycle, on sbxnet's own network.
//
// # Two forms
//
//	pasta [OPT] [CMD ARG...]           new namespaces; in the foreground until CMD ends, with its status
//	pasta [OPT] PID
//	pasta [OPT] --netns PATH|NAME      a namespace that is there; in the background until that goes
//
// For the second form the process that the caller waits for starts another one
// of the same arguments, whose standard streams are /dev/null from its first
// moment and which leads a session of its own. The two share a pipe: the one in
// the background writes what it has to say, then that it is ready; the other
// prints the lines and exits with 0 at ready, with 1 at end of file without it.
// Callers read our output to its end and look at nothing but the status.
//
// # From options to a network
//
//	options.go, values.go   arguments, read and checked; nothing has had an effect
//	portspec.go             -t, -u: what leads where, without a socket
//	host.go                 addresses, default routes and MAC of the host, by netlink
//	plan.go                 options and host: what is configured inside, what the stack answers as
//	session.go              userns and network brought up and ended in order
//	table.go                what is published, by whom: options, pesto, or auto
//	auto.go, sockets.go     what listens, looked at each second
//	follow.go               auto: host ports opened and closed after the namespace's listeners
//	outward.go              -T, -U: sockets inside that lead to the host
//	outward_follow.go       auto: those opened and shut after the host's listeners
//	control.go, pesto.go    the socket of --conf-path, and the program that speaks to it
//
// By default the sandbox has the host's own addresses and gateway, so that the
// stack answers for every other address on the link and sends what comes to the
// host's network as it would be sent from the host itself.
//
// docs/podman.md says where this differs from the original.
package pasta
