package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sbxnet/tapdev/linktest"
)

// sbxnet is a command line of the real program, with the link that
// SBXNET_TEST_LINK says.
func sbxnet(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", linktest.Chosen().Arguments(args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	// A test that panics or runs out of time must not leave it behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

var demoAddress = regexp.MustCompile(`^    (http://127\.0\.0\.1:\d+)\n$`)

// The demo needs nothing but itself: its page is up, its isolation checks hold,
// and a signal ends it with everything it opened.
func TestDemo(t *testing.T) {
	cmd := sbxnet("demo")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	t.Cleanup(func() { // for a test that has failed
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	site := ""
	for out := bufio.NewReader(stdout); site == ""; {
		line, err := out.ReadString('\n')
		if err != nil {
			cmd.Wait()
			t.Fatalf("no address: %v, stderr %q", err, stderr.String())
		}
		if m := demoAddress.FindStringSubmatch(line); m != nil {
			site = m[1]
		}
	}
	_, page := get(t, site)
	for _, want := range []string{interfaceName, "default", "nameserver", "gateway"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	holds := settledChecks(t, site)
	for _, name := range []string{checkLoopback, checkClosedPort, checkDNS} {
		if holds[name].State != stateOK {
			t.Errorf("%+v", holds[name])
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, stderr %q", err, stderr.String())
	}
	if c, err := net.Dial("tcp", strings.TrimPrefix(site, "http://")); err == nil {
		c.Close()
		t.Error("the port is still published")
	}
}

// settledChecks asks until the host has had its say as well.
func settledChecks(t *testing.T, site string) map[string]check {
	t.Helper()
	found := map[string]check{}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		_, body := get(t, site+"/checks")
		var all []check
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			found[c.Name] = c
		}
		if found[checkClosedPort].State != stateWaiting {
			return found
		}
	}
	t.Errorf("the host did not report: %+v", found)
	return found
}

var doctorLine = regexp.MustCompile(`^(ok|degraded|missing) +[^:]+: .+$`)

func TestDoctor(t *testing.T) {
	out, err := sbxnet("doctor").Output()
	if err != nil {
		t.Errorf("%v: this machine runs the other tests, so doctor should be content\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, line := range lines[:len(lines)-2] {
		if !doctorLine.MatchString(line) {
			t.Errorf("not a finding: %q", line)
		}
	}
	for _, name := range []string{"user namespaces", "AppArmor", "max_user_namespaces", "newuidmap", "/dev/net/tun", "ping_group_range", "packet link"} {
		if !strings.Contains(string(out), name) {
			t.Errorf("nothing about %s", name)
		}
	}
}

// Where user namespaces are switched off, doctor says so with the command that
// mends it, run fails with the same line, and nothing else is printed.
func TestDoctorAndRunAgreeOnWhatIsMissing(t *testing.T) {
	script := `echo 0 > /proc/sys/user/max_user_namespaces; "$0" doctor; echo "status $?"; "$0" run -p 80 -- true; echo "status $?"`
	cmd := sbxnet("run", "-q", "--network", "none", "--", "sh", "-c", script, "/proc/self/exe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[len(cmd.Args)-1] = self
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	const line = "user namespaces: none are allowed (user.max_user_namespaces=0); to mend it: sudo sysctl -w user.max_user_namespaces="
	for _, want := range []string{"missing   " + line, "status 1\n", "status 125\n"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout.String())
		}
	}
	if !strings.Contains(stderr.String(), "sbxnet: "+line) || strings.Contains(stderr.String(), "published") {
		t.Errorf("run printed %q", stderr.String())
	}
}

// An error is the only line on stderr, whatever there was to say before.
func TestAnErrorIsTheOnlyLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	spec := fmt.Sprintf("127.0.0.1:%d:80", portOf(l))
	cmd := sbxnet("run", "-p", spec, "--", "touch", t.TempDir()+"/ran")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Run()
	said := stderr.String()
	if cmd.ProcessState.ExitCode() != exitFailure || strings.Count(said, "\n") != 1 ||
		!strings.HasPrefix(said, "sbxnet: publish ") || !strings.Contains(said, fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("status %d, stderr %q", cmd.ProcessState.ExitCode(), said)
	}
	if _, err := os.Stat(cmd.Args[len(cmd.Args)-1]); err == nil {
		t.Error("the command ran")
	}
}
