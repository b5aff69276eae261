package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// Scenario is all that a run does. Arrays of two are by stack: 0 is the gateway,
// 1 the sandbox.
type Scenario struct {
	Seed   uint64        // of what happens by chance while it runs
	Stacks [2]StackPlan  //
	Path   [2]Impairment // of the frames that stack i sends
	Conns  []ConnPlan
	Strip  []byte      // kinds of TCP options that the path takes off SYNs
	Routes []PathMTU   // changes of the path's MTU, in order of time
	Jumps  []ClockJump // the clock leaps, as after a suspend, in order of time
	// Meddle is the mean time between forged segments and ICMP errors, 0 for
	// none.
	Meddle time.Duration
	// AskNeighbors has the stacks resolve each other over the bad path.
	AskNeighbors bool
	// Whole has super-segments cross the path in one piece, as between two
	// kernels' links, instead of being cut.
	Whole bool
	// Limit is the longest a run may take, in virtual time; 0: no limit but the
	// demand for progress.
	Limit time.Duration
}

// StackPlan configures a stack.
type StackPlan struct {
	MTU                       int
	TSO                       bool
	SendBuffer, ReceiveBuffer int
	// BufferMax is what both may grow to; 0: they are fixed.
	BufferMax  int
	Congestion string
	// ISN, if HasISN, is the sequence number that the stack's side of the first
	// connection shall begin at. The stack's clock is set so that it comes out.
	ISN    seq.Value
	HasISN bool
}

// ConnPlan is one connection.
type ConnPlan struct {
	IPv6   bool
	Dialer int // the stack that opens it
	At     time.Duration
	Hold   time.Duration // the acceptor waits so long before it accepts
	Apps   [2]AppPlan    // by stack
}

// AppPlan is what the application at one end does.
type AppPlan struct {
	Send     int // bytes to write before it closes its side
	WriteMax int // most bytes in one write
	ReadMax  int // most bytes taken at once
	// Pause is the chance of pausing after a write or read, by up to PauseMax.
	Pause    float64
	PauseMax time.Duration
	Close    CloseStyle
}

// CloseStyle is how an application ends its connection.
type CloseStyle uint8

// The styles. All but Polite may cost the other side data.
const (
	Polite CloseStyle = iota // half-closes, and reads to the end
	Hasty                    // closes both sides once it has written all
	Rude                     // aborts somewhere on the way
)

// PathMTU changes the MTU of a direction.
type PathMTU struct {
	At   time.Duration
	From int // the direction: frames of this stack
	MTU  int
}

// ClockJump moves the clock ahead at once.
type ClockJump struct{ At, By time.Duration }

// Draw makes a scenario from a seed.
func Draw(seed uint64) Scenario {
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	s := Scenario{Seed: seed, AskNeighbors: r.IntN(8) == 0, Whole: r.IntN(4) == 0}
	mild := r.IntN(3) == 0 // a good path, now and then, to reach large windows
	for i := range 2 {
		s.Stacks[i] = drawStack(r)
		s.Path[i] = drawImpairment(r, mild)
	}
	if r.IntN(8) == 0 {
		kinds := []byte{header.TCPOptionMSS, header.TCPOptionWindowScale, header.TCPOptionSACKPermitted, header.TCPOptionTimestamp}
		r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		s.Strip = kinds[:1+r.IntN(len(kinds))]
	}
	for range 1 + r.IntN(1+r.IntN(4)) {
		s.Conns = append(s.Conns, drawConn(r))
	}
	s.drawMTU(r)
	if r.IntN(6) == 0 {
		s.Jumps = append(s.Jumps, ClockJump{within(r, 3*time.Second), within(r, 20*time.Minute)})
	}
	if r.IntN(3) == 0 {
		s.Meddle = time.Millisecond + within(r, 200*time.Millisecond)
	}
	for i := range s.Stacks {
		s.Stacks[i].BufferMax = pick(r, 0, 0, 1<<20, 16<<20)
	}
	return s
}

func drawStack(r *rand.Rand) StackPlan {
	p := StackPlan{
		MTU: pick(r, 1280, 1500, 1500, 1500, 9000, 65520), TSO: r.IntN(2) == 0,
		SendBuffer: 4096 << r.IntN(9), ReceiveBuffer: 4096 << r.IntN(9),
		Congestion: pick(r, "cubic", "cubic", "newreno"),
	}
	if r.IntN(2) == 0 {
		p.HasISN, p.ISN = true, -seq.Value(1+r.IntN(1<<uint(1+r.IntN(17))))
	}
	return p
}

