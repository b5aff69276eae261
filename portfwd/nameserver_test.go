package portfwd

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"sbxnet/portfwd/dns"
)

func TestNamesAreServedOverBothFamiliesAndProtocols(t *testing.T) {
	server := dns.New(dns.Config{Gateway4: netip.MustParseAddr(gateway4), Gateway6: netip.MustParseAddr(gateway6)})
	defer server.Close()
	w := newWorld(t, withConfig(func(c *Config) { c.Nameserver = server }))
	for _, address := range []string{"10.0.2.3:53", "[fd00::3]:53"} {
		for _, network := range []string{"udp", "tcp"} {
			r := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				return w.dial(network, address)
			}}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			got, err := r.LookupHost(ctx, "host.sbxnet.internal")
			cancel()
			if err != nil || len(got) != 2 {
				t.Errorf("%s over %s: %v, %v", address, network, got, err)
			}
		}
	}
}

func TestOtherPortsOfTheNameServerAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, address := range []string{"10.0.2.3:53", "10.0.2.3:80", "[fd00::3]:53"} {
		if _, err := w.dial("tcp", address); err == nil {
			t.Errorf("%s: connected", address)
		}
	}
}
