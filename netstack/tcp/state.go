package tcp

// State is a connection's state (RFC 9293 §3.3.2).
type State uint8

// The states of a connection. Held comes before them all: a SYN has come to an
// address nobody listens on, and the owner has not decided about it yet.
const (
	Closed State = iota
	Held
	SynSent
	SynReceived
	Established
	FinWait1
	FinWait2
	CloseWait
	Closing
	LastAck
	TimeWait
)

var stateNames = [...]string{
	Closed: "CLOSED", Held: "HELD", SynSent: "SYN-SENT", SynReceived: "SYN-RECEIVED",
	Established: "ESTABLISHED", FinWait1: "FIN-WAIT-1", FinWait2: "FIN-WAIT-2",
	CloseWait: "CLOSE-WAIT", Closing: "CLOSING", LastAck: "LAST-ACK", TimeWait: "TIME-WAIT",
}

// String is the RFC's name of the state.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

// synchronized reports whether both sides know each other's sequence numbers.
func (s State) synchronized() bool { return s >= Established }

// canSend reports whether the user may still queue data.
func (s State) canSend() bool {
	return s == SynSent || s == SynReceived || s == Established || s == CloseWait
}

// canReceive reports whether the peer may still send new data.
func (s State) canReceive() bool {
	return s == Established || s == FinWait1 || s == FinWait2
}
