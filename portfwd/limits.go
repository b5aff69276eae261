package portfwd

import (
	"sbxnet/netstack"
	"sbxnet/netstack/tcp"
)

// Limits bounds what one shard holds. Zero fields take defaults. docs/limits.md
// lists them all, with what happens at each and the statistic that shows it.
type Limits struct {
	TCP  int // connections relayed or being connected; default 65536
	UDP  int // UDP flows; default 16384
	Echo int // echo flows; default 1024

	// HeldBytes is of datagrams from outside kept for the next place where
	// their server may be; default 4 MiB.
	HeldBytes int
	// HandoverFrames and HandoverBytes bound what waits for a shard of frames
	// that arrived on another, HandoverDatagrams of datagrams put together
	// there; default 4096, 8 MiB and 256. It is as much as a packet link's queue
	// holds: where frames arrive elsewhere, it has the place of that.
	HandoverFrames, HandoverBytes, HandoverDatagrams int

	// Stack bounds neighbours, reassembly and ICMP errors.
	Stack netstack.Limits
	// Engine bounds the memory of TCP's buffers and its TIME-WAIT records. Its
	// Connections and Held follow from TCP and are ignored.
	Engine tcp.Limits
}

// spareConnections are for the name server, beyond Limits.TCP.
const spareConnections = 1024

func (l *Limits) setDefaults() {
	setDefault(&l.TCP, 65536)
	setDefault(&l.UDP, 16384)
	setDefault(&l.Echo, 1024)
	setDefault(&l.HeldBytes, 4<<20)
	setDefault(&l.HandoverFrames, 4096)
	setDefault(&l.HandoverBytes, 8<<20)
	setDefault(&l.HandoverDatagrams, 256)
	// More than ours, so that it is ours that is reached, and refuses.
	l.Engine.Connections = l.TCP + spareConnections
	l.Engine.Held = l.TCP + spareConnections
}
