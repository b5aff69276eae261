package userns

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"sbxnet/tapdev"
)

func TestLinkHasItsAddressesAndRoutesAtOnce(t *testing.T) {
	for _, kind := range []tapdev.Kind{tapdev.Auto, tapdev.Packet} {
		cfg := linked()
		cfg.Link.Kind = kind
		out, status := shell(t, cfg, `
			awk '$2 == "00000000" {print $1, $3}' /proc/net/route
			grep -q '10.0.2.100' /proc/net/fib_trie && echo v4
			awk '$1 == "fd000000000000000000000000000100" {print $3, $5}' /proc/net/if_inet6
			awk '$1 == "00000000000000000000000000000000" && $2 == "00" && $10 == "tap0" {print $5}' /proc/net/ipv6_route
			cat /sys/class/net/tap0/mtu /sys/class/net/tap0/address`)
		// 64 bits of prefix; flags 82: permanent, no duplicate detection, and not
		// tentative (40).
		want := "tap0 0202000A\nv4\n40 82\nfd000000000000000000000000000002\n1500\n02:00:00:00:00:01"
		if out != want || status != 0 {
			t.Errorf("link %s: status %d, seen inside:\n%s\nwant\n%s", kind, status, out, want)
		}
	}
}

func TestLinkIsTunedForForwardedTraffic(t *testing.T) {
	out, _ := shell(t, linked(), `cd /proc/sys/net; cat ipv4/conf/tap0/route_localnet ipv4/conf/tap0/rp_filter ipv4/conf/all/rp_filter ipv4/conf/tap0/accept_local \
		ipv6/conf/tap0/accept_ra ipv6/conf/tap0/autoconf ipv4/ip_unprivileged_port_start`)
	if got := strings.Join(strings.Fields(out), " "); got != "1 0 0 0 0 0 0" {
		t.Errorf("settings: %s", got)
	}
}

func TestSandboxWithoutIPv6HasNone(t *testing.T) {
	cfg := linked()
	cfg.Addresses, cfg.Gateways = cfg.Addresses[:1], cfg.Gateways[:1]
	out, _ := shell(t, cfg, "grep -c tap0 /proc/net/if_inet6")
	if out != "0" {
		t.Errorf("%s IPv6 addresses on the link", out)
	}
}

func TestNoneHasLoopbackUp(t *testing.T) {
	out, status := shell(t, unlinked(), "ping -c 1 -W 2 127.0.0.1 && ping -c 1 -W 2 ::1; cat /proc/net/route | wc -l")
	if status != 0 || !strings.HasSuffix(out, "\n1") || strings.Count(out, " 0% packet loss") != 2 {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestPingNeedsNoCapability(t *testing.T) {
	for _, m := range []UserMap{MapSingle, MapAuto} {
		for _, raw := range []bool{true, false} {
			cfg := unlinked()
			cfg.UserMap, cfg.NetRaw = m, raw
			out, status := shell(t, cfg, "grep ^Cap /proc/self/status; ping -c 1 -W 2 127.0.0.1")
			if status != 0 {
				t.Errorf("%s map, CAP_NET_RAW %v: ping: %s", m, raw, out)
			}
			for line := range strings.Lines(out) {
				name, value, _ := strings.Cut(line, ":")
				if !strings.HasPrefix(name, "Cap") {
					continue
				}
				if empty := name == "CapInh" || name == "CapAmb"; empty && strings.Trim(value, "0 \t\n") != "" {
					t.Errorf("%s map: %s is %s, want none", m, name, value)
				} else if has := capability13(value); !empty && has != raw {
					t.Errorf("%s map, CAP_NET_RAW %v: %s is %s", m, raw, name, value)
				}
			}
		}
	}
}

// capability13 reports whether a mask in hexadecimal has CAP_NET_RAW.
func capability13(mask string) bool {
	mask = strings.TrimSpace(mask)
	if len(mask) != 16 {
		return false
	}
	return strings.IndexByte("2367abef", mask[12]) >= 0 // bit 13 is bit 1 of the fourth digit from the right
}

func TestPingGroupsCoverTheMapAsTheKernelComparesIt(t *testing.T) {
	for _, c := range []struct {
		name      string
		m         []extent
		low, high uint32
	}{
		{"one ID", []extent{{0, 1000, 1}}, 0, 0},
		{"range above", []extent{{0, 1000, 1}, {1, 100000, 65536}}, 0, 65536},
		{"two ranges, not in order", []extent{{0, 1000, 1}, {1, 300000, 100}, {101, 200000, 100}}, 0, 100},
		{"range below the caller's ID", []extent{{0, 1000000, 1}, {1, 100000, 65536}}, 0, 0},
		{"everything", []extent{{0, 0, 1<<32 - 1}}, 0, 1<<31 - 1},
	} {
		if low, high := pingGroups(c.m); low != c.low || high != c.high {
			t.Errorf("%s: %d to %d, want %d to %d", c.name, low, high, c.low, c.high)
		}
	}
}

func TestLinkThatCannotBeOpenedIsAnError(t *testing.T) {
	cfg := linked()
	cfg.Link.Name = "a-name-that-is-too-long-for-an-interface"
	sb, err := Start(cfg)
	if err == nil {
		sb.Close()
		t.Fatal("started")
	}
	if strings.ContainsRune(err.Error(), '\n') {
		t.Errorf("not one line: %q", err)
	}
	cfg = linked()
	cfg.Gateways = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	if sb, err = Start(cfg); err == nil {
		sb.Close()
		t.Fatal("started with a gateway out of reach")
	}
	if !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("error does not name the gateway: %q", err)
	}
}

func TestLinkDescriptorsComeUp(t *testing.T) {
	sb := started(t, linked())
	info, files := sb.Link()
	if len(files) == 0 || info.Name != "tap0" || info.Kind == "auto" {
		t.Fatalf("%d descriptors of %+v", len(files), info)
	}
	for _, f := range files {
		if _, err := os.Stat("/proc/self/fd"); err != nil || f.Fd() < 3 {
			t.Errorf("descriptor %d: %v", f.Fd(), err)
		}
		f.Close()
	}
	if _, again := sb.Link(); again != nil {
		t.Error("descriptors were handed out twice")
	}
}
