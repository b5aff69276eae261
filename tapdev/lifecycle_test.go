package tapdev

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/netstack/frame"
)

func bothKinds(t *testing.T, run func(t *testing.T, kind Kind)) {
	for _, kind := range []Kind{TAP, Packet} {
		t.Run(string(kind), func(t *testing.T) {
			if kind == TAP {
				needTAP(t)
			}
			run(t, kind)
		})
	}
}

func TestOpenLeavesInterfaceDown(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bothKinds(t, func(t *testing.T, kind Kind) {
		o := testOptions(kind)
		o.Name = "down-" + string(kind)
		openLink(t, o)
		l, err := netlink.LinkByName(o.Name)
		check(t, err)
		if l.Attrs().Flags&net.FlagUp != 0 {
			t.Error("the interface is up")
		}
	})
}

func TestInterfaceDownDropsAndUpCarriesOn(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bothKinds(t, func(t *testing.T, kind Kind) {
		w := newWorld(t, testOptions(kind))
		dev, err := netlink.LinkByName(w.info.Name)
		check(t, err)
		check(t, netlink.LinkSetDown(dev))
		before := w.link.Stats().TxDropped
		w.send(w.udp(1, 2, pattern(10), 0))
		if got := w.link.Stats().TxDropped - before; got != 1 {
			t.Errorf("%d frames dropped while the interface is down, want 1", got)
		}
		w.receive(10 * time.Millisecond)
		check(t, netlink.LinkSetUp(dev))
		w.pings()
	})
}

func TestDeletedInterfaceIsAnErrorToWrite(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bothKinds(t, func(t *testing.T, kind Kind) {
		w := newWorld(t, testOptions(kind))
		dev, err := netlink.LinkByName(w.info.Name)
		check(t, err)
		check(t, netlink.LinkDel(dev))
		if err := w.link.Queues()[0].Write([]frame.Frame{w.udp(1, 2, pattern(10), 0)}); err == nil {
			t.Error("no error")
		}
	})
}

func TestLargestSuperSegments(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bothKinds(t, func(t *testing.T, kind Kind) {
		w := newWorld(t, testOptions(kind))
		for _, v6 := range []bool{false, true} {
			w.v6 = v6
			conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: w.theirs().AsSlice()})
			check(t, err)
			check(t, conn.SetReadBuffer(1<<20))
			// 65535 bytes of UDP is one too many for IPv4's total length.
			payload := pattern(65535 - 20 - 8)
			w.send(w.udp(9, uint16(conn.LocalAddr().(*net.UDPAddr).Port), payload, 1400))
			w.receiveDatagrams(conn, payload, 1400)
			conn.Close()
		}
		if s := w.link.Stats(); s.TxDropped != 0 || !w.link.Capabilities().USO {
			t.Errorf("%+v, %+v", s, w.link.Capabilities())
		}
	})
}

func TestPersistentTAPStaysWhenItsLinkIsClosed(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	needTAP(t)
	offloads, plain := testOptions(TAP), testOptions(TAP)
	plain.GSO, plain.TXChecksum, plain.RXChecksum = false, false, false
	for _, o := range []Options{offloads, plain} {
		for _, multi := range []netlink.TuntapFlag{0, netlink.TUNTAP_MULTI_QUEUE} {
			tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: o.Name}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | multi}
			check(t, netlink.LinkAdd(tap))
			if o.Queues = 1; multi != 0 {
				o.Queues = 3
			}
			info, files, err := Open(o)
			check(t, err)
			if info.VnetHeader == o.plain() || len(files) != o.Queues {
				t.Errorf("%+v, %d files", info, len(files))
			}
			closeAll(files)
			if err := netlink.LinkDel(tap); err != nil {
				t.Errorf("it is not there any more, after a link with %+v: %v", o, err)
			}
		}
	}
}

func TestAutoTakesPacketLinkWithoutTunDevice(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if _, err := os.Stat("/dev/net"); err == nil {
		check(t, unix.Mount("none", "/dev/net", "tmpfs", 0, ""))
	}
	o := testOptions(Auto)
	w := newWorld(t, o)
	if w.info.Kind != Packet || len(w.info.Notes) == 0 || !strings.Contains(w.info.Notes[0], tunPath) {
		t.Errorf("%+v", w.info)
	}
	w.pings()
	o.Kind, o.Name = TAP, "tap1"
	if _, _, err := Open(o); err == nil || !strings.Contains(err.Error(), tunPath) {
		t.Errorf("TAP where there is none: %v", err)
	}
}

func TestAutoTakesTAP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	needTAP(t)
	info, _ := openLink(t, testOptions(Auto))
	if info.Kind != TAP || len(info.Notes) != 0 {
		t.Errorf("%+v", info)
	}
}

