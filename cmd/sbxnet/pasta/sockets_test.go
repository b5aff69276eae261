package pasta

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sbxnet/portfwd/spec"
)

// Of a table that is longer than any the beginning is read, and what is cut off in
// the middle is no server.
func TestSocketTableIsReadSoFar(t *testing.T) {
	const port = 0x1F90
	line := fmt.Sprintf("   0: 0100007F:%04X 00000000:0000 0A 0 0 0\n", port)
	for _, indent := range []int{0, 1, len("   0: 0100007F:1F"), len("   0: 0100007F:1F90 00000000:0000 0"), len(line) - 1} {
		table := strings.Repeat(" ", indent) + strings.Repeat(line, maxSockets/len(line)+1000)
		n := 0
		err := readSockets(strings.NewReader(table), spec.TCP, func(at netip.AddrPort) {
			if n++; at.Port() != port {
				t.Errorf("a server on port %d", at.Port())
			}
		})
		if most := maxSockets / len(line); err != nil || n > most+1 || n < most-1 {
			t.Errorf("%d of at most %d servers are read, %v", n, most, err)
		}
	}
}
