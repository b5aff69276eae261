package spec

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// The addresses are for documentation (RFC 5737, RFC 3849): no host has them.
func TestFreebindListensOnAnAddressThatIsNotThereYet(t *testing.T) {
	for _, a := range []string{"192.0.2.201", "2001:db8::c9"} {
		for _, p := range []Protocol{TCP, UDP} {
			s := Spec{Protocol: p, HostIP: netip.MustParseAddr(a), Port: 80, Count: 1}
			bound, err := Bind([]Spec{s})
			CloseAll(bound)
			if !errors.Is(err, unix.EADDRNOTAVAIL) {
				if noIPv6(err) {
					continue
				}
				t.Errorf("%s/%s: %v", a, p, err)
			}
			s.Freebind = true
			bound, err = Bind([]Spec{s})
			if err != nil || len(bound) != 1 || bound[0].Host.Addr() != s.HostIP || bound[0].Host.Port() == 0 || bound[0].Spec != s {
				t.Errorf("%s/%s with Freebind: %+v, %v", a, p, bound, err)
			}
			CloseAll(bound)
		}
	}
}
