// Package stackroom takes room on a goroutine's stack at once.
//
// A goroutine begins with a stack of 2 KiB, and the runtime doubles it where it
// is full, in the middle of things: for each function that is on the stack then it
// looks into its tables, which lie all over the program, and the kernel reads 64
// KiB around each place. A process that sleeps most of its life keeps those pages:
// in an idle sandbox they were 0.8 MB. At the beginning, nearly nothing is on the
// stack, and it is done once. What room is not used is never touched.
package stackroom

// Take makes room for 12 KiB: a goroutine of its own that calls into the standard
// library.
func Take() { small(false) }

// TakeMuch makes room for 96 KiB: vishvananda/netlink reads answers into 64 KiB
// on the stack.
func TakeMuch() { large(false) }

// small has a frame of that size, which its caller's stack has room for before it
// begins, whatever it does then.
//
//go:noinline
func small(use bool) (b byte) {
	if use {
		var room [12 << 10]byte
		b = fill(room[:])
	}
	return b
}

//go:noinline
func large(use bool) (b byte) {
	if use {
		var room [96 << 10]byte
		b = fill(room[:])
	}
	return b
}

// fill keeps the compiler from leaving room out, and does not keep it.
func fill(room []byte) byte {
	for i := range room {
		room[i] = byte(i)
	}
	return room[len(room)/2]
}
