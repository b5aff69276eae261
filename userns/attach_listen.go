package userns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is one that is to be bound in the namespace.
type Socket struct {
	// UDP, or TCP.
	UDP bool
	// Addr to bind to; port 0 is any free one. IPv6 is IPv6 only.
	Addr netip.AddrPort
	// Interface that alone it receives from (SO_BINDTODEVICE); empty is all.
	Interface string `json:",omitempty"`
}

func (s Socket) String() string {
	protocol := "tcp"
	if s.UDP {
		protocol = "udp"
	}
	if s.Interface != "" {
		return fmt.Sprintf("%s/%s%%%s", s.Addr, protocol, s.Interface)
	}
	return s.Addr.String() + "/" + protocol
}

// maxSockets bounds the sockets of one message, below maxMessageFiles.
const maxSockets = 128

// listenTimeout is far beyond what the sockets of one message take; tests have
// less time.
var listenTimeout = 10 * time.Second

// Listen binds sockets in the namespace, all of them or none, and returns their
// descriptors in the same order: non-blocking, TCP listening, UDP telling each
// datagram's destination address (IP_PKTINFO, IPV6_RECVPKTINFO). They stay in the
// namespace, and keep it, whoever holds them, and outlive the Attachment.
//
// The error names the socket and wraps the kernel's answer, such as EADDRINUSE.
func (a *Attachment) Listen(sockets []Socket) ([]*os.File, error) {
	a.asking.Lock()
	defer a.asking.Unlock()
	return inMessages(len(sockets), func(from, to int) ([]*os.File, error) {
		return a.ask("bind", message{Op: opListen, Sockets: sockets[from:to]}, to-from)
	})
}

// ask has the process inside do what one message says, of which n sockets come.
func (a *Attachment) ask(what string, m message, n int) ([]*os.File, error) {
	fail := func(err error) ([]*os.File, error) { return nil, fmt.Errorf("%s in %s: %w", what, a.name, err) }
	err := sendWithin(a.conn, listenTimeout, m)
	if err == nil {
		err = await(a.bell, unix.POLLIN, listenTimeout)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		// What it may still say would be taken for the answer to the next.
		a.dismiss()
		return fail(errors.New("the process inside does not answer"))
	case errors.Is(err, os.ErrClosed): // the bell is
	case err != nil:
		return fail(a.died(err))
	default:
		_, _ = a.bell.Read(make([]byte, 8)) // before there is room for another
	}
	r, ok := <-a.replies
	switch {
	case !ok:
		return fail(a.lost)
	case r.m.Op != opDone || len(r.files) != n:
		closeAll(r.files)
		return fail(explainSetup("/", r.m))
	}
	return r.files, nil
}

// newBell makes what tells ask that there is a reply, or will be none. It cannot wait
// for those with a time limit that leaves no timer; see await.
func newBell() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("event descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), "bell"), nil
}

func (a *Attachment) ring() { _, _ = a.bell.Write([]byte{1, 1, 1, 1, 1, 1, 1, 1}) }

// reply is an answer of the process inside.
type reply struct {
	m     message
	files []*os.File
}

// listenInside binds sockets, in the process inside, and sends them up.
func listenInside(conn *net.UnixConn, sockets []Socket) {
	var files []*os.File
	defer func() { closeAll(files) }()
	for _, s := range sockets {
		fd, err := s.open()
		if err != nil {
			sendFailure(conn, fmt.Errorf("%s: %w", s, err))
			return
		}
		files = append(files, os.NewFile(uintptr(fd), s.String()))
	}
	sendDone(conn, files)
}

// sendDone sends up what was made, or why that cannot be sent: who asked waits for
// an answer.
func sendDone(conn *net.UnixConn, files []*os.File) {
	if err := sendMessage(conn, message{Op: opDone}, files...); err != nil {
		sendFailure(conn, err)
	}
}

func (s Socket) open() (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if s.Addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	if s.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := s.bind(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s Socket) bind(fd int) error {
	sa, err := s.address()
	if err != nil {
		return err
	}
	six := s.Addr.Addr().Is6()
	if six {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	switch {
	case err != nil:
	case !s.UDP: // for connections of an earlier run that are in TIME-WAIT
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	case six:
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	default:
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err == nil && s.Interface != "" {
		err = unix.BindToDevice(fd, s.Interface)
	}
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, sa); err != nil || s.UDP {
		return err
	}
	return unix.Listen(fd, 65535) // the kernel cuts it down to somaxconn
}

func (s Socket) address() (unix.Sockaddr, error) {
	a := s.Addr.Addr().Unmap()
	switch {
	case !a.IsValid():
		return nil, errors.New("no address to bind to")
	case a.Is4() && !s.Addr.Addr().Is4():
		return nil, errors.New("an IPv4 address in the form of an IPv6 one")
	case a.Is4():
		return &unix.SockaddrInet4{Port: int(s.Addr.Port()), Addr: a.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(s.Addr.Port()), Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		i, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("zone %s: %w", zone, err)
		}
		sa.ZoneId = uint32(i.Index)
	}
	return sa, nil
}
