package userns

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// # Sockets for clients
//
// A client outside can have its connection to a server inside made there, by a
// socket of the sandbox's network that bears the client's address, and joined to
// its own by whoever holds both. Such a socket is IP_TRANSPARENT, so that it may
// be bound to any address, and carries SO_MARK, by which steering.go brings the
// server's answers back to it, over lo, and not to the link.

// SocketMark is the mark (SO_MARK) of the sockets that Sockets returns, compared
// as a whole, and the number of the routing table for what answers them. It has
// no bit among those that Kubernetes (0xc000) and Tailscale (0xff0000) look at.
const SocketMark = 0x53000058

// Sockets makes n TCP sockets in the sandbox's network, IPv4 or IPv6, all or none,
// from which to connect to servers in it in the name of clients elsewhere: bind
// one to any address and port, connect it to one of Config.Addresses or to a
// loopback address, and the server sees the former as its peer. They are
// unconnected, non-blocking, close-on-exec, SO_REUSEADDR, and where the port is
// left open it is chosen by connect (IP_BIND_ADDRESS_NO_PORT). They stay in the
// sandbox, and keep its network, whoever holds them.
//
// Over lo a handshake is done before connect returns, or the server's queue is
// full. A socket that is not connected soon has not been answered by a server of
// that address: a firewall or a translation of addresses (a container engine's
// published port) was in the way, or the server marks its own packets. Nobody
// has accepted anything then; go over the link. To other addresses connect
// fails, or gets no answer.
//
// The first call for a family changes how the sandbox routes packets with
// SocketMark, and the sysctls by which answers have it too (steering.go). If that
// fails nothing is changed. Later calls look whether it still holds, and mend it.
//
// There are none without a network of the sandbox's own, with a detached one, nor
// of a family that Config.Addresses lack, nor where the sandbox has a firewall:
// whoever keeps sockets should ask again from time to time (firewall.go). It may be
// called from any goroutine until Close.
func (sb *Sandbox) Sockets(v6 bool, n int) ([]*os.File, error) {
	return socketsBy(v6, n, func(m message, n int) ([]*os.File, error) {
		sb.asking.Lock()
		defer sb.asking.Unlock()
		return sb.ask("make sockets", m, n)
	})
}

// Sockets is [Sandbox.Sockets] for the namespace attached to. What the first call
// changes in it is undone by Close, and when this process dies. If the process
// inside is killed it stays, and concerns none but such sockets.
func (a *Attachment) Sockets(v6 bool, n int) ([]*os.File, error) {
	return socketsBy(v6, n, func(m message, n int) ([]*os.File, error) {
		a.asking.Lock()
		defer a.asking.Unlock()
		return a.ask("make sockets", m, n)
	})
}

// socketsBy asks for n sockets.
func socketsBy(v6 bool, n int, ask func(m message, n int) ([]*os.File, error)) ([]*os.File, error) {
	if n < 0 {
		return nil, fmt.Errorf("make sockets: %d of them", n)
	}
	return inMessages(n, func(from, to int) ([]*os.File, error) {
		files, err := ask(message{Op: opSockets, V6: v6, Number: to - from}, to-from)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if err := checkSocket(f, v6); err != nil {
				closeAll(files)
				return nil, fmt.Errorf("make sockets: what came is none of them: %w", err)
			}
		}
		return files, nil
	})
}

// checkSocket is an error if f is not as openTransparent makes it: the sandbox's
// command has every capability over who says so, and a socket that blocks would
// stop who waits for many.
func checkSocket(f *os.File, v6 bool) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	e := raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name         string
			option, want int
		}{
			{"family", unix.SO_DOMAIN, socketFamily(v6)}, {"protocol", unix.SO_PROTOCOL, unix.IPPROTO_TCP},
			{"mark", unix.SO_MARK, SocketMark}, {"listening", unix.SO_ACCEPTCONN, 0},
		} {
			var got int
			if got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, o.option); err == nil && got != o.want {
				err = fmt.Errorf("%s %d in place of %d", o.name, got, o.want)
			}
			if err != nil {
				return
			}
		}
		var flags int
		if flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK == 0 {
			err = errors.New("it blocks")
		}
	})
	return errors.Join(e, err)
}

// inMessages has n sockets made, all or none, as many with a message as it holds.
func inMessages(n int, ask func(from, to int) ([]*os.File, error)) ([]*os.File, error) {
	var all []*os.File
	for from := 0; from < n; from += maxSockets {
		files, err := ask(from, min(n, from+maxSockets))
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, files...)
	}
	return all, nil
}

// socketsInside makes sockets, in the process inside, and sends them up.
func socketsInside(conn *net.UnixConn, s *steering, m message) {
	files, err := makeSockets(s, m.V6, m.Number)
	defer closeAll(files)
	if err != nil {
		sendFailure(conn, err)
		return
	}
	sendDone(conn, files)
}

func makeSockets(s *steering, v6 bool, n int) ([]*os.File, error) {
	if n < 1 || n > maxSockets {
		return nil, fmt.Errorf("%d sockets in a message that holds %d", n, maxSockets)
	}
	if err := firewall(); err != nil {
		return nil, err
	}
	if err := s.ensure(familyOf(v6)); err != nil {
		return nil, err
	}
	var files []*os.File
	for range n {
		fd, err := openTransparent(v6)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("socket for any address: %w", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "socket"))
	}
	return files, nil
}

// openTransparent makes one socket.
func openTransparent(v6 bool) (fd int, err error) {
	if fd, err = unix.Socket(socketFamily(v6), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	set := func(level, option, value int) {
		err = errors.Join(err, unix.SetsockoptInt(fd, level, option, value))
	}
	set(unix.SOL_SOCKET, unix.SO_MARK, SocketMark)
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	set(unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // heeded by IPv6, too
	if v6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1)
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	} else {
		set(unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func socketFamily(v6 bool) int {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
