package dhcp

import (
	"bytes"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What one request may cost, whatever is in it. Usual ones take some 20 µs and
// 10 KiB; a reading in quadratic time or memory takes hundreds of times that.
const (
	maxCostTime  = 10 * time.Millisecond
	maxCostBytes = 128 << 10
)

// checkCost runs f, which answers so many requests, and holds it to the bounds.
// Time is that of the thread: others on the machine do not count.
func checkCost(t *testing.T, requests int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := threadTime(t)
	f()
	took := threadTime(t) - start
	runtime.ReadMemStats(&after)
	if took > time.Duration(requests)*maxCostTime {
		t.Errorf("%d requests took %v", requests, took)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > uint64(requests)*maxCostBytes {
		t.Errorf("%d requests took %d bytes of memory", requests, n)
	}
}

func threadTime(t *testing.T) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// fill repeats a piece until the message is as long as one may be.
func fill(b []byte, piece ...byte) []byte {
	return append(b, bytes.Repeat(piece, (MaxMessage-len(b))/len(piece))...)
}

// domainBomb is a list of domains that takes much more memory to read than it
// has bytes: half of it is a name of many labels, to which the rest points.
func domainBomb(n int) []byte {
	name := append(bytes.Repeat([]byte{1, 'x'}, n/4), 0)
	return append(name, bytes.Repeat([]byte{0xc0, 0}, (n-len(name))/2)...)
}

// hostile is a request that is as long as one may be, and made of what is
// dearest to read.
type hostile struct {
	request  []byte
	answered bool
}

func hostileRequests() map[string]hostile {
	var codes []byte
	for i := range 700 {
		codes = append(codes, byte(i>>8), byte(i))
	}
	nested := opt6(opt6Address, make([]byte, 24))
	for len(nested) < 1400 {
		nested = opt6(opt6IANA, append(make([]byte, 12), nested...))
	}
	inner := []byte{1, 'x', 'i', 'd'}
	for len(inner) < 1400 {
		inner = append([]byte{0: 12, 33: 0}, opt6(opt6RelayMsg, inner)...) // RFC 8415 §9
	}
	solicit := slices.Clip(ask6(solicit6, aliceDUID, "", na("eth0")))
	discover := ask{kind: discover4, mac: alice}.bytes()
	discover = slices.Clip(discover[:len(discover)-1]) // without the end
	bomb4 := slices.Clone(discover)
	for piece := range slices.Chunk(domainBomb(1200), 255) {
		bomb4 = append(append(bomb4, optDomainSearch, byte(len(piece))), piece...)
	}
	return map[string]hostile{
		"DHCPv6, domains":               {append(solicit, opt6(opt6Domains, domainBomb(1400))...), true},
		"DHCPv6, domains in IA":         {ask6(solicit6, aliceDUID, "", opt6(opt6IANA, append(make([]byte, 12), opt6(opt6Domains, domainBomb(1380))...))), true},
		"DHCPv6, domains in an address": {ask6(solicit6, aliceDUID, "", opt6(opt6IANA, append(make([]byte, 12), opt6(opt6Address, append(make([]byte, 24), opt6(opt6Domains, domainBomb(1350))...))...))), true},
		"DHCPv6, option request":        {append(solicit, opt6(opt6Requested, codes[:1400])...), false},
		"DHCPv6, 120 of them":           {fill(append(solicit, opt6(opt6Requested, codes[:256])...), opt6(opt6Requested, codes[:6])...), true},
		"DHCPv6, IA in IA":              {ask6(solicit6, aliceDUID, "", nested), true},
		"DHCPv6, message in message":    {append(solicit, opt6(opt6RelayMsg, inner)...), true},
		"DHCPv6, empty options":         {fill(solicit, 0, 99, 0, 0), false},
		"DHCPv6, vendor options":        {append(solicit, opt6(17, fill(make([]byte, 4), 0, 1, 0, 0)[:1400])...), true},
		"DHCPv4, empty options":         {fill(discover, 99, 0), true},
		"DHCPv4, short options":         {fill(discover, 99, 1, 1), true},
		"DHCPv4, domains":               {bomb4, true},
		"DHCPv4, parameters":            {fill(discover, optParameters, 1, 99), true},
	}
}

// ipv4 reports whether it is DHCPv4's: for Ethernet.
func (h hostile) ipv4() bool { return h.request[1] == 1 }

func TestHostileRequestCostsNoMoreThanAnother(t *testing.T) {
	for name, c := range hostileRequests() {
		t.Run(name, func(t *testing.T) {
			if len(c.request) > MaxMessage {
				t.Fatalf("%d bytes", len(c.request))
			}
			l := newLab(t, nil)
			var ok bool
			checkCost(t, 1, func() {
				if c.ipv4() {
					_, ok = l.Respond4(c.request, l.now)
				} else {
					_, ok = l.Respond6(c.request, aliceLL, alice, l.now)
				}
			})
			if ok != c.answered {
				t.Errorf("answered: %v", ok)
			}
		})
	}
}

// TestClientIsKnownByWhateverItsDUIDContains: it is opaque (RFC 8415 §11), even
// where it does not keep to its own type, and comes back as it was.
func TestClientIsKnownByWhateverItsDUIDContains(t *testing.T) {
	for _, duid := range []string{
		"\x00\x01\x00", "\x00\x01\x00\x01time", "\x00\x02\x00", "\x00\x02\x00\x00\x00\x09", "\x00\x03\x00", "\x00\x04short",
		"\x00\x04" + "longer than any UUID", "\x00\x00\x00", "\xff\xffx", "\x12\x34" + string(make([]byte, 128)),
	} {
		l := newLab(t, nil)
		r, ok := l.Respond6(ask6(request6, duid, ourDUID, na("eth0")), aliceLL, alice, l.now)
		if !ok || !bytes.Contains(r.Payload, opt6(opt6ClientID, []byte(duid))) || l.Stats().Leases6 != 1 {
			t.Errorf("%q: answered %v, %x", duid, ok, r.Payload)
		}
	}
}

func TestOptionThatIsCutShortOrLacksItsEnd(t *testing.T) {
	b := ask{kind: discover4, mac: alice}.bytes()
	for _, c := range []struct {
		name     string
		b        []byte
		answered bool
	}{
		{"no end", b[:len(b)-1], true},
		{"a code without length", append(b[:len(b)-1:len(b)-1], optHostname), false},
		{"more after the end", append(b[:len(b):len(b)], "what is this"...), true},
	} {
		if _, ok := newLab(t, nil).Respond4(c.b, 0); ok != c.answered {
			t.Errorf("%s: answered %v", c.name, ok)
		}
	}
}

func TestLongestRequestIsRead(t *testing.T) {
	b := ask{kind: discover4, mac: alice}.bytes()
	b = append(b, make([]byte, MaxMessage-len(b))...)
	for n, want := range map[int]bool{MaxMessage: true, MaxMessage + 1: false} {
		if _, ok := newLab(t, nil).Respond4(append(b, 0)[:n], 0); ok != want {
			t.Errorf("%d bytes: answered %v", n, ok)
		}
	}
}
