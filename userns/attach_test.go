package userns

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbxnet/tapdev"
)

// theirs is a namespace that somebody else has made: a process in it that
// waits for the end of the test.
type theirs struct {
	pid int // of the process inside, as seen from here
}

// makeNamespace makes one with unshare(1), and runs a script in it before it
// waits.
func makeNamespace(t *testing.T, script string, flags ...string) theirs {
	t.Helper()
	args := append(flags, "--", "sh", "-c", script+"\necho ready; exec cat")
	cmd := exec.Command("unshare", args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	if err := cmd.Start(); err != nil {
		t.Fatalf("unshare %q: %v", flags, err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("unshare %q said %q: %v", flags, line, err)
	}
	ns := theirs{cmd.Process.Pid}
	for _, f := range flags {
		if f == "--fork" {
			ns.pid = childrenOf(cmd.Process.Pid)[0]
		}
	}
	return ns
}

// rootInside makes a user namespace where we are ID 0.
var rootInside = []string{"--user", "--map-root-user", "--net"}

// end kills the process.
func (ns theirs) end(t *testing.T) {
	t.Helper()
	must(t, syscall.Kill(ns.pid, syscall.SIGKILL))
}

// run runs a script in the namespace and returns what it printed.
func (ns theirs) run(t testing.TB, script string) string {
	t.Helper()
	args := []string{"--net", "--target", fmt.Sprint(ns.pid), "--user", "--preserve-credentials", "sh", "-c", script}
	user, err := pathNamespace(fmt.Sprintf("/proc/%d/ns/user", ns.pid))
	must(t, err)
	if own, _ := ownNamespace("user"); own == user {
		args = append(args[:3], "sh", "-c", script)
	}
	out, err := exec.Command("nsenter", args...).CombinedOutput()
	if err != nil {
		t.Errorf("in the namespace: %s: %v\n%s", script, err, out)
	}
	return string(out)
}

// attachTo is an attachment to ns like that of slirp4netns --configure.
func attachTo(ns theirs) AttachConfig {
	cfg := linked()
	return AttachConfig{
		PID: ns.pid, Link: cfg.Link, Configure: true, Addresses: cfg.Addresses, Gateways: cfg.Gateways,
	}
}

// takeOver is an attachment to ns by the TAP that is in it.
func takeOver(ns theirs) AttachConfig {
	cfg := attachTo(ns)
	cfg.Link.Kind = tapdev.TAP
	return cfg
}

func attached(t *testing.T, cfg AttachConfig) *Attachment {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	a, err := Attach(cfg)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return a
}

func TestAttachConfiguresALinkInANamespaceOfOthers(t *testing.T) {
	for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
		t.Run(string(kind), func(t *testing.T) {
			if kind == tapdev.TAP {
				needTAP(t)
			}
			ns := makeNamespace(t, "", rootInside...)
			cfg := attachTo(ns)
			cfg.Link.Kind = kind
			a := attached(t, cfg)
			out := ns.run(t, "ip -o addr show tap0; ip route; ip -6 route; ip -o link show lo")
			for _, want := range []string{"inet 10.0.2.100/24", "inet6 fd00::100/64", "default via 10.0.2.2 dev tap0", "default via fd00::2 dev tap0", "LOOPBACK,UP"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			for line := range strings.Lines(out) {
				if strings.Contains(line, "fd00::100") && strings.Contains(line, "tentative") {
					t.Errorf("an address cannot be used yet: %s", line)
				}
			}
			f := a.Found()
			if fmt.Sprint(f.Addresses) != fmt.Sprint(cfg.Addresses) || fmt.Sprint(f.Gateways) != fmt.Sprint(cfg.Gateways) ||
				f.MTU != 1500 || f.HardwareAddr.String() != "02:00:00:00:00:01" || !f.Up {
				t.Errorf("found %+v", f)
			}
			info, files := a.Link()
			if info.Kind != kind || info.Name != "tap0" || len(files) != cfg.Link.Queues {
				t.Errorf("info %+v, %d files", info, len(files))
			}
			link, err := tapdev.Attach(info, files)
			must(t, err)
			answersARP(t, link, ns)
			must(t, link.Close())
			must(t, a.Close())
			until(t, "the link goes with its descriptors", func() bool {
				return !strings.Contains(ns.run(t, "ip -o link"), "tap0")
			})
		})
	}
}

// The next link of a name is not kept out by what the kernel has not yet removed
// of the last one.
func TestAttachFollowsAnAttachmentThatHasJustEnded(t *testing.T) {
	for _, kind := range []tapdev.Kind{tapdev.TAP, tapdev.Packet} {
		t.Run(string(kind), func(t *testing.T) {
			if kind == tapdev.TAP {
				needTAP(t)
			}
			ns := makeNamespace(t, "", rootInside...)
			cfg := attachTo(ns)
			cfg.Link.Kind = kind
			for range 5 {
				a := attached(t, cfg)
				_, files := a.Link()
				closeAll(files)
				must(t, a.Close())
			}
		})
	}
}

// answersARP shows that frames pass in both ways: the namespace asks who has
// the gateway's address.
func answersARP(t *testing.T, link tapdev.Link, ns theirs) {
	t.Helper()
	go exec.Command("nsenter", "--net", "--target", fmt.Sprint(ns.pid), "--user", "--preserve-credentials",
		"ping", "-c", "1", "-W", "2", "10.0.2.2").Run()
	in := make([]tapdev.Received, 16)
	until(t, "the namespace asks for its gateway", func() bool {
		for _, q := range link.Queues() {
			n, err := q.Read(in)
			must(t, err)
			if slices.ContainsFunc(in[:n], asksForGateway) {
				return true
			}
		}
		return false
	})
}

// asksForGateway reports whether a frame is an ARP request for 10.0.2.2.
func asksForGateway(r tapdev.Received) bool {
	d := r.Data
	return len(d) >= 42 && d[12] == 8 && d[13] == 6 && netip.AddrFrom4([4]byte(d[38:42])) == netip.MustParseAddr("10.0.2.2")
}

func needTAP(t *testing.T) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		skip(t, "no TAP: %v", err)
	}
	unix.Close(fd)
}

