package userns

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// impatient has what does not answer found out.
func impatient(t *testing.T) {
	former := listenTimeout
	listenTimeout = 200 * time.Millisecond
	t.Cleanup(func() { listenTimeout = former })
}

// fill sends until the other end would have to read.
func fill(t *testing.T, c *net.UnixConn) {
	t.Helper()
	must(t, c.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
	var err error
	for err == nil {
		err = sendMessage(c, message{Op: opNote, Text: strings.Repeat("x", maxMessage/2)})
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	must(t, c.SetWriteDeadline(time.Time{}))
}

func TestNobodyWaitsForWhoDoesNotReadWhatIsAsked(t *testing.T) {
	for name, asked := range map[string]func(t *testing.T) (asker, *net.UnixConn, int){
		"sandbox": func(t *testing.T) (asker, *net.UnixConn, int) {
			sb := runningSandbox(t, linked())
			conn, err := sb.openService()
			must(t, err)
			return sb, conn, sb.PID()
		},
		"sandbox's service": func(t *testing.T) (asker, *net.UnixConn, int) {
			sb := runningSandbox(t, linked())
			return sb, sb.conn, sb.PID()
		},
		"attachment": func(t *testing.T) (asker, *net.UnixConn, int) {
			a := attached(t, attachTo(makeNamespace(t, "", rootInside...)))
			return a, a.conn, a.PID()
		},
	} {
		t.Run(name, func(t *testing.T) {
			who, conn, pid := asked(t)
			halted(t, pid)
			fill(t, conn)
			impatient(t)
			began := time.Now()
			if _, err := who.Sockets(false, 1); err == nil || !strings.Contains(err.Error(), "does not answer") {
				t.Errorf("%v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			must(t, unix.Kill(pid, unix.SIGCONT))
		})
	}
}

func TestDescriptorsThatAreLostAreSaidToBe(t *testing.T) {
	sb := runningSandbox(t, linked())
	a := attached(t, attachTo(makeNamespace(t, "", rootInside...)))
	for name, who := range map[string]asker{"sandbox": sb, "attachment": a} {
		files, err := who.Sockets(false, 1)
		must(t, err)
		closeAll(files)
		var limit unix.Rlimit
		must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		next, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		unix.Close(next)
		// By Prlimit, as Setrlimit would have the runtime change its children's.
		must(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next) + 3, Max: limit.Max}, nil))
		files, err = who.Sockets(false, 100)
		must(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil))
		if !errors.Is(err, unix.EMFILE) || files != nil || !strings.Contains(err.Error(), "ulimit -n") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		files, err = who.Sockets(false, 100)
		if err != nil || len(files) != 100 {
			t.Errorf("%s, afterwards: %v", name, err)
		}
		closeAll(files)
	}
}

// stoppedEnv has the test below be the process that is stopped.
const stoppedEnv = "SBXNET_TEST_STOPPED"

func TestTimeForWhichTheJobIsStoppedDoesNotCount(t *testing.T) {
	const limit = time.Second
	if os.Getenv(stoppedEnv) != "" {
		conn, err := controlConn(os.NewFile(3, "control"))
		must(t, err)
		_, _ = io.WriteString(os.Stdout, "waits\n")
		if err := await(conn, unix.POLLIN, limit); err != nil {
			t.Fatal(err)
		}
		return
	}
	conn, theirs, err := controlPair()
	must(t, err)
	defer conn.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), stoppedEnv+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	theirs.Close()
	said := bufio.NewReader(out)
	_, err = said.ReadString('\n')
	must(t, err)
	for range 2 { // the first time it may not wait yet
		halted(t, cmd.Process.Pid)
		time.Sleep(limit + limit/5) // it is what is tested
		must(t, cmd.Process.Signal(unix.SIGCONT))
		time.Sleep(limit / 5)
	}
	must(t, sendMessage(conn, message{Op: opDone}))
	rest, _ := io.ReadAll(said)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, rest)
	}
}