func TestFailedOpenLeavesNothing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bothKinds(t, func(t *testing.T, kind Kind) {
		o := testOptions(kind)
		o.HardwareAddr = net.HardwareAddr{1, 0, 0, 0, 0, 1} // multicast: refused by the kernel
		before := descriptors(t)
		if _, _, err := Open(o); err == nil {
			t.Error("a multicast hardware address was taken")
		} else if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), o.Name) {
			t.Errorf("not one line that names the interface: %v", err)
		}
		if got := descriptors(t); got != before {
			t.Errorf("%d descriptors open, %d before", got, before)
		}
		if _, err := netlink.LinkByName(o.Name); err == nil {
			t.Error("the interface is still there")
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(d)
}

func TestCloseFreesDescriptorsAndTAP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bothKinds(t, func(t *testing.T, kind Kind) {
		o := testOptions(kind)
		o.Queues = 3
		netlink.LinkByName("lo") // whatever the package opens once
		before := descriptors(t)
		_, l := openLink(t, o)
		if len(l.Queues()) != 3 || descriptors(t) != before+3 {
			t.Errorf("%d queues, %d descriptors", len(l.Queues()), descriptors(t)-before)
		}
		check(t, l.Close())
		check(t, l.Close())
		if got := descriptors(t); got != before {
			t.Errorf("%d descriptors open, %d before", got, before)
		}
		if _, err := netlink.LinkByName(o.Name); err == nil && kind == TAP {
			t.Error("the TAP is still there")
		}
	})
}

func TestPacketLinkTellsItsReceiveBuffer(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	o := testOptions(Packet)
	info, l := openLink(t, o)
	if got := ReceiveBuffer(l); got < 64<<10 || got > wantedBuffer || got < info.ReceiveBuffer {
		t.Errorf("%d bytes attached, %d opened", got, info.ReceiveBuffer)
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"kind":     func(o *Options) { o.Kind = "tun" },
		"no name":  func(o *Options) { o.Name = "" },
		"name":     func(o *Options) { o.Name = "sixteen-bytes-xx" },
		"MTU":      func(o *Options) { o.MTU = 67 },
		"MTU high": func(o *Options) { o.MTU = 65522 },
		"queues":   func(o *Options) { o.Queues = -1 },
		"many":     func(o *Options) { o.Queues = 1000 },
		"address":  func(o *Options) { o.HardwareAddr = make([]byte, 8) },
		"qdisc":    func(o *Options) { o.QDisc = "fq" },
	} {
		o := testOptions(Auto)
		change(&o)
		if _, files, err := Open(o); err == nil || files != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAttachRefusesWhatIsNoLink(t *testing.T) {
	for _, kind := range []Kind{TAP, Packet, "serial"} {
		r, w, err := os.Pipe()
		check(t, err)
		defer w.Close()
		info := Info{Options: testOptions(kind), Kind: kind, VnetHeader: true}
		if _, err := Attach(info, []*os.File{r}); err == nil {
			t.Errorf("a pipe as %s accepted", kind)
		}
		if err := r.Close(); err == nil {
			t.Error("the file was not taken over")
		}
	}
	if _, err := Attach(Info{Options: testOptions(TAP), Kind: TAP}, nil); err == nil {
		t.Error("no descriptor at all accepted")
	}
}

// TestLinkCrossesToAnotherNamespace does what sbxnet does: the sandbox opens the
// link and passes it up, and the stack outside never enters the sandbox.
func TestLinkCrossesToAnotherNamespace(t *testing.T) {
	if os.Getenv("TAPDEV_TEST_SANDBOX") != "" {
		beSandbox(t, Kind(os.Getenv("TAPDEV_TEST_SANDBOX")))
		return
	}
	bothKinds(t, func(t *testing.T, kind Kind) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		defer unix.Close(pair[0])
		theirs := os.NewFile(uintptr(pair[1]), "sandbox")
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLinkCrossesToAnotherNamespace$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "TAPDEV_TEST_SANDBOX="+string(kind), "TAPDEV_TEST_IN_NAMESPACE=sandbox")
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		}
		hold, err := cmd.StdinPipe()
		check(t, err)
		startNamespaced(t, cmd)
		theirs.Close()
		defer func() {
			hold.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("sandbox: %v", err)
			}
		}()
		w := &world{t: t}
		w.info, w.link = receiveLink(t, pair[0])
		defer w.link.Close()
		w.pings()
		w.awaitIPv6()
	})
}

// beSandbox opens a link, hands it over, gives it addresses, and waits.
func beSandbox(t *testing.T, kind Kind) {
	info, files, err := Open(testOptions(kind))
	check(t, err)
	b, err := json.Marshal(info)
	check(t, err)
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	setAddresses(t, info.Options)
	check(t, unix.Sendmsg(3, b, unix.UnixRights(fds...), nil, 0))
	closeAll(files)
	os.Stdin.Read(make([]byte, 1))
}

func receiveLink(t *testing.T, fd int) (Info, Link) {
	t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 256)
	check(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
	check(t, err)
	var info Info
	check(t, json.Unmarshal(b[:n], &info))
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	check(t, err)
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		check(t, err)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "link"))
		}
	}
	l, err := Attach(info, files)
	check(t, err)
	return info, l
}
