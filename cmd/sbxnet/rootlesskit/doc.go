// Package rootlesskit is sbxnet under the name of rootlesskit: what
// dockerd-rootless.sh, containerd-rootless.sh and people start their engines
// with, with sbxnet's network in place of the one that --net names.
//
//	options.go      the original's flags, read and checked; nothing is started
//	help.go         what --help says of them
//	run.go          state directory, sandbox, network, API, ports, command
//	subids.go       who knows the user's subordinate IDs
//	evacuate.go     --evacuate-cgroup2
//	detached.go     a thread in a detached network, by which that is looked into
//	environment.go  what the command finds in its environment and in /etc
//	loopback.go     by which ports lead to 127.0.0.1 and ::1 of the sandbox, for dockerd from 28 on
//	ways.go         the part of that in the sandbox
//	dockerproxy.go  rootlesskit-docker-proxy, which dockerd before version 28 runs
//
// # What is as the original does it
//
// The flags, where they end, and their defaults. The environment
// (ROOTLESSKIT_STATE_DIR, ROOTLESSKIT_PARENT_EUID, ROOTLESSKIT_PARENT_EGID), the
// state directory and the API in it. The exit status: the command's, and 1 for
// what fails before there is one, in a line that begins with
// "[rootlesskit:parent] error:". The layout of a directory that was copied up.
// LISTEN_FDS, and a detached network namespace at netns in the state directory.
//
// # What is not
//
// Every --net but host and none is the same network, sbxnet's; no other program
// is run, and the flags that name one are without effect. So is --port-driver,
// but for none and implicit: published ports keep their clients' addresses, TCP
// and UDP. Of a status above 128 the original makes 255. Whatever kills it takes
// the command and the state directory along.
package rootlesskit
