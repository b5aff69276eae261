package slirp4netns

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd"
	"sbxnet/portfwd/dhcp"
	"sbxnet/userns"
)

// A session is a namespace that has its network.
type session struct {
	log        *slog.Logger
	attachment *userns.Attachment // nil for a TAP of the caller's
	network    *network.Network
	api        *api // nil without --api-socket
}

// start brings everything up on what was reached, so that the caller may be told.
// After an error nothing is left.
func start(o *options, r reached) (_ *session, err error) {
	log := r.log
	s := &session{log: log, attachment: r.attachment}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	l, err := o.link(r.attachment)
	if err != nil {
		return nil, err
	}
	if s.network, err = network.Start(o.networkConfig(l, log)); err != nil {
		return nil, err
	}
	if o.APISocket != "" {
		p := o.plan()
		a := &api{ports: published{s.network.Ports()}, guest4: p.V4.Sandbox, guest6: p.V6.Sandbox, log: log}
		if err := a.listen(o.APISocket); err != nil {
			return nil, err
		}
		s.api = a
		s.leaveNoSocket(o.APISocket)
		go a.serve()
	}
	o.confine(r.ownMounts, log)
	return s, nil
}

// leaveNoSocket has the process inside remove the API's socket if we are killed,
// as RootlessKit does to end us. Where that cannot be, the next start replaces
// the socket.
func (s *session) leaveNoSocket(path string) {
	if s.attachment == nil {
		return
	}
	absolute, err := filepath.Abs(path)
	if err == nil {
		err = s.attachment.Remove(absolute)
	}
	if err != nil {
		s.log.Warn("the API socket " + path + " stays if this process is killed: " + err.Error())
	}
}

// advertiseEvery is the longest time between router advertisements, which the
// addresses that guests form from them outlive by far.
const advertiseEvery = 10 * time.Minute

func (o *options) networkConfig(l link, log *slog.Logger) network.Config {
	l.Info.MTU = o.MTU // what frames are read with; see linkOptions
	return network.Config{
		Info: l.Info, Files: l.Files, HardwareAddr: l.HardwareAddr,
		Plan: o.plan(), MTU: o.MTU,
		DNS: network.DNS{None: !o.DNS},
		Forward: portfwd.Config{
			HostMappings:       o.mappings(),
			GatewayUnreachable: !o.HostLoopback,
			Silent:             o.silent(),
			Outbound4:          portfwd.Outbound{Addr: o.Outbound4},
			Outbound6:          portfwd.Outbound{Addr: o.Outbound6},
			Autoconf: portfwd.Autoconf{
				IPv4: dhcp.Range{First: at(o.CIDR, dhcpFirstOffset), Last: at(o.CIDR, dhcpLastOffset)},
				// An interface that we configured has its address.
				FormAddresses:  !o.Configure,
				AdvertiseEvery: advertiseEvery,
			},
		},
		Log: log,
	}
}

// wait returns when the session is to end: with the signal that says so, or nil
// where the caller has hung up or the namespace has gone.
func (s *session) wait(hungUp <-chan struct{}, signals <-chan os.Signal) os.Signal {
	var gone <-chan struct{}
	if s.attachment != nil {
		gone = s.attachment.Done()
	}
	select {
	case sig := <-signals:
		return sig
	case <-hungUp:
	case <-gone:
	case <-s.network.Done():
	}
	return nil
}

// lastWords bounds how long what the namespace's processes sent before they ended
// may take to get out.
const lastWords = 3 * time.Second

// drain lets that out, until a signal says that there is no time. Ports are free
// and the API is gone by then: a container that is being started again is not
// to wait for its predecessor.
func (s *session) drain(signals <-chan os.Signal) {
	if err := s.withdraw(); err != nil {
		s.log.Warn(err.Error())
	}
	enough := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(enough)
		select {
		case <-done:
		case <-signals:
		case <-time.After(lastWords):
		}
	}()
	s.network.Drain(lastWords, enough)
	close(done)
}

// withdraw ends the API and frees all ports.
func (s *session) withdraw() error {
	var errs []error
	if s.api != nil {
		errs = append(errs, s.api.close())
		s.api = nil
	}
	var ids []int
	for _, e := range s.network.Ports().List() {
		ids = append(ids, e.ID)
	}
	return errors.Join(append(errs, s.network.Ports().Remove(ids...))...)
}

// close ends what is there.
func (s *session) close() error {
	var errs []error
	if s.network != nil {
		errs = append(errs, s.network.Close())
	}
	if s.api != nil {
		errs = append(errs, s.api.close())
	}
	if s.attachment != nil {
		errs = append(errs, s.attachment.Close())
	}
	return errors.Join(errs...)
}
