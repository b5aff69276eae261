package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// defaultMTU is that of a link where nobody has said one.
const defaultMTU = 1500

// openOrTakeOver opens the link, or takes over a persistent TAP of that name.
func openOrTakeOver(o tapdev.Options) (tapdev.Info, []*os.File, error) {
	link, err := staying(o.Name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		if o.MTU == 0 {
			o.MTU = defaultMTU
		}
		return openLink(o)
	}
	if err != nil {
		return tapdev.Info{}, nil, fmt.Errorf("look for %s: %w", o.Name, err)
	}
	if o, err = takenOver(o, link); err != nil {
		return tapdev.Info{}, nil, err
	}
	info, files, err := openLink(o)
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%s is in use by another program: end that, or name another interface: %w", o.Name, err)
	}
	if err != nil {
		return tapdev.Info{}, nil, err
	}
	link, err = netlink.LinkByName(o.Name) // it may have had another address when it was down
	if err != nil {
		closeAll(files)
		return tapdev.Info{}, nil, fmt.Errorf("find %s: %w", o.Name, err)
	}
	info.HardwareAddr = link.Attrs().HardwareAddr
	return info, files, nil
}

// pairGrace is how long the interface of a packet link may stay when nobody has
// its sockets any more: the kernel removes the namespace at the other end, and
// the pair with it, in the background (cleanup_net).
const pairGrace = 2 * time.Second

// staying finds an interface that is there to stay. A pair may be what is left
// of a link of ours, to the same namespace, that has just ended.
func staying(name string) (netlink.Link, error) {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if _, pair := link.(*netlink.Veth); !pair || time.Since(began) > pairGrace {
			return link, err
		}
	}
}

// takenOver adjusts options to the TAP that is there: as many queues as it can
// have, and its own MTU and hardware address unless others are wanted.
func takenOver(o tapdev.Options, link netlink.Link) (tapdev.Options, error) {
	tap, ok := link.(*netlink.Tuntap)
	switch {
	case !ok:
		return o, fmt.Errorf("%s is there already and is no TAP (it is a %s): name another interface", o.Name, link.Type())
	case tap.Mode != netlink.TUNTAP_MODE_TAP:
		return o, fmt.Errorf("%s is there already and is a TUN, which has no Ethernet: make it with ip tuntap add %[1]s mode tap", o.Name)
	case o.Kind == tapdev.Packet:
		return o, fmt.Errorf("%s is there already and is a TAP, and the packet link cannot use it: name another interface", o.Name)
	}
	o.Kind = tapdev.TAP
	if tap.Flags&netlink.TUNTAP_MULTI_QUEUE == 0 {
		o.Queues = 1 // whether there can be more was decided when it was made
	} else {
		if o.Queues == 0 {
			o.Queues = tapdev.DefaultQueues()
		}
		o.Queues = max(o.Queues, 2) // tapdev asks for multi-queue from two on
	}
	if o.MTU == 0 {
		o.MTU = tap.MTU
	}
	return o, nil
}

// tuneTakenOver sets what concerns nobody but us on an interface whose addresses
// are somebody else's: packets to and from all addresses come through.
func tuneTakenOver(name string, note func(string, ...any)) {
	v4 := filepath.Join("net/ipv4/conf", name)
	_ = setSysctl(filepath.Join(v4, "rp_filter"), "0")
	if err := setSysctl(filepath.Join(v4, "route_localnet"), "1"); err != nil {
		note("servers on 127.0.0.1 of the namespace cannot be published: %v", err)
	}
}
