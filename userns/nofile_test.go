package userns

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLimitOfFilesIsTheOneFromBeforeGoRaisedIt(t *testing.T) {
	const mark = "SBXNET_TEST_NOFILE"
	if os.Getenv(mark) != "" {
		if got, ok := startedWithFiles(); !ok || got != (unix.Rlimit{Cur: 123, Max: 456}) {
			t.Errorf("found %+v, %v", got, ok)
		}
		return
	}
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command("sh", "-c", `ulimit -Sn 123; ulimit -Hn 456; exec "$0" -test.run=`+t.Name(), exe)
	cmd.Env = append(os.Environ(), mark+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
