package rootlesskit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rootless-containers/rootlesskit/v3/pkg/version"
	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/userns"
)

// statusFailed is the original's for whatever goes wrong before the command.
const statusFailed = 1

// Main runs one command line, args[0] being the name that it was called by, and
// returns the exit status.
func Main(args []string) int {
	if len(args) > 1 && args[1] == loopbackArgument {
		return loopbackMain(args[2:])
	}
	p := &program{stdout: os.Stdout, stderr: os.Stderr, run: run}
	return p.main(args)
}

// A program is rootlesskit without the process around it. run is in a field so
// that tests can type flags and start nothing.
type program struct {
	stdout, stderr io.Writer
	// run returns the command's exit status.
	run    func(*options, []*os.File, io.Writer) (int, error)
	status int
}

func (p *program) main(args []string) int {
	// First of all: the sockets of a service manager have fixed numbers.
	listeners, err := userns.InheritedListeners()
	if err == nil {
		err = p.app(listeners).Run(args)
	}
	if err != nil {
		fmt.Fprintln(p.stderr, "[rootlesskit:parent] error: "+console.OneLine(err.Error()))
		return statusOf(err)
	}
	return p.status
}

// statusOf is the status to exit with after an error.
func statusOf(err error) int {
	var exec *userns.ExecError
	if errors.As(err, &exec) {
		return exec.Status
	}
	return statusFailed
}

func (p *program) app(listeners []*os.File) *cli.App {
	return &cli.App{
		Name:                      "rootlesskit",
		Version:                   version.Version,
		Writer:                    p.stdout,
		ErrWriter:                 p.stderr,
		CustomAppHelpTemplate:     strings.ReplaceAll(usage, "{{", `{{"{{"}}`),
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		Flags:                     flags(),
		ExitErrHandler:            func(*cli.Context, error) {}, // main does
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return fmt.Errorf("%w; see rootlesskit --help", err) },
		Action: func(c *cli.Context) error {
			if part := c.String("print-semver"); part != "" {
				return p.printVersion(part)
			}
			if c.NArg() < 1 {
				return errors.New("no command specified")
			}
			o, err := readOptions(c)
			if err != nil {
				return err
			}
			p.status, err = p.run(o, listeners, p.stderr)
			return err
		},
	}
}

// printVersion prints one number of the version that we behave as.
func (p *program) printVersion(part string) error {
	numbers := strings.FieldsFunc(version.Version, func(r rune) bool { return r < '0' || r > '9' })
	for i, name := range []string{"major", "minor", "patch"} {
		if part == name && i < len(numbers) {
			_, err := fmt.Fprintln(p.stdout, numbers[i])
			return err
		}
	}
	return fmt.Errorf("expected --print-semver=(major|minor|patch), got %s", console.Shown(part))
}
