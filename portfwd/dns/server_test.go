package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

func upstream(fakes ...*fakeResolver) Config {
	var cfg Config
	for _, f := range fakes {
		cfg.Upstreams = append(cfg.Upstreams, f.addr)
	}
	return cfg
}

func TestMessagesPassAsTheyAre(t *testing.T) {
	// An answer that no library would build: EDNS with an unknown option, an
	// unknown record type, TC set, and larger than any UDP size asked for.
	seen := make(chan message, 1)
	f := startFake(t, func(_ string, q message) []message {
		seen <- bytes.Clone(q)
		a := q.withID(q.id())
		binary.BigEndian.PutUint16(a[2:], 0x8780)
		return []message{append(a, bytes.Repeat([]byte{0xde, 0xad}, 3000)...)}
	})
	s := start(t, upstream(f))
	m := new(miekg.Msg).SetQuestion("Example.COM.", 65280)
	m.SetEdns0(4096, true)
	m.Extra[0].(*miekg.OPT).Option = []miekg.EDNS0{&miekg.EDNS0_LOCAL{Code: 65001, Data: []byte("kept")}}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	query := message(packed)
	for _, network := range []string{"udp", "tcp"} {
		answer := s.ask(t, network, query)
		if got := <-seen; !bytes.Equal(got[2:], query[2:]) {
			t.Errorf("%s: resolver saw\n%x, sent\n%x", network, []byte(got), []byte(query))
		}
		want := append(query.withID(query.id()), bytes.Repeat([]byte{0xde, 0xad}, 3000)...)
		binary.BigEndian.PutUint16(want[2:], 0x8780)
		if !bytes.Equal(answer, want) {
			t.Errorf("%s: got %d bytes %x…, want %d bytes %x…", network, len(answer), answer[:20], len(want), want[:20])
		}
	}
}

func TestEachQueryHasItsOwnPortAndID(t *testing.T) {
	f := startFake(t, always("192.0.2.1"))
	s := start(t, upstream(f))
	query := queryFor(t, "example.com.", miekg.TypeA)
	const n = 20
	for range n {
		if got := s.ask(t, "udp", query); got.id() != query.id() {
			t.Fatalf("answer has ID %#x, want the client's %#x", got.id(), query.id())
		}
	}
	ids, ports := make(map[uint16]bool), make(map[uint16]bool)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.ids {
		ids[f.ids[i]] = true
		ports[f.from[i].Port()] = true
	}
	// By chance two may be equal, but not half of them.
	if len(ids) < n/2 || len(ports) < n/2 {
		t.Errorf("%d queries used %d IDs and %d ports", n, len(ids), len(ports))
	}
}

func TestForgedAnswersAreIgnored(t *testing.T) {
	other := queryFor(t, "other.example.", miekg.TypeA)
	f := startFake(t, func(_ string, q message) []message {
		wrongID := answerA(q, "192.0.2.66").withID(q.id() + 1)
		wrongName := answerA(other.withID(q.id()), "192.0.2.67")
		aaaa := q.withID(q.id())
		binary.BigEndian.PutUint16(aaaa[len(aaaa)-4:], miekg.TypeAAAA)
		wrongType := answerA(aaaa, "192.0.2.68")
		echo := q.withID(q.id())
		empty := make(message, headerLen)
		copy(empty, answerA(q, "192.0.2.69")[:4])
		return []message{wrongID, wrongName, wrongType, echo, empty, {1, 2, 3}, answerA(q, "192.0.2.1")}
	})
	s := start(t, upstream(f))
	if got := address(t, s.ask(t, "udp", queryFor(t, "example.com.", miekg.TypeA))); got != "192.0.2.1" {
		t.Errorf("got %s", got)
	}
}

func TestQuestionInOtherCaseIsStillTheQuestion(t *testing.T) {
	f := startFake(t, func(_ string, q message) []message {
		a := answerA(q, "192.0.2.1")
		copy(a, bytes.ToLower(a[:len(q)]))
		return []message{a}
	})
	s := start(t, upstream(f))
	s.ask(t, "udp", queryFor(t, "wWw.ExAmple.com.", miekg.TypeA))
}

func TestSilentServerIsPassedOverAndRemembered(t *testing.T) {
	dead, alive := startFake(t, silence), startFake(t, always("192.0.2.2"))
	conf := writeConf(t, "nameserver 192.0.2.51\nnameserver 192.0.2.52\noptions timeout:1\n")
	s := start(t, Config{ResolvConf: conf, Dial: redirect(map[string]netip.AddrPort{"192.0.2.51:53": dead.addr, "192.0.2.52:53": alive.addr})})
	query := queryFor(t, "example.com.", miekg.TypeA)
	begin := time.Now()
	s.ask(t, "udp", query)
	if took := time.Since(begin); took < 900*time.Millisecond {
		t.Errorf("first answer took %v, want the timeout of 1 s", took)
	}
	s.ask(t, "udp", query)
	if n := dead.asked.Load(); n != 1 {
		t.Errorf("dead server asked %d times, want once", n)
	}
}

