package reassembly

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sbxnet/netstack/timer"
)

var testKey = Key{netip.MustParseAddr("10.0.2.100"), netip.MustParseAddr("9.9.9.9"), 7, 17}

// pattern is n bytes, each telling its place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// cut is bytes [from, to) of b as a fragment.
func cut(b []byte, from, to int) Fragment {
	return Fragment{Offset: from, More: to < len(b), Header: []byte("header"), Payload: b[from:to]}
}

// step is one fragment and what should become of it.
type step struct {
	f    Fragment
	want Result
}

func TestFragmentScripts(t *testing.T) {
	b := pattern(40)
	long := cut(b, 0, 16)
	other := cut(b, 0, 16)
	other.Payload = bytes.Repeat([]byte{1}, 16)
	lastTooEarly := Fragment{Offset: 8, Payload: b[8:16]}
	scripts := map[string][]step{
		"in order":         {{cut(b, 0, 16), Held}, {cut(b, 16, 32), Held}, {cut(b, 32, 40), Complete}},
		"backwards":        {{cut(b, 32, 40), Held}, {cut(b, 16, 32), Held}, {cut(b, 0, 16), Complete}},
		"middle last":      {{cut(b, 0, 16), Held}, {cut(b, 32, 40), Held}, {cut(b, 16, 32), Complete}},
		"exact duplicate":  {{cut(b, 0, 16), Held}, {long, Duplicate}, {cut(b, 16, 40), Complete}},
		"duplicate of end": {{cut(b, 16, 40), Held}, {cut(b, 16, 40), Duplicate}, {cut(b, 0, 16), Complete}},
		"same place, other bytes condemns": {
			{cut(b, 0, 16), Held}, {other, Overlap}, {cut(b, 16, 40), Condemned}, {cut(b, 0, 16), Condemned}},
		"overlap of the one before condemns": {{cut(b, 0, 16), Held}, {cut(b, 8, 24), Overlap}, {cut(b, 16, 40), Condemned}},
		"overlap of the one after condemns":  {{cut(b, 16, 32), Held}, {cut(b, 0, 24), Overlap}},
		"enclosing condemns":                 {{cut(b, 8, 16), Held}, {cut(b, 0, 32), Overlap}},
		"enclosed condemns":                  {{cut(b, 0, 32), Held}, {cut(b, 8, 16), Overlap}},
		"end before data held condemns":      {{cut(b, 16, 32), Held}, {lastTooEarly, Overlap}},
		"second end condemns":                {{cut(b, 32, 40), Held}, {lastTooEarly, Overlap}},
		"data after the end condemns":        {{lastTooEarly, Held}, {cut(b, 16, 32), Overlap}},
		"empty is refused":                   {{Fragment{Offset: 8, More: true}, Empty}},
		"odd length but for the last is refused": {
			{Fragment{More: true, Payload: b[:15]}, Misaligned}, {Fragment{Payload: b[:15]}, Complete}},
		"past the longest is refused": {{Fragment{Offset: 65528, Payload: b[:8]}, TooLong}, {Fragment{Offset: 65528, Payload: b[:7]}, Held}},
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			var timers timer.Queue
			r := New(Limits{}, 30*time.Second, &timers, nil)
			for i, s := range script {
				d, got := r.Add(0, testKey, s.f)
				if got != s.want {
					t.Fatalf("fragment %d: result %d, want %d", i, got, s.want)
				}
				if got == Complete && s.f.Payload[0] != 1 && len(d.Payload) == 40 && !bytes.Equal(d.Payload, b) {
					t.Fatalf("reassembled %x, want %x", d.Payload, b)
				}
			}
		})
	}
}

