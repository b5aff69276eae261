package console

import (
	"bytes"
	"context"
	"io"
	"log/slog"
)

// NewLogger makes the log of a program on w. The text format is for people: one
// line each, "program: warning: what happened (key=value)". The JSON format is
// slog's.
func NewLogger(w io.Writer, program, format string, level slog.Level) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(&textHandler{w: w, program: program, level: level})
}

// textHandler writes records as lines for a terminal that the command's own
// output shares: no time stamp, no level on notices, one write for each line.
type textHandler struct {
	w       io.Writer
	program string
	level   slog.Level
	// attrs is what With added, formatted; group is the prefix of further keys.
	attrs string
	group string
}

func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	b.WriteString(h.program + ": ")
	switch {
	case r.Level >= slog.LevelError:
		b.WriteString("error: ")
	case r.Level >= slog.LevelWarn:
		b.WriteString("warning: ")
	case r.Level < slog.LevelInfo:
		b.WriteString("debug: ")
	}
	b.WriteString(OneLine(r.Message))
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs += formatAttr(h.group, a)
		return true
	})
	if attrs != "" {
		b.WriteString(" (" + attrs[1:] + ")")
	}
	b.WriteByte('\n')
	_, err := h.w.Write(b.Bytes())
	return err
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	for _, a := range attrs {
		with.attrs += formatAttr(h.group, a)
	}
	return &with
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	with := *h
	with.group += name + "."
	return &with
}

// formatAttr is " key=value", and the members of a group one after another.
func formatAttr(group string, a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		s := ""
		for _, m := range v.Group() {
			s += formatAttr(group+a.Key+".", m)
		}
		return s
	}
	if a.Key == "" {
		return ""
	}
	return " " + group + a.Key + "=" + Shown(v.String())
}

// NewPacketLogger makes the log of --log-packets. Packets come at debug level;
// whoever asked for them sees them at any --log-level, as plain lines.
func NewPacketLogger(w io.Writer, program, format string) *slog.Logger {
	return slog.New(asNotice{NewLogger(w, program, format, slog.LevelInfo).Handler()})
}

// asNotice passes every record on as one of level info.
type asNotice struct{ slog.Handler }

func (asNotice) Enabled(context.Context, slog.Level) bool { return true }

func (h asNotice) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelInfo
	return h.Handler.Handle(ctx, r)
}
