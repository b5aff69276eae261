package pcap

import (
	"context"
	"log/slog"

	"sbxnet/netstack/frame"
	"sbxnet/tapdev"
)

// LogPackets returns a link that passes everything on to l and prints a line for
// each frame to the logger, at debug level: "<" from the sandbox, ">" towards
// it, then what [Describe] says. It takes ownership of l.
func LogPackets(l tapdev.Link, logger *slog.Logger) tapdev.Link {
	return wrap(l, &printer{logger})
}

type printer struct{ logger *slog.Logger }

func (p *printer) received(_ int, in []tapdev.Received) {
	if !p.logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	for i := range in {
		p.logger.Debug("< " + Describe(in[i].Data, len(in[i].Data), in[i].Offload))
	}
}

// described is how much of a frame a line needs: all headers, and a DNS name.
const described = 512

func (p *printer) sending(_ int, out []frame.Frame) {
	if !p.logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	var head []byte
	for i := range out {
		f := &out[i]
		head = append(head[:0], f.Header...)
		for _, part := range f.Payload {
			head = append(head, part[:min(len(part), described)]...)
		}
		p.logger.Debug("> " + Describe(head, f.Len(), f.Offload))
	}
}

func (p *printer) close() error { return nil }
