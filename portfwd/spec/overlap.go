package spec

import (
	"fmt"
	"net/netip"
)

// Check reports the first two specs that cannot both be published: they want
// the same port of the same host address, where 0.0.0.0 and :: are every
// address of their family, or they say the same thing twice.
func Check(specs []Spec) error {
	for i, s := range specs {
		for _, earlier := range specs[:i] {
			if err := conflict(earlier, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func conflict(a, b Spec) error {
	if a == b {
		return fmt.Errorf("-p %s: given twice: write it once", b)
	}
	if a.Protocol != b.Protocol || (a.HostPort == 0) != (b.HostPort == 0) || apart(a, b) {
		return nil
	}
	address, shared := sharedAddress(a, b)
	if !shared {
		return nil
	}
	if a.HostPort == 0 {
		// Two free host ports never collide, but two of them for one sandbox
		// port and one address are the same wish twice.
		if port, ok := sharedPort(a.Port, a.Count, b.Port, b.Count); ok {
			return fmt.Errorf("-p %s: port %d is already published on a free port of %s by -p %s: take it out of one of them",
				b, port, address, a)
		}
		return nil
	}
	if port, ok := sharedPort(a.HostPort, a.Count, b.HostPort, b.Count); ok {
		return fmt.Errorf("-p %s: host port %s/%s is already taken by -p %s: choose another host port",
			b, netip.AddrPortFrom(address, port), b.Protocol, a)
	}
	return nil
}

// apart reports whether the two have no client in common, since each comes in by
// an interface of its own, or, on free ports, no server.
func apart(a, b Spec) bool {
	if a.Interface != b.Interface && a.Interface != "" && b.Interface != "" {
		return true
	}
	return a.HostPort == 0 && a.Child != b.Child
}

// sharedAddress returns the narrowest host address on which both would listen.
func sharedAddress(a, b Spec) (netip.Addr, bool) {
	for _, x := range a.Addresses() {
		for _, y := range b.Addresses() {
			switch {
			case x.Is4() != y.Is4():
			case x == y, x.IsUnspecified():
				return y, true
			case y.IsUnspecified():
				return x, true
			}
		}
	}
	return netip.Addr{}, false
}

// sharedPort returns the lowest port that lies in both ranges.
func sharedPort(a uint16, aCount int, b uint16, bCount int) (uint16, bool) {
	first := max(int(a), int(b))
	end := min(int(a)+aCount, int(b)+bCount)
	return uint16(first), first < end
}
