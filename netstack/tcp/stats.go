package tcp

// Stats counts what happened since the engine was made.
type Stats struct {
	SegmentsIn, SegmentsOut uint64 // frames, super-segments counted once
	Retransmits             uint64 // frames
	ResetsOut               uint64
	Cookies                 uint64 // SYN cookies given out
	ActiveOpens             uint64
	PassiveOpens            uint64
	Connections             int    // now
	Held                    int    // now
	TimeWait                int    // now
	Released                int    // now, not forgotten
	BufferBytes             int    // now, free ones included
	TimeWaitEvicted         uint64 // records that made room before their time: Limits.TimeWait
	ChallengesWithheld      uint64 // challenge ACKs not sent, for a connection had sent enough (RFC 5961 §10)
	RecordsJoined           uint64 // transmissions that a connection at its bound does not tell apart any more
	Drops                   Drops
}

// Drops counts segments, or their payload, thrown away, by reason.
type Drops struct {
	Malformed    uint64 // header or flags that cannot be
	OutOfWindow  uint64 // sequence number not acceptable
	PAWS         uint64 // timestamp too old, or missing (RFC 7323)
	BadACK       uint64 // acknowledges what was never sent, or what is long past
	BadReset     uint64 // RST that was not exactly in sequence
	ListenFull   uint64 // accept queue full
	TooMany      uint64 // connection limit
	HeldOverflow uint64 // held connections at their limit
	Stray        uint64 // of no connection
	Released     uint64 // of one that was released
	Memory       uint64 // received data past a bound
	AfterClose   uint64 // data that nobody will read
	Unreachable  uint64 // ICMP errors that quote nothing of ours
	Unresolved   uint64 // no next hop for our segment
}

// Stats returns the counters.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Connections = len(e.conns)
	s.TimeWait = len(e.timeWaits.byKey)
	s.Released = len(e.released)
	s.BufferBytes = e.pool.total * chunkSize
	return s
}
