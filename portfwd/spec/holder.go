package spec

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder is a process that has a socket open.
type holder struct {
	name string // its comm, fit for a terminal
	pid  int
}

func (h holder) String() string { return fmt.Sprintf("%s (pid %d)", h.name, h.pid) }

// findHolder looks for the process whose socket is in the way of binding at: it
// finds the socket's inode in proc's net tables and then the descriptor that
// leads to it. It fails where the process belongs to somebody else, whose
// descriptors only root sees, and when the socket is gone by now.
func findHolder(proc string, p Protocol, at netip.AddrPort) (holder, bool) {
	best := ranked{}
	for _, table := range []string{string(p), string(p) + "6"} {
		if r := bestSocket(filepath.Join(proc, "net", table), at); r.rank > best.rank {
			best = r
		}
	}
	if best.rank == 0 {
		return holder{}, false
	}
	return holderOf(proc, best.inode)
}

// ranked is a socket and how likely it is to be the one in the way.
type ranked struct {
	inode string
	rank  int // 0: not at all
}

func bestSocket(table string, at netip.AddrPort) ranked {
	f, err := os.Open(table)
	if err != nil {
		return ranked{}
	}
	defer f.Close()
	best := ranked{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if r := rank(lines.Text(), at); r.rank > best.rank {
			best = r
		}
	}
	return best
}

// rank reads one line of /proc/net/tcp and its kin (net/ipv4/tcp_ipv4.c,
// get_tcp4_sock): number, local and remote address, state, …, inode as the
// tenth field.
func rank(line string, at netip.AddrPort) ranked {
	const (
		local, state, inode = 1, 3, 9
		listening           = "0A" // TCP_LISTEN
		unconnected         = "07" // TCP_CLOSE, a UDP socket that is bound only
	)
	fields := strings.Fields(line)
	if len(fields) <= inode || fields[inode] == "0" {
		return ranked{}
	}
	a, ok := parseTableAddress(fields[local])
	if !ok || a.Port() != at.Port() {
		return ranked{}
	}
	r := ranked{inode: fields[inode]}
	switch {
	case a.Addr() == at.Addr().WithZone(""):
		r.rank = 4
	case a.Addr().Is4() == at.Addr().Is4() && (a.Addr().IsUnspecified() || at.Addr().IsUnspecified()):
		r.rank = 3
	case a.Addr() == netip.IPv6Unspecified():
		r.rank = 2 // takes IPv4 as well unless it is IPV6_V6ONLY, which the table does not tell
	default:
		return ranked{}
	}
	if fields[state] == listening || fields[state] == unconnected {
		r.rank += 4
	}
	return r
}

// parseTableAddress reads the kernel's ADDRESS:PORT, where the address is one or
// four 32-bit words in the machine's byte order and the port a plain number, all
// in hexadecimal.
func parseTableAddress(text string) (netip.AddrPort, bool) {
	words, portText, found := strings.Cut(text, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	raw, hexErr := hex.DecodeString(words)
	if !found || err != nil || hexErr != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), ok
}

// holderOf finds the process with the lowest ID that has the socket open.
func holderOf(proc, inode string) (holder, bool) {
	target := "socket:[" + inode + "]"
	found := holder{}
	entries, _ := os.ReadDir(proc)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || found.pid != 0 && pid > found.pid {
			continue
		}
		if hasDescriptor(filepath.Join(proc, e.Name(), "fd"), target) {
			found = holder{name: command(filepath.Join(proc, e.Name(), "comm")), pid: pid}
		}
	}
	return found, found.pid != 0
}

func hasDescriptor(dir, target string) bool {
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if link, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && link == target {
			return true
		}
	}
	return false
}

// command is the process's name. A process chooses that freely, so it may hold
// anything.
func command(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "a process"
	}
	return shown(strings.TrimSuffix(string(text), "\n"))
}
