package netstack

import (
	"net/netip"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

// minRAInterval is the least time between advertisements to everyone (RFC 4861
// §10, MIN_DELAY_BETWEEN_RAS).
const minRAInterval = 3 * time.Second

// What MaxRtrAdvInterval may be (RFC 4861 §6.2.1), and the first advertisements,
// which come closer together (§6.2.4).
const (
	minRAIntervalMax = 4 * time.Second
	maxRAIntervalMax = 1800 * time.Second
	initialRAs       = 3
	initialInterval  = 16 * time.Second
)

// inputRouterSolicitation answers a host that looks for its network (RFC 4861
// §6.2.6): to itself, or to everyone if it has no address yet.
func (s *Stack) inputRouterSolicitation(p *packet, m header.ICMPv6) bool {
	options, ok := header.ParseRouterSolicitation(m)
	if !ok {
		return false
	}
	mac, hasMAC := options.LinkAddress(header.NDPSourceLinkAddress)
	if p.src.IsUnspecified() && hasMAC {
		return false // RFC 4861 §6.1.1
	}
	if s.cfg.RouterAdvertisement.Disabled || !s.linkLocal.IsValid() {
		return true
	}
	if p.src.IsUnspecified() {
		s.advertiseToAll()
		s.keepAdvertised()
		return true
	}
	if hasMAC && mac.IsUnicast() && s.plausibleNeighbor(p.src) {
		s.nd.Heard(s.now, p.src, mac)
	}
	s.sendRouterAdvertisement(p.src)
	s.keepAdvertised()
	return true
}

// keepAdvertised sees to it that what a host has been told does not run out.
func (s *Stack) keepAdvertised() {
	if _, armed := s.advertise.Armed(); !armed {
		s.timers.Arm(&s.advertise, s.now.Add(s.cfg.RouterAdvertisement.Lifetime/3))
	}
}

// advertiseToAll keeps the least interval: who asks in between is served by the
// advertisement just sent.
func (s *Stack) advertiseToAll() {
	if s.now.Before(s.nextRA) {
		return
	}
	s.nextRA = s.now.Add(minRAInterval)
	s.sendRouterAdvertisement(header.AllNodes)
}

// advertiseUnasked sends an advertisement and sets the clock for the next: at
// 0.75 to 1.0 of the interval, so that routers do not fall into step (RFC 4861
// §6.2.4).
func (s *Stack) advertiseUnasked(now timer.Instant) {
	s.advertiseToAll()
	interval := s.cfg.RouterAdvertisement.Interval
	if interval == 0 {
		interval = s.cfg.RouterAdvertisement.Lifetime / 3
	} else if s.unasked++; s.unasked < initialRAs {
		interval = min(interval, initialInterval)
	}
	s.timers.Arm(&s.advertise, now.Add(max(minRAInterval, interval-s.jitter(interval/4))))
}

func (s *Stack) jitter(d time.Duration) time.Duration {
	return time.Duration(s.rand.Int64N(int64(d) + 1))
}

func (s *Stack) sendRouterAdvertisement(to netip.Addr) {
	c := s.cfg.RouterAdvertisement
	fields := header.RouterAdvertisementFields{
		HopLimit: defaultTTL, Managed: c.Managed, OtherConfig: c.Other, Lifetime: c.Lifetime, MTU: uint32(s.cfg.MTU),
		DNSServers: c.DNS, DNSLifetime: c.Lifetime, LinkAddress: s.cfg.HardwareAddr,
	}
	fields.Prefix = header.PrefixInformation{ // linkLocal is valid, so there is one
		Prefix: s.prefixes6[0], OnLink: true, Autonomous: c.Autonomous, Valid: c.Lifetime, Preferred: c.Lifetime}
	b := make([]byte, fields.Len())
	header.PutRouterAdvertisement(b, &fields, s.linkLocal, to)
	s.sendND(b, s.linkLocal, to)
	s.stats.RouterAdvertisementsOut++
}
