package impair

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"sbxnet/netstack/checksum"
	"sbxnet/netstack/frame"
)

func testLane(s Spec) *lane { return newLane(&s, &wire{rate: s.Rate}, 0, 0) }

// numbered is a frame without IP in it that carries a number.
func numbered(n uint32, size int) *frame.Frame {
	b := make([]byte, size)
	b[12], b[13] = 0x88, 0xb5
	binary.BigEndian.PutUint32(b[14:], n)
	return &frame.Frame{Header: b}
}

func numberOf(data []byte) uint32 { return binary.BigEndian.Uint32(data[14:]) }

type arrival struct {
	number uint32
	at     int64
}

// drain takes what is left in the lane, whenever it is due.
func drain(l *lane) (as []arrival) {
	for l.waiting.len() > 0 {
		at := l.waiting.next()
		p := l.take()
		as = append(as, arrival{numberOf(p.data), at})
		l.recycle(p.data)
	}
	return as
}

func numbers(as []arrival) (ns []uint32) {
	for _, a := range as {
		ns = append(ns, a.number)
	}
	return ns
}

// offered sends n frames at once and counts what became of them.
func offered(l *lane, n int) (got []arrival, lost []bool) {
	for i := range n {
		before := l.stats.lost.Load()
		l.offer(0, numbered(uint32(i), 100))
		lost = append(lost, l.stats.lost.Load() > before)
		got = append(got, drain(l)...)
	}
	return got, lost
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within {
		t.Errorf("%s: %v, want %v ± %v", what, got, want, within)
	}
}

func TestLossIsTheShareAskedFor(t *testing.T) {
	const n = 200_000
	l := testLane(Spec{Loss: 5})
	got, lost := offered(l, n)
	near(t, "lost", float64(l.stats.lost.Load())/n, 0.05, 0.003)
	if len(got)+int(l.stats.lost.Load()) != n || l.stats.packets.Load() != n || l.stats.delivered.Load() != uint64(len(got)) {
		t.Errorf("%d arrived, %d lost, of %d", len(got), l.stats.lost.Load(), n)
	}
	near(t, "losses in a row", meanRun(lost), 1/0.95, 0.03)
}

func TestBurstIsHowManyAreLostInARow(t *testing.T) {
	const n = 400_000
	l := testLane(Spec{Loss: 5, Burst: 8})
	_, lost := offered(l, n)
	near(t, "lost", float64(l.stats.lost.Load())/n, 0.05, 0.005)
	near(t, "losses in a row", meanRun(lost), 8, 0.5)
}

func meanRun(lost []bool) float64 {
	runs, total := 0, 0
	for i, x := range lost {
		if x {
			total++
			if i == 0 || !lost[i-1] {
				runs++
			}
		}
	}
	return float64(total) / float64(runs)
}

func TestAllIsLostAtAHundredPercent(t *testing.T) {
	got, _ := offered(testLane(Spec{Loss: 100}), 1000)
	if len(got) != 0 {
		t.Errorf("%d arrived", len(got))
	}
}

func TestSameSeedSameFate(t *testing.T) {
	spec := Spec{Loss: 10, Duplicate: 10, Reorder: 10, Corrupt: 10, Delay: time.Millisecond, Jitter: time.Millisecond, Rate: 1e6, Seed: 42}
	run := func(s Spec) (as []arrival) {
		l := testLane(s)
		for i := range 500 {
			l.offer(int64(i)*1000, numbered(uint32(i), 100))
		}
		return drain(l)
	}
	a := run(spec)
	if !slices.Equal(a, run(spec)) {
		t.Error("two runs differ")
	}
	spec.Seed++
	if slices.Equal(a, run(spec)) {
		t.Error("another seed makes no difference")
	}
}

func TestDuplicateArrivesRightBehind(t *testing.T) {
	const n = 100_000
	got, _ := offered(testLane(Spec{Duplicate: 3}), n)
	near(t, "arrived", float64(len(got))/n, 1.03, 0.003)
	last, times := uint32(math.MaxUint32), 0
	for _, a := range got {
		if a.number != last {
			times = 0
		}
		if times++; times > 2 {
			t.Fatalf("%d arrived %d times", a.number, times)
		}
		last = a.number
	}
	if !slices.IsSortedFunc(got, func(a, b arrival) int { return int(a.number) - int(b.number) }) {
		t.Error("out of order")
	}
}

