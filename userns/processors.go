package userns

import (
	"os"
	"strings"
)

// maxProcs is the variable by which Go's runtime is told, before it begins, how
// much it does at the same time.
const maxProcs = "GOMAXPROCS"

// oneProcessor is env for a sandbox's first process. That does one thing after
// the other, and the runtime keeps memory of every size ready for each
// processor: 0.25 MB less with one. It can only be told so by the environment: to
// change it later costs more than it saves. What env says for the command itself
// goes with the setup, and is put back by restoreMaxProcs.
func oneProcessor(env []string) []string { return append([]string{maxProcs + "=1"}, env...) }

// maxProcsOf is what env says for the command, nil if nothing. Of several, Go's
// programs hold to the first.
func maxProcsOf(env []string) []byte {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, maxProcs+"="); ok {
			return []byte(v)
		}
	}
	return nil
}

// restoreMaxProcs undoes oneProcessor in the environment that the command gets.
func restoreMaxProcs(own []byte) {
	if own == nil {
		os.Unsetenv(maxProcs)
		return
	}
	os.Setenv(maxProcs, string(own))
}
