package tapdev

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// peerName is our end of the pair whose sandbox end is called name.
func peerName(name string) string {
	const suffix = "-sbx"
	if limit := unix.IFNAMSIZ - 1 - len(suffix); len(name) > limit {
		name = name[:limit]
	}
	return name + suffix
}

// vethQueueLen is the sandbox end's queue in frames. It is not used while veth
// has no queueing discipline of its own, which is the kernel's default.
const vethQueueLen = 2048

// wantedBuffer is the socket buffer to ask for, in bytes, each way.
const wantedBuffer = 8 << 20

func openPacket(o Options) (Info, []*os.File, error) {
	o = o.withQueues()
	info := Info{Options: o, Kind: Packet, VnetHeader: !o.plain()}
	behind, err := openBackroom()
	if err != nil {
		info.Notes = append(info.Notes, fmt.Sprintf("the sandbox sees both ends of its link: %v", err))
	}
	defer behind.close()
	peer := peerName(o.Name)
	if err := addPair(o, peer, behind); err != nil {
		return Info{}, nil, fmt.Errorf("open packet link %s: create veth pair: %w", o.Name, err)
	}
	files, err := openPair(&info, peer, behind)
	if err != nil {
		if l, e := netlink.LinkByName(o.Name); e == nil {
			netlink.LinkDel(l) // takes the peer with it
		}
		return Info{}, nil, fmt.Errorf("open packet link %s: %w", o.Name, err)
	}
	return info, files, nil
}

// addPair creates the pair, one end here, the other in the backroom.
func addPair(o Options, peer string, behind *backroom) error {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.HardwareAddr = o.Name, o.MTU, o.HardwareAddr
	veth := &netlink.Veth{LinkAttrs: a, PeerName: peer, PeerMTU: uint32(o.MTU)}
	if behind != nil {
		veth.PeerNamespace = netlink.NsFd(behind.behind)
	}
	return netlink.LinkAdd(veth)
}

// openPair sets up both ends of the pair and opens the sockets on ours.
func openPair(info *Info, peer string, behind *backroom) (files []*os.File, err error) {
	if err := setUpInterface(info.Options, vethQueueLen); err != nil {
		return nil, err
	}
	err = behind.inside(func() error {
		files, err = openPeer(info, peer)
		return err
	})
	if err == nil {
		err = limitVeth(*info)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// openPeer brings our end up and opens the sockets on it.
func openPeer(info *Info, peer string) ([]*os.File, error) {
	link, err := netlink.LinkByName(peer)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", peer, err)
	}
	if err := hideFromKernel(info, link); err != nil {
		return nil, err
	}
	files, err := openSockets(*info, link.Attrs().Index)
	if err != nil {
		return nil, err
	}
	return files, control(files[0], func(fd int) error { return probePacket(info, fd) })
}

// hideFromKernel brings our end up with nothing on it that would make the IP
// stack of the namespace that it is in answer: no ARP, no IPv6. Frames for the gateway are
// for another hardware address than this end's, so IPv4 drops them by itself.
func hideFromKernel(info *Info, link netlink.Link) error {
	name := link.Attrs().Name
	if err := netlink.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("turn ARP off on %s: %w", name, err)
	}
	path := "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6"
	if err := os.WriteFile(path, []byte("1"), 0); err != nil && !os.IsNotExist(err) {
		info.Notes = append(info.Notes, fmt.Sprintf("IPv6 stays on at %s, which adds multicast noise to the link: %v", name, err))
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

func openSockets(info Info, ifindex int) ([]*os.File, error) {
	var files []*os.File
	for range info.Queues {
		fd, err := openSocket(info, ifindex)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), "packet:"+info.Name))
	}
	return files, nil
}

// openSocket opens a socket bound to one interface. Options that shape frames
// are set before the bind, with which frames begin to arrive.
func openSocket(info Info, ifindex int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	if err := prepareSocket(fd, info, ifindex); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepareSocket(fd int, info Info, ifindex int) error {
	if info.VnetHeader {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return fmt.Errorf("set PACKET_VNET_HDR: %w", err)
		}
	}
	// Best effort: before Linux 4.20 our own frames do not come back as long as
	// there is one socket only. Without PACKET_QDISC_BYPASS frames are lost, and
	// not counted, until the kernel has noticed that the other end is up.
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	addr := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ifindex}
	if err := unix.Bind(fd, addr); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	if info.Queues > 1 {
		// The kernel's flow hash is the same for both directions of a flow.
		// The group's ID is arbitrary: a namespace has groups of its own.
		group := ifindex&0xffff | unix.PACKET_FANOUT_HASH<<16
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group); err != nil {
			return fmt.Errorf("spread packets over %d sockets (PACKET_FANOUT): %w", info.Queues, err)
		}
	}
	return nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

// configurePacket gets the largest socket buffers that this process may have:
// without privilege in the initial namespace, what net.core.rmem_max says.
func configurePacket(fd int, _ Info) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wantedBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wantedBuffer); err != nil {
			return fmt.Errorf("set receive buffer: %w", err)
		}
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, wantedBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, wantedBuffer); err != nil {
			return fmt.Errorf("set send buffer: %w", err)
		}
	}
	return nil
}

// receiveBuffer is how many bytes of frames a packet socket surely holds: half
// of what the kernel reports, the other half being for its own bookkeeping
// (sock_setsockopt doubles what it is asked for).
func receiveBuffer(fd int) int {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0
	}
	return n / 2
}

// probePacket finds out what the kernel cuts for us on this socket, and how
// much it holds.
func probePacket(info *Info, fd int) error {
	if err := configurePacket(fd, *info); err != nil {
		return err
	}
	info.ReceiveBuffer = receiveBuffer(fd)
	if !info.VnetHeader || !info.GSO {
		return nil
	}
	n := info.vnetLen()
	info.KernelTSO = probeWrite(fd, n, probeTCPv4()) && probeWrite(fd, n, probeTCPv6())
	info.KernelUSO = info.KernelTSO && probeWrite(fd, n, probeUDP())
	info.noteSegmentation()
	return nil
}
