package pasta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"sbxnet/cmd/sbxnet/console"
)

// Bounds of --mtu, in bytes: IPv4 must carry 576 (RFC 791), IPv6 1280
// (RFC 8200 §5).
const (
	minMTU, minMTU6 = 576, 1280
	maxMTU          = 65520
)

// Bounds of --log-size, in bytes.
const (
	minLogSize = 4 << 10
	maxLogSize = 1 << 30
)

// maxDNS and maxSearch bound lists that end up in messages to guests.
const (
	maxDNS    = 8
	maxSearch = 16
)

// takeAddressing applies the options that are about one family's addresses.
func (o *options) takeAddressing(name, value string) (err error) {
	switch name {
	case "address":
		return o.takeAddress(value)
	case "netmask":
		if o.V4.Bits, err = parseNetmask(value); err != nil {
			return refusef("Invalid netmask: %s", console.Shown(value))
		}
		return nil
	case "outbound-if4":
		o.V4.OutboundInterface = value
		return checkInterfaceName(value)
	case "outbound-if6":
		o.V6.OutboundInterface = value
		return checkInterfaceName(value)
	case "map-host-loopback", "map-guest-addr":
		return o.takeMapping(name, value)
	}
	what, ok := "gateway", acceptableGateway
	if name == "outbound" {
		what, ok = "or redundant outbound", acceptableOutbound
	}
	a, err := netip.ParseAddr(value)
	if err != nil || !ok(a) {
		return refusef("Invalid %s address: %s", what, console.Shown(value))
	}
	if f := o.family(a); name == "outbound" {
		f.Outbound = a
	} else {
		f.Gateway = a
	}
	return nil
}

// takeAddress reads ADDR or ADDR/BITS.
func (o *options) takeAddress(value string) error {
	text, length, hasLength := strings.Cut(value, "/")
	a, err := netip.ParseAddr(text)
	if err != nil || !acceptableSandbox(a) {
		return refusef("Invalid address: %s", console.Shown(value))
	}
	n := 0
	if hasLength {
		if n, err = strconv.Atoi(length); err != nil || n < 1 || n > a.BitLen() {
			return refusef("Invalid prefix length: %s", console.Shown(value))
		}
	}
	f := o.family(a)
	f.Address = a
	if n != 0 {
		f.Bits = n
	}
	return nil
}

// takeMapping reads the value of --map-host-loopback or --map-guest-addr, which
// "none" switches off for both families.
func (o *options) takeMapping(name, value string) error {
	loopback := name == "map-host-loopback"
	if value == "none" {
		for _, f := range []*familyOptions{&o.V4, &o.V6} {
			if loopback {
				f.LoopbackAt, f.NoLoopbackAt = netip.Addr{}, true
			} else {
				f.GuestAt = netip.Addr{}
			}
		}
		return nil
	}
	a, err := netip.ParseAddr(value)
	if err != nil || !acceptableMapping(a) {
		return refusef("Invalid address to remap to host: %s", console.Shown(value))
	}
	if f := o.family(a); loopback {
		f.LoopbackAt, f.NoLoopbackAt = a, false
	} else {
		f.GuestAt = a
	}
	return nil
}

// takeNames applies the options about DNS.
func (o *options) takeNames(name, value string) error {
	switch name {
	case "search":
		return o.takeSearch(value)
	case "hostname":
		o.Hostname = value
		return checkName("--hostname", value)
	case "fqdn":
		if err := checkName("--fqdn", value); err != nil {
			return err
		}
		_, o.Domain, _ = strings.Cut(value, ".")
		return nil
	}
	if name == "dns" && (value == "" || value == "none") {
		o.DNS = nil
		return nil
	}
	if name == "dns-forward" && value == "none" {
		o.V4.DNSForward, o.V6.DNSForward = netip.Addr{}, netip.Addr{}
		return nil
	}
	a, err := netip.ParseAddr(value)
	switch {
	case name == "dns-forward" && (err != nil || !acceptableMapping(a)):
		return refusef("Invalid DNS forwarding address: %s", console.Shown(value))
	case name == "dns-host" && (err != nil || a.IsUnspecified() || a.IsMulticast()):
		return refusef("Invalid host nameserver address: %s", console.Shown(value))
	case err != nil || a.IsUnspecified() || a.IsMulticast():
		return refusef("Cannot use DNS address %s", console.Shown(value))
	}
	switch name {
	case "dns-forward":
		o.family(a).DNSForward = a
	case "dns-host":
		o.DNSHost = a
	default:
		if len(o.DNS) == maxDNS {
			return refusef("Too many DNS addresses: %s; at most %d", console.Shown(value), maxDNS)
		}
		o.DNS = append(o.DNS, a)
	}
	return nil
}

func (o *options) takeSearch(value string) error {
	if value == "" || value == "none" {
		o.Search = nil
		return nil
	}
	for _, domain := range strings.Fields(value) {
		if err := checkName("Cannot use DNS search domain", domain); err != nil {
			return err
		}
		if len(o.Search) == maxSearch {
			return refusef("Too many DNS search domains: %s; at most %d", console.Shown(domain), maxSearch)
		}
		o.Search = append(o.Search, domain)
	}
	return nil
}

