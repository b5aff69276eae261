package netstack

import (
	"net/netip"
	"testing"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/header"
)

func TestImpossibleConfigurationsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no MAC":                       func(c *Config) { c.HardwareAddr = header.MAC{} },
		"group as MAC":                 func(c *Config) { c.HardwareAddr = header.Broadcast },
		"no batch":                     func(c *Config) { c.Output = nil },
		"MTU too small":                func(c *Config) { c.MTU, c.Addresses = 575, c.Addresses[:2] },
		"MTU too large":                func(c *Config) { c.MTU = 65536 },
		"MTU too small for IPv6":       func(c *Config) { c.MTU = 1279 },
		"loopback address":             func(c *Config) { c.Addresses[0] = netip.MustParsePrefix("127.0.0.1/8") },
		"group address":                func(c *Config) { c.Addresses[0] = netip.MustParsePrefix("224.0.0.1/8") },
		"mapped address":               func(c *Config) { c.Addresses[0] = netip.PrefixFrom(ip("::ffff:10.0.2.2"), 120) },
		"no address":                   func(c *Config) { c.Addresses[0] = netip.Prefix{} },
		"next hop of the other family": func(c *Config) { c.NextHop4 = ip("fd00::100") },
		"IPv6 next hop that is IPv4":   func(c *Config) { c.NextHop6 = ip("10.0.2.100") },
		"neighbor without MAC":         func(c *Config) { c.Neighbors[0].MAC = header.MAC{} },
	} {
		c := labConfig()
		c.Output = &frame.Batch{}
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c := labConfig()
	c.Output, c.MTU, c.Addresses = &frame.Batch{}, 576, c.Addresses[:2]
	if _, err := New(c); err != nil {
		t.Errorf("the smallest MTU for IPv4: %v", err)
	}
}
