package outlet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
)

// accept takes connections until the listener is closed.
func (o *Outlets) accept(l net.Listener, to netip.AddrPort) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return
		default: // no descriptor, no memory
			o.rest()
			continue
		}
		inside, ok := c.(*net.TCPConn)
		if !ok || !enter(o.connections) {
			reset(c)
			continue
		}
		o.running.Go(func() {
			defer func() { <-o.connections }()
			o.relay(inside, to)
		})
	}
}

// relay connects on the host and copies until both directions have ended.
func (o *Outlets) relay(inside *net.TCPConn, to netip.AddrPort) {
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.Limits.Connect)
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	cancel()
	if err != nil {
		o.cfg.Logger.Debug("outlet", slog.String("client", inside.RemoteAddr().String()), slog.Any("error", err))
		reset(inside)
		return
	}
	outside := c.(*net.TCPConn)
	stop := context.AfterFunc(o.ctx, func() { reset(inside); reset(outside) })
	defer stop()
	back := make(chan error, 1)
	go func() { back <- pass(inside, outside) }()
	err = errors.Join(pass(outside, inside), <-back)
	if err == nil {
		inside.Close()
		outside.Close()
	}
}

// pass copies one direction and its end. On an error both ends are reset, which
// ends the other direction as well.
func pass(to, from *net.TCPConn) error {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		reset(to)
		reset(from)
	}
	return err
}

// reset closes a connection with a RST, whatever it still holds.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
