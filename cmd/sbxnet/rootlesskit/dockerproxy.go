package rootlesskit

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/api"
	"github.com/rootless-containers/rootlesskit/v3/pkg/api/client"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/state"
)

// realProxy is Docker's own userland proxy, which stays necessary: for clients
// in the sandbox itself, and from IPv6 to a container that has none.
const realProxy = "docker-proxy"

// signalParent is the descriptor by which dockerd learns how it went: "0\n", as
// the real proxy writes it, or "1\n" and why.
const signalParent = 3

// apiTime bounds a request to the API.
const apiTime = 10 * time.Second

// DockerProxyMain is sbxnet under the name of rootlesskit-docker-proxy, which a
// rootless dockerd before version 28 runs, within the sandbox, for each published
// port: it has the port opened on the host, and the real proxy listen for it.
// args[0] is the name that it was called by.
//
// To the real program's way this adds IPv6. Its port leads to the sandbox's own
// IPv6 address, where the real proxy waits, as it cannot for two families at one
// address.
func DockerProxyMain(args []string) int {
	done := os.NewFile(signalParent, "signal-parent")
	if err := dockerProxy(args[1:], done); err != nil {
		fmt.Fprintf(done, "1\n%s", err)
		fmt.Fprintln(os.Stderr, "rootlesskit-docker-proxy: "+console.OneLine(err.Error()))
		return 1
	}
	return 0
}

// A proxied is one port as dockerd describes it.
type proxied struct {
	protocol      string
	hostIP        netip.Addr
	hostPort      int
	containerIP   string
	containerPort int
}

func readProxied(args []string) (*proxied, error) {
	p := &proxied{}
	f := flag.NewFlagSet("rootlesskit-docker-proxy", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&p.protocol, "proto", "tcp", "")
	f.StringVar(&p.containerIP, "container-ip", "", "")
	f.IntVar(&p.containerPort, "container-port", -1, "")
	f.IntVar(&p.hostPort, "host-port", -1, "")
	f.Func("host-ip", "", func(s string) (err error) { p.hostIP, err = netip.ParseAddr(s); return err })
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if !p.hostIP.IsValid() {
		return nil, errors.New("no -host-ip")
	}
	p.hostIP = p.hostIP.Unmap()
	return p, nil
}

// dockerProxy returns when dockerd does not need the port any more.
func dockerProxy(args []string, done *os.File) error {
	p, err := readProxied(args)
	if err != nil {
		return err
	}
	dir := os.Getenv("ROOTLESSKIT_STATE_DIR")
	if dir == "" {
		return errors.New("ROOTLESSKIT_STATE_DIR is not set: not in a sandbox")
	}
	c, err := client.New(filepath.Join(dir, "api.sock"))
	if err != nil {
		return fmt.Errorf("the sandbox's API: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), apiTime)
	defer cancel()
	info, err := c.Info(ctx)
	if err != nil {
		return fmt.Errorf("the sandbox's API: %w", err)
	}
	if driver := info.PortDriver; driver == nil || driver.Driver == driverNone || driver.Driver == driverImplicit {
		return becomeProxy(args)
	}
	child := p.child(info, interfaceAddresses())
	st, err := c.PortManager().AddPort(ctx, p.spec(child))
	if err != nil {
		return err
	}
	err = p.runProxy(child, done)
	ctx, cancel = context.WithTimeout(context.Background(), apiTime)
	defer cancel()
	return errors.Join(err, c.PortManager().RemovePort(ctx, st.ID))
}

// becomeProxy leaves the port to the real proxy alone.
func becomeProxy(args []string) error {
	path, err := exec.LookPath(realProxy)
	if err != nil {
		return err
	}
	return syscall.Exec(path, append([]string{realProxy}, args...), os.Environ())
}

// child is the address in the sandbox that the port leads to.
func (p *proxied) child(info *api.Info, own []netip.Addr) netip.Addr {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if !info.PortDriver.DisallowLoopbackChildIP && info.PortDriver.Driver != state.Driver {
		if p.hostIP.Is6() {
			return netip.IPv6Loopback()
		}
		return loopback
	}
	if p.hostIP.Is4() && info.NetworkDriver != nil {
		if a, ok := netip.AddrFromSlice(info.NetworkDriver.ChildIP); ok {
			return a.Unmap()
		}
	}
	for _, a := range own {
		if a.Is6() == p.hostIP.Is6() && a.IsGlobalUnicast() {
			return a
		}
	}
	return loopback // which the network tries last
}

// interfaceAddresses are those of the network that this process is in, without
// bridges', which are the containers' gateways.
func interfaceAddresses() []netip.Addr {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var list []netip.Addr
	for _, i := range interfaces {
		if _, err := os.Stat("/sys/class/net/" + i.Name + "/bridge"); err == nil {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				list = append(list, p.Addr().Unmap())
			}
		}
	}
	return list
}

// spec is the port for the API, which wants to know the family.
func (p *proxied) spec(child netip.Addr) port.Spec {
	family := "4"
	if p.hostIP.Is6() {
		family = "6"
	}
	return port.Spec{
		Proto: p.protocol + family, ParentIP: p.hostIP.String(), ParentPort: p.hostPort,
		ChildIP: child.String(), ChildPort: p.hostPort,
	}
}

// runProxy has the real proxy listen on child until dockerd interrupts us.
func (p *proxied) runProxy(child netip.Addr, done *os.File) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	runtime.LockOSThread() // the parent death signal goes by it
	cmd := exec.Command(realProxy, "-proto", p.protocol,
		"-host-ip", child.String(), "-host-port", strconv.Itoa(p.hostPort),
		"-container-ip", p.containerIP, "-container-port", strconv.Itoa(p.containerPort))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{done}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", realProxy, err)
	}
	done.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-stop:
		_ = cmd.Process.Kill()
		<-ended
		return nil
	case err := <-ended: // it has told dockerd why
		if err == nil {
			err = errors.New("ended by itself")
		}
		return fmt.Errorf("%s: %w", realProxy, err)
	}
}