func TestDelayAndJitterKeepTheOrder(t *testing.T) {
	const delay, jitter = 50 * time.Millisecond, 5 * time.Millisecond
	l := testLane(Spec{Delay: delay, Jitter: jitter})
	var want []uint32
	for i := range 900 {
		l.offer(int64(i)*int64(10*time.Millisecond), numbered(uint32(i), 100))
		want = append(want, uint32(i))
	}
	got := drain(l)
	if !slices.Equal(numbers(got), want) {
		t.Fatal("out of order")
	}
	low, high := int64(math.MaxInt64), int64(0)
	for i, a := range got {
		took := a.at - int64(i)*int64(10*time.Millisecond)
		low, high = min(low, took), max(high, took)
	}
	near(t, "least delay in ms", float64(low)/1e6, 45, 0.5)
	near(t, "greatest delay in ms", float64(high)/1e6, 55, 0.5)

	// At once, and still in order.
	for i := range 900 {
		l.offer(0, numbered(uint32(i), 100))
	}
	if !slices.Equal(numbers(drain(l)), want) {
		t.Error("jitter made one packet overtake another")
	}
}

func TestReorderedPacketIsOvertakenAndNotLate(t *testing.T) {
	l := testLane(Spec{Reorder: 5, Delay: 20 * time.Millisecond})
	var got []arrival
	const n = 20_000
	const gap = int64(100 * time.Microsecond)
	for i := range int64(n) {
		for l.due(i * gap) {
			at := l.waiting.next()
			p := l.take()
			got = append(got, arrival{numberOf(p.data), at})
			l.recycle(p.data)
		}
		l.offer(i*gap, numbered(uint32(i), 100))
	}
	got = append(got, drain(l)...)
	overtaken, top := 0, uint32(0)
	for _, a := range got {
		if a.number < top {
			overtaken++
		}
		top = max(top, a.number)
		if took := a.at - int64(a.number)*gap; took > int64(25*time.Millisecond) {
			t.Fatalf("%d took %v", a.number, time.Duration(took))
		}
	}
	if len(got) != n || l.stats.reordered.Load() == 0 {
		t.Fatalf("%d arrived, %d reordered", len(got), l.stats.reordered.Load())
	}
	near(t, "overtaken", float64(overtaken)/n, 0.05, 0.005)
}

func TestRateSpacesPacketsAndIdleTimeIsNotSaved(t *testing.T) {
	l := testLane(Spec{Rate: 8e6}) // a byte a microsecond
	for i := range 10 {
		l.offer(0, numbered(uint32(i), 1000))
	}
	for i, a := range drain(l) {
		if want := int64(i+1) * int64(time.Millisecond); a.at != want {
			t.Errorf("packet %d at %v, want %v", i, time.Duration(a.at), time.Duration(want))
		}
	}
	late := int64(time.Second)
	l.offer(late, numbered(0, 1000))
	l.offer(late, numbered(1, 1000))
	if got := drain(l); got[0].at != late+1e6 || got[1].at != late+2e6 {
		t.Errorf("after a pause at %v", got)
	}
}

func TestQueuesShareTheRate(t *testing.T) {
	s := Spec{Rate: 8e6}
	w := &wire{rate: s.Rate}
	a, b := newLane(&s, w, 0, 0), newLane(&s, w, 0, 1)
	a.offer(0, numbered(0, 1000))
	b.offer(0, numbered(0, 1000))
	if x, y := drain(a), drain(b); x[0].at != 1e6 || y[0].at != 2e6 {
		t.Errorf("sent at %v and %v", x, y)
	}
}

func TestFullLaneDropsWhatComes(t *testing.T) {
	for _, limit := range []int{0, 5} {
		l := testLane(Spec{Delay: time.Second, Limit: limit})
		if limit == 0 {
			limit = DefaultLimit
		}
		for i := range limit + 3 {
			l.offer(0, numbered(uint32(i), 100))
		}
		got := numbers(drain(l))
		if len(got) != limit || got[limit-1] != uint32(limit-1) || l.stats.overflowed.Load() != 3 {
			t.Errorf("limit %d: %d kept, %d dropped", limit, len(got), l.stats.overflowed.Load())
		}
	}
}

// super is a TCP super-segment with 20 bytes of TCP header.
func super(payload []byte, size uint16) *frame.Frame {
	h := make([]byte, 54)
	h[12] = 0x08
	h[14], h[22], h[23] = 0x45, 64, 6
	binary.BigEndian.PutUint16(h[16:], uint16(40+len(payload)))
	copy(h[26:], []byte{10, 0, 2, 100, 10, 0, 2, 2})
	binary.BigEndian.PutUint16(h[24:], checksum.Of(h[14:34]))
	binary.BigEndian.PutUint32(h[38:], 1000)
	h[46], h[47] = 5<<4, 0x10
	return &frame.Frame{Header: h, Payload: [2][]byte{payload[:len(payload)/3], payload[len(payload)/3:]}, Offload: frame.Offload{
		NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, HeaderLen: 54, GSOType: frame.GSOTCPv4, GSOSize: size,
	}}
}

