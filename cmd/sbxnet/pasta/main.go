package pasta

import (
	"fmt"
	"os"
)

// Main runs one command line, args[0] being the name that it was called by, and
// returns the exit status.
func Main(args []string) int {
	fmt.Fprintln(os.Stderr, "pasta: not built yet")
	return 1
}

// PestoMain is Main under the name of pesto.
func PestoMain(args []string) int {
	fmt.Fprintln(os.Stderr, "pesto: not built yet")
	return 1
}
