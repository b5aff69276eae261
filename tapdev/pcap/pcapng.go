package pcap

import (
	"encoding/binary"
	"io"
	"time"
)

// The blocks of a pcapng file (draft-ietf-opsawg-pcapng) that a capture of one
// interface needs, in little-endian order, which the byte-order magic tells.
//
//	block:  type, length of all | body, padded to 32 bits | length of all
//	option: code, length (16 bits each) | value, padded to 32 bits
//
// They are written here and not by gopacket, whose tables of protocols cost
// every sandbox 1.2 MB, captured or not. The tests read with it.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6 // "enhanced packet"

	byteOrderMagic = 0x1a2b3c4d
	versionMajor   = 1
	unknownLength  = ^uint64(0) // of the section
	linkEthernet   = 1          // LINKTYPE_ETHERNET

	optEnd = 0

	optSectionOS          = 3
	optSectionApplication = 4

	optInterfaceName       = 2
	optInterfaceResolution = 9
	optInterfaceOS         = 12

	optPacketFlags = 2
	optPacketQueue = 6
)

// nanoseconds is the interface's resolution of time stamps: 10^-9 seconds.
const nanoseconds = 9

// direction of a packet, as the lowest bits of its flags say it.
type direction uint32

const (
	inbound  direction = 1
	outbound direction = 2
)

// flushAt is how many bytes are collected at most before they are written.
const flushAt = 64 << 10

// A ngWriter writes one section with one interface.
type ngWriter struct {
	w   io.Writer
	buf []byte // not written yet
}

// start writes what stands before the first packet.
func (g *ngWriter) start(interfaceName string, snapLength int) error {
	at := g.begin(blockSection)
	g.u32(byteOrderMagic)
	g.u16(versionMajor)
	g.u16(0) // minor
	g.buf = binary.LittleEndian.AppendUint64(g.buf, unknownLength)
	g.option(optSectionOS, "linux")
	g.option(optSectionApplication, "sbxnet")
	g.option(optEnd, "")
	g.end(at)

	at = g.begin(blockInterface)
	g.u16(linkEthernet)
	g.u16(0) // reserved
	g.u32(uint32(snapLength))
	if interfaceName != "" {
		g.option(optInterfaceName, interfaceName)
	}
	g.option(optInterfaceResolution, string([]byte{nanoseconds}))
	g.option(optInterfaceOS, "linux")
	g.option(optEnd, "")
	g.end(at)
	return g.flush()
}

// packet adds one of which kept is the beginning and length the whole, in bytes.
func (g *ngWriter) packet(kept []byte, length int, now time.Time, d direction, queue int) error {
	stamp := uint64(now.UnixNano())
	at := g.begin(blockPacket)
	g.u32(0) // the interface
	g.u32(uint32(stamp >> 32))
	g.u32(uint32(stamp))
	g.u32(uint32(len(kept)))
	g.u32(uint32(length))
	g.buf = append(g.buf, kept...)
	g.pad()
	g.number(optPacketFlags, uint32(d))
	g.number(optPacketQueue, uint32(queue))
	g.option(optEnd, "")
	g.end(at)
	if len(g.buf) >= flushAt {
		return g.flush()
	}
	return nil
}

// flush writes what is collected.
func (g *ngWriter) flush() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.w.Write(g.buf)
	g.buf = g.buf[:0]
	return err
}

// begin opens a block and returns where it is, for end.
func (g *ngWriter) begin(kind uint32) (at int) {
	at = len(g.buf)
	g.u32(kind)
	g.u32(0) // filled in by end
	return at
}

// end closes the block that begins at at.
func (g *ngWriter) end(at int) {
	length := uint32(len(g.buf) - at + 4)
	g.u32(length)
	binary.LittleEndian.PutUint32(g.buf[at+4:], length)
}

func (g *ngWriter) option(code uint16, value string) {
	g.u16(code)
	g.u16(uint16(len(value)))
	g.buf = append(g.buf, value...)
	g.pad()
}

// number is an option of 32 bits.
func (g *ngWriter) number(code uint16, value uint32) {
	g.u16(code)
	g.u16(4)
	g.u32(value)
}

// pad fills up to 32 bits. All blocks have such lengths, so the place in buf
// tells the place in the block.
func (g *ngWriter) pad() {
	for len(g.buf)%4 != 0 {
		g.buf = append(g.buf, 0)
	}
}

func (g *ngWriter) u16(v uint16) { g.buf = binary.LittleEndian.AppendUint16(g.buf, v) }
func (g *ngWriter) u32(v uint32) { g.buf = binary.LittleEndian.AppendUint32(g.buf, v) }