func TestKeysDoNotMix(t *testing.T) {
	var timers timer.Queue
	r := New(Limits{}, 30*time.Second, &timers, nil)
	b := pattern(16)
	keys := []Key{testKey, testKey, testKey, testKey}
	keys[1].ID++
	keys[2].Protocol++
	keys[3].Source, keys[3].Destination = keys[3].Destination, keys[3].Source
	for _, k := range keys {
		if _, got := r.Add(0, k, cut(b, 0, 8)); got != Held {
			t.Fatalf("%v: first half: %d", k, got)
		}
	}
	for _, k := range keys {
		if _, got := r.Add(0, k, cut(b, 8, 16)); got != Complete {
			t.Fatalf("%v: second half: %d", k, got)
		}
	}
	if n, held := r.Held(); n != 0 || held != 0 {
		t.Fatalf("%d datagrams, %d bytes left", n, held)
	}
}

func TestTimeRunsFromTheFirstFragmentAndIsNotExtended(t *testing.T) {
	var timers timer.Queue
	var told [][]byte
	r := New(Limits{}, 30*time.Second, &timers, func(header, payload []byte) {
		told = append(told, append(bytes.Clone(header), payload...))
	})
	b := pattern(64)
	at := func(s int) timer.Instant { return timer.Instant(s) * timer.Instant(time.Second) }
	r.Add(at(0), testKey, cut(b, 0, 8))
	second := testKey
	second.ID++
	r.Add(at(10), second, cut(b, 8, 16)) // without the first fragment nobody can be told
	r.Add(at(29), testKey, cut(b, 8, 16))
	timers.Run(at(29))
	if n, _ := r.Held(); n != 2 {
		t.Fatalf("%d datagrams before the time, want 2", n)
	}
	timers.Run(at(30))
	if n, _ := r.Held(); n != 1 {
		t.Fatalf("%d datagrams after 30 s, want 1", n)
	}
	if want := append([]byte("header"), b[:8]...); len(told) != 1 || !bytes.Equal(told[0], want) {
		t.Fatalf("told %q", told)
	}
	timers.Run(at(40))
	if n, held := r.Held(); n != 0 || held != 0 || len(told) != 1 || r.Stats().TimedOut != 2 {
		t.Fatalf("after all: %d datagrams, %d bytes, told %d, %+v", n, held, len(told), r.Stats())
	}
}

func TestCondemnedKeyIsFreeAgainAfterItsTime(t *testing.T) {
	var timers timer.Queue
	r := New(Limits{}, time.Second, &timers, func(_, _ []byte) { t.Error("told about a condemned datagram") })
	b := pattern(16)
	r.Add(0, testKey, cut(b, 0, 8))
	r.Add(0, testKey, Fragment{Payload: b[:10]})
	if _, got := r.Add(0, testKey, cut(b, 8, 16)); got != Condemned {
		t.Fatalf("after an overlap: %d", got)
	}
	timers.Run(timer.Instant(time.Second))
	r.Add(timer.Instant(time.Second), testKey, cut(b, 0, 8))
	if _, got := r.Add(timer.Instant(time.Second), testKey, cut(b, 8, 16)); got != Complete {
		t.Fatalf("after the time: %d", got)
	}
}

func TestHostileSenderIsBounded(t *testing.T) {
	var timers timer.Queue
	limits := Limits{Datagrams: 16, Fragments: 10, Bytes: 20000}
	r := New(limits, 30*time.Second, &timers, nil)
	rng := rand.New(rand.NewPCG(1, 2))
	b := pattern(1480)
	for i := range 5000 {
		k := testKey
		k.ID = uint32(i / 12)
		r.Add(timer.Instant(i), k, Fragment{Offset: rng.IntN(40) * 1480, More: true, Payload: b[:8+8*rng.IntN(180)]})
		n, held := r.Held()
		if n > limits.Datagrams || held > limits.Bytes {
			t.Fatalf("after %d fragments: %d datagrams, %d bytes", i, n, held)
		}
	}
	if timers.Len() != 1 {
		t.Fatalf("%d timers", timers.Len())
	}
}

