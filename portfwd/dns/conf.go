package dns

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Bounds on what a resolv.conf can ask for; see resolv.conf(5) for the usual
// ones.
const (
	maxConfBytes   = 64 << 10
	maxNameservers = 3 // MAXNS
	maxSearch      = 32
	maxNdots       = 15 // RES_MAXNDOTS

	// A sandbox's own stub waits 5 s for us. Asking the second resolver after
	// 2 s leaves it time to answer.
	defaultTimeout  = 2 * time.Second
	maxTimeout      = 10 * time.Second
	defaultAttempts = 2
	maxAttempts     = 5 // RES_MAXRETRY

	port = 53
)

// Conf is what a resolv.conf says.
type Conf struct {
	// Nameservers are asked in this order. IPv6 addresses may have a zone.
	Nameservers []netip.AddrPort
	// Search is the list of domains that the stub appends to short names.
	Search []string
	// Options are those that mean something to a stub, as they are written.
	Options []string
	// Timeout is how long a server may take before the next is asked.
	Timeout time.Duration
	// Attempts is how often the list is gone through.
	Attempts int
	// Rotate spreads queries over the servers.
	Rotate bool
}

// ReadConf reads a resolv.conf. A file that is not there, or names no server,
// means one on the host's own port 53, as it does for the stub.
func ReadConf(path string) (Conf, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return ParseConf(nil), nil
	}
	if err != nil {
		return Conf{}, fmt.Errorf("read resolvers: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfBytes))
	if err != nil {
		return Conf{}, fmt.Errorf("read resolvers from %s: %w", path, err)
	}
	return ParseConf(text), nil
}

// ParseConf reads the text of a resolv.conf (resolv.conf(5)). What is malformed
// is left out, as the stub does.
func ParseConf(text []byte) Conf {
	c := Conf{Timeout: defaultTimeout, Attempts: defaultAttempts}
	for line := range bytes.Lines(text) {
		if len(line) > 0 && (line[0] == '#' || line[0] == ';') {
			continue
		}
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		c.apply(fields[0], fields[1:])
	}
	if len(c.Nameservers) == 0 {
		c.Nameservers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	return c
}

func (c *Conf) apply(keyword string, args []string) {
	switch keyword {
	case "nameserver":
		a, err := netip.ParseAddr(args[0])
		if err == nil && len(c.Nameservers) < maxNameservers {
			c.Nameservers = append(c.Nameservers, netip.AddrPortFrom(a.Unmap(), port))
		}
	case "domain":
		c.Search = searchDomains(args[:1])
	case "search": // the last of domain and search lines counts
		c.Search = searchDomains(args)
	case "options":
		for _, o := range args {
			c.applyOption(o)
		}
	}
}

// searchDomains keeps what is fit to be written into another resolv.conf.
func searchDomains(names []string) []string {
	var out []string
	for _, n := range names {
		if len(out) == maxSearch {
			break
		}
		if n == "." || isDomain(n) {
			out = append(out, n)
		}
	}
	return out
}

func isDomain(name string) bool {
	if len(name) > maxName-2 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > maxLabel || strings.IndexFunc(label, isNotDomainRune) >= 0 {
			return false
		}
	}
	return true
}

func isNotDomainRune(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}

// The options without a value that a stub may know (resolv.conf(5)).
var plainOptions = map[string]bool{
	"rotate": true, "no-check-names": true, "inet6": true, "edns0": true, "single-request": true,
	"single-request-reopen": true, "no-tld-query": true, "use-vc": true, "no-reload": true, "trust-ad": true, "no-aaaa": true,
}

func (c *Conf) applyOption(o string) {
	name, value, hasValue := strings.Cut(o, ":")
	if !hasValue {
		if plainOptions[o] {
			c.addOption(o)
			c.Rotate = c.Rotate || o == "rotate"
		}
		return
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return
	}
	switch name {
	case "ndots":
		n = min(n, maxNdots)
	case "timeout":
		n = max(min(n, int(maxTimeout/time.Second)), 1)
		c.Timeout = time.Duration(n) * time.Second
	case "attempts":
		n = max(min(n, maxAttempts), 1)
		c.Attempts = n
	default:
		return
	}
	c.addOption(name + ":" + strconv.Itoa(n))
}

// addOption keeps the latest of several that set the same thing.
func (c *Conf) addOption(o string) {
	name, _, _ := strings.Cut(o, ":")
	for i, old := range c.Options {
		if oldName, _, _ := strings.Cut(old, ":"); oldName == name {
			c.Options[i] = o
			return
		}
	}
	c.Options = append(c.Options, o)
}

// Sandbox returns the resolv.conf for inside the sandbox: the given nameservers,
// and the host's search domains and options, so that short names mean there
// what they mean on the host.
func (c Conf) Sandbox(nameservers ...netip.Addr) []byte {
	var b bytes.Buffer
	for _, a := range nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.Options, " "))
	}
	return b.Bytes()
}