func TestLateAnswerOfTheFirstServerStillCounts(t *testing.T) {
	slow := startFake(t, func(_ string, q message) []message {
		time.Sleep(1300 * time.Millisecond)
		return []message{answerA(q, "192.0.2.1")}
	})
	dead := startFake(t, silence)
	conf := writeConf(t, "nameserver 192.0.2.51\nnameserver 192.0.2.52\noptions timeout:1\n")
	s := start(t, Config{ResolvConf: conf, Dial: redirect(map[string]netip.AddrPort{"192.0.2.51:53": slow.addr, "192.0.2.52:53": dead.addr})})
	if got := address(t, s.ask(t, "udp", queryFor(t, "example.com.", miekg.TypeA))); got != "192.0.2.1" {
		t.Errorf("got %s", got)
	}
}

func TestRotateSpreadsQueriesOverTheServers(t *testing.T) {
	a, b := startFake(t, always("192.0.2.1")), startFake(t, always("192.0.2.2"))
	conf := writeConf(t, "nameserver 192.0.2.51\nnameserver 192.0.2.52\noptions rotate\n")
	s := start(t, Config{ResolvConf: conf, Dial: redirect(map[string]netip.AddrPort{"192.0.2.51:53": a.addr, "192.0.2.52:53": b.addr})})
	for range 6 {
		s.ask(t, "udp", queryFor(t, "example.com.", miekg.TypeA))
	}
	if a.asked.Load() != 3 || b.asked.Load() != 3 {
		t.Errorf("asked %d and %d times, want 3 each", a.asked.Load(), b.asked.Load())
	}
}

func TestRefusedServerIsPassedOverAtOnce(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		alive := startFake(t, always("192.0.2.2"))
		s := start(t, Config{Upstreams: []netip.AddrPort{closedPort(t), alive.addr}})
		begin := time.Now()
		s.ask(t, network, queryFor(t, "example.com.", miekg.TypeA))
		if took := time.Since(begin); took >= defaultTimeout {
			t.Errorf("%s: answer took %v", network, took)
		}
	}
}

// closedPort is a loopback port where nobody listens.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func TestServerThatCannotIsFollowedByTheNext(t *testing.T) {
	for _, rcode := range []uint16{rcodeServFail, rcodeRefused, rcodeNotImp} {
		failing := startFake(t, func(_ string, q message) []message { return []message{q.refusal(rcode)} })
		good := startFake(t, always("192.0.2.2"))
		s := start(t, upstream(failing, good))
		if got := address(t, s.ask(t, "udp", queryFor(t, "example.com.", miekg.TypeA))); got != "192.0.2.2" {
			t.Errorf("rcode %d: got %s", rcode, got)
		}
	}
}

func TestErrorOfTheOnlyServerIsPassedOn(t *testing.T) {
	f := startFake(t, func(_ string, q message) []message { return []message{q.refusal(rcodeRefused)} })
	s := start(t, upstream(f))
	if got := s.ask(t, "udp", queryFor(t, "example.com.", miekg.TypeA)); got.rcode() != rcodeRefused {
		t.Errorf("rcode %d, want REFUSED", got.rcode())
	}
}

func TestServFailIsFastWhenNobodyAnswers(t *testing.T) {
	query := queryFor(t, "example.com.", miekg.TypeA)
	for name, cfg := range map[string]Config{
		"none configured": {},
		"refused":         {Upstreams: []netip.AddrPort{closedPort(t)}},
		"no network": {Upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")},
			Dial: func(context.Context, string, string) (net.Conn, error) { return nil, os.ErrNotExist }},
	} {
		s := start(t, cfg)
		for _, network := range []string{"udp", "tcp"} {
			begin := time.Now()
			answer := s.ask(t, network, query)
			if answer.rcode() != rcodeServFail || !answer.answers(query) {
				t.Errorf("%s, %s: answer %x, want SERVFAIL with the question", name, network, []byte(answer))
			}
			if took := time.Since(begin); took >= defaultTimeout {
				t.Errorf("%s, %s: took %v", name, network, took)
			}
		}
	}
}

func TestResolvConfIsReadAgainWhenItChanges(t *testing.T) {
	a, b := startFake(t, always("192.0.2.1")), startFake(t, always("192.0.2.2"))
	dial := redirect(map[string]netip.AddrPort{"127.0.0.53:53": a.addr, "[fe80::1%lo]:53": b.addr})
	first, second := "nameserver 127.0.0.53\n", "nameserver fe80::1%lo\n"
	query := queryFor(t, "example.com.", miekg.TypeA)

	for name, change := range map[string]func(t *testing.T, path string){
		"written in place": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(second), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, path string) {
			if err := os.WriteFile(path+".new", []byte(second), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
		"becomes a link": func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "stub-resolv.conf")
			if err := os.WriteFile(target, []byte(second), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeConf(t, first)
			s := start(t, Config{ResolvConf: path, Dial: dial})
			if got := address(t, s.ask(t, "udp", query)); got != "192.0.2.1" {
				t.Fatalf("before: %s", got)
			}
			change(t, path)
			if got := address(t, s.ask(t, "udp", query)); got != "192.0.2.2" {
				t.Errorf("after: %s", got)
			}
		})
	}
}

