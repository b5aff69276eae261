package socket

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"sbxnet/netstack/tcp"
)

// errnos are the system's names for the stack's errors, under which programs
// written for the system look for them.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{tcp.ErrReset, syscall.ECONNRESET},
	{tcp.ErrRefused, syscall.ECONNREFUSED},
	{tcp.ErrTimeout, syscall.ETIMEDOUT},
	{tcp.ErrUnreachable, syscall.EHOSTUNREACH},
	{tcp.ErrAborted, syscall.ECONNABORTED},
	{tcp.ErrInUse, syscall.EADDRINUSE},
	{tcp.ErrNoPorts, syscall.EADDRNOTAVAIL},
	{tcp.ErrTooMany, syscall.ENOBUFS},
	{tcp.ErrAddress, syscall.EADDRNOTAVAIL},
}

// systemError gives an error of the stack the system's name, and the call's in
// which the system would have reported it.
func systemError(call string, err error) error {
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return os.NewSyscallError(call, e.errno)
		}
	}
	return err
}

// unreachable is what an ICMP error means to a socket that sent a datagram.
func unreachable(reason tcp.Refusal) error {
	switch reason {
	case tcp.PortUnreachable:
		return syscall.ECONNREFUSED
	case tcp.NetUnreachable:
		return syscall.ENETUNREACH
	case tcp.Prohibited:
		return syscall.EACCES
	}
	return syscall.EHOSTUNREACH
}

// opError is an error as package net reports it. The zero AddrPort is left out.
func opError(op, network string, local, remote netip.AddrPort, err error) error {
	return &net.OpError{Op: op, Net: network, Source: netAddr(network, local), Addr: netAddr(network, remote), Err: err}
}
