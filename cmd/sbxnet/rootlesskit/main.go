package rootlesskit

import (
	"fmt"
	"os"
)

// Main runs one command line, args[0] being the name that it was called by, and
// returns the exit status.
func Main(args []string) int {
	fmt.Fprintln(os.Stderr, "rootlesskit: not built yet")
	return 1
}
