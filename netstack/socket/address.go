package socket

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// endpoint is an address as a caller named it: the zero Addr means that there
// was no host, any address of the network's families.
type endpoint struct {
	addr netip.Addr
	port uint16
}

// resolve reads an address of the given network: tcp, udp, or either with 4 or 6
// at the end, of the protocol that is asked for.
func resolve(protocol, network, address string) (endpoint, error) {
	family, ok := strings.CutPrefix(network, protocol)
	if !ok || family != "" && family != "4" && family != "6" {
		return endpoint{}, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return endpoint{}, err
	}
	port, err := net.LookupPort(network, service)
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{port: uint16(port)}
	if host == "" {
		return e, nil
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return endpoint{}, &net.AddrError{Err: "not an IP address, and the stack resolves no names", Addr: address}
	}
	// There is one link, so a zone says nothing.
	e.addr = a.Unmap().WithZone("")
	if family == "4" && !e.addr.Is4() || family == "6" && e.addr.Is4() {
		return endpoint{}, &net.AddrError{Err: fmt.Sprintf("not an address of %s", network), Addr: address}
	}
	return e, nil
}

// remote is the endpoint as somewhere to connect to: no host means ourselves in
// package net, which a stack without a loopback has no use for.
func (e endpoint) remote() (netip.AddrPort, error) {
	if !e.addr.IsValid() || e.addr.IsUnspecified() || e.port == 0 {
		return netip.AddrPort{}, &net.AddrError{Err: "not a destination", Addr: netip.AddrPortFrom(e.addr, e.port).String()}
	}
	return netip.AddrPortFrom(e.addr, e.port), nil
}

// locals is the endpoint as somewhere to be bound to: one address, or the
// unspecified one of each family of the network.
func (e endpoint) locals(network string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range e.addresses(network) {
		out = append(out, netip.AddrPortFrom(a, e.port))
	}
	return out
}

func (e endpoint) addresses(network string) []netip.Addr {
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	switch {
	case e.addr.IsValid() && (e.addr != v6 || network[len(network)-1] == '6'):
		return []netip.Addr{e.addr}
	case strings.HasSuffix(network, "4"):
		return []netip.Addr{v4}
	case strings.HasSuffix(network, "6"):
		return []netip.Addr{v6}
	}
	return []netip.Addr{v6, v4} // like a dual-stack socket
}

// netAddr is an address as package net has it; nil for the zero AddrPort.
func netAddr(network string, a netip.AddrPort) net.Addr {
	switch {
	case !a.IsValid():
		return nil
	case strings.HasPrefix(network, "udp"):
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

// toAddrPort reads an address that a caller of WriteTo gave.
func toAddrPort(a net.Addr) (netip.AddrPort, error) {
	u, ok := a.(*net.UDPAddr)
	if !ok || u == nil {
		return netip.AddrPort{}, &net.AddrError{Err: "not a UDP address", Addr: fmt.Sprint(a)}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), nil
}
