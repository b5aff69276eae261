// Package state is where a running sandbox can be found, and spoken to: its
// state directory, and the API on the socket in it.
//
//	$XDG_RUNTIME_DIR/sbxnet/NAME/     0700, ours; the name is taken while
//	    lock                          this is locked (flock), and is our PID
//	    child_pid                     of the sandbox's first process
//	    api.sock                      RootlessKit's REST API, and ours beside it
//	    netns                         the network namespace, if it is detached
//
// # Directories
//
// Without a usable $XDG_RUNTIME_DIR the place is /run/user/UID, or else a
// directory below the one for temporary files whose name has the user in it.
// Whatever is there already is used only if it is a directory of ours that nobody
// else may enter; a symbolic link is not. Those who take, give back and sweep
// names hold the outer directory's lock meanwhile, so that they see all of each
// other's doing or nothing. What a killed sbxnet left is removed by a process of
// its in the sandbox (Leftovers); if that was killed too, it is swept by the next
// one to start: its lock is free. The outer directory goes with the last name.
//
// That a sandbox is up is seen by its socket: somebody listens, or nobody does.
//
// # API
//
// Server offers RootlessKit's routes through RootlessKit's own router, so that
// what it promises its clients holds here, over the same set of ports that -p and
// `sbxnet port` change (package network). Beside them are ours, below /v1/sbxnet:
//
//	GET    ports            the entries, each with what listens for it
//	POST   ports            {"specs":["8080:80"]}: all of them or none
//	DELETE ports            {"specs":[...],"ids":[...]}: all of them or none
//	GET    inspect          what the sandbox is
//	GET    stats            its counters
//	POST   stop             {"grace":SECONDS}: end it
//
// RootlessKit's clients are told to lead ports to the sandbox's own address, unless
// there is a Loopback: then, as by RootlessKit's usual driver, to its loopback
// addresses, of which there is one for each family.
//
// Every error is JSON with a message. A body, the headers, the time for them and
// the number of connections are bounded. Whoever can connect may do everything:
// that is the user himself, and what runs as him, in the sandbox or out of it.
//
// Nothing here starts a sandbox, opens a port by itself or prints.
package state