func TestTooManyFragmentsCondemn(t *testing.T) {
	var timers timer.Queue
	r := New(Limits{Fragments: 4}, 30*time.Second, &timers, nil)
	b := pattern(80)
	for i := range 4 {
		if _, got := r.Add(0, testKey, cut(b, i*16, i*16+8)); got != Held {
			t.Fatalf("fragment %d: %d", i, got)
		}
	}
	if _, got := r.Add(0, testKey, cut(b, 64, 72)); got != TooMany {
		t.Fatalf("one too many: %d", got)
	}
}

func TestOldestGivesWay(t *testing.T) {
	var timers timer.Queue
	r := New(Limits{Datagrams: 2}, 30*time.Second, &timers, nil)
	b := pattern(16)
	keys := [3]Key{testKey, testKey, testKey}
	for i := range keys {
		keys[i].ID = uint32(i)
		r.Add(timer.Instant(i), keys[i], cut(b, 0, 8))
	}
	for i, want := range []Result{Complete, Complete, Held} {
		k := keys[2-i] // the newest first
		if _, got := r.Add(3, k, cut(b, 8, 16)); got != want {
			t.Errorf("datagram %d: %d, want %d", k.ID, got, want)
		}
	}
}

// TestBytesGiveWayToNewerDatagrams fills the memory with datagrams of few
// fragments: the oldest go, and nothing else does.
func TestBytesGiveWayToNewerDatagrams(t *testing.T) {
	var timers timer.Queue
	f := cut(pattern(2960), 0, 1480)
	r := New(Limits{Bytes: 3 * cost(f)}, 30*time.Second, &timers, nil)
	key := func(i int) Key { k := testKey; k.ID = uint32(i); return k }
	for i := range 5 {
		if _, got := r.Add(timer.Instant(i), key(i), f); got != Held {
			t.Fatalf("fragment %d: %d", i, got)
		}
	}
	if n, held := r.Held(); n != 3 || held != 3*cost(f) || r.Stats().Evicted != 2 {
		t.Fatalf("%d datagrams, %d bytes, %+v", n, held, r.Stats())
	}
	if _, got := r.Add(9, key(2), cut(pattern(2960), 1480, 2960)); got != Complete {
		t.Fatalf("the oldest that is left, for which another gave way: %d", got)
	}
}

// A datagram that alone takes all the memory there is, is given up.
func TestDatagramLargerThanTheMemoryIsCondemned(t *testing.T) {
	var timers timer.Queue
	b := pattern(4440)
	r := New(Limits{Bytes: 2 * cost(cut(b, 0, 1480))}, 30*time.Second, &timers, nil)
	for i, want := range []Result{Held, Held, TooMany} {
		if _, got := r.Add(0, testKey, cut(b, 1480*i, 1480*i+1480)); got != want {
			t.Fatalf("fragment %d: %d, want %d", i, got, want)
		}
	}
	if n, held := r.Held(); n != 1 || held != 0 {
		t.Fatalf("%d datagrams, %d bytes: what was held is not freed", n, held)
	}
}

func TestECNOfFragmentsIsCombined(t *testing.T) {
	cases := []struct {
		first, second, want uint8
		result              Result
	}{
		{0, 0, 0, Complete}, {2, 2, 2, Complete}, {1, 1, 1, Complete}, {2, 3, 3, Complete}, {3, 1, 3, Complete},
		{0, 3, 0, MixedECN}, {0, 2, 0, Complete},
	}
	b := pattern(16)
	for _, c := range cases {
		var timers timer.Queue
		r := New(Limits{}, time.Second, &timers, nil)
		first, second := cut(b, 0, 8), cut(b, 8, 16)
		first.ECN, second.ECN = c.first, c.second
		r.Add(0, testKey, first)
		d, got := r.Add(0, testKey, second)
		if got != c.result || got == Complete && d.ECN != c.want {
			t.Errorf("%d with %d: result %d, %+v", c.first, c.second, got, d)
		}
	}
}

// oracle is reassembly as one would write it without a thought for cost: one
// flag for every byte.
type oracle struct {
	seen      [MaxLen + 1]bool
	data      [MaxLen + 1]byte
	total     int
	condemned bool
	pieces    map[int]Fragment
}

