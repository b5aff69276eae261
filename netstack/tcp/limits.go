package tcp

import (
	"math/rand/v2"
	"time"

	"sbxnet/netstack/frame"
)

// Config is what an [Engine] is made with. The zero value of every field but
// Secret and Rand means its default.
type Config struct {
	MTU  int                // of the link's IP layer, in bytes; default 1500
	Caps frame.Capabilities // what the link does for us

	// SendBuffer is how many bytes may be queued or unacknowledged on a
	// connection at first, ReceiveBuffer how many buffered, which is also the
	// widest window: 4 KiB … 512 MiB; default 1 MiB. They grow to SendBufferMax
	// and ReceiveBufferMax if the path asks for it (autotune.go). A maximum's
	// default is 16 MiB, or, if the size itself is set, that: it is fixed.
	SendBuffer, SendBufferMax       int
	ReceiveBuffer, ReceiveBufferMax int

	Congestion string // "cubic" (default) or "newreno"
	ECN        bool   // ask for ECN in our own SYNs; a peer that asks gets it in any case (RFC 3168 §6.1.1)
	Memory     Memory // of buffers; nil is the Go heap
	Limits     Limits
	Secret     [16]byte   // keys ISNs and cookies; must be unpredictable
	Rand       *rand.Rand // where port numbers begin; nil derives one from Secret
}

// Limits bounds what the peer can make the engine hold. Zero means the default.
type Limits struct {
	Connections int // in all, held and released ones included; default 65536
	Held        int // waiting for Accept or Refuse; default 16384
	TimeWait    int // records in TIME-WAIT; default 16384, the oldest go first
	BufferBytes int // of send and receive buffers in all; default 512 MiB
	IdleBytes   int // of free buffers kept for reuse; default 8 MiB
}

// The numbers of the protocol. STACK.md gives those that are ours to choose.
const (
	defaultBuffer    = 1 << 20
	defaultBufferMax = 16 << 20
	minBuffer        = 4 << 10
	maxBuffer        = 1 << 29 // so that a window stays well below 2³⁰ (RFC 7323 §2.3)

	minMSS      = 48   // floor for a peer's MSS option: smaller only costs us (CVE-2019-11479)
	defaultMSS4 = 536  // without an MSS option (RFC 9293 §3.7.1)
	defaultMSS6 = 1220 //
	minPMTU4    = 552  // floor for a path MTU learned from ICMP
	minPMTU6    = 1280 // (RFC 8200 §5)
	pmtuExpiry  = 10 * time.Minute

	initialRTO       = time.Second // RFC 6298 §2.1
	minRTO           = 200 * time.Millisecond
	maxRTO           = 120 * time.Second
	maxRetries       = 15 // retransmission timeouts before giving up, as net.ipv4.tcp_retries2
	maxOrphanRetries = 8  // the same when nobody waits any more, as net.ipv4.tcp_orphan_retries
	maxSYN           = 6  // SYN retransmissions, as net.ipv4.tcp_syn_retries
	maxSYNACK        = 5  // SYN-ACK retransmissions, as net.ipv4.tcp_synack_retries
	maxProbes        = 15 // unanswered zero-window probes (sockstress)

	initialWindow = 10 // segments (RFC 6928)
	dupThreshold  = 3  // RFC 5681 §3.2

	delayedACK    = 10 * time.Millisecond // at most 40 ms; short costs next to nothing on this link
	quickACKs     = 16                    // immediate acknowledgements at the start, as TCP_MAX_QUICKACKS
	challengeSlot = 500 * time.Millisecond
	challengeMax  = 5 // challenge ACKs per connection and slot (RFC 5961 §10)

	finWait2Timeout = 60 * time.Second // of an orphan, as net.ipv4.tcp_fin_timeout
	timeWaitTimeout = 60 * time.Second
	holdTimeout     = 150 * time.Second // longer than a Linux peer keeps sending SYNs
	pawsExpiry      = 24 * 24 * time.Hour

	maxRanges = 128  // of out-of-order data per connection (CVE-2018-5390)
	maxRecent = 32   // of those, how many SACK may still have to report
	maxDupACK = 8    // acknowledgements owed to a peer without SACK for a batch out of order
	maxSent   = 1024 // records of transmissions per connection (CVE-2019-11478), unless its
	// send buffer is larger than maxSent·recordBytes: then one for so many bytes of it.
	recordBytes = 1 << 10
)

func (c *Config) setDefaults() {
	if c.MTU <= 0 {
		c.MTU = 1500
	}
	c.SendBuffer, c.SendBufferMax = bufferSize(c.SendBuffer, c.SendBufferMax)
	c.ReceiveBuffer, c.ReceiveBufferMax = bufferSize(c.ReceiveBuffer, c.ReceiveBufferMax)
	c.Limits.setDefaults()
	if c.Rand == nil {
		var seed [32]byte
		copy(seed[:], c.Secret[:])
		c.Rand = rand.New(rand.NewChaCha8(seed))
	}
}

func (l *Limits) setDefaults() {
	setDefault(&l.Connections, 65536)
	setDefault(&l.Held, 16384)
	setDefault(&l.TimeWait, 16384)
	setDefault(&l.BufferBytes, 512<<20)
	setDefault(&l.IdleBytes, 8<<20)
}

func setDefault(v *int, d int) {
	if *v <= 0 {
		*v = d
	}
}

// bufferSize brings a buffer's size and its maximum into their bounds.
func bufferSize(n, most int) (int, int) {
	if most <= 0 {
		most = n
	}
	setDefault(&n, defaultBuffer)
	setDefault(&most, defaultBufferMax)
	n = min(max(n, minBuffer), maxBuffer)
	return n, min(max(most, n), maxBuffer)
}