func TestAttachByPath(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	cfg := attachTo(ns)
	cfg.PID, cfg.NetNS = 0, fmt.Sprintf("/proc/%d/ns/net", ns.pid)
	a := attached(t, cfg)
	if got, err := pathNamespace(fmt.Sprintf("/proc/%d/ns/net", a.PID())); err != nil {
		// Who is not dumpable shows its namespaces to nobody without capabilities.
		if !errors.Is(err, os.ErrPermission) {
			t.Error(err)
		}
	} else if want, _ := pathNamespace(cfg.NetNS); got != want {
		t.Errorf("our process is in network namespace %v, want %v", got, want)
	}
	dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", a.PID()))
	if err != nil || !strings.Contains(string(dev), "tap0") {
		t.Errorf("/proc/PID/net/dev: %v\n%s", err, dev)
	}
	select {
	case <-a.Done():
		t.Error("Done while the namespace is there")
	default:
	}
	ns.end(t)
	soon(t, a.Done())
}

// soon waits for a channel to be closed, and no longer than a look at a path
// takes and a slow machine needs.
func soon(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("not done")
	}
}

func TestAttachmentIsDoneWhenTheProcessEnds(t *testing.T) {
	ns := makeNamespace(t, "", rootInside...)
	a := attached(t, attachTo(ns))
	ns.end(t)
	soon(t, a.Done())
	pid := a.PID()
	must(t, a.Close())
	gone(t, pid)
}

