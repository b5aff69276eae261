package dns

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// fakeResolver is a resolver on loopback, on UDP and TCP under one port. Its
// reply function may return no messages: then it stays silent.
type fakeResolver struct {
	addr  netip.AddrPort
	asked atomic.Int64

	mu   sync.Mutex
	ids  []uint16         // of the queries, in order
	from []netip.AddrPort // their sources
}

func startFake(t *testing.T, reply func(network string, query message) []message) *fakeResolver {
	t.Helper()
	pc, l := listenBoth(t)
	f := &fakeResolver{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	t.Cleanup(func() { pc.Close(); l.Close() })
	go f.servePacket(pc, reply)
	go f.serveStream(l, reply)
	return f
}

// listenBoth finds a port that is free for UDP and TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 50 {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp4", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

func (f *fakeResolver) note(query message, from net.Addr) {
	f.asked.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ids = append(f.ids, query.id())
	f.from = append(f.from, netip.MustParseAddrPort(from.String()))
}

func (f *fakeResolver) servePacket(pc net.PacketConn, reply func(string, message) []message) {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		query := message(bytes.Clone(buf[:n]))
		f.note(query, from)
		for _, m := range reply("udp", query) {
			pc.WriteTo(m, from)
		}
	}
}

func (f *fakeResolver) serveStream(l net.Listener, reply func(string, message) []message) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			query, err := readFramed(conn)
			if err != nil {
				return
			}
			f.note(query, conn.RemoteAddr())
			for _, m := range reply("tcp", query) {
				writeFramed(conn, m)
			}
		}()
	}
}

// answerA is a reply with one address.
func answerA(query message, address string) message {
	var m miekg.Msg
	if err := m.Unpack(query); err != nil {
		return query.refusal(rcodeFormErr)
	}
	r := new(miekg.Msg).SetReply(&m)
	r.RecursionAvailable = true
	r.Answer = []miekg.RR{&miekg.A{Hdr: miekg.RR_Header{Name: m.Question[0].Name, Rrtype: miekg.TypeA, Class: miekg.ClassINET, Ttl: 5}, A: net.ParseIP(address)}}
	packed, err := r.Pack()
	if err != nil {
		return query.refusal(rcodeServFail)
	}
	return packed
}

func always(address string) func(string, message) []message {
	return func(_ string, q message) []message { return []message{answerA(q, address)} }
}

func silence(string, message) []message { return nil }

// service is a server under test on loopback.
type service struct {
	*Server
	udp, tcp string
}

func start(t *testing.T, cfg Config) *service {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(cfg)
	done := make(chan error, 2)
	go func() { done <- s.ServePacket(pc) }()
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		for range 2 {
			if err := <-done; err != net.ErrClosed {
				t.Errorf("serving ended with %v, want net.ErrClosed", err)
			}
		}
	})
	return &service{s, pc.LocalAddr().String(), l.Addr().String()}
}

// ask sends a query's bytes and returns the answer's.
func (s *service) ask(t *testing.T, network string, query message) message {
	t.Helper()
	answer, err := s.try(network, query, 5*time.Second)
	if err != nil {
		t.Fatalf("no answer over %s: %v", network, err)
	}
	return answer
}

func (s *service) try(network string, query message, wait time.Duration) (message, error) {
	address := s.udp
	if network == "tcp" {
		address = s.tcp
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	if network == "tcp" {
		if err := writeFramed(conn, query); err != nil {
			return nil, err
		}
		return readFramed(conn)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make(message, maxMessage)
	n, err := conn.Read(buf)
	return buf[:n], err
}

func queryFor(t *testing.T, name string, qtype uint16) message {
	t.Helper()
	m := new(miekg.Msg).SetQuestion(name, qtype)
	m.Id = 0x1234
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// address is the only A or AAAA record of an answer.
func address(t *testing.T, answer message) string {
	t.Helper()
	var m miekg.Msg
	if err := m.Unpack(answer); err != nil {
		t.Fatalf("answer %x: %v", []byte(answer), err)
	}
	if len(m.Answer) != 1 {
		t.Fatalf("answer without exactly one record:\n%v", &m)
	}
	switch rr := m.Answer[0].(type) {
	case *miekg.A:
		return rr.A.String()
	case *miekg.AAAA:
		return rr.AAAA.String()
	}
	t.Fatalf("unexpected record %v", m.Answer[0])
	return ""
}

// redirect is a Dial that maps resolvers of a resolv.conf, which cannot name a
// port, to fakes that have one.
func redirect(to map[string]netip.AddrPort) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if fake, ok := to[address]; ok {
			address = fake.String()
		} else {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrNotExist}
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

func writeConf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
