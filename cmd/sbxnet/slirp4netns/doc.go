// Package slirp4netns is sbxnet under the name of slirp4netns: the same
// options, descriptors, API and exit statuses, so that Podman, RootlessKit,
// Docker and nerdctl start it without knowing.
//
// # Theory of operation
//
//	options.go, address.go   what the caller asks for; nothing has happened yet
//	     │
//	descriptor.go            the caller's pipes: exit-fd, ready-fd
//	     │
//	target.go                a link into the namespace (package userns), or the
//	     │                   caller's own TAP descriptor
//	move.go, unthreaded.go   with --enable-sandbox: this program anew, the same
//	     │                   process, in a mount namespace of its own
//	network                  the stack on that link (package network)
//	     │
//	api.go, request.go       the JSON API on --api-socket, over ports.go
//	     │
//	confine.go, root.go      what --enable-sandbox and --enable-seccomp take away
//	     │
//	main.go                  "1" to ready-fd; then wait for an end
//
// It ends with status 0 when the writer of exit-fd has closed it or the
// namespace has gone, by the signal that it was sent, and with status 1 and one
// line on standard error when it cannot start. Whatever way it ends, host ports
// are free first and the API socket is removed; SIGKILL leaves the socket's
// file, which the next one replaces. Unless it was a signal, what a container's
// processes sent before they ended then has a moment to get out.
//
// # Where it differs
//
// An API request that names a port outside 1 to 65535 or not a whole number is
// refused, where the original lets the number wrap; a request without a proto is
// an error, where the original crashes. A list has its entries under both keys
// that the original's program and its manual give them. With --configure and
// --enable-ipv6 the interface has fd00::100 at once, besides what router
// advertisements lead to. The BESS target is refused.
//
// With --enable-sandbox the process is not in the user namespace of the sandbox,
// whose root could trace it, but in one of its own, or with CAP_SYS_ADMIN in that
// of its caller. root.go says what is shown besides /etc and /run. Where the
// kernel, before Linux 5.12, or a host's policy has no such namespace for it, it
// keeps its root directory, and Landlock takes the files away.
//
// With --disable-dns the name server's address answers ping and nothing else,
// where the original's host is asked for whoever has that address there.
package slirp4netns
