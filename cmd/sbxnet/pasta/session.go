package pasta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/userns"
)

// A session is the network of one namespace while it is there.
type session struct {
	options   *options
	log       *slog.Logger
	plan      *plan
	wildcards []netip.Addr
	bound     []spec.Bound // until network has them
	network   *network.Network
	exits     *exits // nil: no port leads out
	// attachment where the namespaces are somebody else's, sandbox where they are
	// ours, and both where the link is left to others to configure.
	attachment *userns.Attachment
	sandbox    *userns.Sandbox
	inside     inside
	// undo closes, last first, what was opened.
	undo []func() error
}

// inside is the process of ours in the namespace: *userns.Attachment or
// *userns.Sandbox.
type inside interface {
	Listen([]userns.Socket) ([]*os.File, error)
	Remove(paths ...string) error
	Sockets(v6 bool, n int) ([]*os.File, error)
}

// logLevel is how much is said: nothing that is not wrong, unless asked for.
func (o *options) logLevel() slog.Level {
	switch {
	case o.Debug:
		return slog.LevelDebug
	case o.Quiet:
		return slog.LevelError
	}
	return slog.LevelWarn
}

func newLog(w io.Writer, o *options) *slog.Logger {
	return console.NewLogger(w, "pasta", "text", o.logLevel())
}

// open brings everything up but the command. On an error it has undone what it
// did.
func open(o *options, log *slog.Logger) (_ *session, err error) {
	s := &session{options: o, log: log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, step := range []func() error{s.choose, s.bind, s.enter, s.connect, s.openOutlets, s.follow, s.listen, s.writePID} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *session) onClose(f func() error) { s.undo = append(s.undo, f) }

// close ends what is still there. The host's ports are free when it returns.
func (s *session) close() error {
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i]())
	}
	s.undo = nil
	return errors.Join(errs...)
}

func (s *session) choose() (err error) {
	s.plan, err = planFor(s.options)
	if err == nil {
		s.log.Debug("sandbox: " + s.plan.describe())
	}
	return err
}

// The pasta of a container that has been stopped a moment ago may not have seen
// it yet, on a busy machine: a port that is taken is tried for this long, more and
// more seldom, for saying who has it means looking at every process.
const (
	bindPatience             = 2 * time.Second
	bindRetry, bindRetrySlow = 20 * time.Millisecond, 160 * time.Millisecond
)

func (s *session) bind() (err error) {
	s.wildcards = wildcardsFor(s.options)
	deadline := time.Now().Add(bindPatience)
	for retry := bindRetry; ; retry = min(2*retry, bindRetrySlow) {
		s.bound, err = bindRules(s.options, s.wildcards)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			break
		}
		time.Sleep(retry)
	}
	s.onClose(func() error { spec.CloseAll(s.bound); return nil })
	return err
}

// enter makes a link in the namespace of the options, or in one of our own.
func (s *session) enter() error {
	o := s.options
	if o.attaches() {
		return s.attach(o.PID)
	}
	// The first process of a sandbox makes and configures its link. To make one
	// that is left to others to configure, somebody attaches.
	if o.Configure {
		return s.startSandbox(userns.NetworkSandbox)
	}
	if err := s.startSandbox(userns.NetworkNone); err != nil {
		return err
	}
	return s.attach(s.sandbox.PID())
}

// attach makes the link in a namespace that is there.
func (s *session) attach(pid int) error {
	o := s.options
	c := userns.AttachConfig{
		PID: pid, NetNS: o.NetNS, UserNS: o.UserNS, NetNSOnly: o.NetNSOnly,
		Link: s.plan.link(), Configure: o.Configure, Log: s.log,
	}
	if o.Configure {
		c.Addresses, c.Gateways = s.plan.inside()
	}
	a, err := userns.Attach(c)
	if err != nil {
		return err
	}
	s.attachment, s.inside = a, a
	s.onClose(a.Close)
	return nil
}

// startSandbox makes namespaces, with the command waiting in them.
func (s *session) startSandbox(mode userns.Mode) error {
	o := s.options
	c := userns.Config{
		Command: o.Command, Hostname: o.Hostname, Link: s.plan.link(), Log: s.log,
		Network: mode, PIDNamespace: true, UTSNamespace: true, IPCNamespace: true, NetRaw: true,
	}
	if mode == userns.NetworkSandbox {
		c.Addresses, c.Gateways = s.plan.inside()
	}
	sb, err := userns.Start(c)
	if err != nil {
		return err
	}
	s.sandbox, s.inside = sb, sb
	s.onClose(sb.Close)
	return nil
}

