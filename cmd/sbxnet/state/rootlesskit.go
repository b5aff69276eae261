package state

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/rootless-containers/rootlesskit/v3/pkg/api"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port/portutil"
	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
)

// Driver is the name of this network to clients of RootlessKit's API. A sandbox
// without a network of its own has the --network mode in its place.
const Driver = "sbxnet"

// NetworkInfo is what RootlessKit's clients are told of a network with these
// addresses.
func NetworkInfo(p network.Plan, dns network.DNS) api.NetworkDriverInfo {
	info := api.NetworkDriverInfo{Driver: Driver, IPv6: p.V6.On()}
	for _, f := range p.Families() {
		if info.ChildIP == nil {
			info.ChildIP = net.IP(f.Sandbox.AsSlice())
		}
		if !dns.None && f.DNS.IsValid() {
			info.DNS = append(info.DNS, net.IP(f.DNS.AsSlice()))
		}
	}
	return info
}

// PortInfo is what they are told of published ports. Clients are sent to the
// sandbox's own address, where what arrives keeps its source address; with a
// Loopback, to its loopback addresses.
func PortInfo(p *network.Ports) api.PortDriverInfo {
	info := api.PortDriverInfo{Driver: Driver, Protos: []string{}, DisallowLoopbackChildIP: true}
	if p.Refusal() == nil {
		// tcp6 and udp6 work too. dockerd must not know: for a port of both
		// families it would occupy the one address that it is sent to twice,
		// and fail. Without them it leaves IPv6 out, as under slirp4netns.
		info.Protos = []string{"tcp", "tcp4", "udp", "udp4"}
	}
	return info
}

// withLoopback is info for clients that may use loopback addresses, where those
// of both families are two.
func withLoopback(info api.PortDriverInfo) api.PortDriverInfo {
	info.DisallowLoopbackChildIP = false
	info.Protos = []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"}
	return info
}

// networkDriver is a router.NetworkDriver.
type networkDriver struct{ info api.NetworkDriverInfo }

func (d *networkDriver) Info(context.Context) (*api.NetworkDriverInfo, error) {
	info := d.info
	return &info, nil
}

// portDriver is a router.PortDriver over the sandbox's ports.
type portDriver struct {
	info  api.PortDriverInfo
	ports *network.Ports
	own   func(netip.Addr) bool // an address of the sandbox itself

	loopback *lateLoopback
	relay    netip.Addr // where ways to ::1 begin

	mu sync.Mutex
	// asked is what came through this API, by entry: it is listed as it came.
	asked map[int]port.Spec
	// ways are those to ::1, by entry.
	ways map[int]way
}

// portDriver is the sandbox's ports for RootlessKit's clients.
func (sb *Sandbox) portDriver(log *slog.Logger) *portDriver {
	own := func(a netip.Addr) bool { return slices.Contains(sb.Addresses, a) }
	d := &portDriver{
		info: sb.PortDriver, ports: sb.Ports, own: own,
		loopback: &lateLoopback{log: log}, relay: sb.firstIPv4(),
		asked: map[int]port.Spec{}, ways: map[int]way{},
	}
	if sb.Ports.Refusal() == nil {
		d.loopback.start = sb.Loopback
	}
	return d
}

func (d *portDriver) Info(context.Context) (*api.PortDriverInfo, error) {
	info := d.info
	if d.loopback.get() != nil {
		info = withLoopback(info)
	}
	return &info, nil
}

// AddPort implements port.Manager. A spec that is there already has the ID that
// it has.
func (d *portDriver) AddPort(_ context.Context, s port.Spec) (*port.Status, error) {
	specs, err := d.translate(s)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget()
	for id, asked := range d.asked {
		if asked == s {
			return &port.Status{ID: id, Spec: s}, nil
		}
	}
	way, err := d.lead(s, specs)
	if err != nil {
		return nil, err
	}
	e, err := d.ports.AddTogether(specs...)
	if err != nil {
		way.shut()
		return nil, apiError(err)
	}
	if _, known := d.asked[e.ID]; !known {
		d.asked[e.ID] = s
	}
	if way.open() {
		d.ways[e.ID] = way
	}
	return &port.Status{ID: e.ID, Spec: s}, nil
}

