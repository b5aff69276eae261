package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"sbxnet/cmd/sbxnet/pasta"
	"sbxnet/cmd/sbxnet/rootlesskit"
	"sbxnet/cmd/sbxnet/slirp4netns"
	"sbxnet/tapdev/stackroom"
	"sbxnet/userns"
)

// version is set by release builds with -ldflags "-X main.version=...".
var version = ""

// personalities are the tools that this executable stands in for when it is
// called by their names, through the links that `sbxnet compat` makes. Each gets
// the whole argument vector and returns the exit status.
var personalities = map[string]func(args []string) int{
	"slirp4netns": slirp4netns.Main,
	"pasta":       pasta.Main,
	"pesto":       pasta.PestoMain,
	"rootlesskit": rootlesskit.Main,

	"rootlesskit-docker-proxy": rootlesskit.DockerProxyMain,
}

func main() {
	if !wantsHeapProfile(os.Args) {
		runtime.MemProfileRate = 0
	}
	stackroom.TakeMuch()
	userns.Init() // does not return in a sandbox's first process
	if as, ok := personalities[filepath.Base(os.Args[0])]; ok {
		os.Exit(as(os.Args))
	}
	p := &program{stdout: os.Stdout, stderr: os.Stderr}
	p.run, p.attach, p.doctor, p.demo = p.runSandbox, p.runAttach, p.runDoctor, p.runDemo
	os.Exit(p.main(os.Args))
}

// A program is sbxnet without the process around it. What its commands do is
// in fields, so that tests can type flags and start nothing.
type program struct {
	stdout, stderr io.Writer
	run            func(*settings) error
	attach         func(*attachSettings) error
	doctor, demo   func() error
}

// main runs one command line and returns the exit status.
func (p *program) main(args []string) int {
	status, line := exitStatus(p.app().Run(args))
	if line != "" {
		fmt.Fprintln(p.stderr, line)
	}
	return status
}

func (p *program) app() *cli.App {
	return &cli.App{
		Name:                      "sbxnet",
		Writer:                    p.stdout,
		ErrWriter:                 p.stderr,
		CustomAppHelpTemplate:     appHelp,
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // main does
		OnUsageError:              refuseFlag,
		Action:                    unknownCommand,
		Commands: append(p.controlCommands(), []*cli.Command{
			{
				Name: "run", Flags: runFlags(), CustomHelpTemplate: runHelp(),
				HideHelpCommand: true, OnUsageError: refuseFlag,
				Action: func(c *cli.Context) error {
					s, err := readSettings(c)
					if err != nil {
						return err
					}
					return p.run(s)
				},
			},
			{
				Name: "attach", Flags: attachFlags(), CustomHelpTemplate: groupedHelp(attachHelpHead, attachFlags()),
				HideHelpCommand: true, OnUsageError: refuseFlag,
				Action: func(c *cli.Context) error {
					s, err := readAttachSettings(c)
					if err != nil {
						return err
					}
					return p.attach(s)
				},
			},
			p.command("compat", compatHelp, nil, p.compat),
			p.command("completion", completionHelp, nil, p.completion),
			{Name: completeCommand, Hidden: true, HideHelpCommand: true, OnUsageError: refuseFlag, Action: p.complete},
			p.plain("demo", "sbxnet demo starts a web server in a sandbox, prints its address, and shows what it sees.\nCtrl-C ends it.\n",
				func() error { return p.demo() }),
			p.plain("doctor", "sbxnet doctor prints a line for each thing that sbxnet needs or likes of this machine:\nok, degraded or missing, and the command that mends it. It exits with 1 if run cannot work.\n",
				func() error { return p.doctor() }),
			p.plain("version", "sbxnet version prints which sbxnet this is.\n",
				func() error { _, err := fmt.Fprintln(p.stdout, "sbxnet", versionString()); return err }),
			p.plain(demoServerCommand, "", serveDemo),
			p.plain(doctorProbeCommand, "", probe),
		}...),
	}
}

// plain is a command without flags or arguments.
func (p *program) plain(name, help string, do func() error) *cli.Command {
	return &cli.Command{
		Name: name, CustomHelpTemplate: help, Hidden: help == "",
		HideHelpCommand: true, OnUsageError: refuseFlag,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("%s %s: takes no arguments", name, shown(c.Args().First()))
			}
			return do()
		},
	}
}

func unknownCommand(c *cli.Context) error {
	if !c.Args().Present() {
		return cli.ShowAppHelp(c)
	}
	return usagef("%s: no such command; sbxnet --help lists them (sbxnet run -- %[1]s runs it in a sandbox)", shown(c.Args().First()))
}

// The flag package reports what it cannot parse in sentences of its own.
var (
	unknownFlag  = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	missingValue = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badBool      = regexp.MustCompile(`^invalid boolean value ("(?:[^"\\]|\\.)*") for -(\S+?): `)
	badSyntax    = regexp.MustCompile(`^bad flag syntax: (.*)$`)
)

// refuseFlag puts the flag package's errors into this program's form.
func refuseFlag(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if m := unknownFlag.FindStringSubmatch(text); m != nil {
		hint := ""
		if helpPrefix(c) == "run " {
			hint = ", and write -- before CMD"
		}
		return usagef("%s: no such flag%s; see sbxnet %s--help%s", shown(dashes(m[1])), nearest(c, m[1]), helpPrefix(c), hint)
	}
	if m := missingValue.FindStringSubmatch(text); m != nil {
		return usagef("%s: no value after it; see sbxnet %s--help", dashes(m[1]), helpPrefix(c))
	}
	if m := badBool.FindStringSubmatch(text); m != nil {
		return usagef("%s=%s: neither true nor false; write %[1]s or %[1]s=false", dashes(m[2]), strings.Trim(m[1], `"`))
	}
	if m := badSyntax.FindStringSubmatch(text); m != nil {
		return usagef("%s: not a flag; see sbxnet %s--help", shown(m[1]), helpPrefix(c))
	}
	return usagef("%w", err)
}

// dashes is a flag as it is written: one dash before a letter, two before a
// word.
func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func helpPrefix(c *cli.Context) string {
	if c.Command == nil || c.Command.Name == "" || c.Command.Name == "sbxnet" {
		return ""
	}
	return c.Command.Name + " "
}

// nearest suggests the flag that was meant, if one is near.
func nearest(c *cli.Context, name string) string {
	if c.Command == nil || len(name) < 2 || cli.SuggestFlag == nil {
		return ""
	}
	if s := strings.TrimLeft(cli.SuggestFlag(c.Command.Flags, name, true), "-"); s != "" {
		return ", perhaps " + dashes(s)
	}
	return ""
}

// versionString is the release, or what the Go toolchain stamped into the
// binary.
func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "development"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v += " " + s.Value
			}
		}
	}
	return v + " " + info.GoVersion
}
