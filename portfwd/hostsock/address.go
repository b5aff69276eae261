package hostsock

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Address is a socket address as the kernel lays it out, IPv4 or IPv6. The
// zero value is no address.
type Address struct {
	raw    unix.RawSockaddrInet6 // the longer of the two
	length uint32
}

// MakeAddress lays out ap for the kernel. A zone is left out: flows that need
// one keep the Address that the kernel gave.
func MakeAddress(ap netip.AddrPort) Address {
	var a Address
	if ap.Addr().Is4() {
		r := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		r.Family = unix.AF_INET
		setPort(&r.Port, ap.Port())
		r.Addr = ap.Addr().As4()
		a.length = unix.SizeofSockaddrInet4
		return a
	}
	a.raw.Family = unix.AF_INET6
	setPort(&a.raw.Port, ap.Port())
	a.raw.Addr = ap.Addr().As16()
	a.length = unix.SizeofSockaddrInet6
	return a
}

// AddrPort is the address without its zone, IPv4-mapped ones as IPv4; the zero
// AddrPort if it is neither IPv4 nor IPv6.
func (a *Address) AddrPort() netip.AddrPort {
	switch {
	case a.raw.Family == unix.AF_INET && a.length >= unix.SizeofSockaddrInet4:
		r := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(r.Addr), port(&r.Port))
	case a.raw.Family == unix.AF_INET6 && a.length >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.raw.Addr).Unmap(), port(&a.raw.Port))
	}
	return netip.AddrPort{}
}

// Scope is the index of the interface that a link-local IPv6 address is on.
func (a *Address) Scope() uint32 {
	if a.raw.Family == unix.AF_INET6 {
		return a.raw.Scope_id
	}
	return 0
}

func (a *Address) pointer() *byte { return (*byte)(unsafe.Pointer(&a.raw)) }

// The kernel keeps a port in network byte order inside a field that Go reads as
// a host integer.
func setPort(field *uint16, p uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(field))[:], p)
}

func port(field *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(field))[:])
}

// bindTo binds a socket of any type.
func bindTo(fd int, at netip.AddrPort) unix.Errno {
	a := MakeAddress(at)
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(a.length))
	return errno
}

// LocalAddr is the address that fd is bound to, or the zero AddrPort.
func LocalAddr(fd int) netip.AddrPort { return name(fd, unix.SYS_GETSOCKNAME) }

// RemoteAddr is the address that fd is connected to, or the zero AddrPort.
func RemoteAddr(fd int) netip.AddrPort { return name(fd, unix.SYS_GETPEERNAME) }

func name(fd int, call uintptr) netip.AddrPort {
	var a Address
	a.length = unix.SizeofSockaddrInet6
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.length)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	return a.AddrPort()
}
