package netstack

import (
	"testing"
	"time"

	"sbxnet/netstack/header"
	"sbxnet/netstack/timer"
)

func TestAdvertisementSaysWhetherThereIsDHCPv6(t *testing.T) {
	for _, want := range []bool{false, true} {
		l := newLab(t, func(c *Config) { c.RouterAdvertisement.Managed, c.RouterAdvertisement.Other = want, want })
		l.in(solicitRouter("::", header.MAC{}))
		h, _, ok := header.ParseRouterAdvertisement(header.ICMPv6(l.out()[0][14+40:]))
		if !ok || h.Managed() != want || h.OtherConfig() != want {
			t.Errorf("managed %v, other %v, want %v", h.Managed(), h.OtherConfig(), want)
		}
	}
}

func TestFirstUnaskedAdvertisementsComeCloserTogether(t *testing.T) {
	l := newLab(t, func(c *Config) { c.RouterAdvertisement.Interval = 600 * time.Second })
	l.pass(33 * time.Second)
	if n := len(l.out()); n != 3 {
		t.Errorf("%d advertisements in the first half minute", n)
	}
	l.pass(400 * time.Second)
	l.expect()
	l.pass(200 * time.Second)
	if n := len(l.out()); n != 1 {
		t.Errorf("%d advertisements in the next ten minutes", n)
	}
}

func TestAdvertisementTimesAreKeptInTheirBounds(t *testing.T) {
	for _, c := range []struct{ interval, lifetime, wantInterval, wantLifetime time.Duration }{
		{time.Second, time.Second, 4 * time.Second, 12 * time.Second},
		{time.Hour, 0, 1800 * time.Second, 5400 * time.Second},
		{0, 60 * time.Second, 0, 60 * time.Second},
	} {
		l := newLab(t, func(cfg *Config) {
			cfg.RouterAdvertisement.Interval, cfg.RouterAdvertisement.Lifetime = c.interval, c.lifetime
		})
		if r := l.cfg.RouterAdvertisement; r.Interval != c.wantInterval || r.Lifetime != c.wantLifetime {
			t.Errorf("interval %v, lifetime %v: have %v, %v", c.interval, c.lifetime, r.Interval, r.Lifetime)
		}
	}
}

// A host that was told of a router must not lose it, and one that was
// configured otherwise must not cost anything.
func TestWhatAHostWasToldIsRenewedOnlyIfItAsked(t *testing.T) {
	l := newLab(t, nil)
	if at := l.NextDeadline(); at != timer.Never {
		t.Fatalf("wakes up at %v though nobody asked", at)
	}
	l.in(solicitRouter("::", header.MAC{}))
	l.out()
	for range 3 {
		l.pass(600 * time.Second) // a third of the lifetime
		if n := len(l.out()); n < 1 || n > 2 {
			t.Fatalf("%d advertisements in ten minutes", n)
		}
	}
}
