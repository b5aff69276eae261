package netstack

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
	"sbxnet/netstack/neighbor"
	"sbxnet/netstack/reassembly"
	"sbxnet/netstack/tcp"
	"sbxnet/netstack/timer"
)

// How long unfinished datagrams are kept: RFC 1122 §3.3.2 wants a fixed value
// and Linux has 30 s; RFC 8200 §4.5 says 60 s.
const (
	reassemblyTime4 = 30 * time.Second
	reassemblyTime6 = 60 * time.Second
)

// Stack is a TCP/IP stack at one end of a link. It has one owner, who makes
// every call, also those on the engine and the endpoints that it gives out.
type Stack struct {
	cfg     Config
	handler Handler
	out     *frame.Batch
	now     timer.Instant
	timers  timer.Queue
	rand    *rand.Rand
	tcp     *tcp.Engine
	stats   Stats

	own4, own6         []netip.Addr   // own6 ends in the link-local address
	prefixes4          []netip.Prefix // on the link, each once
	prefixes6          []netip.Prefix
	broadcasts         []netip.Addr // of prefixes4
	gateway4, gateway6 netip.Addr
	linkLocal          netip.Addr

	arp, nd                  *neighbor.Cache
	reassembly4, reassembly6 *reassembly.Reassembler
	errors                   bucket
	endpoints                map[netip.AddrPort]*UDPEndpoint
	loopback                 loopbackFlows
	flowKey                  uint32 // hides flow labels' making
	advertise                timer.Timer
	nextRA                   timer.Instant // to everyone, at the earliest
	unasked                  int           // advertisements sent at intervals

	// What calls are made with, kept here so that they need no allocation.
	in       packet
	segment  tcp.Packet
	datagram Datagram
	echo     Echo
	outgoing outgoing
	scratch  []byte // an ICMP message being made
	exceeded struct {
		sending bool // see RefuseTimeExceeded
		from    netip.Addr
	}
	whole []byte // a reassembled IPv6 packet
	dad   duplicates
}

// New returns a stack that has sent nothing yet. It fails if cfg names an
// address, next hop or MTU that cannot be.
func New(cfg Config) (*Stack, error) {
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Stack{
		cfg: cfg, handler: cfg.Handler, out: cfg.Output,
		rand:      rand.New(rand.NewChaCha8(cfg.Seed)),
		endpoints: make(map[netip.AddrPort]*UDPEndpoint),
		errors:    newBucket(cfg.Limits.ICMPErrors, cfg.Limits.ICMPBurst),
	}
	s.flowKey = s.rand.Uint32()
	s.setAddresses()
	s.startDuplicateDetection()
	s.setNeighbors()
	s.reassembly4 = reassembly.New(cfg.Limits.Reassembly, reassemblyTime4, &s.timers, s.reassemblyTimedOut4)
	s.reassembly6 = reassembly.New(cfg.Limits.Reassembly, reassemblyTime6, &s.timers, s.reassemblyTimedOut6)
	s.setTCP()
	s.advertise.Expire = s.advertiseUnasked
	if s.linkLocal.IsValid() && !cfg.RouterAdvertisement.Disabled && cfg.RouterAdvertisement.Interval > 0 {
		s.timers.Arm(&s.advertise, 0)
	}
	return s, nil
}

func (s *Stack) setAddresses() {
	for _, p := range s.cfg.OnLink {
		s.addPrefix(p.Masked())
	}
	for _, p := range s.cfg.Addresses {
		s.addPrefix(p.Masked())
		if p.Addr().Is4() {
			s.own4 = append(s.own4, p.Addr())
		} else {
			s.own6 = append(s.own6, p.Addr())
		}
	}
	if len(s.own4) > 0 {
		s.gateway4 = s.own4[0]
	}
	if len(s.own6) > 0 {
		s.gateway6 = s.own6[0]
		s.linkLocal = header.LinkLocalAddress(s.cfg.HardwareAddr)
		s.own6 = append(s.own6, s.linkLocal)
	}
}

func (s *Stack) setNeighbors() {
	s.arp = neighbor.New(s.cfg.Limits.Neighbors, (*arpLink)(s), &s.timers)
	s.nd = neighbor.New(s.cfg.Limits.Neighbors, (*ndLink)(s), &s.timers)
	for _, n := range s.cfg.Neighbors {
		s.cache(n.Addr).AddStatic(n.Addr, n.MAC)
	}
}

func (s *Stack) setTCP() {
	c := s.cfg.TCP
	c.MTU, c.Caps = s.cfg.MTU, s.cfg.Caps
	binary.NativeEndian.PutUint64(c.Secret[:8], s.rand.Uint64())
	binary.NativeEndian.PutUint64(c.Secret[8:], s.rand.Uint64())
	c.Rand = s.rand
	s.tcp = tcp.NewEngine(c, s, &s.timers)
	if s.handler != nil {
		s.tcp.SetOpenHandler(s.handler.OpenTCP)
	}
}

// Input takes in one frame that was read at the given instant: data from its
// Ethernet header on, and what the link says about it. data is the caller's
// again when Input returns.
func (s *Stack) Input(data []byte, off frame.Offload, now timer.Instant) {
	s.now = now
	s.stats.FramesIn++
	s.stats.BytesIn += uint64(len(data))
	if !s.dad.asked {
		s.askForDuplicates()
	}
	s.inputEthernet(data, off)
}

// Tick sets the clock and runs the timers that have expired. It is called once
// a turn, before Input.
func (s *Stack) Tick(now timer.Instant) {
	s.now = now
	s.tcp.SetNow(now)
	s.timers.Run(now)
}

// Flush has TCP append what it has to say.
func (s *Stack) Flush() { s.tcp.Flush() }

// Reclaim lets memory be reused that frames pointed into. It is called when the
// batch is on the link.
func (s *Stack) Reclaim() {
	s.arp.Pin()
	s.nd.Pin()
	s.tcp.Reclaim()
}

// NextDeadline is when Tick is wanted next, timer.Never if no timer is armed.
func (s *Stack) NextDeadline() timer.Instant { return s.timers.Next() }

// TCP is the stack's TCP engine, for listening, dialling and statistics.
func (s *Stack) TCP() *tcp.Engine { return s.tcp }
