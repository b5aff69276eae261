package neighbor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

var (
	host     = netip.MustParseAddr("10.0.2.100")
	mac1     = header.MAC{2, 0, 0, 0, 0, 1}
	mac2     = header.MAC{2, 0, 0, 0, 0, 2}
	everyone = header.Broadcast
)

// wire writes down what a cache does to the link.
type wire struct{ log []string }

func (w *wire) Solicit(a netip.Addr, to header.MAC) {
	w.log = append(w.log, fmt.Sprintf("ask %v of %v", a, to))
}

func (w *wire) Release(f *Held) {
	w.log = append(w.log, fmt.Sprintf("send %s%s to %v", f.Payload[0], f.Payload[1], header.MAC(f.Header)))
}

func (w *wire) Abandon(f *Held) {
	w.log = append(w.log, fmt.Sprintf("give up %s", f.Payload[0]))
}

// took returns the log so far and starts it afresh.
func (w *wire) took() string {
	s := strings.Join(w.log, "; ")
	w.log = nil
	return s
}

func newCache(l Limits) (*Cache, *wire, *timer.Queue) {
	w, q := &wire{}, &timer.Queue{}
	return New(l, w, q), w, q
}

func second(n int) timer.Instant { return timer.Instant(n) * timer.Instant(time.Second) }

func expect(t *testing.T, w *wire, want string) {
	t.Helper()
	if got := w.took(); got != want {
		t.Fatalf("link saw %q, want %q", got, want)
	}
}

func expectMAC(t *testing.T, c *Cache, now timer.Instant, want header.MAC, known bool) {
	t.Helper()
	if got, ok := c.Lookup(now, host); ok != known || known && got != want {
		t.Fatalf("lookup: %v, %v; want %v, %v", got, ok, want, known)
	}
}

func hold(c *Cache, text string) bool {
	f := c.Hold(host, 14, 14+len(text))
	if f == nil {
		return false
	}
	f.Payload[0] = []byte(text)
	return true
}

func TestFirstFramesWaitForTheAnswer(t *testing.T) {
	c, w, q := newCache(Limits{})
	expectMAC(t, c, 0, header.MAC{}, false)
	if !hold(c, "a") || !hold(c, "b") {
		t.Fatal("not held")
	}
	expect(t, w, "ask 10.0.2.100 of ff:ff:ff:ff:ff:ff")
	q.Run(second(1))
	expect(t, w, "ask 10.0.2.100 of ff:ff:ff:ff:ff:ff")
	c.Answered(second(1), host, mac1)
	expect(t, w, "send a to 02:00:00:00:00:01; send b to 02:00:00:00:00:01")
	expectMAC(t, c, second(1), mac1, true)
	if c.Hold(host, 14, 15) != nil {
		t.Fatal("held a frame for a neighbour that is known")
	}
}

func TestNoAnswerIsGivenUpAndAskedAgainLater(t *testing.T) {
	c, w, q := newCache(Limits{})
	c.Lookup(0, host)
	hold(c, "a")
	for i := 1; i <= 3; i++ {
		q.Run(second(i))
	}
	expect(t, w, strings.Repeat("ask 10.0.2.100 of ff:ff:ff:ff:ff:ff; ", MaxSolicits)+"give up a")
	if s := c.Stats(); s.Failed != 1 || s.HeldDropped != 1 || c.Len() != 0 || q.Len() != 0 {
		t.Fatalf("%+v, %d entries, %d timers", s, c.Len(), q.Len())
	}
	c.Lookup(second(4), host)
	expect(t, w, "ask 10.0.2.100 of ff:ff:ff:ff:ff:ff")
}

func TestHeldFramesAreBoundedAndTheFirstAreKept(t *testing.T) {
	c, w, _ := newCache(Limits{HeldFrames: 2, HeldBytes: 100})
	c.Lookup(0, host)
	if !hold(c, "a") || !hold(c, "b") || hold(c, "c") {
		t.Fatal("not the first two")
	}
	w.took()
	c.Answered(0, host, mac1)
	expect(t, w, "send a to 02:00:00:00:00:01; send b to 02:00:00:00:00:01")

	c, _, _ = newCache(Limits{HeldFrames: 9, HeldBytes: 100})
	c.Lookup(0, host)
	if !hold(c, strings.Repeat("x", 80)) || hold(c, "c") {
		t.Fatal("bytes are not bounded")
	}
}

func TestPinnedFramesOutliveTheirSendersMemory(t *testing.T) {
	c, w, _ := newCache(Limits{})
	c.Lookup(0, host)
	memory := []byte("early")
	c.Hold(host, 14, 19).Payload[0] = memory
	c.Pin()
	copy(memory, "LATER")
	w.took()
	c.Answered(0, host, mac1)
	expect(t, w, "send early to 02:00:00:00:00:01")
}

