package sim

import (
	"encoding/binary"
	"time"

	"sbxnet/netstack/timer"
)

// Capture is the frames of a run in the pcap file format, as they entered the
// path and as they were delivered. The zero value is empty and ready.
type Capture struct{ b []byte }

// The pcap file format (draft-ietf-opsawg-pcap §4): magic number for times in
// nanoseconds, version 2.4, Ethernet.
const (
	pcapMagic    = 0xa1b23c4d
	pcapSnapLen  = 262144
	pcapEthernet = 1
)

// Bytes is the file's content.
func (c *Capture) Bytes() []byte {
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], pcapMagic)
	binary.LittleEndian.PutUint16(h[4:], 2)
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], pcapSnapLen)
	binary.LittleEndian.PutUint32(h[20:], pcapEthernet)
	return append(h[:], c.b...)
}

// add appends a frame. A nil Capture takes none.
func (c *Capture) add(at timer.Instant, data []byte) {
	if c == nil {
		return
	}
	t := time.Duration(at)
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(t/time.Second))
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(t%time.Second))
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(len(data)))
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(len(data)))
	c.b = append(c.b, data...)
}
