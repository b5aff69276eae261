package slirp4netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unthreadedEnv makes this test binary execute a shell by way of a program of
// ours.
const unthreadedEnv = "SBXNET_TEST_UNTHREADED"

func tryUnthreaded() {
	sh, err := os.Open("/bin/sh")
	if err != nil {
		fmt.Println(err)
		return
	}
	setCloseOnExec(false, rawFD(sh))
	u := &unthreaded{}
	u.do(unix.SYS_CLOSE, num(1<<20))                                            // fails, and nobody minds
	u.do(unix.SYS_PRCTL, num(unix.PR_SET_NO_NEW_PRIVS), num(1))                 // numbers
	u.do(unix.SYS_WRITE, num(1), u.put([]byte("data, ")...), num(6))            // data
	u.do(unix.SYS_WRITE, num(1), u.put([]byte("aligned or not\n")...), num(15)) // and more
	u.thenExecute(rawFD(sh))
	fmt.Println(u.execute([]string{"sh", "-c", `echo $$ "$0" "$1" "$MARK"; grep NoNewPrivs /proc/self/status`, "zero", "one"}, []string{"A=1", "MARK=mark", "PATH=/usr/bin:/bin"}))
}

func TestUnthreadedProgramCallsAndExecutes(t *testing.T) {
	if !canBeUnthreaded {
		t.Skip("nobody has written the instructions of " + runtime.GOARCH + " down")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), unthreadedEnv+"=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := fmt.Sprintf("data, aligned or not\n%d zero one mark\nNoNewPrivs:\t1\n", cmd.Process.Pid)
	if string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// Machine code must be as long whatever addresses it has: the data comes after it.
func TestLengthOfCodeDoesNotDependOnAddresses(t *testing.T) {
	c := call{unix.SYS_WRITE, []arg{num(1), {0, data}, num(6)}}
	if a, b := len(encode(c, 0)), len(encode(c, 0x7fff_1234_5678)); a != b {
		t.Errorf("%d and %d bytes", a, b)
	}
}

// Who finds the variable of another process, or nonsense, was not executed anew.
func TestMoveIsForItsOwnProcess(t *testing.T) {
	for _, value := range []string{"", "{", `{"PID":1}`, fmt.Sprintf(`{"PID":%d,"Files":[-1]}`, os.Getpid()+1), strings.Repeat("[", 1<<16)} {
		t.Setenv(movedEnv, value)
		if m := moved(); m != nil {
			t.Errorf("%.40q: %+v", value, m)
		}
		if _, ok := os.LookupEnv(movedEnv); ok {
			t.Errorf("%.40q is handed on", value)
		}
	}
}

func TestArrivingWhereOneWasIsAnError(t *testing.T) {
	ns, err := mountNamespace()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&move{PID: os.Getpid(), Mounts: ns, UID: os.Getuid(), GID: os.Getgid()}).arrive(); err == nil {
		t.Error("the mount namespace is taken for its own")
	}
}
