package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sbxnet/netstack/timer"
)

// Run carries out a script. An error names the line, says what is wrong, and
// shows what went over the wire before.
func Run(text string) error {
	m := newMachine()
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := m.line(line); err != nil {
			return m.explain(i+1, line, err)
		}
	}
	if err := m.start(); err != nil {
		return err
	}
	if err := m.pass(m.now, false); err != nil {
		return m.explain(0, "end", err)
	}
	if err := m.nothingLeft(); err != nil {
		return m.explain(0, "end", err)
	}
	return nil
}

func (m *machine) explain(n int, line string, err error) error {
	return fmt.Errorf("line %d: %s\n\t%w\non the wire:\n\t%s", n, line, err, strings.Join(m.trace, "\n\t"))
}

// line carries out a setting or a step.
func (m *machine) line(line string) error {
	words := strings.Fields(line)
	switch words[0] {
	case "set":
		return m.set(words[1:])
	case "flow":
		if len(words) != 4 {
			return fmt.Errorf("flow NAME PEER LOCAL")
		}
		return m.addFlow(words[1], words[2], words[3])
	}
	if err := m.start(); err != nil {
		return err
	}
	if !strings.HasPrefix(words[0], "+") {
		return fmt.Errorf("a step begins with +SECONDS")
	}
	seconds, err := strconv.ParseFloat(words[0][1:], 64)
	if err != nil {
		return err
	}
	rest := strings.TrimSpace(line[len(words[0]):])
	name := ""
	if strings.HasPrefix(rest, "@") {
		name, rest, _ = strings.Cut(rest[1:], " ")
		rest = strings.TrimSpace(rest)
	}
	f := m.flows[name]
	if f == nil {
		return fmt.Errorf("no flow %q", name)
	}
	verb, args, _ := strings.Cut(rest, " ")
	return m.step(m.now.Add(time.Duration(seconds*1e9)), f, verb, strings.TrimSpace(args))
}

func (m *machine) set(words []string) error {
	if len(words) != 2 || m.stack != nil {
		return fmt.Errorf("set NAME VALUE, before the first step")
	}
	n, err := strconv.Atoi(words[1])
	if err != nil && words[0] != "congestion" {
		return err
	}
	switch words[0] {
	case "mtu":
		m.config.MTU = n
	case "sendbuffer":
		m.config.TCP.SendBuffer = n
	case "receivebuffer":
		m.config.TCP.ReceiveBuffer = n
	case "timewait":
		m.config.TCP.Limits.TimeWait = n
	case "connections":
		m.config.TCP.Limits.Connections = n
	case "buffers":
		m.config.TCP.Limits.BufferBytes = n
	case "congestion":
		m.config.TCP.Congestion = words[1]
	case "peerisn":
		m.peerISN = seqOf(n)
	default:
		return fmt.Errorf("no setting %q", words[0])
	}
	return nil
}

// tolerance is how far from its time an expected segment may come.
const tolerance = time.Millisecond

// step lets time pass and carries out a verb. What the stack sends meanwhile
// must be what the verb waits for.
func (m *machine) step(at timer.Instant, f *flow, verb, args string) error {
	if verb == ">" {
		return m.expect(at, f, args)
	}
	if verb == "any" {
		return m.expectAny(at, args)
	}
	if err := m.pass(at, false); err != nil {
		return err
	}
	if err := m.nothingLeft(); err != nil {
		return err
	}
	do := verbs[verb]
	if do == nil {
		return fmt.Errorf("no verb %q", verb)
	}
	if err := do(m, f, args); err != nil {
		return err
	}
	return m.flush()
}

func (m *machine) nothingLeft() error {
	if len(m.sent) == 0 {
		return nil
	}
	return fmt.Errorf("nobody expected: %s", m.describe(m.sent[0].data))
}

// expect waits for one segment or ICMP error and compares it.
func (m *machine) expect(at timer.Instant, f *flow, args string) error {
	if err := m.pass(at.Add(tolerance), true); err != nil {
		return err
	}
	if len(m.sent) == 0 {
		return fmt.Errorf("nothing was sent")
	}
	got := m.sent[0]
	m.sent = m.sent[1:]
	if d := got.at.Sub(at); d < -tolerance || d > tolerance {
		return fmt.Errorf("%s was sent %v from its time", m.describe(got.data), d)
	}
	if len(m.sent) == 0 {
		m.now = max(m.now, at)
		m.stack.Tick(m.now)
	}
	p, ok := parsePacket(got.data)
	if kind, isICMP := strings.CutPrefix(args, "icmp "); isICMP {
		if !ok || p.icmp != strings.TrimSpace(kind) {
			return fmt.Errorf("sent was %s", m.describe(got.data))
		}
		return nil
	}
	want, err := parseSegment(args)
	if err != nil {
		return err
	}
	if !ok || p.tcp == nil || p.src != f.local || p.dst != f.peer {
		return fmt.Errorf("sent was %s", m.describe(got.data))
	}
	return m.compare(f, want, &p)
}

// compare compares what an expectation mentions.
func (m *machine) compare(f *flow, want segment, p *packet) error {
	got := m.segmentOf(f, p, true)
	same := got.flags == want.flags && got.seq == want.seq && got.end == want.end &&
		(want.ack < 0 || got.ack == want.ack) && (want.win < 0 || got.win == want.win) &&
		(!want.hasOpts || got.options == want.options)
	if !same {
		return fmt.Errorf("sent was %v", got)
	}
	if got.end > got.seq && string(p.payload) != string(pattern(got.seq-1, got.end-got.seq)) {
		return fmt.Errorf("the payload of %v is not what was written", got)
	}
	return nil
}

// expectAny wants a number of frames, whichever they are.
func (m *machine) expectAny(at timer.Instant, args string) error {
	n, err := strconv.Atoi(args)
	if err != nil {
		return err
	}
	if err := m.pass(at, false); err != nil {
		return err
	}
	got := len(m.sent)
	m.sent = nil
	if got != n {
		return fmt.Errorf("%d frames were sent", got)
	}
	return nil
}
