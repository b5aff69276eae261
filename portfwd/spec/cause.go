package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cause says why at could not be bound, and what to type instead.
func (s Spec) cause(at netip.AddrPort, err error) error {
	var call *os.SyscallError
	if errors.As(err, &call) && call.Syscall == bindToDevice {
		return s.noDevice(err)
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return s.inUse(at, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return s.forbidden(at, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return explained{err, fmt.Sprintf("this host has no address %s: -p %s needs one that it has now, or %s for all of them",
			at.Addr(), s, wildcard(at.Addr()))}
	case errors.Is(err, unix.EAFNOSUPPORT):
		return explained{err, fmt.Sprintf("this host's kernel has no IPv6: -p %s needs an IPv4 address", s)}
	case errors.Is(err, unix.EMFILE):
		return explained{err, fmt.Sprintf("too many open files for -p %s: publish fewer ports, or raise the limit with ulimit -n", s)}
	case errors.Is(err, unix.EINVAL) && at.Addr().IsLinkLocalUnicast() && at.Addr().Zone() == "":
		return explained{err, fmt.Sprintf("a link-local address needs its interface: -p [%s%%eth0]:PORT", at.Addr())}
	}
	return fmt.Errorf("-p %s: %w", s, err)
}

// noDevice explains what became of the interface that clients are to come in by.
func (s Spec) noDevice(err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return explained{err, fmt.Sprintf("no network interface %s: name one that this host has", shown(s.Interface))}
	case errors.Is(err, unix.EPERM):
		return explained{err, fmt.Sprintf("before Linux 5.7 only root may name an interface: leave %s out", shown(s.Interface))}
	}
	return fmt.Errorf("interface %s: %w", shown(s.Interface), err)
}

// explained is a cause in the user's words that still is the system's error to
// errors.Is.
type explained struct {
	err  error
	text string
}

func (e explained) Error() string { return e.text }
func (e explained) Unwrap() error { return e.err }

func (s Spec) inUse(at netip.AddrPort, err error) error {
	if s.HostPort == 0 {
		return explained{err, fmt.Sprintf("no port of it is free on all addresses of -p %s: name a host port", s)}
	}
	by := ""
	if h, ok := findHolder("/proc", s.Protocol, at); ok {
		by = " by " + h.String()
	}
	free := s
	free.HostPort = 0
	return explained{err, fmt.Sprintf("address already in use%s: give -p %s another host port, or a free one with -p %s", by, s, free)}
}

func (s Spec) forbidden(at netip.AddrPort, err error) error {
	start := unprivilegedStart()
	if int(at.Port()) >= start {
		return fmt.Errorf("-p %s: the system's policy forbids it: %w", s, err)
	}
	higher := s
	higher.HostPort = aboveStart(s.HostPort, s.Count, start)
	program := "sbxnet"
	if path, err := os.Executable(); err == nil {
		program = path
	}
	return explained{err, fmt.Sprintf("-p %s needs privilege, as all ports below %d do: use a higher one (-p %s), "+
		"or allow them to everyone (sudo sysctl net.ipv4.ip_unprivileged_port_start=%d), "+
		"or to sbxnet (sudo setcap cap_net_bind_service=+ep %s)", s, start, higher, s.HostPort, program)}
}

// aboveStart is the usual stand-in for a low port, 8080 for 80 and 8443 for
// 443, or the next that is high enough; 0, for a free one, if there is none.
func aboveStart(port uint16, count, start int) uint16 {
	const most = 65535
	for base := 8000; base < most; base += 10000 {
		if p := base + int(port); p >= start && p+count-1 <= most {
			return uint16(p)
		}
	}
	return 0
}

// unprivilegedStart is the lowest port that needs no capability.
func unprivilegedStart() int {
	const usual = 1024
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return usual
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return usual
	}
	return n
}

func wildcard(a netip.Addr) string {
	if a.Is4() {
		return "0.0.0.0"
	}
	return "[::]"
}
