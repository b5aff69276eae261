package script

import (
	"fmt"
	"testing"
)

// The matrix: every kind of segment, in every state, at every place around the
// window. What must come of it is stated by rule below, not by case.

const window = 16384 // receive buffer and window of these scripts

// place is where a segment begins, relative to the window.
type place struct {
	name string
	of   func(left, right int) int // right is the first number outside
}

var places = []place{
	{"outside left", func(l, r int) int { return l - 1000 }},
	{"left edge", func(l, r int) int { return l }},
	{"inside", func(l, r int) int { return l + 100 }},
	{"right edge", func(l, r int) int { return r - 1 }},
	{"outside right", func(l, r int) int { return r }},
}

// stateCase brings a connection into a state.
type stateCase struct {
	name   string
	script string
	rcv    int // RCV.NXT, from the peer's initial number; 0: the peer has none yet
	snd    int // SND.NXT
	una    int // what a segment acknowledges: all
}

const handshake = `
set receivebuffer 16384
+0 listen 8
+0 < S 0 win 60000 <mss 1460>
+0 > S. 0 ack 1 win 16384 <mss 1460>
`

const opened = handshake + `
+0 < . 1 ack 1 win 60000
+0 accept
+0 reader on
`

var states = []stateCase{
	{"LISTEN", "set receivebuffer 16384\n+0 listen 8\n", 0, 0, 0},
	{"SYN-SENT", "set receivebuffer 16384\n+0 dial\n+0 > S 0 win 16384\n", 0, 1, 1},
	{"SYN-RECEIVED", handshake, 1, 1, 1},
	{"ESTABLISHED", opened, 1, 1, 1},
	{"FIN-WAIT-1", opened + "+0 closewrite\n+0 > F. 1 ack 1\n", 1, 2, 2},
	{"FIN-WAIT-2", opened + "+0 closewrite\n+0 > F. 1 ack 1\n+0 < . 1 ack 2\n", 1, 2, 2},
	{"CLOSE-WAIT", opened + "+0 < F. 1 ack 1\n+0 > . 1 ack 2\n", 2, 1, 1},
	{"CLOSING", opened + "+0 closewrite\n+0 > F. 1 ack 1\n+0 < F. 1 ack 1\n+0 > . 2 ack 2\n", 2, 2, 2},
	{"LAST-ACK", opened + "+0 < F. 1 ack 1\n+0 > . 1 ack 2\n+0 closewrite\n+0 > F. 1 ack 2\n", 2, 2, 2},
	{"TIME-WAIT", opened + "+0 closewrite\n+0 > F. 1 ack 1\n+0 < F. 1 ack 2\n+0 > . 2 ack 2\n", 2, 2, 2},
}

// outcome is the rest of a script: what is answered, and what state follows.
type outcome string

func (c *stateCase) ack() outcome {
	return outcome(fmt.Sprintf("+0 > . %d ack %d\n", c.snd, c.rcv))
}

// stays: nothing has changed.
func (c *stateCase) stays() outcome { return becomes(c.name) }

func becomes(state string) outcome {
	switch state {
	case "LISTEN", "SYN-RECEIVED":
		return "+0 nothing\n" // nobody has been given a connection
	case "CLOSED":
		return "+0 nothing\n+0 stat connections 0\n"
	case "TIME-WAIT":
		return "+0 nothing\n+0 stat timewait 1\n"
	}
	return outcome("+0 state " + state + "\n")
}

