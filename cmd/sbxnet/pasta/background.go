package pasta

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/console"
)

// readyVariable tells the process in the background which descriptor the pipe is
// that it reports on.
const readyVariable = "SBXNET_PASTA_READY"

// readyMark on the pipe ends the messages: the network is up.
const readyMark = 0

// inheritReady is the pipe to report on, in the process in the background.
func inheritReady() *os.File {
	if os.Getenv(readyVariable) != fmt.Sprint(readyFD) {
		return nil
	}
	os.Unsetenv(readyVariable)
	unix.CloseOnExec(readyFD)
	return os.NewFile(readyFD, "ready")
}

const readyFD = 3

// toBackground starts the process in the background, prints what that says, and
// returns when it is ready or has failed.
func toBackground(args []string, stderr io.Writer) int {
	proc, report, err := startBackground(args)
	if err != nil {
		return complain(stderr, "pasta", fmt.Errorf("start the process in the background: %w", err))
	}
	defer report.Close()
	messages, err := bufio.NewReader(report).ReadString(readyMark)
	text, ready := strings.CutSuffix(messages, string(rune(readyMark)))
	io.WriteString(stderr, text)
	if ready {
		proc.Release()
		return exitOK
	}
	state, waitErr := proc.Wait()
	if text == "" {
		return complain(stderr, "pasta", fmt.Errorf("the process in the background (pid %d) ended before it was ready: %w", proc.Pid, errors.Join(err, waitErr, died(state))))
	}
	return exitFailure
}

func died(state *os.ProcessState) error {
	if state == nil {
		return nil
	}
	return errors.New(state.String())
}

// startBackground starts ourselves again. Nothing that the caller may wait for
// the end of goes along: no standard stream, no descriptor of the caller's.
func startBackground(args []string) (*os.Process, *os.File, error) {
	report, theirs, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		report.Close()
		return nil, nil, err
	}
	defer null.Close()
	if err := unix.CloseRange(readyFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		closeOnExecAll()
	}
	proc, err := os.StartProcess("/proc/self/exe", append([]string{"pasta"}, args...), &os.ProcAttr{
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d", readyVariable, readyFD)),
		Files: []*os.File{null, null, null, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		report.Close()
		return nil, nil, err
	}
	return proc, report, nil
}

// closeOnExecAll is close_range for kernels before 5.11.
func closeOnExecAll() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && fd >= readyFD {
			unix.CloseOnExec(fd)
		}
	}
}

// runBackground is the process in the background: it reports on ready until it
// has closed that.
func runBackground(args []string, ready *os.File) int {
	// The kernel has called us after the file that we were started by.
	os.WriteFile("/proc/self/comm", []byte("pasta"), 0)
	fail := func(err error) int {
		fmt.Fprintln(ready, "pasta: "+console.OneLine(err.Error()))
		return exitFailure
	}
	o, err := parse(args)
	if err != nil {
		return fail(err)
	}
	signals := endings()
	report := &reporter{w: ready}
	w, err := o.logWriter(report)
	if err != nil {
		return fail(err)
	}
	defer w.Close()
	s, err := open(o, newLog(w, o))
	if err != nil {
		return fail(err)
	}
	// Whoever started us may want to remove or unmount where that was.
	os.Chdir("/")
	if err := report.ready(); err != nil {
		s.close() // nobody knows that we are here
		return exitFailure
	}
	if err := s.wait(signals); err != nil {
		return exitFailure
	}
	return exitOK
}
