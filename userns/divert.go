package userns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// # Diverted connections
//
// A connection from inside that is established over the link can be continued
// over lo, if its other end has become a socket of Sockets, with the address that
// the client connected to and the state of the connection (TCP_REPAIR). What that
// socket sends finds the client by itself. What the client sends is brought to it
// by a rule for just that connection, by addresses and ports, before all rules but
// the one for local addresses. It leads to the table of steering.go, in which
// everything is local. The kernel routes a connection's next packet anew when rules
// have changed, so it may be in the middle of a transfer. With IPv6 that is so since
// Linux 6.9, and its stable versions of March 2024; before, it does so after some
// retransmissions, which takes seconds.
//
// Rules for Divert say nothing of marks, users or interfaces, so they hold for
// whatever has these addresses and ports. What they do not see is a packet that
// becomes one of the connection only after it was routed. So there has to be a
// socket here that has the connection: of one that is translated to it, a
// container's behind a bridge or one to another address, there is none. Nor may it
// be bound to an interface, which is stronger than a rule.

// maxDiverted bounds the connections that are diverted at a time: every packet
// that is routed without a socket's help is compared with each of their rules.
const maxDiverted = 64

// Divert brings what a TCP socket of the sandbox sends from its address to where
// it is connected to, over lo, to a socket of Sockets, from now on, and not to the
// link. Both addresses are IPv4 or IPv6 ones, with a port; a connection of an IPv6
// socket to IPv4 is one of IPv4. It takes a fraction of a millisecond.
//
// It refuses a connection that no socket of the sandbox's network has, or one bound
// to an interface, or one that is not established, more than 64 at a time, and any
// where the sandbox has a firewall, which is to see what is sent (firewall.go). It
// asks the kernel where the connection leads to then: where rules of others come
// first it does not hold, which is an error. With an error nothing is diverted.
//
// Of what is diverted it makes sure that it still is, whatever state the
// connection is in, and mends that: the sandbox may change its rules. After an
// error in this it is not.
//
// It may be called from any goroutine until Close, for a sandbox that has Sockets.
func (sb *Sandbox) Divert(from, to netip.AddrPort) error {
	return sb.order("divert", opDivert, from, to)
}

// Undivert undoes Divert, and is nothing where there is nothing to undo. Whoever
// has diverted a connection is to call it when that is over: before, it would go
// on over the link; long after, another with these addresses would go to lo, and
// be refused there.
func (sb *Sandbox) Undivert(from, to netip.AddrPort) error {
	return sb.order("undivert", opUndivert, from, to)
}

func (sb *Sandbox) order(what string, o op, from, to netip.AddrPort) error {
	sb.asking.Lock()
	defer sb.asking.Unlock()
	_, err := sb.ask(fmt.Sprintf("%s %s to %s", what, from, to), message{Op: o, From: from, To: to}, 0)
	return err
}

// Divert is [Sandbox.Divert] for the namespace attached to. Close undoes it, and so
// does the process inside when this one dies.
func (a *Attachment) Divert(from, to netip.AddrPort) error {
	return a.order("divert", opDivert, from, to)
}

// Undivert is [Sandbox.Undivert] for the namespace attached to.
func (a *Attachment) Undivert(from, to netip.AddrPort) error {
	return a.order("undivert", opUndivert, from, to)
}

func (a *Attachment) order(what string, o op, from, to netip.AddrPort) error {
	a.asking.Lock()
	defer a.asking.Unlock()
	_, err := a.ask(fmt.Sprintf("%s %s to %s", what, from, to), message{Op: o, From: from, To: to}, 0)
	return err
}

// divertInside does what m says, in the process inside, and answers.
func divertInside(conn *net.UnixConn, s *steering, m message) {
	c, do := flow{m.From, m.To}, s.divert
	if m.Op == opUndivert {
		do = s.undivert
	}
	if err := do(c); err != nil {
		sendFailure(conn, err)
		return
	}
	sendDone(conn, nil)
}

// divert adds the rule for a connection. If it cannot be there is none, nor the one
// that may have been there.
func (s *steering) divert(c flow) (err error) {
	defer func() {
		if err != nil {
			_ = s.undivert(c)
		}
	}()
	if err := c.check(); err != nil {
		return err
	}
	_, again := s.diverted[c]
	if !again && len(s.diverted) >= maxDiverted {
		return fmt.Errorf("%d connections are diverted already", maxDiverted)
	}
	owner, err := c.owner()
	if err != nil {
		return err
	}
	if !again && !owner.established {
		return errors.New("the connection is not established")
	}
	if !again {
		if err := firewall(); err != nil {
			return err
		}
	}
	f := familyOf(c.from.Addr().Is6())
	if priority, known := s.diverting[f]; known && s.place(c, owner, priority) == nil {
		return nil
	}
	// The first of its family, or somebody has changed rules.
	var done changes
	err = f.addRoute(&done)
	if err == nil {
		err = s.placeFirst(c, owner, f)
	}
	if err != nil {
		done.undo()
	}
	return err
}

// placeFirst adds the rule for c where it comes before all others, and so will the
// next ones.
func (s *steering) placeFirst(c flow, owner owner, f *steeredFamily) error {
	_, first, err := f.rules()
	if err != nil {
		return err
	}
	priority := first + divertPriority
	if err := s.place(c, owner, priority); err != nil {
		return err
	}
	if s.diverting == nil {
		s.diverting = map[*steeredFamily]int{}
	}
	s.diverting[f] = priority
	return nil
}

// place sees to it that c has a rule, of that priority, and that it leads to lo.
func (s *steering) place(c flow, owner owner, priority int) error {
	if old, ok := s.diverted[c]; ok && old != priority {
		if err := s.undivert(c); err != nil {
			return err
		}
	}
	if err := c.addRule(priority); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add a rule for it at %d: %w", priority, err)
	}
	if s.diverted == nil {
		s.diverted = map[flow]int{}
	}
	s.diverted[c] = priority
	s.acceptLastWords()
	err := c.checkRoute(owner)
	if err != nil {
		_ = s.undivert(c)
	}
	return err
}

// undivert removes the rule for a connection, if there is one.
func (s *steering) undivert(c flow) error {
	priority, ok := s.diverted[c]
	if !ok {
		return nil
	}
	if err := c.deleteRule(priority); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the rule for it at %d: %w", priority, err)
	}
	delete(s.diverted, c)
	if s.notAccepted && len(s.diverted) == 0 {
		_ = setSysctl(s.acceptLocal(), "0")
		s.notAccepted = false
	}
	return nil
}

// acceptLastWords lets in what is said last over the link on a connection that is
// diverted: its rule makes the sender's address look like one of our own
// (fib_validate_source, net/ipv4/fib_frontend.c). Without it the client waits for some
// 200 ms before it goes on. It is for no longer than there are any: nobody else who
// says that he is one of us, by a published UDP port, is to be believed.
func (s *steering) acceptLastWords() {
	if b, err := os.ReadFile(filepath.Join("/proc/sys", s.acceptLocal())); err == nil && strings.TrimSpace(string(b)) == "0" {
		s.notAccepted = setSysctl(s.acceptLocal(), "1") == nil
	}
}

func (s *steering) acceptLocal() string {
	return filepath.Join("net/ipv4/conf", s.link, "accept_local")
}
