// Package userns makes a sandbox: the namespaces, the ID maps, the first
// process in them, its mounts and addresses, and what carries signals and the
// exit status between the command and its caller.
//
// # Theory of operation
//
// Three processes take part, in one session and one process group, so that a
// terminal treats them as one job:
//
//	sbxnet ──control socket── init ── command ── whatever it starts
//	(host)                    (in the namespaces)
//
// Start re-executes /proc/self/exe with new user, mount and network (UTS, PID)
// namespaces. The process starts before its ID map is written; all its
// capabilities are therefore raised as ambient ones between clone and exec,
// which saves the second exec that others need. Start writes the map itself
// (one ID, or for real root all of them) or through newuidmap and newgidmap,
// the only other programs that this package ever runs, while init reads its
// setup from a memory file. Told that the maps are there, init makes the
// mounts, opens the link, configures addresses and routes over netlink, and
// sends the link's descriptors up. Container ID 0 is the caller in every map,
// so no process changes its IDs.
//
// Then it waits for Exec, so that the stack runs before the command's first
// packet. Starting the command is a plain fork and exec from init's locked main
// thread, which first gives up the ambient and inheritable sets (and
// CAP_NET_RAW where that is asked for).
//
// # Control socket
//
// A SOCK_SEQPACKET pair carries one JSON message a datagram. Down: mapped,
// exec, signal, end, remove; to who attaches listen, sockets, divert and undivert,
// to init serve instead, which brings a socket for these alone, lest its answers
// come between others. Up: note,
// ready (with descriptors), started, exited, failed, found, done. End of file is a message as well: init takes it for the death of sbxnet,
// however that came about, ends the sandbox, and removes what sbxnet would have
// (Config.Remove); sbxnet takes it for the death of init. So does the process that
// attaches.
//
// # Namespaces of others
//
// Attach and Join enter namespaces that are there, the one to put a link into
// them, the other to run a command in a sandbox. A process of ours is started
// inside (enter.go tells how a Go program can), with a control socket and a
// setup as init has. For Attach it opens the link in the network namespace,
// configures it or reads what is on it, sends the descriptors up, and stays to
// tell of changes. The host's files remain its own, and with them /dev/net/tun. For
// Join it is a second init without mounts or link: it starts the command,
// filters signals, and ends with sbxnet or, by that, with the sandbox.
//
// Who has the capabilities over the network namespace from outside, as root has,
// enters no user namespace for Attach: a process with root's user ID in the
// user namespace of somebody else could be traced by that one. Join becomes the
// sandbox's root instead, which is the user who started it.
//
// # Sockets inside
//
// Sockets of the sandbox's network are made by who is in it and sent up. Listen
// binds them, for servers outside that are to be found inside. Sockets makes them
// for clients outside that connect to a server inside: each takes its client's
// address, and marks its packets. Rules for that mark, made when the first are
// asked for, bring the server's answers back over lo (steering.go). The link and
// what is not marked know nothing of it.
//
// Divert is for a connection from inside that such a socket has taken over from
// whoever was on the other end of the link: it adds a rule for that connection
// alone (divert.go).
//
// # Ending
//
// Without a PID namespace nothing but parenthood ties a daemon to its sandbox.
// So init is a child subreaper: orphans become its children, and when the
// command has ended, or sbxnet has, it kills its children until there are none.
// If init itself is killed, sbxnet, a subreaper too while a sandbox lives,
// inherits them, tells them by their user namespace from other children of
// its process, and does the same. init's parent death signal is SIGCONT in this
// mode: SIGKILL would not let it clean up, and a stopped init could not. Only
// the simultaneous SIGKILL of both can leave a daemon behind; with a PID
// namespace the kernel rules that out too.
//
// # Signals
//
// What a terminal sends to the foreground group reaches the command without
// help. What is sent to sbxnet alone is forwarded. init tells the two apart: it
// is in the same group, so a signal that it received itself at about the same
// time was the group's, and the forwarded copy is dropped (groupFilter).
//
// # Files seen inside
//
// resolv.conf and hosts are bind mounts of files on a tmpfs that lies hidden
// below the sandbox's /sys, so no directory on the host is needed. They are
// mounted on /etc/resolv.conf itself, never on what it points to: a symbolic
// link, dangling or not, is covered like a file. A mount disappears from every
// namespace when the host renames a new file over the old one, as
// NetworkManager does; init sees that in /proc/self/mountinfo and mounts it
// again. Where /etc was copied up they are files in it, which nothing on the host
// can replace.
//
// # For container engines
//
// Directories can be copied up (copyup.go), mounts propagate as asked for, and
// sockets of a service manager are passed on (listeners.go). A detached network
// namespace is one that neither init nor the command is in: a thread of init
// makes it, opens the link there, mounts it on a file and ends (detach.go).
//
// # What this package never does
//
// It isolates the network and nothing else: files, the terminal and, without a
// PID namespace, the sight of the host's processes are those that the caller has
// anyway. It carries no packet, prints nothing, and decides no exit status but the
// command's. It leaves no file, mount or process outside the sandbox.
package userns
