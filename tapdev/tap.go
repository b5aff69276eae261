package tapdev

import (
	"errors"
	"fmt"
	"os"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/tapdev/virtio"
)

// tapQueueLen is the TAP's queue in frames. It holds a 1 MiB window of segments
// at MTU 1500 with room to spare, because what does not fit is dropped.
const tapQueueLen = 2048

func openTAP(o Options) (Info, []*os.File, error) {
	o = o.withQueues()
	info := Info{Options: o, Kind: TAP}
	files, err := openTAPQueues(&info)
	if err != nil {
		return Info{}, nil, fmt.Errorf("open TAP %s: %w", o.Name, err)
	}
	if err := setUpInterface(o, tapQueueLen); err != nil {
		closeAll(files)
		return Info{}, nil, fmt.Errorf("open TAP %s: %w", o.Name, err)
	}
	if info.VnetHeader {
		if err := probeTAP(&info, files[0]); err != nil {
			closeAll(files)
			return Info{}, nil, fmt.Errorf("open TAP %s: %w", o.Name, err)
		}
	}
	return info, files, nil
}

// plain reports whether the options leave nothing to a virtio header.
func (o Options) plain() bool {
	return !o.GSO && !o.TXChecksum && !o.RXChecksum
}

// openTAPQueues creates the device: with virtio headers, or through water where
// none are wanted or the kernel has none.
func openTAPQueues(info *Info) ([]*os.File, error) {
	if !info.plain() {
		files, err := openVnetTAP(info.Options)
		if err == nil {
			info.VnetHeader = true
			return files, nil
		}
		if !errors.Is(err, errNoVnetHeader) {
			return nil, err
		}
		info.Notes = append(info.Notes, "the kernel has no IFF_VNET_HDR: no offload")
	}
	return openPlainTAP(info.Options)
}

var errNoVnetHeader = errors.New("TAP with virtio header not supported")

func openVnetTAP(o Options) ([]*os.File, error) {
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if o.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	var files []*os.File
	for range o.Queues {
		f, err := openVnetQueue(o.Name, flags)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func openVnetQueue(name string, flags uint16) (*os.File, error) {
	fd, err := openTun()
	if err != nil {
		return nil, err
	}
	features, err := unix.IoctlGetInt(fd, unix.TUNGETFEATURES)
	if err == nil && features&unix.IFF_VNET_HDR == 0 {
		unix.Close(fd)
		return nil, errNoVnetHeader
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, virtio.Size)
		if unsupported(err) {
			err = errNoVnetHeader
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create interface (TUNSETIFF): %w", err)
	}
	return os.NewFile(uintptr(fd), tunPath), nil
}

// openPlainTAP opens a TAP without virtio header. Water makes a device
// persistent or not; one that is there already stays as it is.
func openPlainTAP(o Options) ([]*os.File, error) {
	persist := persistent(o.Name)
	var files []*os.File
	for range o.Queues {
		dev, err := water.New(water.Config{
			DeviceType: water.TAP,
			PlatformSpecificParams: water.PlatformSpecificParams{
				Name:       o.Name,
				Persist:    persist,
				MultiQueue: o.Queues > 1,
			},
		})
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("create interface: %w", err)
		}
		f, ok := dev.ReadWriteCloser.(*os.File)
		if !ok {
			dev.Close()
			closeAll(files)
			return nil, fmt.Errorf("create interface: water returned a %T instead of a file", dev.ReadWriteCloser)
		}
		files = append(files, f)
	}
	return files, nil
}

// persistent reports whether there is a device of that name that stays when
// nobody has it open.
func persistent(name string) bool {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return false
	}
	tap, ok := link.(*netlink.Tuntap)
	return ok && !tap.NonPersist
}

// Offloads that a TAP may be asked for, the most first. USO4 goes only with
// USO6 (tun: set_offload), and both are there since Linux 6.2.
const (
	offloadTSO = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUSO = offloadTSO | unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// tapOffload is the TUNSETOFFLOAD argument for what the sandbox may leave to
// us. TSO needs checksum offload.
func tapOffload(info Info) int {
	switch {
	case !info.RXChecksum:
		return 0
	case !info.GSO || !info.KernelTSO:
		return unix.TUN_F_CSUM
	case !info.KernelUSO:
		return offloadTSO
	}
	return offloadUSO
}

// configureTAP sets what a TAP descriptor needs that Open, or someone else,
// created. It is safe to do twice.
func configureTAP(fd int, info Info) error {
	if !info.VnetHeader {
		return nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, virtio.Size); err != nil {
		return fmt.Errorf("set virtio header size (TUNSETVNETHDRSZ): %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tapOffload(info)); err != nil {
		return fmt.Errorf("set offloads (TUNSETOFFLOAD %#x): %w", tapOffload(info), err)
	}
	return nil
}

// probeTAP finds out what the kernel offloads, and leaves in info what of that
// the options ask for. Each way is tried apart: the ioctl tells what the
// sandbox may send us, a write what we may send it.
func probeTAP(info *Info, f *os.File) error {
	return control(f, func(fd int) error {
		if info.GSO {
			probeTAPSegmentation(info, fd)
		}
		return configureTAP(fd, *info)
	})
}

func probeTAPSegmentation(info *Info, fd int) {
	info.KernelTSO = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTSO) == nil &&
		probeWrite(fd, info.vnetLen(), probeTCPv4()) && probeWrite(fd, info.vnetLen(), probeTCPv6())
	info.KernelUSO = info.KernelTSO && unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadUSO) == nil &&
		probeWrite(fd, info.vnetLen(), probeUDP())
	info.noteSegmentation()
}

// noteSegmentation notes what the kernel lacks.
func (i *Info) noteSegmentation() {
	switch {
	case !i.KernelTSO:
		i.Notes = append(i.Notes, "the kernel has no TCP segmentation offload on this link")
	case !i.KernelUSO:
		i.Notes = append(i.Notes, "the kernel has no UDP segmentation offload on this link (needs Linux 6.2)")
	}
}

// control runs do on f's descriptor without taking it out of f's hands.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}
