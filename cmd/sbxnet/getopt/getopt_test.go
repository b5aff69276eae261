package getopt

import (
	"slices"
	"strings"
	"testing"
)

var options = Set{
	{Name: "configure", Short: 'c'},
	{Name: "exit-fd", Short: 'e', Value: true},
	{Name: "enable-ipv6", Short: '6'},
	{Name: "enable-sandbox"},
	{Name: "mtu", Short: 'm', Value: true},
	{Short: 'z'},
}

// written is a parsed command line in one canonical form.
func written(found []Found, operands []string) string {
	var out []string
	for _, f := range found {
		name := f.Name
		if name == "" {
			name = string(f.Short)
		}
		if f.Value {
			name += "=" + f.Argument
		}
		out = append(out, name)
	}
	return strings.Join(append(append(out, "|"), operands...), " ")
}

func TestOptionsAreReadAsGetoptDoes(t *testing.T) {
	for line, want := range map[string]string{
		"":                             "|",
		"-c -e 3 PID tap0":             "configure exit-fd=3 | PID tap0",
		"-ce3 PID":                     "configure exit-fd=3 | PID",
		"-ce 3 PID":                    "configure exit-fd=3 | PID",
		"PID -c tap0 --mtu 1500":       "configure mtu=1500 | PID tap0",
		"--mtu=1500 --mtu=9000 PID":    "mtu=1500 mtu=9000 | PID",
		"--mtu= PID":                   "mtu= | PID",
		"--conf --ex=7":                "configure exit-fd=7 |",
		"--mtu -1":                     "mtu=-1 |",
		"-c -- -e --mtu":               "configure | -e --mtu",
		"- -c":                         "configure | -",
		"--enable-ipv6 -6z":            "enable-ipv6 enable-ipv6 z |",
		"--enable-sandbox --enable-ip": "enable-sandbox enable-ipv6 |",
	} {
		found, operands, err := options.Parse(strings.Fields(line), false)
		if got := written(found, operands); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
}

func TestACommandKeepsItsOptions(t *testing.T) {
	found, operands, err := options.Parse([]string{"-c", "ls", "-l", "--all"}, true)
	if got, want := written(found, operands), "configure | ls -l --all"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestErrorsAreGetoptsOwn(t *testing.T) {
	for line, want := range map[string]string{
		"--foo":           "unrecognized option '--foo'",
		"--foo=bar":       "unrecognized option '--foo=bar'",
		"--enable":        "option '--enable' is ambiguous; possibilities: '--enable-ipv6' '--enable-sandbox'",
		"--enable-ipv6=1": "option '--enable-ipv6' doesn't allow an argument",
		"--mtu":           "option '--mtu' requires an argument",
		"-q":              "invalid option -- 'q'",
		"-cq":             "invalid option -- 'q'",
		"-e":              "option requires an argument -- 'e'",
	} {
		if _, _, err := options.Parse(strings.Fields(line), false); err == nil || err.Error() != want {
			t.Errorf("%q: %v; want %q", line, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-ce3 --mtu=5 x -- y")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		given := slices.Clone(args)
		found, operands, err := options.Parse(args, false)
		if err == nil && len(found) > len(line) || len(operands) > len(args) {
			t.Errorf("%q: %d options, %d operands", line, len(found), len(operands))
		}
		if !slices.Equal(args, given) {
			t.Errorf("%q: the arguments were changed", line)
		}
	})
}