func TestAttachRefusesTheHostsOwnNetwork(t *testing.T) {
	for _, cfg := range []AttachConfig{{PID: os.Getpid()}, {NetNS: "/proc/self/ns/net"}, {NetNS: "/proc/thread-self/ns/net"}} {
		cfg.Link = linked().Link
		if _, err := Attach(cfg); !errors.Is(err, errOwnNetwork) || !strings.Contains(err.Error(), "unshare --net") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestAttachRefusesWhatIsNoNamespace(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, syscall.Mkfifo(path("fifo"), 0o600))
	must(t, os.WriteFile(path("file"), nil, 0o600))
	must(t, os.Symlink(path("loop"), path("loop")))
	must(t, os.Symlink(path("fifo"), path("link")))
	ns := makeNamespace(t, "", rootInside...)
	user := fmt.Sprintf("/proc/%d/ns/user", ns.pid)
	for _, c := range []struct {
		cfg  AttachConfig
		want string
	}{
		{AttachConfig{NetNS: path("fifo")}, "a named pipe"},
		{AttachConfig{NetNS: path("link")}, "a named pipe"},
		{AttachConfig{NetNS: path("file")}, "nothing is mounted on it"},
		{AttachConfig{NetNS: dir}, "a directory"},
		{AttachConfig{NetNS: "/dev/null"}, "a device"},
		{AttachConfig{NetNS: path("loop")}, "too many levels of symbolic links"},
		{AttachConfig{NetNS: path("none")}, "no such file"},
		{AttachConfig{NetNS: user}, "file of a user namespace, not of a network namespace"},
		{AttachConfig{PID: ns.pid, UserNS: path("fifo")}, "a named pipe"},
		{AttachConfig{PID: ns.pid, UserNS: fmt.Sprintf("/proc/%d/ns/net", ns.pid)}, "not of a user namespace"},
		{AttachConfig{PID: -1}, "from 1 on"},
		{AttachConfig{}, "from 1 on"},
		{AttachConfig{PID: 1<<22 + 1}, "no such process"},
		{AttachConfig{PID: ns.pid, NetNS: "/x"}, "one of them"},
		{AttachConfig{NetNS: strings.Repeat("x", 5000)}, "file name too long"},
		{AttachConfig{NetNS: "/proc/self/ns/net\x00"}, "invalid argument"},
	} {
		c.cfg.Link = linked().Link
		_, err := Attach(c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want one line with %q", c.cfg, err, c.want)
		}
	}
}

// headed reports whether there is anything for a virtio header to say.
func headed(o tapdev.Options) bool { return o.GSO || o.TXChecksum || o.RXChecksum }

func TestAttachTakesOverAPersistentTAP(t *testing.T) {
	needTAP(t)
	for _, multi := range []string{"", " multi_queue"} {
		t.Run(strings.TrimSpace("plain"+multi), func(t *testing.T) {
			ns := makeNamespace(t, "ip tuntap add tap0 mode tap"+multi+" && ip link set tap0 address 02:00:00:00:00:99 mtu 9000", rootInside...)
			cfg := takeOver(ns)
			cfg.Configure, cfg.Addresses, cfg.Gateways = false, nil, nil
			cfg.Link.MTU, cfg.Link.HardwareAddr, cfg.Link.Queues = 0, nil, 1
			a := attached(t, cfg)
			info, files := a.Link()
			defer closeAll(files)
			if info.MTU != 9000 || info.HardwareAddr.String() != "02:00:00:00:00:99" || info.VnetHeader != headed(info.Options) || len(files) != info.Queues {
				t.Errorf("info %+v, %d files", info, len(files))
			}
			if f := a.Found(); len(f.Addresses) != 0 || len(f.Gateways) != 0 || f.Up || f.MTU != 9000 {
				t.Errorf("found %+v", f)
			}
			ns.run(t, "ip link set tap0 up mtu 1400; ip addr add 192.168.7.2/24 dev tap0; ip addr add fd11::2/64 dev tap0 nodad; ip route add default via 192.168.7.1; ip route add default via fd11::1")
			want := "[192.168.7.2/24 fd11::2/64] [192.168.7.1 fd11::1] 1400 true"
			for last := ""; last != want; {
				select {
				case <-a.Changed():
				case <-time.After(10 * time.Second):
					t.Fatalf("found %s, want %s", last, want)
				}
				f := a.Found()
				last = fmt.Sprint(f.Addresses, f.Gateways, f.MTU, f.Up)
			}
			must(t, a.Close())
			closeAll(files)
			if out := ns.run(t, "ip -o link"); !strings.Contains(out, "tap0") {
				t.Errorf("the TAP of others is gone:\n%s", out)
			}
		})
	}
}

func TestAttachRefusesASecondDefaultRoute(t *testing.T) {
	const dummy = "ip link add v0 type veth peer name v1; ip link set v0 up; ip addr add 192.168.9.2/24 dev v0; ip addr add fd22::2/64 dev v0 nodad; "
	for _, c := range []struct{ script, want string }{
		{"ip route add default via 192.168.9.1", "default route for IPv4 in it already (via 192.168.9.1 dev v0)"},
		{"ip route add default via fd22::1", "default route for IPv6 in it already (via fd22::1 dev v0)"},
		{"ip route add default via 192.168.9.1; ip route add default via 192.168.9.7 metric 5", "2 default routes for IPv4"},
		{"ip route add default nexthop via fd22::1 nexthop via fd22::7", "2 default routes for IPv6"},
	} {
		ns := makeNamespace(t, dummy+c.script, rootInside...)
		_, err := Attach(attachTo(ns))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", c.script, err, c.want)
		}
		if out := ns.run(t, "ip -o link"); strings.Contains(out, "tap0") {
			t.Errorf("a link was left:\n%s", out)
		}
	}
}

