package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/state"
	"sbxnet/userns"
)

// controlCommands are those that speak to sandboxes that run.
func (p *program) controlCommands() []*cli.Command {
	return []*cli.Command{
		p.command("ls", lsHelp, []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "names only"},
			&cli.BoolFlag{Name: "json", Usage: "a list of what inspect prints"},
		}, p.list),
		p.command("port", portHelp, nil, p.port),
		p.command("exec", execHelp, nil, p.exec),
		p.command("inspect", inspectHelp, nil, p.inspect),
		p.command("stats", statsHelp, []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "all counters"},
		}, p.stats),
		p.command("stop", stopHelp, []cli.Flag{
			&cli.StringFlag{Name: "time", Aliases: []string{"t"}, Value: "10", Usage: "`SECONDS` that the command has before it is killed, 0 to 3600"},
		}, p.stop),
	}
}

// command is one with flags of its own and help for them.
func (p *program) command(name, help string, flags []cli.Flag, do func(*cli.Context) error) *cli.Command {
	if len(flags) > 0 {
		help += "\n"
	}
	for _, f := range flags {
		help += flagHelp(f.(cli.DocGenerationFlag))
	}
	return &cli.Command{
		Name: name, Flags: flags, CustomHelpTemplate: help,
		HideHelpCommand: true, OnUsageError: refuseFlag, Action: do,
	}
}

const inspectHelp = `sbxnet inspect NAME prints what a running sandbox is, as JSON: processes, addresses, link, ports.

NAME, here and in all commands, is what sbxnet ls shows, or the path of a state
directory.
`

const stopHelp = `sbxnet stop [flags] NAME... ends sandboxes and returns when they have ended.

The command gets SIGTERM, and after a time the sandbox is killed with all that is
in it.
`

const execHelp = `sbxnet exec NAME [--] [CMD [ARG...]] runs CMD (default: $SHELL) in a running sandbox.

It sees what the sandbox's own command sees, has your terminal, and its exit
status is that of sbxnet. It ends with the sandbox.

  sbxnet exec web -- ss -tln
`

// sandboxName is the only argument of a command that has one.
func sandboxName(c *cli.Context) (string, error) {
	args := c.Args().Slice()
	if err := noFlags(c, args); err != nil {
		return "", err
	}
	switch len(args) {
	case 0:
		return "", usagef("%s: name a sandbox; sbxnet ls lists those that run", c.Command.Name)
	case 1:
		return args[0], nil
	}
	return "", usagef("%s %s: one name is enough", c.Command.Name, shown(args[1]))
}

// noFlags refuses flags behind a name, where they would be taken for names.
func noFlags(c *cli.Context, args []string) error {
	for _, a := range args {
		if len(a) > 1 && a[0] == '-' {
			return usagef("%s %s: flags stand before names; see sbxnet %[1]s --help", c.Command.Name, shown(a))
		}
	}
	return nil
}

// openSandbox finds a sandbox that runs.
func openSandbox(name string) (*state.Client, error) {
	c, err := state.Open(name)
	if errors.Is(err, state.ErrNotRunning) {
		return nil, usagef("%s: %w; sbxnet ls lists those that are", shown(name), err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown(name), err)
	}
	return c, nil
}

// with opens the sandbox that is the command's only argument.
func with(c *cli.Context, do func(*state.Client) error) error {
	name, err := sandboxName(c)
	if err != nil {
		return err
	}
	return withNamed(name, do)
}

func withNamed(name string, do func(*state.Client) error) error {
	sandbox, err := openSandbox(name)
	if err != nil {
		return err
	}
	defer sandbox.Close()
	if err := do(sandbox); err != nil {
		return fmt.Errorf("%s: %w", shown(name), err)
	}
	return nil
}

func (p *program) inspect(c *cli.Context) error {
	return with(c, func(sandbox *state.Client) error {
		var raw json.RawMessage
		if err := sandbox.Inspect(&raw); err != nil {
			return err
		}
		return p.printJSON(raw)
	})
}

func (p *program) printJSON(v any) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (p *program) stop(c *cli.Context) error {
	seconds, err := parseNumber(c, "time", 0, 3600)
	if err != nil {
		return err
	}
	names := c.Args().Slice()
	if err := noFlags(c, names); err != nil {
		return err
	}
	if len(names) == 0 {
		return usagef("stop: name a sandbox; sbxnet ls lists those that run")
	}
	for _, name := range names {
		err := withNamed(name, func(sandbox *state.Client) error {
			return sandbox.Stop(time.Duration(seconds) * time.Second)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// exec is `sbxnet exec`: everything after the name is the command's.
func (p *program) exec(c *cli.Context) error {
	args := c.Args().Slice()
	if len(args) == 0 {
		return usagef("exec: name a sandbox; sbxnet ls lists those that run")
	}
	sandbox, err := openSandbox(args[0])
	if err != nil {
		return err
	}
	defer sandbox.Close()
	pid, err := sandbox.ChildPID()
	if err != nil {
		return fmt.Errorf("%s: find its processes: %w", shown(args[0]), err)
	}
	command := args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	status, err := userns.Join(pid, command, stateEnvironment(os.Environ(), sandbox.Path), "")
	if err != nil {
		return err
	}
	if status != 0 {
		return &statusError{Status: status}
	}
	return nil
}

// stateEnvironment is env with what tells RootlessKit's clients where the API is
// and who is outside, in place of what it says of a sandbox that we are in.
func stateEnvironment(env []string, stateDir string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, "ROOTLESSKIT_") })
	return append(env,
		"ROOTLESSKIT_STATE_DIR="+stateDir,
		"ROOTLESSKIT_PARENT_EUID="+strconv.Itoa(os.Geteuid()),
		"ROOTLESSKIT_PARENT_EGID="+strconv.Itoa(os.Getegid()))
}
