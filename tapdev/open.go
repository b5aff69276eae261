package tapdev

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of Options.MTU in bytes: IPv4's minimum (RFC 791), and what a TAP
// device takes with 14 bytes of Ethernet in front.
const (
	MinMTU = 68
	MaxMTU = 65521
)

// MaxQueues bounds Options.Queues. A TAP device takes 256 (MAX_TAP_QUEUES).
const MaxQueues = 64

// Open creates the sandbox's interface in the network namespace of the calling
// thread, which needs CAP_NET_ADMIN there (for the packet link also CAP_NET_RAW,
// and CAP_SYS_ADMIN to keep our end of the pair out of the sandbox's sight). It
// sets MTU, hardware address and queue length, finds out by trying what the
// kernel offloads, and leaves the interface down. Kind Auto takes the packet
// link where a TAP cannot be opened, and notes why.
//
// It returns one descriptor per queue, for [Attach]. The device lives as long
// as its descriptors. On an error nothing is left.
func Open(opts Options) (Info, []*os.File, error) {
	if err := checkOptions(opts); err != nil {
		return Info{}, nil, fmt.Errorf("open link: %w", err)
	}
	switch opts.Kind {
	case TAP:
		return openTAP(opts)
	case Packet:
		return openPacket(opts)
	}
	return openAuto(opts)
}

// openAuto opens a TAP, or where that fails for whatever reason the packet link.
func openAuto(o Options) (Info, []*os.File, error) {
	reason := tunUsable()
	if reason == nil {
		info, files, err := openTAP(o)
		if err == nil {
			return info, files, nil
		}
		reason = err
	}
	info, files, err := openPacket(o)
	if err != nil {
		return Info{}, nil, fmt.Errorf("%w (and no TAP: %w)", err, reason)
	}
	info.Notes = append(info.Notes, fmt.Sprintf("packet link (veth) instead of TAP: %v", reason))
	return info, files, nil
}

func checkOptions(o Options) error {
	switch o.Kind {
	case Auto, TAP, Packet:
	default:
		return fmt.Errorf("link kind %q: want auto, tap or packet", o.Kind)
	}
	if o.Name == "" || len(o.Name) >= unix.IFNAMSIZ {
		return fmt.Errorf("interface name %q: want 1 to %d bytes", o.Name, unix.IFNAMSIZ-1)
	}
	if o.Queues < 0 || o.Queues > MaxQueues {
		return fmt.Errorf("%d queues: want 1 to %d, or 0 for what suits", o.Queues, MaxQueues)
	}
	if n := len(o.HardwareAddr); n != 0 && n != 6 {
		return fmt.Errorf("hardware address %s: want 6 bytes", o.HardwareAddr)
	}
	switch o.QDisc {
	case "", "none", "fifo":
	default:
		return fmt.Errorf("queueing discipline %q: want none or fifo", o.QDisc)
	}
	return checkMTU(o.MTU)
}

func checkMTU(mtu int) error {
	if mtu < MinMTU || mtu > MaxMTU {
		return fmt.Errorf("MTU %d: want %d to %d", mtu, MinMTU, MaxMTU)
	}
	return nil
}

// tunPath is the device that TAP links are made from.
const tunPath = "/dev/net/tun"

// tunUsable says why /dev/net/tun cannot be opened, or nil.
func tunUsable() error {
	fd, err := openTun()
	if err != nil {
		return err
	}
	unix.Close(fd)
	return nil
}

func openTun() (int, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: tunPath, Err: err}
	}
	return fd, nil
}

// setUpInterface gives the sandbox's interface its addresses and lengths.
func setUpInterface(o Options, txQueueLen int) error {
	l, err := netlink.LinkByName(o.Name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", o.Name, err)
	}
	if len(o.HardwareAddr) > 0 {
		if err := netlink.LinkSetHardwareAddr(l, o.HardwareAddr); err != nil {
			return fmt.Errorf("set hardware address of %s to %s: %w", o.Name, o.HardwareAddr, err)
		}
	}
	if err := netlink.LinkSetMTU(l, o.MTU); err != nil {
		return fmt.Errorf("set MTU of %s to %d: %w", o.Name, o.MTU, err)
	}
	if err := netlink.LinkSetTxQLen(l, txQueueLen); err != nil {
		return fmt.Errorf("set queue length of %s: %w", o.Name, err)
	}
	return nil
}

// closeAll closes files that nobody gets.
func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// unsupported reports whether the kernel does not know what was asked of it, as
// opposed to not allowing it.
func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOPROTOOPT) ||
		errors.Is(err, unix.EOPNOTSUPP)
}
