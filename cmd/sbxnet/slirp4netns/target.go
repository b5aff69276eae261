package slirp4netns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/netstack/header"
	"sbxnet/tapdev"
	"sbxnet/userns"
)

// A link is a way into the namespace, not yet used.
type link struct {
	Info         tapdev.Info
	Files        []*os.File
	HardwareAddr header.MAC
}

// reached is a namespace that this process has its way into.
type reached struct {
	attachment *userns.Attachment // nil for a TAP of the caller's
	// ownMounts: this process is in a mount namespace of its own.
	ownMounts bool
	log       *slog.Logger
}

// reach makes the link, or takes over the one that is there. With --enable-sandbox
// what returns from it may have been executed anew.
func (o *options) reach(log *slog.Logger) (r reached, err error) {
	r.log = log
	if m := moved(); m != nil {
		if err := m.arrive(); err != nil {
			log.Debug("--enable-sandbox leaves the root directory: " + err.Error())
		} else {
			r.ownMounts = true
		}
		r.attachment, err = m.attachment(log)
		return r, err
	}
	if o.TargetType != targetTapFD {
		if r.attachment, err = o.attach(log); err != nil {
			return r, err
		}
	}
	if !o.Sandbox {
		return r, nil
	}
	attachment := r.attachment
	r.attachment, err = o.moveOut(attachment, log)
	if attachment != nil && r.attachment == nil {
		return r, err
	}
	log.Debug("--enable-sandbox leaves the root directory: " + err.Error())
	return r, nil
}

func (o *options) attach(log *slog.Logger) (*userns.Attachment, error) {
	cfg := userns.AttachConfig{
		PID: o.PID, NetNS: o.Path, UserNS: o.UserNS,
		Link:      o.linkOptions(),
		Configure: o.Configure,
		Log:       log,
	}
	if o.Configure {
		for _, f := range o.plan().Families() {
			cfg.Addresses = append(cfg.Addresses, netip.PrefixFrom(f.Sandbox, f.Prefix.Bits()))
			cfg.Gateways = append(cfg.Gateways, f.Gateway)
		}
	}
	return userns.Attach(cfg)
}

// link is what an attachment has opened, or the caller's TAP.
func (o *options) link(a *userns.Attachment) (link, error) {
	if a == nil {
		return o.takeTAP()
	}
	l := link{HardwareAddr: network.SandboxMAC}
	l.Info, l.Files = a.Link()
	copy(l.HardwareAddr[:], a.Found().HardwareAddr)
	return l, nil
}

// linkOptions are those of the interface. Without --configure its MTU is the
// caller's to set, and may not be what --mtu says until after ready-fd.
func (o *options) linkOptions() tapdev.Options {
	l := network.LinkOptions(tapdev.TAP, 1)
	l.Name, l.HardwareAddr = o.TAPName, o.HardwareAddr
	if o.Configure {
		l.MTU = o.MTU
	}
	return l
}

// takeTAP uses a descriptor that the caller has attached to a TAP. It asks
// nothing of the device that the caller did not: no header on frames that had
// none.
func (o *options) takeTAP() (link, error) {
	req, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(o.FD, unix.TUNGETIFF, req)
	}
	if err != nil {
		return link{}, fmt.Errorf("the TAP %d: not a descriptor of a TAP: %w; attach it with TUNSETIFF first", o.FD, err)
	}
	const plain = unix.IFF_TAP | unix.IFF_NO_PI
	if flags := req.Uint16(); flags&(unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR) != plain {
		return link{}, fmt.Errorf("the TAP %d: its flags are %#x; attach it with IFF_TAP and IFF_NO_PI, and no IFF_VNET_HDR", o.FD, flags)
	}
	mac, err := hardwareAddr(o.FD)
	if err == nil {
		err = unix.SetNonblock(o.FD, true)
	}
	if err != nil {
		return link{}, fmt.Errorf("the TAP %d: %w", o.FD, err)
	}
	l := link{Files: []*os.File{os.NewFile(uintptr(o.FD), req.Name())}, HardwareAddr: mac}
	l.Info.Options = tapdev.Options{
		Kind: tapdev.TAP, Name: req.Name(), MTU: o.MTU, Queues: 1,
		HardwareAddr: mac[:], SoftwareGSO: true, QDisc: "fifo",
	}
	l.Info.Kind = tapdev.TAP
	return l, nil
}

// hardwareAddr is that of the interface behind a TAP's descriptor, which is the
// only way to it from another namespace (tun_chr_ioctl, drivers/net/tun.c).
func hardwareAddr(fd int) (mac header.MAC, err error) {
	var req struct { // ifreq with ifr_hwaddr
		name   [unix.IFNAMSIZ]byte
		family uint16
		addr   [14]byte
		_      [24]byte
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return mac, fmt.Errorf("read its hardware address: %w", errno)
	}
	copy(mac[:], req.addr[:])
	return mac, nil
}
