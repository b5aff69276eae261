package dhcp

import (
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"sbxnet/netstack/header"
)

// Server answers DHCP messages of one link. It may be used by several
// goroutines.
type Server struct {
	cfg     Config
	domains *rfc1035label.Labels // Config.Search
	duid    []byte

	mu           sync.Mutex
	pool4, pool6 pool
	stats        Stats
}

// Reply is a datagram to send.
type Reply struct {
	From, To netip.AddrPort
	// Station is where to send it without asking who has To, for a client that
	// has no address yet; it may be broadcast. Zero: as any other datagram.
	Station header.MAC
	// Payload is the caller's.
	Payload []byte
}

// Stats counts messages since the server was made.
type Stats struct {
	In4, In6         uint64 // messages that were well-formed
	Out4, Out6       uint64
	Malformed        uint64
	Ignored          uint64 // meant for another server, or not for any
	Refused          uint64 // NAK, or a status other than success
	Exhausted        uint64 // clients for whom there was no address
	Declined         uint64 // addresses that somebody else had
	Leases4, Leases6 int    // now: bound or offered at the last request
}

// New returns a server with no leases. It fails if cfg names an address, time
// or name that cannot be.
func New(cfg Config) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, duid: duidOf(cfg.HardwareAddr)}
	s.domains = rfc1035label.NewLabels()
	for _, name := range cfg.Search {
		s.domains.Labels = append(s.domains.Labels, strings.TrimSuffix(name, "."))
	}
	s.pool4.init(&s.cfg.IPv4, cfg.Owner)
	s.pool6.init(&s.cfg.IPv6, cfg.Owner)
	return s, nil
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Leases4, st.Leases6 = s.pool4.taken(), s.pool6.taken()
	return st
}

// duidOf is a DUID-LL (RFC 8415 §11.4): the same in every run with the same
// address, without anything having to be kept.
func duidOf(m header.MAC) []byte {
	return dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(m[:])}.ToBytes()
}
