package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// The descriptors that init is started with, after stdin, stdout and stderr.
const (
	controlFD = 3 // its end of the control socket
	setupFD   = 4 // the memory file with the setup
	// listenersFD is the first of setup.Listeners.
	listenersFD = 5
)

// initName is argv[0] of the re-executed process, and what ps shows.
const initName = "sbxnet-init"

// setup is what init is told before it starts. The command's arguments and
// environment are not in it: they are init's own, because JSON would not carry
// them byte for byte.
type setup struct {
	Network       Mode
	PIDNamespace  bool
	NetRaw        bool
	Hostname      string
	Link          tapdev.Options
	Addresses     []netip.Prefix
	Gateways      []netip.Addr
	ResolvConf    []byte
	Hosts         []byte
	Etc           string
	CopyUp        []string
	Propagation   Propagation
	Cgroup2       bool
	DetachNetNS   string
	Listeners     int
	Remove        []string
	RemoveIfEmpty []string
	MaxProcs      []byte // of the command's environment; see oneProcessor
}

// newNetwork reports whether init and the command are in a network namespace
// of the sandbox's own.
func (s *setup) newNetwork() bool { return s.Network != NetworkHost && s.DetachNetNS == "" }

// etcFiles are the files in /etc that the sandbox has of its own, by name.
func (s *setup) etcFiles() map[string][]byte {
	files := map[string][]byte{}
	if s.DetachNetNS != "" {
		return files
	}
	if len(s.ResolvConf) > 0 {
		files["resolv.conf"] = s.ResolvConf
	}
	if len(s.Hosts) > 0 {
		files["hosts"] = s.Hosts
	}
	return files
}

// op names a message on the control socket.
type op string

const (
	opMapped  op = "mapped"  // down: the ID maps are written, carry on
	opExec    op = "exec"    // down: start the command
	opEnd     op = "end"     // down: sbxnet ends this, and lives
	opSignal  op = "signal"  // down: Number arrived at sbxnet
	opNote    op = "note"    // up: Text is worth a log line
	opReady   op = "ready"   // up: Info and descriptors of the link
	opStarted op = "started" // up: the command runs, as Number in its PID namespace
	opExited  op = "exited"  // up: the command's exit status is Number
	opFailed  op = "failed"  // up: Text went wrong; Number is an exit status or 0
	opFound   op = "found"   // up: Found has changed

	opListen   op = "listen"   // down: bind Sockets
	opSockets  op = "sockets"  // down: make Number sockets for any address, of IPv6 if V6
	opDivert   op = "divert"   // down: the connection From, To is to go over lo
	opUndivert op = "undivert" // down: and no longer
	opRemove   op = "remove"   // down: Paths are to go if sbxnet dies
	opServe    op = "serve"    // down: a socket to receive these but opRemove on, and answer
	opDone     op = "done"     // up: what was asked is done, with the descriptors of what was made
)

// message is one datagram on the control socket.
type message struct {
	Op     op
	Number int          `json:",omitempty"`
	Text   string       `json:",omitempty"`
	Errno  int          `json:",omitempty"`
	Label  string       `json:",omitempty"` // AppArmor label of init
	Info   *tapdev.Info `json:",omitempty"`
	// Found comes with opReady and opFound of an attachment, Sockets with opListen.
	Found   *Found   `json:",omitempty"`
	Sockets []Socket `json:",omitempty"`
	// Paths come with opRemove, V6 with opSockets.
	Paths []string `json:",omitempty"`
	V6    bool     `json:",omitempty"`
	// From and To come with opDivert and opUndivert.
	From netip.AddrPort `json:",omitzero"`
	To   netip.AddrPort `json:",omitzero"`
	// truncated: not all descriptors that came with it could be received.
	truncated bool
}

// maxMessage bounds a datagram; what is sent is far below it.
const maxMessage = 64 << 10

// maxNotes bounds the log lines that one sandbox causes, and maxText their
// length in bytes.
const (
	maxNotes = 100
	maxText  = 1024
)

// printable makes a text from inside fit for a log and a terminal.
func printable(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// maxMessageFiles is the kernel's own limit (SCM_MAX_FD, net/scm.h).
const maxMessageFiles = 253

// controlPair returns sbxnet's end as a connection and init's as a file.
func controlPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	conn, err := controlConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// controlConn takes over f.
func controlConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("control socket: not a Unix socket")
	}
	return u, nil
}

// sendMessage sends m with descriptors, which stay the caller's.
func sendMessage(c *net.UnixConn, m message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("control message %s: %w", m.Op, err)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			// Not f.Fd(): that would make the descriptor blocking.
			raw, err := f.SyscallConn()
			if err != nil {
				return fmt.Errorf("control message %s: %w", m.Op, err)
			}
			if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
				return fmt.Errorf("control message %s: %w", m.Op, err)
			}
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	runtime.KeepAlive(files)
	if err != nil {
		return fmt.Errorf("control message %s: %w", m.Op, err)
	}
	return nil
}

// receiveMessage returns the next message and the descriptors that came with
// it, which are the caller's; io.EOF when the other side is gone.
func receiveMessage(c *net.UnixConn) (message, []*os.File, error) {
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(maxMessageFiles*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if errors.Is(err, unix.ECONNRESET) {
		// It closed its end without having read all. That is said before what it
		// sent, and once (__skb_try_recv_datagram, net/core/datagram.c).
		n, oobn, flags, _, err = c.ReadMsgUnix(b, oob)
	}
	if err != nil {
		return message{}, nil, err
	}
	if n == 0 {
		return message{}, nil, io.EOF
	}
	files, err := receivedFiles(oob[:oobn])
	if err != nil {
		return message{}, nil, err
	}
	var m message
	if err := json.Unmarshal(b[:n], &m); err != nil {
		closeAll(files)
		return message{}, nil, fmt.Errorf("control message: %s", printable(err.Error()))
	}
	m.truncated = flags&unix.MSG_CTRUNC != 0
	return m, files, nil
}

func receivedFiles(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "link"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// setupFile returns a memory file with s, positioned at its start.
func setupFile(s any) (*os.File, error) {
	fd, err := unix.MemfdCreate("sbxnet-setup", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory file for the sandbox's setup: %w", err)
	}
	f := os.NewFile(uintptr(fd), "setup")
	if err := json.NewEncoder(f).Encode(s); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the sandbox's setup: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the sandbox's setup: %w", err)
	}
	return f, nil
}
