package script

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sbxnet/netstack/seq"
	"sbxnet/netstack/tcp"
)

func seqOf(n int) seq.Value { return seq.Value(uint32(n)) }

// verbs are the steps other than expectations. The time has come, and nothing
// that was sent is left over.
var verbs map[string]func(m *machine, f *flow, args string) error

func init() {
	verbs = map[string]func(m *machine, f *flow, args string) error{
		"<": inject, "flood": flood, "nothing": func(*machine, *flow, string) error { return nil },
		"listen": listen, "hold": func(m *machine, _ *flow, _ string) error { m.hold = true; return nil },
		"dial": dial, "accept": accept, "refuse": refuse,
		"write": write, "read": read, "reader": reader,
		"closewrite": onConn((*tcp.Conn).CloseWrite), "close": onConn((*tcp.Conn).Close), "abort": onConn((*tcp.Conn).Abort),
		"state": state, "read-all": readAll, "buffered": buffered, "eof": eof, "closed": closed, "open": open, "stat": stat,
	}
}

func inject(m *machine, f *flow, args string) error {
	if rest, ok := strings.CutPrefix(args, "icmp "); ok {
		return injectICMP(m, f, strings.Fields(rest))
	}
	s, err := parseSegment(args)
	if err != nil {
		return err
	}
	b, err := m.segmentFrame(f, s)
	if err != nil {
		return err
	}
	m.input(b)
	return nil
}

func injectICMP(m *machine, f *flow, words []string) error {
	mtu, quoted := 0, 1
	for i := 1; i+1 < len(words); i += 2 {
		n, err := strconv.Atoi(words[i+1])
		switch {
		case err != nil:
			return err
		case words[i] == "mtu":
			mtu = n
		case words[i] == "seq":
			quoted = n
		default:
			return fmt.Errorf("what is %q?", words[i])
		}
	}
	b, err := m.icmpFrame(f, words[0], mtu, quoted)
	if err != nil {
		return err
	}
	m.input(b)
	return nil
}

// firstFloodPort is the source port of the first segment of a flood.
const firstFloodPort = 10000

