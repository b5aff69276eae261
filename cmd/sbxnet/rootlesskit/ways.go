package rootlesskit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/spec"
)

// ways are those that lead to ::1 within a sandbox, seen from inside.
type ways struct {
	// own is the address at which they begin.
	own netip.Addr
	// open are by protocol and the port at which they begin.
	open map[loopbackOrder]io.Closer
}

// newWays makes the sandbox that this process is in fit for them; link is the
// name of its interface, own its address.
func newWays(link, own string) (*ways, error) {
	a, err := netip.ParseAddr(own)
	if err != nil {
		return nil, err
	}
	if err := redirectToLoopback(link); err != nil {
		return nil, fmt.Errorf("lead packets for 127.0.0.1 from %s to lo: %w", link, err)
	}
	return &ways{own: a, open: map[loopbackOrder]io.Closer{}}, nil
}

// redirectToLoopback has what arrives on link for 127.0.0.0/8 arrive on lo.
func redirectToLoopback(link string) error {
	from, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	// Such packets are not as those that have taken lo from the start: their
	// sources are not reached by way of it, and their destination is looked up
	// (ip_route_input_slow, net/ipv4/route.c).
	for key, value := range map[string]string{"rp_filter": "0", "route_localnet": "1"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/lo/"+key, []byte(value), 0); err != nil {
			return err
		}
	}
	index := from.Attrs().Index
	err = netlink.QdiscAdd(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	const destination = 16 // in the IPv4 header
	err = netlink.FilterReplace(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_IP},
		Sel: &netlink.TcU32Sel{
			Flags: netlink.TC_U32_TERMINAL, Nkeys: 1,
			Keys: []netlink.TcU32Key{{Mask: 0xff000000, Val: 0x7f000000, Off: destination}},
		},
		Actions: []netlink.Action{&netlink.MirredAction{
			ActionAttrs:  netlink.ActionAttrs{Action: netlink.TC_ACT_STOLEN},
			MirredAction: netlink.TCA_INGRESS_REDIR, Ifindex: lo.Attrs().Index,
		}},
	})
	if err != nil {
		return fmt.Errorf("add a u32 filter with mirred: %w", err)
	}
	return nil
}

// serve obeys orders until there are no more.
func (w *ways) serve(orders io.Reader, answers *json.Encoder) {
	d := json.NewDecoder(orders)
	for {
		var o loopbackOrder
		if d.Decode(&o) != nil {
			return
		}
		at, err := w.obey(o)
		a := loopbackAnswer{At: at}
		if err != nil {
			a.Error = err.Error()
		}
		if answers.Encode(a) != nil {
			return
		}
	}
}

func (w *ways) obey(o loopbackOrder) (at uint16, err error) {
	if o.At != 0 {
		o.Port = 0
		way := w.open[o]
		if way == nil {
			return 0, fmt.Errorf("no way begins at %s port %d", o.Protocol, o.At)
		}
		delete(w.open, o)
		return 0, way.Close()
	}
	to := netip.AddrPortFrom(netip.IPv6Loopback(), o.Port)
	var way io.Closer
	switch o.Protocol {
	case spec.TCP:
		way, at, err = openStreamWay(w.own, to)
	case spec.UDP:
		way, at, err = openDatagramWay(w.own, to)
	default:
		err = fmt.Errorf("unknown protocol %q", string(o.Protocol))
	}
	if err == nil {
		w.open[loopbackOrder{Protocol: o.Protocol, At: at}] = way
	}
	return at, err
}

// Bounds of one way.
const (
	mostStreams   = 4096
	mostDatagrams = 1024            // clients
	dialTime      = 5 * time.Second // far beyond what the kernel needs for ::1
	datagramIdle  = 2 * time.Minute // RFC 4787 §4.3
	datagramSize  = 64 << 10        // bytes
)

// openStreamWay carries connections from a free port of own to to.
func openStreamWay(own netip.Addr, to netip.AddrPort) (io.Closer, uint16, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
	if err != nil {
		return nil, 0, err
	}
	go func() {
		room := make(chan struct{}, mostStreams)
		for {
			room <- struct{}{}
			c, err := l.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no descriptors: later
				time.Sleep(10 * time.Millisecond)
				<-room
				continue
			}
			go func() {
				carryStream(c, to)
				<-room
			}()
		}
	}()
	return l, l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// carryStream joins a client with the server at to, until both have ended. Each
// end's close and reset is the other's.
func carryStream(client *net.TCPConn, to netip.AddrPort) {
	defer client.Close()
	c, err := net.DialTimeout("tcp", to.String(), dialTime)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	for _, d := range [2][2]*net.TCPConn{{client, server}, {server, client}} {
		both.Go(func() {
			if _, err := io.Copy(d[1], d[0]); err != nil {
				for _, end := range d {
					_ = end.SetLinger(0)
					end.Close()
				}
			}
			_ = d[1].CloseWrite()
		})
	}
	both.Wait()
}

// A datagramWay carries datagrams from a port of the sandbox's own address to to,
// and back.
type datagramWay struct {
	near *net.UDPConn
	to   *net.UDPAddr
	mu   sync.Mutex
	far  map[netip.AddrPort]*net.UDPConn // by client
}

func openDatagramWay(own netip.Addr, to netip.AddrPort) (io.Closer, uint16, error) {
	near, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
	if err != nil {
		return nil, 0, err
	}
	w := &datagramWay{near: near, to: net.UDPAddrFromAddrPort(to), far: map[netip.AddrPort]*net.UDPConn{}}
	go w.outward()
	return w, near.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

// outward carries what clients send.
func (w *datagramWay) outward() {
	b := make([]byte, datagramSize)
	for {
		n, client, err := w.near.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of an earlier datagram
		}
		if far := w.farEnd(client); far != nil {
			_ = far.SetReadDeadline(time.Now().Add(datagramIdle))
			_, _ = far.Write(b[:n])
		}
	}
}

// farEnd is the client's socket to the server, nil if there can be none.
func (w *datagramWay) farEnd(client netip.AddrPort) *net.UDPConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if far := w.far[client]; far != nil {
		return far
	}
	if len(w.far) == mostDatagrams {
		return nil
	}
	far, err := net.DialUDP("udp", nil, w.to)
	if err != nil {
		return nil
	}
	w.far[client] = far
	go w.homeward(far, client)
	return far
}

// homeward carries what the server answers, until nobody has spoken for a while.
func (w *datagramWay) homeward(far *net.UDPConn, client netip.AddrPort) {
	b := make([]byte, datagramSize)
	for {
		n, err := far.Read(b)
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			continue // there may be a server later
		case err != nil:
			w.mu.Lock()
			delete(w.far, client)
			w.mu.Unlock()
			far.Close()
			return
		}
		_ = far.SetReadDeadline(time.Now().Add(datagramIdle))
		_, _ = w.near.WriteToUDPAddrPort(b[:n], client)
	}
}

// Close ends the way and all that is on it.
func (w *datagramWay) Close() error {
	err := w.near.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, far := range w.far {
		far.Close()
	}
	return err
}