func TestUnsolicitedClaimsDoNotOverwrite(t *testing.T) {
	for name, claim := range map[string]func(*Cache, timer.Instant){
		"reply":        func(c *Cache, now timer.Instant) { c.Answered(now, host, mac2) },
		"request":      func(c *Cache, now timer.Instant) { c.Heard(now, host, mac2) },
		"announcement": func(c *Cache, now timer.Instant) { c.Claimed(now, host, mac2) },
	} {
		t.Run(name, func(t *testing.T) {
			c, w, _ := newCache(Limits{})
			c.Lookup(0, host)
			c.Answered(0, host, mac1)
			w.took()
			claim(c, second(1))
			// The next use asks the one we know, and still sends to it.
			expectMAC(t, c, second(1), mac1, true)
			expect(t, w, "ask 10.0.2.100 of 02:00:00:00:00:01")
			c.Answered(second(1), host, mac1)
			expectMAC(t, c, second(2), mac1, true)
			expect(t, w, "")
		})
	}
}

func TestClaimsMakeNoEntry(t *testing.T) {
	c, _, _ := newCache(Limits{})
	c.Answered(0, host, mac1)
	c.Claimed(0, host, mac1)
	if c.Len() != 0 {
		t.Fatal("an entry that nobody asked for")
	}
}

func TestNeighborThatMovedIsFoundAgain(t *testing.T) {
	c, w, q := newCache(Limits{})
	c.Lookup(0, host)
	c.Answered(0, host, mac1)
	c.Claimed(second(1), host, mac2)
	w.took()
	c.Lookup(second(1), host)
	for i := 2; i <= 4; i++ {
		q.Run(second(i)) // mac1 is gone and does not answer
	}
	c.Lookup(second(5), host)
	c.Answered(second(5), host, mac2)
	expectMAC(t, c, second(5), mac2, true)
}

func TestEntryGoesStaleAndIsProbedOnUse(t *testing.T) {
	c, w, q := newCache(Limits{})
	c.Lookup(0, host)
	c.Answered(0, host, mac1)
	gen := c.Generation()
	w.took()
	q.Run(second(29))
	if c.Generation() != gen {
		t.Fatal("answers changed before the reachable time was over")
	}
	q.Run(second(30))
	if c.Generation() == gen {
		t.Fatal("who keeps an answer does not learn that it is old")
	}
	expect(t, w, "") // not used: nobody asks
	expectMAC(t, c, second(40), mac1, true)
	expect(t, w, "ask 10.0.2.100 of 02:00:00:00:00:01")
	c.Answered(second(40), host, mac1)
	q.Run(second(45))
	expect(t, w, "")
}

// A station that answers a probe from another address is believed: it was asked.
func TestProbeIsAnsweredFromAnotherStation(t *testing.T) {
	c, w, _ := newCache(Limits{})
	c.Heard(0, host, mac1)
	expectMAC(t, c, 0, mac1, true) // and is probed
	gen := c.Generation()
	c.Answered(0, host, mac2)
	if c.Generation() == gen {
		t.Fatal("who keeps an answer does not learn that it is wrong")
	}
	w.took()
	expectMAC(t, c, second(1), mac2, true)
	expect(t, w, "")
}

func TestHeardMakesAnEntryThatIsUsedAtOnceAndVerified(t *testing.T) {
	c, w, _ := newCache(Limits{})
	c.Heard(0, host, mac1)
	expectMAC(t, c, 0, mac1, true)
	expect(t, w, "ask 10.0.2.100 of 02:00:00:00:00:01")
}

func TestStaticEntriesNeverChange(t *testing.T) {
	c, w, q := newCache(Limits{Entries: 1})
	c.AddStatic(host, mac1)
	c.Heard(0, host, mac2)
	c.Answered(0, host, mac2)
	c.Claimed(0, host, mac2)
	for i := range 20 { // others come and go
		c.Heard(second(i), netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}), mac2)
	}
	q.Run(second(1000))
	expectMAC(t, c, second(1000), mac1, true)
	expect(t, w, "")
	if c.Len() != 2 {
		t.Fatalf("%d entries", c.Len())
	}
}

func TestCacheIsBoundedAndTheLeastUsedGoes(t *testing.T) {
	c, w, q := newCache(Limits{Entries: 4})
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}) }
	for i := range 4 {
		c.Heard(second(i), addr(i), mac1)
	}
	c.Lookup(second(10), addr(0)) // the oldest, but in use
	c.Heard(second(11), addr(9), mac1)
	if c.Len() != 4 || c.Stats().Evicted != 1 {
		t.Fatalf("%d entries, %+v", c.Len(), c.Stats())
	}
	w.took()
	c.Lookup(second(12), addr(0))
	c.Lookup(second(12), addr(1))
	if !slices.Contains(w.log, "ask 10.0.2.1 of "+everyone.String()) {
		t.Fatalf("10.0.2.1 was not the one to go: %q", w.log)
	}
	for i := range 1000 {
		c.Lookup(second(20+i), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		if c.Len() > 4 || q.Len() > 4 {
			t.Fatalf("%d entries, %d timers", c.Len(), q.Len())
		}
	}
}
