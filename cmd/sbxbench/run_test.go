package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"
)

func TestEveryLoadRunsOnLoopback(t *testing.T) {
	s, err := serve("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, m := range measurements() {
		o := m.order
		o.Addr, o.Duration = at("127.0.0.1", s.port()), 20*time.Millisecond
		r := perform(o)
		for _, f := range m.figures {
			if r.Error != "" || f.value(r) <= 0 {
				t.Errorf("%s: %+v", f.name, r)
			}
		}
	}
}

func TestFiguresHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range measurements() {
		for _, f := range m.figures {
			if k := fmt.Sprint(f.name, m.mtu); seen[k] {
				t.Errorf("%s at MTU %d is taken twice", f.name, m.mtu)
			} else {
				seen[k] = true
			}
		}
	}
}

// noted makes a worker that does nothing but note that it had an order.
func noted(t *testing.T, orders *[]string, name string) *worker {
	fromBench, in := io.Pipe()
	out, toBench := io.Pipe()
	t.Cleanup(func() { in.Close() })
	go func() {
		orderly, answers := json.NewDecoder(fromBench), json.NewEncoder(toBench)
		for {
			var o order
			if orderly.Decode(&o) != nil {
				return
			}
			*orders = append(*orders, name) // before the answer, which the test waits for
			answers.Encode(outcome{Bytes: 1, Count: 1, Elapsed: time.Second})
		}
	}()
	return &worker{in: json.NewEncoder(in), out: json.NewDecoder(out)}
}

func TestRoundsAreInterleavedAndTurn(t *testing.T) {
	var order []string
	b := &bench{quick: true, duration: time.Millisecond, failed: map[string]bool{}}
	sessions := map[string]*session{}
	for _, name := range []string{"a", "b", "c"} {
		b.networks = append(b.networks, network{name: name, variant: name == "c"})
		sessions[name] = &session{worker: noted(t, &order, name)}
	}
	for round := range 2 {
		order = nil
		b.round(largeMTU, round, sessions)
		want := []string{"a", "b", "a", "b"}
		if round == 1 {
			want = []string{"b", "a", "b", "a"}
		}
		if !slices.Equal(order, want) {
			t.Errorf("round %d: %v, want %v", round, order, want)
		}
	}
	order = nil
	b.round(ordinaryMTU, 0, sessions)
	if !slices.Contains(order, "c") {
		t.Error("the variant takes no measurement")
	}
}

func TestVariantsTakeWhatTheyCanMove(t *testing.T) {
	bulk, inwards, rtt := measurement{variants: true}, measurement{published: true}, measurement{}
	for _, c := range []struct {
		n                  network
		bulk, inwards, rtt bool
	}{
		{sbxnetWith("sbxnet"), true, true, true},
		{variantOf("no GRO", "--gro=false"), true, false, false},
		{publishedVariant(linkVariant("no splice")), true, true, false},
	} {
		if c.n.takes(bulk) != c.bulk || c.n.takes(inwards) != c.inwards || c.n.takes(rtt) != c.rtt {
			t.Errorf("%s takes the wrong measurements", c.n.name)
		}
	}
}

func TestRoundsStopWhenTheTimeIsUp(t *testing.T) {
	began := time.Now()
	b := &bench{limit: 10 * time.Second, began: began}
	for _, c := range []struct {
		after, longest time.Duration
		want           bool
	}{
		{time.Hour, 0, true}, // no figure at all would be worse
		{2 * time.Second, 3 * time.Second, true},
		{2 * time.Second, 4 * time.Second, false},
	} {
		if got := b.another(began.Add(c.after), 0.5, c.longest); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	b.limit = 0
	if !b.another(began.Add(time.Hour), 0.5, time.Hour) {
		t.Error("without a limit the time was up")
	}
}

func TestProgressIsALineOnATerminalAndLinesElsewhere(t *testing.T) {
	var out bytes.Buffer
	for _, terminal := range []bool{true, false} {
		out.Reset()
		p := progress{&out, terminal}
		p.phase("part %d", 1)
		p.say("step %d", 1)
		p.done()
		want := "sbxbench: part 1\n"
		if terminal {
			want = "\r\x1b[Kstep 1\r\x1b[K"
		}
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
	progress{}.say("nobody looks")
}
