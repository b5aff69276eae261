package portfwd

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sbxnet/portfwd/internal/lab"
)

// What else there is to reach from the namespace that plays the host is routes
// that fail in a known way.
const (
	unreachable4_ = "203.0.113.1"     // connect: EHOSTUNREACH
	prohibited4   = "203.0.113.129"   // connect: EACCES
	noRoute4      = "192.0.2.1"       // connect: ENETUNREACH
	noRoute6      = "2001:db8:ffff::" //
)

func TestMain(m *testing.M) { lab.Main(m, addRoutes) }

func addRoutes() error {
	for dst, kind := range map[string]int{unreachable4_ + "/32": unix.RTN_UNREACHABLE, prohibited4 + "/32": unix.RTN_PROHIBIT} {
		_, prefix, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: prefix, Type: kind}); err != nil {
			return fmt.Errorf("add route to %s: %w", dst, err)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)
}
