package portfwd

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sbxnet/netstack"
	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

func TestFlowsOfAllKindsAcrossShards(t *testing.T) {
	w := newWorld(t, queues(3), publishing("0.0.0.0:7002:80", "[::]:7002:80", "0.0.0.0:7002:53/udp", "[::]:7002:53/udp"))
	go whoTCP(w.listen("tcp4", sandbox4+":80"))
	go whoUDP(w.listenPacket("udp4", sandbox4+":53"))
	server := hostListen(t, outside4)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { echo(c); c.Close() }()
		}
	}()
	udp := hostListenPacket(t, outside6)
	go echoUDP(udp)

	// Which shard a flow comes to is chance: now and then one of three has none of 20.
	everywhere := func() bool {
		return !slices.ContainsFunc(w.fwd.Stats().Stacks, func(s netstack.Stats) bool { return s.TCPIn == 0 })
	}
	for i := 0; i < 20 || i < 200 && !everywhere(); i++ {
		c := w.mustDial("tcp", server.Addr().String())
		want := bytes.Repeat([]byte{byte(i), 1, 2}, 100_000)
		go func() { c.Write(want); c.(*net.TCPConn).CloseWrite() }()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("stream %d: %d bytes, %v", i, len(got), err)
		}
		c.Close()
		exchange(t, w.mustDial("udp", udp.LocalAddr().String()), 100)
		for _, host := range []string{outside4, outside6, "127.0.0.1", "::1"} {
			if answer, _ := askTCP(t, host, net.JoinHostPort(host, "7002")); answer == "" {
				t.Errorf("no answer to %s over TCP", host)
			}
			if answer, _ := askUDP(t, host, net.JoinHostPort(host, "7002")); answer == "" {
				t.Errorf("no answer to %s over UDP", host)
			}
		}
	}
	for _, to := range []string{gateway4, gateway6, outside4, outside6} {
		if err := w.ping(to, 9); err != nil {
			t.Errorf("ping %s: %v", to, err)
		}
	}
	st := w.fwd.Stats()
	for i, s := range st.Stacks {
		if s.TCPIn == 0 {
			t.Errorf("shard %d has had no TCP: %d frames in", i, s.FramesIn)
		}
	}
	if st.HandoverLost != 0 {
		t.Errorf("%d frames lost on the way to their shard", st.HandoverLost)
	}
	t.Logf("%d frames handed over", st.HandedOver)
}

func TestFragmentsAndWholeDatagramsAreOneFlow(t *testing.T) {
	w := newWorld(t, queues(2))
	server := hostListenPacket(t, outside4)
	sources := make(chan netip.AddrPort, 100)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			_, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				close(sources)
				return
			}
			sources <- from
			server.WriteToUDPAddrPort([]byte("ok"), from)
		}
	}()
	for i := range 6 {
		c := w.mustDial("udp", server.LocalAddr().String())
		var first netip.AddrPort
		for _, n := range []int{4000, 100, 9000, 100} {
			c.Write(make([]byte, n))
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 10)); err != nil {
				t.Fatalf("flow %d, %d bytes: %v", i, n, err)
			}
			if from := <-sources; !first.IsValid() {
				first = from
			} else if from != first {
				t.Errorf("flow %d, %d bytes: from %s, before from %s", i, n, from, first)
			}
		}
	}
	server.Close()
}

func TestStreamsOnSeveralShardsAtOnce(t *testing.T) {
	w := newWorld(t, queues(2))
	var wg sync.WaitGroup
	for range 4 {
		a, b := w.connect(outside4)
		wg.Go(func() { swap(t, a, b, 10<<20) })
	}
	wg.Wait()
}

func TestInboxIsBounded(t *testing.T) {
	limits := Limits{HandoverFrames: 20, HandoverBytes: 1 << 20}
	b := inbox{limits: &limits}
	ok, first := b.put(make([]byte, 100), frame.Offload{})
	if !ok || !first {
		t.Fatal("the first frame does not wake")
	}
	n := 1
	for ; ok && n < 1<<20; n++ {
		ok, first = b.put(make([]byte, 100), frame.Offload{})
		if first {
			t.Fatal("a later frame wakes")
		}
	}
	if n-1 != limits.HandoverFrames {
		t.Errorf("%d small frames fit, want %d", n-1, limits.HandoverFrames)
	}
	if got := len(b.take().frames); got != limits.HandoverFrames || b.waiting.Load() {
		t.Errorf("took %d frames", got)
	}
	for n = 0; ; n++ {
		if ok, _ := b.put(make([]byte, 60_000), frame.Offload{}); !ok || n > 100 {
			break
		}
	}
	if n*60_000 > limits.HandoverBytes {
		t.Errorf("%d bytes fit, want at most %d", n*60_000, limits.HandoverBytes)
	}
}

// Of a published connection on a packet link all frames may arrive elsewhere.
func TestInboxHoldsTheWidestWindow(t *testing.T) {
	var limits Limits
	limits.setDefaults()
	b := inbox{limits: &limits}
	const window, payload, headers = 4 << 20, 1448, 66 // half of the largest receive buffer
	for sent := 0; sent < window; sent += payload {
		if ok, _ := b.put(make([]byte, headers+payload), frame.Offload{}); !ok {
			t.Fatalf("no room after %d bytes of a window of %d", sent, window)
		}
	}
}