func TestAddressesCanBeUsedWhenAttachReturns(t *testing.T) {
	for _, script := range []string{"", "ip tuntap add tap0 mode tap && ip link set tap0 up"} {
		if script != "" {
			needTAP(t)
		}
		ns := makeNamespace(t, script, rootInside...)
		cfg := attachTo(ns)
		if script != "" {
			cfg = takeOver(ns)
		}
		a := attached(t, cfg)
		// An address that is still tentative cannot be bound.
		files, err := a.Listen([]Socket{
			{Addr: netip.MustParseAddrPort("[fd00::100]:80")}, {UDP: true, Addr: netip.MustParseAddrPort("10.0.2.100:53")},
		})
		if err != nil {
			t.Errorf("%q: %v", script, err)
		}
		closeAll(files)
	}
}

func TestAttachAgainFindsItsOwnAddresses(t *testing.T) {
	needTAP(t)
	ns := makeNamespace(t, "ip tuntap add tap0 mode tap", rootInside...)
	for range 3 {
		a := attached(t, takeOver(ns))
		if got, want := fmt.Sprint(a.Found().Gateways), fmt.Sprint(linked().Gateways); got != want {
			t.Errorf("gateways %s, want %s", got, want)
		}
		must(t, a.Close())
	}
}

func TestAttachRefusesAnInterfaceThatIsNoTAPOfOurs(t *testing.T) {
	needTAP(t)
	ns := makeNamespace(t, "ip link add veth0 type veth peer name veth1; ip tuntap add tun0 mode tun; ip tuntap add tap7 mode tap", rootInside...)
	holder := takeOver(ns)
	holder.Link.Name, holder.Configure = "tap7", false
	attached(t, holder) // the descriptors are not taken, and so held
	for _, c := range []struct {
		name string
		kind tapdev.Kind
		want string
	}{
		{"veth0", tapdev.Auto, "no TAP (it is a veth)"},
		{"lo", tapdev.TAP, "no TAP"},
		{"tun0", tapdev.Auto, "has no Ethernet"},
		{"tap7", tapdev.Auto, "in use by another program"},
		{"tap7", tapdev.Packet, "the packet link cannot use it"},
		{strings.Repeat("x", 16), tapdev.Auto, "1 to 15 bytes"},
	} {
		cfg := attachTo(ns)
		cfg.Link.Name, cfg.Link.Kind = c.name, c.kind
		a, err := Attach(cfg)
		if err == nil {
			a.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s as %s: %v, want %q", c.name, c.kind, err, c.want)
		}
	}
}

// The name of a packet link is free as soon as Close returns; that of a TAP when its
// descriptors are closed.
func TestPacketLinkIsGoneWhenCloseReturns(t *testing.T) {
	theirs := makeNamespace(t, "", rootInside...)
	for range 5 {
		cfg := attachTo(theirs)
		cfg.Link.Kind = tapdev.Packet
		a, err := Attach(cfg)
		must(t, err)
		if out := theirs.run(t, "ip -o link"); !strings.Contains(out, cfg.Link.Name) {
			t.Fatalf("no %s: %s", cfg.Link.Name, out)
		}
		must(t, a.Close())
		if out := theirs.run(t, "ip -o link"); strings.Count(out, "\n") != 1 {
			t.Fatalf("left: %s", out)
		}
	}
}