func flood(m *machine, f *flow, args string) error {
	count, rest, _ := strings.Cut(args, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	s, err := parseSegment(rest)
	if err != nil {
		return err
	}
	for range n {
		x := *f
		x.peer = netip.AddrPortFrom(f.peer.Addr(), uint16(firstFloodPort+m.floods))
		m.floods++
		b, err := m.segmentFrame(&x, s)
		if err != nil {
			return err
		}
		m.input(b)
	}
	return nil
}

func listen(m *machine, f *flow, args string) (err error) {
	backlog, err := strconv.Atoi(args)
	if err != nil {
		return err
	}
	f.listener, err = m.stack.TCP().Listen(f.local, backlog)
	if err == nil {
		for _, other := range m.flows {
			if other.local == f.local {
				other.listener = f.listener
			}
		}
	}
	return err
}

func dial(m *machine, f *flow, _ string) (err error) {
	f.conn, err = m.stack.TCP().Dial(f.local, f.peer, f.sock)
	return err
}

func accept(m *machine, f *flow, _ string) error {
	if f.held != nil {
		f.conn, f.held = f.held, nil
		f.conn.Accept(f.sock)
		return nil
	}
	if f.listener == nil {
		return errors.New("nothing is held, and nobody listens")
	}
	c, ok := f.listener.Accept()
	if !ok {
		return errors.New("the accept queue is empty")
	}
	if c.RemoteAddr() != f.peer {
		return fmt.Errorf("accepted a connection from %v", c.RemoteAddr())
	}
	f.conn = c
	c.SetHandler(f.sock)
	return nil
}

func refuse(m *machine, f *flow, args string) error {
	r, ok := map[string]tcp.Refusal{"reset": tcp.Reset, "net": tcp.NetUnreachable, "host": tcp.HostUnreachable,
		"port": tcp.PortUnreachable, "prohibited": tcp.Prohibited, "silent": tcp.Silent}[args]
	if !ok || f.held == nil {
		return errors.New("nothing is held, or no such refusal")
	}
	f.held.Refuse(r)
	f.held = nil
	return nil
}

func onConn(do func(*tcp.Conn)) func(*machine, *flow, string) error {
	return func(_ *machine, f *flow, _ string) error {
		if f.conn == nil {
			return errors.New("no connection")
		}
		do(f.conn)
		return nil
	}
}

func write(_ *machine, f *flow, args string) error {
	n, err := strconv.Atoi(args)
	if err != nil || f.conn == nil {
		return fmt.Errorf("write what, where? %v", err)
	}
	got := f.conn.Write(pattern(f.sock.written, n))
	f.sock.written += got
	if got != n {
		return fmt.Errorf("wrote %d", got)
	}
	return nil
}

func read(m *machine, f *flow, args string) error {
	n, err := strconv.Atoi(args)
	if err != nil || f.conn == nil {
		return fmt.Errorf("read what, where? %v", err)
	}
	left := n
	for _, p := range f.conn.Peek(nil) {
		p = p[:min(len(p), left)]
		f.sock.take(p)
		left -= len(p)
	}
	f.conn.Consume(n - left)
	if left > 0 {
		return fmt.Errorf("only %d bytes are there", n-left)
	}
	return nil
}

func reader(_ *machine, f *flow, args string) error {
	f.sock.greedy = args == "on"
	return nil
}

func state(_ *machine, f *flow, args string) error {
	if f.conn == nil {
		return errors.New("no connection")
	}
	if s := f.conn.State().String(); s != args {
		return fmt.Errorf("the state is %s", s)
	}
	return nil
}

func readAll(_ *machine, f *flow, args string) error {
	if n, err := strconv.Atoi(args); err != nil || f.sock.read != n {
		return fmt.Errorf("%d bytes have been read", f.sock.read)
	}
	return nil
}

func buffered(_ *machine, f *flow, args string) error {
	if n, err := strconv.Atoi(args); err != nil || f.conn == nil || f.conn.Buffered() != n {
		return fmt.Errorf("%d bytes are buffered", f.conn.Buffered())
	}
	return nil
}

func eof(_ *machine, f *flow, _ string) error {
	if !f.sock.eof {
		return errors.New("no end of the stream was told")
	}
	return nil
}

// outcomes are what Closed can be told.
var outcomes = map[string]error{"ok": nil, "reset": tcp.ErrReset, "refused": tcp.ErrRefused, "timed out": tcp.ErrTimeout,
	"no route": tcp.ErrUnreachable, "aborted": tcp.ErrAborted}

func closed(_ *machine, f *flow, args string) error {
	want, ok := outcomes[args]
	switch {
	case !ok:
		return fmt.Errorf("what is %q?", args)
	case !f.sock.closed:
		return errors.New("it is not closed")
	case !errors.Is(f.sock.err, want):
		return fmt.Errorf("closed with %v", f.sock.err)
	}
	return nil
}

func open(_ *machine, f *flow, _ string) error {
	if f.sock.closed {
		return fmt.Errorf("closed with %v", f.sock.err)
	}
	return nil
}

// stat compares a count of the engine's, exactly or with a bound.
func stat(m *machine, _ *flow, args string) error {
	words := strings.Fields(args)
	if len(words) < 2 {
		return errors.New("stat NAME [<=] N")
	}
	s := m.stack.TCP().Stats()
	counts := map[string]int{
		"connections": s.Connections, "held": s.Held, "timewait": s.TimeWait, "cookies": int(s.Cookies), "buffers": s.BufferBytes,
		"retransmits": int(s.Retransmits), "resets-out": int(s.ResetsOut),
		"drop-malformed": int(s.Drops.Malformed), "drop-outofwindow": int(s.Drops.OutOfWindow), "drop-paws": int(s.Drops.PAWS),
		"drop-badack": int(s.Drops.BadACK), "drop-badreset": int(s.Drops.BadReset), "drop-listenfull": int(s.Drops.ListenFull),
		"drop-stray": int(s.Drops.Stray), "drop-memory": int(s.Drops.Memory), "drop-unreachable": int(s.Drops.Unreachable),
		"drop-martian": int(m.stack.Stats().Drops.MartianSource + m.stack.Stats().Drops.Land),
	}
	got, known := counts[words[0]]
	want, err := strconv.Atoi(words[len(words)-1])
	switch {
	case !known || err != nil:
		return fmt.Errorf("no count %q, or no number", words[0])
	case words[1] == "<=" && got <= want, words[1] != "<=" && got == want:
		return nil
	}
	return fmt.Errorf("it is %d", got)
}
