package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// flow is a TCP connection as the one who sends sees it.
type flow struct{ from, to netip.AddrPort }

// check is an error if there can be no such connection.
func (c flow) check() error {
	for _, a := range []netip.AddrPort{c.from, c.to} {
		switch {
		case !a.Addr().IsValid() || a.Port() == 0 || a.Addr().IsUnspecified():
			return errors.New("not the address and port of an end of a connection")
		case a.Addr().Is4In6():
			return errors.New("an IPv4 address in the form of an IPv6 one")
		case a.Addr().Zone() != "":
			return errors.New("an address with a zone")
		}
	}
	if c.from.Addr().BitLen() != c.to.Addr().BitLen() {
		return errors.New("addresses of different families")
	}
	return nil
}

func (c flow) family() uint8 { return uint8(socketFamily(c.from.Addr().Is6())) }

// owner is what a socket says of itself, as far as it tells its packets' route.
type owner struct {
	established bool
	user, mark  uint32
}

// The wire format of sock_diag (struct inet_diag_req_v2 and inet_diag_msg in
// linux/inet_diag.h). Both have the addresses of a connection in the same form:
// ports and addresses in network byte order, then the interface and a cookie.
const (
	diagRequestID   = 8
	diagRequestSize = 56
	diagReplyID     = 4
	diagReplySize   = 72
	diagReplyUser   = 64

	diagSource      = 4 // within the ID
	diagDestination = 20
	diagInterface   = 36
	diagCookie      = 40

	diagMark = 15 // INET_DIAG_MARK, an attribute for who is capable
)

// owner asks the kernel for the socket that has the connection. It looks as for a
// packet of it (inet_diag_find_one_icsk, net/ipv4/inet_diag.c): an IPv6 socket that
// is connected to IPv4 is found as one of IPv4, and a listening one if there is
// none. One bound to an interface is not found.
func (c flow) owner() (owner, error) {
	b := make([]byte, diagRequestSize)
	b[0], b[1] = c.family(), unix.IPPROTO_TCP
	id := b[diagRequestID:]
	binary.BigEndian.PutUint16(id, c.from.Port())
	binary.BigEndian.PutUint16(id[2:], c.to.Port())
	copy(id[diagSource:], c.from.Addr().AsSlice())
	copy(id[diagDestination:], c.to.Addr().AsSlice())
	binary.NativeEndian.PutUint64(id[diagCookie:], 1<<64-1) // any (INET_DIAG_NOCOOKIE)

	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	request.AddRawData(b)
	replies, err := request.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err == nil && (len(replies) != 1 || len(replies[0]) < diagReplySize) {
		err = errors.New("no answer")
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return owner{}, fmt.Errorf("look for its socket: %w", err)
	}
	if err != nil || diagFlow(replies[0]) != c || binary.NativeEndian.Uint32(replies[0][diagReplyID+diagInterface:]) != 0 {
		return owner{}, fmt.Errorf("no socket has that connection, without being bound to an interface: %w", unix.ENOENT)
	}
	return diagOwner(replies[0])
}

// diagFlow is the connection that a reply is about.
func diagFlow(reply []byte) flow {
	id := reply[diagReplyID:]
	address := func(b []byte) netip.Addr {
		if reply[0] == unix.AF_INET6 {
			return netip.AddrFrom16([16]byte(b)).Unmap()
		}
		return netip.AddrFrom4([4]byte(b))
	}
	return flow{
		netip.AddrPortFrom(address(id[diagSource:diagDestination]), binary.BigEndian.Uint16(id)),
		netip.AddrPortFrom(address(id[diagDestination:diagInterface]), binary.BigEndian.Uint16(id[2:])),
	}
}

