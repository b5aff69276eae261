package slirp4netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// confinedEnv makes this test binary a process that confines itself and says
// what it can still do, one line each.
const confinedEnv = "SBXNET_TEST_CONFINED"

func TestMain(m *testing.M) {
	if os.Getenv(unthreadedEnv) != "" {
		tryUnthreaded()
		os.Exit(1)
	}
	if api := os.Getenv(confinedEnv); api != "" {
		tryConfined(api)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func tryConfined(api string) {
	// Threads that are there before, and one that tries.
	var busy, tried sync.WaitGroup
	hold := make(chan struct{})
	for range 4 {
		busy.Add(1)
		tried.Go(func() { runtime.LockOSThread(); busy.Done(); <-hold })
	}
	busy.Wait()
	var notes bytes.Buffer
	o := &options{APISocket: api, Sandbox: true, Seccomp: true}
	switch os.Getenv(confinedEnv + "_ONLY") {
	case "seccomp":
		o.Sandbox = false
	case "sandbox":
		o.Seccomp = false
	case "no api":
		o.APISocket = ""
	}
	o.confine(false, slog.New(slog.NewTextHandler(&notes, &slog.HandlerOptions{Level: slog.LevelDebug})))
	say := func(what string, err error) {
		verdict := "yes"
		if err != nil {
			verdict = "no"
		}
		fmt.Println(what, verdict)
	}
	close(hold)
	tried.Wait()
	tried.Go(func() {
		say("execute", exec.Command("/bin/true").Run())
		_, err := os.ReadFile("/etc/resolv.conf")
		say("resolvers", err)
		_, err = os.ReadFile(filepath.Join(filepath.Dir(api), "secret"))
		say("secret", err)
		say("write", os.WriteFile(filepath.Join(filepath.Dir(api), "new"), nil, 0o600))
		say("remove", os.Remove(api))
		status, _ := os.ReadFile("/proc/thread-self/status")
		for _, line := range strings.Split(string(status), "\n") {
			if strings.HasPrefix(line, "CapPrm:") || strings.HasPrefix(line, "Seccomp:") || strings.HasPrefix(line, "NoNewPrivs:") {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
	})
	tried.Wait()
	fmt.Print("notes ", strings.TrimSpace(notes.String()), "\n")
}

func confined(t *testing.T, only string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"api", "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), confinedEnv+"="+filepath.Join(dir, "api"), confinedEnv+"_ONLY="+only, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func assertLines(t *testing.T, got string, want ...string) {
	t.Helper()
	lines := strings.Split(got, "\n")
	for _, w := range want {
		if !slices.Contains(lines, w) {
			t.Errorf("no %q in:\n%s", w, got)
		}
	}
}

func TestSeccompTakesCallsAwayFromEveryThread(t *testing.T) {
	assertLines(t, confined(t, "seccomp"), "Seccomp: 2", "NoNewPrivs: 1", "execute no", "resolvers yes", "secret yes", "write yes", "remove yes", "notes ")
}

// cgo is true where the runtime does not know all threads.
func cgo() bool {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	return errors.Is(errno, syscall.ENOTSUP)
}

// In each build at least nothing can be written.
func TestSandboxTakesFilesAway(t *testing.T) {
	assertLines(t, confined(t, "sandbox"), "Seccomp: 2", "resolvers yes", "write no", "remove yes")
	assertLines(t, confined(t, "no api"), "Seccomp: 2", "resolvers yes", "write no", "remove no", "execute no")
}

func TestSandboxTakesTheSightOfFilesAndCapabilitiesAway(t *testing.T) {
	got := confined(t, "")
	if cgo() { // then it says so, to who looks, and runs on
		if !strings.Contains(got, "without Landlock") || !strings.Contains(got, "leaves capabilities") || strings.Contains(got, "no filter") {
			t.Errorf("no note of it:\n%s", got)
		}
		return
	}
	capabilities := "CapPrm: 0000000000000000"
	if os.Getuid() == 0 {
		capabilities = fmt.Sprintf("CapPrm: %016x", 1<<unix.CAP_NET_BIND_SERVICE)
	}
	assertLines(t, got, capabilities, "execute no", "resolvers yes", "secret no", "write no", "remove yes", "notes ")
}

// The filter is run here as the kernel runs it.
func TestFilterDeniesWhatItNamesAndNothingElse(t *testing.T) {
	vm, err := bpf.NewVM(filter{true, true, true}.program())
	if err != nil {
		t.Fatal(err)
	}
	// The VM reads its packet as big-endian, the kernel struct seccomp_data as
	// it lies: the numbers are put so that both see the same.
	verdict := func(call, arch uint32, arguments ...uint32) int {
		data := make([]byte, 64)
		put := func(at int, v uint32) { binary.BigEndian.PutUint32(data[at:], v) }
		put(0, call)
		put(4, arch)
		for i, a := range arguments {
			put(16+8*i, a)
		}
		v, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	deny := unix.SECCOMP_RET_ERRNO | int(unix.EPERM)
	for _, call := range slices.Concat(deniedCalls, writeCalls, removeCalls) {
		if verdict(call, auditArch) != deny {
			t.Errorf("call %d is allowed", call)
		}
	}
	for _, call := range []uint32{
		unix.SYS_READ, unix.SYS_WRITEV, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_ACCEPT4, unix.SYS_BIND, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG,
		unix.SYS_CLONE, unix.SYS_FUTEX, unix.SYS_MMAP, unix.SYS_EPOLL_PWAIT, unix.SYS_EXIT_GROUP, unix.SYS_TGKILL,
	} {
		if verdict(call, auditArch) != unix.SECCOMP_RET_ALLOW {
			t.Errorf("call %d is denied", call)
		}
	}
	for call, at := range opens {
		for flags, want := range map[uint32]int{
			unix.O_RDONLY: unix.SECCOMP_RET_ALLOW, unix.O_RDONLY | unix.O_CLOEXEC | unix.O_DIRECTORY: unix.SECCOMP_RET_ALLOW,
			unix.O_WRONLY: deny, unix.O_RDWR | unix.O_CLOEXEC: deny, unix.O_RDONLY | unix.O_CREAT: deny, unix.O_RDONLY | unix.O_TRUNC: deny,
		} {
			arguments := make([]uint32, at+1)
			arguments[at] = flags
			if got := verdict(call, auditArch, arguments...); got != want {
				t.Errorf("open call %d with flags %#x: %#x", call, flags, got)
			}
		}
	}
	if verdict(unix.SYS_READ, auditArch+1) != deny {
		t.Error("another architecture's calls are allowed")
	}
	if runtime.GOARCH == "amd64" && verdict(unix.SYS_READ|x32Bit, auditArch) != deny {
		t.Error("x32 calls are allowed")
	}
}