// expected is the rule.
func expected(c *stateCase, kind string, at place) outcome {
	if kind == "SF" || kind == "-" {
		return c.stays() // no connection produces such flags
	}
	switch c.name {
	case "LISTEN": // RFC 9293 §3.10.7.2
		switch kind {
		case "R":
			return c.stays()
		case "S":
			return outcome("+0 > S. 0 ack 1\n")
		}
		return outcome("+0 > R 0\n") // an ACK is of nothing
	case "SYN-SENT": // §3.10.7.3
		if kind == "S" {
			return outcome("+0 > S. 0 ack 1\n+0 state SYN-RECEIVED\n") // simultaneous open
		}
		return c.stays() // an RST without ACK proves nothing; neither SYN nor RST: dropped
	case "TIME-WAIT":
		return expectedTimeWait(c, kind, at)
	}
	outside := at.name == "outside left" || at.name == "outside right"
	switch kind {
	case "R": // RFC 5961 §3.2
		switch {
		case outside:
			return c.stays()
		case at.name == "left edge":
			return becomes("CLOSED")
		}
		return c.ack() + c.stays()
	case "S": // RFC 5961 §4.2, and RFC 9293 §3.10.7.4, first, where outside
		return c.ack() + c.stays()
	}
	if outside {
		return c.ack() + c.stays()
	}
	if kind == "." {
		return becomes(acknowledged[c.name])
	}
	// FIN: in order it counts; out of order it is answered at once, and its
	// acknowledgement counts all the same. After one FIN there is no other.
	switch {
	case finished[c.name] == "":
		return becomes(acknowledged[c.name])
	case at.name == "left edge":
		return outcome(fmt.Sprintf("+0 > . %d ack %d\n", c.snd, c.rcv+1)) + becomes(finished[c.name])
	}
	return c.ack() + becomes(acknowledged[c.name])
}

// acknowledged is the state after an acknowledgement of all that was sent, and
// finished that after a FIN in order besides (RFC 9293 §3.3.2).
var (
	acknowledged = map[string]string{"SYN-RECEIVED": "ESTABLISHED?", "ESTABLISHED": "ESTABLISHED", "FIN-WAIT-1": "FIN-WAIT-2",
		"FIN-WAIT-2": "FIN-WAIT-2", "CLOSE-WAIT": "CLOSE-WAIT", "CLOSING": "TIME-WAIT", "LAST-ACK": "CLOSED"}
	finished = map[string]string{"SYN-RECEIVED": "CLOSE-WAIT?", "ESTABLISHED": "CLOSE-WAIT", "FIN-WAIT-1": "TIME-WAIT", "FIN-WAIT-2": "TIME-WAIT"}
)

// expectedTimeWait: RST does nothing (RFC 1337), a SYN behind all that was
// received opens a new connection (RFC 9293 §3.6.1), anything else that is not a
// bare acknowledgement in its place is answered.
func expectedTimeWait(c *stateCase, kind string, at place) outcome {
	switch {
	case kind == "R":
		return c.stays()
	case kind == "S" && at.name != "outside left" && at.name != "left edge":
		return "+0 any 1\n+0 stat timewait 0\n+0 stat connections 1\n"
	case kind == "." && at.name == "left edge":
		return c.stays()
	}
	return c.ack() + c.stays()
}

func TestEverySegmentInEveryStateAroundTheWindow(t *testing.T) {
	n := 0
	for _, c := range states {
		for _, kind := range []string{"R", "S", ".", "F.", "SF", "-"} {
			for _, at := range places {
				t.Run(fmt.Sprintf("%s/%s/%s", c.name, kind, at.name), func(t *testing.T) {
					script := c.script + c.inject(kind, at) + afterAccept(expected(&c, kind, at))
					if err := Run(script); err != nil {
						t.Fatalf("%v\nscript:\n%s", err, script)
					}
				})
				n++
			}
		}
	}
	if n != 10*6*5 {
		t.Fatalf("%d cases", n)
	}
}

// inject is the line that injects the segment. A stranger's number is 0.
func (c *stateCase) inject(kind string, at place) string {
	p := 0
	if c.rcv > 0 {
		p = at.of(c.rcv, 1+window)
	}
	ack := ""
	if kind == "." || kind == "F." {
		ack = fmt.Sprintf(" ack %d", c.una)
	}
	return fmt.Sprintf("+0.001 < %s %d%s win 60000\n", kind, p, ack)
}

// afterAccept turns what follows a completed handshake into steps: the
// connection has to be accepted before it can be looked at.
func afterAccept(o outcome) string {
	s := string(o)
	for _, state := range []string{"ESTABLISHED", "CLOSE-WAIT"} {
		s = replace(s, "+0 state "+state+"?\n", "+0 accept\n+0 state "+state+"\n")
	}
	return s
}
