package lab

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Diverter leads connections of a sandbox to sockets inside, by rules as
// userns.Sandbox has them. AllowInside comes before.
type Diverter struct {
	Thread *Thread

	mu     sync.Mutex
	refuse error
	last   time.Time // a rule was added
	rules  map[[2]netip.AddrPort]*netlink.Rule
}

// Divert adds a rule.
func (d *Diverter) Divert(from, to netip.AddrPort) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return d.refuse
	}
	k := [2]netip.AddrPort{from, to}
	if d.rules[k] != nil {
		return nil
	}
	rule := netlink.NewRule()
	rule.Family = unix.AF_INET
	if from.Addr().Is6() {
		rule.Family = unix.AF_INET6
	}
	rule.Priority, rule.Table = 50, insideTable
	rule.Src, rule.Sport = single(from.Addr()), netlink.NewRulePortRange(from.Port(), from.Port())
	rule.Dst, rule.Dport = single(to.Addr()), netlink.NewRulePortRange(to.Port(), to.Port())
	if err := d.Thread.Try(func() error { return netlink.RuleAdd(rule) }); err != nil {
		return err
	}
	if d.rules == nil {
		d.rules = make(map[[2]netip.AddrPort]*netlink.Rule)
	}
	d.rules[k] = rule
	d.last = time.Now()
	return nil
}

// SetRefusal has Divert say so from now on.
func (d *Diverter) SetRefusal(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = err
}

// Lose removes all rules, as the sandbox's root might.
func (d *Diverter) Lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, rule := range d.rules {
		d.Thread.Try(func() error { return netlink.RuleDel(rule) })
		delete(d.rules, k)
	}
}

// Undivert removes it.
func (d *Diverter) Undivert(from, to netip.AddrPort) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := [2]netip.AddrPort{from, to}
	rule := d.rules[k]
	if rule == nil {
		return nil
	}
	delete(d.rules, k)
	return d.Thread.Try(func() error { return netlink.RuleDel(rule) })
}

// Last is when a rule was added.
func (d *Diverter) Last() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// Rules is how many there are.
func (d *Diverter) Rules() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.rules)
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
