// Command sbxnet gives a command a network of its own, without privilege: a
// user and network namespace, a link into it, and a TCP/IP stack on the other
// end that carries the sandbox's traffic over ordinary host sockets.
//
//	sbxnet run -p 8080:80 -- ./server
//
// This package is commands, flags and printing. A run goes through these
// stations, and whatever fails undoes the ones before it:
//
//	flags.go         what may be typed
//	settings.go      what was typed, checked; nothing is started yet
//	sandbox_state.go the name, the state directory, and the API in it
//	etc.go           the sandbox's resolv.conf and hosts
//	run.go           publish, start, execute, wait; close in the opposite order
//
// attach*.go give a namespace of others the same network. control.go, list.go,
// port.go and stats.go speak to sandboxes that run, over the API that package
// state has on their sockets; compat.go and completion.go set up what is around.
//
// Package network is the stack on the sandbox's link, whichever command opened
// it. Called by the name of a tool that it stands in for, sbxnet is that tool:
// main.go hands the command line to the package of that name.
//
// doctor.go asks the rooms below what this machine allows, and demo*.go is a
// sandbox around this same executable, whose page shows what the sandbox sees.
package main
