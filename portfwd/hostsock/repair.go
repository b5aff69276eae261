package hostsock

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Established is a TCP connection of another stack that a socket goes on with, in
// that stack's place. Numbers are in the host's byte order, windows in bytes.
type Established struct {
	Local, Remote                            netip.AddrPort
	SendNext, ReceiveNext                    uint32 // nothing is unacknowledged
	SendWindow, MaxSendWindow, ReceiveWindow uint32
	SendWindowSeq                            uint32 // of the segment that SendWindow is from
	MSS                                      int    // of full segments to the peer, options included
	WindowScaling, SACKPermitted, Timestamps bool
	SendScale, ReceiveScale                  uint8
	Timestamp                                uint32 // the next to send, or one less, in milliseconds
}

// TakeUp puts a transparent socket that was not used yet into the state of an
// established connection, without a segment (TCP_REPAIR, do_tcp_setsockopt in
// net/ipv4/tcp.c). It stays in repair mode, in which it sends nothing of its own,
// until [GoOn]; [Vanish] closes it as if it had never been. It takes
// CAP_NET_ADMIN in the user namespace that owns the socket's network, which who
// has made that namespace has.
//
// After an error the socket is of no use.
func TakeUp(fd int, e *Established) unix.Errno {
	mss := min(e.MSS, 32767) // MAX_TCP_WINDOW, the most that TCP_MAXSEG takes
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, tcpRepairOn)
	if err == nil {
		// The option that says it in repair mode comes too late for the first MSS.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, mss)
	}
	if err == nil {
		err = repairSequence(fd, tcpSendQueue, e.SendNext)
	}
	if err == nil {
		err = repairSequence(fd, tcpRecvQueue, e.ReceiveNext)
	}
	if err != nil {
		return errnoOf(err)
	}
	if errno := bindTo(fd, e.Local); errno != 0 {
		return errno
	}
	if errno := ConnectTo(fd, e.Remote); errno != 0 {
		return errno
	}
	if err = setBytes(fd, unix.TCP_REPAIR_OPTIONS, repairOptions(e, mss)); err == nil && e.Timestamps {
		// An odd one would have the clock count microseconds, since Linux 6.7.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, int(int32((e.Timestamp+1)&^1)))
	}
	if err == nil {
		err = setBytes(fd, unix.TCP_REPAIR_WINDOW, repairWindow(e))
	}
	if err != nil {
		return errnoOf(err)
	}
	return 0
}

// See include/uapi/linux/tcp.h and include/net/tcp.h.
const (
	tcpRepairOff    = 0
	tcpRepairOn     = 1
	tcpRecvQueue    = 1
	tcpSendQueue    = 2
	tcpOptMSS       = 2
	tcpOptWindow    = 3
	tcpOptSACKPerm  = 4
	tcpOptTimestamp = 8
	tcpStateClose   = 7
)

func repairSequence(fd, queue int, next uint32) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(int32(next)))
	}
	return err
}

// repairOptions are those of the handshake: struct tcp_repair_opt for each.
func repairOptions(e *Established, mss int) (b []byte) {
	add := func(code, value uint32) {
		b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, code), value)
	}
	add(tcpOptMSS, uint32(mss))
	if e.WindowScaling {
		add(tcpOptWindow, uint32(e.SendScale)|uint32(e.ReceiveScale)<<16)
	}
	if e.SACKPermitted {
		add(tcpOptSACKPerm, 0)
	}
	if e.Timestamps {
		add(tcpOptTimestamp, 0)
	}
	return b
}

// repairWindow is struct tcp_repair_window.
func repairWindow(e *Established) []byte {
	var b []byte
	for _, v := range []uint32{e.SendWindowSeq, e.SendWindow, max(e.SendWindow, e.MaxSendWindow), e.ReceiveWindow, e.ReceiveNext} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func setBytes(fd, option int, b []byte) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, option, string(b))
}

// GoOn ends repair mode: from now on the socket is as any other. It cannot fail on
// one that is in it. The kernel asks the peer for an acknowledgement.
func GoOn(fd int) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, tcpRepairOff)
	// That has taken the option away, and the address from all other sockets.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}

// Vanish closes a socket that is in repair mode, without a segment.
func Vanish(fd int) { unix.Close(fd) }

// Moved is how many bytes the peer of a connection has acknowledged and how many have
// come from it, of a connection that was taken up since then.
func Moved(fd int) (acknowledged, received uint64) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0
	}
	return info.Bytes_acked, info.Bytes_received
}

// Over reports whether the kernel has nothing more to say on a connection, nor
// expects anything: both ends of stream were acknowledged, or it was reset.
func Over(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err != nil || info.State == tcpStateClose
}
