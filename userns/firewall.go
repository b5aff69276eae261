package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// # Firewalls inside
//
// What Sockets and Divert bring over lo does not cross the link. Rules of the
// sandbox's own that filter, count or translate what does would not see it: a
// port that is closed to the link would be open, and one that is redirected would
// not be. So where there are any, both refuse. The kernel tells of two kinds: base
// chains of nftables, which iptables has, too, and tables of iptables-legacy. Of the
// latter it tells root's sandboxes only: in a network that was made before its user
// namespace had a map, the file belongs to root outside (xt_proto_init,
// net/netfilter/x_tables.c), and all other questions would make the tables. Nor is
// what tc or XDP do on the link looked for.

// firewall is an error that names rules which may look at what crosses the link.
func firewall() error {
	chain, err := baseChain()
	if err == nil && chain == "" {
		chain, err = legacyTable()
	}
	switch {
	case err != nil:
		return fmt.Errorf("look for a firewall inside: %w", err)
	case chain != "":
		return fmt.Errorf("there is a firewall inside, which is to see it: %s", chain)
	}
	return nil
}

// nfgenmsgSize is that of struct nfgenmsg, linux/netfilter/nfnetlink.h.
const nfgenmsgSize = 4

// baseChain names a chain of nftables that is attached to a hook, of any family, or
// none. A kernel that has no nftables loaded loads it for this question, if it has
// it at all.
func baseChain() (string, error) {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
	request.AddRawData(make([]byte, nfgenmsgSize)) // NFPROTO_UNSPEC: all families
	replies, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return "", nil // nobody has it
	case err != nil:
		return "", fmt.Errorf("list chains of nftables: %w", err)
	}
	for _, reply := range replies {
		if len(reply) < nfgenmsgSize {
			continue
		}
		attributes, err := nl.ParseRouteAttr(reply[nfgenmsgSize:])
		if err != nil {
			return "", fmt.Errorf("list chains of nftables: %w", err)
		}
		var table, name string
		hooked := false
		for _, a := range attributes {
			switch a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
			case unix.NFTA_CHAIN_TABLE:
				table = nl.BytesToString(a.Value)
			case unix.NFTA_CHAIN_NAME:
				name = nl.BytesToString(a.Value)
			case unix.NFTA_CHAIN_HOOK:
				hooked = true
			}
		}
		if hooked {
			return fmt.Sprintf("chain %q of table %q", name, table), nil
		}
	}
	return "", nil
}

// legacyTable names a table of iptables-legacy, or none where none can be seen.
func legacyTable() (string, error) {
	for _, file := range []string{"/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"} {
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return "", err
		}
		if names := strings.Fields(string(b)); len(names) > 0 {
			return fmt.Sprintf("table %q of iptables-legacy", names[0]), nil
		}
	}
	return "", nil
}