// connect starts the stack on the link.
func (s *session) connect() error {
	c := s.plan.network(s.options)
	var info tapdev.Info
	if s.attachment != nil {
		info, c.Files = s.attachment.Link()
	} else {
		info, c.Files = s.sandbox.Link()
	}
	c.Info, c.Log, c.Published = info, s.log, s.bound
	s.bound = nil
	if !s.options.NoSplice {
		c.Sockets = s.inside.Sockets
	}
	n, err := network.Start(c)
	if err != nil {
		return err
	}
	s.network = n
	s.onClose(n.Close)
	return nil
}

// pid is a process in the namespace.
func (s *session) pid() int {
	if s.sandbox != nil {
		return s.sandbox.PID()
	}
	if pid := s.attachment.PID(); pid != 0 {
		return pid
	}
	return s.options.PID
}

func (s *session) table() *table {
	return &table{ports: s.network.Ports(), wildcards: s.wildcards, freebind: s.options.Freebind}
}

// follow has published, and led out, what listens already when it returns.
func (s *session) follow() error {
	var looks []func(time.Time)
	if f := newFollower(s.options, s.table(), s.pid, s.log); f.needed() {
		f.exits = s.exits
		looks = append(looks, f.look)
	}
	if s.options.followsOut() {
		looks = append(looks, newOutFollower(s.options, s.exits, s.table(), s.log).look)
	}
	if len(looks) > 0 {
		stop := lookOften(looks...)
		s.onClose(func() error { stop(); return nil })
	}
	return nil
}

// listen opens the socket for pesto.
func (s *session) listen() error {
	if s.options.Control == "" {
		return nil
	}
	c, err := listenControl(s.options.Control, s.table(), s.log)
	if err != nil {
		return fmt.Errorf("--conf-path %s: %w", console.Shown(s.options.Control), err)
	}
	s.onClose(c.Close)
	s.goesWithUs(c.path)
	return nil
}

// writePID writes the file of --pid, which goes with us.
func (s *session) writePID() error {
	name := s.options.PIDFile
	if name == "" {
		return nil
	}
	text := fmt.Sprintf("%d\n", os.Getpid())
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return fmt.Errorf("PID file %w", err)
	}
	s.goesWithUs(name)
	s.onClose(func() error {
		if b, err := os.ReadFile(name); err == nil && string(b) == text {
			os.Remove(name)
		}
		return nil
	})
	return nil
}

// goesWithUs has a file that we made removed should we be killed, by our process
// in the namespace. Not what a name such as /dev/stdout leads to.
func (s *session) goesWithUs(name string) {
	st, err := os.Lstat(name)
	if err == nil && (st.Mode().IsRegular() || st.Mode().Type() == os.ModeSocket) {
		err = s.inside.Remove(name)
	}
	if err != nil {
		s.log.Debug(err.Error())
	}
}

// wait returns when the namespace has gone, or its link, or we are told to end.
func (s *session) wait(signals <-chan os.Signal) error {
	gone := s.attachment.Done()
	if s.options.NoQuit {
		gone = nil
	}
	select {
	case <-gone:
		s.log.Debug("the namespace has gone")
	case <-s.network.Done():
		s.log.Debug("the link has gone")
	case sig := <-signals:
		s.log.Debug("told to end", "signal", sig.String())
	}
	return s.close()
}

// endings are the signals that end us in order. It is called before there is
// anything to end.
func endings() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(c, sig)
		}
	}
	return c
}

// runForeground gives a namespace its network until that goes.
func runForeground(o *options, stderr io.Writer) error {
	signals := endings()
	w, err := o.logWriter(stderr)
	if err != nil {
		return err
	}
	defer w.Close()
	s, err := open(o, newLog(w, o))
	if err != nil {
		return err
	}
	return s.wait(signals)
}

// drainStall is how long what the command sent may rest on its way out, after
// the command has ended, before it is given up.
const drainStall = 3 * time.Second

// runCommand runs a command in new namespaces and returns its status.
func runCommand(o *options, stderr io.Writer) (int, error) {
	w, err := o.logWriter(stderr)
	if err != nil {
		return exitFailure, err
	}
	defer w.Close()
	s, err := open(o, newLog(w, o))
	if err != nil {
		return exitFailure, err
	}
	defer s.close()
	defer s.sandbox.ForwardSignals()()
	if err := s.sandbox.Exec(); err != nil {
		return exitFailure, err
	}
	status, err := s.sandbox.Wait()
	if err != nil {
		return exitFailure, err
	}
	impatient, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s.network.Drain(drainStall, impatient.Done())
	return status, s.close()
}
