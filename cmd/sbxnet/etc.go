package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/dns"
	"sbxnet/userns"
)

// hostsPath is the host's file; the sandbox has its own version of it.
const hostsPath = "/etc/hosts"

// maxHosts bounds how much of the host's hosts file is copied into a sandbox,
// in bytes. Lists of blocked names can be long; an endless pipe in its place is
// not read to the end.
const maxHosts = 16 << 20

// noDNS stands in the resolv.conf of a sandbox without a name server; an empty
// one would make the resolver ask the sandbox's own loopback as well.
const noDNS = "# this sandbox has no name server (%s)\n"

// resolvConf is the sandbox's /etc/resolv.conf, empty for the host's own.
func (s *settings) resolvConf(p network.Plan, host dns.Conf) string {
	switch {
	case s.Network == userns.NetworkHost:
		return ""
	case s.Network == userns.NetworkNone:
		return fmt.Sprintf(noDNS, "--network none")
	case s.DNS.None:
		return fmt.Sprintf(noDNS, "--dns none")
	}
	var servers []netip.Addr
	for _, f := range p.Families() {
		servers = append(servers, f.DNS)
	}
	return string(host.Sandbox(servers...))
}

// hostsFile is the sandbox's /etc/hosts: the host's, with the sandbox's own
// name in front where --hostname gives it one. It is never empty, so that what
// is written to it inside never reaches the host's.
func (s *settings) hostsFile(p network.Plan, host string) string {
	if host == "" {
		host = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
	}
	if s.Hostname == "" {
		return host
	}
	own := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})} // without a link
	if families := p.Families(); len(families) > 0 {
		own = nil
		for _, f := range families {
			own = append(own, f.Sandbox)
		}
	}
	var b strings.Builder
	for _, a := range own {
		fmt.Fprintf(&b, "%s\t%s\n", a, s.Hostname)
	}
	return b.String() + host
}

// hostResolvers reads the host's resolv.conf, for its search domains and
// options.
func hostResolvers(log *slog.Logger) dns.Conf {
	conf, err := dns.ReadConf(network.ResolvConf)
	if err != nil {
		log.Warn("the sandbox gets none of the host's search domains: " + err.Error())
	}
	return conf
}

// hostHosts reads the host's hosts file; one that cannot be read is empty.
func hostHosts() string {
	f, err := os.Open(hostsPath)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHosts))
	if err != nil {
		return ""
	}
	return string(b)
}
