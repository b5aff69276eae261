package main

import (
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/state"
	"sbxnet/portfwd"
)

const statsHelp = `sbxnet stats [flags] NAME prints what a running sandbox's network has carried.
`

// stats is `sbxnet stats`.
func (p *program) stats(c *cli.Context) error {
	return with(c, func(sandbox *state.Client) error {
		var raw json.RawMessage
		if err := sandbox.Stats(&raw); err != nil {
			return err
		}
		if c.Bool("json") {
			return p.printJSON(raw)
		}
		var s portfwd.Stats // whose names differ from JSON's in nothing but case
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("read its counters: %w", err)
		}
		p.printStats(&s)
		return nil
	})
}

func (p *program) printStats(s *portfwd.Stats) {
	t, u, e := &s.TCP, &s.UDP, &s.Echo
	fmt.Fprintf(p.stdout, "TCP   %d open; %d out and %d in so far, %d of these without the link; %d denied, %d failed, %d found no server, %d idle, %d over a limit\n",
		t.Open, t.Outbound, t.Published, t.Spliced+t.Diverted, t.Denied, t.Failed, t.NoServer, t.Idle, t.OverLimit)
	fmt.Fprintf(p.stdout, "      %s to the host's side, %s to the sandbox\n", bytesOf(t.ToHost), bytesOf(t.ToSandbox))
	fmt.Fprintf(p.stdout, "UDP   %d flows open; %d out and %d in so far; %d denied, %d failed, %d lost\n",
		u.Open, u.Outbound, u.Published, u.Denied, u.Failed, u.Lost)
	fmt.Fprintf(p.stdout, "      %d datagrams to the host's side, %d to the sandbox\n", u.DatagramsToHost, u.DatagramsToSandbox)
	fmt.Fprintf(p.stdout, "Echo  %d open; %d requests; %d denied, %d failed\n", e.Open, e.Requests, e.Denied, e.Failed)
}

// bytesOf is a number of bytes as people read it.
func bytesOf(n uint64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n), -1
	for value >= unit && prefix < len("kMGTPE")-1 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTPE"[prefix])
}
