package spec

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseAll reads the values of all -p flags and checks them against each other
// with [Check]. Its error is one line that names the flag, the value, what is
// wrong with it and what to write instead.
func ParseAll(values []string) ([]Spec, error) {
	specs := make([]Spec, 0, len(values))
	for _, v := range values {
		s, err := Parse(v)
		if err != nil {
			return nil, err
		}
		specs = append(specs, s)
	}
	return specs, Check(specs)
}

// Parse reads one value of -p:
//
//	[HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|/udp]
//
// An IPv6 HOSTIP stands in brackets. An empty HOSTPORT between two colons is
// the same as none. The error is as in [ParseAll].
func Parse(value string) (Spec, error) {
	s, wrong := parse(value)
	if wrong != nil {
		return Spec{}, fmt.Errorf("-p %s: %w", shown(value), wrong)
	}
	return s, nil
}

func parse(value string) (Spec, error) {
	ports, proto, err := cutProtocol(value)
	if err != nil {
		return Spec{}, err
	}
	host, ports, err := cutHost(ports)
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Protocol: proto}
	if host != "" {
		if s.HostIP, err = parseHostIP(host); err != nil {
			return Spec{}, err
		}
	}
	hostPorts, ports, found := strings.Cut(ports, ":")
	if !found {
		hostPorts, ports = "", hostPorts
	}
	if s.Port, s.Count, err = parseRange("port", ports); err != nil {
		return Spec{}, err
	}
	if hostPorts == "" {
		return s, nil
	}
	return withHostPorts(s, hostPorts)
}

// withHostPorts adds the host's ports to a spec that is complete but for them.
func withHostPorts(s Spec, text string) (Spec, error) {
	if strings.Trim(text, "0") == "" {
		return Spec{}, fmt.Errorf("host port 0 is not a port: leave it out to get a free one: -p %s", s)
	}
	first, count, err := parseRange("host port", text)
	if err != nil {
		return Spec{}, err
	}
	if count != s.Count {
		return Spec{}, fmt.Errorf("%s on the host, but %s in the sandbox: make the ranges equally long, or leave the host's out: -p %s",
			counted(count), counted(s.Count), s)
	}
	s.HostPort = first
	return s, nil
}

func counted(n int) string {
	if n == 1 {
		return "1 port"
	}
	return strconv.Itoa(n) + " ports"
}

// cutProtocol takes /tcp or /udp off the end.
func cutProtocol(value string) (rest string, p Protocol, err error) {
	rest, name, found := strings.Cut(value, "/")
	if rest == "" {
		return "", "", fmt.Errorf("no port: write PORT or HOSTPORT:PORT, such as -p 8080:80")
	}
	if !found {
		return rest, TCP, nil
	}
	switch p = Protocol(strings.ToLower(name)); p {
	case TCP, UDP:
		return rest, p, nil
	}
	return "", "", fmt.Errorf("unknown protocol %s: write /tcp or /udp after the port, or nothing for tcp", shown(name))
}

// cutHost takes the host address, without its brackets, off the front. An empty
// host means that there was none.
func cutHost(value string) (host, rest string, err error) {
	if strings.HasPrefix(value, "[") {
		return cutBrackets(value)
	}
	switch colons := strings.Count(value, ":"); {
	case colons > 2:
		return "", "", fmt.Errorf("too many colons: write an IPv6 address in brackets, such as -p [::1]:8080:80")
	case strings.HasPrefix(value, ":"):
		return "", "", fmt.Errorf("nothing before the first colon: write -p %s", shown(strings.TrimLeft(value, ":")))
	case colons == 0:
		return "", value, nil
	case colons == 1:
		first, last, _ := strings.Cut(value, ":")
		if looksLikePorts(first) {
			return "", value, nil
		}
		return first, last, nil
	}
	host, rest, _ = strings.Cut(value, ":")
	return host, rest, nil
}

func cutBrackets(value string) (host, rest string, err error) {
	host, rest, found := strings.Cut(value[1:], "]")
	if !found {
		return "", "", fmt.Errorf("no closing bracket: write the IPv6 address like -p [::1]:8080:80")
	}
	if host == "" {
		return "", "", fmt.Errorf("no address in the brackets: write -p [::]:8080:80 for all of the host's IPv6 addresses")
	}
	rest, found = strings.CutPrefix(rest, ":")
	if !found || rest == "" {
		return "", "", fmt.Errorf("no port after the address: write -p [%s]:8080:80", shown(host))
	}
	if strings.Count(rest, ":") > 1 {
		return "", "", fmt.Errorf("too many colons after the address: write -p [%s]:8080:80", shown(host))
	}
	if !strings.Contains(host, ":") {
		return "", "", fmt.Errorf("%s is not an IPv6 address: brackets are for those: write the value without them", shown(host))
	}
	return host, rest, nil
}

// looksLikePorts tells a port from an address by what it is made of, so that
// a mistyped port is called a port in the error.
func looksLikePorts(s string) bool { return strings.Trim(s, "0123456789-+") == "" }

// What interface names are made of in practice. The kernel allows more, but
// nothing that should be printed.
const zoneLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@"

func parseHostIP(host string) (netip.Addr, error) {
	if looksLikePorts(host) {
		return netip.Addr{}, fmt.Errorf("%s is not a host address: three parts are HOSTIP:HOSTPORT:PORT, such as -p 127.0.0.1:8080:80", shown(host))
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%s is not an IP address: write one of the host's addresses, such as -p 127.0.0.1:8080:80", shown(host))
	case strings.Trim(a.Zone(), zoneLetters) != "":
		return netip.Addr{}, fmt.Errorf("%s is not the name of a network interface: write one after the %%, such as -p [fe80::1%%eth0]:8080:80", shown(a.Zone()))
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%s is an IPv4 address in IPv6's form: write it as %s", host, a.Unmap())
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("%s is not an address that a host has: write one of the host's own, or leave it out for its loopback", host)
	}
	return a, nil
}

// parseRange reads PORT or PORT-END.
func parseRange(what, text string) (first uint16, count int, err error) {
	from, to, isRange := strings.Cut(text, "-")
	first, err = parsePort(what, from)
	if err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, 1, nil
	}
	last, err := parsePort(what, to)
	if err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("%s range %s ends before it begins: write %d-%d", what, text, last, first)
	}
	return first, int(last) - int(first) + 1, nil
}

func parsePort(what, text string) (uint16, error) {
	if text == "" {
		return 0, fmt.Errorf("no %s: write a number from 1 to 65535, such as -p 8080:80", what)
	}
	if strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%s %s is not a number: write one from 1 to 65535", what, shown(text))
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s %s is out of range: write a number from 1 to 65535", what, shown(text))
	}
	return uint16(n), nil
}

// shown is what the user typed, fit for one line of an error.
func shown(text string) string {
	const most = 64
	if len(text) > most {
		text = text[:most] + "…"
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd || !strconv.IsPrint(r) }) < 0 {
		return text
	}
	return strconv.Quote(text)
}
