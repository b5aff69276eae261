package linktest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"sbxnet/tapdev"
)

// Env names the environment variable that has the choice.
const Env = "SBXNET_TEST_LINK"

// A Choice is what a link is to be, as far as that is said. The zero value says
// nothing.
type Choice struct{ said []setting }

type setting struct {
	name, value string
	apply       func(*tapdev.Options)
}

// splice is the one choice that is not of a link: whether clients of published
// ports do without it.
const splice = "splice"

// Chosen is the choice in the environment. It panics where that is none: tests
// would pass for links that they have not seen.
//
// Tests call it when they make a link, and not before they run: what they read
// then is part of what the go command caches their result by.
func Chosen() Choice {
	c, err := Parse(os.Getenv(Env))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", Env, err))
	}
	return c
}

// Parse reads words of the form name=value, names being those of flags of
// `sbxnet run`.
func Parse(text string) (Choice, error) {
	var c Choice
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		apply, err := effect(name, value)
		if err != nil {
			return Choice{}, fmt.Errorf("%s: %w", word, err)
		}
		if slices.ContainsFunc(c.said, func(s setting) bool { return s.name == name }) {
			return Choice{}, fmt.Errorf("%s: said twice", name)
		}
		c.said = append(c.said, setting{name, value, apply})
	}
	return c, nil
}

// effect is what one word does to the options of a link.
func effect(name, value string) (func(*tapdev.Options), error) {
	switch name {
	case "link":
		kind := tapdev.Kind(value)
		if kind != tapdev.TAP && kind != tapdev.Packet {
			return nil, fmt.Errorf("not a kind of link; use tap or packet")
		}
		return func(o *tapdev.Options) { o.Kind = kind }, nil
	case "num-network-channels":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > tapdev.MaxQueues {
			return nil, fmt.Errorf("not a number from 1 to %d", tapdev.MaxQueues)
		}
		return func(o *tapdev.Options) { o.Queues = n }, nil
	}
	field, known := switches[name]
	if !known && name != splice {
		return nil, fmt.Errorf("no such choice")
	}
	if value != "true" && value != "false" {
		return nil, fmt.Errorf("neither true nor false")
	}
	if name == splice {
		return func(*tapdev.Options) {}, nil
	}
	return func(o *tapdev.Options) { *field(o) = value == "true" }, nil
}

var switches = map[string]func(*tapdev.Options) *bool{
	"gso":                 func(o *tapdev.Options) *bool { return &o.GSO },
	"software-gso":        func(o *tapdev.Options) *bool { return &o.SoftwareGSO },
	"gro":                 func(o *tapdev.Options) *bool { return &o.GRO },
	"tx-checksum-offload": func(o *tapdev.Options) *bool { return &o.TXChecksum },
	"rx-checksum-offload": func(o *tapdev.Options) *bool { return &o.RXChecksum },
}

// Apply changes what the choice speaks of in o, and nothing else.
func (c Choice) Apply(o *tapdev.Options) {
	for _, s := range c.said {
		s.apply(o)
	}
}

// Splice reports whether clients of published ports may do without the link: they
// may, unless that is said.
func (c Choice) Splice() bool {
	return !slices.ContainsFunc(c.said, func(s setting) bool { return s.name == splice && s.value == "false" })
}

// Flags are those of `sbxnet run` that say the same. Put before a test's own:
// of a flag that is given twice the last one counts.
func (c Choice) Flags() []string {
	var flags []string
	for _, s := range c.said {
		flags = append(flags, "--"+s.name+"="+s.value)
	}
	return flags
}

// BuildFlags are those of `go build` with which the program has the choice in it,
// for tests that call it where there are no flags for links: under its other
// names.
func (c Choice) BuildFlags() []string {
	if len(c.said) == 0 {
		return nil
	}
	return []string{"-tags=linktest", fmt.Sprintf("-ldflags=-X '%s=%s'", builtIn, c)}
}

// builtIn is the variable that the linker sets; see cmd/sbxnet/network/choice.go.
const builtIn = "sbxnet/cmd/sbxnet/network.choice"

// String is the choice as Parse reads it.
func (c Choice) String() string {
	words := make([]string, len(c.said))
	for i, s := range c.said {
		words[i] = s.name + "=" + s.value
	}
	return strings.Join(words, " ")
}

// Arguments are those of the program with the choice's flags put in front of
// their own, if the command is one that makes a link.
func (c Choice) Arguments(args ...string) []string {
	if len(args) == 0 || args[0] != "run" && args[0] != "attach" || linkless(args) {
		return args
	}
	return slices.Concat(args[:1], c.Flags(), args[1:])
}

// linkless reports whether a network mode is asked for that has no link: flags
// that speak of one are refused there.
func linkless(args []string) bool {
	for i, a := range args {
		if a == "--" {
			break
		}
		mode, joined := strings.CutPrefix(a, "--network=")
		if a == "--network" && i+1 < len(args) {
			mode, joined = args[i+1], true
		}
		if joined && mode != "sandbox" {
			return true
		}
	}
	return false
}
