package tapdev

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Status of a Finding.
const (
	OK       = "ok"
	Degraded = "degraded" // sbxnet works, slower or differently
	Missing  = "missing"  // this is not there, and what it is for does not work
)

// Finding is one line of `sbxnet doctor`: what was looked at, how it stands,
// what that means, and the command that mends it. Fix is empty where there is
// nothing to mend or no command that would.
type Finding struct{ Name, Status, Detail, Fix string }

// goodReceiveBuffer is the net.core.rmem_max in bytes from which on the packet
// link's windows are no narrower than a TAP's.
const goodReceiveBuffer = 4 << 20

// Check looks at what links need of this machine, as far as an ordinary user
// can tell from outside a sandbox: the TAP device node, what its driver knows,
// packet sockets, and their buffers. [Probe] tells the rest from inside.
func Check() []Finding {
	return []Finding{checkTun(), checkVnetHeader(), checkPacketSocket(), checkReceiveBuffer()}
}

func checkTun() Finding {
	f := Finding{Name: tunPath, Status: OK, Detail: "TAP links can be opened"}
	err := tunUsable()
	switch {
	case err == nil:
		return f
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		f.Fix = "sudo chmod 0666 " + tunPath
	default:
		f.Fix = "sudo modprobe tun"
	}
	f.Status = Degraded
	f.Detail = fmt.Sprintf("%v; the packet link (veth) is used instead of TAP", err)
	return f
}

func checkVnetHeader() Finding {
	f := Finding{Name: "TAP virtio header", Status: OK, Detail: "IFF_VNET_HDR: the kernel can take segmentation and checksums over"}
	fd, err := openTun()
	if err != nil {
		f.Status, f.Detail = Degraded, "not known while "+tunPath+" cannot be opened; the packet link has its own"
		f.Fix = checkTun().Fix
		return f
	}
	defer unix.Close(fd)
	features, err := unix.IoctlGetInt(fd, unix.TUNGETFEATURES)
	if err != nil || features&unix.IFF_VNET_HDR == 0 {
		f.Status, f.Detail = Degraded, "the kernel's TAP driver has no IFF_VNET_HDR: all segmentation and checksums in software"
	}
	return f
}

// checkPacketSocket tries to open a packet socket. Outside a sandbox an ordinary
// user may not, but only a kernel that has them says so.
func checkPacketSocket() Finding {
	f := Finding{Name: "packet sockets", Status: OK, Detail: "the kernel has AF_PACKET, for the packet link"}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		return f
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return f
	}
	f.Status, f.Detail = Missing, fmt.Sprintf("no AF_PACKET socket (%v): the packet link cannot be used", err)
	f.Fix = "sudo modprobe af_packet"
	return f
}

func checkReceiveBuffer() Finding {
	const path = "/proc/sys/net/core/rmem_max"
	f := Finding{Name: "net.core.rmem_max", Status: OK}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Status, f.Detail = Degraded, fmt.Sprintf("cannot be read (%v): the packet link's buffer is unknown", err)
		return f
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		f.Status, f.Detail = Degraded, fmt.Sprintf("%s holds %q: the packet link's buffer is unknown", path, b)
		return f
	}
	f.Detail = fmt.Sprintf("%d KiB", n>>10)
	if n < goodReceiveBuffer {
		f.Status = Degraded
		f.Detail += ": limits the packet link's TCP windows (TAP links do not need it)"
		f.Fix = fmt.Sprintf("sudo sysctl -w net.core.rmem_max=%d", goodReceiveBuffer)
	}
	return f
}

// probeName is the interface that Probe makes and removes.
const probeName = "sbxprobe"

// Probe looks at what can only be tried inside a network namespace that the
// caller is root of, such as a sandbox that is starting: each kind of link and
// each offload, by opening links and removing them again.
func Probe() []Finding {
	var found []Finding
	if tunUsable() == nil {
		found = append(found, probeLink(TAP)...)
		found = append(found, probeSandboxOffloads()...)
	}
	return append(found, probeLink(Packet)...)
}

func probeLink(kind Kind) []Finding {
	name := string(kind) + " link"
	info, files, err := Open(Options{
		Kind: kind, Name: probeName, MTU: 1500, Queues: 1,
		GSO: true, SoftwareGSO: true, TXChecksum: true, RXChecksum: true,
	})
	if err != nil {
		f := Finding{Name: name, Status: Missing, Detail: err.Error()}
		if kind == Packet && unsupported(err) {
			f.Fix = "sudo modprobe veth"
		}
		return []Finding{f}
	}
	closeAll(files)
	if l, err := netlink.LinkByName(probeName); err == nil {
		netlink.LinkDel(l)
	}
	found := []Finding{{Name: name, Status: OK, Detail: "can be opened"}}
	return append(found,
		probed(name+" virtio header", info.VnetHeader, "offloads", "no offloads"),
		probed(name+" TCP segmentation", info.KernelTSO, "TSO for IPv4 and IPv6", "cut in software"),
		probed(name+" UDP segmentation", info.KernelUSO, "USO for IPv4 and IPv6", "cut in software (the kernel has it since Linux 6.2)"),
	)
}

// probeSandboxOffloads tries, one by one, what a TAP lets the sandbox's kernel
// leave to us.
func probeSandboxOffloads() []Finding {
	files, err := openVnetTAP(Options{Name: probeName, Queues: 1})
	if err != nil {
		return nil // probeLink has said so
	}
	defer closeAll(files)
	var found []Finding
	for _, o := range []struct {
		name string
		bits int
	}{
		{"checksum", unix.TUN_F_CSUM},
		{"TSO over IPv4", unix.TUN_F_CSUM | unix.TUN_F_TSO4},
		{"TSO over IPv6", unix.TUN_F_CSUM | unix.TUN_F_TSO6},
		{"TSO with ECN", offloadTSO},
		{"USO", offloadUSO},
	} {
		err := control(files[0], func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, o.bits) })
		found = append(found, probed("TAP offload from the sandbox: "+o.name, err == nil, "supported", "the sandbox's kernel does it itself"))
	}
	return found
}

func probed(name string, ok bool, yes, no string) Finding {
	if ok {
		return Finding{Name: name, Status: OK, Detail: yes}
	}
	return Finding{Name: name, Status: Degraded, Detail: no}
}
