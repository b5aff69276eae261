package slirp4netns

import (
	"fmt"
	"runtime/debug"
)

// Callers look in this text for the names of options that they would use.
const help = `Usage: slirp4netns [OPTION]... PID|PATH|FD [TAPNAME]
Gives a network namespace its network, without privilege. This is sbxnet.

-c, --configure          bring the interface up, with addresses and routes
-e, --exit-fd=FD         exit when the other end of this pipe is closed
-r, --ready-fd=FD        write "1" to it when all is up
-m, --mtu=MTU            MTU of the interface (default=1500, max=65521)
-6, --enable-ipv6        IPv6 as well, fd00::/64
-a, --api-socket=PATH    answer requests for host ports on this socket
--cidr=CIDR              IPv4 network (default=10.0.2.0/24)
--disable-host-loopback  keep the host's 127.0.0.1 out of reach of the gateway's address
                         (--no-host-loopback is the same)
--netns-type=TYPE        what the target is: pid (default), path or tapfd
--userns-path=PATH       the user namespace that owns the network namespace
--enable-sandbox         give up capabilities and the sight of files
                         (--create-sandbox is the same)
--enable-seccomp         give up system calls that are not needed any more
--outbound-addr=IPv4     send from this address, or from that of an interface
--outbound-addr6=IPv6    the same for IPv6
--disable-dns            no name server at 10.0.2.3 and fd00::3
--macaddress=MAC         hardware address of the interface (with -c)
--target-type=TYPE       netns
-h, --help               show this help and exit
-v, --version            show version and exit
`

// compatible is the release of slirp4netns whose options and API these are.
const compatible = "1.3.3"

// versionText is what --version prints; "podman info" shows it.
func versionText() string {
	return fmt.Sprintf("slirp4netns version %s+sbxnet\ncommit: %s\nlibslirp: none\nSLIRP_CONFIG_VERSION_MAX: 4\nlibseccomp: none\n",
		compatible, revision())
}

// revision is what the Go toolchain stamped into the binary.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "sbxnet-" + info.Main.Version
}
