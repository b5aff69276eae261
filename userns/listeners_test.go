package userns

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// listener is a listening socket, as a service manager opens one.
func listener(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, l.Addr().String()
}

// portOf is a listening port as /proc/net/tcp has it.
func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(address)
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ToUpper(strconv.FormatInt(int64(n), 16))
}

func TestListenersAreTheCommandsAndNoOtherFilesAre(t *testing.T) {
	for _, pidNamespace := range []bool{false, true} {
		one, address := listener(t)
		two, _ := listener(t)
		cfg := unlinked()
		cfg.PIDNamespace = pidNamespace
		cfg.Listeners = []*os.File{one, two}
		cfg.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b", "LISTEN_PID=1", "LISTEN_PIDFDID=1")
		out, status := shell(t, cfg, `
			test $LISTEN_PID = $$ && test $LISTEN_PIDFDID != 1 && echo ours
			echo $LISTEN_FDS $LISTEN_FDNAMES
			for fd in 3 4; do readlink /proc/self/fd/$fd | sed 's/[0-9].*//'; done
			for fd in /proc/$$/fd/*; do n=${fd##*/}; test $n -le 4 || readlink $fd; done; true`)
		if want := "ours\n2 a:b\nsocket:[\nsocket:["; status != 0 || out != want {
			t.Errorf("PID namespace %v: status %d:\n%s\nwant:\n%s", pidNamespace, status, out, want)
		}
		if flags, err := unix.FcntlInt(one.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("our own descriptor is no longer close-on-exec: %v, %v", flags, err)
		}
		c, err := net.Dial("tcp4", address) // still listening, and still ours
		if err != nil {
			t.Error(err)
			continue
		}
		c.Close()
	}
}

func TestListenersStayNonblocking(t *testing.T) {
	f, _ := listener(t)
	before := nonblocking(t, f)
	cfg := unlinked()
	cfg.Listeners = []*os.File{f}
	if _, status := shell(t, cfg, "true"); status != 0 {
		t.Fatalf("status %d", status)
	}
	if after := nonblocking(t, f); !before || !after {
		t.Errorf("non-blocking before: %v, after: %v", before, after)
	}
}

func nonblocking(t *testing.T, f *os.File) (on bool) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		on = err == nil && flags&unix.O_NONBLOCK != 0
	}); err != nil {
		t.Fatal(err)
	}
	return on
}

func TestCommandWithListenersThatCannotStartHasItsStatus(t *testing.T) {
	f, _ := listener(t)
	script := t.TempDir() + "/script"
	if err := os.WriteFile(script, []byte("#!/nonexistent/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := unlinked()
	cfg.Listeners = []*os.File{f}
	cfg.Command = []string{script}
	sb := started(t, cfg)
	if err := sb.Exec(); err != nil {
		t.Fatal(err)
	}
	if status, err := sb.Wait(); err != nil || status != StatusNotFound {
		t.Errorf("status %d, %v; want %d", status, err, StatusNotFound)
	}
}

// inheritedEnv makes a process of this test say what InheritedListeners found.
const inheritedEnv = "SBXNET_TEST_INHERITED"

func TestInheritedListeners(t *testing.T) {
	f, address := listener(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, pid, fds, want string }{
		{"announced for it", "$$", "1", "1 " + portOf(t, address)},
		{"announced for another", "1", "1", "0"},
		{"announced for nobody", "", "1", "0"},
		{"no number of them", "$$", "", "0"},
		{"none of them", "$$", "0", "0"},
		{"fewer than announced", "$$", "2", `LISTEN_FDS=2: descriptor 4 is not open`},
		{"far fewer than announced", "$$", "70000", `LISTEN_FDS="70000": not a number from 0 to 1024`},
		{"a word", "$$", "many", `LISTEN_FDS="many": not a number from 0 to 1024`},
		{"less than none", "$$", "-1", `LISTEN_FDS="-1": not a number from 0 to 1024`},
	} {
		cmd := exec.Command("sh", "-c", `LISTEN_PID=`+c.pid+` LISTEN_FDS=`+c.fds+` exec '`+self+`'`)
		cmd.Env = append(os.Environ(), inheritedEnv+"=1")
		cmd.ExtraFiles = []*os.File{f}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
		if got := strings.TrimSpace(string(out)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// sayInherited prints the number of listeners and the port of the first.
func sayInherited() {
	files, err := InheritedListeners()
	if err != nil {
		os.Stdout.WriteString(err.Error())
		return
	}
	os.Stdout.WriteString(strconv.Itoa(len(files)))
	if len(files) > 0 {
		if sa, err := unix.Getsockname(3); err == nil {
			port := sa.(*unix.SockaddrInet4).Port
			os.Stdout.WriteString(" " + strings.ToUpper(strconv.FormatInt(int64(port), 16)))
		}
	}
}