func drawImpairment(r *rand.Rand, mild bool) (p Impairment) {
	p.Delay = within(r, pick(r, time.Millisecond, 20*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond))
	if r.IntN(3) == 0 {
		p.Jitter = within(r, p.Delay/2+1)
	}
	if r.IntN(3) == 0 {
		p.Rate = 20_000 << r.IntN(10)
		p.Buffer = 3000 << r.IntN(8)
	}
	if mild {
		return p
	}
	p.Loss = pick(r, 0, 0.001, 0.01, 0.05, 0.3) * r.Float64()
	if r.IntN(4) == 0 {
		p.BurstEnter, p.BurstLeave, p.BurstLoss = 0.02*r.Float64(), 0.1+0.5*r.Float64(), 0.5+0.5*r.Float64()
	}
	if r.IntN(3) == 0 {
		p.Reorder, p.ReorderBy = pick(r, 0.01, 0.1, 0.5), within(r, pick(r, time.Millisecond, 50*time.Millisecond))
	}
	if r.IntN(3) == 0 {
		p.Duplicate = pick(r, 0.01, 0.1, 0.3)
	}
	if r.IntN(4) == 0 {
		p.Corrupt = 0.1 * r.Float64()
	}
	if r.IntN(6) == 0 {
		p.Truncate = 0.05 * r.Float64()
	}
	return p
}

func drawConn(r *rand.Rand) ConnPlan {
	c := ConnPlan{IPv6: r.IntN(2) == 0, Dialer: r.IntN(2), At: within(r, time.Second)}
	if r.IntN(4) == 0 {
		c.Hold = within(r, 3*time.Second)
	}
	for i := range c.Apps {
		c.Apps[i] = drawApp(r)
	}
	return c
}

func drawApp(r *rand.Rand) AppPlan {
	a := AppPlan{
		Send: r.IntN(1 << uint(r.IntN(21))), WriteMax: 1 + r.IntN(1<<uint(4+r.IntN(14))), ReadMax: 1 << 20,
	}
	a.WriteMax = max(a.WriteMax, a.Send/500)
	if r.IntN(3) == 0 {
		a.ReadMax = 1 + r.IntN(1<<uint(8+r.IntN(9)))
	}
	if r.IntN(2) == 0 {
		a.Pause, a.PauseMax = 0.1*r.Float64(), pick(r, time.Millisecond, 50*time.Millisecond, 5*time.Second)
	}
	switch r.IntN(20) {
	case 0:
		a.Close = Rude
	case 1, 2:
		a.Close = Hasty
	}
	return a
}

// drawMTU lets the path's MTU change on the way. IPv6 has a floor of 1280.
func (s *Scenario) drawMTU(r *rand.Rand) {
	if r.IntN(4) != 0 {
		return
	}
	floor := 576
	for _, c := range s.Conns {
		if c.IPv6 {
			floor = header.IPv6Len + 1240
		}
	}
	at := time.Duration(0)
	for range 1 + r.IntN(3) {
		at += within(r, time.Second)
		s.Routes = append(s.Routes, PathMTU{At: at, From: r.IntN(2), MTU: floor + r.IntN(1600-floor)})
	}
}

// within draws a duration in [0, d].
func within(r *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(d) + 1))
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// largest is the most that a stack's buffers may grow to.
func (p *StackPlan) largest() (send, receive int) {
	return max(p.SendBuffer, p.BufferMax), max(p.ReceiveBuffer, p.BufferMax)
}

// String is the scenario on several lines, for a failure's report.
func (s Scenario) String() string {
	t := fmt.Sprintf("seed %d strip %v meddle %v ask %v whole %v\n", s.Seed, s.Strip, s.Meddle, s.AskNeighbors, s.Whole)
	for i := range 2 {
		t += fmt.Sprintf("stack %d %+v\n   path %+v\n", i, s.Stacks[i], s.Path[i])
	}
	for i, c := range s.Conns {
		t += fmt.Sprintf("conn %d %+v\n", i, c)
	}
	return t + fmt.Sprintf("routes %+v jumps %+v", s.Routes, s.Jumps)
}