func TestSuperSegmentIsLostInPieces(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789"), 1448*4)
	oneHeader := super(payload, 1448)
	inParts := super(payload, 1448)
	inParts.Payload = [2][]byte{inParts.AppendTo(nil)[30:]}
	inParts.Header = inParts.Header[:30]
	for _, f := range []*frame.Frame{oneHeader, inParts} {
		l := testLane(Spec{Loss: 20})
		l.offer(0, f)
		pieces, lost := l.stats.packets.Load(), l.stats.lost.Load()
		if pieces != 40 || lost == 0 || lost == 40 {
			t.Fatalf("%d pieces, %d lost", pieces, lost)
		}
		for l.waiting.len() > 0 {
			p := l.take()
			off := int(binary.BigEndian.Uint32(p.data[38:]) - 1000)
			if len(p.data) != 54+1448 || !bytes.Equal(p.data[54:], payload[off:off+1448]) || !p.NeedsChecksum || p.GSOType != frame.GSONone {
				t.Fatalf("piece at %d: %d bytes, %+v", off, len(p.data), p.Offload)
			}
		}
	}
}

func TestSuperSegmentThatNobodyCanCutIsCounted(t *testing.T) {
	l := testLane(Spec{Loss: 1})
	f := super(make([]byte, 3000), 1000)
	f.ChecksumOffset = 6
	l.offer(0, f)
	f = super(make([]byte, 3000), 1000)
	f.HeaderLen = 60000
	f.GSOSize = 0
	l.offer(0, f)
	l.offer(0, &frame.Frame{Header: make([]byte, 13)})
	l.offer(0, &frame.Frame{Header: make([]byte, maxFrame+1)})
	if n := l.stats.malformed.Load(); n != 3+1 || l.waiting.len() != 0 {
		t.Errorf("%d malformed, %d wait", n, l.waiting.len())
	}
}

func TestDamageShowsInTheChecksum(t *testing.T) {
	l := testLane(Spec{Corrupt: 100})
	good := super(bytes.Repeat([]byte{7}, 5000), 1000).AppendTo(nil)
	for range 50 {
		l.offer(0, super(bytes.Repeat([]byte{7}, 5000), 1000))
	}
	for l.waiting.len() > 0 {
		p := l.take()
		if p.NeedsChecksum || p.ChecksumValid || p.HeaderLen != 54 {
			t.Fatalf("someone vouches for a damaged packet: %+v", p.Offload)
		}
		if !bytes.Equal(p.data[:14], good[:14]) {
			t.Fatal("the Ethernet header is damaged")
		}
		ip := checksum.Of(p.data[14:34])
		tcp := checksum.Sum(0).Add(p.data[26:34]).AddUint16(6).AddUint16(uint16(len(p.data) - 34)).Add(p.data[34:]).Checksum()
		if ip == 0 && tcp == 0 {
			t.Fatal("both checksums are right")
		}
	}
	if l.stats.corrupted.Load() != 250 {
		t.Errorf("%d corrupted of 250", l.stats.corrupted.Load())
	}
}

func TestScheduleGivesBackInOrderOfTimeThenArrival(t *testing.T) {
	l := testLane(Spec{Seed: 9})
	var s schedule
	for i := range 1000 {
		s.push(packet{due: l.rng.Int64N(50), data: []byte{byte(i >> 8), byte(i)}})
	}
	last, lastIndex := int64(-1), -1
	for s.len() > 0 {
		at := s.next()
		p := s.pop()
		i := int(p.data[0])<<8 | int(p.data[1])
		if p.due != at || at < last || at == last && i < lastIndex {
			t.Fatalf("%d due at %d comes behind %d due at %d", i, at, lastIndex, last)
		}
		last, lastIndex = at, i
	}
}

func TestLaneAtWorkAllocatesNothing(t *testing.T) {
	l := testLane(Spec{Loss: 1, Duplicate: 1, Reorder: 1, Corrupt: 1, Delay: time.Millisecond})
	f := super(make([]byte, 20*1448), 1448)
	now := int64(0)
	round := func() {
		l.offer(now, f)
		now += 1e6
		for l.due(now) {
			l.recycle(l.take().data)
		}
	}
	for range 50 {
		round()
	}
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations a super-segment", n)
	}
}
