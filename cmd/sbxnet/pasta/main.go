package pasta

import (
	"errors"
	"fmt"
	"io"
	"os"

	"sbxnet/cmd/sbxnet/console"
)

const (
	exitOK = 0
	// exitFailure is all that the original ever exits with besides 0 and the
	// command's own status.
	exitFailure = 1
)

// Main runs one command line, args[0] being the name that it was called by, and
// returns the exit status.
func Main(args []string) int {
	if ready := inheritReady(); ready != nil {
		return runBackground(args[1:], ready)
	}
	return run(args[1:], os.Stdout, os.Stderr)
}

// run is Main in the process that the caller waits for.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	switch {
	case err != nil:
		return complain(stderr, "pasta", err)
	case o.Help:
		fmt.Fprint(stdout, help)
		return exitOK
	case o.Version:
		fmt.Fprint(stdout, versionText("pasta"))
		return exitOK
	}
	var status int
	switch {
	case !o.attaches():
		status, err = runCommand(o, stderr)
	case o.Foreground:
		err = runForeground(o, stderr)
	default:
		return toBackground(args, stderr)
	}
	if err != nil {
		return complain(stderr, "pasta", err)
	}
	return status
}

// complain prints why nothing came of it, and returns the status to exit with.
func complain(w io.Writer, program string, err error) int {
	line := program + ": " + console.OneLine(err.Error())
	if form := (usageError{}); errors.As(err, &form) {
		line += "; see " + program + " --help"
	}
	fmt.Fprintln(w, line)
	return exitFailure
}
