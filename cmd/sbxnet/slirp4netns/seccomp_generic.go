//go:build arm64 || riscv64 || loong64

package slirp4netns

import "golang.org/x/sys/unix"

// opens are the calls that open files, with the place of their flags among the
// arguments.
var opens = map[uint32]uint32{unix.SYS_OPENAT: 2}

// These architectures came after the calls that others have for old programs.
var olderWriteCalls, olderRemoveCalls []uint32