func TestUnreadableResolvConfKeepsTheLastServers(t *testing.T) {
	f := startFake(t, always("192.0.2.1"))
	path := writeConf(t, "nameserver 192.0.2.53\n")
	s := start(t, Config{ResolvConf: path, Dial: redirect(map[string]netip.AddrPort{"192.0.2.53:53": f.addr})})
	query := queryFor(t, "example.com.", miekg.TypeA)
	s.ask(t, "udp", query)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := address(t, s.ask(t, "udp", query)); got != "192.0.2.1" {
		t.Errorf("got %s", got)
	}
}

func TestHostNameIsTheGateway(t *testing.T) {
	never := startFake(t, always("192.0.2.1"))
	cfg := upstream(never)
	cfg.Gateway4, cfg.Gateway6 = netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")
	s := start(t, cfg)
	for _, network := range []string{"udp", "tcp"} {
		if got := address(t, s.ask(t, network, queryFor(t, "host.sbxnet.internal.", miekg.TypeA))); got != "10.0.2.2" {
			t.Errorf("%s A: %s", network, got)
		}
		if got := address(t, s.ask(t, network, queryFor(t, "HOST.sbxNet.Internal.", miekg.TypeAAAA))); got != "fd00::2" {
			t.Errorf("%s AAAA: %s", network, got)
		}
	}
	if never.asked.Load() != 0 {
		t.Error("our own name was asked outside")
	}
}

func TestHostNameHasNothingElse(t *testing.T) {
	s := start(t, Config{Gateway4: netip.MustParseAddr("10.0.2.2")})
	for _, qtype := range []uint16{miekg.TypeAAAA, miekg.TypeMX, miekg.TypeHTTPS, 65280} {
		query := queryFor(t, "host.sbxnet.internal.", qtype)
		answer := s.ask(t, "udp", query)
		if answer.rcode() != rcodeSuccess || binary.BigEndian.Uint16(answer[6:]) != 0 || !answer.answers(query) {
			t.Errorf("type %d: answer %x, want no error and no records", qtype, []byte(answer))
		}
	}
}

func TestHostAnswerRepeatsEDNS(t *testing.T) {
	s := start(t, Config{Gateway4: netip.MustParseAddr("10.0.2.2")})
	m := new(miekg.Msg).SetQuestion("host.sbxnet.internal.", miekg.TypeA)
	m.SetEdns0(4096, true)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var got miekg.Msg
	if err := got.Unpack(s.ask(t, "udp", packed)); err != nil {
		t.Fatal(err)
	}
	if opt := got.IsEdns0(); opt == nil || !opt.Do() || !got.RecursionDesired || got.Id != m.Id {
		t.Errorf("answer\n%v", &got)
	}
}

func TestGarbageIsDroppedOrFormErr(t *testing.T) {
	never := startFake(t, always("192.0.2.1"))
	s := start(t, upstream(never))
	good := queryFor(t, "example.com.", miekg.TypeA)
	for name, garbage := range map[string]message{
		"empty":    {},
		"short":    good[:headerLen-1],
		"response": answerA(good, "192.0.2.1"),
	} {
		if answer, err := s.try("udp", garbage, 100*time.Millisecond); err == nil {
			t.Errorf("%s: answered with %x", name, []byte(answer))
		}
	}
	two := good.withID(7)
	two[5] = 2
	pointer := append(good[:headerLen:headerLen], 0xc0, 0x0c, 0, 1, 0, 1)
	tooLong := append(good[:headerLen:headerLen], bytes.Repeat(append([]byte{63}, bytes.Repeat([]byte{'a'}, 63)...), 4)...)
	tooLong = append(tooLong, 0, 0, 1, 0, 1)
	for name, garbage := range map[string]message{
		"no question":        good[:headerLen],
		"two questions":      two,
		"name is cut off":    good[:len(good)-6],
		"class is cut off":   good[:len(good)-1],
		"compressed name":    pointer,
		"name of 257 octets": tooLong,
	} {
		for _, network := range []string{"udp", "tcp"} {
			answer := s.ask(t, network, garbage)
			if answer.rcode() != rcodeFormErr || answer.id() != garbage.id() || !answer.isResponse() {
				t.Errorf("%s over %s: answer %x, want FORMERR", name, network, []byte(answer))
			}
		}
	}
	if n := never.asked.Load(); n != 0 {
		t.Errorf("the resolver was bothered %d times", n)
	}
}

func TestSilenceIsLoggedOnceAMinute(t *testing.T) {
	var log bytes.Buffer
	s := New(Config{Upstreams: []netip.AddrPort{closedPort(t)}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer s.Close()
	for range 3 {
		s.answer("udp", queryFor(t, "example.com.", miekg.TypeA))
	}
	if n := strings.Count(log.String(), "no resolver of the host answers"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, &log)
	}
}