// forget forgets the entries that were removed by other ways.
func (d *portDriver) forget() {
	there := map[int]bool{}
	for _, e := range d.ports.List() {
		there[e.ID] = true
	}
	maps.DeleteFunc(d.asked, func(id int, _ port.Spec) bool { return !there[id] })
	maps.DeleteFunc(d.ways, func(id int, w way) bool {
		if !there[id] {
			w.shut()
		}
		return !there[id]
	})
}

// ListPorts implements port.Manager. An entry that was not asked for here is
// one status for each of its host ports, all with the entry's ID.
func (d *portDriver) ListPorts(context.Context) ([]port.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget()
	list := []port.Status{}
	for _, e := range d.ports.List() {
		if s, ok := d.asked[e.ID]; ok {
			list = append(list, port.Status{ID: e.ID, Spec: s})
			continue
		}
		for _, b := range e.Bound {
			list = append(list, port.Status{ID: e.ID, Spec: rootlessSpec(b)})
		}
	}
	return list, nil
}

func rootlessSpec(b spec.Bound) port.Spec {
	s := port.Spec{
		Proto: string(b.Protocol), ParentIP: b.Host.Addr().String(),
		ParentPort: int(b.Host.Port()), ChildPort: int(b.Port),
	}
	if b.Child.IsValid() {
		s.ChildIP = b.Child.String()
	}
	return s
}

// RemovePort implements port.Manager.
func (d *portDriver) RemovePort(_ context.Context, id int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ports.Remove(id); err != nil {
		return apiError(err)
	}
	d.forget()
	return nil
}

// translate turns a port of RootlessKit's into specs of ours: two, where all
// addresses of both families are meant.
func (d *portDriver) translate(s port.Spec) ([]spec.Spec, error) {
	if err := portutil.ValidatePortSpec(s, nil); err != nil {
		return nil, err
	}
	one := spec.Spec{HostPort: uint16(s.ParentPort), Port: uint16(s.ChildPort), Count: 1}
	name, family := s.Proto, ""
	if last := len(name) - 1; strings.HasSuffix(name, "4") || strings.HasSuffix(name, "6") {
		name, family = name[:last], name[last:]
	}
	switch one.Protocol = spec.Protocol(name); one.Protocol {
	case spec.TCP, spec.UDP:
	default:
		return nil, fmt.Errorf("proto %q: cannot be published; tcp and udp can", s.Proto)
	}
	if s.ChildIP != "" {
		// ParseIP takes what ParseAddr does, but for zones: it was valid.
		if child := address(s.ChildIP); !child.IsLoopback() && !d.own(child) {
			one.Child = child
		}
	}
	parents, err := parentAddresses(s.ParentIP, family)
	if err != nil {
		return nil, fmt.Errorf("proto %s: %w", s.Proto, err)
	}
	var specs []spec.Spec
	for _, a := range parents {
		one.HostIP = a
		specs = append(specs, one)
	}
	return specs, nil
}

func address(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a.Unmap()
}

// parentAddresses are the host's addresses that a parentIP names; the empty one
// is all of them, as it is for Go's net.Listen.
func parentAddresses(parent, family string) ([]netip.Addr, error) {
	var all []netip.Addr
	switch {
	case parent != "":
		all = []netip.Addr{address(parent)}
	case family == "" && !hasIPv6():
		all = []netip.Addr{netip.IPv4Unspecified()}
	default:
		all = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	var fitting []netip.Addr
	for _, a := range all {
		if family == "" || a.Is4() == (family == "4") {
			fitting = append(fitting, a)
		}
	}
	if len(fitting) == 0 {
		return nil, fmt.Errorf("parentIP %s is of the other family", parent)
	}
	return fitting, nil
}

// hasIPv6 reports whether the host's kernel has it at all.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// apiError is an error about a spec in the words of an API, which has no -p.
func apiError(err error) error {
	return plainError{err}
}

type plainError struct{ error }

func (e plainError) Error() string { return strings.ReplaceAll(e.error.Error(), "-p ", "") }
func (e plainError) Unwrap() error { return e.error }
