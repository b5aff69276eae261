package hugepage

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Size is that of a huge page on amd64 and on arm64 with 4 KiB pages, in bytes.
// Where it is another one, memory is merely aligned better than it need be.
const Size = 2 << 20

// Map returns n bytes of zeroed memory that begins at a multiple of Size. n is
// rounded up to one. The memory is the caller's until Unmap.
func Map(n int) ([]byte, error) {
	n = (n + Size - 1) &^ (Size - 1)
	// The kernel aligns to small pages only, so ask for more and give the
	// ends back.
	wide, err := mapping(0, uintptr(n+Size))
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for buffers: %w", n, err)
	}
	base := (wide + Size - 1) &^ (Size - 1)
	unmap(wide, base-wide)
	unmap(base+uintptr(n), wide+Size-base)
	b := unsafe.Slice((*byte)(pointer(base)), n)
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a kernel without them has small ones
	return b, nil
}

// Unmap gives back what Map returned. Nothing may point into it any more.
func Unmap(b []byte) {
	unmap(uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
}

// Make returns n bytes of zeroed memory of the Go heap that begins at a multiple
// of Size: for what has no owner who would know when to unmap it. Its pages are
// small, and come one by one as they are used, until Enlarge.
func Make(n int) []byte {
	n = (n + Size - 1) &^ (Size - 1)
	wide := make([]byte, n+Size)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(wide))) & (Size - 1)
	return wide[skip:][:n:n]
}

// Enlarge gives what Make returned huge pages in place of the small ones. What
// was in it is lost.
func Enlarge(b []byte) {
	if unix.Madvise(b, unix.MADV_HUGEPAGE) == nil {
		_ = unix.Madvise(b, unix.MADV_DONTNEED)
	}
}

// mapping is mmap(2) of private anonymous memory. unix.Mmap would keep a record
// of what may be unmapped, and only in whole.
func mapping(at, n uintptr) (uintptr, error) {
	p, _, errno := unix.Syscall6(unix.SYS_MMAP, at, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if errno != 0 {
		return 0, errno
	}
	return p, nil
}

func unmap(at, n uintptr) {
	if n > 0 {
		unix.Syscall(unix.SYS_MUNMAP, at, n, 0)
	}
}

// pointer turns an address outside of the Go heap into a pointer. It goes
// through memory because vet cannot know that the address will not move.
func pointer(at uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&at)) }
