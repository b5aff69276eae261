package userns

import (
	"os"
	"strings"
	"testing"
)

// The first process makes do with one processor, and the command does not see
// that.
func TestOneProcessorIsForTheFirstProcessOnly(t *testing.T) {
	path := "PATH=" + os.Getenv("PATH")
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{path}, "unset"},
		{[]string{path, "GOMAXPROCS=7"}, "7"},
		{[]string{"GOMAXPROCS=", path}, ""},
	} {
		cfg := unlinked()
		cfg.Env = c.env
		out, status := shell(t, cfg, `echo "${GOMAXPROCS-unset}"; env | grep -c GOMAXPROCS; tr '\0' '\n' < /proc/$PPID/environ | grep GOMAXPROCS | head -n 1`)
		count := "1"
		if c.want == "unset" {
			count = "0"
		}
		if want := strings.Join([]string{c.want, count, "GOMAXPROCS=1"}, "\n"); status != 0 || strings.TrimSpace(out) != strings.TrimSpace(want) {
			t.Errorf("%q: status %d, %q; want %q", c.env[1:], status, out, want)
		}
	}
}
