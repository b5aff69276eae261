package portfwd

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sbxnet/netstack"
	"sbxnet/portfwd/internal/lab"
)

// addAddress has the sandbox, where the caller is, give its interface an address
// that it does not speak from by itself.
func addAddress(a string, flags int) error {
	tap, err := netlink.LinkByName("tap0")
	if err != nil {
		return err
	}
	p, err := netlink.ParseAddr(a)
	if err != nil {
		return err
	}
	p.Flags, p.PreferedLft, p.ValidLft = flags, 0, 3600
	return netlink.AddrAdd(tap, p)
}

func (w *world) conflicts() int {
	return w.inStacks(func(st *netstack.Stats) int { return int(st.Drops.AddressConflicts) })
}

func (w *world) awaitConflicts(t *testing.T, least int) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		n := w.conflicts()
		if n >= least {
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%d conflicts noticed, want %d", n, least)
		}
	}
}

func wantOneWarning(t *testing.T, log *logLines, parts ...string) {
	t.Helper()
	out := log.String()
	if strings.Count(out, "\n") != 1 {
		t.Errorf("logged %q, want one line", out)
	}
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("logged %q, want %q in it", out, part)
		}
	}
}

// A sandbox that takes the name server's IPv6 address without asking answers the
// stack's own question. The connection that is open meanwhile goes on.
func TestDuplicateOfOurAddressIsNoticedAndWarnedOfOnce(t *testing.T) {
	var log logLines
	const noDAD = 0x02 // IFA_F_NODAD
	w := newWorld(t, withConfig(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }),
		func(o *worldOptions) {
			o.guest = func() error {
				if err := configureGuest(); err != nil {
					return err
				}
				if err := addAddress("fd00::3/64", noDAD); err != nil {
					return err
				}
				return lab.AwaitAddress("fd00::3")
			}
		})
	a, b := w.connect(outside6)
	w.exchangeByte(t, a, b)
	w.awaitConflicts(t, 1)
	wantOneWarning(t, &log, "level=WARN", "fd00::3", "the name server", guestMAC.String(), "--cidr6")
	w.exchangeByte(t, b, a)
}

// One that asks first is told that the address is taken, and leaves it.
func TestSandboxThatAsksForOurAddressDoesNotGetIt(t *testing.T) {
	var log logLines
	w := newWorld(t, withConfig(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
	// The stack has asked first: its own probe would have the sandbox's kernel
	// give the address up without a word, if it came before that one's.
	w.connect(outside6)
	err := w.sandbox.Try(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/tap0/accept_dad", []byte("1"), 0); err != nil {
			return err
		}
		return addAddress(gateway6+"/64", 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.awaitConflicts(t, 1)
	for start, there := time.Now(), true; there; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the sandbox has the address, and keeps it")
		}
		w.sandbox.Do(func() {
			tap, _ := netlink.LinkByName("tap0")
			all, _ := netlink.AddrList(tap, netlink.FAMILY_V6)
			there = slices.ContainsFunc(all, func(a netlink.Addr) bool { return a.IP.String() == gateway6 })
		})
	}
	wantOneWarning(t, &log, "level=WARN", gateway6, "is the gateway,", guestMAC.String())
	a, b := w.connect(outside6) // by way of the gateway, which goes on
	w.exchangeByte(t, a, b)
}

func TestNothingIsWarnedOfWithoutAConflict(t *testing.T) {
	var log logLines
	w := newWorld(t, withConfig(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
	a, b := w.connect(outside6)
	w.exchangeByte(t, a, b)
	w.exchangeByte(t, b, a)
	if n := w.conflicts(); n != 0 || log.String() != "" {
		t.Errorf("%d conflicts, logged %q", n, log.String())
	}
}
