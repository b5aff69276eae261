//go:build !amd64 && !arm64

package slirp4netns

// Elsewhere nobody has written the instructions down.
const (
	canBeUnthreaded = false
	elfMachine      = 0
)

func encode(call, uint64) []byte { return nil }
