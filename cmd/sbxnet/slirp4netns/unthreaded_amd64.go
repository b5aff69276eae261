package slirp4netns

import "encoding/binary"

const (
	canBeUnthreaded = true
	elfMachine      = 62 // EM_X86_64
)

// encode is a call in machine code; the program's data lies at dataAt.
func encode(c call, dataAt uint64) []byte {
	// mov into rdi, rsi, rdx, r10, r8 and r9 (movabs, with REX prefix)
	load := [6][2]byte{{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}, {0x49, 0xb9}}
	var b []byte
	for i, a := range c.args {
		switch a.kind {
		case arguments: // only ever the third: lea rdx, [rsp+8]
			b = append(b, 0x48, 0x8d, 0x54, 0x24, 0x08)
			continue
		case environment: // the fourth: mov rcx, [rsp]; lea r10, [rsp+8*rcx+16]
			b = append(b, 0x48, 0x8b, 0x0c, 0x24, 0x4c, 0x8d, 0x54, 0xcc, 0x10)
			continue
		}
		v := uint64(a.value)
		if a.kind == data {
			v += dataAt
		}
		b = binary.LittleEndian.AppendUint64(append(b, load[i][:]...), v)
	}
	b = binary.LittleEndian.AppendUint32(append(b, 0xb8), uint32(c.number)) // mov eax
	return append(b, 0x0f, 0x05)                                            // syscall
}