func TestInboxKeepsFramesInOrder(t *testing.T) {
	var limits Limits
	limits.setDefaults()
	b := inbox{limits: &limits}
	for _, n := range []int{3, 2000, 1, 40} {
		for i := range n {
			b.put(bytes.Repeat([]byte{byte(i)}, i), frame.Offload{GSOSize: uint16(i)})
		}
		got := 0
		b.take().each(func(data []byte, off frame.Offload) {
			if !bytes.Equal(data, bytes.Repeat([]byte{byte(got)}, got)) || cap(data) != got || int(off.GSOSize) != got {
				t.Errorf("frame %d of %d: %d bytes of %d, %+v", got, n, len(data), cap(data), off)
			}
			got++
		})
		if got != n {
			t.Errorf("took %d frames, want %d", got, n)
		}
	}
	b.put([]byte("waits"), frame.Offload{})
	if b.idleBytes() == 0 {
		t.Error("no memory is used again")
	}
	b.trim()
	if b.idleBytes() != 0 || string(b.arrived.bytes) != "waits" {
		t.Errorf("%d bytes are idle, %q waits", b.idleBytes(), b.arrived.bytes)
	}
	b.take()
	b.trim()
	if cap(b.arrived.bytes)+cap(b.taken.bytes) != 0 {
		t.Error("memory is kept when nothing waits")
	}
}

func TestFlowIsTheShardsThatOpenedIt(t *testing.T) {
	f := &Forwarder{}
	for i := range 3 {
		f.shards = append(f.shards, &shard{Forwarder: f, index: i})
	}
	a, b, c := f.shards[0], f.shards[1], f.shards[2]
	k := flowKey{header.ProtocolUDP, udpKey{netip.MustParseAddrPort("10.0.2.100:53"), netip.MustParseAddrPort("198.51.100.1:1000")}}
	for _, s := range f.shards {
		if got := s.owner(k); got != s.index {
			t.Errorf("a flow that nobody has opened is shard %d's on shard %d", got, s.index)
		}
	}
	for range 2 { // the second time it is the shard's own already
		if !b.claim(k) || a.claim(k) {
			t.Error("a claimed flow is not its shard's alone")
		}
	}
	for range 2 { // the second time by memory
		for _, s := range f.shards {
			if got := s.owner(k); got != b.index {
				t.Errorf("shard %d takes it for shard %d's", s.index, got)
			}
		}
	}
	if a.disclaim(k); a.owner(k) != b.index {
		t.Error("a shard gave up what is not its own")
	}
	if b.disclaim(k); b.owner(k) != b.index || !c.claim(k) || b.owner(k) != c.index {
		t.Error("a flow given up is not free")
	}
	if c.disclaim(k); len(f.directory.flows) != 0 || len(c.owned) != 0 {
		t.Errorf("%d entries are left, %d on the shard", len(f.directory.flows), len(c.owned))
	}
}

func TestFragmentsMeetOnOneShard(t *testing.T) {
	f := &Forwarder{}
	for i := range 3 {
		f.shards = append(f.shards, &shard{Forwarder: f, index: i})
	}
	frame := make([]byte, 14+20+8)
	frame[12], frame[13] = 0x08, 0x00
	ip := frame[14:]
	copy(ip, []byte{0x45, 0, 0, 28, 1, 2, 0x20, 0, 64, header.ProtocolUDP, 0, 0, 10, 0, 2, 100, 198, 51, 100, 1})
	first := f.shards[0].ownerOfFrame(frame)
	for _, s := range f.shards {
		for offset := range byte(4) {
			ip[7] = offset
			if got := s.ownerOfFrame(frame); got != first {
				t.Errorf("fragment %d goes from shard %d to %d, the first to %d", offset, s.index, got, first)
			}
		}
	}
}

func TestOneWayDatagramsStayWhereTheyArrive(t *testing.T) {
	w := newWorld(t, queues(2))
	server := hostListenPacket(t, outside4)
	got := make(chan int)
	go func() {
		n, buf := 0, make([]byte, 2000)
		for {
			if _, _, err := server.ReadFrom(buf); err != nil {
				got <- n
				return
			}
			n++
		}
	}()
	const flows, each = 16, 50
	for range flows {
		c := w.mustDial("udp", server.LocalAddr().String())
		for range each {
			c.Write(make([]byte, 100))
			time.Sleep(10 * time.Microsecond)
		}
	}
	for start := time.Now(); w.fwd.Stats().UDP.DatagramsToHost < flows*each && time.Since(start) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	server.Close()
	if n := <-got; n < flows*each/2 {
		t.Fatalf("%d datagrams of %d arrived", n, flows*each)
	}
	if st := w.fwd.Stats(); st.HandedOver > flows*each/10 || st.UDP.Open != flows {
		t.Errorf("%d frames handed over, %d flows, want few and %d", st.HandedOver, st.UDP.Open, flows)
	}
}
