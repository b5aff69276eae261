package tcp

// Stats counts what happened since the engine was made.
type Stats struct {
	SegmentsIn, SegmentsOut uint64 // frames, super-segments counted once
	Retransmits             uint64 // frames
	ActiveOpens             uint64
	PassiveOpens            uint64
	Connections             int // now
	Held                    int // now
	TimeWait                int // now
	BufferBytes             int // now, free ones included
	Drops                   Drops
}

// Drops counts segments, or their payload, thrown away, by reason.
type Drops struct {
	Malformed    uint64 // header or flags that cannot be
	OutOfWindow  uint64
	PAWS         uint64 // RFC 7323 §5
	BadACK       uint64 // acknowledges what was never sent, or what is long past
	ListenFull   uint64 // accept queue or half-open limit
	TooMany      uint64 // connection limits
	Stray        uint64 // no connection, answered with RST or not at all
	Memory       uint64 // out-of-order data past a bound
	AfterClose   uint64 // data that nobody will read
	BadReset     uint64 // RST that was not exactly in sequence
	Unreachable  uint64 // ICMP errors that quote nothing of ours
	Unresolved   uint64 // no next hop for our segment
	HeldOverflow uint64
}

// Stats returns the counters.
func (e *Engine) Stats() Stats { return Stats{} }