// checkName applies RFC 1035 §2.3.1 and §2.3.4, with a digit first (RFC 1123
// §2.1) and underscores, which are in use.
func checkName(what, name string) error {
	const maxName, maxLabel = 253, 63
	ok := len(name) <= maxName
	for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		ok = ok && label != "" && len(label) <= maxLabel
		for i := 0; i < len(label); i++ {
			c := label[i]
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' && i > 0)
		}
	}
	if !ok {
		return fmt.Errorf("%s %s: no domain name; write one like example.org", what, console.Shown(name))
	}
	return nil
}

// family is where an option about a belongs.
func (o *options) family(a netip.Addr) *familyOptions {
	if a.Is4() {
		return &o.V4
	}
	return &o.V6
}

// unusual reports addresses that no option takes.
func unusual(a netip.Addr) bool {
	return a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func acceptableGateway(a netip.Addr) bool  { return !unusual(a) && !a.IsLoopback() }
func acceptableMapping(a netip.Addr) bool  { return !unusual(a) && !a.IsLoopback() }
func acceptableOutbound(a netip.Addr) bool { return !unusual(a) }
func acceptableSandbox(a netip.Addr) bool {
	return !unusual(a) && !a.IsLoopback() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// hostPart is what an IPv4 address is within its subnet, and the largest such
// number there.
func hostPart(p netip.Prefix) (host, last uint32) {
	b := p.Addr().As4()
	return binary.BigEndian.Uint32(b[:]) << p.Bits() >> p.Bits(), 1<<(32-p.Bits()) - 1
}

// isBroadcast reports the address that means all of its subnet (RFC 1122
// §3.2.1.3; RFC 3021 for /31). All zeroes is a host to Linux.
func isBroadcast(p netip.Prefix) bool {
	if !p.Addr().Is4() || p.Bits() >= 31 {
		return false
	}
	host, last := hostPart(p)
	return host == last
}

// usableHost reports whether everybody takes a prefix's address for a host's.
func usableHost(p netip.Prefix) bool {
	if !p.Addr().Is4() || p.Bits() >= 31 {
		return true
	}
	host, last := hostPart(p)
	return host != 0 && host != last
}

// parseNetmask reads a netmask as 24, /24 or 255.255.255.0.
func parseNetmask(value string) (int, error) {
	if n, err := strconv.Atoi(strings.TrimPrefix(value, "/")); err == nil {
		if n < 1 || n > 32 {
			return 0, errors.New("outside 1 to 32")
		}
		return n, nil
	}
	a, err := netip.ParseAddr(value)
	if err != nil || !a.Is4() {
		return 0, errors.New("not a netmask")
	}
	b := a.As4()
	mask := binary.BigEndian.Uint32(b[:])
	n := bits.LeadingZeros32(^mask)
	if n == 0 || mask<<n != 0 {
		return 0, errors.New("not a netmask")
	}
	return n, nil
}

// parseMTU reads --mtu; 0 leaves the link's MTU to the kernel.
func parseMTU(value string) (int, error) {
	mtu, err := strconv.Atoi(value)
	if err != nil || mtu != 0 && (mtu < minMTU || mtu > maxMTU) {
		return 0, refusef("Invalid MTU: %s", console.Shown(value))
	}
	return mtu, nil
}

// parseMAC reads a unicast MAC address.
func parseMAC(value string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(value)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || [6]byte(mac) == ([6]byte{}) {
		return nil, refusef("Invalid MAC address: %s", console.Shown(value))
	}
	return mac, nil
}

// checkInterfaceName applies the kernel's rule (dev_valid_name).
func checkInterfaceName(name string) error {
	const maxName = 15
	bad := name == "" || len(name) > maxName || name == "." || name == ".."
	for i := 0; i < len(name); i++ {
		bad = bad || name[i] <= ' ' || name[i] == '/' || name[i] == ':' || name[i] == '%' || name[i] >= 0x7f
	}
	if bad {
		return refusef("Invalid interface name: %s", console.Shown(name))
	}
	return nil
}

// absolute makes a path good after a change of directory.
func absolute(option, path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%s \"\": no path after it", option)
	}
	return filepath.Abs(path)
}

// checkRunAs takes the user that we are already. To become another would need
// privilege that sbxnet never has use for.
func checkRunAs(value string) error {
	name, _, _ := strings.Cut(value, ":")
	uid, err := strconv.Atoi(name)
	if err != nil {
		u, lookup := user.Lookup(name)
		if lookup != nil {
			return refusef("Invalid --runas option: %s", console.Shown(value))
		}
		uid, _ = strconv.Atoi(u.Uid)
	}
	if uid != os.Getuid() {
		return fmt.Errorf("--runas %s: pasta runs as whoever starts it; start it as that user", console.Shown(value))
	}
	return nil
}
