package cli

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func testFlags() []Flag {
	return []Flag{
		&BoolFlag{Name: "quiet", Aliases: []string{"q"}},
		&BoolFlag{Name: "ipv6", Value: true},
		&StringFlag{Name: "name", Aliases: []string{"n"}, Value: "none"},
		&StringSliceFlag{Name: "publish", Aliases: []string{"p"}},
		&IntFlag{Name: "mtu", Value: 1500},
	}
}

// run reads args as the flags and arguments of an app, or tells the error.
func run(args ...string) (got *Context, err error) {
	a := &App{Name: "x", Flags: testFlags(), Writer: io.Discard, Action: func(c *Context) error { got = c; return nil }}
	err = a.Run(append([]string{"x"}, args...))
	return got, err
}

func TestFlagsAndArguments(t *testing.T) {
	for line, want := range map[string]string{
		"":                           "false true none [] 1500 []",
		"-q -ipv6=false --name a b":  "true false a [] 1500 [b]",
		"--quiet=0 -n=a=b -mtu 0x10": "false true a=b [] 16 []",
		"-p 80 --publish=81 -p 82":   "false true none [80 81 82] 1500 []",
		"-n -- --name -q":            "false true -q [] 1500 []",
		"-q -- -q --ipv6=false":      "true true none [] 1500 [-q --ipv6=false]",
		"cmd -q -- --mtu 3":          "false true none [] 1500 [cmd -q -- --mtu 3]",
		"-":                          "false true none [] 1500 [-]",
		"-n  x":                      "false true  [] 1500 [x]", // the value is empty
	} {
		var args []string
		if line != "" {
			args = strings.Split(line, " ")
		}
		c, err := run(args...)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		got := fmt.Sprint(c.Bool("quiet"), c.Bool("ipv6"), " ", c.String("name"), " ", c.StringSlice("publish"), c.Int("mtu"), c.Args())
		if got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

func TestFlagIsSetByEachOfItsNames(t *testing.T) {
	c, err := run("-n", "none", "--mtu", "1500")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"name": true, "n": true, "mtu": true, "quiet": false, "q": false, "publish": false, "nothing": false} {
		if c.IsSet(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if c.Value("nothing") != nil || c.Bool("name") || c.String("mtu") != "" || c.Int("name") != 0 || c.StringSlice("name") != nil {
		t.Error("what is not there, or of another kind, has a value")
	}
}

func TestContextsShareNothing(t *testing.T) {
	flags := testFlags()
	for range 2 {
		a := &App{Name: "x", Flags: flags, Action: func(c *Context) error {
			if p := c.StringSlice("publish"); !slices.Equal(p, []string{"80"}) {
				t.Errorf("%q, want what this line says", p)
			}
			return nil
		}}
		if err := a.Run([]string{"x", "-p", "80"}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrorsSayWhichFlag(t *testing.T) {
	for line, want := range map[string]FlagError{
		"--bogus=1 x":        {Problem: Undefined, Name: "bogus"},
		"-q --name":          {Problem: NoValue, Name: "name"},
		"-q=maybe":           {Problem: NoBool, Name: "q", Value: "maybe"},
		"--mtu many":         {Problem: NoNumber, Name: "mtu", Value: "many"},
		"--mtu " + nineteens: {Problem: NoNumber, Name: "mtu", Value: nineteens},
		"---":                {Problem: BadSyntax, Name: "---"},
		"--=":                {Problem: BadSyntax, Name: "--="},
		"-=x":                {Problem: BadSyntax, Name: "-=x"},
	} {
		_, err := run(strings.Fields(line)...)
		var got *FlagError
		if !errors.As(err, &got) || got.Problem != want.Problem || got.Name != want.Name || got.Value != want.Value {
			t.Errorf("%s: %#v, want %#v", line, err, want)
		}
	}
}

var nineteens = strings.Repeat("9", 19+19)

// TestReadsAsTheFlagPackageDoes holds parse against it.
func TestReadsAsTheFlagPackageDoes(t *testing.T) {
	words := []string{"-q", "--quiet=false", "-q=x", "-n", "--name=", "--mtu", "-mtu=7", "--mtu=y", "12", "--", "-", "---", "--=x", "-z", "a"}
	for _, a := range words {
		for _, b := range words {
			for _, c := range words {
				sameAsFlagPackage(t, []string{a, b, c})
			}
		}
	}
}

func FuzzReadsAsTheFlagPackageDoes(f *testing.F) {
	f.Add("-q --mtu 12 -- x")
	f.Add("--name=\xff -=")
	f.Fuzz(func(t *testing.T, line string) { sameAsFlagPackage(t, strings.Split(line, " ")) })
}

func sameAsFlagPackage(t *testing.T, args []string) {
	t.Helper()
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	quiet, name, mtu := new(bool), new(string), new(int)
	for _, n := range []string{"quiet", "q"} {
		set.BoolVar(quiet, n, false, "")
	}
	for _, n := range []string{"name", "n"} {
		set.StringVar(name, n, "none", "")
	}
	set.IntVar(mtu, "mtu", 1500, "")
	wantErr := set.Parse(args)
	if errors.Is(wantErr, flag.ErrHelp) {
		return
	}
	c := newContext(nil, &Command{Flags: []Flag{
		&BoolFlag{Name: "quiet", Aliases: []string{"q"}}, &StringFlag{Name: "name", Aliases: []string{"n"}, Value: "none"},
		&IntFlag{Name: "mtu", Value: 1500},
	}})
	err := c.parse(args)
	if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
		t.Fatalf("%q: %v, the flag package: %v", args, err, wantErr)
	}
	if err != nil {
		return
	}
	if c.Bool("quiet") != *quiet || c.String("name") != *name || c.Int("mtu") != *mtu {
		t.Errorf("%q: %v %q %d, the flag package: %v %q %d", args, c.Bool("quiet"), c.String("name"), c.Int("mtu"), *quiet, *name, *mtu)
	}
	if !slices.Equal([]string(c.Args()), set.Args()) {
		t.Errorf("%q: arguments %q, the flag package: %q", args, c.Args(), set.Args())
	}
}

func TestCommands(t *testing.T) {
	var out bytes.Buffer
	called := ""
	a := &App{
		Name: "x", Version: "1.2", Writer: &out, Help: func() string { return "all\n" },
		Action: func(c *Context) error { called = "x " + c.Args().First(); return nil },
		OnUsageError: func(c *Context, e *FlagError) error {
			return fmt.Errorf("%s of %s", e.Name, c.Command.Name)
		},
		Commands: []*Command{{
			Name: "go", Help: func() string { return "go!\n" }, Flags: testFlags(),
			Action: func(c *Context) error {
				called = fmt.Sprint(c.Command.Name, c.Bool("q"), c.Args().Slice())
				return nil
			},
		}},
	}
	for line, want := range map[string][3]string{
		"x":                  {"", "x ", ""},
		"x stop":             {"", "x stop", ""},
		"x go -q a -b":       {"", "gotrue [a -b]", ""},
		"x -- go":            {"", "gofalse []", ""},
		"x go --help --huh":  {"go!\n", "", ""},
		"x -h go":            {"all\n", "", ""},
		"x --version":        {"x version 1.2\n", "", ""},
		"x go --huh":         {"", "", "huh of go"},
		"x -q go":            {"", "", "q of x"},
		"x go -n a --help b": {"go!\n", "", ""},
	} {
		out.Reset()
		called = ""
		message := ""
		if err := a.Run(strings.Fields(line)); err != nil {
			message = err.Error()
		}
		if got := [3]string{out.String(), called, message}; got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestHelpThatCannotBePrintedIsAnError(t *testing.T) {
	a := &App{Name: "x", Help: func() string { return "all\n" }, Writer: fullDisk{}}
	if err := a.Run([]string{"x", "--help"}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v", err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestNearest(t *testing.T) {
	c := &Command{Flags: testFlags()}
	for name, want := range map[string]string{"pubish": "publish", "hlep": "help", "quite": "quiet", "zzz": "", "m": "", "": "", "names": "name"} {
		if got := c.Nearest(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
