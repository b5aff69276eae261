package cli

import (
	"fmt"
	"io"
)

// An App is a program.
type App struct {
	Name    string
	Version string    // what --version and -v print; empty: they are no flags
	Writer  io.Writer // of help and version
	// Help is what --help prints.
	Help  func() string
	Flags []Flag
	// Commands are looked up by the first argument.
	Commands []*Command
	// Action runs where there is no such command.
	Action func(*Context) error
	// OnUsageError may replace the error of a flag that cannot be read.
	OnUsageError func(*Context, *FlagError) error
}

// A Command is a word with flags and arguments of its own.
type Command struct {
	Name   string
	Help   func() string
	Hidden bool // of no interest to users
	Flags  []Flag
	Action func(*Context) error
}

// Run runs a command line, whose first word is the name that the program was
// called by, and returns the error of the action or of the flags.
func (a *App) Run(args []string) error {
	root := &Command{Name: a.Name, Help: a.Help, Flags: a.Flags, Action: a.Action}
	c, err := a.read(root, args[min(1, len(args)):])
	if err != nil || c == nil {
		return err
	}
	command := a.command(c.Args().First())
	if command == nil {
		return root.Action(c)
	}
	c, err = a.read(command, c.args[1:])
	if err != nil || c == nil {
		return err
	}
	return command.Action(c)
}

func (a *App) command(name string) *Command {
	for _, c := range a.Commands {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// read reads a command's flags. It returns nil where they asked for something
// to be printed, which is done then.
func (a *App) read(command *Command, args []string) (*Context, error) {
	c := newContext(a, command)
	switch err := c.parse(args); {
	case err == nil:
		return c, nil
	case err.Problem == Undefined && (err.Name == "help" || err.Name == "h"):
		return nil, a.print(command.Help())
	case err.Problem == Undefined && (err.Name == "version" || err.Name == "v") && a.Version != "":
		return nil, a.print(fmt.Sprintf("%s version %s\n", a.Name, a.Version))
	case a.OnUsageError != nil:
		return nil, a.OnUsageError(c, err)
	default:
		return nil, err
	}
}

func (a *App) print(text string) error {
	if _, err := io.WriteString(a.Writer, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
