//go:build !amd64 && !arm64 && !riscv64 && !loong64

package slirp4netns

// On other architectures only the calls of deniedCalls are known.
var (
	opens                             map[uint32]uint32
	olderWriteCalls, olderRemoveCalls []uint32
)