func diagOwner(reply []byte) (owner, error) {
	o := owner{
		established: reply[1] == unix.BPF_TCP_ESTABLISHED,
		user:        binary.NativeEndian.Uint32(reply[diagReplyUser:]),
	}
	attributes, err := nl.ParseRouteAttr(reply[diagReplySize:])
	if err != nil {
		return owner{}, fmt.Errorf("look for its socket: %w", err)
	}
	for _, a := range attributes {
		if a.Attr.Type == diagMark && len(a.Value) == 4 {
			o.mark = binary.NativeEndian.Uint32(a.Value)
		}
	}
	return o, nil
}

// checkRoute is an error if the kernel would send what a socket sends elsewhere
// than to lo by the table of steering.go.
func (c flow) checkRoute(o owner) error {
	request := c.request(unix.RTM_GETROUTE, 0, unix.RTM_F_LOOKUP_TABLE,
		nl.NewRtAttr(unix.RTA_IP_PROTO, []byte{unix.IPPROTO_TCP}),
		nl.NewRtAttr(unix.RTA_SPORT, nl.BEUint16Attr(c.from.Port())),
		nl.NewRtAttr(unix.RTA_DPORT, nl.BEUint16Attr(c.to.Port())),
		nl.NewRtAttr(unix.RTA_UID, nl.Uint32Attr(o.user)),
		nl.NewRtAttr(unix.RTA_MARK, nl.Uint32Attr(o.mark)))
	replies, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return fmt.Errorf("look up its route: %w", err)
	}
	if len(replies) == 0 || len(replies[0]) < unix.SizeofRtMsg {
		return errors.New("look up its route: no answer")
	}
	attributes, err := nl.ParseRouteAttr(replies[0][unix.SizeofRtMsg:])
	if err != nil {
		return fmt.Errorf("look up its route: %w", err)
	}
	for _, a := range attributes {
		if a.Attr.Type == unix.RTA_TABLE && len(a.Value) == 4 && binary.NativeEndian.Uint32(a.Value) == SocketMark {
			return nil
		}
	}
	return errors.New("its route is another: a rule comes before ours")
}

// addRule adds the rule by which the connection leads to lo.
func (c flow) addRule(priority int) error {
	return c.changeRule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, priority)
}

func (c flow) deleteRule(priority int) error {
	return c.changeRule(unix.RTM_DELRULE, 0, priority)
}

// changeRule does not leave it to netlink.RuleAdd, which says the protocol in four
// bytes: the kernel tells of that in its log.
func (c flow) changeRule(operation, flags, priority int) error {
	request := c.request(operation, flags|unix.NLM_F_ACK, 0,
		nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(uint32(priority))),
		nl.NewRtAttr(nl.FRA_TABLE, nl.Uint32Attr(SocketMark)),
		nl.NewRtAttr(nl.FRA_IP_PROTO, []byte{unix.IPPROTO_TCP}),
		nl.NewRtAttr(nl.FRA_SPORT_RANGE, onePort(c.from.Port())),
		nl.NewRtAttr(nl.FRA_DPORT_RANGE, onePort(c.to.Port())))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// request is one about routing that begins with struct rtmsg, or fib_rule_hdr,
// which has the same form, and both addresses (FRA_DST is RTA_DST, and so on).
func (c flow) request(operation, flags int, rtmFlags uint32, attributes ...*nl.RtAttr) *nl.NetlinkRequest {
	request := nl.NewNetlinkRequest(operation, flags)
	bits := uint8(c.from.Addr().BitLen())
	request.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{
		Family: c.family(), Dst_len: bits, Src_len: bits, Type: unix.RTN_UNICAST, Flags: rtmFlags,
	}})
	request.AddData(nl.NewRtAttr(unix.RTA_DST, c.to.Addr().AsSlice()))
	request.AddData(nl.NewRtAttr(unix.RTA_SRC, c.from.Addr().AsSlice()))
	for _, a := range attributes {
		request.AddData(a)
	}
	return request
}

// onePort is struct fib_rule_port_range, in native byte order.
func onePort(p uint16) []byte {
	return binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, p), p)
}
