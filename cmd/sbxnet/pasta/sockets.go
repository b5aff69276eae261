package pasta

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"sbxnet/portfwd/spec"
)

// eachServer calls f for each socket that waits for clients in the network of a
// process, of the protocols that are asked for.
func eachServer(pid int, tcp, udp bool, f func(spec.Protocol, netip.AddrPort)) error {
	for _, t := range []struct {
		name     string
		protocol spec.Protocol
		wanted   bool
	}{{"tcp", spec.TCP, tcp}, {"tcp6", spec.TCP, tcp}, {"udp", spec.UDP, udp}, {"udp6", spec.UDP, udp}} {
		if !t.wanted {
			continue
		}
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, t.name))
		if os.IsNotExist(err) && strings.HasSuffix(t.name, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		err = readSockets(file, t.protocol, func(at netip.AddrPort) { f(t.protocol, at) })
		file.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", file.Name(), err)
		}
	}
	return nil
}

// States of sockets in /proc/net (include/net/tcp_states.h): a listening TCP
// socket, and a UDP socket that is not connected.
const (
	stateListen = "0A"
	stateClose  = "07"
)

// maxSockets bounds how much of a namespace's table is read, in bytes: some 25000
// sockets.
const maxSockets = 4 << 20

// readSockets calls f for each server in a table of /proc/net.
func readSockets(table io.Reader, protocol spec.Protocol, f func(netip.AddrPort)) error {
	state := stateListen
	if protocol == spec.UDP {
		state = stateClose
	}
	lines := bufio.NewScanner(io.LimitReader(table, maxSockets))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		if at, ok := parseSocket(fields[1]); ok && at.Port() != 0 {
			f(at)
		}
	}
	return lines.Err()
}

// parseSocket reads an address of /proc/net, such as 0100007F:1F90: each group of
// four bytes is a number in the machine's byte order.
func parseSocket(text string) (netip.AddrPort, bool) {
	address, port, ok := strings.Cut(text, ":")
	if !ok || len(address) != 8 && len(address) != 32 {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	var b []byte
	for i := 0; i < len(address); i += 8 {
		n, err := strconv.ParseUint(address[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(n))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}