func newOracle() *oracle { return &oracle{total: -1, pieces: map[int]Fragment{}} }

func (o *oracle) add(f Fragment) Result {
	end := f.Offset + len(f.Payload)
	switch {
	case len(f.Payload) == 0:
		return Empty
	case f.More && len(f.Payload)%8 != 0:
		return Misaligned
	case end > MaxLen:
		return TooLong
	case o.condemned:
		return Condemned
	}
	if p, ok := o.pieces[f.Offset]; ok && p.More == f.More && bytes.Equal(p.Payload, f.Payload) {
		return Duplicate
	}
	bad := o.total >= 0 && (!f.More || end >= o.total)
	for i := range o.seen {
		if o.seen[i] && (i >= f.Offset && i < end || !f.More && i >= end) {
			bad = true
		}
	}
	if bad {
		o.condemned = true
		return Overlap
	}
	f.Payload = bytes.Clone(f.Payload)
	o.pieces[f.Offset] = f
	for i, b := range f.Payload {
		o.seen[f.Offset+i], o.data[f.Offset+i] = true, b
	}
	if !f.More {
		o.total = end
	}
	if o.total < 0 {
		return Held
	}
	for i := range o.total {
		if !o.seen[i] {
			return Held
		}
	}
	return Complete
}

// FuzzAgainstOracle reads fragments from the input, four bytes each, and holds
// the reassembler against the oracle after each.
func FuzzAgainstOracle(f *testing.F) {
	f.Add([]byte{0, 2, 1, 0, 2, 2, 0, 0})
	f.Add([]byte{2, 2, 0, 0, 0, 2, 1, 0})
	f.Add([]byte{0, 2, 1, 0, 1, 2, 1, 0, 3, 1, 0, 0})
	f.Add([]byte{4, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 64*4 {
			in = in[:64*4]
		}
		var timers timer.Queue
		r := New(Limits{}, time.Second, &timers, nil)
		o := newOracle()
		b := pattern(256)
		for i := 0; i+4 <= len(in); i += 4 {
			n := int(in[i+1]%8) * 8
			if in[i+2]&2 != 0 {
				n += int(in[i+3] % 8)
			}
			g := Fragment{Offset: int(in[i]%16) * 8, More: in[i+2]&1 != 0, Payload: b[in[i+3]&1 : int(in[i+3]&1)+n]}
			d, got := r.Add(0, testKey, g)
			want := o.add(g)
			if got != want {
				t.Fatalf("fragment %d (offset %d, %d bytes, more %v): %d, oracle %d", i/4, g.Offset, n, g.More, got, want)
			}
			if got == Complete {
				if !bytes.Equal(d.Payload, o.data[:o.total]) {
					t.Fatalf("reassembled %x, oracle %x", d.Payload, o.data[:o.total])
				}
				o = newOracle()
			}
		}
	})
}

func TestRandomFragmentsAgreeWithOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	completed := 0
	for range 300 {
		var timers timer.Queue
		r := New(Limits{}, time.Second, &timers, nil)
		o := newOracle()
		b := pattern(rng.IntN(3000) + 1)
		var all []Fragment
		for at := 0; at < len(b); {
			end := min(len(b), at+8*(1+rng.IntN(40)))
			all = append(all, cut(b, at, end))
			at = end
		}
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if rng.IntN(3) == 0 { // an intruder
			all = append(all[:len(all)/2], append([]Fragment{{Offset: 8 * rng.IntN(60), More: true, Payload: b[:len(b)&^7]}}, all[len(all)/2:]...)...)
		}
		for _, f := range all {
			d, got := r.Add(0, testKey, f)
			if want := o.add(f); got != want {
				t.Fatalf("result %d, oracle %d", got, want)
			}
			if got == Complete {
				completed++
				if !bytes.Equal(d.Payload, o.data[:o.total]) {
					t.Fatal("bytes differ from the oracle's")
				}
				break
			}
		}
	}
	if completed < 150 {
		t.Fatalf("only %d of 300 completed: the test tests nothing", completed)
	}
}
