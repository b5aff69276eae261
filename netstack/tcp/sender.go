package tcp

import (
	"sbxnet/netstack/seq"
	"sbxnet/netstack/timer"
)

// recoveryState is what the sender is doing about loss.
type recoveryState uint8

const (
	stateOpen     recoveryState = iota
	stateRecovery               // fast recovery under PRR (RFC 6937)
	stateLoss                   // after a retransmission timeout
	stateCWR                    // after an ECN echo: reduced, nothing lost
)

// sender is the sending half of a connection (RFC 9293 §3.3.1). Bytes of
// sequence space are in one of four states, and counted: sent (in flight),
// sacked, lost, or acknowledged and gone.
type sender struct {
	iss       seq.Value
	sndUna    seq.Value
	sndNxt    seq.Value
	sndWnd    uint32 // scaled, bytes
	sndWl1    seq.Value
	sndWl2    seq.Value
	maxSndWnd uint32
	buf       sendBuffer
	sent      sentQueue
	sacked    int // bytes of records with flagSacked
	lost      int // bytes of records with flagLost
	lastSend  timer.Instant

	cc       congestion
	cwnd     int // bytes
	ssthresh int
	// cwndLimited: the last Flush stopped for want of congestion window.
	cwndLimited bool
	hystart     hystart
	cubic       cubicState

	recovery     recoveryState
	recoverPoint seq.Value // SND.NXT when the episode began
	prrDelivered int
	prrOut       int
	recoverFS    int  // bytes in flight when recovery began
	forceOne     bool // the first retransmission of an episode goes out regardless
	dupACKs      int  // without SACK (RFC 6582)
	ecnReduced   bool // CWR is to be set on the next new data
	undo         undoState

	rtt  rttEstimator
	rack rackState
	tlp  tlpState

	retries        int // retransmission timeouts since progress
	persistBackoff int
	softError      bool // ICMP said unreachable since progress
	probes         int  // zero-window probes since the peer was last heard

	override  bool          // a window too small for silly window avoidance is used all the same
	synSentAt timer.Instant // for the round trip of the handshake
	tsOffset  uint32
}

// outstanding is the sequence space between SND.UNA and SND.NXT, in bytes.
func (c *Conn) outstanding() int { return int(c.sndUna.Size(c.sndNxt)) }

// inFlight is the pipe of RFC 6675 §4: what is believed to be in the network.
// Without SACK every duplicate ACK stands for a segment that has left it.
func (c *Conn) inFlight() int {
	n := c.outstanding() - c.sacked - c.lost
	if !c.sackOK && c.dupACKs > 0 {
		n -= c.dupACKs * c.mss
	}
	return max(0, n)
}

// unsent is the number of queued bytes that have not been sent once.
func (c *Conn) unsent() int {
	if c.finSent {
		return 0 // FIN goes behind all data
	}
	return max(0, c.buf.len-int(c.bufStart().Size(c.sndNxt)))
}

// bufStart is the sequence number of the send buffer's first byte.
func (c *Conn) bufStart() seq.Value {
	if c.state < Established {
		return c.iss.Add(1) // the SYN is not acknowledged yet
	}
	return c.sndUna
}

// startSending sets the sender up at iss.
func (c *Conn) startSending(iss seq.Value) {
	c.startSendingAt(iss)
	c.rtt.rto = initialRTO
	c.peerMSS = defaultMSS(c.route.Local.Addr())
	c.setMSS()
}

// startSendingAt places the sender's sequence numbers behind a SYN at iss.
func (c *Conn) startSendingAt(iss seq.Value) {
	c.iss, c.sndUna, c.sndNxt = iss, iss, iss.Add(1)
}

// setMSS works out the payload of a full segment: what the peer takes and the
// path carries, less the options every segment has (RFC 6691).
func (c *Conn) setMSS() {
	mss := min(c.peerMSS, c.engine.pathMSS(c))
	if c.tsOK {
		mss -= 12
	}
	c.mss = max(mss, minMSS-12)
	// A path that takes larger segments again must leave room for one: with
	// nothing in flight no acknowledgement would ever make it.
	c.cwnd = max(c.cwnd, c.mss)
}
