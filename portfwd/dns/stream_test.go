package dns

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

func (s *service) connect(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.tcp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

func TestPipelinedQueriesDoNotWaitForEachOther(t *testing.T) {
	release := make(chan struct{})
	f := startFake(t, func(_ string, q message) []message {
		if name, _ := q.question(); len(name) > 4 && name[1] == 's' {
			<-release
		}
		return []message{answerA(q, "192.0.2.1")}
	})
	s := start(t, upstream(f))
	conn := s.connect(t)
	slow, fast := queryFor(t, "slow.example.", miekg.TypeA).withID(1), queryFor(t, "fast.example.", miekg.TypeA).withID(2)
	writeFramed(conn, slow)
	writeFramed(conn, fast)
	first, err := readFramed(conn)
	if err != nil || first.id() != 2 {
		t.Fatalf("first answer %x, %v; want the fast one", []byte(first), err)
	}
	close(release)
	second, err := readFramed(conn)
	if err != nil || second.id() != 1 {
		t.Fatalf("second answer %x, %v; want the slow one", []byte(second), err)
	}
}

func TestManyQueriesOnOneConnection(t *testing.T) {
	f := startFake(t, always("192.0.2.1"))
	cfg := upstream(f)
	cfg.Limits.PerConnection = 4
	s := start(t, cfg)
	conn := s.connect(t)
	const n = 100
	go func() {
		for id := range uint16(n) {
			writeFramed(conn, queryFor(t, fmt.Sprintf("n%d.example.", id), miekg.TypeA).withID(id))
		}
	}()
	answered := make(map[uint16]bool)
	for range n {
		answer, err := readFramed(conn)
		if err != nil {
			t.Fatal(err)
		}
		answered[answer.id()] = true
	}
	if len(answered) != n {
		t.Errorf("%d different answers, want %d", len(answered), n)
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	cfg := Config{}
	cfg.Limits.Idle = 50 * time.Millisecond
	s := start(t, cfg)
	for name, sent := range map[string][]byte{"silent": nil, "half a length": {0}, "half a message": {0, 50, 1, 2, 3}} {
		conn := s.connect(t)
		conn.Write(sent)
		if n, err := conn.Read(make([]byte, 1)); err != io.EOF && !isReset(err) {
			t.Errorf("%s: read %d bytes, %v; want the connection closed", name, n, err)
		}
	}
}

func isReset(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && !op.Timeout()
}

func TestMessageShorterThanItsHeaderEndsTheConnection(t *testing.T) {
	s := start(t, Config{})
	conn := s.connect(t)
	conn.Write([]byte{0, 3, 1, 2, 3})
	if _, err := readFramed(conn); err == nil {
		t.Error("answered")
	}
}

func TestConnectionsOverTheLimitAreClosed(t *testing.T) {
	cfg := Config{}
	cfg.Limits.Connections = 2
	s := start(t, cfg)
	query := queryFor(t, "example.com.", miekg.TypeA)
	for i := range 2 {
		conn := s.connect(t)
		writeFramed(conn, query)
		if _, err := readFramed(conn); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	third := s.connect(t)
	writeFramed(third, query)
	if _, err := readFramed(third); err == nil {
		t.Error("a third connection was served")
	}
	if got := s.Stats().Dropped; got != 1 {
		t.Errorf("Dropped = %d, want 1", got)
	}
}

func TestQueriesOverTheLimitAreDropped(t *testing.T) {
	f := startFake(t, silence)
	cfg := upstream(f)
	cfg.Limits.InFlight = 3
	s := start(t, cfg)
	conn, err := net.Dial("udp", s.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	query := queryFor(t, "example.com.", miekg.TypeA)
	for id := range uint16(10) {
		conn.Write(query.withID(id))
	}
	deadline := time.Now().Add(5 * time.Second)
	for s.Stats().Dropped != 7 || f.asked.Load() != 3 {
		if time.Now().After(deadline) {
			t.Fatalf("dropped %d, asked %d; want 7 and 3", s.Stats().Dropped, f.asked.Load())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestCloseDoesNotWaitForResolvers(t *testing.T) {
	f := startFake(t, silence)
	s := start(t, upstream(f))
	conn := s.connect(t)
	writeFramed(conn, queryFor(t, "example.com.", miekg.TypeA))
	for f.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	s.Close()
	if took := time.Since(begin); took >= defaultTimeout {
		t.Errorf("Close took %v", took)
	}
	if err := s.Serve(nopListener{}); err != net.ErrClosed {
		t.Errorf("Serve after Close = %v", err)
	}
}

type nopListener struct{ net.Listener }

func (nopListener) Close() error { return nil }

func FuzzAnswer(f *testing.F) {
	query := message(append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, wireName(HostName)...))
	f.Add([]byte(append(query, 0, 1, 0, 1)))
	f.Add([]byte(append(query, 0, 255, 0, 255)))
	f.Add([]byte(append(query[:headerLen:headerLen], 0xc0, 12, 0, 1, 0, 1)))
	s := New(Config{Gateway4: loopback4, Gateway6: loopback6})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < headerLen {
			return
		}
		query := message(data)
		answer := s.answer("udp", query)
		if query.isResponse() {
			if answer != nil {
				t.Fatalf("a response was answered with %x", []byte(answer))
			}
			return
		}
		if len(answer) < headerLen || !answer.isResponse() || answer.id() != query.id() {
			t.Fatalf("query %x: answer %x", data, []byte(answer))
		}
		if q, ok := query.question(); ok {
			if got, ok := answer.question(); answer.rcode() != rcodeFormErr && (!ok || !got.equal(q)) {
				t.Fatalf("query %x: answer %x to another question", data, []byte(answer))
			}
			if len(q) > maxName+4 {
				t.Fatalf("question of %d bytes", len(q))
			}
		}
		if count := binary.BigEndian.Uint16(answer[4:]); count > 1 {
			t.Fatalf("answer with %d questions", count)
		}
	})
}
