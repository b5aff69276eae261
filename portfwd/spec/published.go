package spec

import (
	"fmt"
	"net/netip"
)

// Runs of ports longer than this are one line of [Lines], shorter ones a line
// for each port, ready to be clicked on.
const mostListed = 10

// String is how a published port is printed: http://127.0.0.1:8080 -> 80/tcp,
// or udp 127.0.0.1:5353 -> 53/udp. HTTP is a guess that is most often right and
// makes terminals offer the line as a link. A port with a Child says so:
// -> 10.0.2.100:80/tcp.
func (b *Bound) String() string {
	host := fmt.Sprintf("%s:%d", bracketed(b.Host.Addr()), b.Host.Port())
	if b.Protocol == TCP {
		return fmt.Sprintf("http://%s -> %s%d/tcp", host, b.at(), b.Port)
	}
	return fmt.Sprintf("%s %s -> %s%d/%s", b.Protocol, host, b.at(), b.Port, b.Protocol)
}

// at is the Child in front of a port, if there is one.
func (b *Bound) at() string {
	if !b.Child.IsValid() {
		return ""
	}
	return bracketed(b.Child) + ":"
}

// Lines says what is published, each line beginning with "published" and
// without a newline. A long range is a single line for each host address.
func Lines(bound []Bound) []string {
	var lines []string
	for _, run := range runs(bound) {
		first := run[0]
		if len(run) > mostListed {
			lines = append(lines, fmt.Sprintf("published %s %s:%s -> %s%s/%s", first.Protocol, bracketed(first.Host.Addr()),
				portRange(first.Host.Port(), len(run)), first.at(), portRange(first.Port, len(run)), first.Protocol))
			continue
		}
		for _, b := range run {
			lines = append(lines, "published "+b.String())
		}
	}
	return lines
}

// runs groups sockets whose host and sandbox ports count up together on one
// address, in the order in which the groups begin.
func runs(bound []Bound) [][]*Bound {
	type key struct {
		Protocol
		host, child netip.Addr
		device      string
	}
	var out [][]*Bound
	open := make(map[key]int) // the group that may still grow
	for i := range bound {
		b := &bound[i]
		k := key{b.Protocol, b.Host.Addr(), b.Child, b.Spec.Interface}
		if g, ok := open[k]; ok {
			last := out[g][len(out[g])-1]
			if int(last.Host.Port())+1 == int(b.Host.Port()) && int(last.Port)+1 == int(b.Port) {
				out[g] = append(out[g], b)
				continue
			}
		}
		open[k] = len(out)
		out = append(out, []*Bound{b})
	}
	return out
}
