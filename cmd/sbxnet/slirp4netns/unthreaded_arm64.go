package slirp4netns

import "encoding/binary"

const (
	canBeUnthreaded = true
	elfMachine      = 183 // EM_AARCH64
)

// encode is a call in machine code; the program's data lies at dataAt.
func encode(c call, dataAt uint64) []byte {
	var b []byte
	emit := func(word uint32) { b = binary.LittleEndian.AppendUint32(b, word) }
	load := func(register uint32, v uint64) {
		emit(0xd2800000 | uint32(v&0xffff)<<5 | register) // movz
		for half := uint32(1); half < 4; half++ {         // also where it is 0: the length is not to depend on dataAt
			emit(0xf2800000 | half<<21 | uint32(v>>(16*half)&0xffff)<<5 | register) // movk
		}
	}
	for i, a := range c.args {
		switch a.kind {
		case arguments: // only ever the third: add x2, sp, #8
			emit(0x910023e2)
		case environment: // the fourth: ldr x9, [sp]; add x3, sp, #16; add x3, x3, x9, lsl #3
			emit(0xf94003e9)
			emit(0x910043e3)
			emit(0x8b090c63)
		case data:
			load(uint32(i), uint64(a.value)+dataAt)
		default:
			load(uint32(i), uint64(a.value))
		}
	}
	load(8, uint64(c.number))
	emit(0xd4000001) // svc #0
	return b
}
