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

// What is asked of a sandbox's first process later than Start, by the same
// messages as of the process that attaches.

// Listen is [Attachment.Listen] for a sandbox with a network of its own, unless
// that is detached. It may be called from any goroutine until Close.
func (sb *Sandbox) Listen(sockets []Socket) ([]*os.File, error) {
	sb.asking.Lock()
	defer sb.asking.Unlock()
	return inMessages(len(sockets), func(from, to int) ([]*os.File, error) {
		return sb.ask("bind", message{Op: opListen, Sockets: sockets[from:to]}, to-from)
	})
}

// noService is why nothing can be asked of a sandbox later.
func (c *Config) noService() error {
	switch {
	case c.Network == NetworkHost:
		return errors.New("it has the host's network")
	case c.DetachNetNS != "":
		return errors.New("its network is detached: attach to that")
	}
	return nil
}

// openService makes the socket on which init is asked for others: on the control socket
// its answers would come between those to Exec and Wait.
func (sb *Sandbox) openService() (*net.UnixConn, error) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.noService != nil || sb.service != nil {
		return sb.service, sb.noService
	}
	conn, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := sendWithin(sb.conn, listenTimeout, message{Op: opServe}, theirs); err != nil {
		conn.Close()
		return nil, err
	}
	sb.service = conn
	return conn, nil
}

// closeService ends what the first request has begun, and there is no other.
func (sb *Sandbox) closeService(why error) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.noService = why
	if sb.service != nil {
		_ = sb.service.CloseRead() // it ends await, which Close would wait for
		sb.service.Close()
	}
}

// ask has init do what one message says, of which n sockets come.
func (sb *Sandbox) ask(what string, request message, n int) ([]*os.File, error) {
	var m message
	var files []*os.File
	conn, err := sb.openService()
	if err == nil {
		err = sendWithin(conn, listenTimeout, request)
	}
	if err == nil {
		err = await(conn, unix.POLLIN, listenTimeout)
	}
	if err == nil {
		m, files, err = receiveMessage(conn)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		// What it may still say would be taken for the answer to the next.
		err = errors.New("its first process does not answer")
		sb.closeService(err)
	case endedBy(err):
		err = errors.New("the sandbox has ended")
	case err == nil && (m.Op != opDone || len(files) != n):
		closeAll(files)
		m.Text, m.Label = printable(m.Text), printable(m.Label)
		err = explainSetup("/", m)
	}
	if err != nil {
		return nil, fmt.Errorf("%s in the sandbox: %w", what, err)
	}
	return files, nil
}

// serve does what sbxnet asks for on a socket of its own, until that is closed.
func (p *initProcess) serve(f *os.File) {
	conn, err := controlConn(f)
	if err != nil {
		return
	}
	defer conn.Close()
	s := steering{link: p.setup.Link.Name, addresses: func() ([]netip.Prefix, []netip.Addr, error) {
		return p.setup.Addresses, p.setup.Gateways, nil
	}}
	defer s.undivertOver(overEvery)
	for {
		m, files, err := receiveMessage(conn)
		closeAll(files)
		if err != nil {
			return
		}
		switch m.Op {
		case opListen:
			listenInside(conn, m.Sockets)
		case opSockets:
			socketsInside(conn, &s, m)
		case opDivert, opUndivert:
			divertInside(conn, &s, m)
		}
	}
}

// overEvery is how often connections that nobody can undivert any more are looked at.
const overEvery = 2 * time.Second

// undivertOver takes back what is diverted when nobody can ask for it, which sbxnet
// cannot after one answer that did not come in time. Each connection keeps its rule
// until it is over, and what else is steered stays: of connections that there are
// none is to be lost. So it returns when all are over.
func (s *steering) undivertOver(every time.Duration) {
	for len(s.diverted) > 0 {
		for c := range s.diverted {
			if _, err := c.owner(); errors.Is(err, unix.ENOENT) {
				_ = s.undivert(c)
			}
		}
		time.Sleep(every)
	}
}

// Remove adds to Config.Remove what has been made since Start. What the command
// may have mounted on the way there by then is in the way, so call it before Exec.
func (sb *Sandbox) Remove(paths ...string) error {
	if err := checkRemove(paths); err != nil {
		return err
	}
	if err := sendMessage(sb.conn, message{Op: opRemove, Paths: paths}); err != nil {
		return fmt.Errorf("remove %q at the end: %w", paths, sb.died(err))
	}
	return nil
}
