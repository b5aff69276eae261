package tapdev

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inNamespace runs the calling test a second time, as root of a user,
// network and mount namespace of its own, and reports whether this is that second time.
// The first one passes on how it ended.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "TAPDEV_TEST_IN_NAMESPACE"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=5m"}
	cmd := exec.Command("/proc/self/exe", args...)
	// The race detector waits a second before it exits, for nothing here.
	cmd.Env = append(os.Environ(), mark+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	startNamespaced(t, cmd)
	err := cmd.Wait()
	out := output.Bytes()
	switch {
	case err == nil && bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("in part:\n%s", out)
	case err == nil:
		t.Logf("%s", out)
	default:
		t.Fatalf("in its namespace: %v\n%s", err, out)
	}
	return false
}

// startNamespaced starts a command in namespaces of its own, and skips the test
// where the machine allows none. In CI that is a failure.
func startNamespaced(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	err := cmd.Start()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("start in a new user and network namespace: %v", err)
	default:
		t.Skipf("this machine allows no user and network namespace: %v", err)
	}
}

// needTAP skips a test that cannot open /dev/net/tun. In CI that is a failure.
func needTAP(t *testing.T) {
	t.Helper()
	err := tunUsable()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no TAP: %v", err)
	}
	t.Skipf("no TAP: %v", err)
}

func unsafeBytes(v unix.Iovec) []byte { return unsafe.Slice(v.Base, int(v.Len)) }
